//! The core's refusals as those of the contract. Generated from conformance/errors.toml by tools/generate-errors.py. Do not edit.

use omni_credentials_core::Error;

use crate::bindings::exports::omni::credentials::types;

/// The case of the contract for a refusal of the core.
pub(crate) fn error(error: Error) -> types::Error {
    match error {
        Error::WrongMasterSecret => types::Error::WrongMasterSecret,
        Error::InvalidMasterSecret => types::Error::InvalidMasterSecret,
        Error::NotAuthentic => types::Error::NotAuthentic,
        Error::Malformed => types::Error::Malformed,
        Error::UnknownVersion => types::Error::UnknownVersion,
        Error::UnknownSuite => types::Error::UnknownSuite,
        Error::UnknownKey => types::Error::UnknownKey,
        Error::KeyringTampered => types::Error::KeyringTampered,
        Error::KdfOutOfBounds => types::Error::KdfOutOfBounds,
        Error::TooManyKeys => types::Error::TooManyKeys,
        Error::InvalidName => types::Error::InvalidName,
        Error::InvalidKind => types::Error::InvalidKind,
        Error::InvalidPrincipal => types::Error::InvalidPrincipal,
        Error::InvalidScope => types::Error::InvalidScope,
        Error::ScopeTooLarge => types::Error::ScopeTooLarge,
        Error::InvalidExpiry => types::Error::InvalidExpiry,
        Error::ValueTooLarge => types::Error::ValueTooLarge,
        Error::FileTooLarge => types::Error::FileTooLarge,
        Error::LineTooLong => types::Error::LineTooLong,
        Error::TooManyRecords => types::Error::TooManyRecords,
        Error::NotText => types::Error::NotText,
        Error::CarriageReturn => types::Error::CarriageReturn,
        Error::ConflictMarkers => types::Error::ConflictMarkers,
        Error::NotACredentialsFile => types::Error::NotACredentialsFile,
        Error::Truncated => types::Error::Truncated,
        Error::BadSyntax => types::Error::BadSyntax,
        Error::NotCanonical => types::Error::NotCanonical,
        Error::Unsorted => types::Error::Unsorted,
        Error::DuplicateRecord => types::Error::DuplicateRecord,
        Error::CountMismatch => types::Error::CountMismatch,
        Error::SealMismatch => types::Error::SealMismatch,
        Error::InvalidArgument => types::Error::InvalidArgument,
        // A case that the contract does not have yet, too.
        _ => types::Error::Other,
    }
}
