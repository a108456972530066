//! `verify`: which credentials do not open, and why.

use pgrx::iter::TableIterator;
use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::error::{Error, given, or_raise};
use crate::instance;
use crate::postgres::catalog;
use crate::postgres::fmgr::Jsonb;
use crate::rows::columns::Fields;
use crate::rows::scan::{Purpose, each_row};
use crate::rows::{identity, open};

type Finding = (String, String, String, Jsonb, String);

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "the columns of the SQL function")]
fn verify(
    schema: Option<pg_sys::Oid>,
) -> TableIterator<
    'static,
    (
        name!(name, String),
        name!(kind, String),
        name!(principal, String),
        name!(scope, Jsonb),
        name!(reason, String),
    ),
> {
    TableIterator::new(or_raise(given(schema, "schema").and_then(findings)))
}

fn findings(schema: pg_sys::Oid) -> Result<Vec<Finding>, Error> {
    let handle = instance::of_schema(schema)?;
    let table = handle.borrow().table;
    let mut found = Vec::new();
    each_row(table, Purpose::Look, |row| {
        if let Err(reason) = open::readable(&handle, &row.fields, row.sealed)? {
            let (name, kind, principal, scope) = describe(&row.fields);
            found.push((name, kind, principal, Jsonb(scope), reason.to_string()));
        }
        Ok(())
    })?;
    Ok(found)
}

/// Name, kind, principal and scope as text; the number of a role that is gone.
fn describe(fields: &Fields) -> (String, String, String, String) {
    let role = catalog::role_name(fields.principal_oid())
        .unwrap_or_else(|| fields.principal_oid().to_u32().to_string());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    identity::with_identity(fields, Some(&role), |identity| {
        (text(identity.name), text(identity.kind), text(identity.principal), text(identity.scope))
    })
    .unwrap_or_default()
}
