//! A crypto module from nothing but the contract in `wit/`: a place to start one of your own.
//!
//! Every export is here, with formats that are this module's own (a suite from 128 on): JSON, so that there is
//! little to read. Change `aead.rs` for another cipher, `keys.rs` for another key derivation. docs/modules.md of
//! omni_credentials says what a module owes its hosts, and `omni-credentials module verify` tests it.

#![deny(unsafe_code)]

mod aead;
mod contents;
mod document;
mod identity;
mod kdf;
mod keys;
mod manifest;
mod packed;
mod primitives;
mod reconcile;
mod stamp;

/// The contract, generated. It alone needs `unsafe`: it talks to the host.
#[allow(unsafe_code, missing_docs, clippy::all)]
mod bindings {
    wit_bindgen::generate!({ path: "wit", world: "crypto-module", generate_all });
    export!(Module with_types_in self);

    use super::Module;
}

use bindings::exports::omni::credentials::module_info::{Description, Guest, Limits, Suite};
use bindings::exports::omni::credentials::types::{Error, Failure};

/// The number of the suite: 128 to 255 are free for modules with formats of their own.
const SUITE: u8 = 128;
/// What operators call the module.
const NAME: &str = "example";

/// The module: the exports of the world are implemented for it, an interface a file.
struct Module;

impl Guest for Module {
    fn describe() -> Description {
        Description {
            name: NAME.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            contract: "omni:credentials@1.0.0".into(),
            suite: Suite { id: SUITE, name: NAME.into() },
            limits: Limits {
                name_bytes: identity::NAME_BYTES as u32,
                scope_bytes: identity::SCOPE_BYTES as u32,
                value_bytes: aead::VALUE_BYTES as u32,
                file_bytes: contents::FILE_BYTES as u32,
                file_records: contents::FILE_RECORDS as u32,
                keyring_keys: keys::KEYS as u32,
                kdf_memory_kib: kdf::MEMORY_KIB,
            },
        }
    }
}

/// A refusal without line and number.
fn refuse(error: Error) -> Failure {
    Failure { error, line: 0, found: 0 }
}

/// A refusal that tells what it found.
fn refuse_found(error: Error, found: usize) -> Failure {
    Failure { error, line: 0, found: found as u64 }
}

/// Random bytes from the host: the module's only import. WASI 0.3 lets it return fewer than were asked for.
fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = Vec::with_capacity(N);
    while bytes.len() < N {
        let more = bindings::wasi::random::random::get_random_bytes((N - bytes.len()) as u64);
        if more.is_empty() {
            return Err(refuse(Error::Other));
        }
        bytes.extend(more);
    }
    bytes.try_into().map_err(|_| refuse(Error::Other))
}
