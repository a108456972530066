//! `key-derivation`.

use omni_credentials_core::{self as core, Suite, kdf};

use crate::bindings::exports::omni::credentials::key_derivation::{Costs, Failure, Guest, ProtectedKeyring};
use crate::convert;
use crate::entropy::Host;

impl<S: Suite> Guest for crate::Module<S> {
    fn create_keyring(secret: Vec<u8>, costs: Option<Costs>) -> Result<ProtectedKeyring, Failure> {
        let made = core::Keyring::<S>::create(&secret, costs.map(convert::costs), &mut Host);
        let (keyring, kek) = made.map_err(convert::failure)?;
        Ok(ProtectedKeyring { keyring: keyring.to_bytes(), kek: kek.to_vec() })
    }

    fn derive_kek(secret: Vec<u8>, keyring: Vec<u8>) -> Result<Vec<u8>, Failure> {
        let kek = core::Keyring::<S>::derive_kek(&secret, &keyring).map_err(convert::failure)?;
        Ok(kek.to_vec())
    }

    fn rewrap(
        keyring: Vec<u8>,
        kek: Vec<u8>,
        new_secret: Vec<u8>,
        costs: Option<Costs>,
    ) -> Result<ProtectedKeyring, Failure> {
        let old = core::Keyring::<S>::unlock(&keyring, &kek).map_err(convert::failure)?;
        let made = old.rewrap(&new_secret, costs.map(convert::costs), &mut Host);
        let (keyring, kek) = made.map_err(convert::failure)?;
        Ok(ProtectedKeyring { keyring: keyring.to_bytes(), kek: kek.to_vec() })
    }

    fn generate_master_key() -> Result<Vec<u8>, Failure> {
        let key = kdf::generate_master_key(&mut Host).map_err(convert::failure)?;
        Ok(key.to_vec())
    }
}
