//! Several keyrings that are one: servers that replicate to each other made or changed them without knowing of each other.
//!
//! Each stays a row of its own, and readers try all of them, until someone writes the keyring of the instance. What they are
//! together is the module's decision (FORMAT.md, section 4).

use omni_credentials_host::{self as host, Kek};

use crate::error::Error;
use crate::instance::Instance;
use crate::keys::modules;
use crate::keys::stored_keyring::StoredKeyring;
use crate::postgres::catalog;

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
        let places = self.keyrings.current()?;
        let kek = self.keyrings.kek(0)?;
        let current = self.keyrings.loaded.iter().take(self.keyrings.equals());
        let of: Vec<_> = current.map(|keyring| keyring.stored.clone()).collect();
        if places.len() == 1 {
            return Ok(Union { bytes, kek, of });
        }
        let mut united = self.current_module()?.unlock(&bytes, &kek).map_err(|error| self.fault(0, error))?;
        for index in places.into_iter().skip(1) {
            let kek = self.keyrings.kek(index)?;
            let Some(other) = of.get(index) else { break };
            united.unite(&other.bytes, &kek).map_err(|error| self.fault(index, error))?;
        }
        let bytes = united.to_bytes().map_err(|error| self.fault(0, error))?;
        Ok(Union { bytes, kek, of })
    }

    /// What a failure to unlock or to unite a keyring means.
    pub(super) fn fault(&self, index: usize, error: host::Error) -> Error {
        let schema = catalog::schema_name(self.schema);
        match error {
            host::Error::Refused(failure) if failure.code == host::ErrorCode::TooManyKeys => {
                Error::KeyringFull { schema }
            }
            host::Error::Refused(_) => self.keyrings.naming(index, Error::KeyringTampered { schema }),
            other => modules::module_error(other),
        }
    }

    /// Stores the current keyrings as one. Makes no key.
    pub(crate) fn unite_keyrings(&mut self) -> Result<(), Error> {
        if self.keyrings.equals() > 1 {
            let Union { bytes, kek, of } = self.union()?;
            self.replace(&of, &bytes, kek)?;
        }
        Ok(())
    }
}
