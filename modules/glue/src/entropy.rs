//! Randomness from the host.

use omni_credentials_core::{Entropy, Error};
use zeroize::Zeroize;

use crate::bindings::wasi::random::random::get_random_bytes;

/// `wasi:random`, the module's only import.
pub(crate) struct Host;

impl Entropy for Host {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), Error> {
        let mut bytes = get_random_bytes(out.len() as u64);
        // A host that breaks its promise must not cost a panic, let alone a nonce of zeros.
        if bytes.len() != out.len() {
            return Err(Error::Other);
        }
        out.copy_from_slice(&bytes);
        bytes.zeroize();
        Ok(())
    }
}
