//! `module-info`.

use omni_credentials_core::{Suite, limits};

use crate::bindings::exports::omni::credentials::module_info::{self, Description, Guest, Limits};

/// The contract in `wit/`.
const CONTRACT: &str = "omni:credentials@1.0.0";

impl<S: Suite> Guest for crate::Module<S> {
    fn describe() -> Description {
        Description {
            name: S::NAME.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            contract: CONTRACT.into(),
            suite: module_info::Suite { id: S::ID, name: S::NAME.into() },
            limits: Limits {
                name_bytes: size(limits::NAME_BYTES),
                scope_bytes: size(limits::SCOPE_BYTES),
                value_bytes: size(limits::VALUE_BYTES),
                file_bytes: size(limits::FILE_BYTES),
                file_records: size(limits::FILE_RECORDS),
                keyring_keys: size(limits::KEYRING_KEYS),
                kdf_memory_kib: limits::KDF_MEMORY_KIB,
            },
        }
    }
}

/// Every limit fits: the highest is 64 MiB.
fn size(limit: usize) -> u32 {
    u32::try_from(limit).unwrap_or(u32::MAX)
}
