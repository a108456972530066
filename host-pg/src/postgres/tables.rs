//! The columns of the tables that the extension makes, counted from 0, with the names and types they are made with.
//!
//! A row is only read by these places after the descriptor that it came with was checked against them, under the lock
//! that is held while the row is used: the owner of a table can rename, retype, drop and add columns.

use super::heap::{Column, Type};

const TEXT: Type = Type::Is(pgrx::pg_sys::TEXTOID);
const BYTEA: Type = Type::Is(pgrx::pg_sys::BYTEAOID);
const INTEGER: Type = Type::Is(pgrx::pg_sys::INT4OID);
const BIGINT: Type = Type::Is(pgrx::pg_sys::INT8OID);
const TIMESTAMPTZ: Type = Type::Is(pgrx::pg_sys::TIMESTAMPTZOID);

/// `encrypted_credentials`, and the view `credentials`.
pub(crate) mod credentials {
    use super::{BYTEA, Column, TEXT, Type};

    pub(crate) const NAME: usize = 0;
    pub(crate) const VALUE: usize = 1;
    pub(crate) const KIND: usize = 2;
    pub(crate) const PRINCIPAL: usize = 3;
    pub(crate) const SCOPE: usize = 4;
    /// The one column that may be NULL.
    pub(crate) const EXPIRES_AT: usize = 5;

    pub(crate) const COLUMNS: &[Column] = &[
        Column::new("name", TEXT),
        Column::new("value", BYTEA),
        Column::new("kind", Type::Enum),
        Column::new("principal", Type::Is(pgrx::pg_sys::REGROLEOID)),
        Column::new("scope", Type::Is(pgrx::pg_sys::JSONBOID)),
        Column::new("expires_at", Type::Is(pgrx::pg_sys::TIMESTAMPTZOID)),
    ];
}

/// `encrypted_credential_versions`. The first columns are those of `credentials`.
pub(crate) mod versions {
    use super::{BIGINT, BYTEA, Column, TEXT, TIMESTAMPTZ, Type};

    pub(crate) const VERSION: usize = 6;
    pub(crate) const VALID_UNTIL: usize = 8;
    pub(crate) const DELETED: usize = 10;

    pub(crate) const COLUMNS: &[Column] = &[
        Column::new("name", TEXT),
        Column::new("value", BYTEA),
        Column::new("kind", Type::Enum),
        Column::new("principal", Type::Is(pgrx::pg_sys::REGROLEOID)),
        Column::new("scope", Type::Is(pgrx::pg_sys::JSONBOID)),
        Column::new("expires_at", TIMESTAMPTZ),
        Column::new("version", BIGINT),
        Column::new("valid_from", TIMESTAMPTZ),
        Column::new("valid_until", TIMESTAMPTZ),
        Column::new("changed_by", Type::Is(pgrx::pg_sys::NAMEOID)),
        Column::new("deleted", Type::Is(pgrx::pg_sys::BOOLOID)),
    ];
}

/// `credentials_keyrings`.
pub(crate) mod keyrings {
    use super::{BYTEA, Column, INTEGER, Type};

    pub(crate) const NUMBER: usize = 0;
    pub(crate) const MODULE: usize = 1;
    pub(crate) const KEYRING: usize = 2;
    pub(crate) const ID: usize = 3;

    pub(crate) const COLUMNS: &[Column] = &[
        Column::new("number", INTEGER),
        Column::new("module", BYTEA),
        Column::new("keyring", BYTEA),
        Column::new("id", Type::Is(pgrx::pg_sys::UUIDOID)),
    ];
}

/// `credentials_config`.
pub(crate) mod config {
    use super::{BYTEA, Column, INTEGER, TEXT, Type};

    pub(crate) const ENVIRONMENT_VARIABLE: usize = 1;
    pub(crate) const MODULE: usize = 2;
    pub(crate) const MEMORY_KIB: usize = 3;
    pub(crate) const PASSES: usize = 4;
    pub(crate) const LANES: usize = 5;
    pub(crate) const HISTORY_LIMIT: usize = 6;

    pub(crate) const COLUMNS: &[Column] = &[
        Column::new("singleton", Type::Is(pgrx::pg_sys::BOOLOID)),
        Column::new("environment_variable", TEXT),
        Column::new("module", BYTEA),
        Column::new("kdf_memory_kib", INTEGER),
        Column::new("kdf_passes", INTEGER),
        Column::new("kdf_lanes", INTEGER),
        Column::new("history_limit", INTEGER),
    ];
}

/// `credentials_files`.
pub(crate) mod files {
    use super::{BIGINT, BYTEA, Column, INTEGER, TEXT, Type};

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
    /// Missing where an earlier version made the table, as the next one.
    pub(crate) const BASE_CHANGES: usize = 9;
    pub(crate) const PENDING_CHANGES: usize = 10;

    pub(crate) const COLUMNS: &[Column] = &[
        Column::new("filename", TEXT),
        Column::new("generation", BIGINT),
        Column::new("synchronized_at", Type::Is(pgrx::pg_sys::TIMESTAMPTZOID)),
        Column::new("unloaded", INTEGER),
        Column::new("file_digest", BYTEA),
        Column::new("base", BYTEA),
        Column::new("pending_digest", BYTEA),
        Column::new("pending_base", BYTEA),
        Column::new("written_as", BIGINT),
        Column::new("base_changes", BYTEA),
        Column::new("pending_changes", BYTEA),
    ];
}

/// `file_store_key`.
pub(crate) mod file_store_key {
    use super::{BYTEA, Column};

    pub(crate) const KEY: usize = 0;

    pub(crate) const COLUMNS: &[Column] = &[Column::new("key", BYTEA)];
}

/// `crypto_modules`.
pub(crate) mod crypto_modules {
    use super::{BYTEA, Column, TEXT};

    pub(crate) const DIGEST: usize = 0;
    pub(crate) const WASM: usize = 1;
    pub(crate) const NAME: usize = 2;

    pub(crate) const COLUMNS: &[Column] =
        &[Column::new("digest", BYTEA), Column::new("wasm", BYTEA), Column::new("name", TEXT)];
}

/// `allowed_variables`.
pub(crate) mod allowed_variables {
    use super::{Column, TEXT, Type};

    pub(crate) const ROLE: usize = 0;
    pub(crate) const VARIABLE: usize = 1;

    pub(crate) const COLUMNS: &[Column] =
        &[Column::new("role", Type::Is(pgrx::pg_sys::REGROLEOID)), Column::new("variable", TEXT)];
}
