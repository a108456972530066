//! Every vector of `conformance/vectors` against anything that implements FORMAT.md.
//!
//! A [`Subject`] is an implementation with one suite: the core natively, a crypto module inside the sandbox
//! ([`Component`]), or another host that answers over a pipe ([`Driver`]). [`SETS`] are the vectors, in sets that a
//! host runs whole or not at all. They are compiled in, so that a command can carry them.
//!
//! - [`published`]: vectors of others (Wycheproof, RFCs, the Argon2 reference implementation).
//! - [`golden`]: our own, frozen; what was sealed once must open for ever.
//! - [`hostile`]: one defect a file, each with the failure it must be called.

mod component;
mod driver;
mod encoding;
pub mod golden;
pub mod hostile;
pub mod published;
mod sets;
mod subject;

pub use component::{Component, kebab};
pub use driver::Driver;
pub use sets::{SETS, Set, of_suite};
pub use subject::{
    Answer, Costs, Identity, Mismatch, Prefer, ReconcileCase, ReconcileResult, Record, Refusal, Subject,
};
