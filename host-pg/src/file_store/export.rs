//! What is written before a commit: what the table has goes into the file, and what only the file has (records for roles
//! that do not exist here, edits made outside) stays in it.

use omni_credentials_host::{self as host, Digest, Entry, Files, KeyringHandle, Preference, Reason};
use pgrx::pg_sys;

use super::agreed::News;
use super::kept::Kept;
use super::published::Note;
use super::registry::{FileState, Store};
use super::sides::{self, Sides};
use super::{file_error, limit_error};
use crate::error::Error;
use crate::instance::Handle;
use crate::postgres::catalog;

/// The names in an error message: enough to act on.
const NAMES_SHOWN: usize = 10;

/// What there is to write.
pub(super) struct Written {
    pub(super) bytes: Vec<u8>,
    /// To be kept once the file is in place.
    pub(super) kept: Option<Kept>,
}

/// Reconciles the table with `file` and updates `store` with what is known after it. Gives the new file, or `None` where
/// it would say the same.
pub(super) fn export(
    handle: &Handle,
    store: &mut Store,
    note: &Note,
    file: Option<&[u8]>,
) -> Result<Option<Written>, Error> {
    let filename = store.filename.clone();
    let fault = |error: host::Error| file_error(&filename, error);
    let mut instance = handle.borrow_mut();
    let schema = instance.schema;
    if file.is_none() && instance.current().is_none() {
        // Registering a file makes a keyring. It was removed since, together with all values, and the file as well.
        return Ok(None);
    }
    let kept = Kept::take(instance.table, &filename);
    // 1 to 4.
    let sides = sides::reconcile(&mut instance, store, note, file, kept, Preference::Neither, true)?;
    let Sides {
        mut files,
        ours,
        theirs,
        generation,
        seen,
        moved,
        same_keyring,
        keyrings,
        rows,
        changed,
        found,
    } = sides;
    if !found.conflicts.is_empty() {
        return Err(conflict(&filename, schema, &found.conflicts));
    }
    // 5. What both agree on once the file is in place.
    let unchanged = file.filter(|_| !moved && found.to_theirs.is_empty() && same_keyring);
    let at_least = store.known_generation();
    let written = if unchanged.is_some() { generation } else { generation.max(at_least).saturating_add(1) };
    // Where file and table held the same and the file is still that one, `base` says of each of its records what it
    // is, and only the changes have to be looked at.
    let of_changes = seen == FileState::Known && !moved && store.unloaded == 0 && found.to_ours.is_empty();
    let current = instance.current_bytes()?;
    let changes = files.create(&current).map_err(fault)?;
    let (mine, other) = if of_changes {
        let records: Vec<_> = found.to_theirs.iter().map(Entry::as_ref).collect();
        files.put(changes, &records).map_err(fault)?;
        (changes, changes)
    } else {
        (ours, found.document)
    };
    let news = match file {
        Some(_) => store.base.news(&mut files, mine, other, written, !store.whole_only),
        // There is nothing else that a new file agrees on: what it lacks was never in it.
        None => files.agreed(&[], mine, other, written).map(News::Whole),
    };
    let news = news.map_err(fault)?;
    store.unloaded = i32::try_from(found.to_ours.len()).unwrap_or(i32::MAX);
    let module = *instance.current_module()?.digest();
    let changed = changed.saturating_add(found.to_theirs.len());
    // What both hold now is the same, so the next commit can go on from here.
    let rows = rows.filter(|_| !moved && same_keyring && found.to_ours.is_empty());
    let keep = |mut files: Files, document, other, file: Vec<u8>, digest| {
        let rows = rows?;
        // A store that cannot give up what is no longer needed is not kept.
        [ours, changes, other].into_iter().try_for_each(|document| files.close(document)).ok()?;
        let [our_keyring, their_keyring] = keyrings;
        let theirs_alone = Some(their_keyring).filter(|theirs| *theirs != our_keyring);
        let unlocked = [Some(found.keyring), Some(our_keyring), theirs_alone].into_iter().flatten();
        unlocked.into_iter().try_for_each(|keyring: KeyringHandle| files.lock(keyring)).ok()?;
        let (filename, keyring) = (filename.clone(), current);
        Some(Kept { filename, file, digest, module, keyring, files, document, changed, rows })
    };
    if let Some(bytes) = unchanged {
        let digest = Digest::of(bytes);
        store.saw_generation(generation);
        store.base = store.base.after(&news);
        store.file_digest = Some(digest.as_bytes().to_vec());
        (store.pending, store.pending_digest) = (None, None);
        if let Some(kept) = keep(files, theirs, found.document, bytes.to_vec(), digest) {
            kept.put();
        }
        return Ok(None);
    }
    // 6. The new file.
    let bytes = files
        .rewrite(found.document, found.keyring, at_least)
        .map_err(|error| limit_error(&filename, schema, error))?;
    let digest = Digest::of(&bytes);
    store.saw_generation(written);
    store.pending_digest = Some(digest.as_bytes().to_vec());
    store.pending = Some(news);
    let kept = keep(files, found.document, theirs, bytes.clone(), digest);
    Ok(Some(Written { bytes, kept }))
}

/// The conflict error, with the names of the credentials.
pub(super) fn conflict(filename: &str, schema: pg_sys::Oid, conflicts: &[host::Conflict]) -> Error {
    let mut names: Vec<_> = conflicts
        .iter()
        .take(NAMES_SHOWN)
        .map(|conflict| {
            let name = String::from_utf8_lossy(&conflict.identity.name);
            format!("{name:?} ({})", reason(conflict.reason))
        })
        .collect();
    if conflicts.len() > NAMES_SHOWN {
        names.push(format!("and {} more", conflicts.len() - NAMES_SHOWN));
    }
    let schema = catalog::schema_name(schema);
    Error::FileConflict { filename: filename.to_owned(), schema, names: names.join(", ") }
}

/// Why, for a message.
fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::BothChanged => "changed in both",
        Reason::OursDeleted => "deleted in the table, changed in the file",
        Reason::TheirsDeleted => "deleted in the file, changed in the table",
        Reason::AncestorUnknown => "deleted in one of them, and what both last agreed on is not known",
        Reason::DeletionForgotten => "missing from the file, which no longer knows what was deleted",
        Reason::Unreadable => "does not open in either",
    }
}
