//! What a user asks about file stores, and how one is repaired or given up.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::iter::TableIterator;
use pgrx::pg_sys;
use pgrx::prelude::*;

use super::registry::Registry;
use super::{check_rights, read, required, status, transaction};
use crate::error::{Error, given, or_raise};
use crate::instance;

/// Filename, generation, synchronized_at, in_step and reason.
type Line = (String, Option<i64>, Option<TimestampWithTimeZone>, Option<bool>, Option<String>);
type Lines = TableIterator<'static, Line>;

#[pg_extern(sql = false)]
fn file_store_status(schema: Option<pg_sys::Oid>) -> Lines {
    TableIterator::new(or_raise(given(schema, "schema").and_then(list)))
}

#[pg_extern(sql = false)]
fn file_store_sync(schema: Option<pg_sys::Oid>, filename: Option<&str>) {
    or_raise(sync(schema, filename));
}

#[pg_extern(sql = false)]
fn detach_file_store(filename: Option<&str>, schema: Option<pg_sys::Oid>) {
    or_raise(detach(filename, schema));
}

fn list(schema: pg_sys::Oid) -> Result<Vec<Line>, Error> {
    let table = instance::of_schema(schema)?.borrow().table;
    let registry = Registry::look(schema)?;
    // SAFETY: reads a flag of the server.
    let standby = unsafe { pg_sys::RecoveryInProgress() };
    let lines = registry.all()?.into_iter().map(|store| {
        let (store, reason) = if standby {
            (store, Ok(Some("a standby keeps no files: ask the primary".to_owned())))
        } else {
            status::of(table, &registry, store)
        };
        let in_step = match &reason {
            Err(Error::FilePermission { .. }) => None,
            _ if standby => None,
            other => Some(matches!(other, Ok(None))),
        };
        let reason = reason.unwrap_or_else(|error| Some(error.to_string()));
        let when = store.synchronized_at.and_then(|at| TimestampWithTimeZone::try_from(at).ok());
        (store.filename, store.generation, when, in_step, reason)
    });
    Ok(lines.collect())
}

/// Has the file written before the transaction commits, if it is behind.
fn sync(schema: Option<pg_sys::Oid>, filename: Option<&str>) -> Result<(), Error> {
    let (filename, schema) = required(filename, schema)?;
    check_rights(filename)?;
    let handle = instance::of_schema(schema)?;
    if Registry::look(schema)?.registered(filename, schema)?.suspended {
        let registry = Registry::lock(schema)?;
        registry.resume(&mut registry.registered(filename, schema)?)?;
    }
    if read(filename)?.is_none() {
        handle.borrow_mut().have_keyring()?;
    }
    transaction::changed(handle.borrow().table);
    Ok(())
}

/// Gives up mirroring. The file stays as it is.
fn detach(filename: Option<&str>, schema: Option<pg_sys::Oid>) -> Result<(), Error> {
    let (filename, schema) = required(filename, schema)?;
    check_rights(filename)?;
    let registry = Registry::lock(schema)?;
    let store = registry.registered(filename, schema)?;
    registry.delete(&store)?;
    registry.note(&store).remove();
    Ok(())
}
