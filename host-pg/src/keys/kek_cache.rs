//! Derived keys, remembered: Argon2id is made to be slow, so a key is derived once per backend, and once per server
//! where the backends can share (see `shared_keys`).
//!
//! This is a memory of `derive_kek(secret, keyring)` and nothing more. An entry is found only by a session that names the same
//! module, keyring *and master secret*: an instance that has another secret cannot unlock a keyring by knowing
//! its bytes, whichever session unlocked it before.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use omni_credentials_host::{Digest, Kek};
use zeroize::Zeroizing;

use crate::keys::kek_cache_shared;

/// What a KEK was derived from: SHA-256 over master secret, module and keyring.
pub(crate) struct KeyId(Digest);

thread_local! {
    static OWN: RefCell<HashMap<Digest, Kek>> = RefCell::default();
    static WRONG: RefCell<HashSet<Digest>> = RefCell::default();
}

impl KeyId {
    /// Names the KEK of `keyring` under `secret`.
    pub(crate) fn new(secret: &[u8], module: &Digest, keyring: &[u8]) -> Self {
        // The two digests have a fixed length, so what is left is the secret.
        let mut named = Zeroizing::new(Vec::with_capacity(64 + secret.len()));
        named.extend_from_slice(module.as_bytes());
        named.extend_from_slice(Digest::of(keyring).as_bytes());
        named.extend_from_slice(secret);
        Self(Digest::of(&named))
    }
}

/// Whether the backends of this server share what they derive.
pub(crate) fn is_shared() -> bool {
    kek_cache_shared::is_available()
}

/// The KEK, if this backend or another one derived it.
pub(crate) fn known(id: &KeyId) -> Option<Kek> {
    if let Some(kek) = OWN.with_borrow(|own| own.get(&id.0).cloned()) {
        return Some(kek);
    }
    let kek = kek_cache_shared::find(&id.0)?;
    keep(id, &kek);
    Some(kek)
}

/// Remembers a KEK that the module derived: it has checked it against the keyring's commitment.
pub(crate) fn remember(id: &KeyId, kek: &Kek) {
    kek_cache_shared::keep(&id.0, kek);
    keep(id, kek);
}

/// Whether this backend knows that the keyring is of another secret.
pub(crate) fn is_wrong(id: &KeyId) -> bool {
    WRONG.with_borrow(|wrong| wrong.contains(&id.0))
}

/// Remembers that. A restore onto a server with another secret asks for each row.
pub(crate) fn remember_wrong(id: &KeyId) {
    WRONG.with_borrow_mut(|wrong| {
        if wrong.len() >= WRONG_KEPT {
            wrong.clear();
        }
        wrong.insert(id.0);
    });
}

/// More than the keyrings that are tried for one value. An entry is a digest.
const WRONG_KEPT: usize = 4096;

/// More keyrings than a session works with. With one more all are forgotten, and those in use found or derived again.
const KEPT: usize = 64;

fn keep(id: &KeyId, kek: &Kek) {
    OWN.with_borrow_mut(|own| {
        if own.len() >= KEPT {
            own.clear();
        }
        own.insert(id.0, kek.clone());
    });
}
