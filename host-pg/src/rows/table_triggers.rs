//! Triggers on the tables of an instance: a sealed value is believed only if it opens, and changes are told to whom they
//! concern.

use pgrx::pg_sys;

use crate::error::{Error, or_raise};
use crate::instance::{self, OpenError};
use crate::postgres::fmgr::raw_function;
use crate::postgres::trigger::{Call, Event, Level, Timing};
use crate::rows::columns::Columns;
use crate::rows::{identity, open};

raw_function!(
    encrypted_credentials_check_wrapper,
    pg_finfo_encrypted_credentials_check_wrapper,
    encrypted_credentials_check
);
/// BEFORE INSERT OR UPDATE on `encrypted_credentials`, for each row: refuses a sealed value that does not open for
/// the row it is written to.
///
/// # Safety
/// Called by Postgres.
unsafe fn encrypted_credentials_check(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: Postgres's own call.
    let checked = unsafe { Call::new(fcinfo) }.and_then(|call| check(&call));
    pg_sys::Datum::from(or_raise(checked))
}

fn check(call: &Call<'_>) -> Result<pg_sys::HeapTuple, Error> {
    call.must_fire(Timing::Before, Level::Row)?;
    let table = call.relation();
    let new = Columns::new(call)?;
    let (Ok(fields), Some(sealed)) = (new.fields(), new.value) else {
        // The table's own NOT NULL constraints say it better.
        return Ok(new.tuple);
    };
    if call.event() == Event::Truncate {
        return Ok(new.tuple);
    }
    let handle = instance::of_table(table)?;
    identity::check_size(&fields)?;
    // Anyone who is past row-level security may restore a dump: its rows can come before the keyring, and on a server
    // that does not know the secret.
    // SAFETY: a catalog lookup by oid.
    let restoring =
        unsafe { pg_sys::check_enable_rls(table, pg_sys::GetUserId(), true) } != open::RLS_ENABLED;
    if restoring && handle.borrow().current().is_none() {
        return Ok(new.tuple);
    }
    match open::open_unchecked(&handle, &fields, sealed) {
        Ok(_) => Ok(new.tuple),
        Err(OpenError::Store(Error::MasterSecretMissing { .. } | Error::VariableNotAllowed { .. }))
            if restoring =>
        {
            Ok(new.tuple)
        }
        Err(OpenError::Store(error)) => Err(error),
        Err(OpenError::Value(reason)) => {
            Err(Error::SealedValueRefused { name: fields.display_name(), reason })
        }
    }
}
