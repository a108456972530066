//! The arguments of `grant_access` and `revoke_access`. What they do is SQL, in `sql/rights.sql`.

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::error::{Error, given, or_raise};

/// What an instance can grant.
const PRIVILEGES: [&str; 4] = ["SELECT", "INSERT", "UPDATE", "DELETE"];

#[pg_extern(sql = false)]
fn privilege_list(
    grantee: Option<pg_sys::Oid>,
    privileges: Option<&str>,
    schema: Option<pg_sys::Oid>,
) -> Vec<&'static str> {
    or_raise(
        given(grantee, "grantee")
            .and_then(|_| given(schema, "schema"))
            .and_then(|_| listed(given(privileges, "privileges")?)),
    )
}

fn listed(privileges: &str) -> Result<Vec<&'static str>, Error> {
    let known = |item: &str| {
        let item = item.trim();
        let found = PRIVILEGES.into_iter().find(|privilege| privilege.eq_ignore_ascii_case(item));
        found.ok_or_else(|| Error::UnknownPrivilege { privilege: item.to_owned() })
    };
    privileges.split(',').map(known).collect()
}
