//! `rotate_key`, `use_module` and `rotate_master_secret`: for the owner of the instance, and every row of it, no matter which role may
//! see it. Each is one statement, so it is all or nothing.

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::admin::keyring_needs::Needs;
use crate::admin::owner::{as_owner_of, change_row, change_setting, held, locked};
use crate::admin::{crypto_modules, history};
use crate::error::{Error, given, or_raise};
use crate::file_store;
use crate::instance::{self, Handle};
use crate::keys::stored_keyring::StoredKeyring;
use crate::keys::{allowed_variables, master_secret, modules};
use crate::postgres::catalog;
use crate::postgres::heap::Visibility;
use crate::rows::every::every_row;
use crate::rows::open;
use crate::settings::{self, OnUnreadable};

#[pg_extern(sql = false)]
fn rotate_key(schema: Option<pg_sys::Oid>) -> i64 {
    or_raise(given(schema, "schema").and_then(rotate))
}

#[pg_extern(sql = false)]
fn use_module(schema: Option<pg_sys::Oid>, module: Option<&str>) -> i64 {
    or_raise(given(schema, "schema").and_then(|schema| move_to(schema, module)))
}

#[pg_extern(sql = false)]
fn rotate_master_secret(new_env_var: Option<&str>, schema: Option<pg_sys::Oid>) {
    or_raise(
        given(new_env_var, "new_env_var").and_then(|variable| rewrap(variable, given(schema, "schema")?)),
    );
}

fn rotate(schema: pg_sys::Oid) -> Result<i64, Error> {
    let handle = locked(schema)?;
    if handle.borrow().current().is_none() {
        return Ok(0);
    }
    handle.borrow_mut().add_key()?;
    let count = seal_again(&handle)?;
    history::seal_again(&handle)?;
    Ok(count)
}

/// Moves an instance to a fresh keyring, made with another module or, with `None`, with the one it has.
fn move_to(schema: pg_sys::Oid, module: Option<&str>) -> Result<i64, Error> {
    let handle = locked(schema)?;
    let table = handle.borrow().table;
    let digest = match module {
        Some(module) => crypto_modules::resolve(module)?,
        None => handle.borrow().module_for_new_keyring()?,
    };
    modules::module(&digest)?;
    if module.is_some() {
        modules::pin(&digest)?;
        change_setting(&handle, "module", digest.as_bytes().as_slice().into())?;
    }
    if handle.borrow().current().is_none() {
        return Ok(0);
    }
    handle.borrow_mut().add_keyring(&digest)?;
    let count = seal_again(&handle)?;
    history::seal_again(&handle)?;
    // The files carry the keyring, too.
    file_store::changed(table);
    Ok(count)
}

/// Seals every row again, with the current key.
fn seal_again(handle: &Handle) -> Result<i64, Error> {
    let table = handle.borrow().table;
    let (mut count, mut unreadable) = (0_i64, 0_i64);
    as_owner_of(handle, || {
        every_row(table, Visibility::Now, |fields, sealed| {
            let again = match open::reseal(handle, fields, sealed) {
                Ok(again) => again,
                Err(instance::OpenError::Store(error)) => return Err(error),
                // As for reading: the setting says whether one bad row stops the others. It stays as it is.
                Err(_) if settings::on_unreadable() == OnUnreadable::Null => {
                    unreadable = unreadable.saturating_add(1);
                    return Ok(());
                }
                Err(instance::OpenError::Closed(error)) => return Err(error),
                Err(instance::OpenError::Value(reason)) => {
                    return Err(Error::Unreadable { name: fields.display_name(), reason });
                }
            };
            // SAFETY: a bytea made just now.
            let again = unsafe { DatumWithOid::new(again, pg_sys::BYTEAOID) };
            change_row(table, fields, sealed, "", vec![again])?;
            count = count.saturating_add(1);
            if count % 10_000 == 0 {
                pgrx::notice!("sealed {count} credentials with the new key");
            }
            Ok(())
        })
    })?;
    if unreadable > 0 {
        pgrx::warning!(
            "left {unreadable} credentials as they are, because they do not open; omni_credentials.verify lists them"
        );
    }
    Ok(count)
}

fn rewrap(new_env_var: &str, schema: pg_sys::Oid) -> Result<(), Error> {
    // Whatever makes a keyring waits from here on, or has stored it: one made meanwhile would be left under the old secret.
    let handle = held(schema)?;
    handle.borrow_mut().hold_keyrings()?;
    let table = handle.borrow().table;
    allowed_variables::must_be_allowed(new_env_var, &handle.borrow().owners)?;
    let secret = master_secret::master_secret(new_env_var)?;
    let closed = handle.borrow_mut().closed_to(&secret)?;
    let left = leave(schema, closed)?;
    handle.borrow_mut().rewrap(&secret, &left)?;
    change_setting(&handle, "environment_variable", new_env_var.into())?;
    // The files carry the keyring, too.
    file_store::changed(table);
    Ok(())
}

/// The keyrings that do not open and that no value needs, to be left as they are, with their copies. One that may be needed is
/// an error: it would be left behind under a secret that no one has any more.
fn leave(schema: pg_sys::Oid, closed: Vec<(Vec<StoredKeyring>, Error)>) -> Result<Vec<StoredKeyring>, Error> {
    if closed.is_empty() {
        return Ok(Vec::new());
    }
    let mut needs = Needs::of(schema)?;
    let name = spi::quote_identifier(catalog::schema_name(schema));
    let mut left = Vec::new();
    for (copies, error) in closed {
        for StoredKeyring { module, bytes, .. } in &copies {
            // Of copies, the last one tells.
            if needs.of_keyring(module, bytes)?.is_some() {
                return Err(error);
            }
        }
        for StoredKeyring { id, .. } in &copies {
            pgrx::warning!(
                "left keyring {id} of schema {name} as it is: {error}. No value needs it; to delete it: delete from {name}.credentials_keyrings where id = '{id}'"
            );
        }
        left.extend(copies);
    }
    Ok(left)
}
