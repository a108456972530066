//! The history of an instance: the values that were replaced or deleted, sealed as they were.
//!
//! - `keep`: what a change leaves there.
//! - `check`: what a dump may bring, and who else may write.
//! - `seen`: what a role may see of it, which is what it may see of the credentials.

mod check;
mod keep;
pub(crate) mod seen;

use pgrx::{PgMemoryContexts, pg_sys};

use crate::error::Error;
use crate::instance::Handle;
use crate::postgres::heap::{Row, Table, Visibility, Visit};
use crate::postgres::tables::versions;
use crate::rows::columns::Fields;
pub(crate) use keep::not_a_change;

/// The table, to be written directly; an error where the instance has none.
pub(crate) fn table(handle: &Handle, lock: u32) -> Result<Table, Error> {
    let store = handle.borrow();
    store.table_of_versions(lock)?.ok_or_else(|| Error::HistoryMissing { schema: store.schema_name() })
}

/// The table, for what must reach every version; `None` where there is no history. An instance that keeps one and has lost its
/// table has versions somewhere.
pub(crate) fn table_if_kept(handle: &Handle, lock: u32) -> Result<Option<Table>, Error> {
    let store = handle.borrow();
    match store.table_of_versions(lock)? {
        None if store.history_limit() > 0 => Err(Error::HistoryMissing { schema: store.schema_name() }),
        table => Ok(table),
    }
}

/// Fails where a change of a credential would fail to leave a version.
pub(crate) fn must_work(handle: &Handle) -> Result<(), Error> {
    if handle.borrow().history_limit() == 0 {
        return Ok(());
    }
    let table = table(handle, pg_sys::AccessShareLock)?;
    table.must_be_plain()?;
    table.must_have_index(&keep::INDEX)
}

/// A version, as `every_version` visits it.
pub(crate) struct Version<'a> {
    pub(crate) row: &'a Row,
    pub(crate) number: i64,
    pub(crate) fields: Fields,
    pub(crate) sealed: pg_sys::Datum,
}

impl Version<'_> {
    /// The credential and the version, for messages.
    pub(crate) fn display_name(&self) -> String {
        format!("{} (version {})", self.fields.display_name(), self.number)
    }
}

/// Visits every version, visible to the caller or not. Those that `visit` writes meanwhile are not visited. What it
/// allocates is given back after each.
pub(crate) fn every_version(
    table: &Table,
    seen: Visibility,
    mut visit: impl FnMut(&Version<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut memory = PgMemoryContexts::new("omni_credentials version");
    table.scan_as(seen, |row| {
        let (fields, sealed) = Fields::required_of_row(row)?;
        let version = Version { row, number: row.required(versions::VERSION)?, fields, sealed };
        // SAFETY: the closure keeps nothing that it allocates there.
        unsafe {
            let visited = memory.switch_to(|_| visit(&version));
            memory.reset();
            visited?;
        }
        Ok(Visit::Continue)
    })
}
