//! Importing a file: `instantiate_file_store` and `credential_file_store_reload`.

use std::collections::{HashMap, HashSet};

use omni_credentials_host::{self as host, Digest, Entry, EntryRef, Preference};
use pgrx::iter::TableIterator;
use pgrx::pg_sys;
use pgrx::prelude::*;

use super::agreed::Agreed;
use super::moved::key;
use super::published::Note;
use super::registry::{Registry, Store};
use super::sides::{self, Sides};
use super::table::{self, Outcome};
use super::{check_rights, check_rights_of, export, file_error, place, read, read_at, required, transaction};
use crate::error::{Error, given, or_raise};
use crate::instance::{self, Handle};
use crate::postgres::catalog;
use crate::postgres::fmgr::{Jsonb, Text};

/// Name, kind, principal, scope, action and reason.
type Report = (Text, Text, Text, Jsonb, String, Option<String>);
type Lines = TableIterator<'static, Report>;

#[pg_extern(sql = false)]
fn instantiate_file_store(
    filename: Option<&str>,
    schema: Option<pg_sys::Oid>,
    prefer: Option<&str>,
) -> Lines {
    TableIterator::new(or_raise(register(filename, schema, prefer)))
}

#[pg_extern(sql = false)]
fn file_store_reload(
    schema: Option<pg_sys::Oid>,
    filename: Option<&str>,
    prefer: Option<&str>,
    dry_run: Option<bool>,
) -> Lines {
    let report = given(dry_run, "dry_run").and_then(|dry_run| reload(filename, schema, prefer, dry_run));
    TableIterator::new(or_raise(report))
}

fn register(
    filename: Option<&str>,
    schema: Option<pg_sys::Oid>,
    prefer: Option<&str>,
) -> Result<Vec<Report>, Error> {
    let (filename, schema) = required(filename, schema)?;
    let prefer = preference(prefer)?;
    check_rights(filename)?;
    let table = instance::of_schema(schema)?.borrow().table;
    let registry = Registry::lock(schema)?;
    check_rights_of(registry.owner(), filename)?;
    let handle = instance::of_table_now(table)?;
    let place = place::open(filename)?;
    let file = read_at(filename, &place)?;
    for other in registry.all()? {
        // Two names for one file would be one file that is merged with itself.
        if other.filename == filename
            || place::open(&other.filename).is_ok_and(|other| other.is_same_as(&place))
        {
            return Err(Error::FileAlreadyRegistered {
                filename: other.filename,
                schema: catalog::schema_name(schema),
            });
        }
    }
    let mut store = Store { filename: filename.to_owned(), ..Store::default() };
    let note = registry.note(&store);
    let outcomes = match &file {
        Some(bytes) => import(&handle, &mut store, &note, bytes, prefer, false)?,
        None => {
            // A file is sealed with the keyring that it carries, also while it has no records.
            handle.borrow_mut().have_keyring()?;
            Vec::new()
        }
    };
    registry.insert(&store)?;
    transaction::changed(table);
    Ok(report(outcomes))
}

fn reload(
    filename: Option<&str>,
    schema: Option<pg_sys::Oid>,
    prefer: Option<&str>,
    dry_run: bool,
) -> Result<Vec<Report>, Error> {
    let (filename, schema) = required(filename, schema)?;
    let prefer = preference(prefer)?;
    check_rights(filename)?;
    let table = instance::of_schema(schema)?.borrow().table;
    let registry = if dry_run { Registry::look(schema)? } else { Registry::lock(schema)? };
    check_rights_of(registry.owner(), filename)?;
    let handle = instance::of_table_now(table)?;
    let mut store = registry.registered(filename, schema)?;
    let file = read(filename)?.ok_or_else(|| Error::FileSystem {
        filename: filename.to_owned(),
        reason: "no such file".to_owned(),
    })?;
    let note = registry.note(&store);
    let outcomes = import(&handle, &mut store, &note, &file, prefer, dry_run)?;
    if !dry_run {
        registry.resume(&mut store)?;
        transaction::changed(table);
    }
    Ok(report(outcomes))
}

/// Takes over what the file changed since file and table last agreed, and updates `store`.
fn import(
    handle: &Handle,
    store: &mut Store,
    note: &Note,
    file: &[u8],
    prefer: Preference,
    dry_run: bool,
) -> Result<Vec<Outcome>, Error> {
    let filename = store.filename.clone();
    let fault = |error: host::Error| file_error(&filename, error);
    let schema = handle.borrow().schema;
    // 1 to 4.
    let (table, sides) = {
        let mut instance = handle.borrow_mut();
        let sides = sides::reconcile(&mut instance, store, note, Some(file), None, prefer, !dry_run)?;
        (instance.table, sides)
    };
    let Sides { mut files, ours, theirs, generation, found, .. } = sides;
    if prefer == Preference::Neither && !found.conflicts.is_empty() {
        return Err(export::conflict(&filename, schema, &found.conflicts));
    }
    // 5. What the table lacks, row by row, with the caller's rights.
    let kind_type = kind_type(schema)?;
    let mut outcomes = Vec::with_capacity(found.to_ours.len());
    // What the whole table holds, as far as it matters here: the caller's policies may hide some of it.
    let changing: HashSet<_> = found.to_ours.iter().map(|entry| key(&entry.identity())).collect();
    let held_before: HashMap<_, _> = if changing.is_empty() {
        HashMap::new()
    } else {
        let rows = files.entries(ours).map_err(fault)?.into_iter();
        rows.map(|row| (key(&row.identity()), row)).filter(|(key, _)| changing.contains(key)).collect()
    };
    for entry in found.to_ours {
        let is_held = held_before.contains_key(&key(&entry.identity()));
        outcomes.push(table::apply(table, kind_type, entry, is_held, dry_run)?);
    }
    if dry_run {
        return Ok(outcomes);
    }
    // 6. From here on, file and table have agreed on what the file says, but for the records that were skipped. There the
    // base is what the table holds: the table did not change them, and what the file says is not loaded yet.
    let skipped: HashSet<_> = outcomes
        .iter()
        .filter(|outcome| outcome.action == "skipped")
        .map(|outcome| key(&outcome.entry.identity()))
        .collect();
    let records: Vec<Entry> = files.entries(theirs).map_err(fault)?;
    let loaded = records.iter().filter(|entry| !entry.deleted && !skipped.contains(&key(&entry.identity())));
    let kept = held_before.iter().filter(|(key, _)| skipped.contains(*key)).map(|(_, row)| row);
    let held: Vec<EntryRef<'_>> = loaded.chain(kept).map(Entry::as_ref).collect();
    let keyring = files.keyring_bytes(theirs).map_err(fault)?;
    let agreed = files.create(&keyring).map_err(fault)?;
    files.put(agreed, &held).map_err(fault)?;
    store.base = Agreed::on(files.agreed(&[], agreed, agreed, generation).map_err(fault)?);
    store.file_digest = Some(Digest::of(file).as_bytes().to_vec());
    store.unloaded = i32::try_from(skipped.len()).unwrap_or(i32::MAX);
    store.saw_generation(generation);
    (store.pending, store.pending_digest) = (None, None);
    Ok(outcomes)
}

fn report(outcomes: Vec<Outcome>) -> Vec<Report> {
    outcomes
        .into_iter()
        .filter(|outcome| outcome.action != "unchanged")
        .map(|Outcome { entry, action, reason }| {
            let Entry { name, kind, principal, scope, .. } = entry;
            (Text(name), Text(kind), Text(principal), Jsonb(scope), action.to_owned(), reason)
        })
        .collect()
}

fn preference(prefer: Option<&str>) -> Result<Preference, Error> {
    match prefer {
        None => Ok(Preference::Neither),
        Some("table") => Ok(Preference::Ours),
        Some("file") => Ok(Preference::Theirs),
        Some(other) => {
            Err(Error::InvalidArgument(format!("prefer must be 'file', 'table' or NULL, not {other:?}")))
        }
    }
}

/// The type `credential_kind` of an instance.
fn kind_type(schema: pg_sys::Oid) -> Result<pg_sys::Oid, Error> {
    // SAFETY: a syscache lookup with a NUL-terminated name and an oid.
    let oid = unsafe {
        pg_sys::GetSysCacheOid(
            pg_sys::SysCacheIdentifier::TYPENAMENSP as _,
            i16::try_from(pg_sys::Anum_pg_type_oid).unwrap_or(1),
            pg_sys::Datum::from(c"credential_kind".as_ptr()),
            pg_sys::Datum::from(schema),
            pg_sys::Datum::null(),
            pg_sys::Datum::null(),
        )
    };
    if oid == pg_sys::InvalidOid {
        return Err(Error::NotAnInstance { relation: format!("schema {}", catalog::schema_name(schema)) });
    }
    Ok(oid)
}
