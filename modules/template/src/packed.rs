//! What comes in one list of bytes: fields, each with its length in four bytes before it.

use crate::bindings::exports::omni::credentials::types::{Error, Failure, Identity};
use crate::identity::Canonical;
use crate::refuse;

/// An identity, and nothing after it.
pub(crate) fn one_identity(mut bytes: &[u8]) -> Result<Canonical, Failure> {
    let identity = identity(&mut bytes)?;
    if bytes.is_empty() { Ok(identity) } else { Err(refuse(Error::InvalidArgument)) }
}

/// Takes an identity off the front. Its fields are evaluated in this order.
pub(crate) fn identity(rest: &mut &[u8]) -> Result<Canonical, Failure> {
    Canonical::new(&Identity {
        name: field(rest)?,
        kind: field(rest)?,
        principal: field(rest)?,
        scope: field(rest)?,
    })
}

/// Takes a field off the front.
pub(crate) fn field(rest: &mut &[u8]) -> Result<Vec<u8>, Failure> {
    let short = || refuse(Error::InvalidArgument);
    let (length, after) = rest.split_first_chunk::<4>().ok_or_else(short)?;
    let (field, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or_else(short)?;
    *rest = after;
    Ok(field.to_vec())
}
