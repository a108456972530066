//! Opening and sealing the values of an instance.

use omni_credentials_host::{self as host, Identity, Value};

use crate::error::{Error, display_name};
use crate::instance::config::read_settings;
use crate::instance::{Instance, OpenError};
use crate::keys::master_secret::Variable;
use crate::keys::modules;
use crate::keys::stored_keyring::StoredKeyring;
use crate::postgres::heap::Visibility;
use crate::postgres::invalidation;

impl Instance {
    /// Opens a value with whichever keyring has its key.
    pub(crate) fn open(
        &mut self,
        identity: &Identity<'_>,
        expires: Option<u64>,
        sealed: &[u8],
    ) -> Result<Value, OpenError> {
        match self.keyrings.open(identity, expires, sealed) {
            // A statement whose lock on the table is older than a new keyring is not told of it, but sees the rows that were
            // sealed with it; and logical replication brings keyrings without telling the backends.
            Err(error) if error.is_of_another_key() && self.reread()? => {
                self.keyrings.open(identity, expires, sealed)
            }
            result => result,
        }
    }

    /// Opens a value that the active snapshot shows. Where its keyring was pruned since, the same snapshot shows that
    /// keyring.
    pub(crate) fn open_as_seen(
        &mut self,
        identity: &Identity<'_>,
        expires: Option<u64>,
        sealed: &[u8],
    ) -> Result<Value, OpenError> {
        if !self.pruned.loaded.is_empty() {
            match self.pruned.open(identity, expires, sealed) {
                Err(OpenError::Value(_) | OpenError::Closed(_)) => {}
                result => return result,
            }
        }
        match self.open(identity, expires, sealed) {
            Err(error) if error.is_of_another_key() && self.find_pruned()? => {
                match self.pruned.open(identity, expires, sealed) {
                    Err(other) if other.is_of_another_key() => Err(error),
                    result => result,
                }
            }
            result => result,
        }
    }

    /// Seals a value again under the current key. Where the current keyring has its key, it stays the same version of
    /// the credential.
    pub(crate) fn reseal(
        &mut self,
        identity: &Identity<'_>,
        expires: Option<u64>,
        sealed: &[u8],
    ) -> Result<Vec<u8>, OpenError> {
        if let Some(result) = self.keyrings.reseal(identity, expires, sealed)? {
            return result.map_err(OpenError::Value);
        }
        let value = self.open(identity, expires, sealed)?;
        Ok(self.seal(identity, expires, &value)?)
    }

    /// Whether the current keyring opens a value.
    pub(crate) fn opens_with_current(
        &mut self,
        identity: &Identity<'_>,
        expires: Option<u64>,
        sealed: &[u8],
    ) -> Result<bool, Error> {
        Ok(self.keyrings.open_with(0, identity, expires, sealed)?.is_ok())
    }

    /// Whether a superseded keyring has the key of a value, or may have it: where the value's format is unknown,
    /// no one can tell. An error where one that does not open may have it.
    pub(crate) fn needs_superseded(&mut self, sealed: &[u8]) -> Result<bool, Error> {
        let (superseded, mut closed) = (self.keyrings.equals(), None);
        for index in superseded..self.keyrings.loaded.len() {
            match self.keyrings.may_have_key_of(index, sealed) {
                Ok(false) => {}
                Ok(true) => return Ok(true),
                Err(error) if error.is_of_keyring() => {
                    closed.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        let Some(error) = closed else { return Ok(false) };
        for index in 0..superseded {
            if self.keyrings.key_of(index, sealed)?.unwrap_or(true) {
                return Ok(false);
            }
        }
        Err(error)
    }

    /// Looks for keyrings that the active snapshot shows and that are pruned since.
    fn find_pruned(&mut self) -> Result<bool, Error> {
        let mut seen = StoredKeyring::read_all(self.keyrings_table, Visibility::BySnapshot)?;
        seen.retain(|seen| self.keyrings.loaded.iter().all(|keyring| keyring.stored.id != seen.id));
        if seen.is_empty() {
            return Ok(false);
        }
        invalidation::mark_at_end();
        // The secret of that time: the snapshot is of this run of the server, and so is the environment.
        let settings = read_settings(self.config_table, Visibility::BySnapshot)?;
        self.pruned.replace(Variable::new(settings.variable, &self.owners)?, seen);
        Ok(true)
    }

    /// Seals a value under the current key, making the keyring where the instance has none yet.
    pub(crate) fn seal(
        &mut self,
        identity: &Identity<'_>,
        expires: Option<u64>,
        value: &[u8],
    ) -> Result<Vec<u8>, Error> {
        if self.keyrings.loaded.is_empty() {
            self.create_first_keyring()?;
        }
        // What this server seals is to open on each that has these keyrings.
        self.unlock_current()?;
        self.keyrings
            .unlocked(0)?
            .seal(identity, expires, value)
            .map_err(|error| refused_field(error, identity))
    }
}

/// Which field the module refused, and why.
fn refused_field(error: host::Error, identity: &Identity<'_>) -> Error {
    use host::ErrorCode as E;
    let host::Error::Refused(failure) = error else {
        return modules::module_error(error);
    };
    let name = display_name(identity.name);
    let (field, problem) = match failure.code {
        E::InvalidName => ("name", "must have 1 to 512 bytes in UTF-8".to_owned()),
        E::InvalidKind => ("kind", "must have 1 to 63 bytes in UTF-8".to_owned()),
        E::InvalidPrincipal => ("principal", "must be a role name of 1 to 255 bytes in UTF-8".to_owned()),
        E::InvalidScope => ("scope", "must be JSON nested at most 32 levels deep".to_owned()),
        E::ScopeTooLarge => ("scope", format!("has {} bytes as JSON, more than 2048", failure.found)),
        E::InvalidExpiry => return Error::InvalidExpiry { name },
        E::ValueTooLarge => ("value", format!("has {} bytes, more than 1048576", failure.found)),
        _ => return Error::ModuleFailed { reason: failure.to_string() },
    };
    Error::InvalidField { name, field, problem }
}
