//! `prune_keyrings`: the way out for keyrings that an instance has moved away from, and for their modules.
//!
//! Nothing is pruned that a row or a registered file needs, whichever role may see that row. Statements with an older snapshot
//! still see the older rows, and find their keyring with that snapshot (`Instance::open_as_seen`). Files and dumps
//! from before the move carry their keyring themselves.

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::admin::history;
use crate::admin::owner::{locked, values_must_be_at_rest};
use crate::error::{Error, given, or_raise};
use crate::file_store;
use crate::instance::{Handle, Instance};
use crate::postgres::catalog;
use crate::postgres::heap::Visibility;
use crate::postgres::varlena::Detoasted;
use crate::rows::columns::Fields;
use crate::rows::every::every_row;
use crate::rows::identity;

#[pg_extern(sql = false)]
fn prune_keyrings(schema: Option<pg_sys::Oid>) -> i64 {
    or_raise(given(schema, "schema").and_then(prune))
}

fn prune(schema: pg_sys::Oid) -> Result<i64, Error> {
    // No one seals or changes rows from here on.
    let handle = locked(schema)?;
    values_must_be_at_rest(schema, false)?;
    let before = handle.borrow().keyrings();
    handle.borrow_mut().unite_keyrings()?;
    let superseded = handle.borrow().superseded();
    if superseded.is_empty() {
        return Ok(removed(before, &handle));
    }
    rows_must_not_need_superseded(&handle)?;
    history::must_not_need_superseded(&handle)?;
    file_store::must_not_need_superseded(&handle)?;
    handle.borrow_mut().remove_superseded(&superseded)?;
    Ok(removed(before, &handle))
}

fn removed(before: usize, handle: &Handle) -> i64 {
    i64::try_from(before.saturating_sub(handle.borrow().keyrings())).unwrap_or(i64::MAX)
}

/// Looks at every row, not only at those that the caller's policies show.
fn rows_must_not_need_superseded(handle: &Handle) -> Result<(), Error> {
    let table = handle.borrow().table;
    every_row(table, Visibility::Now, |fields, sealed| {
        if !needs_superseded(&mut handle.borrow_mut(), fields, sealed)? {
            return Ok(());
        }
        let schema = catalog::schema_name(handle.borrow().schema);
        Err(Error::KeyringSealsRow { schema, name: fields.display_name() })
    })
}

/// A row that does not open with the current keyring is asked for its key alone: it may be damaged, or its principal
/// renamed or dropped, and be repaired later.
pub(super) fn needs_superseded(
    store: &mut Instance,
    fields: &Fields,
    sealed: pg_sys::Datum,
) -> Result<bool, Error> {
    // SAFETY: the datum of a bytea that is not NULL.
    let sealed = unsafe { Detoasted::new(sealed) };
    let opens = identity::with_identity(fields, None, |identity, expires| {
        store.opens_with_current(identity, expires, sealed.bytes())
    });
    match opens {
        Ok(Ok(true)) => Ok(false),
        Ok(Err(error)) => Err(error),
        Ok(Ok(false)) | Err(_) => store.needs_superseded(sealed.bytes()),
    }
}
