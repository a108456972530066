//! The trigger on `encrypted_credentials` that notes which file stores are behind.

use pgrx::pg_sys;

use super::transaction;
use crate::error::or_raise;
use crate::postgres::fmgr::raw_function;
use crate::postgres::trigger::{Call, Level, Timing};

raw_function!(
    encrypted_credentials_changed_wrapper,
    pg_finfo_encrypted_credentials_changed_wrapper,
    encrypted_credentials_changed
);

/// AFTER any change of `encrypted_credentials`, for each statement: the file stores of this instance are behind.
///
/// # Safety
/// Called by Postgres.
unsafe fn encrypted_credentials_changed(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: Postgres's own call.
    let call = or_raise(unsafe { Call::new(fcinfo) });
    or_raise(call.must_fire(Timing::After, Level::Statement));
    transaction::changed(call.relation());
    pg_sys::Datum::null()
}
