//! `rename_principal`: seals again what was sealed for a role under its old name.

use pgrx::datum::DatumWithOid;
use pgrx::{IntoDatum, fcinfo, pg_sys};

use crate::admin::history;
use crate::admin::owner::{as_owner_of, change_row, locked};
use crate::error::{Error, given, or_raise};
use crate::instance::{self, Handle};
use crate::postgres::fmgr::raw_function;
use crate::postgres::heap::Visibility;
use crate::postgres::varlena::Detoasted;
use crate::postgres::{catalog, encoding};
use crate::rows::columns::Fields;
use crate::rows::every::every_row;
use crate::rows::{identity, open};

raw_function!(rename_principal_wrapper, pg_finfo_rename_principal_wrapper, rename_principal);

/// `rename_principal(old_name text, principal regrole, schema regnamespace) returns bigint`.
///
/// # Safety
/// Called by Postgres with these types.
unsafe fn rename_principal(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the declared argument types. The name is taken as bytes: it is in the encoding of the database.
    let (old_name, principal, schema) = unsafe {
        let old_name = if fcinfo::pg_arg_is_null(fcinfo, 0) {
            None
        } else {
            Some(Detoasted::new(fcinfo::pg_getarg_datum_raw(fcinfo, 0)))
        };
        (old_name, fcinfo::pg_getarg::<pg_sys::Oid>(fcinfo, 1), fcinfo::pg_getarg::<pg_sys::Oid>(fcinfo, 2))
    };
    let renamed = given(old_name.as_ref(), "old_name").and_then(|old_name| {
        rename(&encoding::to_utf8(old_name.bytes()), given(principal, "principal")?, given(schema, "schema")?)
    });
    or_raise(renamed).into_datum().unwrap_or(pg_sys::Datum::null())
}

fn rename(old_name: &[u8], principal: pg_sys::Oid, schema: pg_sys::Oid) -> Result<i64, Error> {
    if catalog::role_name(principal).is_none() {
        return Err(Error::InvalidArgument(format!("role {} does not exist", principal.to_u32())));
    }
    let handle = locked(schema)?;
    let table = handle.borrow().table;
    let mut count = 0_i64;
    as_owner_of(&handle, || {
        every_row(table, Visibility::Now, |fields, sealed| {
            let Some((to, again)) = renamed(&handle, fields, sealed, old_name, principal)? else {
                return Ok(());
            };
            // SAFETY: an oid, and a bytea made just now.
            let values = unsafe {
                vec![
                    DatumWithOid::new(again, pg_sys::BYTEAOID),
                    DatumWithOid::new(to.principal, pg_sys::REGROLEOID),
                ]
            };
            change_row(table, fields, sealed, ", principal = $7", values)?;
            count = count.saturating_add(1);
            Ok(())
        })
    })?;
    history::rename(&handle, old_name, principal)?;
    Ok(count)
}

/// What becomes of a value: its identity with the role, and the value sealed for that; `None` where it is not one of those
/// that the role is to have.
pub(super) fn renamed(
    handle: &Handle,
    fields: &Fields,
    sealed: pg_sys::Datum,
    old_name: &[u8],
    principal: pg_sys::Oid,
) -> Result<Option<(Fields, pg_sys::Datum)>, Error> {
    let belongs = fields.principal_oid() == principal || catalog::role_name(fields.principal_oid()).is_none();
    if !belongs || open::readable(handle, fields, sealed)?.is_ok() {
        return Ok(None);
    }
    let Some(value) = open_as(handle, fields, sealed, old_name)? else {
        return Ok(None);
    };
    let to = Fields { principal: pg_sys::Datum::from(principal), ..*fields };
    let table = handle.borrow().table;
    Ok(Some((to, open::seal(table, &to, &value)?)))
}

/// Opens a row as if its principal had another name; `None` where that does not open it either.
pub(super) fn open_as(
    handle: &Handle,
    fields: &Fields,
    sealed: pg_sys::Datum,
    principal: &[u8],
) -> Result<Option<omni_credentials_host::Value>, Error> {
    // SAFETY: the datum of a bytea that is not NULL.
    let sealed = unsafe { Detoasted::new(sealed) };
    let mut store = handle.borrow_mut();
    match identity::with_identity(fields, Some(principal), |identity, expires| {
        store.open(identity, expires, sealed.bytes())
    }) {
        Ok(Ok(value)) => Ok(Some(value)),
        Ok(Err(instance::OpenError::Store(error) | instance::OpenError::Closed(error))) => Err(error),
        Ok(Err(instance::OpenError::Value(_))) | Err(_) => Ok(None),
    }
}
