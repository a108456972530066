//! The three-way merge before a commit: what the table has goes into the file, and what the file has that the table
//! has not (records for roles that do not exist here, edits made outside) stays in it.

use omni_credentials_host::{self as host, Digest, Entry, Files, Preference};
use pgrx::pg_sys;

use super::published::Note;
use super::registry::{FileState, Store};
use super::table::Rows;
use super::{base, file_error, keyrings, limit_error, moved};
use crate::error::Error;
use crate::instance::Handle;
use crate::postgres::catalog;

/// The names in an error message: enough to act on.
const NAMES_SHOWN: usize = 10;

/// Merges the table into `file` and updates `store` with what is known after it. Gives the new file, or `None` where
/// it would say the same.
pub(super) fn export(
    handle: &Handle,
    store: &mut Store,
    note: &Note,
    file: Option<&[u8]>,
) -> Result<Option<Vec<u8>>, Error> {
    let filename = store.filename.clone();
    let fault = |error: host::Error| file_error(&filename, error);
    let mut instance = handle.borrow_mut();
    let schema = instance.schema;
    let over = |error: host::Error| limit_error(&filename, schema, error);
    if file.is_none() && instance.current().is_none() {
        // No credential was ever sealed, so there is nothing to show and no key to show it with.
        return Ok(None);
    }
    let module = instance.current_module()?;
    let mut files = module.files().map_err(fault)?;
    let mut moved = false;
    let file = file.map(|bytes| (bytes, Digest::of(bytes)));
    let (theirs, seen) = match &file {
        Some((bytes, digest)) => {
            let seen = store.resolve_state(note, digest, || manifest_of(&mut files, bytes));
            let theirs = moved::parse(&mut instance, &module, &mut files, store, bytes)?;
            moved = theirs.moved;
            (theirs.document, seen)
        }
        None => {
            let keyring = instance.current_bytes()?;
            (files.create(&keyring).map_err(fault)?, FileState::Behind)
        }
    };
    let carried = files.keyring_bytes(theirs).map_err(fault)?;
    let keyring = keyrings::join(&mut instance, &module, &mut files, &filename, theirs, true)?;
    // The file that this instance wrote or checked, byte for byte, needs no second check.
    if file.is_some() && !moved && seen != FileState::Known {
        files.verify(theirs, keyring).map_err(fault)?;
    }
    let known = files.generation(theirs).map_err(fault)?;
    if seen == FileState::Foreign && !moved && rolled_back(store, known) {
        store.base = base::without_deletions(&store.base, &files.manifest(theirs).map_err(fault)?);
    }
    let current = instance.current_bytes()?;
    if carried != current {
        files.set_keyring(theirs, &current).map_err(fault)?;
    }

    let rows = Rows::read(&instance, &filename)?;
    let ours = files.table(theirs, &rows.packed).map_err(over)?;
    let merged =
        files.merge(&store.base, ours, theirs, rows.complete, keyring, Preference::Neither).map_err(over)?;
    if !merged.conflicts.is_empty() {
        return Err(conflict(&filename, schema, &merged.conflicts));
    }
    // Where file and table held the same and the file is still that one, `base` says of each of its records what it
    // is, and only the changes have to be looked at.
    let agreed = if seen == FileState::Known && !moved && store.unloaded == 0 && merged.to_ours.is_empty() {
        let changes = files.create(&current).map_err(fault)?;
        let records: Vec<_> = merged.to_theirs.iter().map(Entry::as_ref).collect();
        files.put(changes, &records).map_err(fault)?;
        files.agreed(&store.base, changes, changes).map_err(fault)?
    } else {
        files.agreed(&store.base, ours, merged.document).map_err(fault)?
    };
    store.unloaded = i32::try_from(merged.to_ours.len()).unwrap_or(i32::MAX);
    if let Some((_, digest)) = file
        && !moved
        && merged.to_theirs.is_empty()
        && carried == current
    {
        store.saw_generation(known);
        store.base = agreed;
        store.file_digest = Some(digest.as_bytes().to_vec());
        (store.pending_base, store.pending_digest) = (None, None);
        return Ok(None);
    }
    let at_least = store.known_generation();
    let bytes = files.write(merged.document, keyring, at_least).map_err(over)?;
    store.saw_generation(known.max(at_least).saturating_add(1));
    store.pending_digest = Some(Digest::of(&bytes).as_bytes().to_vec());
    store.pending_base = Some(agreed);
    Ok(Some(bytes))
}

/// What a file holds, as far as it can be read: nothing, where it is of another suite.
pub(super) fn manifest_of(files: &mut Files, bytes: &[u8]) -> Vec<u8> {
    files.parse(bytes).and_then(|document| files.manifest(document)).unwrap_or_default()
}

/// Tells when the file is older than what was last seen of it.
pub(super) fn rolled_back(store: &Store, generation: u64) -> bool {
    let known = store.known_generation();
    if generation < known {
        pgrx::warning!(
            "file store {} went back from generation {known} to {generation}: an older version of it was put in place. What it marks as deleted is not deleted here",
            store.filename
        );
    }
    generation < known
}

/// The conflict error, with the names of the credentials.
pub(super) fn conflict(filename: &str, schema: pg_sys::Oid, conflicts: &[host::OwnedIdentity]) -> Error {
    let mut names: Vec<_> = conflicts
        .iter()
        .take(NAMES_SHOWN)
        .map(|identity| format!("{:?}", String::from_utf8_lossy(&identity.name)))
        .collect();
    if conflicts.len() > NAMES_SHOWN {
        names.push(format!("and {} more", conflicts.len() - NAMES_SHOWN));
    }
    let schema = catalog::schema_name(schema);
    Error::FileConflict { filename: filename.to_owned(), schema, names: names.join(", ") }
}
