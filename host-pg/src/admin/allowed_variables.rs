//! `allow_variable` and `disallow_variable`: a superuser decides which role may use which environment variable.

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::error::{Error, given, or_raise};
use crate::keys::{allowed_variables, master_secret};
use crate::postgres::catalog;

#[pg_extern(sql = false)]
fn allow_variable(role: Option<pg_sys::Oid>, variable: Option<&str>) {
    or_raise(change(
        "insert into {} (role, variable) values ($1, $2) on conflict do nothing",
        role,
        variable,
    ));
}

#[pg_extern(sql = false)]
fn disallow_variable(role: Option<pg_sys::Oid>, variable: Option<&str>) {
    or_raise(change("delete from {} where role = $1 and variable = $2", role, variable));
}

/// Changes the table, whose name takes the place of `{}`. Both functions have a pinned `search_path`.
fn change(sql: &str, role: Option<pg_sys::Oid>, variable: Option<&str>) -> Result<(), Error> {
    let (role, variable) = (given(role, "role")?, given(variable, "variable")?);
    catalog::must_be_superuser("allow environment variables")?;
    if !master_secret::is_variable_name(variable) {
        return Err(Error::InvalidArgument(format!(
            "{variable:?} is not the name of an environment variable"
        )));
    }
    if catalog::role_name(role).is_none() {
        return Err(Error::InvalidArgument(format!("role {} does not exist", role.to_u32())));
    }
    let missing = || Error::Internal("omni_credentials.allowed_variables is missing".to_owned());
    let table = allowed_variables::table(pg_sys::AccessShareLock)?.ok_or_else(missing)?;
    // SAFETY: an oid is a regrole.
    let role = unsafe { pgrx::datum::DatumWithOid::new(pg_sys::Datum::from(role), pg_sys::REGROLEOID) };
    Spi::run_with_args(&sql.replace("{}", &catalog::qualified(table.oid())?), &[role, variable.into()])?;
    Ok(())
}
