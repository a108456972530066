//! Where master secrets come from: the environment, or a person.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use omni_credentials_host::secret;
use zeroize::Zeroizing;

use crate::error::Error;
use crate::terminal;

/// A secret; its memory is overwritten when it is dropped.
pub(crate) type Secret = Zeroizing<Vec<u8>>;

/// The secret of an existing file: the variable's, its `_FILE` companion's, or what a person types.
pub(crate) fn existing(variable: &str) -> Result<Secret, Error> {
    match from_environment(variable)? {
        Some(secret) => Ok(secret),
        None => terminal::ask_hidden("Master secret: ")?.ok_or_else(|| missing(variable)),
    }
}

/// The same, for what must not ask.
pub(crate) fn from_environment(variable: &str) -> Result<Option<Secret>, Error> {
    if !secret::is_variable_name(variable) {
        return Err(Error::Meaningless(format!("{variable:?} is not the name of an environment variable")));
    }
    Ok(secret::from_environment(variable)?)
}

/// A secret that is chosen now: the variable's, or typed twice.
pub(crate) fn new(variable: &str) -> Result<Secret, Error> {
    match from_environment(variable)? {
        Some(secret) => Ok(secret),
        None => terminal::ask_new("New master secret")?.ok_or_else(|| missing(variable)),
    }
}

/// Keeps a generated key in a new file that nobody else can read.
pub(crate) fn keep(path: &Path, key: &[u8]) -> Result<(), Error> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(key)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => Error::KeyExists(path.to_owned()),
        _ => Error::io(path.display().to_string())(error),
    })
}

fn missing(variable: &str) -> Error {
    Error::NoSecret { variable: variable.to_owned() }
}
