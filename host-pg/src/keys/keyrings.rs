//! The keyrings of an instance, and how they are unlocked.
//!
//! Another server may have made one that does not open here: under another master secret, with a module that this server
//! lacks, or damaged. It keeps no value of the others from being opened.

use std::collections::HashMap;

use omni_credentials_host::{self as host, Kek, Keyring, Module};
use pgrx::pg_sys;

use crate::error::Error;
use crate::keys::derivation_lock::DerivationLock;
use crate::keys::kek_cache::{self, KeyId};
use crate::keys::master_secret::Variable;
use crate::keys::modules;
use crate::keys::stored_keyring::StoredKeyring;
use crate::postgres::catalog;
use crate::settings;

/// So many keyrings are tried for one value, and so many are united: a union of more would not fit into a keyring, each of
/// which has a key of its own.
pub(crate) const MOST_KEYRINGS: usize = 256;

/// Keyrings under one master secret, in the order of [`StoredKeyring::read_all`].
pub(crate) struct Keyrings {
    pub(crate) schema: pg_sys::Oid,
    /// The environment variable with the master secret.
    pub(crate) variable: Variable,
    pub(crate) loaded: Vec<LoadedKeyring>,
    /// The one that opened a value last.
    pub(super) last: usize,
}

/// A keyring, and what is known of it so far.
pub(crate) struct LoadedKeyring {
    pub(crate) stored: StoredKeyring,
    pub(crate) kek: Option<Kek>,
    /// The place of the first one with the same bytes. One that comes after it opens nothing more.
    pub(crate) first: usize,
    /// The module refused the bytes, and will always do so.
    altered: bool,
    unlocked: Option<Keyring>,
}

impl Keyrings {
    /// No keyring.
    pub(crate) fn none(schema: pg_sys::Oid) -> Self {
        Self { schema, variable: Variable::default(), loaded: Vec::new(), last: 0 }
    }

    /// The same keyrings, to be unlocked apart from these.
    pub(crate) fn apart(&self) -> Self {
        let mut apart =
            Self { schema: self.schema, variable: self.variable.clone(), loaded: Vec::new(), last: 0 };
        apart.loaded.extend(self.loaded.iter().map(|keyring| LoadedKeyring {
            kek: keyring.kek.clone(),
            first: keyring.first,
            altered: keyring.altered,
            ..LoadedKeyring::new(keyring.stored.clone())
        }));
        apart
    }

    /// Takes these keyrings instead, and keeps what is unlocked of them, unless the variable may no longer be used.
    pub(crate) fn replace(&mut self, variable: Variable, stored: Vec<StoredKeyring>) {
        let known = std::mem::take(&mut self.loaded);
        let mut known: HashMap<_, _> =
            known.into_iter().map(|keyring| (*keyring.stored.id.as_bytes(), keyring)).collect();
        if !variable.is_allowed() {
            known.clear();
            modules::release_unused();
        }
        self.variable = variable;
        self.last = 0;
        self.loaded = stored
            .into_iter()
            .map(|stored| match known.remove(stored.id.as_bytes()) {
                Some(keyring) if keyring.stored == stored => keyring.while_allowed(),
                _ => LoadedKeyring::new(stored),
            })
            .collect();
        self.mark_copies();
        if !known.is_empty() {
            drop(known);
            modules::release_unused();
        }
    }

    fn mark_copies(&mut self) {
        let (mut seen, mut firsts) = (HashMap::new(), Vec::with_capacity(self.loaded.len()));
        for (index, keyring) in self.loaded.iter().enumerate() {
            let StoredKeyring { module, bytes, .. } = &keyring.stored;
            firsts.push(*seen.entry((*module, bytes.as_slice())).or_insert(index));
        }
        for (keyring, first) in self.loaded.iter_mut().zip(firsts) {
            keyring.first = first;
        }
    }

    /// How many keyrings are current: one, or one of each server that made one without knowing of the others.
    pub(crate) fn equals(&self) -> usize {
        let Some(current) = self.loaded.first() else { return 0 };
        self.loaded.iter().take_while(|keyring| keyring.stored.is_equal_of(&current.stored)).count()
    }

    /// The places of the current keyrings, but for copies; an error where there are too many to work with.
    pub(crate) fn current(&self) -> Result<Vec<usize>, Error> {
        let current: Vec<_> = (0..self.equals()).filter(|index| !self.is_copy(*index)).collect();
        if current.len() > MOST_KEYRINGS { Err(self.too_many()) } else { Ok(current) }
    }

    /// Whether an earlier keyring has the same bytes.
    pub(crate) fn is_copy(&self, index: usize) -> bool {
        self.loaded.get(index).is_some_and(|keyring| keyring.first != index)
    }

    /// Whether a keyring was unlocked here already.
    pub(crate) fn is_unlocked(&self, index: usize) -> bool {
        self.loaded.get(index).is_some_and(|keyring| keyring.unlocked.is_some())
    }

    /// The keyring, unlocked. Where there are several, an error that is about this one names it.
    pub(crate) fn unlocked(&mut self, index: usize) -> Result<&mut Keyring, Error> {
        let schema = self.schema;
        if !self.is_unlocked(index) {
            self.unlock(index).map_err(|error| self.naming(index, error))?;
        }
        let keyring = self.loaded_mut(index)?;
        keyring
            .unlocked
            .as_mut()
            .ok_or_else(|| Error::KeyringMissing { schema: catalog::schema_name(schema) })
    }

    fn unlock(&mut self, index: usize) -> Result<(), Error> {
        let kek = self.kek_of(index)?;
        let altered = Error::KeyringTampered { schema: catalog::schema_name(self.schema) };
        let loaded = self.loaded_mut(index)?;
        let module = modules::module(&loaded.stored.module)?;
        match module.unlock(&loaded.stored.bytes, &kek) {
            Ok(keyring) => {
                loaded.unlocked = Some(keyring);
                Ok(())
            }
            Err(host::Error::Refused(_)) => {
                loaded.altered = true;
                Err(altered)
            }
            Err(error) => Err(modules::module_error(error)),
        }
    }

    /// The keyring's KEK. Where there are several keyrings, an error that is about this one names it.
    pub(crate) fn kek(&mut self, index: usize) -> Result<Kek, Error> {
        self.kek_of(index).map_err(|error| self.naming(index, error))
    }

    fn kek_of(&mut self, index: usize) -> Result<Kek, Error> {
        let altered = Error::KeyringTampered { schema: catalog::schema_name(self.schema) };
        let keyring = self.loaded_mut(index)?;
        if keyring.altered {
            return Err(altered);
        }
        let module = modules::module(&keyring.stored.module)?;
        if let Some(kek) = &keyring.kek {
            return Ok(kek.clone());
        }
        let bytes = keyring.stored.bytes.clone();
        let what = format!("schema {}", catalog::schema_name(self.schema));
        let kek = self.derive(&module, &bytes, &what);
        let keyring = self.loaded_mut(index)?;
        match &kek {
            Ok(kek) => keyring.kek = Some(kek.clone()),
            Err(error) => keyring.altered = matches!(error, Error::KeyringTampered { .. }),
        }
        kek
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
        derived.map_err(|error| match error {
            // Of the keyring's own: no one set them here.
            host::Error::Refused(failure) if failure.code == host::ErrorCode::KdfOutOfBounds => {
                Error::KeyringTampered { schema: catalog::schema_name(self.schema) }
            }
            error => {
                let error = self.secret_error(error, what);
                if matches!(error, Error::MasterSecretWrong { .. }) {
                    kek_cache::remember_wrong(&id);
                }
                error
            }
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

    /// An error that is about one of several keyrings says which.
    pub(crate) fn naming(&self, index: usize, error: Error) -> Error {
        match self.loaded.get(index) {
            Some(keyring) if self.loaded.len() > 1 => {
                let id = keyring.stored.id.to_string();
                error.of_keyring(catalog::schema_name(self.schema), id)
            }
            _ => error,
        }
    }

    pub(crate) fn too_many(&self) -> Error {
        let number = self.loaded.first().map_or(0, |current| current.stored.number);
        Error::TooManyKeyrings { schema: catalog::schema_name(self.schema), most: MOST_KEYRINGS, number }
    }

    fn loaded_mut(&mut self, index: usize) -> Result<&mut LoadedKeyring, Error> {
        let schema = self.schema;
        self.loaded
            .get_mut(index)
            .ok_or_else(|| Error::KeyringMissing { schema: catalog::schema_name(schema) })
    }
}

impl LoadedKeyring {
    fn new(stored: StoredKeyring) -> Self {
        Self { stored, kek: None, first: 0, altered: false, unlocked: None }
    }

    /// The keyring, unlocked no longer where its module may not run any more.
    fn while_allowed(mut self) -> Self {
        if settings::require_allowed(&self.stored.module).is_err() {
            self.unlocked = None;
        }
        self
    }
}
