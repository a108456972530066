//! The three-way merge before a commit: what the table has goes into the file, and what the file has that the table
//! has not (records for roles that do not exist here, edits made outside) stays in it.

use omni_credentials_host::{self as host, Digest, Preference};

use super::registry::Store;
use super::table::Rows;
use super::{file_error, keyrings, moved};
use crate::error::Error;
use crate::instance::Handle;

/// The names in an error message: enough to act on.
const NAMES_SHOWN: usize = 10;

/// Merges the table into `file` and updates `store` with what is known after it. Gives the new file, or `None` where
/// it would say the same.
pub(super) fn export(handle: &Handle, store: &mut Store, file: Option<&[u8]>) -> Result<Option<Vec<u8>>, Error> {
    let filename = store.filename.clone();
    let fault = |error: host::Error| file_error(&filename, error);
    let mut instance = handle.borrow_mut();
    if file.is_none() && instance.current().is_none() {
        // No credential was ever sealed, so there is nothing to show and no key to show it with.
        return Ok(None);
    }
    store.settle(file);
    let module = instance.current_module()?;
    let mut files = module.files().map_err(fault)?;
    let mut moved = false;
    let theirs = match file {
        Some(bytes) => {
            let theirs = moved::parse(&mut instance, &module, &mut files, store, bytes)?;
            moved = theirs.moved;
            theirs.document
        }
        None => {
            let keyring = instance.current().map(|current| current.bytes.clone()).unwrap_or_default();
            files.create(&keyring).map_err(fault)?
        }
    };
    let carried = files.keyring_bytes(theirs).map_err(fault)?;
    let keyring = keyrings::unite(&mut instance, &module, &mut files, &filename, theirs)?;
    if file.is_some() && !moved {
        files.verify(theirs, keyring).map_err(fault)?;
    }
    let current = instance.current().map(|current| current.bytes.clone()).unwrap_or_default();
    if carried != current {
        files.set_keyring(theirs, &current).map_err(fault)?;
    }

    let rows = Rows::read(instance.table)?;
    let ours = files.create(&current).map_err(fault)?;
    files.put(ours, &rows.refs()).map_err(fault)?;
    let merged = files
        .merge(&store.base, ours, theirs, rows.complete, keyring, Preference::Neither)
        .map_err(fault)?;
    if !merged.conflicts.is_empty() {
        return Err(conflict(&filename, &merged.conflicts));
    }
    let known = files.generation(theirs).map_err(fault)?;
    let agreed = files.agreed(&store.base, ours, merged.document).map_err(fault)?;
    if file.is_some() && !moved && merged.to_theirs.is_empty() && carried == current {
        store.generation = i64::try_from(known).ok();
        store.base = agreed;
        store.file_digest = file.map(|bytes| Digest::of(bytes).as_bytes().to_vec());
        (store.pending_base, store.pending_digest) = (None, None);
        return Ok(None);
    }
    let at_least = store.generation.and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
    let bytes = files.write(merged.document, keyring, at_least).map_err(fault)?;
    store.generation = i64::try_from(known.max(at_least).saturating_add(1)).ok();
    store.pending_digest = Some(Digest::of(&bytes).as_bytes().to_vec());
    store.pending_base = Some(agreed);
    Ok(Some(bytes))
}

/// The conflict error, with the names of the credentials.
pub(super) fn conflict(filename: &str, conflicts: &[host::OwnedIdentity]) -> Error {
    let mut names: Vec<_> = conflicts
        .iter()
        .take(NAMES_SHOWN)
        .map(|identity| format!("{:?}", String::from_utf8_lossy(&identity.name)))
        .collect();
    if conflicts.len() > NAMES_SHOWN {
        names.push(format!("and {} more", conflicts.len() - NAMES_SHOWN));
    }
    Error::FileConflict { filename: filename.to_owned(), names: names.join(", ") }
}
