//! Writing through the `credentials` view: values are sealed on their way to `encrypted_credentials`, which is
//! written with the caller's rights, so that its privileges and policies decide.

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::error::{Error, or_raise};
use crate::instance::{self, OpenError};
use crate::postgres::error_context::Hidden;
use crate::postgres::fmgr::raw_function;
use crate::postgres::trigger::{Call, Event, Level, Timing};
use crate::postgres::varlena::Detoasted;
use crate::rows::columns::{Columns, Fields};
use crate::rows::open;
use crate::rows::statement::{IDENTITY_MATCHES, arguments, change, first_bytes, qualified, row_arguments};

raw_function!(credentials_write_wrapper, pg_finfo_credentials_write_wrapper, credentials_write);

/// INSTEAD OF INSERT, UPDATE or DELETE, for each row of the view.
///
/// # Safety
/// Called by Postgres.
unsafe fn credentials_write(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // What calls us may hold the row in the clear: COPY adds its line to every error.
    let context = Hidden::begin();
    // SAFETY: Postgres's own call.
    let done = unsafe { Call::new(fcinfo) }.and_then(|call| {
        call.must_fire(Timing::InsteadOf, Level::Row)?;
        match call.event() {
            Event::Insert => insert(&call),
            Event::Update => update(&call),
            Event::Delete => delete(&call),
            Event::Truncate => Err(Error::InvalidArgument("a view cannot be truncated".to_owned())),
        }
    });
    let done = or_raise(done);
    context.restore();
    match done {
        Some(tuple) => pg_sys::Datum::from(tuple),
        // A trigger's NULL is a null pointer with isnull unset: the row counts as not changed.
        None => pg_sys::Datum::null(),
    }
}

fn insert(call: &Call<'_>) -> Result<Option<pg_sys::HeapTuple>, Error> {
    let table = call.table_of_view()?;
    let new = Columns::new(call)?;
    let fields = new.fields()?;
    // SAFETY: the datum of a bytea that is not NULL.
    let value = unsafe { Detoasted::new(new.value()?) };
    let sealed = open::seal(table, &fields, value.bytes())?;
    let sql = format!(
        "insert into {} (name, kind, principal, scope, value, expires_at) values ($1, $2, $3, $4, $5, $6)",
        qualified(table)
    );
    let written = Spi::connect_mut(|client| change(client, &sql, &row_arguments(&fields, sealed)))?;
    Ok((written > 0).then_some(new.tuple))
}

fn update(call: &Call<'_>) -> Result<Option<pg_sys::HeapTuple>, Error> {
    let table = call.table_of_view()?;
    let (old, new) = (Columns::old(call)?, Columns::new(call)?);
    let (from, to) = (old.fields()?, new.fields()?);
    // Gone since the statement's snapshot: deleted, or given another identity, and then the change must not be lost.
    let Some(current) = current_value(table, &old, &from)? else {
        return Err(changed(&from));
    };
    let same_value = match (old.value, new.value) {
        (None, None) => true,
        (Some(old), Some(new)) => same_bytes(old, new),
        _ => false,
    };
    if same_value && same_identity(&from, &to) && same_expiry(&from, &to) {
        return Ok(Some(new.tuple));
    }
    let sealed = match new.value {
        // A new identity or expiry for a value that the caller did not see in the clear (or could not).
        _ if same_value => open::seal(table, &to, &open_current(table, &from, &current)?)?,
        // SAFETY: the datum of a bytea that is not NULL.
        Some(value) => open::seal(table, &to, unsafe { Detoasted::new(value) }.bytes())?,
        None => return Err(Error::NullField { field: "value" }),
    };
    let sql = format!(
        "update {} set name = $6, kind = $7, principal = $8, scope = $9, value = $10, expires_at = $11 \
         where {IDENTITY_MATCHES} and value operator(pg_catalog.=) $5",
        qualified(table)
    );
    let mut parameters = arguments(&from, Some(open::bytea(&current)));
    parameters.extend(row_arguments(&to, sealed));
    if finish(table, &from, &current, &sql, &parameters)? {
        Ok(Some(new.tuple))
    } else if sealed_value(table, &from)?.is_none() {
        Err(changed(&from))
    } else {
        Ok(None)
    }
}

fn delete(call: &Call<'_>) -> Result<Option<pg_sys::HeapTuple>, Error> {
    let table = call.table_of_view()?;
    let old = Columns::old(call)?;
    let fields = old.fields()?;
    let Some(current) = current_value(table, &old, &fields)? else {
        return Ok(None);
    };
    let sql = format!(
        "delete from {} where {IDENTITY_MATCHES} and value operator(pg_catalog.=) $5",
        qualified(table)
    );
    let parameters = arguments(&fields, Some(open::bytea(&current)));
    Ok(finish(table, &fields, &current, &sql, &parameters)?.then_some(old.tuple))
}

/// Changes the row if its sealed value is still `current`. No row changed means that a policy hides it from this
/// command (then it counts as not changed) or that another session was faster (then the caller must try again).
fn finish(
    table: pg_sys::Oid,
    fields: &Fields,
    current: &[u8],
    sql: &str,
    parameters: &[pgrx::datum::DatumWithOid<'_>],
) -> Result<bool, Error> {
    if Spi::connect_mut(|client| change(client, sql, parameters))? > 0 {
        return Ok(true);
    }
    match sealed_value(table, fields)? {
        Some(now) if now != current => Err(changed(fields)),
        _ => Ok(false),
    }
}

/// The row's sealed value as it is committed now, if it is still the one that the statement read. The value is
/// compared as the view showed it to the caller; `None` where the row is gone.
fn current_value(table: pg_sys::Oid, old: &Columns, fields: &Fields) -> Result<Option<Vec<u8>>, Error> {
    let Some(sealed) = sealed_value(table, fields)? else {
        return Ok(None);
    };
    let handle = instance::of_table(table)?;
    if !open::may_see_values(&handle) {
        // The view gave the sealed value itself.
        // SAFETY: the datum of a bytea that is not NULL.
        let unchanged = old.value.is_some_and(|old| unsafe { Detoasted::new(old) }.bytes() == sealed);
        return if unchanged { Ok(Some(sealed)) } else { Err(changed(fields)) };
    }
    let unchanged = match (open::open_unchecked(&handle, fields, open::bytea(&sealed)), old.value) {
        (Ok(value), Some(old)) => {
            // SAFETY: the datum of a bytea that is not NULL.
            let old = unsafe { Detoasted::new(old) };
            old.bytes() == value.as_slice()
        }
        (Err(OpenError::Value(_)), None) => true,
        (Err(OpenError::Store(error)), _) => return Err(error),
        _ => false,
    };
    if unchanged { Ok(Some(sealed)) } else { Err(changed(fields)) }
}

fn sealed_value(table: pg_sys::Oid, fields: &Fields) -> Result<Option<Vec<u8>>, Error> {
    let sql = format!("select value from {} where {IDENTITY_MATCHES}", qualified(table));
    Spi::connect_mut(|client| first_bytes(client, &sql, &arguments(fields, None)))
}

/// The error for a row that is no longer what the statement read.
fn changed(fields: &Fields) -> Error {
    Error::ConcurrentChange { what: format!("credential {}", fields.display_name()) }
}

/// The stored value in the clear.
fn open_current(
    table: pg_sys::Oid,
    fields: &Fields,
    sealed: &[u8],
) -> Result<zeroize::Zeroizing<Vec<u8>>, Error> {
    let handle = instance::of_table(table)?;
    open::open_unchecked(&handle, fields, open::bytea(sealed)).map_err(|error| match error {
        OpenError::Store(error) => error,
        OpenError::Value(reason) => Error::Unreadable { name: fields.display_name(), reason },
    })
}

fn same_identity(a: &Fields, b: &Fields) -> bool {
    same_bytes(a.name, b.name)
        && a.kind.value() == b.kind.value()
        && a.principal.value() == b.principal.value()
        && same_bytes(a.scope, b.scope)
}

fn same_expiry(a: &Fields, b: &Fields) -> bool {
    a.expires_at.map(|datum| datum.value()) == b.expires_at.map(|datum| datum.value())
}

/// Whether two varlena datums hold the same bytes.
fn same_bytes(a: pg_sys::Datum, b: pg_sys::Datum) -> bool {
    // SAFETY: both are non-null datums of the same varlena type.
    let (a, b) = unsafe { (Detoasted::new(a), Detoasted::new(b)) };
    a.bytes() == b.bytes()
}
