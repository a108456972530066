//! The master secret, found the same way by every host.

use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use zeroize::Zeroizing;

use crate::{Error, shared_file};

/// The longest file that is read, in bytes: the longest secret and a line end.
const MAX_FILE: u64 = 4096 + 2;

/// Where a secret comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The variable itself.
    Variable,
    /// The file that the variable with `_FILE` names.
    File,
}

/// Where [`from_environment`] takes the secret from; none where neither variable is set.
pub fn source(variable: &str) -> Option<Source> {
    if !is_variable_name(variable) {
        return None;
    }
    let value = std::env::var_os(variable);
    let path = std::env::var_os(format!("{variable}_FILE")).filter(|path| !path.is_empty());
    match (value, path) {
        (Some(value), path) if !value.is_empty() || path.is_none() => Some(Source::Variable),
        (_, Some(_)) => Some(Source::File),
        _ => None,
    }
}

/// The secret in environment variable `variable`, or in the file that `variable`_FILE names; none where
/// neither is set. An empty variable counts as unset where `variable`_FILE is set. Whether it is a secret that a module takes is not looked at.
///
/// # Errors
///
/// [`Error::File`] for a file that cannot be read or is longer than a secret can be.
pub fn from_environment(variable: &str) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
    let named = |variable: &str| std::env::var_os(variable).unwrap_or_default();
    match source(variable) {
        Some(Source::Variable) => Ok(Some(Zeroizing::new(named(variable).into_vec()))),
        Some(Source::File) => from_file(Path::new(&named(&format!("{variable}_FILE")))).map(Some),
        None => Ok(None),
    }
}

/// The secret in a file: all of it but one trailing line end.
///
/// # Errors
///
/// As [`from_environment`].
pub fn from_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    let mut secret = Zeroizing::new(shared_file::read(path, MAX_FILE)?);
    if secret.last() == Some(&b'\n') {
        secret.pop();
        if secret.last() == Some(&b'\r') {
            secret.pop();
        }
    }
    Ok(secret)
}

/// Whether a name can stand in an environment: not empty, without `=` and U+0000.
pub fn is_variable_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0'])
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
            assert!(!is_variable_name(name) && from_environment(name).unwrap().is_none());
        }
    }
}
