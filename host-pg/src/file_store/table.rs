//! The rows of an instance as records, and records as rows.

use std::cell::RefCell;

use omni_credentials_host::{self as host, Entry, ErrorCode, Identities};
use pgrx::prelude::*;
use pgrx::{PgMemoryContexts, pg_sys};

use super::limit_error;
use crate::error::Error;
use crate::instance::{self, Instance, OpenError};
use crate::keys::modules;
use crate::postgres::as_owner::as_owner;
use crate::postgres::heap::{Table, Version, Visibility, Visit};
use crate::postgres::varlena::Detoasted;
use crate::postgres::{catalog, fmgr};
use crate::rows::columns::Fields;
use crate::rows::history::not_a_change;
use crate::rows::statement::{IDENTITY_MATCHES, arguments, change, first_row, qualified, row_arguments};
use crate::rows::{identity, open};

/// Why a row is left as it is.
const HIDDEN: &str = "a policy hides the row from this role";
const UNCHANGED: &str = "a policy or a trigger keeps this role from changing the row";

/// Every row of an instance, visible to the caller or not: a file mirrors the whole table.
pub(super) struct Rows {
    /// Those that are not among the rows that were known before.
    pub(super) packed: host::Rows,
    /// Those that were known before and are no longer there.
    pub(super) gone: Identities,
    /// Whether each row could become a record. A row whose role is gone cannot: no one knows its name.
    pub(super) complete: bool,
    /// Which rows these are.
    pub(super) seen: Seen,
}

/// The rows of a table that were seen, with their identities as they go to a module. Names of roles and labels, and the
/// storage, were these.
#[derive(Default)]
pub(super) struct Seen {
    table: u32,
    storage: u32,
    names: u64,
    /// The next transaction then.
    transaction: u64,
    /// In the order of the storage.
    versions: Vec<(Version, Box<[u8]>)>,
}

/// What happened to one record of an import.
pub(super) struct Outcome {
    pub(super) entry: Entry,
    pub(super) action: &'static str,
    pub(super) reason: Option<String>,
}

impl Rows {
    /// Reads the table as it is committed now, with this transaction's own changes. Stops before it needs more memory
    /// than for the largest file.
    pub(super) fn read(instance: &Instance, filename: &str) -> Result<Self, Error> {
        Self::read_beside(instance, filename, Seen::default())
    }

    /// The same, and of the rows that were seen before only what became of them.
    pub(super) fn read_beside(instance: &Instance, filename: &str, before: Seen) -> Result<Self, Error> {
        let limits = instance.current_module()?.describe().map_err(modules::module_error)?.limits;
        let mut room = Room { records: limits.file_records.into(), bytes: limits.file_bytes.into() };
        let table = instance::table_of_credentials(instance.table)?;
        let mut rows = Self {
            packed: host::Rows::default(),
            gone: Identities::default(),
            complete: true,
            seen: Seen::of(&table),
        };
        let mut memory = PgMemoryContexts::new("omni_credentials row");
        let mut known = before.versions.into_iter().peekable();
        let (seen, gone) = (RefCell::new(&mut rows.seen.versions), &mut rows.gone);
        // Both lists are in the order of the storage. A row that would be out of order counts as gone and as new.
        let skip = |version: Version| {
            while let Some((_, identity)) = known.next_if(|(known, _)| *known < version) {
                gone.extend(&identity);
            }
            let same = known.next_if(|(known, _)| *known == version);
            let skip = same.is_some();
            seen.borrow_mut().extend(same);
            skip
        };
        table.scan_versions(Visibility::Now, skip, |version, row| {
            let Some((fields, sealed)) = Fields::of_row(row) else {
                rows.complete = false;
                return Ok(Visit::Continue);
            };
            // SAFETY: datums of a row whose columns were checked, under the lock of the scan.
            let taken = unsafe { room.take(&fields, sealed) };
            taken.map_err(|code| {
                let failure = host::Failure { code, line: 0, found: limits.file_bytes.into() };
                limit_error(filename, instance.schema, host::Error::Refused(failure))
            })?;
            // What a row takes is given back after it: values can have a mebibyte each.
            // SAFETY: the closure keeps nothing that it allocates there; `sealed` is the datum of a bytea that is not
            // NULL.
            let pushed = unsafe {
                let pushed = memory.switch_to(|_| {
                    let sealed = Detoasted::new(sealed);
                    let push = |identity: &host::Identity<'_>, expires| {
                        rows.packed.push(identity, expires, sealed.bytes());
                        let mut one = Identities::default();
                        one.push(identity);
                        seen.borrow_mut().push((version, one.as_bytes().into()));
                    };
                    identity::with_identity(&fields, None, push).is_ok()
                });
                memory.reset();
                pushed
            };
            rows.complete &= pushed;
            Ok(Visit::Continue)
        })?;
        for (_, identity) in known {
            rows.gone.extend(&identity);
        }
        Ok(rows)
    }
}

impl Seen {
    fn of(table: &Table) -> Self {
        Self {
            table: table.oid().to_u32(),
            storage: table.storage().to_u32(),
            names: identity::generation_of_names(),
            // SAFETY: reads a counter in shared memory, under its lock.
            transaction: unsafe { pg_sys::ReadNextFullTransactionId() }.value,
            versions: Vec::new(),
        }
    }

    /// Whether the rows are of this table.
    pub(super) fn is_of(&self, table: pg_sys::Oid) -> bool {
        self.table == table.to_u32()
    }

    /// Whether the table still has the storage, and its rows the names, that they had.
    pub(super) fn holds(&self, instance: &Instance) -> Result<bool, Error> {
        let now = Self::of(&instance::table_of_credentials(instance.table)?);
        // A transaction's number comes again after four billion others.
        let passed = now.transaction.saturating_sub(self.transaction);
        Ok((self.table, self.storage, self.names) == (now.table, now.storage, now.names) && passed < 1 << 30)
    }
}

/// What a file still has room for.
struct Room {
    records: u64,
    bytes: u64,
}

impl Room {
    /// Makes room for a row, by the sizes that its datums will have.
    ///
    /// # Safety
    /// The datums are those of a row of `encrypted_credentials`.
    unsafe fn take(&mut self, fields: &Fields, sealed: pg_sys::Datum) -> Result<(), ErrorCode> {
        // SAFETY: name, scope and value are varlenas; the function reads their headers alone.
        let size = |datum| u64::try_from(unsafe { pg_sys::toast_raw_datum_size(datum) }).unwrap_or(u64::MAX);
        // A file has the sealed bytes in base64, and the rest as text. A jsonb is at most a few times as long as its text.
        let bytes = [size(fields.name), size(fields.scope) / 8, size(sealed) / 3 * 4];
        let bytes = bytes.into_iter().fold(0, u64::saturating_add);
        self.records = self.records.checked_sub(1).ok_or(ErrorCode::TooManyRecords)?;
        self.bytes = self.bytes.checked_sub(bytes).ok_or(ErrorCode::FileTooLarge)?;
        Ok(())
    }
}

/// Writes a record to the table, or says why the table cannot take it. `is_held` says whether the table has a row for it,
/// seen by the caller or not.
///
/// A caller with the rights of the table's owner writes as the owner, in a restricted operation: a superuser must not run
/// triggers of the owner with the rights of a superuser. Anyone else writes with rights and policies of their own.
pub(super) fn apply(
    table: pg_sys::Oid,
    kind_type: pg_sys::Oid,
    entry: Entry,
    is_held: bool,
    dry_run: bool,
) -> Result<Outcome, Error> {
    let write = || write(table, kind_type, entry, is_held, dry_run);
    // The owner stays the same: the table was read, and its lock is kept.
    let acts_as = |owner: &pg_sys::Oid| {
        // SAFETY: a variable of the session, and a catalog lookup by oid.
        unsafe { pg_sys::has_privs_of_role(pg_sys::GetUserId(), *owner) }
    };
    match catalog::owner(table).filter(acts_as) {
        Some(owner) => as_owner(owner, write),
        None => write(),
    }
}

fn write(
    table: pg_sys::Oid,
    kind_type: pg_sys::Oid,
    entry: Entry,
    is_held: bool,
    dry_run: bool,
) -> Result<Outcome, Error> {
    let fields = match fields_of(kind_type, &entry) {
        Ok(fields) => fields,
        Err(reason) => return Ok(Outcome { entry, action: "skipped", reason: Some(reason) }),
    };
    let name = qualified(table);
    let held = {
        let sql = format!("select value, expires_at from {name} where {IDENTITY_MATCHES}");
        Spi::connect_mut(|client| first_row(client, &sql, &arguments(&fields, None)))?
    };
    let exists = held.is_some();
    if is_held && !exists {
        return Ok(Outcome { entry, action: "skipped", reason: Some(HIDDEN.to_owned()) });
    }
    let (sql, action) = match (entry.deleted, exists) {
        (true, false) => return Ok(Outcome { entry, action: "unchanged", reason: None }),
        (true, true) => (format!("delete from {name} where {IDENTITY_MATCHES}"), "removed"),
        (false, true) => {
            (format!("update {name} set value = $5, expires_at = $6 where {IDENTITY_MATCHES}"), "changed")
        }
        (false, false) => (
            format!(
                "insert into {name} (name, kind, principal, scope, value, expires_at) \
                 values ($1, $2, $3, $4, $5, $6)"
            ),
            "added",
        ),
    };
    if !dry_run {
        let parameters = match entry.deleted {
            true => arguments(&fields, None),
            false => row_arguments(&fields, open::bytea(&entry.sealed)),
        };
        let write = || Spi::connect_mut(|client| change(client, &sql, &parameters));
        let changed = match held {
            Some((held, expires_at)) if is_resealed(table, &fields, &entry, &held, expires_at)? => {
                not_a_change(&entry.sealed, write)
            }
            _ => write(),
        };
        if changed? == 0 {
            return Ok(Outcome { entry, action: "skipped", reason: Some(UNCHANGED.to_owned()) });
        }
    }
    Ok(Outcome { entry, action, reason: None })
}

/// Whether a record is what the table has already, and only sealed again: with a newer key, for example.
fn is_resealed(
    table: pg_sys::Oid,
    fields: &Fields,
    entry: &Entry,
    held: &[u8],
    expires_at: Option<pg_sys::Datum>,
) -> Result<bool, Error> {
    let now = Fields { expires_at, ..*fields };
    if entry.deleted || !now.has_same_expiry(fields) {
        return Ok(false);
    }
    let handle = instance::of_table(table)?;
    let open = |sealed: &[u8]| match open::open_unchecked(&handle, fields, open::bytea(sealed)) {
        Ok(value) => Ok(Some(value)),
        Err(OpenError::Value(_)) => Ok(None),
        Err(OpenError::Store(error) | OpenError::Closed(error)) => Err(error),
    };
    let before = open(held)?;
    Ok(before.is_some() && before == open(&entry.sealed)?)
}

/// The record's identity and expiry as datums of the table's types.
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
    let expires_at = match entry.expires {
        Some(expires) => Some(Fields::expiry(expires).ok_or("the expiry is out of range here")?),
        None => None,
    };
    Ok(Fields { name, kind, principal: pg_sys::Datum::from(principal), scope, expires_at })
}
