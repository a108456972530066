//! The history in the operations on a whole instance, and its own: how much of it is kept, and what is removed.

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::admin::owner::{change_setting, locked, must_own};
use crate::admin::{prune_keyrings, rename_principal};
use crate::error::{Error, given, or_raise};
use crate::instance::{self, Handle, OpenError};
use crate::postgres::heap::{Table, Visibility};
use crate::postgres::tables::{credentials, versions};
use crate::postgres::varlena::Detoasted;
use crate::rows::columns::Fields;
use crate::rows::history::{self, Version, every_version};
use crate::rows::open;
use crate::settings::{self, OnUnreadable};

/// How many versions of a credential a history may keep.
const MOST: i32 = 1_000;

#[pg_extern(sql = false)]
fn change_history_limit(schema: Option<pg_sys::Oid>, versions: Option<i32>) {
    or_raise(given(schema, "schema").and_then(|schema| set_limit(schema, given(versions, "versions")?)));
}

/// Names, and times of the server as numbers, are compared as they are stored.
#[pg_extern(sql = false)]
fn purge_versions(
    schema: Option<pg_sys::Oid>,
    name: Option<&[u8]>,
    before: Option<i64>,
    everything: Option<bool>,
) -> i64 {
    let everything = everything.unwrap_or(false);
    or_raise(given(schema, "schema").and_then(|schema| purge(schema, name, before, everything)))
}

fn set_limit(schema: pg_sys::Oid, versions: i32) -> Result<(), Error> {
    if !(0..=MOST).contains(&versions) {
        return Err(Error::HistoryLimit { versions, most: MOST });
    }
    let handle = instance::of_schema(schema)?;
    let table = handle.borrow().table;
    must_own(table)?;
    change_setting(&handle, "history_limit", versions.into())
}

fn purge(
    schema: pg_sys::Oid,
    name: Option<&[u8]>,
    before: Option<i64>,
    everything: bool,
) -> Result<i64, Error> {
    if everything == (name.is_some() || before.is_some()) {
        return Err(Error::PurgeWhat);
    }
    // SAFETY: the clock of the running transaction, which the age was taken from.
    if before.is_some_and(|before| before > unsafe { pg_sys::GetCurrentTransactionStartTimestamp() }) {
        return Err(Error::PurgeFuture);
    }
    let handle = locked(schema)?;
    let table = history::table(&handle, pg_sys::ShareRowExclusiveLock)?;
    let mut count = 0_i64;
    every_version(&table, Visibility::Now, |version| {
        // SAFETY: the datum of a text that is not NULL.
        let is_named = |name| unsafe { Detoasted::new(version.fields.name) }.bytes() == name;
        let until = version.row.required::<i64>(versions::VALID_UNTIL)?;
        if name.is_none_or(is_named) && before.is_none_or(|before| until < before) {
            table.delete(version.row)?;
            count = count.saturating_add(1);
        }
        Ok(())
    })?;
    Ok(count)
}

/// Seals every version again, with the current key.
pub(super) fn seal_again(handle: &Handle) -> Result<(), Error> {
    let (mut count, mut unreadable) = (0_i64, 0_i64);
    each_to_write(handle, |table, version| match open::reseal(handle, &version.fields, version.sealed) {
        Ok(again) => {
            write(table, version, &version.fields, again)?;
            count = count.saturating_add(1);
            Ok(())
        }
        Err(OpenError::Store(error)) => Err(error),
        Err(_) if settings::on_unreadable() == OnUnreadable::Null => {
            unreadable = unreadable.saturating_add(1);
            Ok(())
        }
        Err(OpenError::Closed(error)) => Err(error),
        Err(OpenError::Value(reason)) => Err(Error::Unreadable { name: version.display_name(), reason }),
    })?;
    if count > 0 {
        pgrx::notice!("sealed {count} versions in the history with the new key, too");
    }
    if unreadable > 0 {
        pgrx::warning!(
            "left {unreadable} versions in the history as they are, because they do not open; omni_credentials.verify lists them"
        );
    }
    Ok(())
}

/// Seals again, for a role, what was sealed for it under its old name.
pub(super) fn rename(handle: &Handle, old_name: &[u8], principal: pg_sys::Oid) -> Result<(), Error> {
    let mut count = 0_i64;
    each_to_write(handle, |table, version| {
        let (fields, sealed) = (&version.fields, version.sealed);
        if let Some((to, again)) = rename_principal::renamed(handle, fields, sealed, old_name, principal)? {
            write(table, version, &to, again)?;
            count = count.saturating_add(1);
        }
        Ok(())
    })?;
    if count > 0 {
        pgrx::notice!("sealed {count} versions in the history for the role, too");
    }
    Ok(())
}

/// Gives versions their principal back: the role that `role_of` finds for a row that does not open.
pub(super) fn repair(
    handle: &Handle,
    role_of: impl Fn(&Fields, pg_sys::Datum) -> Result<Option<pg_sys::Oid>, Error>,
) -> Result<(), Error> {
    let mut count = 0_i64;
    each_to_write(handle, |table, version| {
        if let Some(role) = role_of(&version.fields, version.sealed)? {
            let to = Fields { principal: pg_sys::Datum::from(role), ..version.fields };
            write(table, version, &to, version.sealed)?;
            count = count.saturating_add(1);
        }
        Ok(())
    })?;
    if count > 0 {
        pgrx::notice!("gave {count} versions in the history back to their roles, too");
    }
    Ok(())
}

/// Fails where a version needs a keyring that is superseded.
pub(super) fn must_not_need_superseded(handle: &Handle) -> Result<(), Error> {
    let Some(versions) = history::table_if_kept(handle, pg_sys::AccessShareLock)? else { return Ok(()) };
    every_version(&versions, Visibility::Now, |version| {
        if !prune_keyrings::needs_superseded(&mut handle.borrow_mut(), &version.fields, version.sealed)? {
            return Ok(());
        }
        Err(Error::KeyringSealsRow { schema: handle.borrow().schema_name(), name: version.display_name() })
    })
}

/// Visits every version to write it, while no one else does.
fn each_to_write(
    handle: &Handle,
    mut visit: impl FnMut(&Table, &Version<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let Some(table) = history::table_if_kept(handle, pg_sys::ShareRowExclusiveLock)? else { return Ok(()) };
    every_version(&table, Visibility::Now, |version| visit(&table, version))
}

/// Writes a version with another sealed value, for the principal that its fields have now.
fn write(table: &Table, version: &Version<'_>, to: &Fields, sealed: pg_sys::Datum) -> Result<(), Error> {
    let columns: Vec<_> = (0..versions::COLUMNS.len())
        .map(|column| match column {
            credentials::VALUE => Some(sealed),
            credentials::PRINCIPAL => Some(to.principal),
            column => version.row.raw(column),
        })
        .collect();
    table.update(version.row, &columns)
}
