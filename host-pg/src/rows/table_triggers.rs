//! Triggers on the tables of an instance: a sealed value is believed only if it opens, and changes are told to whom they
//! concern.

use std::cell::Cell;

use pgrx::pg_sys;
use pgrx::spi::quote_identifier;

use crate::error::{Error, Unreadable, or_raise, warn};
use crate::instance::{self, Handle, OpenError};
use crate::postgres::catalog;
use crate::postgres::fmgr::raw_function;
use crate::postgres::trigger::{Call, Event, Level, Timing};
use crate::rows::columns::Columns;
use crate::rows::statement::qualified;
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
    let new = Columns::new(call)?;
    if new.fields().is_err() || new.value.is_none() || call.event() == Event::Truncate {
        // The table's own NOT NULL constraints say it better.
        return Ok(new.tuple);
    }
    accept(call, instance::of_table(call.relation()), &new)
}

/// The row, if its sealed value opens, or if a dump brought it whose keyring, settings or secret this server lacks, or
/// does not have yet: `pg_restore --jobs` loads the tables of an instance in any order.
pub(super) fn accept(
    call: &Call<'_>,
    handle: Result<Handle, Error>,
    new: &Columns,
) -> Result<pg_sys::HeapTuple, Error> {
    let table = call.relation();
    let (Ok(fields), Some(sealed)) = (new.fields(), new.value) else {
        return Ok(new.tuple);
    };
    if let Some(later) = call.later_before_row() {
        return Err(Error::LaterTrigger { trigger: later, table: qualified(table) });
    }
    identity::check_size(&fields)?;
    let restoring = may_restore(table);
    let handle = match handle {
        Err(error) if restoring && error.is_of_this_server() => return Ok(new.tuple),
        handle => handle?,
    };
    if restoring && handle.borrow().current().is_none() {
        return Ok(new.tuple);
    }
    match open::open_unchecked(&handle, &fields, sealed) {
        Ok(_) => Ok(new.tuple),
        Err(OpenError::Store(error) | OpenError::Closed(error)) if restoring && error.is_of_this_server() => {
            Ok(new.tuple)
        }
        Err(OpenError::Store(error) | OpenError::Closed(error)) => Err(error),
        // Only where it is new: no restore updates rows, and a value that opens is not replaced by one that does not. And not
        // what an older snapshot still opens: no dump brought that, and its keyring was pruned.
        Err(OpenError::Value(reason))
            if restoring
                && reason.is_of_another_key()
                && call.event() == Event::Insert
                && open::readable(&handle, &fields, sealed)?.is_err() =>
        {
            tell_of_unknown_key(&handle);
            Ok(new.tuple)
        }
        // Most often plain bytes, whatever their first one would mean in a sealed value.
        Err(OpenError::Value(Unreadable::Malformed | Unreadable::UnknownVersion(_))) => {
            Err(Error::NotSealed { name: fields.display_name() })
        }
        Err(OpenError::Value(reason)) => {
            Err(Error::SealedValueRefused { name: fields.display_name(), reason })
        }
    }
}

/// Warns, once for each statement, that rows came whose key no keyring here has.
fn tell_of_unknown_key(handle: &Handle) {
    thread_local! {
        static TOLD: Cell<i64> = const { Cell::new(0) };
    }
    // SAFETY: a variable of the session.
    let statement = unsafe { pg_sys::GetCurrentStatementStartTimestamp() };
    if TOLD.replace(statement) == statement {
        return;
    }
    let schema = handle.borrow().schema_name();
    warn(format!(
        "schema {schema} has no keyring for sealed values that were written, so they do not open: load {}.credentials_keyrings from the dump that they come from",
        quote_identifier(&schema)
    ));
}

/// Whether the caller may restore a dump, whose rows can come before the keyring, and on a server that has another secret or
/// none: a role that can act as the owner of the table, or that bypasses row-level security everywhere. Not
/// anyone whom the table happens to let past: rows that do not open would keep all others from writing.
pub(super) fn may_restore(table: pg_sys::Oid) -> bool {
    // SAFETY: catalog lookups by oid.
    unsafe {
        let user = pg_sys::GetUserId();
        pg_sys::has_bypassrls_privilege(user)
            || catalog::owner(table).is_some_and(|owner| pg_sys::has_privs_of_role(user, owner))
    }
}
