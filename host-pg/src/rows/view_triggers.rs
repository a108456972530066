//! Writing through the `credentials` view: values are sealed on their way to `encrypted_credentials`, which is
//! written with the caller's rights, so that its privileges and policies decide.

use pgrx::PgSqlErrorCode as C;
use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::error::{self, Error, or_raise};
use crate::instance::{self, OpenError};
use crate::postgres::catalog;
use crate::postgres::error_context::{Hidden, with_hint};
use crate::postgres::fmgr::raw_function;
use crate::postgres::running::assigned;
use crate::postgres::tables::credentials;
use crate::postgres::trigger::{Call, Event, Level, Timing};
use crate::postgres::varlena::Detoasted;
use crate::rows::columns::{Columns, Fields, same_bytes};
use crate::rows::open;
use crate::rows::statement::{IDENTITY_MATCHES, arguments, change, first_row, qualified, row_arguments};

raw_function!(credentials_write_wrapper, pg_finfo_credentials_write_wrapper, credentials_write);

/// INSTEAD OF INSERT, UPDATE or DELETE, for each row of the view.
///
/// # Safety
/// Called by Postgres.
unsafe fn credentials_write(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // What calls us may hold the row in the clear: COPY adds its line to every error.
    let context = Hidden::begin();
    // SAFETY: Postgres's own call.
    let done = unsafe { Call::new(fcinfo) }.and_then(|call| {
        call.must_fire(Timing::InsteadOf, Level::Row)?;
        match call.event() {
            Event::Insert => insert(&call),
            Event::Update => update(&call),
            Event::Delete => delete(&call),
            Event::Truncate => Err(Error::InvalidArgument("a view cannot be truncated".to_owned())),
        }
    });
    let done = or_raise(done);
    context.restore();
    match done {
        Some(tuple) => pg_sys::Datum::from(tuple),
        // A trigger's NULL is a null pointer with isnull unset: the row counts as not changed.
        None => pg_sys::Datum::null(),
    }
}

fn insert(call: &Call<'_>) -> Result<Option<pg_sys::HeapTuple>, Error> {
    let table = call.table_of_view()?;
    must_be_granted(table, "INSERT", pg_sys::ACL_INSERT)?;
    let new = Columns::inserted(call)?;
    let fields = new.fields()?;
    // SAFETY: the datum of a bytea that is not NULL.
    let value = unsafe { Detoasted::new(new.value()?) };
    let sealed = open::seal(table, &fields, value.bytes())?;
    let sql = format!(
        "insert into {} (name, kind, principal, scope, value, expires_at) values ($1, $2, $3, $4, $5, $6)",
        qualified(table)
    );
    let written = with_hint(C::ERRCODE_UNIQUE_VIOLATION, &exists_hint(table), || {
        Spi::connect_mut(|client| change(client, &sql, &row_arguments(&fields, sealed)))
    })?;
    Ok((written > 0).then_some(new.tuple))
}

/// A row may have changed since the statement's snapshot. The change is made to the row as it is now where it does not
/// depend on what was read: the value is the same in the clear (a rotation sealed it again), or the statement makes what
/// it assigns from nothing but constants. Otherwise the other session's change would be lost.
fn update(call: &Call<'_>) -> Result<Option<pg_sys::HeapTuple>, Error> {
    let table = call.table_of_view()?;
    must_be_granted(table, "UPDATE", pg_sys::ACL_UPDATE)?;
    wait_for_maintenance(table);
    let (old, new) = (Columns::old(call)?, Columns::new(call)?);
    let (from, given) = (old.fields()?, new.fields()?);
    let same_value = match (old.value, new.value) {
        (None, None) => true,
        (Some(old), Some(new)) => same_bytes(old, new),
        _ => false,
    };
    loop {
        // Gone since the statement's snapshot: deleted, or given another identity, and then the change must not be lost.
        let Some(now) = Now::of(table, &from)? else {
            return Err(changed(&from));
        };
        let (keeps_value, to, row) = if now.is_as_read(table, &old, &from)? {
            (same_value, given, new.tuple)
        } else {
            let columns = assigned(call.relation(), table, &IDENTITY).ok_or_else(|| changed(&from))?;
            let keeps = |column: usize| {
                let number = i32::try_from(column.saturating_add(1));
                !columns.iter().any(|assigned| Ok(*assigned) == number)
            };
            // What is not assigned stays as it is now.
            let mut kept = Vec::new();
            let mut to = given;
            if keeps(credentials::EXPIRES_AT) {
                to.expires_at = now.fields.expires_at;
                kept.push((credentials::EXPIRES_AT, to.expires_at));
            }
            let keeps_value = keeps(credentials::VALUE);
            if keeps_value && open::may_see_values(&instance::of_table(table)?) {
                kept.push((credentials::VALUE, Some(open::bytea(&now.open(table)?))));
            }
            (keeps_value, to, call.with_columns(new.tuple, &kept))
        };
        if keeps_value && now.fields.is_same_credential(&to) && now.fields.has_same_expiry(&to) {
            return Ok(Some(row));
        }
        let sealed = match new.value {
            // A new identity or expiry for a value that the caller did not see in the clear (or could not).
            _ if keeps_value => open::seal(table, &to, &now.open(table)?)?,
            // SAFETY: the datum of a bytea that is not NULL.
            Some(value) => open::seal(table, &to, unsafe { Detoasted::new(value) }.bytes())?,
            None => return Err(Error::NullField { field: "value" }),
        };
        let sql = format!(
            "update {} set name = $6, kind = $7, principal = $8, scope = $9, value = $10, expires_at = $11 \
             where {IDENTITY_MATCHES} and value operator(pg_catalog.=) $5",
            qualified(table)
        );
        let mut parameters = arguments(&from, Some(open::bytea(&now.sealed)));
        parameters.extend(row_arguments(&to, sealed));
        let written = with_hint(C::ERRCODE_UNIQUE_VIOLATION, &exists_hint(table), || {
            Spi::connect_mut(|client| change(client, &sql, &parameters))
        })?;
        if written > 0 {
            return Ok(Some(row));
        }
        match Now::of(table, &from)? {
            None => return Err(changed(&from)),
            // A policy hides the row from this command: it counts as not changed.
            Some(again) if again.sealed == now.sealed => return Ok(None),
            // Another session was faster.
            Some(_) => {
                pgrx::check_for_interrupts!();
            }
        }
    }
}

/// As for an update, but a value that another session has set is not deleted unseen.
fn delete(call: &Call<'_>) -> Result<Option<pg_sys::HeapTuple>, Error> {
    let table = call.table_of_view()?;
    must_be_granted(table, "DELETE", pg_sys::ACL_DELETE)?;
    wait_for_maintenance(table);
    let old = Columns::old(call)?;
    let fields = old.fields()?;
    let sql = format!(
        "delete from {} where {IDENTITY_MATCHES} and value operator(pg_catalog.=) $5",
        qualified(table)
    );
    loop {
        let Some(now) = Now::of(table, &fields)? else {
            return Ok(None);
        };
        if !now.is_as_read(table, &old, &fields)? {
            return Err(changed(&fields));
        }
        let parameters = arguments(&fields, Some(open::bytea(&now.sealed)));
        if Spi::connect_mut(|client| change(client, &sql, &parameters))? > 0 {
            return Ok(Some(old.tuple));
        }
        match Now::of(table, &fields)? {
            Some(again) if again.sealed != now.sealed => {
                pgrx::check_for_interrupts!();
            }
            // Gone, or hidden from this command by a policy.
            _ => return Ok(None),
        }
    }
}

/// The columns of an identity, counted from 1.
const IDENTITY: [pg_sys::AttrNumber; 4] = [1, 3, 4, 5];

/// Maintenance keeps writers waiting. What it leaves is what the row is compared with.
fn wait_for_maintenance(table: pg_sys::Oid) {
    // SAFETY: takes a lock until the end of the transaction; the caller may write the table.
    unsafe { pg_sys::LockRelationOid(table, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE) }
}

/// A row as it is committed now.
struct Now {
    sealed: Vec<u8>,
    /// With the expiry that it has now, which the value is bound to.
    fields: Fields,
}

impl Now {
    /// The row with that identity; `None` where it is gone.
    fn of(table: pg_sys::Oid, fields: &Fields) -> Result<Option<Self>, Error> {
        let sql = format!("select value, expires_at from {} where {IDENTITY_MATCHES}", qualified(table));
        let row = Spi::connect_mut(|client| first_row(client, &sql, &arguments(fields, None)))?;
        Ok(row.map(|(sealed, expires_at)| Self { sealed, fields: Fields { expires_at, ..*fields } }))
    }

    /// Whether value and expiry are those that the statement read, whatever key the value is sealed with now.
    fn is_as_read(&self, table: pg_sys::Oid, old: &Columns, read: &Fields) -> Result<bool, Error> {
        if !self.fields.has_same_expiry(read) {
            return Ok(false);
        }
        let handle = instance::of_table(table)?;
        let open = |sealed| match open::open_unchecked(&handle, read, sealed) {
            Ok(value) => Ok(Some(value)),
            Err(OpenError::Value(_) | OpenError::Closed(_)) => Ok(None),
            Err(OpenError::Store(error)) => Err(error),
        };
        let Some(value) = old.value else {
            return Ok(open(open::bytea(&self.sealed))?.is_none());
        };
        // SAFETY: the datum of a bytea that is not NULL.
        let bytes = unsafe { Detoasted::new(value) };
        if open::may_see_values(&handle) {
            return Ok(
                open(open::bytea(&self.sealed))?.is_some_and(|value| value.as_slice() == bytes.bytes())
            );
        }
        // The view gave the sealed value itself.
        if bytes.bytes() == self.sealed {
            return Ok(true);
        }
        let (before, now) = (open(value)?, open(open::bytea(&self.sealed))?);
        Ok(before.is_some() && before == now)
    }

    /// Its value in the clear.
    fn open(&self, table: pg_sys::Oid) -> Result<omni_credentials_host::Value, Error> {
        let handle = instance::of_table(table)?;
        open::open_unchecked(&handle, &self.fields, open::bytea(&self.sealed)).map_err(|error| match error {
            OpenError::Store(error) | OpenError::Closed(error) => error,
            OpenError::Value(reason) => Error::Unreadable { name: self.fields.display_name(), reason },
        })
    }
}

/// Fails unless the caller may do that to the table as well. Otherwise the server's own error would name a table that the
/// caller never mentioned.
fn must_be_granted(table: pg_sys::Oid, privilege: &'static str, mode: u32) -> Result<(), Error> {
    let mode = pg_sys::AclMode::from(mode);
    // SAFETY: catalog lookups by oid.
    let user = unsafe {
        let user = pg_sys::GetUserId();
        let ok = pg_sys::AclResult::ACLCHECK_OK;
        if pg_sys::pg_class_aclcheck(table, user, mode) == ok
            || pg_sys::pg_attribute_aclcheck_all(table, user, mode, pg_sys::AclMaskHow::ACLMASK_ANY) == ok
        {
            return Ok(());
        }
        user
    };
    let role = catalog::role_name(user).unwrap_or_default();
    Err(Error::NotGranted {
        table: catalog::relation_name(table),
        privilege,
        role: String::from_utf8_lossy(&role).into_owned(),
        schema: schema_of(table),
    })
}

/// What an insert of a credential that exists is to be told.
fn exists_hint(table: pg_sys::Oid) -> std::ffi::CString {
    error::credential_exists_hint(&schema_of(table))
}

fn schema_of(table: pg_sys::Oid) -> String {
    // SAFETY: a syscache lookup by oid.
    catalog::schema_name(unsafe { pg_sys::get_rel_namespace(table) })
}

/// The error for a row that is no longer what the statement read.
fn changed(fields: &Fields) -> Error {
    Error::ConcurrentChange { what: format!("credential {}", fields.display_name()) }
}
