//! Which role may use which variable of the server's environment, and what its keyrings cost at least.
//!
//! The environment is the server's, the owner of an instance may be anyone: with a variable of someone else's, it could
//! open what it has no right to, and with low costs it would get a hash that is cheap to guess at. A superuser decides.

use omni_credentials_host::Costs;
use pgrx::pg_sys;

use crate::error::Error;
use crate::postgres::catalog::{self, Extension};
use crate::postgres::heap::{Table, Visit};
use crate::postgres::tables::allowed_variables as columns;

/// What OWASP asks for at least.
const FLOOR: Costs = Costs { memory_kib: 19 * 1024, passes: 2, lanes: 1 };

/// `allowed_variables`, if the extension in this database has it.
pub(crate) fn table(lock: u32) -> Result<Option<Table>, Error> {
    let Some(table) = Extension::find().and_then(|extension| extension.table(c"allowed_variables")) else {
        return Ok(None);
    };
    let table = Table::open(table, lock)?;
    table.must_have(columns::COLUMNS)?;
    Ok(Some(table))
}

/// The first of these roles that may not use a variable.
pub(crate) fn refused(variable: &str, roles: &[pg_sys::Oid]) -> Result<Option<pg_sys::Oid>, Error> {
    let mut asking = ordinary(roles);
    if asking.is_empty() {
        return Ok(None);
    }
    if let Some(table) = table(pg_sys::AccessShareLock)? {
        table.scan(|row| {
            if row.get::<String>(columns::VARIABLE).as_deref() == Some(variable) {
                let role = row.get::<pg_sys::Oid>(columns::ROLE);
                asking.retain(|asking| Some(*asking) != role);
            }
            Ok(Visit::Continue)
        })?;
    }
    Ok(asking.first().copied())
}

/// Fails where a role may not use a variable.
pub(crate) fn must_be_allowed(variable: &str, roles: &[pg_sys::Oid]) -> Result<(), Error> {
    refused(variable, roles)?.map_or(Ok(()), |role| Err(not_allowed(variable, role)))
}

/// The error for a role that may not use a variable.
pub(crate) fn not_allowed(variable: &str, role: pg_sys::Oid) -> Error {
    let role = catalog::role_name(role)
        .map_or_else(|| role.to_u32().to_string(), |name| String::from_utf8_lossy(&name).into_owned());
    Error::VariableNotAllowed { variable: variable.to_owned(), role }
}

/// Fails where costs are too low for an instance that one of these roles owns. Without costs, the module chooses.
pub(crate) fn must_be_enough(costs: Option<Costs>, roles: &[pg_sys::Oid], schema: &str) -> Result<(), Error> {
    let low = costs.is_some_and(|costs| {
        costs.memory_kib < FLOOR.memory_kib || costs.passes < FLOOR.passes || costs.lanes < FLOOR.lanes
    });
    if low && !ordinary(roles).is_empty() {
        return Err(Error::CostsTooLow {
            schema: schema.to_owned(),
            memory_kib: FLOOR.memory_kib,
            passes: FLOOR.passes,
            lanes: FLOOR.lanes,
        });
    }
    Ok(())
}

/// Those who are no superusers.
fn ordinary(roles: &[pg_sys::Oid]) -> Vec<pg_sys::Oid> {
    roles.iter().copied().filter(|role| !catalog::is_superuser(*role)).collect()
}
