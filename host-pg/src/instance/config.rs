//! The settings of an instance: the one row of `credentials_config`.

use omni_credentials_host::{Costs, Digest};
use pgrx::pg_sys;

use crate::error::Error;
use crate::keys::modules;
use crate::postgres::catalog;
use crate::postgres::heap::{Table, Visibility, Visit};
use crate::postgres::tables::config;

/// What `credentials_config` says.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) variable: String,
    /// The module for a new keyring; `None` means the default one.
    pub(crate) module: Option<Digest>,
    pub(crate) costs: Option<Costs>,
    /// How many versions of a credential the history keeps; 0 is none.
    pub(crate) history_limit: u32,
}

/// The module that the settings in a table name.
pub(crate) fn configured_module(config: pg_sys::Oid) -> Result<Option<Digest>, Error> {
    Ok(find_settings(config, Visibility::Now)?.and_then(|settings| settings.module))
}

/// Reads the settings.
pub(super) fn read_settings(config: pg_sys::Oid, seen: Visibility) -> Result<Settings, Error> {
    find_settings(config, seen)?.ok_or_else(|| Error::SettingsMissing {
        // SAFETY: a syscache lookup by oid; InvalidOid where there is no such relation.
        schema: catalog::schema_name(unsafe { pg_sys::get_rel_namespace(config) }),
    })
}

/// Whether the settings are there.
pub(crate) fn has_settings(config: pg_sys::Oid) -> Result<bool, Error> {
    Ok(find_settings(config, Visibility::Now)?.is_some())
}

/// Reads the settings; `None` where the table has none.
fn find_settings(config: pg_sys::Oid, seen: Visibility) -> Result<Option<Settings>, Error> {
    let mut settings = None;
    let table = Table::open(config, pg_sys::AccessShareLock)?;
    table.must_have(config::COLUMNS)?;
    table.scan_as(seen, |row| {
        let module = match row.raw(config::MODULE) {
            Some(_) => Some(modules::digest_of_column(row, config::MODULE)?),
            None => None,
        };
        let cost = |column| row.get::<i32>(column).and_then(|n| u32::try_from(n).ok());
        let costs = match (cost(config::MEMORY_KIB), cost(config::PASSES), cost(config::LANES)) {
            (Some(memory_kib), Some(passes), Some(lanes)) => Some(Costs { memory_kib, passes, lanes }),
            _ => None,
        };
        let variable = row.required::<String>(config::ENVIRONMENT_VARIABLE)?;
        let history_limit = u32::try_from(row.required::<i32>(config::HISTORY_LIMIT)?).unwrap_or(0);
        settings = Some(Settings { variable, module, costs, history_limit });
        Ok(Visit::Stop)
    })?;
    Ok(settings)
}
