//! Every error that a user of the extension can meet: its SQLSTATE, its message and its hint, in one folder.
//!
//! Messages name the credential or the object and the command that fixes it. They never hold a value, a key or a secret.

mod classify;
mod kinds;
mod report;
mod unreadable;

pub(crate) use classify::credential_exists_hint;
pub(crate) use report::{or_raise, warn, without_context};
pub(crate) use unreadable::Unreadable;

/// What can go wrong. Each variant is one cause, with one SQLSTATE.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Neither the variable nor its `_FILE` companion is set for the server.
    #[error("the master secret is missing: environment variable {variable} is not set for the server")]
    MasterSecretMissing { variable: String },
    /// The `_FILE` companion names a file that cannot be read.
    #[error(
        "the master secret cannot be read from the file that environment variable {variable}_FILE names: {reason}"
    )]
    MasterSecretFile { variable: String, reason: String },
    /// The program that the `_COMMAND` companion names gave no secret.
    #[error(
        "the master secret cannot be had from the program that environment variable {variable}_COMMAND names: {reason}"
    )]
    MasterSecretCommand { variable: String, reason: String },
    /// Two companions of the variable are set.
    #[error("environment variables {variable}_FILE and {variable}_COMMAND are both set for the server")]
    MasterSecretTwice { variable: String },
    /// The secret is empty, too long or a damaged generated key.
    #[error("the master secret in environment variable {variable} is not usable")]
    MasterSecretInvalid { variable: String },
    /// The secret is not the one that the keyring was made with.
    #[error(
        "the master secret in environment variable {variable} is not the one that {what} was sealed with"
    )]
    MasterSecretWrong { variable: String, what: String },
    /// No superuser lets the owner of the instance use that variable.
    #[error("role {role} may not use environment variable {variable} as a master secret")]
    VariableNotAllowed { variable: String, role: String },
    /// Cheap to guess at.
    #[error(
        "the key derivation costs of schema {schema} are below {memory_kib} KiB, {passes} passes and {lanes} lane"
    )]
    CostsTooLow { schema: String, memory_kib: u32, passes: u32, lanes: u32 },
    /// The keyring was altered.
    #[error("the keyring of schema {schema} was altered")]
    KeyringTampered { schema: String },
    /// One of several keyrings was altered, or is none.
    #[error("keyring {id} of schema {schema} was altered")]
    KeyringDamaged { schema: String, id: String },
    /// One of several keyrings is under another secret.
    #[error(
        "the master secret in environment variable {variable} is not the one that keyring {id} of schema {schema} was sealed with"
    )]
    KeyringOfAnotherSecret { schema: String, id: String, variable: String },
    /// One of several keyrings is of a module that this server does not have.
    #[error("keyring {id} of schema {schema} needs crypto module {digest}, which is not installed")]
    KeyringModuleMissing { schema: String, id: String, digest: String },
    /// One of several keyrings is of a module that the server's configuration leaves out.
    #[error(
        "keyring {id} of schema {schema} needs crypto module {digest}, which is not allowed on this server"
    )]
    KeyringModuleNotAllowed { schema: String, id: String, digest: String },
    /// More keyrings than a server tries for a value, or unites.
    #[error("table {schema}.credentials_keyrings has more than {most} keyrings to try or to unite")]
    TooManyKeyrings { schema: String, most: usize, number: i32 },
    /// No number is left for a keyring that supersedes the others.
    #[error(
        "no keyring can supersede keyring {id} of schema {schema}: its number {number} is the highest there is"
    )]
    KeyringNumber { schema: String, id: String, number: i32, free: i32 },
    /// A statement deletes or overwrites a keyring that is, or may be, of use.
    #[error("cannot {change} keyring {id} of schema {schema}: {reason}")]
    KeyringNeeded { schema: String, change: &'static str, id: String, reason: String },
    /// Sealed credentials without a keyring: minting one would hide the loss.
    #[error("schema {schema} holds sealed credentials but no keyring")]
    KeyringMissing { schema: String },
    /// A row is sealed with a keyring that was to be pruned.
    #[error("cannot prune the keyrings of schema {schema}: credential {name} needs a superseded one")]
    KeyringSealsRow { schema: String, name: String },
    /// A file is sealed with a keyring that was to be pruned.
    #[error("cannot prune the keyrings of schema {schema}: file store {filename} may need a superseded one")]
    KeyringSealsFile { schema: String, filename: String },
    /// No more keys fit.
    #[error("the keyring of schema {schema} is full")]
    KeyringFull { schema: String },
    /// Another node makes the keys.
    #[error("this server makes no keys, and schema {schema} needs one")]
    KeysMadeElsewhere { schema: String },
    /// Without their keyrings, sealed values are lost.
    #[error("cannot remove keyrings of schema {schema} while it holds sealed credentials")]
    KeyringsNeeded { schema: String },
    /// A keyring is to go while a statement runs that may go on to write what is sealed with it: a value, or the version of one.
    #[error("a statement of this session that still runs may change values of schema {schema}")]
    ValuesChanging { schema: String },
    /// The relation is not part of an instance whose owner may instantiate.
    #[error("{relation} is not part of an instance")]
    NotAnInstance { relation: String },
    /// A table of an instance is not as it was made.
    #[error("table {table} does not have the shape that omni_credentials gave it: {problem}")]
    WrongShape { table: String, problem: String },
    /// A dump without data has the tables of an instance and not its settings.
    #[error("the instance in schema {schema} has no settings: credentials_config is empty")]
    SettingsMissing { schema: String },
    /// The snapshot of the transaction may lack rows that are committed.
    #[error("maintenance of an instance needs a transaction with isolation level READ COMMITTED")]
    NotReadCommitted,
    /// The schema has an instance already.
    #[error("schema {schema} already has an instance")]
    AlreadyInstantiated { schema: String },
    /// One row that does not open.
    #[error("credential {name} cannot be read: {reason}")]
    Unreadable { name: String, reason: Unreadable },
    /// Nothing visible to the caller has that identity.
    #[error(
        "there is no credential {name} that you may read and that has the given kind, principal and scope"
    )]
    NoSuchCredential { name: String },
    /// The history has no such version, or none that is visible to the caller.
    #[error("there is no version {version} of credential {name} in the history that you may read")]
    NoSuchVersion { name: String, version: i64, schema: String },
    /// The table with the history was dropped or given to another role.
    #[error(
        "schema {schema} has no table encrypted_credential_versions that belongs to the owner of the instance"
    )]
    HistoryMissing { schema: String },
    /// The history is the extension's to write.
    #[error("permission denied to write table {table}")]
    HistoryWriteRefused { table: String, schema: String },
    /// A policy on the credentials that cannot hold for the history.
    #[error("a policy of {table} uses what the history of the instance does not have")]
    PolicyNotForHistory { table: String },
    /// `purge_history` without a word about what.
    #[error(
        "purge_history needs a name, an age or everything => true, and everything => true goes with neither"
    )]
    PurgeWhat,
    /// An age in the future.
    #[error("older_than must not be negative")]
    PurgeFuture,
    /// A limit that no history has.
    #[error("a history keeps 0 to {most} versions of a credential, not {versions}")]
    HistoryLimit { versions: i32, most: i32 },
    /// The identity that was asked for is that of several.
    #[error("there are several credentials {name}")]
    SeveralCredentials { name: String },
    /// The value has bytes that text cannot hold.
    #[error("the value of credential {name} is not text that this database's encoding can hold")]
    NotText { name: String },
    /// A sealed value that does not open for the row it is written to.
    #[error("the sealed value for credential {name} was refused: {reason}")]
    SealedValueRefused { name: String, reason: Unreadable },
    /// Bytes that are not a sealed value, such as a plain one.
    #[error("the value for credential {name} was refused: it is not a sealed value that is known here")]
    NotSealed { name: String },
    /// A field of the credential is outside the limits.
    #[error("{field} of credential {name} {problem}")]
    InvalidField { name: String, field: &'static str, problem: String },
    /// An expiry that no file can say.
    #[error("the expires_at of credential {name} is not a whole second from 1970 to 9999")]
    InvalidExpiry { name: String },
    /// What is written is for no one.
    #[error("the principal of credential {name} does not exist: there is no role with oid {oid}")]
    PrincipalMissing { name: String, oid: u32 },
    /// A column that must have a value has none.
    #[error("null value in column {field:?} of relation \"credentials\" violates not-null constraint")]
    NullField { field: &'static str },
    /// The caller may neither act as the principal nor see such a row.
    #[error("permission denied for credential {name}")]
    NotPermitted { name: String },
    /// The caller may write the table, but does not have the rights of the principal.
    #[error("permission denied to seal credential {name} for its principal")]
    SealNotPermitted { name: String },
    /// Rights on the view alone, such as a plain GRANT gives them.
    #[error("permission denied for table {table}")]
    NotGranted { table: String, privilege: &'static str, role: String, schema: String },
    /// The history is for those who may read the values.
    #[error("permission denied for the history of instance {schema}")]
    HistoryNotGranted { role: String, schema: String },
    /// Values of version 0.2.0 are opened by pgcrypto.
    #[error("extension pgcrypto has no function pgp_sym_decrypt that belongs to a superuser")]
    PgcryptoMissing,
    /// A trigger that fires after ours can change a row that was checked.
    #[error("trigger {trigger:?} of table {table} fires after the check of sealed values")]
    LaterTrigger { trigger: String, table: String },
    /// A row that maintenance must change stayed as it was.
    #[error("{what} was not changed: a trigger, a rule or a policy of {table} prevents it")]
    NotChanged { what: String, table: String },
    /// The database's encoding cannot carry a name into SQL.
    #[error("the name of {relation}, or of its schema, is not supported in this database's encoding")]
    NameNotSupported { relation: String },
    /// Only the owner of the instance may do this.
    #[error("must be owner of {table}")]
    NotOwner { table: String },
    /// The row changed between reading and writing.
    #[error("could not serialize access: {what} was changed by another session, or twice by this statement")]
    ConcurrentChange { what: String },
    /// `DROP EXTENSION` would destroy the credentials of the default instance.
    #[error(
        "cannot drop extension omni_credentials because table omni_credentials.{table} holds credentials"
    )]
    HoldsCredentials { table: String },
    /// No module with that digest.
    #[error("crypto module {digest} is not installed")]
    ModuleMissing { digest: String },
    /// The server's configuration leaves the module out.
    #[error("crypto module {digest} is not allowed on this server")]
    ModuleNotAllowed { digest: String },
    /// The bytes are not those of the digest.
    #[error("the component has digest {found}, not {expected}")]
    ModuleDigest { expected: String, found: String },
    /// No module of that name or digest.
    #[error("there is no crypto module {module:?}")]
    ModuleUnknown { module: String },
    /// Several modules have the name.
    #[error("there are several crypto modules named {module:?}: {digests}")]
    ModuleAmbiguous { module: String, digests: String },
    /// Keyrings or settings refer to the module.
    #[error("crypto module {digest} is in use by {users}")]
    ModuleInUse { digest: String, users: String, statements: String },
    /// The module that instances start with.
    #[error("crypto module {digest} is in use by the extension itself")]
    ModuleBuiltin { digest: String },
    /// Crypto code, and the environment of the server, are for superusers.
    #[error("permission denied to {what}")]
    NotSuperuser { what: &'static str },
    /// The component does not keep the contract.
    #[error("the component is not a usable crypto module: {reason}")]
    ModuleRefused { reason: String },
    /// The system has no memory or address space for a sandbox.
    #[error("{reason}")]
    SystemMemory { reason: String },
    /// The system lets no compiled code run.
    #[error("the system lets the server run no code that it compiled itself: {reason}")]
    NoExecutableMemory { reason: String },
    /// The module broke down while it worked.
    #[error("crypto module failed: {reason}")]
    ModuleFailed { reason: String },
    /// Cancelled in the middle of a module's work.
    #[error("canceling statement due to user request")]
    Interrupted,
    /// The caller lacks the server-file roles.
    #[error("permission denied to use file store {filename}")]
    FilePermission { filename: String },
    /// The store is not registered.
    #[error("no file store {filename} is registered in schema {schema}")]
    FileNotRegistered { filename: String, schema: String },
    /// The store is registered already.
    #[error("file store {filename} is already registered in schema {schema}")]
    FileAlreadyRegistered { filename: String, schema: String },
    /// The operating system refused.
    #[error("file store {filename}: {reason}")]
    FileSystem { filename: String, reason: String },
    /// No file store may be there.
    #[error("file store {filename} cannot be used: {reason}")]
    FilePlace { filename: String, reason: String },
    /// Another writer holds the file.
    #[error("file store {filename} is locked by another writer")]
    FileLocked { filename: String },
    /// The file is damaged or not a credentials file.
    #[error("file store {filename}: {reason}")]
    FileInvalid { filename: String, reason: String },
    /// The file was made by a newer version or another suite.
    #[error("file store {filename}: {reason}")]
    FileUnsupported { filename: String, reason: String },
    /// The table holds more than a file can.
    #[error("file store {filename} cannot hold all credentials of the table: {reason}")]
    FileLimitExceeded { filename: String, schema: String, reason: String },
    /// Both the file and the table changed the same credentials.
    #[error("file store {filename} and the table both changed: {names}")]
    FileConflict { filename: String, schema: String, names: String },
    /// Two-phase commit cannot carry file work.
    #[error("cannot PREPARE a transaction that changed credentials mirrored to a file store")]
    PrepareRefused,
    /// An argument of a SQL function that must be given is NULL.
    #[error("argument {argument} must not be NULL")]
    NullArgument { argument: &'static str },
    /// No privilege that `grant_access` knows.
    #[error("unknown privilege: {privilege}")]
    UnknownPrivilege { privilege: String },
    /// Bad argument of a SQL function.
    #[error("{0}")]
    InvalidArgument(String),
    /// Postgres answered in a way that it should not.
    #[error("{0}")]
    Internal(String),
}

impl From<pgrx::spi::SpiError> for Error {
    fn from(e: pgrx::spi::SpiError) -> Self {
        Self::Internal(format!("unexpected answer from SPI: {e}"))
    }
}

/// An argument that must not be NULL. No function that does something is STRICT: it would do nothing, and not say so.
pub(crate) fn given<T>(value: Option<T>, argument: &'static str) -> Result<T, Error> {
    value.ok_or(Error::NullArgument { argument })
}

/// A credential's name, in UTF-8, for messages.
pub(crate) fn display_name(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    match name.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{:?}...", name.get(..end).unwrap_or_default()),
        None => format!("{name:?}"),
    }
}

/// How much of a name a message shows.
const SHOWN_CHARACTERS: usize = 128;
