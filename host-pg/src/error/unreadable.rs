//! Why one sealed value does not open, with what fixes it.

use omni_credentials_host as host;
use pgrx::PgSqlErrorCode;

/// Why a single sealed value does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreadable {
    /// Altered, or sealed for another name, kind, principal, scope or expiry.
    #[error("it was altered, or sealed for another name, kind, principal, scope or expires_at")]
    NotAuthentic,
    /// Not a sealed value.
    #[error("it is not a sealed value")]
    Malformed,
    /// Name, kind, principal or scope outside the limits: no value can be sealed for such an identity.
    #[error("its name, kind, principal or scope is outside the limits")]
    InvalidIdentity,
    /// No value can be sealed for such an expiry.
    #[error("its expires_at is not a whole second from 1970 to 9999")]
    InvalidExpiry,
    /// Written by a later version.
    #[error("it needs version {0} of the format")]
    UnknownVersion(u64),
    /// Sealed by another suite.
    #[error("it was sealed with suite {0}, which no keyring of this instance has")]
    UnknownSuite(u64),
    /// Sealed with a key that the keyring does not hold.
    #[error("it was sealed with a key that this instance's keyring does not hold")]
    UnknownKey,
    /// The principal's role is gone.
    #[error("its principal, the role with oid {0}, no longer exists")]
    PrincipalDropped(u32),
}

impl Unreadable {
    /// Whether another keyring may open the value.
    pub(crate) fn is_of_another_key(self) -> bool {
        matches!(self, Self::UnknownKey | Self::UnknownSuite(_))
    }

    pub(super) fn sqlstate(self) -> PgSqlErrorCode {
        match self {
            Self::NotAuthentic | Self::Malformed | Self::InvalidIdentity | Self::InvalidExpiry => {
                PgSqlErrorCode::ERRCODE_DATA_CORRUPTED
            }
            Self::UnknownVersion(_) => PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            Self::UnknownSuite(_) | Self::UnknownKey | Self::PrincipalDropped(_) => {
                PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT
            }
        }
    }

    /// A sentence that says what fixes it.
    pub(super) fn remedy(self) -> &'static str {
        match self {
            Self::NotAuthentic => {
                "If the principal was renamed: select omni_credentials.rename_principal(...). If a label of the kind was renamed, rename it back: alter type ... rename value. Otherwise set the value again or restore it."
            }
            Self::Malformed => "Set the value again or restore it from a backup.",
            Self::InvalidIdentity => {
                "Limits in bytes: name 512, kind 63, scope 2048 as JSON. Delete the row."
            }
            Self::InvalidExpiry => "Give it another expires_at, or NULL, and a value.",
            Self::UnknownVersion(_) => "Update omni_credentials.",
            Self::UnknownSuite(_) | Self::UnknownKey => {
                "If replication brought it, publish omni_credentials.credentials_keyrings, or that of its instance, with the rows. Otherwise restore the keyring it came with (credentials_keyrings), or set the value again."
            }
            Self::PrincipalDropped(_) => {
                "Give it to another role: select omni_credentials.rename_principal(...)."
            }
        }
    }

    /// A failure of one sealed value, or `None` where the failure is not about the value.
    pub(crate) fn of(failure: &host::Failure) -> Option<Self> {
        use host::ErrorCode as E;
        Some(match failure.code {
            E::NotAuthentic => Self::NotAuthentic,
            E::Malformed | E::ValueTooLarge => Self::Malformed,
            E::InvalidName | E::InvalidKind | E::InvalidPrincipal | E::InvalidScope | E::ScopeTooLarge => {
                Self::InvalidIdentity
            }
            E::InvalidExpiry => Self::InvalidExpiry,
            E::UnknownVersion => Self::UnknownVersion(failure.found),
            E::UnknownSuite => Self::UnknownSuite(failure.found),
            E::UnknownKey => Self::UnknownKey,
            _ => return None,
        })
    }
}
