//! SQL that runs with the caller's rights. Every name and operator in it is qualified: the caller's search_path
//! decides nothing.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::thread::LocalKey;

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;
use pgrx::spi::{OwnedPreparedStatement, SpiClient};

use crate::error::{Error, or_raise};
use crate::postgres::fmgr::AnyDatum;
use crate::postgres::plan::Question;
use crate::postgres::{as_owner, catalog};
use crate::rows::columns::Fields;

/// Matches the row whose identity is in $1 to $4.
pub(crate) const IDENTITY_MATCHES: &str = "name operator(pg_catalog.=) $1 and kind operator(pg_catalog.=) $2 \
     and principal operator(pg_catalog.=) $3 and scope operator(pg_catalog.=) $4";

/// By text, argument types and context: an instance dropped and made again has another enum under the same names, and
/// whether policies hold for an owner is planned.
type ByText<T> = HashMap<(String, Vec<pg_sys::Oid>, core::ffi::c_int), Rc<T>>;

/// More instances than a session works with. With one more all are forgotten, and those in use made again.
const PLANS_KEPT: usize = 128;

thread_local! {
    static PLANS: RefCell<ByText<OwnedPreparedStatement>> = RefCell::default();
    static QUESTIONS: RefCell<ByText<Question>> = RefCell::default();
}

/// `schema.table`, quoted. Raises an error for a name that SQL text cannot hold in this database.
pub(crate) fn qualified(table: pg_sys::Oid) -> String {
    or_raise(catalog::qualified(table))
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

/// $1 to $4, the value as $5, and the expiry as $6.
pub(crate) fn row_arguments(fields: &Fields, value: pg_sys::Datum) -> Vec<DatumWithOid<'static>> {
    let mut row = arguments(fields, Some(value));
    row.push(match fields.expires_at {
        // SAFETY: a timestamptz is no pointer.
        Some(datum) => unsafe { DatumWithOid::new(datum, pg_sys::TIMESTAMPTZOID) },
        None => DatumWithOid::null_oid(pg_sys::TIMESTAMPTZOID),
    });
    row
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

/// A bytea, and the datum of another column, which may be NULL.
pub(crate) type BytesAndMore = (Vec<u8>, Option<pg_sys::Datum>);

/// Runs a query of a bytea and another column, prepared once per backend, with a snapshot that sees what is committed now, and
/// gives its first row. The other column is of a type that is passed by value.
pub(crate) fn first_row(
    client: &mut SpiClient<'_>,
    sql: &str,
    arguments: &[DatumWithOid<'_>],
) -> Result<Option<BytesAndMore>, Error> {
    let plan = plan(client, sql, arguments)?;
    let rows = client.update(&*plan, None, arguments)?;
    if rows.is_empty() {
        return Ok(None);
    }
    let row = rows.first();
    let Some(bytes) = row.get::<Vec<u8>>(1)? else { return Ok(None) };
    Ok(Some((bytes, row.get::<AnyDatum>(2)?.map(|datum| datum.0))))
}

/// Runs a statement, prepared once per backend, with a snapshot that sees what is committed now, and gives the first
/// column of its first row. What it changes is one row.
pub(crate) fn first_bytes(
    client: &mut SpiClient<'_>,
    sql: &str,
    arguments: &[DatumWithOid<'_>],
) -> Result<Option<Vec<u8>>, Error> {
    let plan = plan(client, sql, arguments)?;
    // Without a limit: the server fires the triggers after a statement only once it has run to its end.
    let rows = client.update(&*plan, None, arguments)?;
    if rows.is_empty() { Ok(None) } else { Ok(rows.first().get::<Vec<u8>>(1)?) }
}

/// A query that is asked whether the running query sees such a row, prepared once per backend.
pub(crate) fn question(sql: &str, arguments: &[DatumWithOid<'_>]) -> Result<Rc<Question>, Error> {
    kept(&QUESTIONS, sql, arguments, |types| Question::prepare(sql, types))
}

fn plan(
    client: &mut SpiClient<'_>,
    sql: &str,
    arguments: &[DatumWithOid<'_>],
) -> Result<Rc<OwnedPreparedStatement>, Error> {
    kept(&PLANS, sql, arguments, |types| {
        let types: Vec<_> = types.iter().copied().map(pgrx::PgOid::from).collect();
        Ok(client.prepare_mut(sql, &types)?.keep())
    })
}

fn kept<T>(
    plans: &'static LocalKey<RefCell<ByText<T>>>,
    sql: &str,
    arguments: &[DatumWithOid<'_>],
    make: impl FnOnce(&[pg_sys::Oid]) -> Result<T, Error>,
) -> Result<Rc<T>, Error> {
    let types: Vec<_> = arguments.iter().map(DatumWithOid::oid).collect();
    let key = (sql.to_owned(), types, as_owner::context());
    if let Some(plan) = plans.with_borrow(|plans| plans.get(&key).cloned()) {
        return Ok(plan);
    }
    let plan = Rc::new(make(&key.1)?);
    plans.with_borrow_mut(|plans| {
        if plans.len() >= PLANS_KEPT {
            plans.clear();
        }
        plans.insert(key, Rc::clone(&plan));
    });
    Ok(plan)
}
