//! Which environment variable a credential becomes.

use std::collections::BTreeMap;

use omni_credentials_host::Entry;

use crate::error::Error;
use crate::identity;

/// The credentials of these names; all if there are none.
pub(crate) fn choose(mut found: Vec<Entry>, only: &[String]) -> Result<Vec<Entry>, Error> {
    if only.is_empty() {
        return Ok(found);
    }
    if let Some(missing) = only.iter().find(|name| found.iter().all(|entry| entry.name != name.as_bytes())) {
        return Err(Error::NotFound(missing.clone()));
    }
    found.retain(|entry| only.iter().any(|name| entry.name == name.as_bytes()));
    Ok(found)
}

/// The variable of each credential.
pub(crate) fn assign(entries: &[Entry]) -> Result<BTreeMap<String, &Entry>, Error> {
    let mut variables = BTreeMap::<String, &Entry>::new();
    for entry in entries {
        let shown = identity::shown(&entry.identity());
        let Some(variable) = variable(&String::from_utf8_lossy(&entry.name)) else {
            return Err(Error::Variable(format!("{shown} cannot be the name of a variable")));
        };
        if RESERVED.contains(&variable.as_str())
            || RESERVED_PREFIXES.iter().any(|prefix| variable.starts_with(prefix))
        {
            return Err(Error::Variable(format!(
                "{shown} would be {variable}, which decides which code runs"
            )));
        }
        if let Some(other) = variables.get(&variable) {
            let other = identity::shown(&other.identity());
            return Err(Error::Variable(format!("{other} and {shown} would both be {variable}")));
        }
        variables.insert(variable, entry);
    }
    Ok(variables)
}

/// The variable of a credential: letters in upper case, digits, and `_` for every other character; a digit does not
/// come first. None for a name without letters and digits.
fn variable(name: &str) -> Option<String> {
    let mut variable = String::with_capacity(name.len() + 1);
    if name.starts_with(|first: char| first.is_ascii_digit()) {
        variable.push('_');
    }
    variable.extend(
        name.chars().map(
            |letter| {
                if letter.is_ascii_alphanumeric() { letter.to_ascii_uppercase() } else { '_' }
            },
        ),
    );
    variable.contains(|letter: char| letter.is_ascii_alphanumeric()).then_some(variable)
}

/// Variables that decide which code runs, in shells, the loader and common runtimes. A file must not set them. Node's
/// `config` has the same list; `conformance/variables.json` has vectors for both.
#[rustfmt::skip]
const RESERVED: [&str; 22] = [
    "PATH", "SHELL", "IFS", "ENV", "BASH_ENV", "SHELLOPTS", "PROMPT_COMMAND", "PS4", "GCONV_PATH",
    "NODE_OPTIONS", "NODE_PATH", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP",
    "PERL5LIB", "PERL5OPT", "RUBYLIB", "RUBYOPT",
    "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH",
];
const RESERVED_PREFIXES: [&str; 3] = ["LD_", "DYLD_", "BASH_FUNC_"];

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;
    use serde::Deserialize;

    /// What every host that makes variables of names must do.
    #[derive(Deserialize)]
    struct Vectors {
        variables: BTreeMap<String, String>,
        none: Vec<String>,
        same: Vec<[String; 2]>,
        reserved: Vec<String>,
    }

    #[test]
    fn the_vectors_of_all_hosts() {
        let vectors: Vectors =
            serde_json::from_str(include_str!("../../conformance/variables.json")).unwrap();
        let entry = |name: &String| Entry {
            expires: None,
            name: name.as_bytes().to_vec(),
            kind: b"credential".to_vec(),
            principal: b"app".to_vec(),
            scope: b"{}".to_vec(),
            sealed: Vec::new(),
            deleted: false,
        };
        for (name, expected) in &vectors.variables {
            let entries = [entry(name)];
            let assigned = assign(&entries).unwrap();
            assert_eq!(assigned.keys().collect::<Vec<_>>(), [expected], "{name}");
        }
        for name in vectors.none.iter().chain(&vectors.reserved) {
            assert!(matches!(assign(&[entry(name)]), Err(Error::Variable(_))), "{name}");
        }
        for names in &vectors.same {
            assert!(matches!(assign(&names.each_ref().map(entry)), Err(Error::Variable(_))), "{names:?}");
        }
    }
}
