//! `repair_principals`: rows whose principal arrived as another role's number, as COPY BINARY and binary subscriptions send
//! it between clusters. A sealed value opens for one role's name only, so it says itself which role that is.

use std::collections::{HashMap, HashSet};

use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::{PgMemoryContexts, pg_sys};

use crate::admin::history;
use crate::admin::owner::{as_owner_of, change_row, locked};
use crate::admin::rename_principal::open_as;
use crate::error::{Error, given, or_raise};
use crate::instance::Handle;
use crate::postgres::heap::Visibility;
use crate::postgres::varlena::copied;
use crate::postgres::{catalog, varlena::Detoasted};
use crate::rows::columns::Fields;
use crate::rows::every::every_row;
use crate::rows::open;
use crate::rows::statement::{IDENTITY_MATCHES, arguments, first_bytes, qualified};

#[pg_extern(sql = false)]
fn repair_principals(schema: Option<pg_sys::Oid>) -> i64 {
    or_raise(given(schema, "schema").and_then(repair))
}

/// A row that opens for another role than its principal.
struct Misplaced {
    fields: Fields,
    sealed: pg_sys::Datum,
    role: pg_sys::Oid,
}

fn repair(schema: pg_sys::Oid) -> Result<i64, Error> {
    let handle = locked(schema)?;
    let table = handle.borrow().table;
    let roles = catalog::roles()?;
    as_owner_of(&handle, || {
        let misplaced = misplaced(&handle, table, &roles)?;
        let mut count = 0_i64;
        let mut waiting: Vec<(&Misplaced, Vec<u8>)> =
            misplaced.iter().map(|row| (row, bytes_of(row.sealed))).collect();
        // A row goes where there is none. One that finds its place taken waits for the row there, unless that one stays: then
        // its owner has to decide between the two.
        let mut before = usize::MAX;
        let mut waits_for = HashMap::new();
        while waiting.len() < before {
            before = waiting.len();
            waits_for.clear();
            let leaving: HashSet<Vec<u8>> = waiting.iter().map(|(_, sealed)| sealed.clone()).collect();
            let mut still = Vec::new();
            for (row, sealed) in waiting {
                match occupant(table, row)? {
                    None => {
                        move_row(table, row)?;
                        count = count.saturating_add(1);
                    }
                    Some(there) if leaving.contains(&there) && there != sealed => {
                        waits_for.insert(sealed.clone(), there);
                        still.push((row, sealed));
                    }
                    Some(_) => {}
                }
            }
            waiting = still;
        }
        // What is left waits in circles, or for a row of a circle. In a circle each place takes the value that is for it. A row
        // that waits for one of them stays: that place has a value already.
        for (row, sealed) in waiting {
            if is_in_a_circle(&waits_for, &sealed) {
                exchange(table, row)?;
                count = count.saturating_add(1);
            }
        }
        history::repair(&handle, |fields, sealed| role_of(&handle, fields, sealed, &roles))?;
        Ok(count)
    })
}

/// Whether the one that waits for the next one comes back to where it started.
fn is_in_a_circle(waits_for: &HashMap<Vec<u8>, Vec<u8>>, start: &Vec<u8>) -> bool {
    let mut at = start;
    for _ in 0..waits_for.len() {
        match waits_for.get(at) {
            Some(next) if next == start => return true,
            Some(next) => at = next,
            None => return false,
        }
    }
    false
}

/// The rows that do not open for their principal, and do for another role.
fn misplaced(
    handle: &Handle,
    table: pg_sys::Oid,
    roles: &[(pg_sys::Oid, Vec<u8>)],
) -> Result<Vec<Misplaced>, Error> {
    // SAFETY: a variable of the session. The context of this call outlives every use of what is found.
    let mut kept = PgMemoryContexts::For(unsafe { pg_sys::CurrentMemoryContext });
    let mut found = Vec::new();
    every_row(table, Visibility::Now, |fields, sealed| {
        if let Some(role) = role_of(handle, fields, sealed, roles)? {
            // SAFETY: datums of a row: a text, a jsonb and a bytea; the others are numbers. The closure keeps only copies.
            let row = unsafe {
                kept.switch_to(|_| Misplaced {
                    fields: Fields { name: copied(fields.name), scope: copied(fields.scope), ..*fields },
                    sealed: copied(sealed),
                    role,
                })
            };
            found.push(row);
        }
        Ok(())
    })?;
    Ok(found)
}

/// The role that a row opens for; `None` where that is its principal, or none that there is.
fn role_of(
    handle: &Handle,
    fields: &Fields,
    sealed: pg_sys::Datum,
    roles: &[(pg_sys::Oid, Vec<u8>)],
) -> Result<Option<pg_sys::Oid>, Error> {
    if open::readable(handle, fields, sealed)?.is_ok() {
        return Ok(None);
    }
    for (role, name) in roles {
        if *role == fields.principal_oid() {
            continue;
        }
        match open_as(handle, fields, sealed, name) {
            Ok(Some(_)) => return Ok(Some(*role)),
            Ok(None) => {}
            // Its keyring does not open here: no name helps.
            Err(error) if error.is_of_keyring() => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// The sealed value of the row that is where this one belongs.
fn occupant(table: pg_sys::Oid, row: &Misplaced) -> Result<Option<Vec<u8>>, Error> {
    let sql = format!("select value from {} where {IDENTITY_MATCHES}", qualified(table));
    Spi::connect_mut(|client| first_bytes(client, &sql, &arguments(&destination(row), None)))
}

fn move_row(table: pg_sys::Oid, row: &Misplaced) -> Result<(), Error> {
    // SAFETY: datums of the types beside them, which live to the end of the function.
    let values = unsafe {
        vec![
            DatumWithOid::new(row.sealed, pg_sys::BYTEAOID),
            DatumWithOid::new(destination(row).principal, pg_sys::REGROLEOID),
        ]
    };
    change_row(table, &row.fields, row.sealed, ", principal = $7", values)
}

/// Puts the value into the row that is where it belongs.
fn exchange(table: pg_sys::Oid, row: &Misplaced) -> Result<(), Error> {
    let to = destination(row);
    let Some(there) = occupant(table, row)? else {
        return Err(Error::Internal("a row of a circle is gone".to_owned()));
    };
    // SAFETY: datums of the types beside them, which live to the end of the function.
    let values = unsafe {
        vec![
            DatumWithOid::new(row.sealed, pg_sys::BYTEAOID),
            match row.fields.expires_at {
                Some(expires) => DatumWithOid::new(expires, pg_sys::TIMESTAMPTZOID),
                None => DatumWithOid::null_oid(pg_sys::TIMESTAMPTZOID),
            },
        ]
    };
    let there = there.into_datum().unwrap_or(pg_sys::Datum::null());
    change_row(table, &to, there, ", expires_at = $7", values)
}

/// The fields of the row as they should be.
fn destination(row: &Misplaced) -> Fields {
    Fields { principal: pg_sys::Datum::from(row.role), ..row.fields }
}

fn bytes_of(sealed: pg_sys::Datum) -> Vec<u8> {
    // SAFETY: the copy of a bytea that is not NULL.
    unsafe { Detoasted::new(sealed) }.bytes().to_vec()
}
