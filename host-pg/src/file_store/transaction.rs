//! When files are written.
//!
//! Before a commit, after everything the transaction does, each file that is behind is merged and the new one written
//! beside it. The commit makes the rows visible; then a rename makes the file visible. An abort removes the new file. A
//! crash between the two leaves the old file, which the next synchronisation fixes.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use omni_credentials_host::shared_file::{Lock, Place, Staged};
use pgrx::pg_sys;
use pgrx::prelude::*;

use super::export::Written;
use super::kept::Kept;
use super::published::Note;
use super::registry::{Registry, Store};
use super::{MAX_FILE_BYTES, check_rights_of, existing, export, file_error, place};
use crate::error::{Error, or_raise, warn};
use crate::instance::{self, Handle};
use crate::postgres::interrupt;
use crate::settings;

/// What the running transaction has to do with files.
#[derive(Default)]
struct Pending {
    /// Tables that were changed.
    changed: BTreeSet<u32>,
    /// Files that wait for the commit. Locks are released after the renames.
    staged: BTreeMap<PathBuf, Waiting>,
}

struct Waiting {
    lock: Lock,
    file: Option<(Staged, Vec<u8>)>,
    /// To be kept once the file is in place.
    kept: Option<Kept>,
    /// What to note once the file is in place: for each instance that it mirrors, the digest that the instance waits for.
    notes: Vec<(Note, Vec<u8>)>,
}

thread_local! {
    static PENDING: RefCell<Pending> = RefCell::default();
}

/// Notes that a table was changed in this transaction. A change that is rolled back to a savepoint stays noted; then
/// the merge finds nothing to write.
pub(crate) fn changed(table: pg_sys::Oid) {
    PENDING.with_borrow_mut(|pending| pending.changed.insert(table.to_u32()));
}

/// Whether the running transaction will look at the files of a table before it commits.
pub(super) fn is_noted(table: pg_sys::Oid) -> bool {
    PENDING.with_borrow(|pending| pending.changed.contains(&table.to_u32()))
}

/// Listens for the end of transactions. Called once, when the library is loaded.
pub(crate) fn register() {
    // SAFETY: called from _PG_init; the callback is guarded and of the expected type.
    unsafe { pg_sys::RegisterXactCallback(Some(on_transaction), core::ptr::null_mut()) }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_transaction(event: pg_sys::XactEvent::Type, _context: *mut core::ffi::c_void) {
    match event {
        pg_sys::XactEvent::XACT_EVENT_PRE_COMMIT => or_raise(prepare()),
        pg_sys::XactEvent::XACT_EVENT_COMMIT => publish(),
        pg_sys::XactEvent::XACT_EVENT_ABORT => drop(PENDING.take()),
        pg_sys::XactEvent::XACT_EVENT_PRE_PREPARE => or_raise(refuse_prepare()),
        _ => {}
    }
}

/// Merges and stages every file that is behind.
///
/// Postgres does not see the locks of files, so it cannot find a deadlock that they are part of. No transaction waits for
/// a registry while it holds the lock of a file, and all of them take the locks of files in the order of their paths.
fn prepare() -> Result<(), Error> {
    let tables = PENDING.with_borrow_mut(|pending| std::mem::take(&mut pending.changed));
    if tables.is_empty() {
        return Ok(());
    }
    // The last statement's own changes are not visible before.
    // SAFETY: a transaction is in progress, and not in parallel mode, in which nothing is written.
    unsafe { pg_sys::CommandCounterIncrement() };
    // 1. The registries, in the order of the tables' oids.
    let mut mirrored = Vec::new();
    for table in tables.into_iter().map(pg_sys::Oid::from) {
        // SAFETY: a syscache lookup by oid.
        let schema = unsafe { pg_sys::get_rel_namespace(table) };
        // An instance that this transaction dropped has nothing to mirror.
        if schema != pg_sys::InvalidOid && !Registry::is_empty(schema)? {
            mirrored.push(Mirrored { table, registry: Registry::lock(schema)?, files: Vec::new() });
        }
    }
    // 2. The files: found and permitted, then locked.
    let mut places = BTreeMap::<PathBuf, (Place, String)>::new();
    for Mirrored { registry, files, .. } in &mut mirrored {
        for store in registry.all()?.into_iter().filter(|store| !store.suspended) {
            // A role that owns the table can put any name into it.
            check_rights_of(registry.owner(), &store.filename)?;
            let place = place::open(&store.filename)?;
            // A folder that was mounted somewhere else since has the same file by another path.
            let known = places.iter().find(|(_, (known, _))| known.is_same_as(&place));
            let path = known.map_or_else(|| place.path(), |(path, _)| path).to_owned();
            places.entry(path.clone()).or_insert_with(|| (place, store.filename.clone()));
            files.push((path, store));
        }
    }
    for (path, (place, filename)) in places {
        let lock = Lock::acquire_at(place, settings::file_lock_timeout(), Some(interrupt::wanted))
            .map_err(|error| file_error(&filename, error))?;
        let waiting = Waiting { lock, file: None, kept: None, notes: Vec::new() };
        PENDING.with_borrow_mut(|pending| pending.staged.insert(path, waiting));
    }
    // 3. The merges.
    for Mirrored { table, registry, files } in mirrored {
        // While a restore goes on, the instance may be incomplete. Its file stores are suspended then.
        if files.is_empty() {
            continue;
        }
        // SAFETY: a transaction is in progress; the snapshot is popped below. An error in between aborts the
        // transaction, which pops it.
        unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot()) };
        let handle = instance::of_table_now(table)?;
        for (path, store) in files {
            prepare_file(&handle, &registry, store, &path)?;
        }
        // SAFETY: pushed above.
        unsafe { pg_sys::PopActiveSnapshot() };
    }
    Ok(())
}

/// An instance that was changed, and its files by path.
struct Mirrored {
    table: pg_sys::Oid,
    registry: Registry,
    files: Vec<(PathBuf, Store)>,
}

fn prepare_file(handle: &Handle, registry: &Registry, mut store: Store, path: &Path) -> Result<(), Error> {
    let file = PENDING.with_borrow(|pending| {
        let Some(waiting) = pending.staged.get(path) else { return Ok(None) };
        match &waiting.file {
            // Another instance of this transaction mirrors to the same file.
            Some((_, bytes)) => Ok(Some(bytes.clone())),
            None => existing(&store.filename, waiting.lock.read(MAX_FILE_BYTES)),
        }
    })?;
    let before = store.clone();
    let note = registry.note(&store);
    let written = export::export(handle, &mut store, &note, file.as_deref())?;
    if let Some(Written { bytes, kept }) = written {
        // The rename follows the commit at once: what it shows must not be lost with the end of the log, as a
        // commit with `synchronous_commit = off` may be.
        // SAFETY: sets a flag of the running transaction.
        unsafe { pg_sys::ForceSyncCommit() };
        PENDING.with_borrow_mut(|pending| {
            if let Some(waiting) = pending.staged.get_mut(path) {
                let staged =
                    waiting.lock.stage(&bytes).map_err(|error| file_error(&store.filename, error))?;
                waiting.file = Some((staged, bytes));
                waiting.kept = kept;
                waiting.notes.extend(store.pending_digest.clone().map(|digest| (note, digest)));
            }
            Ok::<_, Error>(())
        })?;
    }
    if store != before {
        registry.update(&store)?;
    }
    Ok(())
}

/// Makes the new files visible. The transaction has committed: nothing here may fail it.
fn publish() {
    let pending = PENDING.take();
    for (path, waiting) in pending.staged {
        let Waiting { lock, file, kept, notes } = waiting;
        match file.map(|(staged, _)| staged.publish()) {
            None => {}
            Some(Ok(())) => {
                notes.iter().for_each(|(note, digest)| note.write(digest));
                if let Some(kept) = kept {
                    kept.put();
                }
            }
            Some(Err(error)) => warn(format!(
                "the transaction is committed, but file store {} is behind: {error}. The next change, or credential_file_store_sync, writes it again",
                path.display()
            )),
        }
        drop(lock);
    }
}

fn refuse_prepare() -> Result<(), Error> {
    let tables = PENDING.with_borrow(|pending| pending.changed.clone());
    for table in tables.into_iter().map(pg_sys::Oid::from) {
        // SAFETY: a syscache lookup by oid.
        let schema = unsafe { pg_sys::get_rel_namespace(table) };
        if schema != pg_sys::InvalidOid && !Registry::is_empty(schema)? {
            return Err(Error::PrepareRefused);
        }
    }
    PENDING.take();
    Ok(())
}
