//! What the tests of this crate share.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

pub mod documents;

use omni_credentials_core::kdf::Costs;
use omni_credentials_core::{Entropy, Error, Identity, Keyring, Suite};
use sha2::{Digest, Sha256};

/// The least that Argon2id accepts: tests are not about its cost.
pub const CHEAP: Costs = Costs { memory_kib: 8, passes: 1, lanes: 1 };

/// Reproducible bytes that do not repeat: SHA-256 in counter mode over a seed.
pub struct Fixed {
    seed: u64,
    counter: u64,
}

impl Fixed {
    pub fn new(seed: u64) -> Self {
        Self { seed, counter: 0 }
    }
}

impl Entropy for Fixed {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), Error> {
        for chunk in out.chunks_mut(32) {
            let block = Sha256::digest([self.seed.to_be_bytes(), self.counter.to_be_bytes()].concat());
            self.counter += 1;
            for (to, from) in chunk.iter_mut().zip(block) {
                *to = from;
            }
        }
        Ok(())
    }
}

/// A source that has run dry.
pub struct Dry;

impl Entropy for Dry {
    fn fill(&mut self, _: &mut [u8]) -> Result<(), Error> {
        Err(Error::Other)
    }
}

/// A keyring under the password `correct horse`, and its KEK.
pub fn keyring<S: Suite>(seed: u64) -> (Keyring<S>, Vec<u8>) {
    let (keyring, kek) =
        Keyring::create(b"correct horse", Some(CHEAP), &mut Fixed::new(seed)).expect("a good secret");
    (keyring, kek.to_vec())
}

pub fn identity<'a>(name: &'a str, scope: &'a str) -> Identity<'a> {
    Identity { name: name.as_bytes(), kind: b"api_key", principal: b"app", scope: scope.as_bytes() }
}

pub const ALL: &str = r#"{"all": true}"#;
