//! Writing the history without the extension: what a dump brings is kept, everything else is refused.

use pgrx::pg_sys;

use crate::error::{Error, or_raise};
use crate::instance;
use crate::postgres::catalog;
use crate::postgres::fmgr::raw_function;
use crate::postgres::tables::versions;
use crate::postgres::trigger::{Call, Event, Level, Timing};
use crate::rows::columns::Columns;
use crate::rows::statement::qualified;
use crate::rows::table_triggers::{accept, may_restore};

raw_function!(
    encrypted_credential_versions_check_wrapper,
    pg_finfo_encrypted_credential_versions_check_wrapper,
    encrypted_credential_versions_check
);

/// BEFORE INSERT OR UPDATE OR DELETE on `encrypted_credential_versions`, for each row. The extension stores rows without
/// triggers, and replication fires none.
///
/// # Safety
/// Called by Postgres.
unsafe fn encrypted_credential_versions_check(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: Postgres's own call.
    pg_sys::Datum::from(or_raise(unsafe { Call::new(fcinfo) }.and_then(|call| check(&call))))
}

fn check(call: &Call<'_>) -> Result<pg_sys::HeapTuple, Error> {
    call.must_fire(Timing::Before, Level::Row)?;
    call.must_have(versions::COLUMNS)?;
    let table = call.relation();
    // SAFETY: a syscache lookup by oid.
    let schema = unsafe { pg_sys::get_rel_namespace(table) };
    if !may_restore(table) {
        let schema = catalog::schema_name(schema);
        return Err(Error::HistoryWriteRefused { table: qualified(table), schema });
    }
    if call.event() == Event::Delete {
        return Ok(Columns::old(call)?.tuple);
    }
    let handle = instance::of_schema(schema);
    if let Ok(handle) = &handle {
        // Its own history, and not another table that the function was put on.
        let own =
            handle.borrow().table_of_versions(pg_sys::AccessShareLock)?.is_some_and(|own| own.oid() == table);
        if !own {
            return Err(Error::NotAnInstance { relation: catalog::relation_name(table) });
        }
    }
    accept(call, handle, &Columns::new(call)?)
}
