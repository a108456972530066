//! When files are written.
//!
//! Before a commit, after everything the transaction does, each file that is behind is merged and the new one written
//! beside it. The commit makes the rows visible; then a rename makes the file visible. An abort removes the new file. A
//! crash between the two leaves the old file, which the next synchronisation fixes.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use omni_credentials_host::file::{Lock, Staged};
use pgrx::pg_sys;
use pgrx::prelude::*;

use super::published::Note;
use super::registry::Registry;
use super::{check_rights_of, export, file_error, read, resolve};
use crate::error::{Error, or_raise};
use crate::postgres::interrupt;
use crate::{instance, settings};

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
fn prepare() -> Result<(), Error> {
    let tables = PENDING.with_borrow_mut(|pending| std::mem::take(&mut pending.changed));
    if !tables.is_empty() {
        // The last statement's own changes are not visible before.
        // SAFETY: a transaction is in progress, and not in parallel mode, in which nothing is written.
        unsafe { pg_sys::CommandCounterIncrement() };
    }
    for table in tables.into_iter().map(pg_sys::Oid::from) {
        // SAFETY: a syscache lookup by oid.
        let schema = unsafe { pg_sys::get_rel_namespace(table) };
        // An instance that this transaction dropped has nothing to mirror.
        if schema == pg_sys::InvalidOid || Registry::is_empty(schema)? {
            continue;
        }
        // SAFETY: a transaction is in progress; the snapshot is popped below. An error in between aborts the
        // transaction, which pops it.
        unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot()) };
        prepare_instance(schema, table)?;
        // SAFETY: pushed above.
        unsafe { pg_sys::PopActiveSnapshot() };
    }
    Ok(())
}

fn prepare_instance(schema: pg_sys::Oid, table: pg_sys::Oid) -> Result<(), Error> {
    let registry = Registry::lock(schema)?;
    let handle = instance::of_table_now(table)?;
    for mut store in registry.all()?.into_iter().filter(|store| !store.suspended) {
        // Anyone who owns the table can put any name into it.
        check_rights_of(registry.owner(), &store.filename)?;
        let path = lock_file(&store.filename)?;
        let staged = PENDING.with_borrow(|pending| {
            pending
                .staged
                .get(&path)
                .and_then(|waiting| waiting.file.as_ref().map(|(_, bytes)| bytes.clone()))
        });
        let file = match staged {
            // Another instance of this transaction mirrors to the same file.
            Some(bytes) => Some(bytes),
            None => read(&store.filename)?,
        };
        let before = store.clone();
        let note = registry.note(&store);
        let written = export::export(&handle, &mut store, &note, file.as_deref())?;
        if let Some(bytes) = written {
            // The rename follows the commit at once: what it shows must not be lost with the end of the log, as a
            // commit with `synchronous_commit = off` may be.
            // SAFETY: sets a flag of the running transaction.
            unsafe { pg_sys::ForceSyncCommit() };
            let staged = Staged::write(&path, &bytes).map_err(|error| file_error(&store.filename, error))?;
            PENDING.with_borrow_mut(|pending| {
                if let Some(waiting) = pending.staged.get_mut(&path) {
                    waiting.file = Some((staged, bytes));
                    waiting.notes.extend(store.pending_digest.clone().map(|digest| (note, digest)));
                }
            });
        }
        if store != before {
            registry.update(&store)?;
        }
    }
    Ok(())
}

/// Takes the file's lock until the end of the transaction, and gives the file that the name stands for.
fn lock_file(filename: &str) -> Result<PathBuf, Error> {
    let path = resolve(filename)?;
    if PENDING.with_borrow(|pending| pending.staged.contains_key(&path)) {
        return Ok(path);
    }
    let lock = Lock::acquire(&path, settings::file_lock_timeout(), Some(interrupt::wanted))
        .map_err(|error| file_error(filename, error))?;
    let waiting = Waiting { lock, file: None, notes: Vec::new() };
    PENDING.with_borrow_mut(|pending| pending.staged.insert(path.clone(), waiting));
    Ok(path)
}

/// Makes the new files visible. The transaction has committed: nothing here may fail it.
fn publish() {
    let pending = PENDING.take();
    for (path, waiting) in pending.staged {
        let Waiting { lock, file, notes } = waiting;
        match file.map(|(staged, _)| staged.publish()) {
            None => {}
            Some(Ok(())) => notes.iter().for_each(|(note, digest)| note.write(digest)),
            Some(Err(error)) => pgrx::warning!(
                "the transaction is committed, but file store {} is behind: {error}. The next change, or credential_file_store_sync, writes it again",
                path.display()
            ),
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
