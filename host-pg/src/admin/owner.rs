//! What maintenance of a whole instance has in common: it is for the owner, and writers wait.

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::error::Error;
use crate::instance::{self, Handle};
use crate::postgres::catalog;
use crate::postgres::heap;

/// An instance whose owner asks, with its writers waiting: a row that they seal with the old key would be left behind.
pub(crate) fn locked(schema: pg_sys::Oid) -> Result<Handle, Error> {
    let table = instance::of_schema(schema)?.borrow().table;
    must_own(table)?;
    // SAFETY: a variable of the running transaction.
    if unsafe { pg_sys::XactIsoLevel } >= pg_sys::XACT_REPEATABLE_READ as core::ffi::c_int {
        return Err(Error::InvalidArgument(
            "this needs a READ COMMITTED transaction: the snapshot of this one may lack rows".to_owned(),
        ));
    }
    lock(table)?;
    // Again, now that no one else changes the keyring.
    instance::of_table(table)
}

fn lock(table: pg_sys::Oid) -> Result<(), Error> {
    Spi::run(&format!("lock table {} in share row exclusive mode", catalog::qualified_name(table)))?;
    Ok(())
}

/// Keys are for the owner of the instance and for superusers.
pub(super) fn must_own(table: pg_sys::Oid) -> Result<(), Error> {
    let owner = heap::Table::open(table, pg_sys::AccessShareLock)?.owner();
    // SAFETY: catalog lookups by oid.
    if unsafe { pg_sys::has_privs_of_role(pg_sys::GetUserId(), owner) } {
        Ok(())
    } else {
        Err(Error::NotOwner { table: catalog::qualified_name(table) })
    }
}
