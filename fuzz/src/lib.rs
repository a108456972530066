//! What the fuzz targets share.

use std::cell::Cell;

use omni_credentials_core::kdf::Costs;
use omni_credentials_core::{Entropy, Error, Identity, Keyring, XChaCha20Poly1305};

/// The suite that is fuzzed; the other differs in nothing but its AEAD.
pub type Suite = XChaCha20Poly1305;

/// An unlocked keyring of two keys, its bytes and its KEK: made once for a process.
pub struct Fixture {
    pub keyring: Keyring<Suite>,
    pub stored: Vec<u8>,
    pub kek: [u8; 32],
}

/// Reproducible and never twice the same: what an input does must not depend on chance.
pub struct Counter(Cell<u64>);

impl Counter {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // Not a multiple of the step, so that no seed continues the bytes of another.
        Self(Cell::new(seed.wrapping_mul(0xd134_2543_de82_ef95)))
    }
}

impl Entropy for Counter {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), Error> {
        for chunk in out.chunks_mut(8) {
            let next = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
            self.0.set(next);
            chunk.iter_mut().zip(next.to_be_bytes()).for_each(|(to, from)| *to = from);
        }
        Ok(())
    }
}

impl Fixture {
    #[must_use]
    pub fn new() -> Self {
        let mut entropy = Counter::new(1);
        let costs = Costs { memory_kib: 8, passes: 1, lanes: 1 };
        let (mut keyring, kek) = Keyring::create(b"fuzz", Some(costs), &mut entropy).expect("a good secret");
        keyring.add_key(&mut entropy).expect("room for a second key");
        let stored = keyring.to_bytes();
        Self { keyring, stored, kek: *kek }
    }

    /// The same with one more key, another for each seed.
    #[must_use]
    pub fn rotated(seed: u64) -> Self {
        let Self { mut keyring, kek, .. } = Self::new();
        keyring.add_key(&mut Counter::new(seed)).expect("room for a third key");
        let stored = keyring.to_bytes();
        Self { keyring, stored, kek }
    }
}

impl Default for Fixture {
    fn default() -> Self {
        Self::new()
    }
}

/// The identity of a name.
#[must_use]
pub fn identity(name: &[u8]) -> Identity<'_> {
    Identity { name, kind: b"api_key", principal: b"app", scope: br#"{"all":true}"# }
}
