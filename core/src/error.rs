//! Why a call was refused.

/// The cause of a refusal. One for one the cases of `types.error` in the contract, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The master secret is not the one this keyring was made with.
    #[error("the master secret is not the one this keyring was made with")]
    WrongMasterSecret,
    /// The master secret is empty, longer than 4 KiB, or a damaged generated key.
    #[error("the master secret is empty, too long, or a damaged generated key")]
    InvalidMasterSecret,
    /// The bytes do not authenticate: altered, or sealed for another identity or expiry.
    #[error("altered, or sealed for another identity or expiry")]
    NotAuthentic,
    /// The bytes are not of the expected shape.
    #[error("not of the expected shape")]
    Malformed,
    /// A version this module does not know; [`Failure::found`] holds it.
    #[error("unknown version")]
    UnknownVersion,
    /// A suite this module does not have; [`Failure::found`] holds its number.
    #[error("unknown suite")]
    UnknownSuite,
    /// The keyring holds no key of that id.
    #[error("the keyring holds no such key")]
    UnknownKey,
    /// The master secret is right, but the keyring was altered.
    #[error("the keyring was altered")]
    KeyringTampered,
    /// Key derivation parameters beyond the limits; nothing was derived.
    #[error("key derivation parameters beyond the limits")]
    KdfOutOfBounds,
    /// The keyring holds as many keys as it can.
    #[error("the keyring is full")]
    TooManyKeys,
    /// The name is empty, too long, not UTF-8 or contains U+0000.
    #[error("invalid name")]
    InvalidName,
    /// The kind is empty, too long, not UTF-8 or contains U+0000.
    #[error("invalid kind")]
    InvalidKind,
    /// The principal is empty, too long, not UTF-8 or contains U+0000.
    #[error("invalid principal")]
    InvalidPrincipal,
    /// The scope is not JSON, nests too deep, or has a number out of range.
    #[error("invalid scope")]
    InvalidScope,
    /// The scope is too long; [`Failure::found`] holds its length in bytes.
    #[error("the scope is too long")]
    ScopeTooLarge,
    /// The expiry is after the year 9999, or a tombstone has one; [`Failure::found`] holds it.
    #[error("invalid expiry")]
    InvalidExpiry,
    /// The value is longer than 1 MiB; [`Failure::found`] holds its length in bytes.
    #[error("the value is too long")]
    ValueTooLarge,
    /// The file is longer than 64 MiB; [`Failure::found`] holds its length in bytes.
    #[error("the file is too long")]
    FileTooLarge,
    /// A line of the file is longer than any the format has.
    #[error("a line is too long")]
    LineTooLong,
    /// More records than 100,000.
    #[error("too many records")]
    TooManyRecords,
    /// The file is not UTF-8, or has a control character.
    #[error("not text")]
    NotText,
    /// A line of the file ends in CR LF.
    #[error("a line ends in CR LF")]
    CarriageReturn,
    /// The file holds the markers of an unfinished merge.
    #[error("markers of an unfinished merge")]
    ConflictMarkers,
    /// The file does not start as a credentials file does; it may be unencrypted.
    #[error("not a credentials file")]
    NotACredentialsFile,
    /// The file ends before its trailer.
    #[error("the file is cut off")]
    Truncated,
    /// A line that the format does not have at this place.
    #[error("unexpected line")]
    BadSyntax,
    /// The content is valid but not in canonical form.
    #[error("not in canonical form")]
    NotCanonical,
    /// Records out of order.
    #[error("records out of order")]
    Unsorted,
    /// Two records of one identity.
    #[error("two records of one identity")]
    DuplicateRecord,
    /// The trailer's count is not the number of records; [`Failure::found`] holds the number.
    #[error("the trailer's count is not the number of records")]
    CountMismatch,
    /// The trailer's seal does not authenticate the bytes before it.
    #[error("the seal does not authenticate the file")]
    SealMismatch,
    /// The arguments do not belong together.
    #[error("arguments that do not belong together")]
    InvalidArgument,
    /// None of the above.
    #[error("refused")]
    Other,
}

/// An [`Error`] and where it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{error} (line {line}, found {found})")]
pub struct Failure {
    /// The cause.
    pub error: Error,
    /// The line of the file, counted from 1; 0 where the failure has no line.
    pub line: u32,
    /// What was found, where the error's description says so; otherwise 0.
    pub found: u64,
}

impl Failure {
    pub(crate) fn found(error: Error, found: u64) -> Self {
        Self { error, line: 0, found }
    }

    pub(crate) fn at(self, line: u32) -> Self {
        Self { line, ..self }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, line: 0, found: 0 }
    }
}
