//! The columns of the tables that the extension makes, counted from 0, with the types they are made with.
//!
//! A row is only read by these places after its table was checked against the types, under the lock that is held while
//! the row is used.

/// `encrypted_credentials`, and the view `credentials`.
pub(crate) mod credentials {
    use pgrx::pg_sys;

    use crate::postgres::heap::Type;

    pub(crate) const NAME: usize = 0;
    pub(crate) const VALUE: usize = 1;
    pub(crate) const KIND: usize = 2;
    pub(crate) const PRINCIPAL: usize = 3;
    pub(crate) const SCOPE: usize = 4;

    pub(crate) const TYPES: &[Type] = &[
        Type::Is(pg_sys::TEXTOID),
        Type::Is(pg_sys::BYTEAOID),
        Type::Enum,
        Type::Is(pg_sys::REGROLEOID),
        Type::Is(pg_sys::JSONBOID),
    ];
}

/// `credentials_keyrings`.
pub(crate) mod keyrings {
    use pgrx::pg_sys;

    use crate::postgres::heap::Type;

    pub(crate) const ID: usize = 0;
    pub(crate) const MODULE: usize = 1;
    pub(crate) const KEYRING: usize = 2;

    pub(crate) const TYPES: &[Type] =
        &[Type::Is(pg_sys::INT4OID), Type::Is(pg_sys::BYTEAOID), Type::Is(pg_sys::BYTEAOID)];
}

/// `credentials_config`.
pub(crate) mod config {
    use pgrx::pg_sys;

    use crate::postgres::heap::Type;

    pub(crate) const ENVIRONMENT_VARIABLE: usize = 1;
    pub(crate) const MODULE: usize = 2;
    pub(crate) const MEMORY_KIB: usize = 3;
    pub(crate) const PASSES: usize = 4;
    pub(crate) const LANES: usize = 5;

    pub(crate) const TYPES: &[Type] = &[
        Type::Is(pg_sys::BOOLOID),
        Type::Is(pg_sys::TEXTOID),
        Type::Is(pg_sys::BYTEAOID),
        Type::Is(pg_sys::INT4OID),
        Type::Is(pg_sys::INT4OID),
        Type::Is(pg_sys::INT4OID),
    ];
}

/// `credentials_files`.
pub(crate) mod files {
    use pgrx::pg_sys;

    use crate::postgres::heap::Type;

    pub(crate) const FILENAME: usize = 0;
    pub(crate) const GENERATION: usize = 1;
    pub(crate) const SYNCHRONIZED_AT: usize = 2;
    pub(crate) const UNLOADED: usize = 3;
    pub(crate) const FILE_DIGEST: usize = 4;
    pub(crate) const BASE: usize = 5;
    pub(crate) const PENDING_DIGEST: usize = 6;
    pub(crate) const PENDING_BASE: usize = 7;
    /// Tells whether the row was written here. Missing where an earlier version made the table.
    pub(crate) const WRITTEN_AS: usize = 8;

    pub(crate) const TYPES: &[Type] = &[
        Type::Is(pg_sys::TEXTOID),
        Type::Is(pg_sys::INT8OID),
        Type::Is(pg_sys::TIMESTAMPTZOID),
        Type::Is(pg_sys::INT4OID),
        Type::Is(pg_sys::BYTEAOID),
        Type::Is(pg_sys::BYTEAOID),
        Type::Is(pg_sys::BYTEAOID),
        Type::Is(pg_sys::BYTEAOID),
        Type::Is(pg_sys::INT8OID),
    ];
}

/// `omni_credentials.crypto_modules`.
pub(crate) mod crypto_modules {
    pub(crate) const DIGEST: usize = 0;
    pub(crate) const WASM: usize = 1;
    pub(crate) const NAME: usize = 2;
}
