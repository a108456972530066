//! Visiting the rows of an instance with the caller's rights.

use pgrx::PgMemoryContexts;
use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::error::Error;
use crate::postgres::fmgr::AnyDatum;
use crate::postgres::heap;
use crate::postgres::tables::credentials;
use crate::rows::columns::Fields;
use crate::rows::statement::qualified;

/// A row of `encrypted_credentials`; the datums live until the end of the statement.
pub(crate) struct Row {
    pub(crate) fields: Fields,
    pub(crate) sealed: pg_sys::Datum,
}

/// Visits the rows that the caller may see, through a cursor, so that a large table is not held in memory. Works on a
/// standby.
pub(crate) fn each_row(
    table: pg_sys::Oid,
    mut visit: impl FnMut(Row) -> Result<(), Error>,
) -> Result<(), Error> {
    const BATCH: core::ffi::c_long = 1_000;
    let sql = format!("select name, value, kind, principal, scope, expires_at from {}", qualified(table));
    Spi::connect(|client| {
        let mut cursor = client.try_open_cursor(sql.as_str(), &[])?;
        // What a row takes is given back after it: values can have a mebibyte each.
        let mut memory = PgMemoryContexts::new("omni_credentials row");
        loop {
            let rows = cursor.fetch(BATCH)?;
            if rows.is_empty() {
                return Ok(());
            }
            for (number, column) in (1..).zip(credentials::COLUMNS) {
                // The statement finds its columns by name. What it found must be of the types that they were made with.
                if !column.is_of(rows.column_type_oid(number)?.value()) {
                    return Err(heap::wrong_type(table, column));
                }
            }
            for row in rows {
                let nullable = |place: usize| {
                    let datum = row.get::<AnyDatum>(place.saturating_add(1)).ok().flatten();
                    datum.map(|datum| datum.0)
                };
                let column = |place| nullable(place).ok_or_else(|| heap::is_null(table, place));
                let fields = Fields {
                    name: column(credentials::NAME)?,
                    kind: column(credentials::KIND)?,
                    principal: column(credentials::PRINCIPAL)?,
                    scope: column(credentials::SCOPE)?,
                    expires_at: nullable(credentials::EXPIRES_AT),
                };
                let row = Row { fields, sealed: column(credentials::VALUE)? };
                // SAFETY: the closure keeps nothing that it allocates there.
                unsafe {
                    memory.switch_to(|_| visit(row))?;
                    memory.reset();
                }
                pgrx::check_for_interrupts!();
            }
        }
    })
}
