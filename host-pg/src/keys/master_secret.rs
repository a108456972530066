//! The master secret, as the server's environment gives it.

pub(crate) use omni_credentials_host::secret::Source;
use omni_credentials_host::{Error as HostError, secret};
use pgrx::pg_sys;
use zeroize::Zeroizing;

use crate::error::Error;
use crate::keys::allowed_variables;
use crate::keys::printed_secret::printed_secret;
use crate::postgres::interrupt;

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

/// The secret in environment variable `variable`, in the file that `variable`_FILE names, or what the program prints that
/// `variable`_COMMAND names (one trailing line end is not part of it). It is read when a key must be derived; what a program
/// printed is kept.
pub(crate) fn master_secret(variable: &str) -> Result<Zeroizing<Vec<u8>>, Error> {
    if !is_variable_name(variable) {
        return Err(Error::InvalidArgument(format!(
            "{variable:?} is not the name of an environment variable"
        )));
    }
    let found = match secret::source(variable) {
        Ok(Some(Source::Command)) => return printed_secret(variable),
        Ok(_) => secret::from_environment(variable, interrupt::wanted),
        Err(error) => Err(error),
    };
    let variable = variable.to_owned();
    found.map_err(|error| secret_error(&variable, error))?.ok_or(Error::MasterSecretMissing { variable })
}

/// Where the secret of a variable comes from, if it is set.
pub(crate) fn source(variable: &str) -> Result<Option<Source>, Error> {
    secret::source(variable).map_err(|error| secret_error(variable, error))
}

fn secret_error(variable: &str, error: HostError) -> Error {
    let variable = variable.to_owned();
    match error {
        HostError::TwoSources { .. } => Error::MasterSecretTwice { variable },
        HostError::File { fault, .. } => Error::MasterSecretFile { variable, reason: fault.to_string() },
        other => Error::MasterSecretFile { variable, reason: other.to_string() },
    }
}
