//! SQL that runs with the caller's rights. Every name and operator in it is qualified: the caller's search_path
//! decides nothing.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;
use pgrx::spi::{OwnedPreparedStatement, SpiClient};

use crate::error::Error;
use crate::postgres::catalog;
use crate::rows::columns::Fields;

/// Matches the row whose identity is in $1 to $4.
pub(crate) const IDENTITY_MATCHES: &str = "name operator(pg_catalog.=) $1 and kind operator(pg_catalog.=) $2 \
     and principal operator(pg_catalog.=) $3 and scope operator(pg_catalog.=) $4";

/// By text and argument types: an instance dropped and made again has another enum under the same names.
type Plans = HashMap<(String, Vec<pg_sys::Oid>), Rc<OwnedPreparedStatement>>;

thread_local! {
    static PLANS: RefCell<Plans> = RefCell::default();
}

/// $1 to $4, and $5 where a value is given.
pub(crate) fn arguments(fields: &Fields, value: Option<pg_sys::Datum>) -> Vec<DatumWithOid<'static>> {
    let mut typed = vec![
        (fields.name, pg_sys::TEXTOID),
        (fields.kind, catalog::enum_type(fields.kind)),
        (fields.principal, pg_sys::REGROLEOID),
        (fields.scope, pg_sys::JSONBOID),
    ];
    typed.extend(value.map(|value| (value, pg_sys::BYTEAOID)));
    // SAFETY: each datum is of the type beside it, and lives as long as the row or argument it was taken from,
    // which is longer than the statement.
    typed.into_iter().map(|(datum, oid)| unsafe { DatumWithOid::new(datum, oid) }).collect()
}

/// Runs a statement that changes rows, prepared once per backend, and gives how many it changed.
pub(crate) fn change(
    client: &mut SpiClient<'_>,
    sql: &str,
    arguments: &[DatumWithOid<'_>],
) -> Result<usize, Error> {
    let plan = plan(client, sql, arguments)?;
    Ok(client.update(&*plan, None, arguments)?.len())
}

/// Runs a query, prepared once per backend, with a snapshot that sees what is committed now, and gives the first
/// column of its first row.
pub(crate) fn first_bytes(
    client: &mut SpiClient<'_>,
    sql: &str,
    arguments: &[DatumWithOid<'_>],
) -> Result<Option<Vec<u8>>, Error> {
    let plan = plan(client, sql, arguments)?;
    let rows = client.update(&*plan, Some(1), arguments)?;
    if rows.is_empty() { Ok(None) } else { Ok(rows.first().get::<Vec<u8>>(1)?) }
}

fn plan(
    client: &mut SpiClient<'_>,
    sql: &str,
    arguments: &[DatumWithOid<'_>],
) -> Result<Rc<OwnedPreparedStatement>, Error> {
    let key = (sql.to_owned(), arguments.iter().map(DatumWithOid::oid).collect::<Vec<_>>());
    if let Some(plan) = PLANS.with_borrow(|plans| plans.get(&key).cloned()) {
        return Ok(plan);
    }
    let types: Vec<_> = key.1.iter().copied().map(pgrx::PgOid::from).collect();
    let plan = Rc::new(client.prepare_mut(sql, &types)?.keep());
    PLANS.with_borrow_mut(|plans| plans.insert(key, Rc::clone(&plan)));
    Ok(plan)
}
