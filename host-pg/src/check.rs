//! Triggers on the tables of a copy: a sealed value is believed only if it opens, and changes are told to whom they
//! concern.

use pgrx::pg_sys;

use crate::error::{Error, or_raise};
use crate::identity;
use crate::instance::{self, OpenError};
use crate::open;
use crate::raw::raw_function;
use crate::trigger::{Call, Event};

raw_function!(
    encrypted_credentials_check_wrapper,
    pg_finfo_encrypted_credentials_check_wrapper,
    encrypted_credentials_check
);
raw_function!(
    encrypted_credentials_changed_wrapper,
    pg_finfo_encrypted_credentials_changed_wrapper,
    encrypted_credentials_changed
);
raw_function!(
    credentials_store_changed_wrapper,
    pg_finfo_credentials_store_changed_wrapper,
    credentials_store_changed
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

/// AFTER any change of `encrypted_credentials`, for each statement: the file stores of this copy are behind.
///
/// # Safety
/// Called by Postgres.
unsafe fn encrypted_credentials_changed(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: Postgres's own call.
    let call = or_raise(unsafe { Call::new(fcinfo) });
    crate::file_store::changed(call.relation());
    pg_sys::Datum::null()
}

/// AFTER any change of `credentials_config` or `credentials_keyrings`, for each statement: every backend looks again.
///
/// # Safety
/// Called by Postgres.
unsafe fn credentials_store_changed(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: Postgres's own call; the invalidation is queued and sent at commit.
    unsafe {
        let call = or_raise(Call::new(fcinfo));
        pg_sys::CacheInvalidateRelcacheByRelid(call.relation());
    }
    pg_sys::Datum::null()
}

fn check(call: &Call<'_>) -> Result<pg_sys::HeapTuple, Error> {
    let table = call.relation();
    let new = call.new_row()?;
    let (Ok(fields), Some(sealed)) = (new.fields(), new.value) else {
        // The table's own NOT NULL constraints say it better.
        return Ok(new.tuple);
    };
    if call.event() == Event::Truncate {
        return Ok(new.tuple);
    }
    let handle = instance::of_table(table)?;
    identity::check_size(&fields)?;
    // Whoever is past row-level security may restore a dump: its rows can come before the keyring, and on a server
    // that does not know the secret.
    // SAFETY: a catalog lookup by oid.
    let restoring =
        unsafe { pg_sys::check_enable_rls(table, pg_sys::GetUserId(), true) } != open::RLS_ENABLED;
    if restoring && handle.borrow().current().is_none() {
        return Ok(new.tuple);
    }
    match open::open_unchecked(&handle, &fields, sealed) {
        Ok(_) => Ok(new.tuple),
        Err(OpenError::Store(Error::MasterSecretMissing { .. })) if restoring => Ok(new.tuple),
        Err(OpenError::Store(error)) => Err(error),
        Err(OpenError::Value(reason)) => {
            Err(Error::SealedValueRefused { name: fields.display_name(), reason })
        }
    }
}
