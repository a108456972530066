//! What a user asks about file stores, and how one is repaired or given up.

use omni_credentials_host::{self as host, Digest};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::iter::TableIterator;
use pgrx::pg_sys;
use pgrx::prelude::*;

use super::registry::{Registry, Store};
use super::{check_rights, file_error, read, required, transaction};
use crate::error::{Error, given, or_raise};
use crate::heap;
use crate::instance::{self, Handle};

type Line = (String, Option<i64>, Option<TimestampWithTimeZone>, Option<bool>, Option<String>);

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "the columns of the SQL function")]
fn file_store_status(
    schema: Option<pg_sys::Oid>,
) -> TableIterator<
    'static,
    (
        name!(filename, String),
        name!(generation, Option<i64>),
        name!(synchronized_at, Option<TimestampWithTimeZone>),
        name!(in_step, Option<bool>),
        name!(reason, Option<String>),
    ),
> {
    TableIterator::new(or_raise(given(schema, "schema").and_then(status)))
}

#[pg_extern(sql = false)]
fn file_store_sync(schema: Option<pg_sys::Oid>, filename: Option<&str>) {
    or_raise(sync(schema, filename));
}

#[pg_extern(sql = false)]
fn detach_file_store(filename: Option<&str>, schema: Option<pg_sys::Oid>) {
    or_raise(detach(filename, schema));
}

fn status(schema: pg_sys::Oid) -> Result<Vec<Line>, Error> {
    let handle = instance::of_schema(schema)?;
    let registry = Registry::look(schema)?;
    let lines = registry.all()?.into_iter().map(|store| {
        let reason = behind(&handle, &registry, &store);
        let in_step = match &reason {
            Err(Error::FilePermission { .. }) => None,
            other => Some(matches!(other, Ok(None))),
        };
        let reason = reason.unwrap_or_else(|error| Some(error.to_string()));
        let when = store.synchronized_at.and_then(|at| TimestampWithTimeZone::try_from(at).ok());
        (store.filename, store.generation, when, in_step, reason)
    });
    Ok(lines.collect())
}

/// Why file and table are not in step; `None` where they are. Needs no key.
fn behind(handle: &Handle, registry: &Registry, store: &Store) -> Result<Option<String>, Error> {
    let filename = &store.filename;
    check_rights(filename)?;
    let schema = spi::quote_identifier(heap::schema_name(handle.borrow().schema));
    let call = |function: &str| {
        format!("{schema}.credential_file_store_{function}({})", spi::quote_literal(filename))
    };
    let Some(file) = read(filename)? else {
        if handle.borrow().current().is_none() {
            return Ok(None);
        }
        return Ok(Some(format!("the file is missing; to write it: select {}", call("sync"))));
    };
    let digest = Digest::of(&file).as_bytes().to_vec();
    let written = store.pending_digest.as_ref().or(store.file_digest.as_ref());
    if written == Some(&digest) {
        return Ok((store.unloaded > 0).then(|| {
            format!(
                "the file has {} changes that the table has not; to load them: select * from {}",
                store.unloaded,
                call("reload")
            )
        }));
    }
    // What does not even parse says so itself.
    let generation = {
        let instance = handle.borrow();
        let fault = |error: host::Error| file_error(filename, error);
        let mut files = instance.current_module()?.files().map_err(fault)?;
        let document = files.parse(&file).map_err(fault)?;
        files.generation(document).map_err(fault)?
    };
    let published = store.pending_digest.as_ref().is_none_or(|pending| registry.note(store).says(pending));
    if !published && store.file_digest.as_ref() == Some(&digest) {
        return Ok(Some(format!(
            "a crash kept the last commit from reaching the file; to write it: select {}",
            call("sync")
        )));
    }
    let known = store.known_generation();
    Ok(Some(if generation < known {
        format!(
            "the file went back from generation {known} to {generation}; to take it over: select * from {}, to bring it up to date: select {}",
            call("reload"),
            call("sync")
        )
    } else {
        format!("the file was changed by another writer; to load it: select * from {}", call("reload"))
    }))
}

/// Has the file written before the transaction commits, if it is behind.
fn sync(schema: Option<pg_sys::Oid>, filename: Option<&str>) -> Result<(), Error> {
    let (filename, schema) = required(filename, schema)?;
    check_rights(filename)?;
    let handle = instance::of_schema(schema)?;
    registered(&Registry::look(schema)?, filename, schema)?;
    transaction::changed(handle.borrow().table);
    Ok(())
}

/// Gives up mirroring. The file stays as it is.
fn detach(filename: Option<&str>, schema: Option<pg_sys::Oid>) -> Result<(), Error> {
    let (filename, schema) = required(filename, schema)?;
    check_rights(filename)?;
    let registry = Registry::lock(schema)?;
    let store = registered(&registry, filename, schema)?;
    registry.delete(&store)?;
    registry.note(&store).remove();
    Ok(())
}

fn registered(registry: &Registry, filename: &str, schema: pg_sys::Oid) -> Result<Store, Error> {
    registry.find(filename)?.ok_or_else(|| Error::FileNotRegistered {
        filename: filename.to_owned(),
        schema: heap::schema_name(schema),
    })
}
