//! What to do about a failure. Generated from conformance/errors.toml by tools/generate-errors.py. Do not edit.

use omni_credentials_host::{ErrorCode, Reason};

/// The hint `secret`.
pub(crate) const SECRET: &str = "create a new key: omni-credentials keygen";

/// The hint `scope`.
pub(crate) const SCOPE: &str = "pass the scope as JSON: --scope '{\"all\": true}'";

/// The hint `value`.
pub(crate) const VALUE: &str = "set the value again, or restore a good version of the file";

/// The hint `locked`.
pub(crate) const LOCKED: &str = "if no process is using the file: rm {lock}";

/// The hint `principal`.
pub(crate) const PRINCIPAL: &str = "set --principal, PGUSER or USER";

/// The hint `ambiguous`.
pub(crate) const AMBIGUOUS: &str = "choose one with --kind, --principal or --scope";

/// The hint `conflict`.
pub(crate) const CONFLICT: &str = "keep one side: omni-credentials merge --prefer ours, or --prefer theirs";

/// The hint `wrapping`.
pub(crate) const WRAPPING: &str =
    "with the secret to keep, choose its side: omni-credentials merge --prefer ours, or --prefer theirs";

/// What to do about a refused file. `{file}` stands for its name.
pub(crate) const fn file(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::WrongMasterSecret => {
            "omni-credentials show prints the name of the file; choose another variable with --secret-env NAME"
        }
        ErrorCode::UnknownVersion => {
            "install a newer omni-credentials, or name a newer module: --module FILE"
        }
        ErrorCode::UnknownSuite => "name a module of that suite: --module FILE",
        ErrorCode::CarriageReturn => {
            "let git keep its lines as they are: omni-credentials init --git --file {file}, then git checkout {file}"
        }
        ErrorCode::ConflictMarkers => "finish the merge: omni-credentials merge --file {file}",
        ErrorCode::NotACredentialsFile => {
            "create one elsewhere: omni-credentials init --file NAME; {file} is left as it is"
        }
        _ => "restore a good version: git checkout HEAD -- {file}",
    }
}

/// Why a credential is in conflict.
pub(crate) const fn conflict(reason: Reason) -> &'static str {
    match reason {
        Reason::BothChanged => "changed by both",
        Reason::OursDeleted => "deleted by ours, changed by theirs",
        Reason::TheirsDeleted => "deleted by theirs, changed by ours",
        Reason::AncestorUnknown => "deleted by one side, and the common ancestor is not known",
        Reason::DeletionForgotten => "missing on one side, which no longer knows what was deleted",
        Reason::Unreadable => "does not open on either side",
    }
}
