//! The rows of a copy as records, and records as rows.

use omni_credentials_host::{self as host, Entry};
use pgrx::prelude::*;
use pgrx::{IntoDatum, pg_sys};

use crate::error::Error;
use crate::heap::Visit;
use crate::identity::{self, Fields, Packed};
use crate::statement::{IDENTITY_MATCHES, arguments, change, qualified};
use crate::{instance, open, raw};

/// Every row of a copy, whoever asks: a file mirrors the whole table.
pub(super) struct Rows {
    pub(super) packed: host::Rows,
    /// Whether each row could become a record. A row whose role is gone cannot: no one knows its name.
    pub(super) complete: bool,
}

/// What happened to one record of an import.
pub(super) struct Outcome {
    pub(super) entry: Entry,
    pub(super) action: &'static str,
    pub(super) reason: Option<String>,
}

impl Rows {
    /// Reads the table as it is committed now, with this transaction's own changes.
    pub(super) fn read(table: pg_sys::Oid) -> Result<Self, Error> {
        let mut rows = Self { packed: host::Rows::default(), complete: true };
        instance::table_of_credentials(table)?.scan(|row| {
            let (Some(name), Some(sealed), Some(kind), Some(principal), Some(scope)) =
                (row.raw(0), row.raw(1), row.raw(2), row.raw(3), row.raw(4))
            else {
                rows.complete = false;
                return Ok(Visit::Continue);
            };
            // SAFETY: the datum of a bytea that is not NULL.
            let sealed = unsafe { Packed::new(sealed) };
            let fields = Fields { name, kind, principal, scope };
            let pushed =
                identity::with_identity(&fields, None, |identity| rows.packed.push(identity, sealed.bytes()));
            if pushed.is_err() {
                rows.complete = false;
            }
            Ok(Visit::Continue)
        })?;
        Ok(rows)
    }
}

/// Writes a record to the table with the caller's rights, or says why the table cannot hold it.
pub(super) fn apply(
    table: pg_sys::Oid,
    kind_type: pg_sys::Oid,
    entry: Entry,
    dry_run: bool,
) -> Result<Outcome, Error> {
    let fields = match fields_of(kind_type, &entry) {
        Ok(fields) => fields,
        Err(reason) => return Ok(Outcome { entry, action: "skipped", reason: Some(reason) }),
    };
    let name = qualified(table);
    let exists = {
        let sql = format!("select 1 from {name} where {IDENTITY_MATCHES}");
        Spi::connect(|client| {
            Ok::<_, Error>(!client.select(&sql, Some(1), &arguments(&fields, None))?.is_empty())
        })?
    };
    let (sql, action) = match (entry.deleted, exists) {
        (true, false) => return Ok(Outcome { entry, action: "unchanged", reason: None }),
        (true, true) => (format!("delete from {name} where {IDENTITY_MATCHES}"), "removed"),
        (false, true) => (format!("update {name} set value = $5 where {IDENTITY_MATCHES}"), "changed"),
        (false, false) => (
            format!("insert into {name} (name, kind, principal, scope, value) values ($1, $2, $3, $4, $5)"),
            "added",
        ),
    };
    if !dry_run {
        let sealed = (!entry.deleted).then(|| open::bytea(&entry.sealed));
        let parameters = arguments(&fields, sealed);
        Spi::connect_mut(|client| change(client, &sql, &parameters))?;
    }
    Ok(Outcome { entry, action, reason: None })
}

/// The record's identity as datums of the table's types.
fn fields_of(kind_type: pg_sys::Oid, entry: &Entry) -> Result<Fields, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (name, kind, role) = (text(&entry.name), text(&entry.kind), text(&entry.principal));
    let principal = identity::role_oid(&role).ok_or_else(|| format!("role {role:?} does not exist here"))?;
    let kind =
        identity::enum_value(kind_type, &kind).ok_or_else(|| format!("kind {kind:?} does not exist here"))?;
    let name = name.into_datum().ok_or("the name is empty")?;
    let scope = raw::jsonb(&text(&entry.scope)).ok_or("the scope is not jsonb")?;
    Ok(Fields { name, kind, principal: pg_sys::Datum::from(principal), scope })
}
