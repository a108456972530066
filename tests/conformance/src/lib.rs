//! Every vector of `tests/vectors/` against anything that implements FORMAT.md.
//!
//! A [`Subject`] is an implementation with one suite: the core natively, or a crypto module inside
//! the sandbox. The runners return the number of cases they ran, so that a test can say how many
//! there must be, and the first [`Mismatch`].
//!
//! - [`published`]: vectors of others (Wycheproof, RFCs, the Argon2 reference implementation).
//! - [`golden`]: our own, frozen; what was sealed once must open for ever.
//! - [`hostile`]: one defect a file, each with the failure it must be called.
//! - [`generate`]: how golden and hostile vectors were made.

mod component;
mod encoding;
pub mod generate;
pub mod golden;
pub mod hostile;
mod native;
pub mod published;
mod subject;

pub use component::Component;
pub use native::Native;
pub use subject::{
    Answer, Costs, Identity, MergeCase, MergeResult, Mismatch, Prefer, Record, Refusal, Subject,
};

use std::path::PathBuf;

/// The folder of the vectors.
#[must_use]
pub fn vectors() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors"))
}
