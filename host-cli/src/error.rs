use std::io;
use std::path::{Path, PathBuf};

use omni_credentials_conformance::Mismatch;
use omni_credentials_host::secret::{CommandFailure, CommandFault};
use omni_credentials_host::shared_file::FileFault;
use omni_credentials_host::{self as host, ErrorCode, Failure};

use crate::exit::Exit;
use crate::hints;
use crate::interrupt::{self, Interrupted};
use crate::secret;

/// Why a command failed. No case holds a secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The command line is wrong.
    #[error("{0}")]
    Usage(String),
    /// A file could not be read, locked or replaced.
    #[error("{}: {fault}", path.display())]
    File { path: PathBuf, fault: FileFault },
    /// The module did not accept what is in the file.
    #[error("{}: {failure}", path.display())]
    Damaged { path: PathBuf, failure: Failure },
    /// `init` found a file.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// The file that a generated key would be kept in exists.
    #[error("{} already exists, and the command does not overwrite a key", .0.display())]
    KeyExists(PathBuf),
    /// A master key would be where git commits it.
    #[error("{}: no master key is written where git could commit it: {reason}", path.display())]
    KeyNotIgnored { path: PathBuf, reason: String },
    /// A master key is in git's index.
    #[error("{} is for a master key, and git has it in its index", .0.display())]
    KeyTracked(PathBuf),
    /// Neither the environment nor a person at a terminal gave the master secret.
    #[error("the master secret is needed, but {variable} is not set and there is no terminal to ask at")]
    NoSecret { variable: String },
    /// The file that holds the master secret could not be read.
    #[error("{variable} names the file {}: {fault}", path.display())]
    SecretFile { variable: String, path: PathBuf, fault: FileFault },
    /// The program that prints the master secret gave none.
    #[error(
        "{variable}: {}{}{}",
        failure.fault,
        if failure.program.is_empty() { String::new() } else { format!(": {}", failure.program.escape_debug()) },
        if failure.printed.is_empty() { String::new() } else { format!(", which said: {}", failure.printed) }
    )]
    SecretCommand { variable: String, failure: Box<CommandFailure> },
    /// The environment names two places for one secret.
    #[error("{variable}_FILE and {variable}_COMMAND are both set")]
    TwoSecrets { variable: String },
    /// The file of a value could not be read.
    #[error("the file of the value, {}: {fault}", path.display())]
    ValueFile { path: PathBuf, fault: FileFault },
    /// The secret does not open this file.
    #[error("{}: {}", path.display(), ErrorCode::WrongMasterSecret.explanation())]
    WrongSecret { path: PathBuf },
    /// The secret is not valid.
    #[error("{}", ErrorCode::InvalidMasterSecret.explanation())]
    InvalidSecret,
    /// Two entries of a new secret differ.
    #[error("the two entries are not the same")]
    SecretsDiffer,
    /// Several lines were pasted at a prompt.
    #[error("several lines came at a prompt that takes one; nothing was stored")]
    SeveralLines,
    /// Nothing came from standard input.
    #[error("no value: the input is empty")]
    NoValue,
    /// No credential of this name, kind, principal and scope.
    #[error("there is no credential {0}")]
    NotFound(String),
    /// Several credentials of this name.
    #[error("there are {} credentials {name}: {}", found.len(), found.join("; "))]
    Ambiguous { name: String, found: Vec<String> },
    /// Neither an option nor the environment names the principal.
    #[error("no principal is given, and neither PGUSER nor USER is set")]
    NoPrincipal,
    /// The module did not accept an argument.
    #[error("{subject}: {failure}")]
    Invalid { subject: String, failure: Failure },
    /// An argument or an edited text is not valid.
    #[error("{0}")]
    Meaningless(String),
    /// Both sides changed these credentials.
    #[error("the two sides do not agree on {}", .0.join("; "))]
    Conflict(Vec<String>),
    /// A credential that the command line decides about is in no conflict.
    #[error(
        "no credential {name} is in conflict{}{}",
        if conflicts.is_empty() { "" } else { "; these are: " },
        conflicts.join("; ")
    )]
    NotInConflict { name: String, conflicts: Vec<String> },
    /// Several of this name are in conflict.
    #[error("{} credentials {name} are in conflict", found.len())]
    SeveralConflicts { name: String, found: Vec<String> },
    /// The file is not as it was when a person was asked about it.
    #[error("{}: another process changed the file in the meantime; nothing was written", .0.display())]
    ChangedMeanwhile(PathBuf),
    /// Both sides changed the master secret, and only one of the two is at hand.
    #[error("both sides changed the master secret of {}", .path.display())]
    SecretConflict {
        /// The file.
        path: PathBuf,
    },
    /// The markers in the file are not only around its trailer, and git has no versions to merge.
    #[error("{}: the conflict is inside the records, and git does not have both versions", .0.display())]
    MarkersInRecords(PathBuf),
    /// Neither VISUAL nor EDITOR is set.
    #[error("no editor: neither VISUAL nor EDITOR is set")]
    NoEditor,
    /// The editor could not be run or ended with a failure.
    #[error("the editor {editor} failed: {reason}; nothing was changed")]
    Editor { editor: String, reason: String },
    /// The module itself was refused or failed.
    #[error("{0}")]
    Module(host::Error),
    /// The system refuses what a sandbox needs.
    #[error("{0}")]
    System(host::Error),
    /// The module answers a vector differently.
    #[error("the module fails a vector: {0}")]
    Vector(#[from] Mismatch),
    /// `verify` found values that do not open.
    #[error("{unreadable} of {total} values do not open")]
    Unreadable { unreadable: usize, total: usize },
    /// `diff --exit-code` found differences.
    #[error("the files differ")]
    Different,
    /// `list --expiring` found some.
    #[error("credentials have expired or will soon")]
    Expiring,
    /// `status` found some.
    #[error("something is wrong")]
    Problems,
    /// A credential cannot be a variable, or two have the same one.
    #[error("{0}")]
    Variable(String),
    /// `exec` could not run the program.
    #[error("{program} cannot be run: {error}")]
    Program { program: String, error: io::Error },
    /// git failed.
    #[error("git: {0}")]
    Git(String),
    /// A signal came.
    #[error("interrupted; nothing was changed")]
    Interrupted(i32),
    /// The process that reads the output has ended.
    #[error("no process reads the output any more")]
    BrokenPipe,
    /// A system call failed.
    #[error("{doing}: {error}")]
    Io { doing: String, error: io::Error },
}

impl Error {
    /// The system's error with what was being done.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |error| match error.kind() {
            io::ErrorKind::BrokenPipe => Self::BrokenPipe,
            _ => Self::Io { doing, error },
        }
    }

    /// The runtime's error about the file at `path`.
    pub(crate) fn of_file(path: &Path) -> impl Fn(host::Error) -> Self {
        move |error| match error {
            host::Error::Refused(failure) => match failure.code {
                ErrorCode::WrongMasterSecret => Self::WrongSecret { path: path.to_owned() },
                ErrorCode::InvalidMasterSecret => Self::InvalidSecret,
                _ => Self::Damaged { path: path.to_owned(), failure },
            },
            other => other.into(),
        }
    }

    /// The runtime's error about an argument.
    pub(crate) fn of_argument(subject: impl Into<String>) -> impl FnOnce(host::Error) -> Self {
        let subject = subject.into();
        move |error| match error {
            host::Error::Refused(failure) if failure.code == ErrorCode::InvalidMasterSecret => {
                Self::InvalidSecret
            }
            host::Error::Refused(failure) => Self::Invalid { subject, failure },
            other => other.into(),
        }
    }

    /// How the command ends.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::File { fault: FileFault::Locked { .. }, .. } => Exit::Locked,
            Self::File { .. }
            | Self::Exists(_)
            | Self::KeyExists(_)
            | Self::KeyNotIgnored { .. }
            | Self::KeyTracked(_)
            | Self::SecretFile { .. }
            | Self::ValueFile { .. } => Exit::File,
            Self::SecretCommand { .. } | Self::TwoSecrets { .. } => Exit::NoSecret,
            Self::Damaged { failure, .. } => match failure.code {
                ErrorCode::UnknownVersion | ErrorCode::UnknownSuite => Exit::NeedsNewer,
                _ => Exit::Damaged,
            },
            Self::NoSecret { .. } | Self::NoValue | Self::NoPrincipal => Exit::NoInput,
            Self::WrongSecret { .. } | Self::InvalidSecret | Self::SecretsDiffer => Exit::WrongSecret,
            Self::NotFound(_)
            | Self::Ambiguous { .. }
            | Self::NotInConflict { .. }
            | Self::SeveralConflicts { .. } => Exit::NotFound,
            Self::Invalid { .. } | Self::Meaningless(_) | Self::Variable(_) | Self::SeveralLines => {
                Exit::Invalid
            }
            Self::Conflict(_)
            | Self::SecretConflict { .. }
            | Self::ChangedMeanwhile(_)
            | Self::MarkersInRecords(_) => Exit::Conflict,
            Self::NoEditor | Self::Editor { .. } => Exit::Editor,
            Self::Module(_) | Self::Vector(_) => Exit::Module,
            Self::Unreadable { .. } => Exit::Unreadable,
            Self::Different => Exit::Different,
            Self::Expiring => Exit::Expiring,
            Self::Problems => Exit::Problems,
            Self::Program { error, .. } if error.kind() == io::ErrorKind::NotFound => Exit::NoProgram,
            Self::Program { .. } => Exit::CannotRun,
            Self::Interrupted(signal) => Exit::Signal(*signal),
            // As if SIGPIPE had not been ignored.
            Self::BrokenPipe => Exit::Signal(signal_hook::consts::SIGPIPE),
            Self::Git(_) | Self::Io { .. } | Self::System(_) => Exit::Other,
        }
    }

    /// What was refused, in the words of the contract, if that is the reason.
    pub(crate) fn refusal(&self) -> Option<Failure> {
        let bare = |code| Failure { code, line: 0, found: 0 };
        match self {
            Self::Damaged { failure, .. } | Self::Invalid { failure, .. } => Some(*failure),
            Self::WrongSecret { .. } => Some(bare(ErrorCode::WrongMasterSecret)),
            Self::InvalidSecret => Some(bare(ErrorCode::InvalidMasterSecret)),
            Self::File { fault: FileFault::TooLong { .. }, .. } => Some(bare(ErrorCode::FileTooLarge)),
            _ => None,
        }
    }

    /// Whether the command ends without a message.
    pub(crate) fn is_silent(&self) -> bool {
        matches!(self, Self::BrokenPipe | Self::Different | Self::Expiring | Self::Problems)
    }

    /// What to do about it: the exact command where possible.
    pub(crate) fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::File { path, fault } => return file_hint(path, fault),
            Self::Damaged { path, failure } => return Some(damage_hint(path, failure.code)),
            Self::Usage(_) => "omni-credentials help".into(),
            Self::Exists(_) => {
                "to set up only this clone of the repository: omni-credentials init --git".into()
            }
            Self::KeyExists(_) => "choose another place: --key-file FILE".into(),
            Self::KeyNotIgnored { .. } => "choose a place outside the repository: --key-file FILE".into(),
            Self::KeyTracked(path) => format!(
                "git rm --cached {}; if it was ever committed, replace the key: omni-credentials rotate-master-secret",
                path.display()
            ),
            Self::NoSecret { variable } => {
                format!("export {variable}=..., or {variable}_FILE with the name of a file that holds it, or {variable}_COMMAND with a program that prints it")
            }
            Self::SecretFile { variable, path, .. } if path.is_relative() => {
                format!("give the whole path: export {variable}=\"$PWD/...\"")
            }
            Self::SecretCommand { variable, failure } => match failure.fault {
                CommandFault::Malformed(_) => {
                    format!("a program and its arguments, for example: export {variable}='pass show omni'")
                }
                CommandFault::NotFound => format!("give the whole path of the program in {variable}"),
                _ => format!("run the program of {variable} at the shell; it gets no input and no terminal"),
            },
            Self::TwoSecrets { variable } => {
                format!("unset {variable}_FILE, or: unset {variable}_COMMAND")
            }
            Self::SecretFile { path, .. } | Self::ValueFile { path, .. } => format!("ls -l {}", path.display()),
            Self::WrongSecret { .. } | Self::InvalidSecret if secret::preferred().is_some() => {
                let (used, other) = secret::preferred().unwrap_or_default();
                format!("{used} has precedence over {other}; to use that: unset {used}")
            }
            Self::WrongSecret { path } => return Some(damage_hint(path, ErrorCode::WrongMasterSecret)),
            Self::InvalidSecret => hints::SECRET.into(),
            Self::SeveralLines => "a value of several lines: omni-credentials set NAME --from-file FILE".into(),
            Self::NoValue => "to set an empty value: omni-credentials set NAME --empty".into(),
            Self::NotFound(_) => "list the credentials: omni-credentials list".into(),
            Self::Ambiguous { .. } => hints::AMBIGUOUS.into(),
            Self::NoPrincipal => hints::PRINCIPAL.into(),
            Self::Invalid { failure, .. } => match failure.code {
                ErrorCode::InvalidScope => hints::SCOPE.into(),
                ErrorCode::TooManyRecords => {
                    "forget deleted credentials: omni-credentials compact; or keep some in another file: --file FILE".into()
                }
                _ => return None,
            },
            Self::Conflict(_) => format!("{}; for one credential: --ours NAME, --theirs NAME", hints::CONFLICT),
            Self::SeveralConflicts { found, .. } => {
                let found: Vec<_> = found.iter().map(|reference| format!("'{reference}'")).collect();
                format!("choose with the whole name: {}", found.join(" or "))
            }
            Self::ChangedMeanwhile(path) => format!("look again: omni-credentials merge --file {}", path.display()),
            Self::SecretConflict { .. } => hints::WRAPPING.into(),
            Self::MarkersInRecords(path) => {
                let path = path.display();
                format!("take one side: git checkout --theirs {path}; then set what is missing")
            }
            Self::NoEditor => "name an editor: EDITOR=vi omni-credentials edit".into(),
            Self::System(host::Error::NoExecutableMemory(_)) => {
                "the crypto module is compiled to machine code; with systemd: MemoryDenyWriteExecute=no, and mprotect permitted by SystemCallFilter=".into()
            }
            Self::System(_) => "raise the limit that the message names: ulimit -v unlimited (address space), ulimit -d unlimited (data segment); with systemd: LimitAS=infinity, LimitDATA=infinity".into(),
            Self::Module(host::Error::DigestMismatch { .. }) => return None,
            Self::Module(_) => "omit --module to use the built-in module".into(),
            Self::Unreadable { .. } => hints::VALUE.into(),
            Self::Variable(_) => "choose with --only, --kind, --principal or --scope".into(),
            _ => return None,
        };
        Some(hint)
    }
}

impl From<host::Error> for Error {
    fn from(error: host::Error) -> Self {
        match error {
            host::Error::File { fault: FileFault::Interrupted, .. } | host::Error::Interrupted => {
                interrupt::interrupted().into()
            }
            host::Error::File { path, fault } => Self::File { path, fault },
            host::Error::SystemMemory(_) | host::Error::NoExecutableMemory(_) => Self::System(error),
            other => Self::Module(other),
        }
    }
}

impl From<Interrupted> for Error {
    fn from(Interrupted(signal): Interrupted) -> Self {
        Self::Interrupted(signal)
    }
}

fn file_hint(path: &Path, fault: &FileFault) -> Option<String> {
    match fault {
        FileFault::NotFound => Some(format!(
            "create it: omni-credentials init --file {0}; or name another file with --file or OMNI_CREDENTIALS_FILE",
            path.display()
        )),
        FileFault::Locked { lock, .. } => Some(hints::LOCKED.replace("{lock}", &lock.display().to_string())),
        FileFault::NoPermission => Some(format!("ls -l {}", path.display())),
        FileFault::ForeignLink { .. } => Some("name the file itself: --file PATH".to_owned()),
        _ => None,
    }
}

fn damage_hint(path: &Path, code: ErrorCode) -> String {
    hints::file(code).replace("{file}", &path.display().to_string())
}
