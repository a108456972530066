//! The core natively, for the vectors of `omni-credentials-conformance`, and how our own were made.
//!
//! A crate of its own, because hosts carry the vectors and a host never links the core.

pub mod generate;
mod native;

pub use native::Native;

use std::path::PathBuf;

/// The folder of the vectors.
#[must_use]
pub fn vectors() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors"))
}
