//! `DROP EXTENSION` takes the default instance with it, whose tables the extension owns, and so does dropping its
//! schema. It must not take sealed credentials along in silence.
//!
//! When the extension is dropped, no trigger of the table fires, and an event trigger at the end of the command is gone
//! itself. So one at the start of the command, `guard_drop` in `sql/guards.sql`, calls `watch_drops` where the table
//! has rows, and a hook looks at the table just before Postgres drops it. Where this library is missing, `guard_drop`
//! has another way. Instances made by `instantiate` belong to the database and stay.

use std::cell::Cell;

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::error::{Error, or_raise};
use crate::postgres::catalog::{self, Extension};
use crate::postgres::heap::Table;

thread_local! {
    static INSTALLED: Cell<bool> = const { Cell::new(false) };
    static NEXT: Cell<pg_sys::object_access_hook_type> = const { Cell::new(None) };
}

/// From now on this backend looks before the table is dropped.
#[pg_extern(sql = false)]
fn watch_drops() {
    if !INSTALLED.replace(true) {
        // SAFETY: a backend has one thread; the hook that was there before is kept and called by ours.
        unsafe {
            NEXT.set(pg_sys::object_access_hook);
            pg_sys::object_access_hook = Some(on_access);
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_access(
    access: pg_sys::ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    sub: core::ffi::c_int,
    argument: *mut core::ffi::c_void,
) {
    if access == pg_sys::ObjectAccessType::OAT_DROP && class == pg_sys::RelationRelationId && sub == 0 {
        or_raise(refuse_loss(object));
    }
    if let Some(next) = NEXT.get() {
        // SAFETY: the arguments are passed on unchanged.
        unsafe { next(access, class, object, sub, argument) }
    }
}

/// Refuses if `relation` is a table with values of the default instance and not empty. Only with the extension can it be
/// dropped.
fn refuse_loss(relation: pg_sys::Oid) -> Result<(), Error> {
    let Some(extension) = Extension::find() else { return Ok(()) };
    let holds_values = [c"encrypted_credentials", c"encrypted_credential_versions"]
        .into_iter()
        .any(|name| extension.table(name) == Some(relation));
    if holds_values && !Table::open(relation, pg_sys::AccessShareLock)?.is_empty()? {
        return Err(Error::HoldsCredentials { table: catalog::relation_name(relation) });
    }
    Ok(())
}
