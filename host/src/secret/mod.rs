//! The master secret, found the same way by every host.

mod command;
mod passed_on;
mod words;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use zeroize::Zeroizing;

pub use self::command::{CommandFailure, CommandFault, TIME_LIMIT};
use crate::{Error, shared_file};

/// The longest secret that is read, in bytes, with a line end.
pub const MAX_READ: usize = 4096 + 2;

/// Where a secret comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The variable itself.
    Variable,
    /// The file that the variable with `_FILE` names.
    File,
    /// The program that the variable with `_COMMAND` names.
    Command,
}

/// Where [`from_environment`] takes the secret from; none where no variable is set.
///
/// # Errors
///
/// [`Error::TwoSources`] where the environment names a file and a program, and has no secret itself.
pub fn source(variable: &str) -> Result<Option<Source>, Error> {
    if !is_variable_name(variable) {
        return Ok(None);
    }
    let value = std::env::var_os(variable);
    match (companion(variable, "_FILE"), companion(variable, "_COMMAND")) {
        _ if value.as_ref().is_some_and(|value| !value.is_empty()) => Ok(Some(Source::Variable)),
        (Some(_), Some(_)) => Err(Error::TwoSources { variable: variable.to_owned() }),
        (Some(_), None) => Ok(Some(Source::File)),
        (None, Some(_)) => Ok(Some(Source::Command)),
        (None, None) => Ok(value.map(|_| Source::Variable)),
    }
}

/// The secret in environment variable `variable`, in the file that `variable`_FILE names, or what the program prints
/// that `variable`_COMMAND names; none where none of them is set. An empty variable counts as unset where another one is
/// set. Whether it is a secret that a module takes is not looked at. `interrupt` ends the wait for a program.
///
/// # Errors
///
/// Those of [`source`], [`from_file`] and [`from_command`].
pub fn from_environment(
    variable: &str,
    interrupt: fn() -> bool,
) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
    let named = |ending| companion(variable, ending).unwrap_or_default();
    match source(variable)? {
        Some(Source::Variable) => Ok(Some(Zeroizing::new(named("").into_vec()))),
        Some(Source::File) => from_file(Path::new(&named("_FILE"))).map(Some),
        Some(Source::Command) => from_command(variable, interrupt).map(Some),
        None => Ok(None),
    }
}

/// The secret in a file: all of it but one trailing line end.
///
/// # Errors
///
/// [`Error::File`] for a file that cannot be read or is longer than a secret can be.
pub fn from_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    let max = u64::try_from(MAX_READ).unwrap_or(u64::MAX);
    Ok(without_line_end(Zeroizing::new(shared_file::read(path, max)?)))
}

/// What the program prints that `variable`_COMMAND names: all of it but one trailing line end. The program gets no input
/// and a small part of the environment, and runs in a session of its own, no longer than [`TIME_LIMIT`].
///
/// # Errors
///
/// [`Error::Command`] for what is no command, a program that cannot be run, does not end, ends with a failure, or prints
/// nothing or more than a secret can be.
pub fn from_command(variable: &str, interrupt: fn() -> bool) -> Result<Zeroizing<Vec<u8>>, Error> {
    let command = companion(variable, "_COMMAND").unwrap_or_default();
    command::run(&command, variable, MAX_READ, interrupt).map(without_line_end).map_err(Error::Command)
}

/// What the environment says in the variable with this ending, unless that is empty.
pub fn companion(variable: &str, ending: &str) -> Option<OsString> {
    std::env::var_os(format!("{variable}{ending}")).filter(|value| !value.is_empty())
}

/// Whether a name can stand in an environment: not empty, without `=` and U+0000.
pub fn is_variable_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0'])
}

fn without_line_end(mut secret: Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>> {
    if secret.last() == Some(&b'\n') {
        secret.pop();
        if secret.last() == Some(&b'\r') {
            secret.pop();
        }
    }
    secret
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn one_line_end_is_not_part_of_a_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        for (text, secret) in [("s", "s"), ("s\n", "s"), ("s\r\n", "s"), ("s\n\n", "s\n"), ("", "")] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(*from_file(&path).unwrap(), secret.as_bytes());
        }
        std::fs::write(&path, vec![b'x'; 4099]).unwrap();
        assert!(matches!(from_file(&path), Err(Error::File { .. })));
        assert!(matches!(from_file(folder.path()), Err(Error::File { .. })));
    }

    #[test]
    fn names_of_variables() {
        assert!(is_variable_name("A"));
        for name in ["", "A=B", "A\0"] {
            assert!(!is_variable_name(name) && from_environment(name, || false).unwrap().is_none());
        }
    }
}
