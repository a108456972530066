//! The triggers on the tables of keyrings and settings: every backend looks at them again, and keyrings that may be needed
//! stay, also where replication brings and removes them. No lock of ours is held then, and no statement trigger fires.

use pgrx::datum::Uuid;
use pgrx::{FromDatum, pg_sys};

use crate::error::{Error, or_raise};
use crate::instance;
use crate::postgres::catalog;
use crate::postgres::fmgr::raw_function;
use crate::postgres::heap::{Table, Visibility};
use crate::postgres::tables::keyrings;
use crate::postgres::trigger::{Call, Event, Level, Timing};
use crate::postgres::varlena::Detoasted;
use crate::rows::every::every_row;
use crate::rows::history::every_version;

raw_function!(
    credentials_store_changed_wrapper,
    pg_finfo_credentials_store_changed_wrapper,
    credentials_store_changed
);

/// AFTER any change of `credentials_config` or `credentials_keyrings`, for each statement: every backend looks again. And
/// BEFORE any change of `credentials_keyrings`, for each row and always: so it does where replication changed them, and a
/// keyring that another server removed stays where values here need it.
///
/// # Safety
/// Called by Postgres.
unsafe fn credentials_store_changed(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: Postgres's own call.
    let changed = unsafe { Call::new(fcinfo) }.and_then(|call| changed(&call));
    pg_sys::Datum::from(or_raise(changed))
}

/// The row of a trigger for each row; null for one of the statement.
fn changed(call: &Call<'_>) -> Result<pg_sys::HeapTuple, Error> {
    // SAFETY: the relation of the running trigger; the invalidation is queued and sent at commit.
    let tell = || unsafe { pg_sys::CacheInvalidateRelcacheByRelid(call.relation()) };
    if call.must_fire(Timing::Before, Level::Row).is_ok() {
        tell();
        return of_row(call);
    }
    call.must_fire(Timing::After, Level::Statement)?;
    refuse_loss(call)?;
    tell();
    Ok(core::ptr::null_mut())
}

/// Fails where a statement removed keyrings and left values. `prune_keyrings`, which knows what is needed, removes rows
/// directly, and no trigger fires for it.
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

/// The row, or null where a keyring is not to be deleted.
fn of_row(call: &Call<'_>) -> Result<pg_sys::HeapTuple, Error> {
    if call.event() != Event::Delete {
        return Ok(call.new_values()?.0);
    }
    let (row, values) = call.old_values()?;
    // SAFETY: a variable of the session.
    let applied = i64::from(unsafe { pg_sys::SessionReplicationRole })
        == i64::from(pg_sys::SESSION_REPLICATION_ROLE_REPLICA);
    let Some(schema) = call.schema_of(c"credentials_keyrings").filter(|_| applied) else {
        // What a statement removes is for the statement's trigger to refuse.
        return Ok(row);
    };
    call.must_have(keyrings::COLUMNS)?;
    // SAFETY: the datum of a uuid, whose column was checked just now, or NULL.
    let id =
        values.get(keyrings::ID).copied().flatten().and_then(|id| unsafe { Uuid::from_datum(id, false) });
    let kept = match id.map_or(Ok(false), |id| is_needed(schema, id)) {
        Ok(needed) => needed.then(|| "values here are sealed with it".to_owned()),
        Err(error) => Some(format!("no one can tell whether values here are sealed with it: {error}")),
    };
    Ok(match kept {
        Some(reason) => {
            let schema = catalog::schema_name(schema);
            pgrx::warning!("kept a keyring of schema {schema} that another server removed: {reason}");
            core::ptr::null_mut()
        }
        None => row,
    })
}

/// Whether a value here needs a keyring. Another server may have removed it before what is sealed with it arrived there.
fn is_needed(schema: pg_sys::Oid, id: Uuid) -> Result<bool, Error> {
    let table = instance::of_schema(schema)?.borrow().table;
    let handle = instance::of_table_now(table)?;
    // Most often it was replaced by one with the same keys and more.
    if handle.borrow_mut().has_elsewhere_the_keys_of(id)? {
        return Ok(false);
    }
    // Writers that have sealed with it are done then, and the next ones look at the keyrings again.
    drop(Table::open(table, pg_sys::ShareRowExclusiveLock)?);
    let mut needed = false;
    let mut look = |sealed| {
        // SAFETY: the datum of a bytea that is not NULL.
        let sealed = unsafe { Detoasted::new(sealed) };
        needed = needed || handle.borrow_mut().may_need(id, sealed.bytes())?;
        Ok(())
    };
    every_row(table, Visibility::Now, |_, sealed| look(sealed))?;
    let versions = handle.borrow().table_of_versions(pg_sys::AccessShareLock)?;
    if let Some(versions) = versions {
        every_version(&versions, Visibility::Now, |version| look(version.sealed))?;
    }
    Ok(needed)
}
