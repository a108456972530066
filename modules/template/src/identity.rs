//! Identities: checked, with the scope in canonical form.

use bigdecimal::BigDecimal;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::str::FromStr;

use crate::bindings::exports::omni::credentials::types::{Error, Failure, Identity};
use crate::{refuse, refuse_found};

/// Longest name, in bytes.
pub(crate) const NAME_BYTES: usize = 512;
/// Longest scope in canonical form, in bytes.
pub(crate) const SCOPE_BYTES: usize = 2_048;
const SCOPE_GIVEN_BYTES: usize = 16_384;
const SCOPE_DEPTH: usize = 32;

/// An identity that was checked. Two are one credential exactly when they are equal; the order is a file's.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Canonical {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) principal: String,
    pub(crate) scope: String,
}

impl Canonical {
    pub(crate) fn new(identity: &Identity) -> Result<Self, Failure> {
        Ok(Self {
            name: text(&identity.name, NAME_BYTES, Error::InvalidName)?,
            kind: text(&identity.kind, 63, Error::InvalidKind)?,
            principal: text(&identity.principal, 255, Error::InvalidPrincipal)?,
            scope: scope(&identity.scope)?,
        })
    }

    pub(crate) fn to_contract(&self) -> Identity {
        let bytes = |text: &String| text.clone().into_bytes();
        Identity {
            name: bytes(&self.name),
            kind: bytes(&self.kind),
            principal: bytes(&self.principal),
            scope: bytes(&self.scope),
        }
    }

    /// Associated data: every field with its length before it, so that no two identities give the same bytes; and the
    /// expiry, of which none is a field without bytes.
    pub(crate) fn aad(&self, header: &[u8], expires: Option<u64>) -> Vec<u8> {
        let expires = expires.map(|expires| expires.to_be_bytes().to_vec()).unwrap_or_default();
        let fields = [
            header,
            self.name.as_bytes(),
            self.kind.as_bytes(),
            self.principal.as_bytes(),
            self.scope.as_bytes(),
            &expires,
        ];
        fields.iter().flat_map(|field| [&(field.len() as u32).to_be_bytes(), *field].concat()).collect()
    }

    /// What a manifest calls it.
    pub(crate) fn digest(&self) -> [u8; 16] {
        short(&self.aad(b"manifest", None))
    }
}

/// Half of SHA-256: for manifests.
pub(crate) fn short(bytes: &[u8]) -> [u8; 16] {
    let digest = Sha256::digest(bytes);
    std::array::from_fn(|at| digest[at])
}

fn text(bytes: &[u8], most: usize, error: Error) -> Result<String, Failure> {
    let text = std::str::from_utf8(bytes).ok();
    let fits = |text: &&str| (1..=most).contains(&text.len()) && !text.contains('\0');
    text.filter(fits).map(str::to_owned).ok_or_else(|| refuse(error))
}

/// JSON without white space, with sorted keys (serde_json's map is sorted, and the last of equal keys wins) and every
/// number written in one way.
fn scope(bytes: &[u8]) -> Result<String, Failure> {
    if bytes.len() > SCOPE_GIVEN_BYTES {
        return Err(refuse_found(Error::ScopeTooLarge, bytes.len()));
    }
    let invalid = || refuse(Error::InvalidScope);
    let mut value: Value = serde_json::from_slice(bytes).map_err(|_| invalid())?;
    canonicalize(&mut value, 0).ok_or_else(invalid)?;
    let scope = serde_json::to_string(&value).map_err(|_| invalid())?;
    if scope.len() > SCOPE_BYTES { Err(refuse_found(Error::ScopeTooLarge, scope.len())) } else { Ok(scope) }
}

fn canonicalize(value: &mut Value, depth: usize) -> Option<()> {
    match value {
        Value::Number(number) => {
            let exact = BigDecimal::from_str(number.as_str()).ok()?.normalized();
            // As far as Postgres's numeric goes.
            let (digits, scale) = (exact.digits().cast_signed(), exact.fractional_digit_count());
            if digits - scale > 131_072 || scale > 16_383 {
                return None;
            }
            *number = serde_json::Number::from_str(&exact.to_scientific_notation()).ok()?;
        }
        Value::String(text) if text.contains('\0') => return None,
        Value::Array(items) if depth < SCOPE_DEPTH => {
            for item in items {
                canonicalize(item, depth + 1)?;
            }
        }
        Value::Object(members) if depth < SCOPE_DEPTH => {
            for (key, member) in members {
                if key.contains('\0') {
                    return None;
                }
                canonicalize(member, depth + 1)?;
            }
        }
        Value::Array(_) | Value::Object(_) => return None,
        _ => {}
    }
    Some(())
}
