//! The master secret, as the server's environment gives it.

use omni_credentials_host::{Error as HostError, secret};
use zeroize::Zeroizing;

use crate::error::Error;

pub(crate) use secret::is_variable_name;

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
