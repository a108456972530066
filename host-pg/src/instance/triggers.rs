//! The trigger on the tables of keyrings and settings: every backend looks at them again, and keyrings that may be needed
//! stay.

use pgrx::pg_sys;

use crate::error::{Error, or_raise};
use crate::postgres::catalog;
use crate::postgres::fmgr::raw_function;
use crate::postgres::heap::Table;
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
        or_raise(refuse_loss(&call));
        pg_sys::CacheInvalidateRelcacheByRelid(call.relation());
    }
    pg_sys::Datum::null()
}

/// Fails where a statement removed keyrings and left values. `prune_keyrings`, which knows what is needed, removes rows
/// directly, and no trigger fires for it; nor does one for what logical replication brings.
fn refuse_loss(call: &Call<'_>) -> Result<(), Error> {
    let Some(schema) = call.schema_of(c"credentials_keyrings").filter(|_| call.removed_rows()) else {
        return Ok(());
    };
    for name in [c"encrypted_credentials", c"encrypted_credential_versions"] {
        let values = Table::open_in(schema, name, pg_sys::AccessShareLock)?;
        if let Some(values) = values
            && !values.is_empty()?
        {
            return Err(Error::KeyringsNeeded { schema: catalog::schema_name(schema) });
        }
    }
    Ok(())
}
