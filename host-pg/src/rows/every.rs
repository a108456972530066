//! Visiting every row of an instance, visible to the caller or not, without SQL: no code of the table's owner runs.

use pgrx::PgMemoryContexts;
use pgrx::pg_sys;

use crate::error::Error;
use crate::instance;
use crate::postgres::heap::{Visibility, Visit};
use crate::rows::columns::Fields;

/// Visits every row. The rows that `visit` writes meanwhile are not visited. What it allocates is given back after
/// each row: values can have a mebibyte each.
pub(crate) fn every_row(
    table: pg_sys::Oid,
    seen: Visibility,
    mut visit: impl FnMut(&Fields, pg_sys::Datum) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut memory = PgMemoryContexts::new("omni_credentials row");
    instance::table_of_credentials(table)?.scan_as(seen, |row| {
        let (fields, sealed) = Fields::required_of_row(row)?;
        // SAFETY: the closure keeps nothing that it allocates there.
        unsafe {
            let visited = memory.switch_to(|_| visit(&fields, sealed));
            memory.reset();
            visited?;
        }
        Ok(Visit::Continue)
    })
}
