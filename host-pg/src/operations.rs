//! Operations on a whole copy: verify, rotate, rename. Rows are read and written with the caller's rights; keys only
//! by the owner of the copy. Each is one statement, so it is all or nothing.

use pgrx::PgMemoryContexts;
use pgrx::datum::DatumWithOid;
use pgrx::iter::TableIterator;
use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::error::{Error, given, or_raise};
use crate::identity::{self, Fields};
use crate::instance::{self, Handle};
use crate::raw::{AnyDatum, Jsonb};
use crate::settings::{self, OnUnreadable};
use crate::statement::{IDENTITY_MATCHES, arguments, change, qualified};
use crate::{heap, modules, open, registry, secret};

type Finding = (String, String, String, Jsonb, String);

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "the columns of the SQL function")]
fn verify(
    schema: Option<pg_sys::Oid>,
) -> TableIterator<
    'static,
    (
        name!(name, String),
        name!(kind, String),
        name!(principal, String),
        name!(scope, Jsonb),
        name!(reason, String),
    ),
> {
    TableIterator::new(or_raise(given(schema, "schema").and_then(findings)))
}

#[pg_extern(sql = false)]
fn rotate_key(schema: Option<pg_sys::Oid>) -> i64 {
    or_raise(given(schema, "schema").and_then(rotate))
}

#[pg_extern(sql = false)]
fn use_module(schema: Option<pg_sys::Oid>, module: Option<&str>) -> i64 {
    or_raise(given(schema, "schema").and_then(|schema| move_to(schema, module)))
}

#[pg_extern(sql = false)]
fn rotate_master_secret(new_env_var: Option<&str>, schema: Option<pg_sys::Oid>) {
    or_raise(
        given(new_env_var, "new_env_var").and_then(|variable| rewrap(variable, given(schema, "schema")?)),
    );
}

#[pg_extern(sql = false)]
fn rename_principal(
    old_name: Option<&str>,
    principal: Option<pg_sys::Oid>,
    schema: Option<pg_sys::Oid>,
) -> i64 {
    or_raise(
        given(old_name, "old_name")
            .and_then(|old_name| rename(old_name, given(principal, "principal")?, given(schema, "schema")?)),
    )
}

fn findings(schema: pg_sys::Oid) -> Result<Vec<Finding>, Error> {
    let handle = instance::of_schema(schema)?;
    let table = handle.borrow().table;
    let mut found = Vec::new();
    each_row(table, Purpose::Look, |row| {
        if let Err(reason) = open::readable(&handle, &row.fields, row.sealed)? {
            let (name, kind, principal, scope) = describe(&row.fields);
            found.push((name, kind, principal, Jsonb(scope), reason.to_string()));
        }
        Ok(())
    })?;
    Ok(found)
}

fn rotate(schema: pg_sys::Oid) -> Result<i64, Error> {
    let handle = locked(schema)?;
    if handle.borrow().current().is_none() {
        return Ok(0);
    }
    handle.borrow_mut().add_key()?;
    seal_again(&handle)
}

/// Moves a copy to a fresh keyring, made with another module or, with `None`, with the one it has.
fn move_to(schema: pg_sys::Oid, module: Option<&str>) -> Result<i64, Error> {
    let handle = locked(schema)?;
    let (table, name) = {
        let store = handle.borrow();
        (store.table, store.schema_name())
    };
    let digest = match module {
        Some(module) => registry::resolve(module)?,
        None => handle.borrow().module_for_new_keyring()?,
    };
    modules::module(&digest)?;
    if module.is_some() {
        modules::pin(&digest)?;
        let config = format!("{}.credentials_config", spi::quote_identifier(&name));
        Spi::run_with_args(
            &format!("update {config} set module = $1"),
            &[digest.as_bytes().as_slice().into()],
        )?;
    }
    if handle.borrow().current().is_none() {
        return Ok(0);
    }
    handle.borrow_mut().add_keyring(&digest)?;
    let count = seal_again(&handle)?;
    // The files carry the keyring, too.
    crate::file_store::changed(table);
    Ok(count)
}

/// A copy whose owner asks, with its writers waiting: a row that they seal with the old key would be left behind.
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
    // Again, now that nobody else changes the keyring.
    instance::of_table(table)
}

/// Seals every row again, with the current key.
fn seal_again(handle: &Handle) -> Result<i64, Error> {
    let table = handle.borrow().table;
    let sql = format!(
        "update {} set value = $6 where {IDENTITY_MATCHES} and value operator(pg_catalog.=) $5",
        qualified(table)
    );
    let (mut count, mut unreadable) = (0_i64, 0_i64);
    each_row(table, Purpose::Change, |row| {
        let value = match open::open_unchecked(handle, &row.fields, row.sealed) {
            Ok(value) => value,
            Err(instance::OpenError::Store(error)) => return Err(error),
            // As for reading: the setting says whether one bad row stops the others. It stays as it is.
            Err(instance::OpenError::Value(_)) if settings::on_unreadable() == OnUnreadable::Null => {
                unreadable = unreadable.saturating_add(1);
                return Ok(());
            }
            Err(instance::OpenError::Value(reason)) => {
                return Err(Error::Unreadable { name: row.fields.display_name(), reason });
            }
        };
        let sealed = open::seal(table, &row.fields, &value)?;
        let mut parameters = arguments(&row.fields, Some(row.sealed));
        // SAFETY: a bytea made just now.
        parameters.push(unsafe { DatumWithOid::new(sealed, pg_sys::BYTEAOID) });
        Spi::connect_mut(|client| change(client, &sql, &parameters))?;
        count = count.saturating_add(1);
        if count % 10_000 == 0 {
            pgrx::notice!("sealed {count} credentials with the new key");
        }
        Ok(())
    })?;
    if unreadable > 0 {
        pgrx::warning!(
            "left {unreadable} credentials as they are, because they do not open; omni_credentials.verify lists them"
        );
    }
    Ok(count)
}

fn rewrap(new_env_var: &str, schema: pg_sys::Oid) -> Result<(), Error> {
    let handle = instance::of_schema(schema)?;
    let (table, name) = {
        let store = handle.borrow();
        (store.table, store.schema_name())
    };
    must_own(table)?;
    let secret = secret::master_secret(new_env_var)?;
    handle.borrow_mut().rewrap(&secret)?;
    let config = format!("{}.credentials_config", spi::quote_identifier(&name));
    Spi::run_with_args(&format!("update {config} set environment_variable = $1"), &[new_env_var.into()])?;
    // The files carry the keyring, too.
    crate::file_store::changed(table);
    Ok(())
}

fn rename(old_name: &str, principal: pg_sys::Oid, schema: pg_sys::Oid) -> Result<i64, Error> {
    let handle = instance::of_schema(schema)?;
    let table = handle.borrow().table;
    if identity::role_name(principal).is_none() {
        return Err(Error::InvalidArgument(format!("role {} does not exist", principal.to_u32())));
    }
    let sql = format!(
        "update {} set principal = $6, value = $7 where {IDENTITY_MATCHES} and value operator(pg_catalog.=) $5",
        qualified(table)
    );
    let mut count = 0_i64;
    each_row(table, Purpose::Change, |row| {
        let belongs = row.fields.principal_oid() == principal
            || identity::role_name(row.fields.principal_oid()).is_none();
        if !belongs || open::readable(&handle, &row.fields, row.sealed)?.is_ok() {
            return Ok(());
        }
        let Some(value) = open_as(&handle, &row, old_name)? else {
            return Ok(());
        };
        let mut to = row.fields;
        to.principal = pg_sys::Datum::from(principal);
        let sealed = open::seal(table, &to, &value)?;
        let mut parameters = arguments(&row.fields, Some(row.sealed));
        // SAFETY: an oid, and a bytea made just now.
        parameters.extend(unsafe {
            [DatumWithOid::new(to.principal, pg_sys::REGROLEOID), DatumWithOid::new(sealed, pg_sys::BYTEAOID)]
        });
        let changed = Spi::connect_mut(|client| change(client, &sql, &parameters))?;
        count = count.saturating_add(i64::try_from(changed).unwrap_or(0));
        Ok(())
    })?;
    Ok(count)
}

/// Opens a row as if its principal had another name; `None` where that does not open it either.
fn open_as(
    handle: &Handle,
    row: &Row,
    principal: &str,
) -> Result<Option<zeroize::Zeroizing<Vec<u8>>>, Error> {
    // SAFETY: the datum of a bytea that is not NULL.
    let sealed = unsafe { identity::Packed::new(row.sealed) };
    let mut store = handle.borrow_mut();
    match identity::with_identity(&row.fields, Some(principal), |identity| {
        store.open(identity, sealed.bytes())
    }) {
        Ok(Ok(value)) => Ok(Some(value)),
        Ok(Err(instance::OpenError::Store(error))) => Err(error),
        Ok(Err(instance::OpenError::Value(_))) | Err(_) => Ok(None),
    }
}

/// A row of `encrypted_credentials`; the datums live until the end of the statement.
struct Row {
    fields: Fields,
    sealed: pg_sys::Datum,
}

/// What rows are visited for: looking also works on a standby, where a cursor for changes cannot be opened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Look,
    Change,
}

/// Visits the rows that the caller may see, through a cursor, so that a large table is not held in memory.
fn each_row(
    table: pg_sys::Oid,
    purpose: Purpose,
    mut visit: impl FnMut(Row) -> Result<(), Error>,
) -> Result<(), Error> {
    const BATCH: core::ffi::c_long = 1_000;
    let sql = format!("select name, value, kind, principal, scope from {}", qualified(table));
    Spi::connect_mut(|client| {
        let mut cursor = match purpose {
            Purpose::Look => client.try_open_cursor(sql.as_str(), &[])?,
            Purpose::Change => client.try_open_cursor_mut(sql.as_str(), &[])?,
        };
        // What a row takes is given back after it: values can have a mebibyte each.
        let mut memory = PgMemoryContexts::new("omni_credentials row");
        loop {
            let rows = cursor.fetch(BATCH)?;
            if rows.is_empty() {
                return Ok(());
            }
            for row in rows {
                let column = |n| row.get::<AnyDatum>(n).ok().flatten().map(|datum| datum.0);
                let (Some(name), Some(sealed), Some(kind), Some(principal), Some(scope)) =
                    (column(1), column(2), column(3), column(4), column(5))
                else {
                    return Err(Error::Internal(format!("{} has a NULL", heap::relation_name(table))));
                };
                let row = Row { fields: Fields { name, kind, principal, scope }, sealed };
                // SAFETY: the closure keeps nothing that it allocates there.
                unsafe {
                    memory.switch_to(|_| visit(row))?;
                    memory.reset();
                }
                pgrx::check_for_interrupts!();
            }
        }
    })
}

/// Name, kind, principal and scope as text; the number of a role that is gone.
fn describe(fields: &Fields) -> (String, String, String, String) {
    let role = identity::role_name(fields.principal_oid())
        .unwrap_or_else(|| fields.principal_oid().to_u32().to_string());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    identity::with_identity(fields, Some(&role), |identity| {
        (text(identity.name), text(identity.kind), text(identity.principal), text(identity.scope))
    })
    .unwrap_or_default()
}

fn lock(table: pg_sys::Oid) -> Result<(), Error> {
    Spi::run(&format!("lock table {} in share row exclusive mode", qualified(table)))?;
    Ok(())
}

/// Keys are for the owner of the copy and for superusers.
fn must_own(table: pg_sys::Oid) -> Result<(), Error> {
    let owner = heap::Table::open(table, pg_sys::AccessShareLock)?.owner();
    // SAFETY: catalog lookups by oid.
    if unsafe { pg_sys::has_privs_of_role(pg_sys::GetUserId(), owner) } {
        Ok(())
    } else {
        Err(Error::NotOwner { table: qualified(table) })
    }
}
