//! Whether what a backend knows of settings, keyrings and the rights of an instance's owner may be old.

use std::cell::Cell;

use pgrx::pg_sys;

thread_local! {
    static STALE: Cell<bool> = const { Cell::new(false) };
    static STALE_AT_END: Cell<bool> = const { Cell::new(false) };
    static GENERATION: Cell<u64> = const { Cell::new(0) };
}

/// Counts up with each change of a table's definition that this backend was told of, of any table. Who takes a lock on a
/// table has been told of all that was committed before.
pub(crate) fn generation() -> u64 {
    GENERATION.get()
}

/// Has settings and keyrings read again before the next use. Reading the few rows is cheap, and what is unlocked stays
/// unlocked where the rows are the same and the module may run.
pub(crate) fn mark() {
    STALE.set(true);
}

/// The same once the running transaction ends: an instance has keyrings in hand that only a snapshot of it shows.
pub(crate) fn mark_at_end() {
    STALE_AT_END.set(true);
}

/// Whether something was marked since this was asked last.
pub(crate) fn take() -> bool {
    STALE.replace(false)
}

/// Listens for changes of keyrings and settings. Called once, when the library is loaded.
pub(crate) fn register() {
    // SAFETY: called from _PG_init; the callbacks are plain C functions that only set a flag.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(on_invalidation), pg_sys::Datum::null());
        for cache in CACHES_OF_RIGHTS {
            pg_sys::CacheRegisterSyscacheCallback(cache as _, Some(on_right), pg_sys::Datum::null());
        }
        pg_sys::RegisterXactCallback(Some(on_transaction), core::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(on_subtransaction), core::ptr::null_mut());
    }
}

/// Who may own an instance: the right to execute `instantiate`, superusers, and members of roles.
const CACHES_OF_RIGHTS: [pg_sys::SysCacheIdentifier::Type; 3] = [
    pg_sys::SysCacheIdentifier::PROCOID,
    pg_sys::SysCacheIdentifier::AUTHOID,
    pg_sys::SysCacheIdentifier::AUTHMEMROLEMEM,
];

/// The same for a right that was given or taken.
unsafe extern "C-unwind" fn on_right(_: pg_sys::Datum, _: core::ffi::c_int, _: u32) {
    mark();
}

/// Runs whenever the server likes, possibly while an instance is in use: so it only leaves a note.
unsafe extern "C-unwind" fn on_invalidation(_: pg_sys::Datum, _: pg_sys::Oid) {
    GENERATION.set(GENERATION.get().wrapping_add(1));
    mark();
}

/// A keyring or a setting that an aborted transaction wrote was never there, and what only its snapshot shows is gone
/// with it.
unsafe extern "C-unwind" fn on_transaction(event: pg_sys::XactEvent::Type, _: *mut core::ffi::c_void) {
    if event == pg_sys::XactEvent::XACT_EVENT_ABORT || STALE_AT_END.take() {
        mark();
    }
}

unsafe extern "C-unwind" fn on_subtransaction(
    event: pg_sys::SubXactEvent::Type,
    _: pg_sys::SubTransactionId,
    _: pg_sys::SubTransactionId,
    _: *mut core::ffi::c_void,
) {
    if event == pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB {
        mark();
    }
}
