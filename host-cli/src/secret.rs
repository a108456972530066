//! Where master secrets come from: the environment, or a person.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use omni_credentials_host as host;
use omni_credentials_host::secret::{self, CommandFault, Source};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::git::{self, Tree};
use crate::{ignore, interrupt, terminal};

/// A secret; its memory is overwritten when it is dropped.
pub(crate) type Secret = Zeroizing<Vec<u8>>;

/// The variable that was used, and the one that was not although it is set, too.
static PREFERRED: OnceLock<(String, String)> = OnceLock::new();

/// The secret of an existing file: what the environment gives, or what a person types.
pub(crate) fn existing(variable: &str) -> Result<Secret, Error> {
    match from_environment(variable)? {
        Some(secret) => Ok(secret),
        None => terminal::ask_hidden("Master secret: ")?.ok_or_else(|| missing(variable)),
    }
}

/// The same, for what must not ask: the secret in the variable, in the file that its `_FILE` companion names, or what the
/// program prints that its `_COMMAND` companion names.
pub(crate) fn from_environment(variable: &str) -> Result<Option<Secret>, Error> {
    if !secret::is_variable_name(variable) {
        return Err(Error::Meaningless(format!("{variable:?} is not the name of an environment variable")));
    }
    let source = secret::source(variable).map_err(of_variable(variable))?;
    if source == Some(Source::Variable) {
        let mut others = ["_FILE", "_COMMAND"].into_iter();
        if let Some(other) = others.find(|ending| secret::companion(variable, ending).is_some()) {
            let _ = PREFERRED.set((variable.to_owned(), format!("{variable}{other}")));
        }
    }
    match (source, file(variable)) {
        (Some(Source::File), Some(path)) => secret::from_file(&path).map(Some),
        _ => secret::from_environment(variable, interrupt::requested),
    }
    .map_err(of_variable(variable))
}

/// The file that the variable's `_FILE` companion names.
pub(crate) fn file(variable: &str) -> Option<PathBuf> {
    let path = PathBuf::from(secret::companion(variable, "_FILE")?);
    // git runs its drivers at the top of the work tree, and says here from which folder of it it was called.
    let called_from =
        std::env::var_os("GIT_PREFIX").filter(|folder| path.is_relative() && !folder.is_empty());
    let from_there = called_from.map(|folder| Path::new(&folder).join(&path));
    Some(from_there.filter(|path| path.exists()).unwrap_or(path))
}

/// The variable that was used, and the one that was not although it is set, too.
pub(crate) fn preferred() -> Option<(&'static str, &'static str)> {
    PREFERRED.get().map(|(used, other)| (used.as_str(), other.as_str()))
}

/// A secret that is chosen now: the variable's, or typed twice.
pub(crate) fn new(variable: &str) -> Result<Secret, Error> {
    match from_environment(variable)? {
        Some(secret) => {
            if let Some((used, other)) = preferred()
                && used == variable
            {
                terminal::note(&format!("{used} is set, so the command does not use {other}"));
            }
            Ok(secret)
        }
        None => terminal::ask_new("New master secret")?.ok_or_else(|| missing(variable)),
    }
}

/// Writes a generated key to a new file that no other user can read, and that git does not commit. `file` is the
/// credentials file that the key is for.
pub(crate) fn keep(path: &Path, file: &Path, key: &[u8]) -> Result<(), Error> {
    if path.symlink_metadata().is_ok() {
        return Err(Error::KeyExists(path.to_owned()));
    }
    ignore::ignore_key(path)?;
    let folder = git::folder_of(path);
    if let (Some(name), Tree::Outside) = (path.file_name(), git::tree(&folder))
        && folder == git::folder_of(file)
    {
        // There may be a repository here later. `init --git` tries again.
        let _ = ignore::add_line(&folder.join(".gitignore"), &ignore::rooted(name));
    }
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(key)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        File::open(&folder)?.sync_all()
    };
    write().map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => Error::KeyExists(path.to_owned()),
        _ => Error::io(path.display().to_string())(error),
    })
}

/// The error of a host about a variable.
fn of_variable(variable: &str) -> impl Fn(host::Error) -> Error {
    move |error| match error {
        host::Error::File { path, fault } => {
            Error::SecretFile { variable: format!("{variable}_FILE"), path, fault }
        }
        host::Error::Command(failure) if failure.fault == CommandFault::Interrupted => {
            interrupt::interrupted().into()
        }
        host::Error::Command(failure) => {
            Error::SecretCommand { variable: format!("{variable}_COMMAND"), failure: Box::new(failure) }
        }
        host::Error::TwoSources { variable } => Error::TwoSecrets { variable },
        other => other.into(),
    }
}

fn missing(variable: &str) -> Error {
    Error::NoSecret { variable: variable.to_owned() }
}
