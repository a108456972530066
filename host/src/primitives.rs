use crate::sandbox::Sandbox;
use crate::{Costs, Error};

/// The published constructions that a module is made of, for known-answer tests.
pub struct Primitives {
    sandbox: Sandbox,
}

impl Primitives {
    pub(crate) fn new(sandbox: Sandbox) -> Self {
        Self { sandbox }
    }

    /// The suite's AEAD, opened with explicit key (32 bytes), nonce (the suite's length) and associated
    /// data. `sealed` is ciphertext and 16-byte tag.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `NotAuthentic`, `InvalidArgument`.
    pub fn aead_open(
        &mut self,
        key: &[u8],
        nonce: &[u8],
        aad: &[u8],
        sealed: &[u8],
    ) -> Result<Vec<u8>, Error> {
        self.sandbox.call("primitives.aead-open", |module, store| {
            module.omni_credentials_primitives().call_aead_open(store, key, nonce, aad, sealed)
        })
    }

    /// HKDF-SHA-256 (RFC 5869), extract and expand; `length` at most 8,160 bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `InvalidArgument`.
    pub fn hkdf_sha256(
        &mut self,
        ikm: &[u8],
        salt: &[u8],
        info: &[u8],
        length: u32,
    ) -> Result<Vec<u8>, Error> {
        self.sandbox.call("primitives.hkdf-sha256", |module, store| {
            module.omni_credentials_primitives().call_hkdf_sha256(store, ikm, salt, info, length)
        })
    }

    /// Argon2id version 0x13 (RFC 9106) without secret and associated data; a tag of `length` bytes, 4
    /// to 1,024.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `KdfOutOfBounds`, `InvalidArgument`.
    pub fn argon2id(
        &mut self,
        password: &[u8],
        salt: &[u8],
        costs: Costs,
        length: u32,
    ) -> Result<Vec<u8>, Error> {
        let Costs { memory_kib, passes, lanes } = costs;
        self.sandbox.call("primitives.argon2id", |module, store| {
            module
                .omni_credentials_primitives()
                .call_argon2id(store, password, salt, memory_kib, passes, lanes, length)
        })
    }
}
