use std::fmt;

use crate::bindings::exports::omni::credentials::types as wit;
use crate::bindings::exports::omni::credentials::{encryption, file_store, key_derivation, module_info};
use crate::nodump::Key;

/// What a credential is and which role it belongs to: the four fields that a sealed value is bound to.
///
/// Passed as the host has them; the module checks and canonicalises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity<'a> {
    /// UTF-8, 1 to 512 bytes, without U+0000.
    pub name: &'a [u8],
    /// UTF-8, 1 to 63 bytes, without U+0000.
    pub kind: &'a [u8],
    /// UTF-8, 1 to 255 bytes, without U+0000: a role's name, not its number.
    pub principal: &'a [u8],
    /// JSON (RFC 8259), at most 16 KiB as passed and 2 KiB in canonical form.
    pub scope: &'a [u8],
}

/// An identity that a module returned; the scope is in canonical form.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnedIdentity {
    /// See [`Identity::name`].
    pub name: Vec<u8>,
    /// See [`Identity::kind`].
    pub kind: Vec<u8>,
    /// See [`Identity::principal`].
    pub principal: Vec<u8>,
    /// See [`Identity::scope`].
    pub scope: Vec<u8>,
}

impl OwnedIdentity {
    /// The same, borrowed.
    pub fn as_ref(&self) -> Identity<'_> {
        Identity { name: &self.name, kind: &self.kind, principal: &self.principal, scope: &self.scope }
    }
}

/// Argon2id costs (RFC 9106).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Costs {
    /// Memory in KiB: 8 × lanes to [`Limits::kdf_memory_kib`].
    pub memory_kib: u32,
    /// 1 to 16.
    pub passes: u32,
    /// 1 to 4.
    pub lanes: u32,
}

/// The key that wraps a keyring's keys: 32 bytes, left out of core dumps, zeroized when dropped, never printed. A clone
/// is another handle on the same memory.
#[derive(Clone)]
pub struct Kek(Key);

impl Kek {
    /// A KEK derived earlier.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(Key::new(bytes))
    }

    /// The key itself.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.bytes()
    }
}

impl fmt::Debug for Kek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kek(redacted)")
    }
}

/// A keyring and the KEK that opens it.
#[derive(Debug, Clone)]
pub struct ProtectedKeyring {
    /// To be stored; it holds no secret in the clear.
    pub keyring: Vec<u8>,
    /// To be kept in memory only.
    pub kek: Kek,
}

/// An algorithm suite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suite {
    /// The number that stands in sealed values and keyrings.
    pub id: u8,
    /// The name in FORMAT.md.
    pub name: String,
}

/// A module's limits: FORMAT.md §9.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest name, in bytes of UTF-8.
    pub name_bytes: u32,
    /// The longest scope in canonical form, in bytes of UTF-8.
    pub scope_bytes: u32,
    /// The longest value, in bytes.
    pub value_bytes: u32,
    /// The longest credentials file, in bytes.
    pub file_bytes: u32,
    /// The most records, deleted ones included, that a file has.
    pub file_records: u32,
    /// The most data keys that a keyring holds.
    pub keyring_keys: u32,
    /// The most memory that key derivation accepts, in KiB.
    pub kdf_memory_kib: u32,
}

/// What a module says about itself. Nothing proves it: only the digest identifies a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The module's name, as an operator types it.
    pub name: String,
    /// Semantic version of the module.
    pub version: String,
    /// The contract it was built for: `omni:credentials@1.0.0`.
    pub contract: String,
    /// The suite it seals with.
    pub suite: Suite,
    /// Its limits.
    pub limits: Limits,
}

/// A record of a credentials file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// See [`Identity::name`].
    pub name: Vec<u8>,
    /// See [`Identity::kind`].
    pub kind: Vec<u8>,
    /// See [`Identity::principal`].
    pub principal: Vec<u8>,
    /// See [`Identity::scope`]; in canonical form.
    pub scope: Vec<u8>,
    /// When it expires, in seconds since 1970, as it was sealed; none when `deleted`.
    pub expires: Option<u64>,
    /// The sealed value, exactly as a table holds it; empty when `deleted`.
    pub sealed: Vec<u8>,
    /// A tombstone: the credential was deleted. Absence alone never means deletion.
    pub deleted: bool,
}

impl Entry {
    /// Which credential.
    pub fn identity(&self) -> Identity<'_> {
        Identity { name: &self.name, kind: &self.kind, principal: &self.principal, scope: &self.scope }
    }

    /// The same, borrowed.
    pub fn as_ref(&self) -> EntryRef<'_> {
        EntryRef {
            identity: self.identity(),
            expires: self.expires,
            sealed: &self.sealed,
            deleted: self.deleted,
        }
    }
}

/// A record to be put into a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryRef<'a> {
    /// Which credential.
    pub identity: Identity<'a>,
    /// When it expires, in seconds since 1970, as it was sealed; none when `deleted`.
    pub expires: Option<u64>,
    /// The sealed value; empty when `deleted`.
    pub sealed: &'a [u8],
    /// A tombstone.
    pub deleted: bool,
}

/// Who wins where both sides changed a credential in different ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preference {
    /// Neither side: it is a conflict.
    Neither,
    /// Ours.
    Ours,
    /// Theirs.
    Theirs,
}

/// What both sides are to hold.
#[derive(Debug, Clone)]
pub struct Reconciled {
    /// With the keyring of both in its header, in the [`Files`](crate::Files) that it was made in. It has no seal yet.
    pub document: crate::Document,
    /// The keyring of both, unlocked.
    pub keyring: crate::KeyringHandle,
    /// Whose wrapping that keyring has.
    pub wrapping: Wrapping,
    /// What ours must take over to hold what the document holds.
    pub to_ours: Vec<Entry>,
    /// What theirs must take over.
    pub to_theirs: Vec<Entry>,
    /// Changed on both sides in different ways; with a preference, the preferred side won. With none, the document is
    /// not to be used.
    pub conflicts: Vec<Conflict>,
}

/// Whose wrapping (master secret, salt and costs) the keyring of both sides has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrapping {
    /// Both sides have the same.
    Same,
    /// That of ours, which changed it.
    Ours,
    /// That of theirs, which changed it.
    Theirs,
    /// Both changed it, or it is not known who did: the preferred side's, with no preference theirs.
    Conflict,
}

/// A credential in conflict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Which one.
    pub identity: OwnedIdentity,
    /// Why.
    pub reason: Reason,
}

/// Why a credential is in conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Both sides changed its value.
    BothChanged,
    /// Ours deleted it, theirs changed it.
    OursDeleted,
    /// Theirs deleted it, ours changed it.
    TheirsDeleted,
    /// One side has it, the other deleted it, and what they last agreed on is not known.
    AncestorUnknown,
    /// One side lacks it and has forgotten deletions made since both agreed: it may be one of them.
    DeletionForgotten,
    /// Different bytes for one version of it, of which neither side's open.
    Unreadable,
}

/// What the key of a sealed value is to a keyring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyOf {
    /// The key that seals.
    Current,
    /// An older one, which still opens.
    Known,
    /// One that is not there.
    Unknown,
}

impl<'a> From<&Identity<'a>> for wit::IdentityParam<'a> {
    fn from(identity: &Identity<'a>) -> Self {
        Self {
            name: identity.name,
            kind: identity.kind,
            principal: identity.principal,
            scope: identity.scope,
        }
    }
}

impl From<wit::IdentityResult> for OwnedIdentity {
    fn from(identity: wit::IdentityResult) -> Self {
        Self {
            name: identity.name,
            kind: identity.kind,
            principal: identity.principal,
            scope: identity.scope,
        }
    }
}

impl From<Costs> for key_derivation::Costs {
    fn from(costs: Costs) -> Self {
        Self { memory_kib: costs.memory_kib, passes: costs.passes, lanes: costs.lanes }
    }
}

impl From<file_store::EntryResult> for Entry {
    fn from(entry: file_store::EntryResult) -> Self {
        let wit::IdentityResult { name, kind, principal, scope } = entry.identity;
        Self {
            name,
            kind,
            principal,
            scope,
            expires: entry.expires,
            sealed: entry.sealed,
            deleted: entry.deleted,
        }
    }
}

impl<'a> From<&EntryRef<'a>> for file_store::EntryParam<'a> {
    fn from(entry: &EntryRef<'a>) -> Self {
        Self {
            identity: (&entry.identity).into(),
            expires: entry.expires,
            sealed: entry.sealed,
            deleted: entry.deleted,
        }
    }
}

impl From<file_store::Conflict> for Conflict {
    fn from(conflict: file_store::Conflict) -> Self {
        Self { identity: conflict.identity.into(), reason: conflict.reason.into() }
    }
}

impl From<file_store::Reason> for Reason {
    fn from(reason: file_store::Reason) -> Self {
        match reason {
            file_store::Reason::BothChanged => Self::BothChanged,
            file_store::Reason::OursDeleted => Self::OursDeleted,
            file_store::Reason::TheirsDeleted => Self::TheirsDeleted,
            file_store::Reason::AncestorUnknown => Self::AncestorUnknown,
            file_store::Reason::DeletionForgotten => Self::DeletionForgotten,
            file_store::Reason::Unreadable => Self::Unreadable,
        }
    }
}

impl From<file_store::Wrapping> for Wrapping {
    fn from(wrapping: file_store::Wrapping) -> Self {
        match wrapping {
            file_store::Wrapping::Same => Self::Same,
            file_store::Wrapping::Ours => Self::Ours,
            file_store::Wrapping::Theirs => Self::Theirs,
            file_store::Wrapping::Conflict => Self::Conflict,
        }
    }
}

impl From<encryption::Key> for KeyOf {
    fn from(key: encryption::Key) -> Self {
        match key {
            encryption::Key::Current => Self::Current,
            encryption::Key::Known => Self::Known,
            encryption::Key::Unknown => Self::Unknown,
        }
    }
}

impl From<Preference> for file_store::Preference {
    fn from(preference: Preference) -> Self {
        match preference {
            Preference::Neither => Self::Neither,
            Preference::Ours => Self::Ours,
            Preference::Theirs => Self::Theirs,
        }
    }
}

impl From<module_info::Description> for Description {
    fn from(it: module_info::Description) -> Self {
        Self {
            name: it.name,
            version: it.version,
            contract: it.contract,
            suite: Suite { id: it.suite.id, name: it.suite.name },
            limits: Limits {
                name_bytes: it.limits.name_bytes,
                scope_bytes: it.limits.scope_bytes,
                value_bytes: it.limits.value_bytes,
                file_bytes: it.limits.file_bytes,
                file_records: it.limits.file_records,
                keyring_keys: it.limits.keyring_keys,
                kdf_memory_kib: it.limits.kdf_memory_kib,
            },
        }
    }
}
