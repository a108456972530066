//! What a value is sealed for (§6).

use std::borrow::Cow;

use crate::{Error, Failure, limits, scope};

/// Name, kind, principal and scope as a host has them, unchecked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity<'a> {
    /// UTF-8, 1 to 512 bytes, without U+0000.
    pub name: &'a [u8],
    /// UTF-8, 1 to 63 bytes, without U+0000.
    pub kind: &'a [u8],
    /// UTF-8, 1 to 255 bytes, without U+0000.
    pub principal: &'a [u8],
    /// JSON (RFC 8259).
    pub scope: &'a [u8],
}

impl<'a> Identity<'a> {
    /// Checks the fields and brings the scope into canonical form.
    ///
    /// # Errors
    /// [`Error::InvalidName`], [`Error::InvalidKind`], [`Error::InvalidPrincipal`], [`Error::InvalidScope`],
    /// [`Error::ScopeTooLarge`].
    pub fn canonical(&self) -> Result<CanonicalIdentity<'a>, Failure> {
        self.canonical_by(scope::canonical)
    }

    /// The same, with another way to the canonical form of the scope.
    pub(crate) fn canonical_by(
        &self,
        scope: impl FnOnce(&'a [u8]) -> Result<Cow<'a, str>, Failure>,
    ) -> Result<CanonicalIdentity<'a>, Failure> {
        Ok(CanonicalIdentity {
            name: text(self.name, limits::NAME_BYTES).ok_or(Error::InvalidName)?,
            kind: text(self.kind, limits::KIND_BYTES).ok_or(Error::InvalidKind)?,
            principal: text(self.principal, limits::PRINCIPAL_BYTES).ok_or(Error::InvalidPrincipal)?,
            scope: scope(self.scope)?,
        })
    }
}

/// A checked identity. Two are one credential exactly when they are equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CanonicalIdentity<'a> {
    /// The name.
    pub name: &'a str,
    /// The kind.
    pub kind: &'a str,
    /// The principal.
    pub principal: &'a str,
    /// The scope in canonical form.
    pub scope: Cow<'a, str>,
}

/// A checked identity that owns its fields; ordered as records are in a file (§7).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnedIdentity {
    /// The name.
    pub name: String,
    /// The kind.
    pub kind: String,
    /// The principal.
    pub principal: String,
    /// The scope in canonical form.
    pub scope: String,
}

impl OwnedIdentity {
    /// The same, borrowed.
    #[must_use]
    pub fn borrowed(&self) -> CanonicalIdentity<'_> {
        CanonicalIdentity {
            name: &self.name,
            kind: &self.kind,
            principal: &self.principal,
            scope: Cow::Borrowed(&self.scope),
        }
    }
}

impl From<CanonicalIdentity<'_>> for OwnedIdentity {
    fn from(identity: CanonicalIdentity<'_>) -> Self {
        Self {
            name: identity.name.into(),
            kind: identity.kind.into(),
            principal: identity.principal.into(),
            scope: identity.scope.into_owned(),
        }
    }
}

/// A field as text, if it is of good form.
#[expect(
    clippy::manual_contains,
    reason = "a loop in place: fields are short, and each read of a row checks three"
)]
pub(crate) fn text(field: &[u8], most: usize) -> Option<&str> {
    if field.is_empty() || field.len() > most || field.iter().any(|byte| *byte == 0) {
        return None;
    }
    str::from_utf8(field).ok()
}
