//! The trigger on the tables of keyrings and settings: every backend looks at them again.

use pgrx::pg_sys;

use crate::error::or_raise;
use crate::postgres::fmgr::raw_function;
use crate::postgres::trigger::{Call, Level, Timing};

raw_function!(
    credentials_store_changed_wrapper,
    pg_finfo_credentials_store_changed_wrapper,
    credentials_store_changed
);

/// AFTER any change of `credentials_config` or `credentials_keyrings`, for each statement: every backend looks again.
///
/// # Safety
/// Called by Postgres.
unsafe fn credentials_store_changed(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: Postgres's own call; the invalidation is queued and sent at commit.
    unsafe {
        let call = or_raise(Call::new(fcinfo));
        or_raise(call.must_fire(Timing::After, Level::Statement));
        pg_sys::CacheInvalidateRelcacheByRelid(call.relation());
    }
    pg_sys::Datum::null()
}
