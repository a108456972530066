use std::fmt;
use std::path::PathBuf;

use crate::Digest;
use crate::bindings::exports::omni::credentials::types as wit;
use crate::secret::CommandFailure;

/// The contract this host knows.
pub(crate) const CONTRACT: &str = "omni:credentials@1.0.0";

/// Why a call failed. No case holds a secret, so every one may be shown and logged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The module looked at the arguments and refused them. The store it ran in goes on.
    #[error("{0}")]
    Refused(#[source] Failure),
    /// The call was ended because [`Config::interrupt`](crate::Config::interrupt) asked for it.
    #[error("the crypto module was interrupted")]
    Interrupted,
    /// The module failed inside a call. Its store was dropped; the next call gets a fresh one.
    #[error("the crypto module failed in {export}: {reason}")]
    Trap {
        /// The export that was called.
        export: &'static str,
        /// What happened, such as `stack overflow`.
        reason: String,
    },
    /// The module asked for more memory than its store may have.
    #[error("the crypto module ran out of its {limit_mib} MiB of memory in {export}")]
    OutOfMemory {
        /// The export that was called.
        export: &'static str,
        /// The limit of the store.
        limit_mib: usize,
    },
    /// The text is not a digest: 64 hexadecimal digits.
    #[error("a digest is 64 hexadecimal digits")]
    NotADigest,
    /// The bytes are not the ones that were pinned.
    #[error("the crypto module has digest {found}, but {expected} is expected")]
    DigestMismatch {
        /// The digest asked for.
        expected: Digest,
        /// The digest of the bytes.
        found: Digest,
    },
    /// The bytes are not a WebAssembly component that this engine accepts.
    #[error("not a WebAssembly component this host can run: {0}")]
    NotAComponent(String),
    /// The component imports something other than entropy; the import is named.
    #[error("the crypto module imports {0}, and only wasi:random/random may be imported")]
    ForbiddenImport(String),
    /// The component does not export what the contract says.
    #[error("the crypto module does not keep to the contract {contract}: {detail}")]
    WrongContract {
        /// The contract of this host.
        contract: &'static str,
        /// Which export is missing or different.
        detail: String,
    },
    /// A known-answer test or a property that every module must have failed.
    #[error("the crypto module fails the known-answer test {0}")]
    FailedCheck(&'static str),
    /// The runtime itself failed.
    #[error("the WebAssembly runtime failed: {0}")]
    Engine(String),
    /// The system has no memory, or no address space, for a sandbox.
    #[error("{0}")]
    SystemMemory(String),
    /// The system lets this process run no code that it compiled.
    #[error("the system lets this process run no code that it compiled itself: {0}")]
    NoExecutableMemory(String),
    /// A file could not be read, locked or replaced.
    #[error("{}: {fault}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        fault: FileFault,
    },
    /// The program that prints the master secret gave none.
    #[error("{}", _0.fault)]
    Command(CommandFailure),
    /// Two places are named for one master secret.
    #[error("{variable}_FILE and {variable}_COMMAND are both set")]
    TwoSources {
        /// The variable without an ending.
        variable: String,
    },
}

/// What can be wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileFault {
    /// There is no such file.
    #[error("no such file")]
    NotFound,
    /// The folder of the file does not exist.
    #[error("the folder does not exist")]
    NoFolder,
    /// A directory where a file is expected.
    #[error("is a directory")]
    IsDirectory,
    /// A device, a socket or a pipe where a file is expected.
    #[error("is not a regular file")]
    NotRegular,
    /// The operating system does not permit it.
    #[error("permission denied")]
    NoPermission,
    /// The file system is read-only.
    #[error("the file system is read-only")]
    ReadOnly,
    /// No space is left, or a quota is used up.
    #[error("no space left")]
    NoSpace,
    /// Longer than the caller accepts.
    #[error("is longer than {max} bytes")]
    TooLong {
        /// The most bytes the caller accepts.
        max: u64,
    },
    /// Another process holds the lock, and did so until the time was up.
    #[error("is locked by {holder}; if that process no longer exists, remove {}", lock.display())]
    Locked {
        /// Who holds it, as far as the lock file tells: `process 17 on host db1`.
        holder: String,
        /// The lock file.
        lock: PathBuf,
    },
    /// Symbolic links in a circle, or too many of them.
    #[error("too many symbolic links")]
    LinkLoop,
    /// The path goes through a symbolic link of another account.
    #[error("the symbolic link {} belongs to another account, which could make it lead to any file", link.display())]
    ForeignLink {
        /// The link.
        link: PathBuf,
    },
    /// A symbolic link took the place of the file.
    #[error("is a symbolic link now")]
    Link,
    /// The file is mounted, so it cannot be replaced by another one.
    #[error("is a mount point, which cannot be replaced: mount its folder instead")]
    MountPoint,
    /// The file belongs to another account, in a folder whose sticky bit lets only that account replace it.
    #[error("belongs to another account, and the sticky bit of its folder keeps others from replacing it")]
    Sticky,
    /// The file may not be changed or replaced by anyone.
    #[error("is immutable: chattr -i -a makes it an ordinary file")]
    Immutable,
    /// A program that does not take the lock, such as git, wrote the file after it was read.
    #[error("was changed by another program meanwhile, and was left as that program wrote it")]
    Changed,
    /// The wait was ended because the caller's interrupt function asked for it.
    #[error("interrupted while waiting")]
    Interrupted,
    /// Anything else, in the operating system's words.
    #[error("{0}")]
    Other(String),
}

/// A refusal by the module: the contract's `types.failure`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// The kind of refusal.
    pub code: ErrorCode,
    /// The line of the file, counted from 1; 0 where the failure has no line.
    pub line: u32,
    /// What was found, where [`ErrorCode`] says so; otherwise 0.
    pub found: u64,
}

impl std::error::Error for Failure {}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        f.write_str(self.code.explanation())?;
        match self.code.unit_of_found() {
            Some(unit) => write!(f, " ({unit}{})", self.found),
            None => Ok(()),
        }
    }
}

macro_rules! error_codes {
    ($($variant:ident $name:literal $explanation:literal $(found $unit:literal)?,)*) => {
        /// The contract's `types.error`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $(#[doc = $explanation] $variant,)*
        }

        impl ErrorCode {
            /// Every code, in the contract's order.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in the contract, such as `not-authentic`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it means, as the rest of a message to a user.
            pub const fn explanation(self) -> &'static str {
                match self { $(Self::$variant => $explanation,)* }
            }

            /// What stands before [`Failure::found`] in a message; none where `found` means nothing.
            const fn unit_of_found(self) -> Option<&'static str> {
                match self { $(Self::$variant => error_codes!(@unit $($unit)?),)* }
            }
        }

        impl From<wit::Error> for ErrorCode {
            fn from(error: wit::Error) -> Self {
                match error { $(wit::Error::$variant => Self::$variant,)* }
            }
        }
    };
    (@unit) => { None };
    (@unit $unit:literal) => { Some($unit) };
}

error_codes! {
    WrongMasterSecret "wrong-master-secret" "the master secret is not the one this keyring was made with",
    InvalidMasterSecret "invalid-master-secret" "the master secret is empty, longer than 4 KiB, or a damaged generated key",
    NotAuthentic "not-authentic" "the value was altered, or was sealed for another credential",
    Malformed "malformed" "the bytes are not of the expected shape",
    UnknownVersion "unknown-version" "the data needs a newer version of the crypto module" found "version ",
    UnknownSuite "unknown-suite" "the data was made with another cipher suite" found "suite ",
    UnknownKey "unknown-key" "the keyring does not hold the key this was sealed with",
    KeyringTampered "keyring-tampered" "the master secret is right, but the keyring was altered",
    KdfOutOfBounds "kdf-out-of-bounds" "the key derivation parameters are beyond the limits",
    TooManyKeys "too-many-keys" "the keyring holds as many keys as it can",
    InvalidName "invalid-name" "the name is empty, too long, not UTF-8, or contains U+0000",
    InvalidKind "invalid-kind" "the kind is empty, too long, not UTF-8, or contains U+0000",
    InvalidPrincipal "invalid-principal" "the principal is empty, too long, not UTF-8, or contains U+0000",
    InvalidScope "invalid-scope" "the scope is not JSON, nests too deep, or has a number out of range",
    ScopeTooLarge "scope-too-large" "the scope is too long" found "bytes: ",
    InvalidExpiry "invalid-expiry" "the expiry is after the year 9999, or of a deleted credential" found "seconds since 1970: ",
    ValueTooLarge "value-too-large" "the value is longer than 1 MiB" found "bytes: ",
    FileTooLarge "file-too-large" "the file is longer than 64 MiB" found "bytes: ",
    LineTooLong "line-too-long" "the line is longer than any the format has",
    TooManyRecords "too-many-records" "the file has more than 100,000 records",
    NotText "not-text" "the file is not UTF-8 text, or has a control character",
    CarriageReturn "carriage-return" "the line ends in CR LF; the format has LF",
    ConflictMarkers "conflict-markers" "the file holds the markers of an unfinished merge",
    NotACredentialsFile "not-a-credentials-file" "this is not an encrypted credentials file",
    Truncated "truncated" "the file ends before its trailer",
    BadSyntax "bad-syntax" "the line is not one that the format has at this place",
    NotCanonical "not-canonical" "the line is not in canonical form",
    Unsorted "unsorted" "the records are out of order",
    DuplicateRecord "duplicate-record" "two records are of one credential",
    CountMismatch "count-mismatch" "the trailer's count is not the number of records" found "records: ",
    SealMismatch "seal-mismatch" "the file was altered: its seal does not match",
    InvalidArgument "invalid-argument" "the arguments do not belong together",
    Other "other" "the crypto module refused without a known reason",
}

impl From<wit::Failure> for Failure {
    fn from(failure: wit::Failure) -> Self {
        Self { code: failure.error.into(), line: failure.line, found: failure.found }
    }
}

impl From<wit::Failure> for Error {
    fn from(failure: wit::Failure) -> Self {
        Self::Refused(failure.into())
    }
}

pub(crate) fn wrong_contract(detail: String) -> Error {
    Error::WrongContract { contract: CONTRACT, detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_contract() {
        let wit = include_str!("../../wit/types.wit");
        let cases = wit.split("enum error {").nth(1).and_then(|rest| rest.split('}').next()).unwrap_or("");
        let names: Vec<_> = cases
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with("//"))
            .map(|line| line.trim_end_matches(','))
            .collect();
        assert_eq!(names, ErrorCode::ALL.iter().map(|code| code.name()).collect::<Vec<_>>());
    }

    #[test]
    fn failures_read_well() {
        let failure = |code, line, found| Failure { code, line, found }.to_string();
        assert_eq!(
            failure(ErrorCode::UnknownSuite, 0, 2),
            "the data was made with another cipher suite (suite 2)"
        );
        assert_eq!(failure(ErrorCode::Unsorted, 7, 0), "line 7: the records are out of order");
    }
}
