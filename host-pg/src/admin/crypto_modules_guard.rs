//! The rules for rows of `crypto_modules`, whoever writes them and however: the digest is that of the bytes, and a
//! module that something refers to stays.

use std::collections::BTreeMap;

use omni_credentials_host::Digest;
use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::admin::crypto_modules;
use crate::error::{Error, or_raise};
use crate::keys::modules;
use crate::postgres::catalog;
use crate::postgres::fmgr::raw_function;
use crate::postgres::heap::{Table, Visit};
use crate::postgres::tables::{crypto_modules as columns, keyrings as keyrings_table};
use crate::postgres::trigger::{Call, Event};
use crate::postgres::varlena::Detoasted;

raw_function!(crypto_modules_guard_wrapper, pg_finfo_crypto_modules_guard_wrapper, crypto_modules_guard);

/// BEFORE INSERT OR UPDATE OR DELETE for each row, and BEFORE TRUNCATE.
///
/// # Safety
/// Called by Postgres.
unsafe fn crypto_modules_guard(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: Postgres's own call.
    match or_raise(unsafe { Call::new(fcinfo) }.and_then(|call| guard(&call))) {
        Some(tuple) => pg_sys::Datum::from(tuple),
        None => pg_sys::Datum::null(),
    }
}

/// The row to go on with.
fn guard(call: &Call<'_>) -> Result<Option<pg_sys::HeapTuple>, Error> {
    crypto_modules::must_be_superuser()?;
    match call.event() {
        Event::Insert => {
            let (tuple, values) = call.new_values()?;
            check_digest(&values)?;
            Ok(Some(tuple))
        }
        Event::Update => {
            let (tuple, new) = call.new_values()?;
            let new = check_digest(&new)?;
            let (_, old) = call.old_values()?;
            let old = digest_of(&old);
            if old != new {
                old.as_ref().map_or(Ok(()), refuse_removal)?;
            }
            Ok(Some(tuple))
        }
        Event::Delete => {
            let (tuple, values) = call.old_values()?;
            digest_of(&values).as_ref().map_or(Ok(()), refuse_removal)?;
            Ok(Some(tuple))
        }
        Event::Truncate => {
            let mut digests = Vec::new();
            modules::table(pg_sys::AccessExclusiveLock)?.map_or(Ok(()), |table| {
                table.scan(|row| {
                    digests.push(modules::digest_of_column(row, columns::DIGEST)?);
                    Ok(Visit::Continue)
                })
            })?;
            digests.iter().try_for_each(refuse_removal)?;
            Ok(None)
        }
    }
}

/// The row's digest, which must be the one of its bytes. A row with NULLs is left to the table's constraints.
fn check_digest(values: &[Option<pg_sys::Datum>]) -> Result<Option<Digest>, Error> {
    let (Some(expected), Some(Some(wasm))) = (digest_of(values), values.get(columns::WASM)) else {
        return Ok(None);
    };
    // SAFETY: the datum of a bytea that is not NULL.
    let found = Digest::of(unsafe { Detoasted::new(*wasm) }.bytes());
    if found == expected {
        Ok(Some(expected))
    } else {
        Err(Error::ModuleDigest { expected: expected.to_string(), found: found.to_string() })
    }
}

fn digest_of(values: &[Option<pg_sys::Datum>]) -> Option<Digest> {
    let datum = (*values.get(columns::DIGEST)?)?;
    // SAFETY: the datum of a bytea that is not NULL.
    let digest = unsafe { Detoasted::new(datum) };
    Some(Digest::from_bytes(digest.bytes().try_into().ok()?))
}

/// Fails where an instance of this database refers to the module, or where it is the one that instances start with.
fn refuse_removal(digest: &Digest) -> Result<(), Error> {
    // Waits for those who are about to refer to it, and keeps others from doing so.
    let lock = modules::table(pg_sys::ExclusiveLock)?;
    drop(lock);
    if *digest == modules::builtin_digest()? {
        return Err(Error::ModuleBuiltin { digest: digest.to_string() });
    }
    let users = users(digest)?;
    if users.is_empty() {
        return Ok(());
    }
    let tables: Vec<_> = users.iter().map(|user| format!("{}.{}", user.schema, user.table)).collect();
    let mut instances: BTreeMap<&str, bool> = BTreeMap::new();
    for user in &users {
        *instances.entry(&user.schema).or_insert(true) &= user.only_superseded;
    }
    let statements: Vec<_> =
        instances.into_iter().map(|(schema, moved)| how_to_free(schema, moved)).collect();
    Err(Error::ModuleInUse {
        digest: digest.to_string(),
        users: tables.join(", "),
        statements: statements.join(" "),
    })
}

/// What frees a module from an instance, which may have moved on already.
fn how_to_free(schema: &str, moved: bool) -> String {
    let schema = spi::quote_literal(spi::quote_identifier(schema));
    let prune = format!("select omni_credentials.prune_keyrings({schema});");
    if moved {
        prune
    } else {
        format!("select omni_credentials.use_module({schema}, another_module); {prune}")
    }
}

/// A table that refers to a module.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct User {
    schema: String,
    table: String,
    /// Only by keyrings that came before the current one.
    only_superseded: bool,
}

/// The tables that refer to a module, in any instance.
fn users(digest: &Digest) -> Result<Vec<User>, Error> {
    const TABLES: &str = "select c.oid from pg_catalog.pg_class c where c.relkind operator(pg_catalog.=) 'r' \
         and c.relname operator(pg_catalog.=) any ('{credentials_keyrings,credentials_config}'::pg_catalog.name[])";
    let tables = Spi::connect(|client| {
        let rows = client.select(TABLES, None, &[])?;
        rows.into_iter().map(|row| row.get::<pg_sys::Oid>(1)).collect::<Result<Vec<_>, _>>()
    })?;
    let mut users = Vec::new();
    for table in tables.into_iter().flatten() {
        // In `credentials_keyrings` it is the second column, in `credentials_config` the third. A table of someone else
        // may have the name and other columns.
        // SAFETY: syscache lookups by oid and column number.
        let (at, keyrings) = match unsafe { (pg_sys::get_atttype(table, 2), pg_sys::get_atttype(table, 3)) } {
            (pg_sys::BYTEAOID, pg_sys::BYTEAOID) => (1, true),
            (pg_sys::TEXTOID, pg_sys::BYTEAOID) => (2, false),
            _ => continue,
        };
        let mut rows = Vec::new();
        Table::open(table, pg_sys::AccessShareLock)?.scan(|row| {
            let id = if keyrings { row.get::<i32>(keyrings_table::ID) } else { None };
            rows.push((id, row.get::<Vec<u8>>(at).as_deref() == Some(digest.as_bytes())));
            Ok(Visit::Continue)
        })?;
        if rows.iter().any(|(_, refers)| *refers) {
            // The newest keyring is the current one.
            let current = rows.iter().max().is_some_and(|(_, refers)| *refers);
            // SAFETY: a syscache lookup by oid.
            let schema = catalog::schema_name(unsafe { pg_sys::get_rel_namespace(table) });
            let table = catalog::relation_name(table);
            users.push(User { schema, table, only_superseded: keyrings && !current });
        }
    }
    users.sort();
    Ok(users)
}
