//! Types of the contract to types of the core, and back.

use omni_credentials_core::{self as core, Error, OwnedIdentity, kdf};

use crate::bindings::exports::omni::credentials::types;
use crate::bindings::exports::omni::credentials::{file_store, key_derivation};
use crate::error_table;

pub(crate) fn failure(failure: impl Into<core::Failure>) -> types::Failure {
    let core::Failure { error: cause, line, found } = failure.into();
    types::Failure { error: error_table::error(cause), line, found }
}

pub(crate) fn identity(identity: &types::Identity) -> core::Identity<'_> {
    core::Identity {
        name: &identity.name,
        kind: &identity.kind,
        principal: &identity.principal,
        scope: &identity.scope,
    }
}

pub(crate) fn owned_identity(identity: &OwnedIdentity) -> types::Identity {
    types::Identity {
        name: identity.name.clone().into_bytes(),
        kind: identity.kind.clone().into_bytes(),
        principal: identity.principal.clone().into_bytes(),
        scope: identity.scope.clone().into_bytes(),
    }
}

pub(crate) fn costs(costs: key_derivation::Costs) -> kdf::Costs {
    kdf::Costs { memory_kib: costs.memory_kib, passes: costs.passes, lanes: costs.lanes }
}

/// An entry that goes in. Its sealed value is empty exactly when it is a tombstone.
pub(crate) fn entry(entry: &file_store::Entry) -> Result<core::Entry<'_>, Error> {
    let sealed = match (entry.deleted, entry.sealed.as_slice()) {
        (true, []) => None,
        (true, _) => return Err(Error::InvalidArgument),
        (false, sealed) => Some(sealed),
    };
    Ok(core::Entry { identity: identity(&entry.identity), expires: entry.expires, sealed })
}

/// The rows of a table that go in as one list.
pub(crate) fn rows(bytes: &[u8]) -> impl Iterator<Item = Result<core::Entry<'_>, core::Failure>> {
    each(bytes, |bytes| {
        let identity = taken_identity(bytes)?;
        let expires = match field(bytes)? {
            [] => None,
            bytes => Some(u64::from_be_bytes(bytes.try_into().ok()?)),
        };
        Some(core::Entry { identity, expires, sealed: Some(field(bytes)?) })
    })
}

/// Identities that go in as one list.
pub(crate) fn identities(bytes: &[u8]) -> impl Iterator<Item = Result<core::Identity<'_>, core::Failure>> {
    each(bytes, taken_identity)
}

/// What `take` takes from the front until nothing is left.
fn each<'a, T>(
    mut bytes: &'a [u8],
    take: impl Fn(&mut &'a [u8]) -> Option<T>,
) -> impl Iterator<Item = Result<T, core::Failure>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let taken = take(&mut bytes);
        if taken.is_none() {
            bytes = &[];
        }
        Some(taken.ok_or_else(|| Error::InvalidArgument.into()))
    })
}

/// An identity that goes in as one list.
pub(crate) fn packed_identity(mut bytes: &[u8]) -> Result<core::Identity<'_>, core::Failure> {
    let identity = taken_identity(&mut bytes).filter(|_| bytes.is_empty());
    identity.ok_or_else(|| Error::InvalidArgument.into())
}

fn taken_identity<'a>(bytes: &mut &'a [u8]) -> Option<core::Identity<'a>> {
    Some(core::Identity {
        name: field(bytes)?,
        kind: field(bytes)?,
        principal: field(bytes)?,
        scope: field(bytes)?,
    })
}

/// A length in four bytes, and so many bytes.
fn field<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (field, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    *bytes = rest;
    Some(field)
}

pub(crate) fn wrapping(wrapping: core::Wrapping) -> file_store::Wrapping {
    match wrapping {
        core::Wrapping::Same => file_store::Wrapping::Same,
        core::Wrapping::Ours => file_store::Wrapping::Ours,
        core::Wrapping::Theirs => file_store::Wrapping::Theirs,
        core::Wrapping::Conflict => file_store::Wrapping::Conflict,
    }
}

pub(crate) fn conflict((identity, reason): &(OwnedIdentity, core::Reason)) -> file_store::Conflict {
    let reason = match reason {
        core::Reason::BothChanged => file_store::Reason::BothChanged,
        core::Reason::OursDeleted => file_store::Reason::OursDeleted,
        core::Reason::TheirsDeleted => file_store::Reason::TheirsDeleted,
        core::Reason::AncestorUnknown => file_store::Reason::AncestorUnknown,
        core::Reason::DeletionForgotten => file_store::Reason::DeletionForgotten,
        core::Reason::Unreadable => file_store::Reason::Unreadable,
    };
    file_store::Conflict { identity: owned_identity(identity), reason }
}

/// An entry that goes out.
pub(crate) fn entry_out(entry: core::Entry<'_>) -> file_store::Entry {
    let core::Entry { identity, expires, sealed } = entry;
    let identity = types::Identity {
        name: identity.name.to_vec(),
        kind: identity.kind.to_vec(),
        principal: identity.principal.to_vec(),
        scope: identity.scope.to_vec(),
    };
    let deleted = sealed.is_none();
    file_store::Entry { identity, expires, sealed: sealed.unwrap_or_default().to_vec(), deleted }
}
