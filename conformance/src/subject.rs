//! What the vectors are run against.

use serde::{Deserialize, Serialize};

pub use omni_credentials_host::Costs;

/// The outcome of a call.
pub type Answer<T> = Result<T, Refusal>;

/// A refusal, as the contract names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The case of `types.error`, such as `not-authentic`; a trap is `trap` and what it said; what a host has no way
    /// to do is `unsupported`.
    pub class: String,
    /// The line, or 0.
    pub line: u32,
    /// What was found, or 0.
    pub found: u64,
}

/// A vector that came out differently.
#[derive(Debug, thiserror::Error)]
#[error("{case}: expected {expected}, found {found}")]
pub struct Mismatch {
    /// Which vector.
    pub case: String,
    /// What it says.
    pub expected: String,
    /// What came out.
    pub found: String,
}

/// What a value is sealed for: the four fields of an identity, as text, and the expiry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Name.
    pub name: String,
    /// Kind.
    pub kind: String,
    /// Principal.
    pub principal: String,
    /// Scope.
    pub scope: String,
    /// When it expires, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
}

/// A record of a file; a tombstone has no value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Whose.
    #[serde(flatten)]
    pub identity: Identity,
    /// The value, opened, in hexadecimal; or the name of the refusal where it does not open.
    pub value: Option<String>,
}

/// Who wins a conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Prefer {
    /// Neither side.
    Neither,
    /// Ours.
    Ours,
    /// Theirs.
    Theirs,
}

/// Two files to reconcile.
#[derive(Clone, Copy, Debug)]
pub struct ReconcileCase<'a> {
    /// Manifest; empty where the ancestor is not known.
    pub ancestor: &'a [u8],
    /// File.
    pub ours: &'a [u8],
    /// File.
    pub theirs: &'a [u8],
    /// Whether what ours lacks was deleted.
    pub ours_complete: bool,
    /// Who wins.
    pub prefer: Prefer,
    /// The KEK of ours; where it is not at hand, ours comes with the keyring of theirs.
    pub our_kek: Option<&'a [u8; 32]>,
    /// The KEK of theirs; the same the other way round.
    pub their_kek: Option<&'a [u8; 32]>,
}

/// What reconciling came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReconcileResult {
    /// What both are to hold.
    pub records: Vec<Record>,
    /// Names that ours must take over.
    pub to_ours: Vec<String>,
    /// Names that theirs must take over.
    pub to_theirs: Vec<String>,
    /// Names in conflict, each with its reason.
    pub conflicts: Vec<(String, String)>,
    /// Whose wrapping the keyring has: `same`, `ours`, `theirs` or `conflict`.
    pub wrapping: String,
    /// The document's manifest, hexadecimal.
    pub manifest: String,
    /// What both agree on afterwards if nothing is taken over, hexadecimal.
    pub agreed: String,
    /// The changes to the ancestor that come to the same, hexadecimal; empty where there is no ancestor.
    pub changes: String,
}

/// An implementation with one suite.
#[allow(clippy::missing_errors_doc, reason = "every call may be refused; the vectors say how")]
pub trait Subject {
    /// The number of its suite.
    fn suite(&self) -> u8;
    /// Whether its refusals tell the line and what was found, and not only the class.
    fn is_exact(&self) -> bool {
        true
    }
    /// `primitives.aead-open`.
    fn aead_open(&mut self, key: &[u8], nonce: &[u8], aad: &[u8], sealed: &[u8]) -> Answer<Vec<u8>>;
    /// `primitives.hkdf-sha256`.
    fn hkdf_sha256(&mut self, ikm: &[u8], salt: &[u8], info: &[u8], length: u32) -> Answer<Vec<u8>>;
    /// `primitives.argon2id`.
    fn argon2id(&mut self, password: &[u8], salt: &[u8], costs: Costs, length: u32) -> Answer<Vec<u8>>;
    /// `key-derivation.derive-kek`.
    fn derive_kek(&mut self, secret: &[u8], keyring: &[u8]) -> Answer<[u8; 32]>;
    /// `keyring.unlock`, then `to-bytes`.
    fn unlock(&mut self, keyring: &[u8], kek: &[u8; 32]) -> Answer<Vec<u8>>;
    /// `keyring.seal`.
    fn seal(&mut self, keyring: &[u8], kek: &[u8; 32], identity: &Identity, value: &[u8]) -> Answer<Vec<u8>>;
    /// `keyring.open`.
    fn open(&mut self, keyring: &[u8], kek: &[u8; 32], identity: &Identity, sealed: &[u8])
    -> Answer<Vec<u8>>;
    /// A scope as a document returns it.
    fn canonical_scope(&mut self, keyring: &[u8], scope: &[u8]) -> Answer<Vec<u8>>;
    /// A file parsed, unlocked, verified and opened; its records and generation.
    fn read_file(&mut self, file: &[u8], kek: &[u8; 32]) -> Answer<(Vec<Record>, u64)>;
    /// `reconcile`, `agreed` and `agreed-changes` of verified files.
    fn reconcile(&mut self, case: ReconcileCase<'_>) -> Answer<ReconcileResult>;
}
