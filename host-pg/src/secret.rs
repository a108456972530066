//! The master secret, as the server's environment gives it.

use std::path::Path;

use zeroize::Zeroizing;

use crate::error::Error;

/// The longest file that is read: the longest secret and a line end.
const MAX_FILE: u64 = 4096 + 2;

/// The secret in environment variable `variable`, or in the file that `variable`_FILE names (one trailing line end is
/// not part of it). It is read when a key must be derived and never kept.
pub(crate) fn master_secret(variable: &str) -> Result<Zeroizing<Vec<u8>>, Error> {
    if !is_variable_name(variable) {
        return Err(Error::InvalidArgument(format!("{variable:?} is not the name of an environment variable")));
    }
    if let Some(value) = std::env::var_os(variable) {
        use std::os::unix::ffi::OsStringExt;
        return Ok(Zeroizing::new(value.into_vec()));
    }
    match std::env::var_os(format!("{variable}_FILE")) {
        Some(path) => from_file(variable, Path::new(&path)),
        None => Err(Error::MasterSecretMissing { variable: variable.to_owned() }),
    }
}

/// Whether a name can stand in an environment: not empty, without `=` and U+0000.
pub(crate) fn is_variable_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0'])
}

fn from_file(variable: &str, path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    let fault = |reason: String| Error::MasterSecretFile { variable: variable.to_owned(), reason };
    let length = std::fs::metadata(path).map_err(|e| fault(e.to_string()))?.len();
    if length > MAX_FILE {
        return Err(fault(format!("it has {length} bytes, more than a secret can have")));
    }
    let mut secret = Zeroizing::new(std::fs::read(path).map_err(|e| fault(e.to_string()))?);
    if secret.last() == Some(&b'\n') {
        secret.pop();
        if secret.last() == Some(&b'\r') {
            secret.pop();
        }
    }
    Ok(secret)
}
