//! File stores: encrypted files that mirror a copy of the store.
//!
//! - `agreed`: what file and table last agreed on, and the changes since.
//! - `kept`: what a backend keeps of the file that it wrote last.
//! - `registry`: the rows of `credentials_files`.
//! - `manage`: `credential_file_stores`, `credential_file_store_sync` and `detach_file_store`.
//! - `status`: whether file and table are in step.
//! - `table`: the instance's rows as records of a document, and records as rows.
//! - `sides`: file and table as the two sides of a reconciliation; export and import share it.
//! - `export`: what is written before a commit.
//! - `moved`: files from before the instance moved to another keyring.
//! - `place`: where a file is, and where none may be.
//! - `prune`: which files keep an earlier keyring from being pruned.
//! - `import`: `instantiate_file_store` and `credential_file_store_reload`.
//! - `published`: what file and table last agreed on, also after a crash.
//! - `transaction`: when it happens, and what becomes visible when.

mod agreed;
mod export;
mod import;
mod kept;
mod manage;
mod moved;
mod place;
mod prune;
mod published;
mod registry;
mod sides;
mod status;
mod table;
mod transaction;
mod triggers;

pub(crate) use prune::must_not_need_superseded;
pub(crate) use transaction::{changed, register};

use omni_credentials_host as host;
use omni_credentials_host::ErrorCode;
use omni_credentials_host::shared_file::{FileFault, Place};
use pgrx::pg_sys;

use crate::error::{Error, given};
use crate::keys::modules;
use crate::postgres::catalog;

/// The largest file that is read; the module says the same.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// The file's bytes; `None` where there is no file.
fn read(filename: &str) -> Result<Option<Vec<u8>>, Error> {
    read_at(filename, &place::open(filename)?)
}

fn read_at(filename: &str, place: &Place) -> Result<Option<Vec<u8>>, Error> {
    existing(filename, place.read(MAX_FILE_BYTES))
}

fn existing(filename: &str, read: Result<Vec<u8>, host::Error>) -> Result<Option<Vec<u8>>, Error> {
    match read {
        Ok(bytes) => Ok(Some(bytes)),
        Err(host::Error::File { fault: FileFault::NotFound, .. }) => Ok(None),
        Err(error) => Err(file_error(filename, error)),
    }
}

/// The arguments that no function on file stores can do without.
fn required(filename: Option<&str>, schema: Option<pg_sys::Oid>) -> Result<(&str, pg_sys::Oid), Error> {
    let (filename, schema) = (given(filename, "filename")?, given(schema, "schema")?);
    if filename.is_empty() {
        return Err(Error::InvalidArgument("a file store needs a file name".to_owned()));
    }
    Ok((filename, schema))
}

/// What a failure means when the table's rows become records: a limit is about the table, not about the file.
fn limit_error(filename: &str, schema: pg_sys::Oid, error: host::Error) -> Error {
    match error {
        host::Error::Refused(failure)
            if matches!(failure.code, ErrorCode::TooManyRecords | ErrorCode::FileTooLarge) =>
        {
            Error::FileLimitExceeded {
                filename: filename.to_owned(),
                schema: catalog::schema_name(schema),
                reason: failure.to_string(),
            }
        }
        other => file_error(filename, other),
    }
}

/// What a failure of the runtime or the module means for a file.
fn file_error(filename: &str, error: host::Error) -> Error {
    let filename = filename.to_owned();
    match error {
        host::Error::File { fault: FileFault::Locked { .. }, .. } => Error::FileLocked { filename },
        host::Error::File { fault: FileFault::Interrupted, .. } => Error::Interrupted,
        host::Error::File { fault: fault @ (FileFault::ForeignLink { .. } | FileFault::Link), .. } => {
            Error::FilePlace { filename, reason: fault.to_string() }
        }
        host::Error::File { fault, .. } => Error::FileSystem { filename, reason: fault.to_string() },
        host::Error::Refused(failure) => {
            let reason = failure.to_string();
            match failure.code {
                ErrorCode::UnknownVersion | ErrorCode::UnknownSuite => {
                    Error::FileUnsupported { filename, reason }
                }
                _ => Error::FileInvalid { filename, reason },
            }
        }
        other => modules::module_error(other),
    }
}

/// Only roles that may read and write the server's files use file stores.
fn check_rights(filename: &str) -> Result<(), Error> {
    // SAFETY: a variable of the session.
    check_rights_of(unsafe { pg_sys::GetUserId() }, filename)
}

fn check_rights_of(user: pg_sys::Oid, filename: &str) -> Result<(), Error> {
    // SAFETY: catalog lookups by oid. The two roles are fixed in pg_authid.dat.
    let permitted = unsafe {
        catalog::is_superuser(user)
            || [PG_READ_SERVER_FILES, PG_WRITE_SERVER_FILES]
                .into_iter()
                .all(|role| pg_sys::has_privs_of_role(user, pg_sys::Oid::from(role)))
    };
    if permitted { Ok(()) } else { Err(Error::FilePermission { filename: filename.to_owned() }) }
}

const PG_READ_SERVER_FILES: u32 = 4569;
const PG_WRITE_SERVER_FILES: u32 = 4570;
