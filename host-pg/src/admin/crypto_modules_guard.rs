//! The rules for rows of `crypto_modules`, whichever role writes them and however: the digest is that of the bytes, and a
//! module that something refers to stays.

use std::collections::BTreeMap;

use omni_credentials_host::Digest;
use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::admin::crypto_modules;
use crate::error::{Error, or_raise};
use crate::instance;
use crate::keys::modules;
use crate::keys::stored_keyring::StoredKeyring;
use crate::postgres::catalog;
use crate::postgres::fmgr::raw_function;
use crate::postgres::heap::{Visibility, Visit};
use crate::postgres::tables::crypto_modules as columns;
use crate::postgres::trigger::{Call, Event, Level, Timing};
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
    catalog::must_be_superuser(crypto_modules::CHANGE)?;
    call.must_have(columns::COLUMNS)?;
    let level = if call.event() == Event::Truncate { Level::Statement } else { Level::Row };
    call.must_fire(Timing::Before, level)?;
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

/// The tables that refer to a module, in any instance. What has the names of an instance's tables and is none counts
/// for nothing: anyone can make such tables.
fn users(digest: &Digest) -> Result<Vec<User>, Error> {
    let mut users = Vec::new();
    for schema in schemas()? {
        let Some(parts) = instance::parts(schema) else { continue };
        let keyrings = unless_gone(StoredKeyring::read_all(parts.keyrings, Visibility::Now))?;
        if keyrings.iter().any(|keyring| keyring.module == *digest) {
            // The newest keyring comes first, and is the current one.
            let only_superseded = keyrings.first().is_some_and(|keyring| keyring.module != *digest);
            users.push(User { only_superseded, ..User::of(parts.keyrings, schema) });
        }
        if unless_gone(instance::configured_module(parts.config))? == Some(*digest) {
            users.push(User::of(parts.config, schema));
        }
    }
    users.sort();
    Ok(users)
}

/// What is in a table of an instance: nothing where the table was dropped meanwhile, or something else has its name.
fn unless_gone<T: Default>(found: Result<T, Error>) -> Result<T, Error> {
    match found {
        Err(Error::NotAnInstance { .. }) => Ok(T::default()),
        found => found,
    }
}

impl User {
    fn of(table: pg_sys::Oid, schema: pg_sys::Oid) -> Self {
        Self {
            schema: catalog::schema_name(schema),
            table: catalog::relation_name(table),
            only_superseded: false,
        }
    }
}

/// The schemas with a permanent table that is named as an instance's is.
fn schemas() -> Result<Vec<pg_sys::Oid>, Error> {
    const SCHEMAS: &str = "select c.relnamespace from pg_catalog.pg_class c \
         where c.relkind operator(pg_catalog.=) 'r' and c.relpersistence operator(pg_catalog.=) 'p' \
         and c.relname operator(pg_catalog.=) 'encrypted_credentials'";
    Spi::connect(|client| {
        let rows = client.select(SCHEMAS, None, &[])?;
        let schemas = rows.into_iter().filter_map(|row| row.get::<pg_sys::Oid>(1).transpose());
        Ok(schemas.collect::<Result<Vec<_>, _>>()?)
    })
}
