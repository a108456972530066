//! Reading: `open_credential`, the one function behind the view, and sealing for those who write the table itself.

use omni_credentials_host::{Identity, Value};
use pgrx::{FromDatum, IntoDatum, fcinfo, pg_sys};

use crate::error::{Error, Unreadable, or_raise, warn};
use crate::instance::{self, Instance, OpenError};
use crate::postgres::error_context::Hidden;
use crate::postgres::fmgr::raw_function;
use crate::postgres::varlena::Detoasted;
use crate::postgres::{catalog, plan};
use crate::rows::columns::Fields;
use crate::rows::history::seen::sees_version;
use crate::rows::last_right::Right;
use crate::rows::statement::{IDENTITY_MATCHES, arguments, qualified, question};
use crate::rows::{audit, identity};
use crate::settings::{self, OnUnreadable};

raw_function!(open_credential_wrapper, pg_finfo_open_credential_wrapper, open_credential);
raw_function!(seal_credential_wrapper, pg_finfo_seal_credential_wrapper, seal_credential);

/// `open_credential(store oid, name text, kind anyenum, principal regrole, scope jsonb, sealed bytea, expires_at
/// timestamptz) returns bytea`. NULL for a NULL argument, other than `expires_at`.
///
/// # Safety
/// Called by Postgres with these types.
unsafe fn open_credential(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the function has these arguments.
    if (0..=SEALED).any(|n| unsafe { fcinfo::pg_arg_is_null(fcinfo, n) }) {
        // SAFETY: as above.
        return unsafe { fcinfo::pg_return_null(fcinfo) };
    }
    // SAFETY: the declared argument types, none of those before the last NULL.
    let (store, fields, sealed) = unsafe {
        (oid_argument(fcinfo, 0), fields_from(fcinfo), fcinfo::pg_getarg_datum_raw(fcinfo, SEALED))
    };
    match or_raise(open(store, &fields, sealed)) {
        Some(value) => value,
        // SAFETY: as above.
        None => unsafe { fcinfo::pg_return_null(fcinfo) },
    }
}

/// `seal_credential(store oid, name text, kind anyenum, principal regrole, scope jsonb, value bytea, expires_at
/// timestamptz) returns bytea`. Not strict: a NULL must not become a NULL value that stands for another column's.
///
/// # Safety
/// Called by Postgres with these types.
unsafe fn seal_credential(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    for (n, field) in ["store", "name", "kind", "principal", "scope", "value"].into_iter().enumerate() {
        // SAFETY: the function has these arguments.
        if unsafe { fcinfo::pg_arg_is_null(fcinfo, n) } {
            Error::NullField { field }.raise();
        }
    }
    // Parameters of the statement that calls us hold the value in the clear.
    let context = Hidden::begin();
    // SAFETY: the declared argument types, none of those before the last NULL.
    let (store, fields, value) = unsafe {
        (oid_argument(fcinfo, 0), fields_from(fcinfo), fcinfo::pg_getarg_datum_raw(fcinfo, SEALED))
    };
    // SAFETY: the datum of a bytea that is not NULL.
    let value = unsafe { Detoasted::new(value) };
    let sealed = or_raise(may_seal(store, &fields).and_then(|()| seal(store, &fields, value.bytes())));
    context.restore();
    sealed
}

/// Seals a value for a row.
pub(crate) fn seal(store: pg_sys::Oid, fields: &Fields, value: &[u8]) -> Result<pg_sys::Datum, Error> {
    identity::check_size(fields)?;
    // Before looking for the current key: the role that changes it keeps writers waiting.
    // SAFETY: takes a lock until the end of the transaction.
    unsafe { pg_sys::LockRelationOid(store, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE) }
    let handle = instance::of_table(store)?;
    let mut store = handle.borrow_mut();
    let sealed =
        identity::with_identity(fields, None, |identity, expires| store.seal(identity, expires, value))
            .map_err(|reason| not_for(fields, reason))??;
    Ok(bytea(&sealed))
}

/// Why nothing can be sealed for an identity that has no name.
fn not_for(fields: &Fields, reason: Unreadable) -> Error {
    let name = fields.display_name();
    match reason {
        Unreadable::PrincipalDropped(oid) => Error::PrincipalMissing { name, oid },
        Unreadable::InvalidExpiry => Error::InvalidExpiry { name },
        reason => Error::Unreadable { name, reason },
    }
}

/// Opens a value for the caller, or gives NULL where `omni_credentials.on_unreadable` says so.
///
/// A role that may change or delete credentials but not read them comes here too, since an UPDATE or DELETE of the
/// view computes the whole old row. It gets the sealed value, which tells it nothing.
fn open(store: pg_sys::Oid, fields: &Fields, sealed: pg_sys::Datum) -> Result<Option<pg_sys::Datum>, Error> {
    let handle = instance::of_table(store)?;
    let right = Right::new(store, handle.borrow().view, fields.principal_oid());
    if !right.is_known() {
        if !may_see_values(&handle) {
            // SAFETY: the datum of a bytea that is not NULL.
            return Ok(Some(bytea(unsafe { Detoasted::new(sealed) }.bytes())));
        }
        if acts_for_principal(store, fields) {
            right.granted();
        } else {
            must_see(&handle, store, fields, sealed)?;
        }
    }
    match open_as_seen(&handle, fields, sealed) {
        Ok(value) => {
            if settings::warn_expired() && fields.has_expired() {
                warn(format!("credential {} has expired", fields.display_name()));
            }
            audit::read(&handle, fields);
            Ok(Some(bytea(&value)))
        }
        Err(OpenError::Store(error)) => Err(error),
        Err(_) if settings::on_unreadable() == OnUnreadable::Null => Ok(None),
        Err(OpenError::Closed(error)) => Err(error),
        Err(OpenError::Value(reason)) => Err(Error::Unreadable { name: fields.display_name(), reason }),
    }
}

/// Opens a value of a row as it is now, whichever role asks: for callers that have seen the row under its policies.
pub(crate) fn open_unchecked(
    handle: &instance::Handle,
    fields: &Fields,
    sealed: pg_sys::Datum,
) -> Result<Value, OpenError> {
    open_with(handle, fields, sealed, Instance::open)
}

/// The same for a row as the active snapshot shows it.
fn open_as_seen(
    handle: &instance::Handle,
    fields: &Fields,
    sealed: pg_sys::Datum,
) -> Result<Value, OpenError> {
    open_with(handle, fields, sealed, Instance::open_as_seen)
}

/// Seals a value of a row again under the current key, whichever role asks: the same version of the credential, where that is
/// possible.
pub(crate) fn reseal(
    handle: &instance::Handle,
    fields: &Fields,
    sealed: pg_sys::Datum,
) -> Result<pg_sys::Datum, OpenError> {
    open_with(handle, fields, sealed, Instance::reseal).map(|again| bytea(&again))
}

fn open_with<T>(
    handle: &instance::Handle,
    fields: &Fields,
    sealed: pg_sys::Datum,
    open: impl FnOnce(&mut Instance, &Identity<'_>, Option<u64>, &[u8]) -> Result<T, OpenError>,
) -> Result<T, OpenError> {
    // SAFETY: the datum of a bytea that is not NULL.
    let sealed = unsafe { Detoasted::new(sealed) };
    let mut store = handle.borrow_mut();
    let open = |identity: &Identity<'_>, expires| open(&mut store, identity, expires, sealed.bytes());
    match identity::with_identity(fields, None, open) {
        Ok(result) => result,
        Err(reason) => Err(OpenError::Value(reason)),
    }
}

/// Whether the value opens for its row, and why not; a failure of the store is an error.
pub(crate) fn readable(
    handle: &instance::Handle,
    fields: &Fields,
    sealed: pg_sys::Datum,
) -> Result<Result<(), String>, Error> {
    match open_as_seen(handle, fields, sealed) {
        Ok(_) => Ok(Ok(())),
        Err(OpenError::Value(reason)) => Ok(Err(reason.to_string())),
        Err(OpenError::Closed(error)) => Ok(Err(format!("no keyring that opens has its key: {error}"))),
        Err(OpenError::Store(error)) => Err(error),
    }
}

/// A bytea in the current memory context.
pub(crate) fn bytea(bytes: &[u8]) -> pg_sys::Datum {
    bytes.into_datum().unwrap_or(pg_sys::Datum::null())
}

/// Whether the caller may select values from the view `credentials`. Without a view that belongs to the instance, only who
/// can act as the instance's owner may: SELECT on the table is also granted to roles that change credentials and do
/// not read them.
pub(crate) fn may_see_values(handle: &instance::Handle) -> bool {
    let (view, table) = {
        let store = handle.borrow();
        (store.view, store.table)
    };
    let mode = pg_sys::AclMode::from(pg_sys::ACL_SELECT);
    // SAFETY: catalog lookups by oid, and by the number of the view's second column.
    unsafe {
        let user = pg_sys::GetUserId();
        let ok = pg_sys::AclResult::ACLCHECK_OK;
        match view {
            Some(view) => {
                pg_sys::pg_class_aclcheck(view, user, mode) == ok
                    || pg_sys::pg_attribute_aclcheck(view, VALUE_COLUMN, user, mode) == ok
            }
            None => catalog::owner(table).is_some_and(|owner| pg_sys::has_privs_of_role(user, owner)),
        }
    }
}

/// `value` in the view `credentials`.
const VALUE_COLUMN: pg_sys::AttrNumber = 2;

/// Keeps `open_credential` from being an oracle: anyone who holds sealed bytes from elsewhere, such as the file in a
/// repository, may open them only with the rights of the principal, past row-level security, or where the policies of the
/// table show them this very row, or this very version in the history.
fn must_see(
    handle: &instance::Handle,
    store: pg_sys::Oid,
    fields: &Fields,
    sealed: pg_sys::Datum,
) -> Result<(), Error> {
    if sees_row(store, fields, sealed)? || sees_version(handle, fields, sealed)? {
        Ok(())
    } else {
        Err(Error::NotPermitted { name: fields.display_name() })
    }
}

/// Anyone who may not write the table has no use for sealing. And a value that is sealed outside the table is for a
/// principal whose rights the caller has: no policy is asked whether it may be written. Through the view, the
/// policies are.
fn may_seal(store: pg_sys::Oid, fields: &Fields) -> Result<(), Error> {
    let mode = pg_sys::AclMode::from(pg_sys::ACL_INSERT | pg_sys::ACL_UPDATE);
    // SAFETY: a catalog lookup by oid.
    let result = unsafe { pg_sys::pg_class_aclcheck(store, pg_sys::GetUserId(), mode) };
    if result != pg_sys::AclResult::ACLCHECK_OK {
        return Err(Error::NotPermitted { name: fields.display_name() });
    }
    if acts_for_principal(store, fields) {
        Ok(())
    } else {
        Err(Error::SealNotPermitted { name: fields.display_name() })
    }
}

/// Whether the caller can act with the rights of the principal, or is past the row-level security of the table.
fn acts_for_principal(store: pg_sys::Oid, fields: &Fields) -> bool {
    // SAFETY: plain catalog lookups by oid; they raise errors, and do not keep pointers.
    unsafe {
        let user = pg_sys::GetUserId();
        pg_sys::has_privs_of_role(user, fields.principal_oid())
            || pg_sys::check_enable_rls(store, user, true) != RLS_ENABLED
    }
}

/// `RLS_ENABLED` of utils/rls.h: policies apply to this user.
pub(crate) const RLS_ENABLED: core::ffi::c_int = 2;

/// Whether the caller's policies show this very row: to the running query, whose row it is, or now, where that query
/// has fetched the row again.
fn sees_row(store: pg_sys::Oid, fields: &Fields, sealed: pg_sys::Datum) -> Result<bool, Error> {
    let sql = format!(
        "select from {} where {IDENTITY_MATCHES} and value operator(pg_catalog.=) $5",
        qualified(store)
    );
    let arguments = arguments(fields, Some(sealed));
    let question = question(&sql, &arguments)?;
    Ok(question.asked(&arguments)? || (plan::may_meet_newer_rows() && question.asked_now(&arguments)?))
}

/// # Safety
/// Argument `n` is a non-null oid.
unsafe fn oid_argument(fcinfo: pg_sys::FunctionCallInfo, n: usize) -> pg_sys::Oid {
    // SAFETY: see above.
    unsafe {
        pg_sys::Oid::from_datum(fcinfo::pg_getarg_datum_raw(fcinfo, n), false).unwrap_or(pg_sys::InvalidOid)
    }
}

/// Where the arguments of both functions have the value, after the fields.
const SEALED: usize = 5;

/// # Safety
/// Arguments 1 to 4 are a non-null text, enum, regrole and jsonb; argument 6 is a timestamptz.
unsafe fn fields_from(fcinfo: pg_sys::FunctionCallInfo) -> Fields {
    // SAFETY: see above.
    unsafe {
        let expires_at = SEALED + 1;
        let expires = !fcinfo::pg_arg_is_null(fcinfo, expires_at);
        Fields {
            name: fcinfo::pg_getarg_datum_raw(fcinfo, 1),
            kind: fcinfo::pg_getarg_datum_raw(fcinfo, 2),
            principal: fcinfo::pg_getarg_datum_raw(fcinfo, 3),
            scope: fcinfo::pg_getarg_datum_raw(fcinfo, 4),
            expires_at: expires.then(|| fcinfo::pg_getarg_datum_raw(fcinfo, expires_at)),
        }
    }
}
