//! `verify`: which credentials do not open, and why.

use pgrx::iter::TableIterator;
use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::error::{Error, given, or_raise};
use crate::instance::{self, Handle};
use crate::postgres::catalog;
use crate::postgres::fmgr::{Jsonb, Text};
use crate::postgres::heap::Visibility;
use crate::rows::columns::Fields;
use crate::rows::every::every_row;
use crate::rows::history::every_version;
use crate::rows::history::seen::each_version;
use crate::rows::scan::each_row;
use crate::rows::{identity, open};

/// Name, kind, principal, scope and reason.
type Finding = (Text, Text, Text, Jsonb, String);
type Lines = TableIterator<'static, Finding>;

#[pg_extern(sql = false)]
fn verify(schema: Option<pg_sys::Oid>) -> Lines {
    TableIterator::new(or_raise(given(schema, "schema").and_then(findings)))
}

fn findings(schema: pg_sys::Oid) -> Result<Vec<Finding>, Error> {
    let handle = instance::of_schema(schema)?;
    let table = handle.borrow().table;
    let mut found = Vec::new();
    let mut look = |fields: &Fields, sealed: pg_sys::Datum| {
        if let Err(reason) = open::readable(&handle, fields, sealed)? {
            let (name, kind, principal, scope) = describe(fields);
            found.push((Text(name), Text(kind), Text(principal), Jsonb(scope), reason));
        }
        Ok(())
    };
    if sees_every_row(table) {
        // Without SQL, so that no code of the table's owner runs with the rights of a superuser.
        every_row(table, Visibility::BySnapshot, look)?;
    } else {
        each_row(table, |row| look(&row.fields, row.sealed))?;
    }
    look_at_history(&handle, &mut found)?;
    Ok(found)
}

/// The versions in the history that do not open.
fn look_at_history(handle: &Handle, found: &mut Vec<Finding>) -> Result<(), Error> {
    let (table, versions) = {
        let store = handle.borrow();
        (store.table, store.table_of_versions(pg_sys::AccessShareLock)?)
    };
    let Some(versions) = versions else { return Ok(()) };
    let mut look = |fields: &Fields, sealed: pg_sys::Datum, version: i64| {
        if let Err(reason) = open::readable(handle, fields, sealed)? {
            let (name, kind, principal, scope) = describe(fields);
            let reason = format!("version {version} in the history: {reason}");
            found.push((Text(name), Text(kind), Text(principal), Jsonb(scope), reason));
        }
        Ok(())
    };
    if sees_every_row(table) {
        every_version(&versions, Visibility::BySnapshot, |version| {
            look(&version.fields, version.sealed, version.number)
        })
    } else {
        each_version(handle, look)
    }
}

/// Whether the caller may select every row of a table: no policy has a say.
fn sees_every_row(table: pg_sys::Oid) -> bool {
    let mode = pg_sys::AclMode::from(pg_sys::ACL_SELECT);
    // SAFETY: catalog lookups by oid.
    unsafe {
        let user = pg_sys::GetUserId();
        pg_sys::pg_class_aclcheck(table, user, mode) == pg_sys::AclResult::ACLCHECK_OK
            && pg_sys::check_enable_rls(table, user, true) != open::RLS_ENABLED
    }
}

/// Name, kind, principal and scope in UTF-8; the number of a role that is gone.
fn describe(fields: &Fields) -> (Vec<u8>, Vec<u8>, Vec<u8>, Vec<u8>) {
    let role = catalog::role_name(fields.principal_oid())
        .unwrap_or_else(|| fields.principal_oid().to_u32().to_string().into_bytes());
    // What is wrong may be the expiry.
    let fields = Fields { expires_at: None, ..*fields };
    identity::with_identity(&fields, Some(&role), |identity, _| {
        (identity.name.to_vec(), identity.kind.to_vec(), identity.principal.to_vec(), identity.scope.to_vec())
    })
    .unwrap_or_default()
}
