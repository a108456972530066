//! Where a registered file is, and where none may be.
//!
//! The server must not create or replace a file of its own because a path leads to it. A path that another account can
//! turn is refused by `Place::open`; what is refused here is any path through a link into the data directory, and the
//! names there that belong to Postgres. A file that exists must be a credentials file before it is replaced, wherever it
//! is.

use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use omni_credentials_host::shared_file::Place;

use super::file_error;
use crate::error::Error;
use crate::postgres::catalog;

/// Folders of the data directory that are Postgres's own, besides those whose names start with `pg`.
const FOLDERS: [&[u8]; 3] = [b"base", b"global", b"log"];
/// How names of files start that Postgres or its tools look for in the data directory.
const STARTS: [&[u8]; 11] = [
    b"pg",
    b"postgresql.",
    b"postmaster.",
    b"backup_",
    b"recovery.",
    b"tablespace_map",
    b"current_logfiles",
    b"promote",
    b"fallback_promote",
    b"logrotate",
    b"core",
];
/// How they end: settings, signals, pids, options, keys and certificates, timelines.
const ENDS: [&[u8]; 11] = [
    b".conf",
    b".signal",
    b".pid",
    b".opts",
    b".key",
    b".crt",
    b".crl",
    b".pem",
    b".done",
    b".history",
    b".old",
];

/// Resolves the name of a file store, once: relative names start at the data directory.
pub(super) fn open(filename: &str) -> Result<Place, Error> {
    let data = catalog::data_directory();
    let data = data.canonicalize().unwrap_or(data);
    let place = Place::open(&data.join(filename)).map_err(|error| file_error(filename, error))?;
    match refusal(&data, &place) {
        None => Ok(place),
        Some(reason) => Err(Error::FilePlace { filename: filename.to_owned(), reason: reason.to_owned() }),
    }
}

fn refusal(data: &Path, place: &Place) -> Option<&'static str> {
    let inside = place.path().strip_prefix(data).ok()?;
    if place.is_through_link() {
        return Some("a symbolic link leads into the data directory of the server");
    }
    is_of_postgres(inside).then_some("that name in the data directory belongs to the server")
}

/// Whether a path below the data directory belongs to Postgres.
fn is_of_postgres(inside: &Path) -> bool {
    let mut names = inside.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.as_bytes().to_ascii_lowercase()),
        _ => None,
    });
    let Some(first) = names.next() else { return true };
    if names.next().is_some() {
        return first.starts_with(b"pg") || FOLDERS.contains(&first.as_slice());
    }
    FOLDERS.contains(&first.as_slice())
        || STARTS.iter().any(|start| first.starts_with(start))
        || ENDS.iter().any(|end| first.ends_with(end))
}
