//! The master secret, as the server's environment gives it.

use omni_credentials_host::{Error as HostError, secret};
use pgrx::pg_sys;
use zeroize::Zeroizing;

use crate::error::Error;
use crate::keys::allowed_variables;

pub(crate) use secret::is_variable_name;

/// The environment variable of an instance, and whether the owners of the instance may use it.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Variable {
    pub(crate) name: String,
    refused_to: Option<pg_sys::Oid>,
}

impl Variable {
    /// The variable of an instance with these owners.
    pub(crate) fn new(name: String, owners: &[pg_sys::Oid]) -> Result<Self, Error> {
        let refused_to = allowed_variables::refused(&name, owners)?;
        Ok(Self { name, refused_to })
    }

    /// Whether the owners may use it.
    pub(crate) fn is_allowed(&self) -> bool {
        self.refused_to.is_none()
    }

    /// The secret in it.
    pub(crate) fn secret(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        match self.refused_to {
            Some(role) => Err(allowed_variables::not_allowed(&self.name, role)),
            None => master_secret(&self.name),
        }
    }
}

/// The secret in environment variable `variable`, or in the file that `variable`_FILE names (one trailing line end is
/// not part of it). It is read when a key must be derived and never kept.
pub(crate) fn master_secret(variable: &str) -> Result<Zeroizing<Vec<u8>>, Error> {
    if !is_variable_name(variable) {
        return Err(Error::InvalidArgument(format!(
            "{variable:?} is not the name of an environment variable"
        )));
    }
    match secret::from_environment(variable) {
        Ok(Some(secret)) => Ok(secret),
        Ok(None) => Err(Error::MasterSecretMissing { variable: variable.to_owned() }),
        Err(error) => {
            let reason = match error {
                HostError::File { fault, .. } => fault.to_string(),
                other => other.to_string(),
            };
            Err(Error::MasterSecretFile { variable: variable.to_owned(), reason })
        }
    }
}
