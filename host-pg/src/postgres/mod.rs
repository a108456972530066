//! The server underneath: the only layer that touches tuples, datums and catalogs.

pub(crate) mod as_owner;
#[cfg(any(feature = "pg17", feature = "pg18"))]
pub(crate) mod attempt;
pub(crate) mod catalog;
pub(crate) mod child;
pub(crate) mod encoding;
pub(crate) mod error_context;
pub(crate) mod fmgr;
pub(crate) mod heap;
pub(crate) mod interrupt;
pub(crate) mod invalidation;
pub(crate) mod plan;
pub(crate) mod policies;
pub(crate) mod running;
pub(crate) mod server_log;
mod shape;
pub(crate) mod tables;
pub(crate) mod trigger;
pub(crate) mod varlena;
