//! Crypto modules, keyrings, the master secret, and derived keys.

pub(crate) mod allowed_variables;
mod derivation_lock;
pub(crate) mod kek_cache;
pub(crate) mod kek_cache_shared;
pub(crate) mod keyring_search;
pub(crate) mod keyring_values;
pub(crate) mod keyrings;
pub(crate) mod master_secret;
pub(crate) mod modules;
mod printed_secret;
pub(crate) mod stored_keyring;
