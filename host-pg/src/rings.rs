//! Keyrings of a copy, as stored and as unlocked.

use omni_credentials_host::{self as host, Digest, Identity, Kek, Keyring, Module};
use pgrx::pg_sys;
use zeroize::Zeroizing;

use crate::error::{Error, Unreadable};
use crate::heap::{self, Seen, Table, Visit, datum};
use crate::keys::{self, KeyId};
use crate::{modules, secret, settings};

/// Columns of `credentials_keyrings`, counted from 0.
pub(crate) mod column {
    use pgrx::pg_sys;

    use crate::heap::Type;

    pub(crate) const ID: usize = 0;
    pub(crate) const MODULE: usize = 1;
    pub(crate) const KEYRING: usize = 2;

    pub(crate) const TYPES: &[Type] =
        &[Type::Is(pg_sys::INT4OID), Type::Is(pg_sys::BYTEAOID), Type::Is(pg_sys::BYTEAOID)];
}

/// A keyring as stored.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct StoredKeyring {
    pub(crate) id: i32,
    pub(crate) module: Digest,
    pub(crate) bytes: Vec<u8>,
}

/// Keyrings under one master secret, newest first.
pub(crate) struct Rings {
    pub(crate) schema: pg_sys::Oid,
    /// The environment variable with the master secret.
    pub(crate) variable: String,
    pub(crate) rings: Vec<Ring>,
}

/// A keyring, and what is known of it so far.
pub(crate) struct Ring {
    pub(crate) stored: StoredKeyring,
    pub(crate) kek: Option<Kek>,
    unlocked: Option<Keyring>,
}

impl StoredKeyring {
    /// Opens the table of keyrings.
    pub(crate) fn table(keyrings: pg_sys::Oid, lock: u32) -> Result<Table, Error> {
        let table = Table::open(keyrings, lock)?;
        table.must_have(column::TYPES)?;
        Ok(table)
    }

    /// Reads the keyrings in a table, newest first.
    pub(crate) fn read_all(keyrings: pg_sys::Oid, seen: Seen) -> Result<Vec<Self>, Error> {
        let mut stored = Vec::new();
        Self::table(keyrings, pg_sys::AccessShareLock)?.scan_as(seen, |row| {
            stored.push(Self {
                id: row.get(column::ID).unwrap_or(0),
                module: modules::digest_of_column(row, column::MODULE)?,
                bytes: row.get(column::KEYRING).unwrap_or_default(),
            });
            Ok(Visit::Continue)
        })?;
        stored.sort_by_key(|keyring| std::cmp::Reverse(keyring.id));
        Ok(stored)
    }

    /// The row in the table.
    pub(crate) fn row(id: i32, module: &Digest, bytes: &[u8]) -> [Option<pg_sys::Datum>; 3] {
        [datum(id), datum(module.as_bytes().as_slice()), datum(bytes)]
    }

    /// Whether this is the keyring in a row under the scan.
    pub(crate) fn is_in(&self, row: &heap::Row) -> bool {
        row.get::<i32>(column::ID) == Some(self.id)
    }

    /// Fails where the row has changed since it was read.
    pub(crate) fn must_be_as_in(&self, row: &heap::Row, schema: pg_sys::Oid) -> Result<(), Error> {
        if row.get::<Vec<u8>>(column::KEYRING).as_deref() == Some(self.bytes.as_slice()) {
            Ok(())
        } else {
            let what = format!("the keyring of schema {}", heap::schema_name(schema));
            Err(Error::ConcurrentChange { what })
        }
    }
}

impl Rings {
    /// No keyring.
    pub(crate) fn none(schema: pg_sys::Oid) -> Self {
        Self { schema, variable: String::new(), rings: Vec::new() }
    }

    /// Takes these keyrings instead, and keeps what is unlocked of them.
    pub(crate) fn replace(&mut self, variable: String, stored: Vec<StoredKeyring>) {
        let mut known = std::mem::take(&mut self.rings);
        self.variable = variable;
        self.rings = stored
            .into_iter()
            .map(|stored| match known.iter().position(|ring| ring.stored == stored) {
                Some(index) => known.swap_remove(index).while_allowed(),
                None => Ring { stored, kek: None, unlocked: None },
            })
            .collect();
        if !known.is_empty() {
            drop(known);
            modules::release_unused();
        }
    }

    /// Opens a value with whichever keyring has its key.
    pub(crate) fn open(
        &mut self,
        identity: &Identity<'_>,
        sealed: &[u8],
    ) -> Result<Result<Zeroizing<Vec<u8>>, Unreadable>, Error> {
        let mut first = None;
        for index in 0..self.rings.len() {
            match self.open_with(index, identity, sealed)? {
                Ok(value) => return Ok(Ok(value)),
                Err(reason) => {
                    first.get_or_insert(reason);
                    if !reason.is_of_another_key() {
                        return Ok(Err(reason));
                    }
                }
            }
        }
        Ok(Err(first.unwrap_or(Unreadable::UnknownKey)))
    }

    /// Opens a value with one keyring.
    pub(crate) fn open_with(
        &mut self,
        index: usize,
        identity: &Identity<'_>,
        sealed: &[u8],
    ) -> Result<Result<Zeroizing<Vec<u8>>, Unreadable>, Error> {
        match self.unlocked(index)?.open(identity, sealed) {
            Ok(value) => Ok(Ok(value)),
            Err(host::Error::Refused(failure)) => match Unreadable::of(&failure) {
                Some(reason) => Ok(Err(reason)),
                None => Err(Error::ModuleFailed { reason: failure.to_string() }),
            },
            Err(error) => Err(modules::module_error(error)),
        }
    }

    /// The keyring, unlocked.
    pub(crate) fn unlocked(&mut self, index: usize) -> Result<&mut Keyring, Error> {
        let schema = self.schema;
        if self.rings.get(index).is_some_and(|ring| ring.unlocked.is_none()) {
            let kek = self.kek(index)?;
            let ring = self.ring(index)?;
            let module = modules::module(&ring.stored.module)?;
            let keyring = module.unlock(&ring.stored.bytes, &kek).map_err(|error| match error {
                host::Error::Refused(_) => Error::KeyringTampered { schema: heap::schema_name(schema) },
                other => modules::module_error(other),
            })?;
            ring.unlocked = Some(keyring);
        }
        let ring = self.ring(index)?;
        ring.unlocked.as_mut().ok_or_else(|| Error::KeyringMissing { schema: heap::schema_name(schema) })
    }

    /// The keyring's KEK.
    pub(crate) fn kek(&mut self, index: usize) -> Result<Kek, Error> {
        let ring = self.ring(index)?;
        if let Some(kek) = &ring.kek {
            return Ok(kek.clone());
        }
        let stored = ring.stored.clone();
        let module = modules::module(&stored.module)?;
        let what = format!("schema {}", heap::schema_name(self.schema));
        let kek = self.derive(&module, &stored.bytes, &what)?;
        self.ring(index)?.kek = Some(kek.clone());
        Ok(kek)
    }

    /// Derives the KEK of any keyring with this master secret. `what` names it in errors.
    pub(crate) fn derive(&self, module: &Module, keyring: &[u8], what: &str) -> Result<Kek, Error> {
        let secret = secret::master_secret(&self.variable)?;
        let id = KeyId::new(&secret, module.digest(), keyring);
        if let Some(kek) = keys::known(&id) {
            return Ok(kek);
        }
        let kek = module.derive_kek(&secret, keyring).map_err(|error| self.secret_error(error, what))?;
        keys::remember(&id, &kek);
        Ok(kek)
    }

    /// What a failure of key derivation means to the person who set the secret.
    pub(crate) fn secret_error(&self, error: host::Error, what: &str) -> Error {
        use host::ErrorCode as E;
        let variable = self.variable.clone();
        match error {
            host::Error::Refused(failure) => match failure.code {
                E::WrongMasterSecret => Error::MasterSecretWrong { variable, what: what.to_owned() },
                E::InvalidMasterSecret => Error::MasterSecretInvalid { variable },
                E::KdfOutOfBounds => Error::InvalidArgument(
                    "the key derivation costs are outside the module's limits".to_owned(),
                ),
                _ => Error::KeyringTampered { schema: heap::schema_name(self.schema) },
            },
            other => modules::module_error(other),
        }
    }

    fn ring(&mut self, index: usize) -> Result<&mut Ring, Error> {
        let schema = self.schema;
        self.rings.get_mut(index).ok_or_else(|| Error::KeyringMissing { schema: heap::schema_name(schema) })
    }
}

impl Ring {
    /// The keyring, unlocked no longer where its module may not run any more.
    fn while_allowed(mut self) -> Self {
        if settings::require_allowed(&self.stored.module).is_err() {
            self.unlocked = None;
        }
        self
    }
}
