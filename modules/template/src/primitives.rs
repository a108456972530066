//! The published constructions, for a host's known-answer tests.

use crate::bindings::exports::omni::credentials::key_derivation::Costs;
use crate::bindings::exports::omni::credentials::primitives::Guest;
use crate::bindings::exports::omni::credentials::types::{Error, Failure};
use crate::{Module, aead, kdf, refuse};

impl Guest for Module {
    fn aead_open(key: Vec<u8>, nonce: Vec<u8>, aad: Vec<u8>, sealed: Vec<u8>) -> Result<Vec<u8>, Failure> {
        let wrong = |_| refuse(Error::InvalidArgument);
        let key: [u8; 32] = key.as_slice().try_into().map_err(wrong)?;
        let nonce: [u8; aead::NONCE] = nonce.as_slice().try_into().map_err(wrong)?;
        aead::open_with(&key, &nonce, &aad, &sealed)
    }

    fn hkdf_sha256(ikm: Vec<u8>, salt: Vec<u8>, info: Vec<u8>, length: u32) -> Result<Vec<u8>, Failure> {
        // The longest that HKDF-SHA-256 gives, before memory is taken for it.
        let mut out = vec![0; sized(length, 8_160)?];
        kdf::hkdf(&ikm, &salt, &info, &mut out)?;
        Ok(out)
    }

    fn argon2id(
        password: Vec<u8>,
        salt: Vec<u8>,
        memory_kib: u32,
        passes: u32,
        lanes: u32,
        length: u32,
    ) -> Result<Vec<u8>, Failure> {
        let mut out = vec![0; sized(length, 1_024)?];
        kdf::argon2id(&password, &salt, Costs { memory_kib, passes, lanes }.into(), &mut out)?;
        Ok(out)
    }
}

fn sized(length: u32, most: u32) -> Result<usize, Failure> {
    if length <= most { Ok(length as usize) } else { Err(refuse(Error::InvalidArgument)) }
}
