//! Randomness from the host.

use omni_credentials_core::{Entropy, Error};
use zeroize::Zeroize;

use crate::bindings::wasi::random::random::get_random_bytes;

/// `wasi:random`, the module's only import.
pub(crate) struct Host;

impl Entropy for Host {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), Error> {
        // WASI 0.3 lets a host return fewer bytes than asked for.
        let mut rest = out;
        while !rest.is_empty() {
            let mut bytes = get_random_bytes(rest.len() as u64);
            // A host that breaks its promise must not cost a panic or an endless loop, let alone a nonce of zeros.
            if bytes.is_empty() || bytes.len() > rest.len() {
                return Err(Error::Other);
            }
            let (filled, left) = rest.split_at_mut(bytes.len());
            filled.copy_from_slice(&bytes);
            bytes.zeroize();
            rest = left;
        }
        Ok(())
    }
}
