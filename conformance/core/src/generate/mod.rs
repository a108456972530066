//! How the golden and hostile vectors were made: with the core, and entropy that is fixed.
//!
//! They are frozen. A change here that changes their bytes is a change of format: a new version
//! needs new vectors beside the old ones. `tests/frozen.rs` holds the two together.

mod golden;
mod hostile;
mod reconcile;

use omni_credentials_core::{Aes256GcmSiv, Entropy, Error, Failure, XChaCha20Poly1305};
use sha2::{Digest, Sha256};

/// A file of the vectors: its path below `conformance/vectors`, and its bytes.
pub type VectorFile = (String, Vec<u8>);

/// All golden and hostile vectors.
///
/// # Errors
/// Where the core refuses what it must not.
pub fn all() -> Result<Vec<VectorFile>, Failure> {
    let mut files = golden::files::<XChaCha20Poly1305>()?;
    files.extend(golden::files::<Aes256GcmSiv>()?);
    files.push(golden::scopes()?);
    files.extend(hostile::files::<XChaCha20Poly1305>()?);
    files.extend(hostile::files::<Aes256GcmSiv>()?);
    Ok(files)
}

/// Reproducible bytes, for vectors and nothing else: SHA-256 of a label and a counter.
#[derive(Debug)]
pub struct Fixed {
    label: String,
    counter: u64,
}

impl Fixed {
    /// A stream of its own for each label.
    #[must_use]
    pub fn new(label: &str) -> Self {
        Self { label: label.to_owned(), counter: 0 }
    }
}

impl Entropy for Fixed {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), Error> {
        for chunk in out.chunks_mut(32) {
            let block =
                Sha256::new().chain_update(&self.label).chain_update(self.counter.to_be_bytes()).finalize();
            self.counter += 1;
            chunk.iter_mut().zip(block).for_each(|(to, from)| *to = from);
        }
        Ok(())
    }
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}
