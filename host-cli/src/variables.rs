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

/// Variables that decide which code runs. A file must not set them.
const RESERVED: [&str; 5] = ["PATH", "IFS", "ENV", "BASH_ENV", "SHELL"];
const RESERVED_PREFIXES: [&str; 3] = ["LD_", "DYLD_", "BASH_FUNC_"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_variables() {
        for (name, expected) in [
            ("stripe", Some("STRIPE")),
            ("stripe-api.key", Some("STRIPE_API_KEY")),
            ("2fa", Some("_2FA")),
            ("naïve", Some("NA_VE")),
            ("a b", Some("A_B")),
            ("…", None),
        ] {
            assert_eq!(variable(name).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn collisions_and_loader_variables_are_refused() {
        let entry = |name: &str| Entry {
            expires: None,
            name: name.into(),
            kind: b"credential".to_vec(),
            principal: b"app".to_vec(),
            scope: b"{}".to_vec(),
            sealed: Vec::new(),
            deleted: false,
        };
        assert!(assign(&[entry("a.b"), entry("a c")]).is_ok());
        assert!(matches!(assign(&[entry("a.b"), entry("A_B")]), Err(Error::Variable(_))));
        for name in ["path", "ld-preload", "Bash.Env"] {
            assert!(matches!(assign(&[entry(name)]), Err(Error::Variable(_))), "{name}");
        }
    }
}
