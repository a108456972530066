//! `rename_principal`: seals again what was sealed for a role under its old name.

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::error::{Error, given, or_raise};
use crate::instance::{self, Handle};
use crate::postgres::catalog;
use crate::postgres::varlena::Detoasted;
use crate::rows::scan::{Purpose, Row, each_row};
use crate::rows::statement::{IDENTITY_MATCHES, arguments, change};
use crate::rows::{identity, open};

#[pg_extern(sql = false)]
fn rename_principal(
    old_name: Option<&str>,
    principal: Option<pg_sys::Oid>,
    schema: Option<pg_sys::Oid>,
) -> i64 {
    or_raise(
        given(old_name, "old_name")
            .and_then(|old_name| rename(old_name, given(principal, "principal")?, given(schema, "schema")?)),
    )
}

fn rename(old_name: &str, principal: pg_sys::Oid, schema: pg_sys::Oid) -> Result<i64, Error> {
    let handle = instance::of_schema(schema)?;
    let table = handle.borrow().table;
    if catalog::role_name(principal).is_none() {
        return Err(Error::InvalidArgument(format!("role {} does not exist", principal.to_u32())));
    }
    let sql = format!(
        "update {} set principal = $6, value = $7 where {IDENTITY_MATCHES} and value operator(pg_catalog.=) $5",
        catalog::qualified_name(table)
    );
    let mut count = 0_i64;
    each_row(table, Purpose::Change, |row| {
        let belongs = row.fields.principal_oid() == principal
            || catalog::role_name(row.fields.principal_oid()).is_none();
        if !belongs || open::readable(&handle, &row.fields, row.sealed)?.is_ok() {
            return Ok(());
        }
        let Some(value) = open_as(&handle, &row, old_name)? else {
            return Ok(());
        };
        let mut to = row.fields;
        to.principal = pg_sys::Datum::from(principal);
        let sealed = open::seal(table, &to, &value)?;
        let mut parameters = arguments(&row.fields, Some(row.sealed));
        // SAFETY: an oid, and a bytea made just now.
        parameters.extend(unsafe {
            [DatumWithOid::new(to.principal, pg_sys::REGROLEOID), DatumWithOid::new(sealed, pg_sys::BYTEAOID)]
        });
        let changed = Spi::connect_mut(|client| change(client, &sql, &parameters))?;
        count = count.saturating_add(i64::try_from(changed).unwrap_or(0));
        Ok(())
    })?;
    Ok(count)
}

/// Opens a row as if its principal had another name; `None` where that does not open it either.
fn open_as(
    handle: &Handle,
    row: &Row,
    principal: &str,
) -> Result<Option<zeroize::Zeroizing<Vec<u8>>>, Error> {
    // SAFETY: the datum of a bytea that is not NULL.
    let sealed = unsafe { Detoasted::new(row.sealed) };
    let mut store = handle.borrow_mut();
    match identity::with_identity(&row.fields, Some(principal), |identity| {
        store.open(identity, sealed.bytes())
    }) {
        Ok(Ok(value)) => Ok(Some(value)),
        Ok(Err(instance::OpenError::Store(error))) => Err(error),
        Ok(Err(instance::OpenError::Value(_))) | Err(_) => Ok(None),
    }
}
