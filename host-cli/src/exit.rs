use std::process::ExitCode;

/// How the command ends. The numbers are part of its interface: docs/cli.md lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Something else went wrong, such as a full disk or git that failed.
    Other,
    /// The command line is wrong. What clap ends with, too.
    Usage,
    /// There is no such credential, or several and it is not said which.
    NotFound,
    /// The file does not exist, or exists already, or cannot be reached.
    File,
    /// The file is damaged, was altered, holds conflict markers, or is not a credentials file.
    Damaged,
    /// The file needs a newer version or another crypto module.
    NeedsNewer,
    /// A master secret or a value is needed, and there is no terminal to ask at.
    NoInput,
    /// The master secret is wrong, or not one at all.
    WrongSecret,
    /// Another process holds the file's lock.
    Locked,
    /// Both sides changed the same credentials.
    Conflict,
    /// There is no editor, or it failed.
    Editor,
    /// A name, a kind, a scope, a value or an edited text is not valid.
    Invalid,
    /// The crypto module was refused or failed.
    Module,
    /// Some values do not open.
    Unreadable,
    /// `diff --exit-code`: there are differences.
    Different,
    /// `list --expiring`: there are such credentials.
    Expiring,
    /// The program that prints the master secret failed, or a file is named as well.
    NoSecret,
    /// `status`: something is wrong.
    Problems,
    /// `exec`: the program cannot be run.
    CannotRun,
    /// `exec`: there is no such program.
    NoProgram,
    /// Ended by this signal.
    Signal(i32),
}

impl Exit {
    /// The status that the shell sees.
    pub(crate) fn status(self) -> u8 {
        match self {
            Self::Other => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::File => 4,
            Self::Damaged => 5,
            Self::NeedsNewer => 6,
            Self::NoInput => 7,
            Self::WrongSecret => 8,
            Self::Locked => 9,
            Self::Conflict => 10,
            Self::Editor => 11,
            Self::Invalid => 12,
            Self::Module => 13,
            Self::Unreadable => 14,
            Self::Different => 15,
            Self::Expiring => 16,
            Self::NoSecret => 17,
            Self::Problems => 18,
            Self::CannotRun => 126,
            Self::NoProgram => 127,
            // As a shell says it.
            Self::Signal(number) => u8::try_from(number).map_or(255, |number| 128_u8.saturating_add(number)),
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.status())
    }
}
