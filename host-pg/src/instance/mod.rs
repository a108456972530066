//! An instance: where its keyring and settings are, and the unlocked keyrings of this backend.
//!
//! An instance is a schema with the tables `encrypted_credentials`, `credentials_keyrings` and `credentials_config`. The
//! owner of all three must be allowed to execute `omni_credentials.instantiate`: otherwise anyone could build such
//! tables, name a variable of the server's environment in them and try out secrets against it.

mod cache;
mod config;
mod keyring_union;
mod keyring_writes;
mod values;

pub(crate) use cache::{Handle, of_schema, of_table, of_table_now};
use config::{Settings, read_settings};
pub(crate) use config::{configured_module, has_settings};
pub(crate) use keyring_union::Union;

pub(crate) use crate::keys::keyring_values::OpenError;

use omni_credentials_host::{Digest, Kek, Module};
use pgrx::pg_sys;

use crate::error::Error;
use crate::keys::keyrings::Keyrings;
use crate::keys::master_secret::Variable;
use crate::keys::modules;
use crate::keys::stored_keyring::StoredKeyring;
use crate::postgres::catalog;
use crate::postgres::heap::{Table, Visibility};
use crate::postgres::tables;

/// An instance, as this backend knows it.
pub(crate) struct Instance {
    pub(crate) schema: pg_sys::Oid,
    pub(crate) table: pg_sys::Oid,
    /// The view `credentials`; `None` where it was dropped or is someone else's.
    pub(crate) view: Option<pg_sys::Oid>,
    pub(crate) config_table: pg_sys::Oid,
    keyrings_table: pg_sys::Oid,
    /// The table of the history; `None` where it is missing or someone else's.
    versions: Option<pg_sys::Oid>,
    /// Who owns these tables: one role, unless someone gave one of them away.
    pub(crate) owners: Vec<pg_sys::Oid>,
    settings: Settings,
    /// The first one is current.
    keyrings: Keyrings,
    /// What an older snapshot shows, and is pruned since.
    pruned: Keyrings,
    stale: bool,
}

/// The tables of an instance.
pub(crate) struct Parts {
    pub(crate) credentials: pg_sys::Oid,
    pub(crate) config: pg_sys::Oid,
    pub(crate) keyrings: pg_sys::Oid,
    /// `None` where it is missing, or belongs to another role than the credentials do.
    pub(crate) versions: Option<pg_sys::Oid>,
}

/// The tables of the instance in a schema; `None` where one is missing, or belongs to a role that may not have an
/// instance. Locks nothing.
pub(crate) fn parts(schema: pg_sys::Oid) -> Option<Parts> {
    let find = |name| {
        catalog::relation_oid(schema, name)
            .filter(|table| catalog::owner(*table).is_some_and(catalog::may_instantiate))
    };
    let credentials = find(c"encrypted_credentials")?;
    Some(Parts {
        credentials,
        versions: find(c"encrypted_credential_versions")
            .filter(|versions| catalog::owner(*versions) == catalog::owner(credentials)),
        config: find(c"credentials_config")?,
        keyrings: find(c"credentials_keyrings")?,
    })
}

impl Instance {
    /// The schema's name.
    pub(crate) fn schema_name(&self) -> String {
        catalog::schema_name(self.schema)
    }

    /// The current keyring as stored, if there is one; the first where there are several.
    pub(crate) fn current(&self) -> Option<&StoredKeyring> {
        self.keyrings.loaded.first().map(|keyring| &keyring.stored)
    }

    /// The variable of the server's environment that holds the master secret.
    pub(crate) fn variable(&self) -> &str {
        &self.settings.variable
    }

    /// How many keyrings the instance has.
    pub(crate) fn keyrings(&self) -> usize {
        self.keyrings.loaded.len()
    }

    /// Unlocks the current keyrings.
    pub(crate) fn unlock_current(&mut self) -> Result<(), Error> {
        self.keyrings.current()?.into_iter().try_for_each(|index| self.keyrings.unlocked(index).map(drop))
    }

    /// The same keyrings, to be unlocked apart from these.
    pub(crate) fn keyrings_apart(&self) -> Keyrings {
        self.keyrings.apart()
    }

    /// The module of the current keyring, or the one that a new keyring is made with.
    pub(crate) fn current_digest(&self) -> Result<Digest, Error> {
        match self.current() {
            Some(current) => Ok(current.module),
            None => self.module_for_new_keyring(),
        }
    }

    /// The bytes of the current keyring; an error where there is none.
    pub(crate) fn current_bytes(&self) -> Result<Vec<u8>, Error> {
        self.current()
            .map(|current| current.bytes.clone())
            .ok_or_else(|| Error::KeyringMissing { schema: self.schema_name() })
    }

    /// The keyrings before the current ones, newest first.
    pub(crate) fn superseded(&self) -> Vec<StoredKeyring> {
        let superseded = self.keyrings.loaded.iter().skip(self.keyrings.equals());
        superseded.map(|keyring| keyring.stored.clone()).collect()
    }

    /// Whether the instance has no value, visible to the caller or not, in its history neither.
    pub(crate) fn holds_nothing(&self) -> Result<bool, Error> {
        if !table_of_credentials(self.table)?.is_empty()? {
            return Ok(false);
        }
        self.table_of_versions(pg_sys::AccessShareLock)?.map_or(Ok(true), |versions| versions.is_empty())
    }

    /// How many versions of a credential the history keeps.
    pub(crate) fn history_limit(&self) -> u32 {
        self.settings.history_limit
    }

    /// The history, to be looked at or written directly; `None` where the instance has no such table.
    pub(crate) fn table_of_versions(&self, lock: u32) -> Result<Option<Table>, Error> {
        let Some(versions) = self.versions else { return Ok(None) };
        let versions = Table::open(versions, lock)?;
        versions.must_have(tables::versions::COLUMNS)?;
        // What is written there comes from the credentials, and what is read there goes to them.
        let credentials = table_of_credentials(self.table)?;
        versions.must_agree_with(&credentials, tables::credentials::KIND)?;
        if versions.owner() == credentials.owner() {
            Ok(Some(versions))
        } else {
            Err(Error::NotAnInstance { relation: catalog::relation_name(versions.oid()) })
        }
    }

    /// The module of the current keyring.
    pub(crate) fn current_module(&self) -> Result<Module, Error> {
        modules::module(&self.current_digest()?).map_err(|error| self.keyrings.naming(0, error))
    }

    /// The module that a new keyring of this instance is made with.
    pub(crate) fn module_for_new_keyring(&self) -> Result<Digest, Error> {
        self.settings.module.map_or_else(modules::builtin_digest, Ok)
    }

    /// Derives the KEK of any keyring with this instance's master secret. `what` names it in errors.
    pub(crate) fn derive(&self, module: &Module, keyring: &[u8], what: &str) -> Result<Kek, Error> {
        self.keyrings.derive(module, keyring, what)
    }

    /// Reads settings and keyrings again. Tells whether the keyrings are others than before.
    fn reread(&mut self) -> Result<bool, Error> {
        let before: Vec<_> = self.keyrings.loaded.iter().map(|keyring| keyring.stored.clone()).collect();
        self.stale = true;
        self.refresh()?;
        Ok(!self.keyrings.loaded.iter().map(|keyring| &keyring.stored).eq(&before))
    }

    /// Finds the tables beside `table` and checks whose they are.
    fn locate(table: pg_sys::Oid) -> Result<Self, Error> {
        let refused = || Error::NotAnInstance { relation: catalog::relation_name(table) };
        // SAFETY: a syscache lookup by oid; InvalidOid where there is no such relation.
        let schema = unsafe { pg_sys::get_rel_namespace(table) };
        // Before the tables are locked, and again once no one can give them away: a lock is not for anyone to ask for.
        let parts = parts(schema).filter(|parts| parts.credentials == table).ok_or_else(refused)?;
        let (config_table, keyrings_table, versions) = (parts.config, parts.keyrings, parts.versions);
        let columns = [
            (table, tables::credentials::COLUMNS),
            (config_table, tables::config::COLUMNS),
            (keyrings_table, tables::keyrings::COLUMNS),
        ];
        let mut owners = Vec::new();
        for (part, columns) in columns {
            let part = Table::open(part, pg_sys::AccessShareLock)?;
            let owner = part.owner();
            if !owners.contains(&owner) {
                if !catalog::may_instantiate(owner) {
                    return Err(refused());
                }
                owners.push(owner);
            }
            part.must_have(columns)?;
        }
        let view = catalog::relation_oid(schema, c"credentials").filter(|view| belongs_to(*view, table));
        let settings = Settings { variable: String::new(), module: None, costs: None, history_limit: 0 };
        let (keyrings, pruned) = (Keyrings::none(schema), Keyrings::none(schema));
        Ok(Self {
            schema,
            table,
            view,
            config_table,
            keyrings_table,
            versions,
            owners,
            settings,
            keyrings,
            pruned,
            stale: true,
        })
    }

    /// Reads settings and keyrings again where they may have changed.
    fn refresh(&mut self) -> Result<(), Error> {
        if !self.stale {
            return Ok(());
        }
        // Parts may have been dropped, renamed, made again or given to another owner: look again from the start, but
        // keep what is unlocked.
        let known = std::mem::take(&mut self.keyrings.loaded);
        *self = Self::locate(self.table)?;
        self.keyrings.loaded = known;
        self.settings = read_settings(self.config_table, Visibility::Now)?;
        let stored = StoredKeyring::read_all(self.keyrings_table, Visibility::Now)?;
        self.keyrings.replace(Variable::new(self.settings.variable.clone(), &self.owners)?, stored);
        self.stale = false;
        Ok(())
    }
}

/// Whether a relation is a view of the table's owner or of a superuser. Only then do the rights that others have on it
/// say anything.
fn belongs_to(view: pg_sys::Oid, table: pg_sys::Oid) -> bool {
    // SAFETY: catalog lookups by oid.
    let is_view = u8::try_from(unsafe { pg_sys::get_rel_relkind(view) }) == Ok(pg_sys::RELKIND_VIEW);
    let owner = catalog::owner(view);
    is_view && (owner == catalog::owner(table) || owner.is_some_and(catalog::is_superuser))
}

/// The rows of an instance, to be looked at directly.
pub(crate) fn table_of_credentials(table: pg_sys::Oid) -> Result<Table, Error> {
    let table = Table::open(table, pg_sys::AccessShareLock)?;
    table.must_have(tables::credentials::COLUMNS)?;
    Ok(table)
}
