//! Keyrings of an instance, as stored and as unlocked.

use omni_credentials_host::{self as host, Digest, Identity, Kek, Keyring, Module};
use pgrx::datum::Uuid;
use pgrx::pg_sys;
use zeroize::Zeroizing;

use crate::error::{Error, Unreadable};
use crate::keys::derivation_lock::DerivationLock;
use crate::keys::kek_cache::{self, KeyId};
use crate::keys::master_secret::Variable;
use crate::keys::modules;
use crate::postgres::catalog;
use crate::postgres::heap::{self, Table, Visibility, Visit, datum};
use crate::postgres::tables::keyrings;
use crate::settings;

/// A keyring as stored. A row is never changed: a changed keyring is a new row. So two servers that replicate to each other
/// and both change a keyring have both results.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct StoredKeyring {
    /// Random, so that no two servers make rows that collide.
    pub(crate) id: Uuid,
    /// Counts up with each keyring that supersedes those before it.
    pub(crate) number: i32,
    pub(crate) module: Digest,
    pub(crate) bytes: Vec<u8>,
}

/// Keyrings under one master secret, in the order of [`StoredKeyring::read_all`].
pub(crate) struct Keyrings {
    pub(crate) schema: pg_sys::Oid,
    /// The environment variable with the master secret.
    pub(crate) variable: Variable,
    pub(crate) loaded: Vec<LoadedKeyring>,
}

/// A keyring, and what is known of it so far.
pub(crate) struct LoadedKeyring {
    pub(crate) stored: StoredKeyring,
    pub(crate) kek: Option<Kek>,
    unlocked: Option<Keyring>,
}

impl StoredKeyring {
    /// Opens the table of keyrings.
    pub(crate) fn table(keyrings: pg_sys::Oid, lock: u32) -> Result<Table, Error> {
        let table = Table::open(keyrings, lock)?;
        table.must_have(keyrings::COLUMNS)?;
        Ok(table)
    }

    /// Reads the keyrings in a table. The current one comes first, then its equals, then those that are superseded, from the
    /// highest number to the lowest. The order is the same on each server that has these rows.
    pub(crate) fn read_all(keyrings: pg_sys::Oid, seen: Visibility) -> Result<Vec<Self>, Error> {
        let mut stored = Vec::new();
        Self::table(keyrings, pg_sys::AccessShareLock)?.scan_as(seen, |row| {
            stored.push(Self {
                id: row.required(keyrings::ID)?,
                number: row.required(keyrings::NUMBER)?,
                module: modules::digest_of_column(row, keyrings::MODULE)?,
                bytes: row.required(keyrings::KEYRING)?,
            });
            Ok(Visit::Continue)
        })?;
        stored.sort_by_key(|keyring| std::cmp::Reverse((keyring.number, keyring.id)));
        if let Some(current) = stored.first().cloned() {
            // Stable: only what another server made with another module at the same time is put behind.
            stored.sort_by_key(|keyring| !keyring.is_equal_of(&current));
        }
        Ok(stored)
    }

    /// A row for the table.
    pub(crate) fn row(number: i32, module: &Digest, bytes: &[u8]) -> [Option<pg_sys::Datum>; 4] {
        // SAFETY: the function of the server for new ids, which takes no arguments and gives a uuid.
        let id = unsafe { pgrx::direct_function_call_as_datum(pg_sys::gen_random_uuid, &[]) };
        [datum(number), datum(module.as_bytes().as_slice()), datum(bytes), id]
    }

    /// Whether neither of two keyrings supersedes the other: two servers made them without knowing of each other. Together
    /// they are one, and their union can take the place of both.
    pub(crate) fn is_equal_of(&self, other: &Self) -> bool {
        (self.number, self.module) == (other.number, other.module)
    }

    /// Whether this is the keyring in a row under the scan.
    pub(crate) fn is_in(&self, row: &heap::Row) -> bool {
        row.get::<Uuid>(keyrings::ID) == Some(self.id)
    }

    /// Fails where the row has changed since it was read.
    pub(crate) fn must_be_as_in(&self, row: &heap::Row, schema: pg_sys::Oid) -> Result<(), Error> {
        if row.get::<Vec<u8>>(keyrings::KEYRING).as_deref() == Some(self.bytes.as_slice()) {
            Ok(())
        } else {
            let what = format!("the keyring of schema {}", catalog::schema_name(schema));
            Err(Error::ConcurrentChange { what })
        }
    }
}

impl Keyrings {
    /// No keyring.
    pub(crate) fn none(schema: pg_sys::Oid) -> Self {
        Self { schema, variable: Variable::default(), loaded: Vec::new() }
    }

    /// Takes these keyrings instead, and keeps what is unlocked of them, unless the variable may no longer be used.
    pub(crate) fn replace(&mut self, variable: Variable, stored: Vec<StoredKeyring>) {
        let mut known = std::mem::take(&mut self.loaded);
        if !variable.is_allowed() {
            known.clear();
            modules::release_unused();
        }
        self.variable = variable;
        self.loaded = stored
            .into_iter()
            .map(|stored| match known.iter().position(|keyring| keyring.stored == stored) {
                Some(index) => known.swap_remove(index).while_allowed(),
                None => LoadedKeyring { stored, kek: None, unlocked: None },
            })
            .collect();
        if !known.is_empty() {
            drop(known);
            modules::release_unused();
        }
    }

    /// Opens a value with whichever keyring has its key. One that this master secret does not unlock, as another server with
    /// another secret may have made it, keeps no value of the others from being opened.
    pub(crate) fn open(
        &mut self,
        identity: &Identity<'_>,
        expires: Option<u64>,
        sealed: &[u8],
    ) -> Result<Result<Zeroizing<Vec<u8>>, Unreadable>, Error> {
        let (mut first, mut locked) = (None, None);
        for index in 0..self.loaded.len() {
            match self.open_with(index, identity, expires, sealed) {
                Ok(Ok(value)) => return Ok(Ok(value)),
                Ok(Err(reason)) => {
                    first.get_or_insert(reason);
                    if !reason.is_of_another_key() {
                        return Ok(Err(reason));
                    }
                }
                Err(error @ Error::MasterSecretWrong { .. }) => {
                    locked.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        match locked {
            Some(error) => Err(error),
            None => Ok(Err(first.unwrap_or(Unreadable::UnknownKey))),
        }
    }

    /// How many keyrings are current: one, or one of each server that made one without knowing of the others.
    pub(crate) fn equals(&self) -> usize {
        let Some(current) = self.loaded.first() else { return 0 };
        self.loaded.iter().take_while(|keyring| keyring.stored.is_equal_of(&current.stored)).count()
    }

    /// Seals a value again with the current keyring; `None` where another one has its key.
    pub(crate) fn reseal(
        &mut self,
        identity: &Identity<'_>,
        expires: Option<u64>,
        sealed: &[u8],
    ) -> Result<Option<Result<Vec<u8>, Unreadable>>, Error> {
        match self.unlocked(0)?.reseal(identity, expires, sealed) {
            Ok(again) => Ok(Some(Ok(again))),
            Err(host::Error::Refused(failure)) => match Unreadable::of(&failure) {
                Some(reason) if reason.is_of_another_key() => Ok(None),
                Some(reason) => Ok(Some(Err(reason))),
                None => Err(Error::ModuleFailed { reason: failure.to_string() }),
            },
            Err(error) => Err(modules::module_error(error)),
        }
    }

    /// Opens a value with one keyring.
    pub(crate) fn open_with(
        &mut self,
        index: usize,
        identity: &Identity<'_>,
        expires: Option<u64>,
        sealed: &[u8],
    ) -> Result<Result<Zeroizing<Vec<u8>>, Unreadable>, Error> {
        match self.unlocked(index)?.open(identity, expires, sealed) {
            Ok(value) => Ok(Ok(value)),
            Err(host::Error::Refused(failure)) => match Unreadable::of(&failure) {
                Some(reason) => Ok(Err(reason)),
                None => Err(Error::ModuleFailed { reason: failure.to_string() }),
            },
            Err(error) => Err(modules::module_error(error)),
        }
    }

    /// Whether a keyring has the key of a value, or may have it: where the value's format is unknown, no one can tell.
    pub(crate) fn may_have_key_of(&mut self, index: usize, sealed: &[u8]) -> Result<bool, Error> {
        // No value was sealed for this identity, so what counts is whether it is the key that is missing.
        const NO_IDENTITY: Identity<'_> =
            Identity { name: b"?", kind: b"?", principal: b"?", scope: b"null" };
        Ok(match self.open_with(index, &NO_IDENTITY, None, sealed)? {
            Err(Unreadable::Malformed) => false,
            Err(reason) => !reason.is_of_another_key(),
            Ok(_) => true,
        })
    }

    /// Whether this master secret unlocks a keyring that has the key of a value.
    pub(crate) fn has_key_of(&mut self, index: usize, sealed: &[u8]) -> Result<bool, Error> {
        match self.unlocked(index).map(|keyring| keyring.key_of(sealed)) {
            Ok(Ok(key)) => Ok(key != host::KeyOf::Unknown),
            Ok(Err(host::Error::Refused(_))) | Err(Error::MasterSecretWrong { .. }) => Ok(false),
            Ok(Err(error)) => Err(modules::module_error(error)),
            Err(error) => Err(error),
        }
    }

    /// The keyring, unlocked.
    pub(crate) fn unlocked(&mut self, index: usize) -> Result<&mut Keyring, Error> {
        let schema = self.schema;
        if self.loaded.get(index).is_some_and(|keyring| keyring.unlocked.is_none()) {
            let kek = self.kek(index)?;
            let loaded = self.loaded_mut(index)?;
            let module = modules::module(&loaded.stored.module)?;
            let keyring = module.unlock(&loaded.stored.bytes, &kek).map_err(|error| match error {
                host::Error::Refused(_) => Error::KeyringTampered { schema: catalog::schema_name(schema) },
                other => modules::module_error(other),
            })?;
            loaded.unlocked = Some(keyring);
        }
        let keyring = self.loaded_mut(index)?;
        keyring
            .unlocked
            .as_mut()
            .ok_or_else(|| Error::KeyringMissing { schema: catalog::schema_name(schema) })
    }

    /// The keyring's KEK.
    pub(crate) fn kek(&mut self, index: usize) -> Result<Kek, Error> {
        let keyring = self.loaded_mut(index)?;
        if let Some(kek) = &keyring.kek {
            return Ok(kek.clone());
        }
        let stored = keyring.stored.clone();
        let module = modules::module(&stored.module)?;
        let what = format!("schema {}", catalog::schema_name(self.schema));
        let kek = self.derive(&module, &stored.bytes, &what)?;
        self.loaded_mut(index)?.kek = Some(kek.clone());
        Ok(kek)
    }

    /// Derives the KEK of any keyring with this master secret. `what` names it in errors.
    pub(crate) fn derive(&self, module: &Module, keyring: &[u8], what: &str) -> Result<Kek, Error> {
        let secret = self.variable.secret()?;
        let id = KeyId::new(&secret, module.digest(), keyring);
        if let Some(kek) = kek_cache::known(&id) {
            return Ok(kek);
        }
        if kek_cache::is_wrong(&id) {
            return Err(self.secret_wrong(what));
        }
        let lock = kek_cache::is_shared().then(|| DerivationLock::acquire(module.digest(), keyring));
        // Another session may have derived it while this one waited.
        let derived = match kek_cache::known(&id) {
            Some(kek) => Ok(kek),
            None => module.derive_kek(&secret, keyring).inspect(|kek| kek_cache::remember(&id, kek)),
        };
        if let Some(lock) = lock {
            lock.release();
        }
        derived.map_err(|error| {
            let error = self.secret_error(error, what);
            if matches!(error, Error::MasterSecretWrong { .. }) {
                kek_cache::remember_wrong(&id);
            }
            error
        })
    }

    /// What a failure of key derivation means to the person who set the secret.
    pub(crate) fn secret_error(&self, error: host::Error, what: &str) -> Error {
        use host::ErrorCode as E;
        let variable = self.variable.name.clone();
        match error {
            host::Error::Refused(failure) => match failure.code {
                E::WrongMasterSecret => self.secret_wrong(what),
                E::InvalidMasterSecret => Error::MasterSecretInvalid { variable },
                E::KdfOutOfBounds => Error::InvalidArgument(
                    "the key derivation costs are outside the module's limits".to_owned(),
                ),
                _ => Error::KeyringTampered { schema: catalog::schema_name(self.schema) },
            },
            other => modules::module_error(other),
        }
    }

    fn secret_wrong(&self, what: &str) -> Error {
        Error::MasterSecretWrong { variable: self.variable.name.clone(), what: what.to_owned() }
    }

    fn loaded_mut(&mut self, index: usize) -> Result<&mut LoadedKeyring, Error> {
        let schema = self.schema;
        self.loaded
            .get_mut(index)
            .ok_or_else(|| Error::KeyringMissing { schema: catalog::schema_name(schema) })
    }
}

impl LoadedKeyring {
    /// The keyring, unlocked no longer where its module may not run any more.
    fn while_allowed(mut self) -> Self {
        if settings::require_allowed(&self.stored.module).is_err() {
            self.unlocked = None;
        }
        self
    }
}
