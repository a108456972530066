//! What is refused before it costs anything (§9). Lengths are in bytes.

/// Longest master secret.
pub const SECRET_BYTES: usize = 4_096;
/// Longest name.
pub const NAME_BYTES: usize = 512;
/// Longest kind.
pub const KIND_BYTES: usize = 63;
/// Longest principal.
pub const PRINCIPAL_BYTES: usize = 255;
/// Longest scope as passed.
pub const SCOPE_GIVEN_BYTES: usize = 16_384;
/// Longest scope in canonical form.
pub const SCOPE_BYTES: usize = 2_048;
/// Most arrays and objects in one another.
pub const SCOPE_DEPTH: usize = 32;
/// Last second of the year 9999, in seconds since 1970: the latest expiry.
pub const EXPIRY: u64 = 253_402_300_799;
/// Longest value.
pub const VALUE_BYTES: usize = 1_048_576;
/// Longest file.
pub const FILE_BYTES: usize = 67_108_864;
/// Longest line of a file, its LF not counted.
pub const LINE_BYTES: usize = 4_096;
/// Most records of a file, live and deleted.
pub const FILE_RECORDS: usize = 100_000;
/// Deletions that a file remembers at least; it remembers as many as it has live records.
pub const FILE_DELETIONS: usize = 1_000;
/// Most keys of a keyring.
pub const KEYRING_KEYS: usize = 256;
/// Most Argon2id memory, in KiB.
pub const KDF_MEMORY_KIB: u32 = 262_144;
/// Most Argon2id passes.
pub const KDF_PASSES: u32 = 16;
/// Most Argon2id lanes.
pub const KDF_LANES: u32 = 4;
/// Longest output of HKDF-SHA-256 (RFC 5869: 255 blocks).
pub const HKDF_BYTES: usize = 8_160;
/// Longest Argon2id tag that `primitives` derives.
pub const ARGON2_TAG_BYTES: usize = 1_024;
