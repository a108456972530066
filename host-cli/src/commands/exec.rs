use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use omni_credentials_host::Entry;
use rustix::io::Errno;
use rustix::param::page_size;

use crate::args::Selection;
use crate::context::Context;
use crate::error::Error;
use crate::store::Store;
use crate::{environment, find, identity, interrupt};

/// Variables that decide which code runs. A file must not set them.
const RESERVED: [&str; 5] = ["PATH", "IFS", "ENV", "BASH_ENV", "SHELL"];
const RESERVED_PREFIXES: [&str; 3] = ["LD_", "DYLD_", "BASH_FUNC_"];
/// How many pages of memory one variable may take up: `MAX_ARG_STRLEN` of Linux.
const PAGES_OF_A_VARIABLE: usize = 32;

/// Becomes the program: signals reach it directly and its status is the command's, since there is no process in
/// between.
pub(crate) fn run(
    context: &Context,
    only: &[String],
    selection: &Selection,
    program: &[OsString],
) -> Result<(), Error> {
    let Some((name, arguments)) = program.split_first() else { return Ok(()) };
    let mut store = Store::read(context)?;
    let chosen = choose(find::matching(&mut store, None, selection)?, only)?;
    let variables = assign(&chosen)?;
    let mut opened = store.unlock(context)?;
    let mut command = Command::new(name);
    environment::without_secrets(command.args(arguments), &context.variable);
    let mut lengths = Vec::new();
    for (variable, entry) in variables {
        let value = opened.value_of(entry)?;
        let shown = identity::shown(&entry.identity());
        if value.contains(&0) {
            return Err(Error::Variable(format!("{shown} contains a zero byte, which a variable cannot")));
        }
        // The system counts the `=` and a zero byte at the end.
        lengths.push((variable.len() + value.len() + 2, shown));
        command.env(variable, OsStr::from_bytes(&value));
    }
    drop(opened);
    interrupt::check()?;
    let error = command.exec();
    if error.raw_os_error() == Some(Errno::TOOBIG.raw_os_error()) {
        return Err(Error::Variable(too_long(&lengths)));
    }
    Err(Error::Program { program: name.to_string_lossy().into_owned(), error })
}

/// Which credentials the system does not pass to a program, from the lengths of their variables.
fn too_long(lengths: &[(usize, String)]) -> String {
    let most = PAGES_OF_A_VARIABLE * page_size();
    let long: Vec<_> =
        lengths.iter().filter(|(length, _)| *length > most).map(|(_, it)| it.as_str()).collect();
    if !long.is_empty() {
        return format!(
            "the system passes at most {most} bytes in one variable, less than {}",
            long.join("; ")
        );
    }
    let total: usize = lengths.iter().map(|(length, _)| length).sum();
    match lengths.iter().max() {
        Some((length, shown)) => format!(
            "the system does not pass so much to a program: the credentials have {total} bytes, {length} of them {shown}"
        ),
        None => "the system does not pass so many arguments and variables to a program".to_owned(),
    }
}

fn choose(mut found: Vec<Entry>, only: &[String]) -> Result<Vec<Entry>, Error> {
    if only.is_empty() {
        return Ok(found);
    }
    if let Some(missing) = only.iter().find(|name| found.iter().all(|entry| entry.name != name.as_bytes())) {
        return Err(Error::NotFound(missing.clone()));
    }
    found.retain(|entry| only.iter().any(|name| entry.name == name.as_bytes()));
    Ok(found)
}

fn assign(entries: &[Entry]) -> Result<BTreeMap<String, &Entry>, Error> {
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
