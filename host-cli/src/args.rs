//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;

use crate::environment::{MASTER_SECRET, NEW_MASTER_SECRET};
use crate::expiry::{self, Expiry};

/// The values of the database's type `credential_kind`.
pub(crate) const KINDS: [&str; 11] = [
    "credential",
    "api_key",
    "api_secret",
    "password",
    "token",
    "token[jwt]",
    "token[oauth]",
    "ssh",
    "certificate",
    "otp",
    "saml_assertion",
];

/// Where `init` keeps a generated key.
pub(crate) const DEFAULT_KEY_FILE: &str = "credentials.key";
/// Where `rotate-master-secret` keeps a generated key.
pub(crate) const DEFAULT_NEW_KEY_FILE: &str = "credentials.new.key";

const EXIT_CODES: &str = "\
Exit status:
  0    done
  1    something else went wrong
  2    the command line is wrong
  3    no such credential, or several
  4    the file does not exist, exists already, or cannot be reached
  5    the file is damaged or was altered
  6    the file needs a newer version or another crypto module
  7    a secret or a value is needed, and there is no terminal to ask at
  8    the master secret is wrong
  9    the file is locked by another process
  10   both sides changed the same credentials
  11   no editor, or it failed
  12   a name, scope, value or edited text is not valid
  13   the crypto module was refused or failed
  14   some values do not open
  15   diff --exit-code: there are differences
  16   list --expiring: there are such credentials
  17   the program that prints the master secret failed
  18   status: something is wrong
  126  exec: the program cannot be run
  127  exec: there is no such program
  128+ ended by the signal of that number less 128";

/// Keep application credentials encrypted in a file that belongs in the repository.
#[derive(Debug, Parser)]
#[command(name = "omni-credentials", version, after_long_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of all commands.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The credentials file [default: $OMNI_CREDENTIALS_FILE, or credentials.omni here or in a parent folder]
    #[arg(long, short, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,
    /// Use this crypto module instead of the built-in one
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) module: Option<PathBuf>,
    /// The environment variable that holds the master secret; NAME_FILE can name a file with it, NAME_COMMAND a program that prints it
    #[arg(long, global = true, value_name = "NAME", default_value = MASTER_SECRET)]
    pub(crate) secret_env: String,
    /// How long to wait for another process that holds the file's lock
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 10)]
    pub(crate) wait: u64,
    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// Which credentials, apart from the name.
#[derive(Debug, Args, Default, Clone, PartialEq, Eq)]
pub(crate) struct Selection {
    /// Only of this kind
    #[arg(long, short, value_parser = PossibleValuesParser::new(KINDS))]
    pub(crate) kind: Option<String>,
    /// Only of this role
    #[arg(long, short, value_name = "ROLE")]
    pub(crate) principal: Option<String>,
    /// Only of this scope
    #[arg(long, short, value_name = "JSON")]
    pub(crate) scope: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a credentials file and set up git for it
    Init {
        /// Generate a master key and write it to a file
        #[arg(long)]
        generate: bool,
        /// The file for the generated key
        #[arg(
            long,
            value_name = "FILE",
            default_value = DEFAULT_KEY_FILE,
            requires = "generate",
            value_hint = ValueHint::FilePath
        )]
        key_file: PathBuf,
        /// Only set up git, in this clone of a repository
        #[arg(long, conflicts_with = "generate")]
        git: bool,
    },
    /// Print a new master key
    Keygen,
    /// List the credentials; needs no secret
    List {
        #[command(flatten)]
        selection: Selection,
        /// Also list deleted credentials
        #[arg(long)]
        deleted: bool,
        /// Only what has expired or will expire within this time, such as 30d; end with status 16 if there is any
        #[arg(long, value_name = "TIME", value_parser = expiry::parse_within, conflicts_with = "deleted")]
        expiring: Option<Duration>,
    },
    /// Print the value of a credential
    Get {
        /// The credential's name
        name: String,
        #[command(flatten)]
        selection: Selection,
    },
    /// Set a credential to a value from standard input, or from a hidden prompt on a terminal
    Set {
        /// The credential's name
        name: String,
        /// Its kind [default: that of the only credential of this name, or credential]
        #[arg(long, short, value_parser = PossibleValuesParser::new(KINDS))]
        kind: Option<String>,
        /// The role it belongs to [default: that of the only credential of this name, or $PGUSER, or the user's name]
        #[arg(long, short, value_name = "ROLE")]
        principal: Option<String>,
        /// Where it is valid [default: that of the only credential of this name, or {"all":true}]
        #[arg(long, short, value_name = "JSON")]
        scope: Option<String>,
        /// Read the value from a file
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        from_file: Option<PathBuf>,
        /// When it expires: a date (2027-01-31, 2027-01-31T12:00:00Z), a time from now (90d), or never [default: never]
        #[arg(long, value_name = "WHEN", value_parser = expiry::parse)]
        expires: Option<Expiry>,
        /// Keep a line end at the end of the value
        #[arg(long)]
        exact: bool,
        /// Set an empty value
        #[arg(long, conflicts_with_all = ["exact", "from_file"])]
        empty: bool,
    },
    /// Delete a credential
    Rm {
        /// The credential's name
        name: String,
        #[command(flatten)]
        selection: Selection,
    },
    /// Edit all credentials in $VISUAL or $EDITOR
    Edit,
    /// Show the contents of a file; needs no secret
    Show {
        /// The file [default: the credentials file]
        #[arg(value_hint = ValueHint::FilePath)]
        path: Option<PathBuf>,
        /// Also show values
        #[arg(long)]
        values: bool,
        /// For git: print what cannot be read unchanged; $OMNI_CREDENTIALS_SHOW_VALUES adds values
        #[arg(long)]
        textconv: bool,
    },
    /// Show which credentials changed; needs no secret
    Diff {
        /// A file, or a commit of git
        #[arg(default_value = "HEAD")]
        old: String,
        /// A file, or a commit of git [default: the credentials file]
        new: Option<String>,
        /// Also show values
        #[arg(long)]
        values: bool,
        /// End with status 15 if there are differences
        #[arg(long)]
        exit_code: bool,
    },
    /// Merge two versions, as git's merge driver; or finish a merge that left conflict markers
    Merge {
        /// The common ancestor (%O)
        #[arg(requires = "ours", requires = "theirs", value_hint = ValueHint::FilePath)]
        base: Option<PathBuf>,
        /// Our version (%A); the merged file replaces it
        #[arg(value_hint = ValueHint::FilePath)]
        ours: Option<PathBuf>,
        /// Their version (%B)
        #[arg(value_hint = ValueHint::FilePath)]
        theirs: Option<PathBuf>,
        /// The file's name for messages (%P)
        #[arg(long, value_name = "FILE", requires = "base", value_hint = ValueHint::FilePath)]
        path: Option<PathBuf>,
        /// Keep this side of each credential that both sides changed
        #[arg(long, value_name = "SIDE")]
        prefer: Option<Side>,
        /// Keep our version of this credential: NAME, or NAME?kind=...&principal=...&scope=...
        #[arg(id = "keep_ours", long = "ours", value_name = "NAME")]
        keep_ours: Vec<String>,
        /// Keep their version of this credential
        #[arg(id = "keep_theirs", long = "theirs", value_name = "NAME")]
        keep_theirs: Vec<String>,
    },
    /// Run a program with credentials as environment variables
    Exec {
        /// Replace the values by their names, in brackets, in what the program prints
        #[arg(long)]
        mask: bool,
        /// Only credentials of these names
        #[arg(long, value_name = "NAME", value_delimiter = ',')]
        only: Vec<String>,
        #[command(flatten)]
        selection: Selection,
        /// The program and its arguments
        #[arg(last = true, required = true, value_name = "PROGRAM", value_hint = ValueHint::CommandWithArguments)]
        program: Vec<OsString>,
    },
    /// Print credentials with their values, for other programs
    Export {
        /// How they are written
        #[arg(long, value_name = "FORMAT")]
        format: Format,
        /// Only credentials of these names
        #[arg(long, value_name = "NAME", value_delimiter = ',')]
        only: Vec<String>,
        #[command(flatten)]
        selection: Selection,
        /// The name of the Kubernetes secret
        #[arg(long, value_name = "NAME", default_value = "credentials")]
        name: String,
    },
    /// Add or change credentials from another store; deletes nothing
    Import {
        /// What is read: `json` takes an object of names and values, nested or not, or what `export` prints
        #[arg(long, value_name = "FORMAT")]
        from: Source,
        /// The file [default: standard input]
        #[arg(value_hint = ValueHint::FilePath)]
        path: Option<PathBuf>,
        #[command(flatten)]
        selection: Selection,
        /// Only show what it would do
        #[arg(long)]
        dry_run: bool,
    },
    /// Print a text with the values of credentials in place of {{ omni://NAME }}
    Inject {
        /// The text [default: standard input]
        #[arg(value_hint = ValueHint::FilePath)]
        path: Option<PathBuf>,
        /// Write it to this file, which no other user can read
        #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
        output: Option<PathBuf>,
    },
    /// Add a data key and encrypt every value with it
    RotateKey,
    /// Replace the master secret
    RotateMasterSecret {
        /// The environment variable that holds the new secret; NAME_FILE can name a file with it, NAME_COMMAND a program that prints it
        #[arg(long, value_name = "NAME", default_value = NEW_MASTER_SECRET)]
        new_secret_env: String,
        /// Generate a master key and write it to a file
        #[arg(long)]
        generate: bool,
        /// The file for the generated key
        #[arg(
            long,
            value_name = "FILE",
            default_value = DEFAULT_NEW_KEY_FILE,
            requires = "generate",
            value_hint = ValueHint::FilePath
        )]
        key_file: PathBuf,
    },
    /// Check the file and open every value
    Verify,
    /// Say how file, secret, keys and git are; end with status 18 if something is wrong
    Status,
    /// Remove the records of deleted credentials
    Compact,
    /// Inspect or verify a crypto module
    #[command(subcommand)]
    Module(ModuleCommand),
    /// Print a completion script
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page, or write all of them to a folder
    Man {
        /// The folder
        #[arg(value_hint = ValueHint::DirPath)]
        folder: Option<PathBuf>,
    },
}

impl Command {
    /// Whether the command makes the credentials file.
    pub(crate) fn is_new(&self) -> bool {
        matches!(self, Self::Init { git: false, .. })
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModuleCommand {
    /// Print a module's name, digest, contract, suite and imports
    Inspect {
        /// The component [default: the module in use]
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        path: Option<PathBuf>,
    },
    /// Check a module and run the vectors of its suite
    Verify {
        /// The component [default: the module in use]
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        path: Option<PathBuf>,
    },
}

/// What `export` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// NAME='value', a line each, as every reader of .env files understands it
    Dotenv,
    /// An array that `import` reads
    Json,
    /// export NAME='value', for a POSIX shell
    Shell,
    /// A Secret of Kubernetes, in YAML
    K8sSecret,
}

/// What `import` reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Source {
    /// A .env file
    Dotenv,
    /// JSON
    Json,
    /// What `sops decrypt --output-type json` prints
    SopsJson,
    /// What `bin/rails credentials:show` prints
    RailsYaml,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Side {
    /// The version that was checked out
    Ours,
    /// The version that is merged in
    Theirs,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
