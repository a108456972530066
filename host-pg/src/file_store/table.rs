//! The rows of an instance as records, and records as rows.

use omni_credentials_host::{self as host, Entry};
use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::error::Error;
use crate::instance;
use crate::postgres::heap::Visit;
use crate::postgres::varlena::Detoasted;
use crate::postgres::{catalog, fmgr};
use crate::rows::columns::Fields;
use crate::rows::statement::{IDENTITY_MATCHES, arguments, change};
use crate::rows::{identity, open};

/// Every row of an instance, whoever asks: a file mirrors the whole table.
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
            let Some((fields, sealed)) = Fields::of_row(row) else {
                rows.complete = false;
                return Ok(Visit::Continue);
            };
            // SAFETY: the datum of a bytea that is not NULL.
            let sealed = unsafe { Detoasted::new(sealed) };
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
    let name = catalog::qualified_name(table);
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
    let text = |bytes: &[u8], field| {
        String::from_utf8(bytes.to_vec()).map_err(|_| format!("the {field} is not UTF-8"))
    };
    let (kind, role) = (text(&entry.kind, "kind")?, text(&entry.principal, "principal")?);
    let principal = catalog::role_oid(&role).ok_or_else(|| format!("role {role:?} does not exist here"))?;
    let kind =
        catalog::enum_value(kind_type, &kind).ok_or_else(|| format!("kind {kind:?} does not exist here"))?;
    let foreign = |field| format!("the {field} has a character that this database's encoding lacks");
    let name = fmgr::text(&entry.name).ok_or_else(|| foreign("name"))?;
    let scope = fmgr::jsonb(&entry.scope).ok_or_else(|| foreign("scope"))?;
    Ok(Fields { name, kind, principal: pg_sys::Datum::from(principal), scope })
}
