//! Everything `omni_credentials` knows about keys, sealed values and files, and nothing else.
//!
//! A crypto module is this crate with a [`Suite`] chosen, and the WIT contract around it. What is written,
//! byte by byte, stands in FORMAT.md; the section numbers (§) in this crate are those of that page.
//!
//! There is no input or output here, no clock, and no way to randomness but the [`Entropy`] that a caller
//! passes. No input makes a function of this crate panic, and each refusal is an [`Error`] of its own.
//!
//! ```
//! use omni_credentials_core::{Entropy, Error, Identity, Keyring, XChaCha20Poly1305, kdf};
//!
//! struct Source; // a real one asks the operating system
//! impl Entropy for Source {
//!     fn fill(&mut self, out: &mut [u8]) -> Result<(), Error> {
//!         out.fill(7);
//!         Ok(())
//!     }
//! }
//!
//! # fn main() -> Result<(), omni_credentials_core::Failure> {
//! let secret = kdf::generate_master_key(&mut Source)?;
//! let (keyring, kek) = Keyring::<XChaCha20Poly1305>::create(&secret, None, &mut Source)?;
//! let stored = keyring.to_bytes();
//!
//! let keyring = Keyring::<XChaCha20Poly1305>::unlock(&stored, &*kek)?;
//! let stripe = Identity { name: b"stripe", kind: b"api_key", principal: b"app", scope: br#"{"all": true}"# };
//! let sealed = keyring.seal(&stripe, None, b"sk_live_1", &mut Source)?;
//! assert_eq!(keyring.open(&stripe, None, &sealed)?, b"sk_live_1");
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

pub mod file;
pub mod kdf;
pub mod limits;
pub mod primitives;
pub mod scope;

mod bytes;
mod costs;
mod derive;
mod entropy;
mod error;
mod expiry;
mod identity;
mod json;
mod keyring;
mod manifest;
mod number;
mod reconcile;
mod slots;
mod suite;
mod value;

pub use entropy::Entropy;
pub use error::{Error, Failure};
pub use file::{Document, Entry};
pub use identity::{CanonicalIdentity, Identity, OwnedIdentity};
pub use keyring::{KeyOf, Keyring};
pub use reconcile::{
    Preference, Reason, Reconciled, Side, Wrapping, agreed, agreed_changes, fold, reconcile, settled,
};
pub use suite::{Aes256GcmSiv, Suite, XChaCha20Poly1305};
