//! Several keyrings that are one: servers that replicate to each other made or changed them without knowing of each other.
//!
//! Each stays a row of its own, and readers try all of them, until someone writes the keyring of the instance. What they are
//! together is the module's decision (FORMAT.md, section 4).

use omni_credentials_host::{self as host, Kek};
use pgrx::datum::Uuid;

use crate::error::Error;
use crate::instance::Instance;
use crate::keys::keyrings::StoredKeyring;
use crate::keys::modules;

/// The current keyrings as one, under the wrapping of the first of them.
pub(crate) struct Union {
    pub(crate) bytes: Vec<u8>,
    pub(crate) kek: Kek,
    /// What it can take the place of.
    pub(crate) of: Vec<StoredKeyring>,
}

impl Instance {
    /// The current keyring, with the keys of all where there are several; an error where there is none.
    pub(crate) fn union(&mut self) -> Result<Union, Error> {
        let bytes = self.current_bytes()?;
        let kek = self.keyrings.kek(0)?;
        let count = self.keyrings.equals();
        let of: Vec<_> =
            self.keyrings.loaded.iter().take(count).map(|keyring| keyring.stored.clone()).collect();
        if count == 1 {
            return Ok(Union { bytes, kek, of });
        }
        let schema = self.schema_name();
        let fault = |error| match error {
            host::Error::Refused(failure) if failure.code == host::ErrorCode::TooManyKeys => {
                Error::KeyringFull { schema: schema.clone() }
            }
            other => modules::module_error(other),
        };
        let mut united = self.current_module()?.unlock(&bytes, &kek).map_err(fault)?;
        for (index, other) in of.iter().enumerate().skip(1) {
            united.unite(&other.bytes, &self.keyrings.kek(index)?).map_err(fault)?;
        }
        Ok(Union { bytes: united.to_bytes().map_err(fault)?, kek, of })
    }

    /// Stores the current keyrings as one. Makes no key.
    pub(crate) fn unite_keyrings(&mut self) -> Result<(), Error> {
        if self.keyrings.equals() > 1 {
            let Union { bytes, kek, of } = self.union()?;
            self.replace(&of, &bytes, kek)?;
        }
        Ok(())
    }

    /// Whether another keyring of the instance has all keys of this one. There may be none of that id.
    pub(crate) fn has_elsewhere_the_keys_of(&mut self, id: Uuid) -> Result<bool, Error> {
        let Some(index) = self.keyring_at(id) else { return Ok(true) };
        let kek = match self.keyrings.kek(index) {
            Err(Error::MasterSecretWrong { .. }) => return Ok(false),
            kek => kek?,
        };
        let all: Vec<_> = self.keyrings.loaded.iter().map(|keyring| keyring.stored.clone()).collect();
        let Some(this) = all.get(index) else { return Ok(true) };
        for (place, other) in all.iter().enumerate() {
            if place == index || other.module != this.module {
                continue;
            }
            let other_kek = match self.keyrings.kek(place) {
                Err(Error::MasterSecretWrong { .. }) => continue,
                kek => kek?,
            };
            let new = modules::module(&other.module)?
                .unlock(&other.bytes, &other_kek)
                .and_then(|mut keyring| keyring.unite(&this.bytes, &kek));
            match new {
                Ok(0) => return Ok(true),
                Ok(_) | Err(host::Error::Refused(_)) => {}
                Err(error) => return Err(modules::module_error(error)),
            }
        }
        Ok(false)
    }

    /// Whether a value may need a keyring: it may have the key, and no other has it. There may be none of that id.
    pub(crate) fn may_need(&mut self, id: Uuid, sealed: &[u8]) -> Result<bool, Error> {
        let Some(index) = self.keyring_at(id) else { return Ok(false) };
        for place in 0..self.keyrings.loaded.len() {
            if place != index && self.keyrings.has_key_of(place, sealed)? {
                return Ok(false);
            }
        }
        match self.keyrings.may_have_key_of(index, sealed) {
            Err(Error::MasterSecretWrong { .. }) => Ok(true),
            may => may,
        }
    }

    fn keyring_at(&self, id: Uuid) -> Option<usize> {
        self.keyrings.loaded.iter().position(|keyring| keyring.stored.id == id)
    }
}
