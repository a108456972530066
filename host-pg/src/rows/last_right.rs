//! The right that the last value was read with. A scan asks for the same one row after row, and the four look-ups in the
//! catalog take a tenth of the time that a short value does.
//!
//! What a right depends on is either part of it, or in a catalog whose change ends what is remembered, at the
//! moment at which it ends what the server's own caches hold.

use std::cell::Cell;

use pgrx::pg_sys;

/// Who may read what.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Right {
    changes: u64,
    user: pg_sys::Oid,
    /// Of the security context: some make row-level security apply no more.
    context: core::ffi::c_int,
    table: pg_sys::Oid,
    view: Option<pg_sys::Oid>,
    principal: pg_sys::Oid,
}

impl Right {
    /// The right of the current user to read the values of a principal in a table, through its view. To be made before
    /// anything is looked up.
    pub(crate) fn new(table: pg_sys::Oid, view: Option<pg_sys::Oid>, principal: pg_sys::Oid) -> Self {
        let (mut user, mut context) = (pg_sys::InvalidOid, 0);
        // SAFETY: the function writes to both and does nothing else.
        unsafe { pg_sys::GetUserIdAndSecContext(&raw mut user, &raw mut context) }
        Self { changes: CHANGES.get(), user, context, table, view, principal }
    }

    /// Whether it was the last one that was granted.
    pub(crate) fn is_known(self) -> bool {
        LAST.get() == Some(self)
    }

    /// The user has it.
    pub(crate) fn granted(self) {
        LAST.set(Some(self));
    }
}

/// Listens for changes of rights. Called once, when the library is loaded.
pub(crate) fn register() {
    for cache in CATALOGS {
        // SAFETY: called from _PG_init; the callback is a plain C function that only counts.
        unsafe { pg_sys::CacheRegisterSyscacheCallback(cache as _, Some(on_change), pg_sys::Datum::null()) }
    }
}

/// Rights on relations and columns, owners and row-level security; roles and their attributes; members; the owner of the
/// database, who is a member of pg_database_owner.
const CATALOGS: [pg_sys::SysCacheIdentifier::Type; 5] = [
    pg_sys::SysCacheIdentifier::RELOID,
    pg_sys::SysCacheIdentifier::ATTNUM,
    pg_sys::SysCacheIdentifier::AUTHOID,
    pg_sys::SysCacheIdentifier::AUTHMEMROLEMEM,
    pg_sys::SysCacheIdentifier::DATABASEOID,
];

thread_local! {
    static CHANGES: Cell<u64> = const { Cell::new(0) };
    static LAST: Cell<Option<Right>> = const { Cell::new(None) };
}

unsafe extern "C-unwind" fn on_change(_: pg_sys::Datum, _: core::ffi::c_int, _: u32) {
    CHANGES.set(CHANGES.get().wrapping_add(1));
}
