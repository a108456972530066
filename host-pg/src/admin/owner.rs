//! What maintenance of a whole instance has in common: it is for the owner, writers wait, every row counts, and SQL runs as
//! the owner, in a restricted operation, no matter which role asked for it.

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::error::Error;
use crate::instance::{self, Handle};
use crate::postgres::as_owner::as_owner;
use crate::postgres::varlena::Detoasted;
use crate::postgres::{catalog, heap};
use crate::rows::columns::Fields;
use crate::rows::history::not_a_change;
use crate::rows::statement::{IDENTITY_MATCHES, arguments, first_bytes, qualified};

/// An instance whose owner asks, with its writers waiting: a row that they seal with the old key would be left behind.
pub(crate) fn locked(schema: pg_sys::Oid) -> Result<Handle, Error> {
    must_own(instance::of_schema(schema)?.borrow().table)?;
    // SAFETY: a variable of the running transaction.
    if unsafe { pg_sys::XactIsoLevel } >= pg_sys::XACT_REPEATABLE_READ as core::ffi::c_int {
        return Err(Error::NotReadCommitted);
    }
    held(schema)
}

/// The same at any isolation level, for what looks at no row by the snapshot of the transaction.
pub(super) fn held(schema: pg_sys::Oid) -> Result<Handle, Error> {
    let table = instance::of_schema(schema)?.borrow().table;
    must_own(table)?;
    // The lock stays to the end of the transaction. The role that owned the table may have lost it while we waited.
    drop(heap::Table::open(table, pg_sys::ShareRowExclusiveLock)?);
    must_own(table)?;
    // Again, now that no one else changes the keyring.
    instance::of_table(table)
}

/// Fails where a statement that still runs in this session changes values or their history, such as one that this one is part
/// of: it may go on to write a value, or to keep a version, that is sealed with a keyring that nothing else needs.
pub(super) fn values_must_be_at_rest(schema: pg_sys::Oid, truncates: bool) -> Result<(), Error> {
    let mut changing = catalog::relation_oid(schema, c"credentials").is_some_and(catalog::is_view_in_use);
    for name in [c"encrypted_credentials", c"encrypted_credential_versions"] {
        if let Some(table) = heap::Table::open_in(schema, name, pg_sys::AccessShareLock)? {
            // Those that a TRUNCATE empties with the others are open, and no statement before it has them.
            changing =
                changing || (table.is_being_changed() && !(truncates && table.is_locked_for_truncate()));
        }
    }
    if changing { Err(Error::ValuesChanging { schema: catalog::schema_name(schema) }) } else { Ok(()) }
}

/// Keys are for the owner of the instance and for superusers. Gives the owner.
pub(super) fn must_own(table: pg_sys::Oid) -> Result<pg_sys::Oid, Error> {
    let owner = heap::Table::open(table, pg_sys::AccessShareLock)?.owner();
    // SAFETY: catalog lookups by oid.
    if unsafe { pg_sys::has_privs_of_role(pg_sys::GetUserId(), owner) } {
        Ok(owner)
    } else {
        Err(Error::NotOwner { table: catalog::qualified_name(table) })
    }
}

/// Runs SQL on the tables of an instance, whose triggers and policies are its owner's code.
pub(super) fn as_owner_of<T>(handle: &Handle, run: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let table = handle.borrow().table;
    as_owner(must_own(table)?, run)
}

/// Changes one row of `encrypted_credentials`, under `as_owner_of`. `values` are the parameters from $6 on; $6 is the new
/// value, and `also` gives the others to columns. A row that stays as it was is an error: it would be counted as sealed
/// again, and is not.
pub(super) fn change_row(
    table: pg_sys::Oid,
    fields: &Fields,
    sealed: pg_sys::Datum,
    also: &str,
    values: Vec<DatumWithOid<'static>>,
) -> Result<(), Error> {
    let sql = format!(
        "update {} set value = $6{also} where {IDENTITY_MATCHES} and value operator(pg_catalog.=) $5 {}",
        qualified(table),
        returning("value", "$6")
    );
    // The history is of what credentials are, not of what seals them.
    let again = values.first().and_then(DatumWithOid::datum);
    // SAFETY: the datum of a bytea.
    let again = again.map(|again| unsafe { Detoasted::new(again.sans_lifetime()) }.bytes().to_vec());
    let mut parameters = arguments(fields, Some(sealed));
    parameters.extend(values);
    let change = || change_one(table, &sql, &parameters, || format!("credential {}", fields.display_name()));
    match again {
        Some(again) => not_a_change(&again, change),
        None => change(),
    }
}

/// Changes one of the settings of an instance.
pub(super) fn change_setting(
    handle: &Handle,
    column: &'static str,
    value: DatumWithOid<'_>,
) -> Result<(), Error> {
    let table = handle.borrow().config_table;
    let sql = format!("update {} set {column} = $1 {}", qualified(table), returning(column, "$1"));
    as_owner(must_own(table)?, || change_one(table, &sql, &[value], || format!("setting {column}")))
}

/// Has a statement tell whether the row has the new value: a trigger may have put back the old one.
fn returning(column: &str, new: &str) -> String {
    format!("returning case when {column} operator(pg_catalog.=) {new} then pg_catalog.int4send(1) end")
}

fn change_one(
    table: pg_sys::Oid,
    sql: &str,
    parameters: &[DatumWithOid<'_>],
    what: impl FnOnce() -> String,
) -> Result<(), Error> {
    match Spi::connect_mut(|client| first_bytes(client, sql, parameters))? {
        Some(_) => Ok(()),
        None => Err(Error::NotChanged { what: what(), table: qualified(table) }),
    }
}
