//! `primitives`.

use omni_credentials_core::{Error, Suite, kdf::Costs, primitives};

use crate::bindings::exports::omni::credentials::primitives::{Failure, Guest};
use crate::convert;

impl<S: Suite> Guest for crate::Module<S> {
    fn aead_open(key: Vec<u8>, nonce: Vec<u8>, aad: Vec<u8>, sealed: Vec<u8>) -> Result<Vec<u8>, Failure> {
        primitives::aead_open::<S>(&key, &nonce, &aad, &sealed).map_err(convert::failure)
    }

    fn hkdf_sha256(ikm: Vec<u8>, salt: Vec<u8>, info: Vec<u8>, length: u32) -> Result<Vec<u8>, Failure> {
        let length = length_of(length).map_err(convert::failure)?;
        primitives::hkdf_sha256(&ikm, &salt, &info, length).map_err(convert::failure)
    }

    fn argon2id(
        password: Vec<u8>,
        salt: Vec<u8>,
        memory_kib: u32,
        passes: u32,
        lanes: u32,
        length: u32,
    ) -> Result<Vec<u8>, Failure> {
        let length = length_of(length).map_err(convert::failure)?;
        primitives::argon2id(&password, &salt, Costs { memory_kib, passes, lanes }, length)
            .map_err(convert::failure)
    }
}

fn length_of(length: u32) -> Result<usize, Error> {
    usize::try_from(length).map_err(|_| Error::InvalidArgument)
}
