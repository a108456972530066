//! Changes of the keyrings of an instance: every one goes through here, under a lock that makes writers wait.

use omni_credentials_host::{Costs, Digest, Kek};
use pgrx::datum::Uuid;
use pgrx::pg_sys;

use crate::error::Error;
use crate::instance::Instance;
use crate::instance::config::read_settings;
use crate::instance::keyring_union::Union;
use crate::keys::kek_cache::{self, KeyId};
use crate::keys::keyrings::MOST_KEYRINGS;
use crate::keys::stored_keyring::StoredKeyring;
use crate::keys::{allowed_variables, modules};
use crate::postgres::heap::{Table, Visibility, Visit};
use crate::postgres::tables::keyrings;
use crate::settings;

impl Instance {
    /// Adds a key to the current keyring and stores it.
    pub(crate) fn add_key(&mut self) -> Result<(), Error> {
        settings::may_create_keys(|| self.schema_name())?;
        if self.keyrings.loaded.is_empty() {
            return self.create_first_keyring();
        }
        // Not in the keyring that seals: if storing the new key fails, nothing may have been sealed with it.
        let Union { bytes: current, kek, of } = self.union()?;
        let bytes = self
            .current_module()?
            .unlock(&current, &kek)
            .and_then(|mut keyring| keyring.add_key().and_then(|()| keyring.to_bytes()))
            .map_err(|error| self.fault(0, error))?;
        self.replace(&of, &bytes, kek)
    }

    /// Makes a keyring with a module, which becomes the current one. The keyrings before it stay, for reading.
    pub(crate) fn add_keyring(&mut self, digest: &Digest) -> Result<(), Error> {
        settings::may_create_keys(|| self.schema_name())?;
        self.must_open_one()?;
        let module = modules::module(digest)?;
        let secret = self.keyrings.variable.secret()?;
        let made = module
            .create_keyring(&secret, self.costs()?)
            .map_err(|error| self.keyrings.secret_error(error, "this store"))?;
        kek_cache::remember(&KeyId::new(&secret, digest, &made.keyring), &made.kek);
        self.store_keyring(digest, &made.keyring, made.kek)
    }

    /// Tells a wrong master secret before anything is written. A keyring that does not open here, while another one does, is
    /// for those to find who need it.
    fn must_open_one(&mut self) -> Result<(), Error> {
        let mut closed = None;
        for index in 0..self.keyrings.loaded.len().min(MOST_KEYRINGS) {
            match self.keyrings.unlocked(index) {
                Ok(_) => return Ok(()),
                Err(error) if error.is_of_keyring() => {
                    closed.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        match closed {
            Some(_) if self.keyrings.loaded.len() > MOST_KEYRINGS => Err(self.keyrings.too_many()),
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// The keyrings that open neither with the instance's master secret nor with another one; each with its copies.
    pub(crate) fn closed_to(&mut self, secret: &[u8]) -> Result<Vec<(Vec<StoredKeyring>, Error)>, Error> {
        let mut closed = Vec::<(Vec<StoredKeyring>, Error)>::new();
        for index in 0..self.keyrings.loaded.len() {
            let Some(stored) = self.keyrings.loaded.get(index).map(|keyring| keyring.stored.clone()) else {
                break;
            };
            if self.keyrings.is_copy(index) {
                let mut groups = closed.iter_mut().map(|(copies, _)| copies);
                if let Some(copies) =
                    groups.find(|copies| copies.iter().any(|other| other.is_copy_of(&stored)))
                {
                    copies.push(stored);
                }
                continue;
            }
            let Err(error) = self.keyrings.unlocked(index).map(drop) else { continue };
            if self.is_under(secret, &stored) {
                continue;
            }
            if !error.is_of_keyring() {
                return Err(error);
            }
            closed.push((vec![stored], error));
        }
        Ok(closed)
    }

    /// Has everyone wait who stores keyrings, and reads again what they have stored. To be called with the lock on values, which
    /// those take first who write both.
    pub(crate) fn hold_keyrings(&mut self) -> Result<(), Error> {
        drop(StoredKeyring::table(self.keyrings_table, pg_sys::ShareRowExclusiveLock)?);
        self.reread().map(drop)
    }

    fn is_under(&self, secret: &[u8], stored: &StoredKeyring) -> bool {
        let Ok(module) = modules::module(&stored.module) else { return false };
        let Ok(kek) = module.derive_kek(secret, &stored.bytes) else { return false };
        kek_cache::remember(&KeyId::new(secret, &stored.module, &stored.bytes), &kek);
        module.unlock(&stored.bytes, &kek).is_ok()
    }

    /// Wraps every keyring under another master secret, but for those that `left` names. One that is under it already stays as
    /// it is: another server that this one replicates with wrapped it.
    pub(crate) fn rewrap(&mut self, secret: &[u8], left: &[StoredKeyring]) -> Result<(), Error> {
        let costs = self.costs()?;
        let (mut before, mut after) = (Vec::<StoredKeyring>::new(), Vec::new());
        for index in 0..self.keyrings.loaded.len() {
            let Some(stored) = self.keyrings.loaded.get(index).map(|keyring| keyring.stored.clone()) else {
                break;
            };
            if self.keyrings.is_copy(index) && before.iter().any(|other| other.is_copy_of(&stored)) {
                before.push(stored);
                continue;
            }
            if left.contains(&stored) {
                continue;
            }
            let kek = match self.keyrings.kek(index) {
                Ok(kek) => kek,
                Err(_) if self.is_under(secret, &stored) => continue,
                Err(error) => return Err(error),
            };
            let made = modules::module(&stored.module)?.rewrap(&stored.bytes, &kek, secret, costs).map_err(
                |error| {
                    let what = format!("schema {}", self.schema_name());
                    self.keyrings.naming(index, self.keyrings.secret_error(error, &what))
                },
            )?;
            kek_cache::remember(&KeyId::new(secret, &stored.module, &made.keyring), &made.kek);
            after.push(StoredKeyring::row(stored.number, &stored.module, &made.keyring));
            before.push(stored);
        }
        self.exchange(&before, &after)
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

    /// Stores a keyring in place of those whose keys it has.
    pub(crate) fn replace(&mut self, of: &[StoredKeyring], bytes: &[u8], kek: Kek) -> Result<(), Error> {
        let Some(first) = of.first() else {
            return Err(Error::KeyringMissing { schema: self.schema_name() });
        };
        self.exchange(of, &[StoredKeyring::row(first.number, &first.module, bytes)])?;
        self.keep_kek(bytes, kek);
        Ok(())
    }

    /// Stores keyrings in place of others, if those are still there as they were. The new ones come first, so that a server
    /// that this is replicated to has them when it is to remove the others.
    fn exchange(
        &mut self,
        before: &[StoredKeyring],
        after: &[[Option<pg_sys::Datum>; 4]],
    ) -> Result<(), Error> {
        let table = StoredKeyring::table(self.keyrings_table, pg_sys::ShareRowExclusiveLock)?;
        // Whatever happens now, look at the table before the next use.
        self.stale = true;
        let mut found = 0_usize;
        table.scan(|row| {
            if let Some(keyring) = before.iter().find(|keyring| keyring.is_in(row)) {
                keyring.must_be_as_in(row, self.schema)?;
                found = found.saturating_add(1);
            }
            Ok(Visit::Continue)
        })?;
        if found != before.len() {
            let what = format!("the keyring of schema {}", self.schema_name());
            return Err(Error::ConcurrentChange { what });
        }
        for row in after {
            table.insert(row)?;
        }
        table.scan(|row| {
            if before.iter().any(|keyring| keyring.is_in(row)) {
                table.delete(row)?;
            }
            Ok(Visit::Continue)
        })?;
        table.announce_change();
        self.reread()?;
        Ok(())
    }

    /// Stores a further keyring, which becomes the current one.
    pub(crate) fn store_keyring(&mut self, module: &Digest, bytes: &[u8], kek: Kek) -> Result<(), Error> {
        modules::pin(module)?;
        let table = StoredKeyring::table(self.keyrings_table, pg_sys::ShareRowExclusiveLock)?;
        self.must_have_its_variable()?;
        table.insert(&StoredKeyring::row(self.next_number(&table)?, module, bytes))?;
        table.announce_change();
        self.reread()?;
        self.keep_kek(bytes, kek);
        Ok(())
    }

    /// Fails where the master secret was changed while this session waited for the lock on keyrings: what it is to store is
    /// wrapped under the old one.
    fn must_have_its_variable(&self) -> Result<(), Error> {
        if read_settings(self.config_table, Visibility::Now)?.variable == self.settings.variable {
            return Ok(());
        }
        Err(Error::ConcurrentChange { what: format!("the master secret of schema {}", self.schema_name()) })
    }

    /// The number of a keyring that supersedes those in the table; an error that names the one that none can supersede.
    fn next_number(&self, table: &Table) -> Result<i32, Error> {
        let (mut last, mut highest) = (0, None);
        table.scan(|row| {
            let number = row.required::<i32>(keyrings::NUMBER)?;
            if number == i32::MAX {
                highest = Some(row.required::<Uuid>(keyrings::ID)?);
            } else {
                last = last.max(number);
            }
            Ok(Visit::Continue)
        })?;
        let free = last.saturating_add(1);
        match highest {
            None => Ok(free),
            Some(id) => Err(Error::KeyringNumber {
                schema: self.schema_name(),
                id: id.to_string(),
                number: i32::MAX,
                free: free.min(i32::MAX - 1),
            }),
        }
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
