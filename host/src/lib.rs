//! The host runtime: loads a crypto module, which is a sandboxed WebAssembly component behind the
//! contract in `wit/`, and calls it. Every Rust host uses this crate and none links the cryptography.
//!
//! ```no_run
//! use omni_credentials_host::{Config, Digest, Error, Identity, Runtime};
//!
//! fn read(wasm: &[u8], keyring: &[u8], secret: &[u8], sealed: &[u8]) -> Result<(), Error> {
//!     let runtime = Runtime::new(Config::default())?;
//!     let module = runtime.load(wasm, &Digest::of(wasm))?;
//!     let kek = module.derive_kek(secret, keyring)?;
//!     let mut keyring = module.unlock(keyring, &kek)?;
//!     let stripe = Identity { name: b"stripe", kind: b"api_key", principal: b"app", scope: b"{}" };
//!     let _value = keyring.open(&stripe, None, sealed)?;
//!     Ok(())
//! }
//! ```
//!
//! A module computes, within a memory limit and until it is interrupted, and can ask for random bytes. There is no
//! thread, no signal handler and no unwinding through module frames, so that a database backend can be the host.
//!
//! - [`Runtime`] owns the one engine of a process and the cache of compiled modules.
//! - [`Module`] is a loaded module: descriptions, key derivation, known-answer tests.
//! - [`Keyring`] seals and opens values in a long-lived *row store* with little memory.
//! - [`Files`] works on credentials files in a *work store*, which is dropped as a whole.
//! - [`shared_file`] reads, locks and replaces files, the same way for every host.
//! - [`secret`] finds the master secret in the environment.
//! - [`program`] starts programs whose output passes through the host.

mod bindings;
mod cache;
mod check;
mod digest;
mod documents;
mod engine;
mod error;
mod keyring;
mod large;
mod limits;
mod loaded;
mod memory;
mod module;
mod nodump;
mod packed;
mod primitives;
pub mod program;
mod runtime;
mod sandbox;
pub mod secret;
pub mod shared_file;
mod signals;
mod system;
mod types;
mod value;

pub use digest::Digest;
pub use documents::{Document, Files, Identities, KeyringHandle, Rows, Side};
pub use error::{Error, ErrorCode, Failure};
pub use keyring::Keyring;
pub use module::Module;
pub use primitives::Primitives;
pub use runtime::{Config, Runtime, Ticker};
pub use types::{
    Conflict, Costs, Description, Entry, EntryRef, Identity, Kek, KeyOf, Limits, OwnedIdentity, Preference,
    ProtectedKeyring, Reason, Reconciled, Suite, Wrapping,
};
pub use value::Value;
