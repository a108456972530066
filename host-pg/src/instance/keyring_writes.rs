//! Changes of the keyrings of an instance: every one goes through here, under a lock that makes writers wait.

use omni_credentials_host::{self as host, Costs, Digest, Kek};
use pgrx::pg_sys;

use crate::error::Error;
use crate::instance::Instance;
use crate::keys::kek_cache::{self, KeyId};
use crate::keys::keyrings::StoredKeyring;
use crate::keys::{allowed_variables, modules};
use crate::postgres::heap::Visit;
use crate::postgres::tables::keyrings;
use crate::settings;

impl Instance {
    /// Adds a key to the current keyring and stores it.
    pub(crate) fn add_key(&mut self) -> Result<(), Error> {
        settings::may_create_keys(|| self.schema_name())?;
        if self.keyrings.loaded.is_empty() {
            return self.create_first_keyring();
        }
        let schema = self.schema_name();
        let kek = self.keyrings.kek(0)?;
        // Not in the keyring that seals: if storing the new key fails, nothing may have been sealed with it.
        let current = self.current_bytes()?;
        let bytes = self
            .current_module()?
            .unlock(&current, &kek)
            .and_then(|mut keyring| keyring.add_key().and_then(|()| keyring.to_bytes()))
            .map_err(|error| match error {
                host::Error::Refused(failure) if failure.code == host::ErrorCode::TooManyKeys => {
                    Error::KeyringFull { schema }
                }
                other => modules::module_error(other),
            })?;
        self.replace_current(&bytes, kek)
    }

    /// Makes a keyring with a module, which becomes the current one. The keyrings before it stay, for reading.
    pub(crate) fn add_keyring(&mut self, digest: &Digest) -> Result<(), Error> {
        settings::may_create_keys(|| self.schema_name())?;
        if !self.keyrings.loaded.is_empty() {
            // Tells a wrong master secret before anything is written.
            self.keyrings.unlocked(0)?;
        }
        let module = modules::module(digest)?;
        let secret = self.keyrings.variable.secret()?;
        let made = module
            .create_keyring(&secret, self.costs()?)
            .map_err(|error| self.keyrings.secret_error(error, "this store"))?;
        kek_cache::remember(&KeyId::new(&secret, digest, &made.keyring), &made.kek);
        self.store_keyring(digest, &made.keyring, made.kek)
    }

    /// Wraps every keyring under another master secret.
    pub(crate) fn rewrap(&mut self, secret: &[u8]) -> Result<(), Error> {
        let costs = self.costs()?;
        for index in 0..self.keyrings.loaded.len() {
            let kek = self.keyrings.kek(index)?;
            let Some(stored) = self.keyrings.loaded.get(index).map(|keyring| keyring.stored.clone()) else {
                break;
            };
            let made = modules::module(&stored.module)?.rewrap(&stored.bytes, &kek, secret, costs).map_err(
                |error| self.keyrings.secret_error(error, &format!("schema {}", self.schema_name())),
            )?;
            kek_cache::remember(&KeyId::new(secret, &stored.module, &made.keyring), &made.kek);
            self.replace(&stored, &made.keyring, made.kek)?;
        }
        Ok(())
    }

    /// The costs of a new or rewrapped keyring, which the owner of the settings wrote there.
    fn costs(&self) -> Result<Option<Costs>, Error> {
        let costs = self.settings.costs;
        allowed_variables::must_be_enough(costs, &self.owners, &self.schema_name())?;
        Ok(costs)
    }

    /// Removes the keyrings before the current one, if they are still these. That nothing refers to them is for the
    /// caller to know.
    pub(crate) fn remove_superseded(&mut self, superseded: &[StoredKeyring]) -> Result<(), Error> {
        let table = StoredKeyring::table(self.keyrings_table, pg_sys::ShareRowExclusiveLock)?;
        // Whatever happens now, look at the table before the next use.
        self.stale = true;
        table.scan(|row| {
            if let Some(gone) = superseded.iter().find(|keyring| keyring.is_in(row)) {
                gone.must_be_as_in(row, self.schema)?;
                table.delete(row)?;
            }
            Ok(Visit::Continue)
        })?;
        table.announce_change();
        self.reread()?;
        Ok(())
    }

    /// Stores a changed keyring in place of the current one.
    pub(crate) fn replace_current(&mut self, bytes: &[u8], kek: Kek) -> Result<(), Error> {
        match self.current().cloned() {
            Some(current) => self.replace(&current, bytes, kek),
            None => Err(Error::KeyringMissing { schema: self.schema_name() }),
        }
    }

    fn replace(&mut self, before: &StoredKeyring, bytes: &[u8], kek: Kek) -> Result<(), Error> {
        let table = StoredKeyring::table(self.keyrings_table, pg_sys::ShareRowExclusiveLock)?;
        // Whatever happens now, look at the table before the next use.
        self.stale = true;
        table.scan(|row| {
            if !before.is_in(row) {
                return Ok(Visit::Continue);
            }
            before.must_be_as_in(row, self.schema)?;
            table.update(row, &StoredKeyring::row(before.id, &before.module, bytes))?;
            Ok(Visit::Stop)
        })?;
        table.announce_change();
        self.reread()?;
        self.keep_kek(bytes, kek);
        Ok(())
    }

    /// Stores a further keyring, which becomes the current one.
    pub(crate) fn store_keyring(&mut self, module: &Digest, bytes: &[u8], kek: Kek) -> Result<(), Error> {
        modules::pin(module)?;
        let table = StoredKeyring::table(self.keyrings_table, pg_sys::ShareRowExclusiveLock)?;
        let mut last = 0;
        table.scan(|row| {
            last = last.max(row.required::<i32>(keyrings::ID)?);
            Ok(Visit::Continue)
        })?;
        table.insert(&StoredKeyring::row(last.saturating_add(1), module, bytes))?;
        table.announce_change();
        self.reread()?;
        self.keep_kek(bytes, kek);
        Ok(())
    }

    /// Remembers the KEK of a keyring that was made or changed here.
    fn keep_kek(&mut self, bytes: &[u8], kek: Kek) {
        if let Some(keyring) = self.keyrings.loaded.iter_mut().find(|keyring| keyring.stored.bytes == bytes) {
            keyring.kek = Some(kek);
        }
    }

    /// Makes the instance's first keyring, unless it has one.
    pub(crate) fn have_keyring(&mut self) -> Result<(), Error> {
        if self.current().is_none() { self.create_first_keyring() } else { Ok(()) }
    }

    /// Makes the instance's first keyring, unless another session just did. An instance that holds sealed values gets none:
    /// a fresh key would hide that theirs is lost.
    pub(super) fn create_first_keyring(&mut self) -> Result<(), Error> {
        // The lock makes two first writers wait for each other; it is held to the end of the transaction.
        let keyrings = StoredKeyring::table(self.keyrings_table, pg_sys::ShareRowExclusiveLock)?;
        drop(keyrings);
        self.reread()?;
        if !self.keyrings.loaded.is_empty() {
            return Ok(());
        }
        if !self.holds_nothing()? {
            return Err(Error::KeyringMissing { schema: self.schema_name() });
        }
        self.add_keyring(&self.module_for_new_keyring()?)
    }
}
