//! Every error that a user of the extension can meet: its SQLSTATE, its message and its hint, in one place.
//!
//! Messages name the credential or the object and the command that fixes it. They never hold a value, a key or a secret.

use std::panic::UnwindSafe;

use omni_credentials_host as host;
use pgrx::pg_sys::panic::{CaughtError, ErrorReport};
use pgrx::spi::{quote_identifier, quote_literal as quote};
use pgrx::{PgLogLevel, PgSqlErrorCode, PgTryBuilder};

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
    #[error("the value of credential {name} is not text")]
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

impl Error {
    /// Raises the error. Does not return.
    pub(crate) fn raise(self) -> ! {
        if matches!(self, Self::Interrupted) {
            // The server's own report is better: it knows a timeout from a cancel from a shutdown.
            pgrx::check_for_interrupts!();
        }
        let (code, hint) = self.classify();
        let mut report = ErrorReport::new(code, self.to_string(), "omni_credentials");
        if let Some(hint) = hint {
            report = report.set_hint(hint);
        }
        report.report(PgLogLevel::ERROR);
        unreachable!("an ERROR report does not return")
    }

    /// Whether values do not open because of what this server has or permits, and not because of what the values are. What
    /// a dump brings is kept then: reading says what is missing.
    pub(crate) fn is_of_this_server(&self) -> bool {
        matches!(
            self,
            Self::MasterSecretMissing { .. }
                | Self::MasterSecretFile { .. }
                | Self::MasterSecretCommand { .. }
                | Self::MasterSecretTwice { .. }
                | Self::MasterSecretInvalid { .. }
                | Self::MasterSecretWrong { .. }
                | Self::VariableNotAllowed { .. }
                | Self::ModuleMissing { .. }
                | Self::ModuleNotAllowed { .. }
        )
    }

    /// The SQLSTATE and the hint.
    fn classify(&self) -> (PgSqlErrorCode, Option<String>) {
        use PgSqlErrorCode as C;
        match self {
            Self::MasterSecretMissing { variable } => (
                C::ERRCODE_CONFIG_FILE_ERROR,
                Some(format!("Set {variable}, or {variable}_FILE to the name of a file that holds it, or {variable}_COMMAND to a program that prints it, in the environment of the postmaster and restart it. A new secret: omni_credentials.generate_master_key().")),
            ),
            Self::MasterSecretFile { variable, .. } => (
                C::ERRCODE_UNDEFINED_FILE,
                Some(format!("Make the file readable for the server's user, or set {variable} instead.")),
            ),
            Self::MasterSecretCommand { variable, .. } => (
                C::ERRCODE_EXTERNAL_ROUTINE_EXCEPTION,
                Some(format!("The server's log has what the program wrote to its standard error. It runs as the server's user, without a shell, input or terminal, with few variables of the environment. Fix {variable}_COMMAND in the environment of the postmaster and restart it, or set {variable} instead.")),
            ),
            Self::MasterSecretTwice { variable } => (
                C::ERRCODE_CONFIG_FILE_ERROR,
                Some(format!("Remove one of {variable}_FILE and {variable}_COMMAND from the environment of the postmaster and restart it.")),
            ),
            Self::MasterSecretInvalid { variable } => (
                C::ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION,
                Some(format!("{variable} must hold 1 to 4096 bytes; a secret that starts with omck1_ must be a whole generated key, as omni_credentials.generate_master_key() makes it.")),
            ),
            Self::MasterSecretWrong { variable, .. } => (
                C::ERRCODE_INVALID_PASSWORD,
                Some(format!("Start the server with the {variable} that was in use before. Nothing was written. To change the secret: omni_credentials.rotate_master_secret().")),
            ),
            Self::VariableNotAllowed { variable, role } => (
                C::ERRCODE_INSUFFICIENT_PRIVILEGE,
                Some(format!("A superuser decides which role may: select omni_credentials.allow_variable({}, {}).", quote(quote_identifier(role)), quote(variable))),
            ),
            Self::CostsTooLow { .. } => (
                C::ERRCODE_INVALID_PARAMETER_VALUE,
                Some("Only superusers own instances with lower costs. Without costs the module chooses them: set kdf_memory_kib, kdf_passes and kdf_lanes to NULL.".into()),
            ),
            Self::KeyringTampered { schema } => (
                C::ERRCODE_DATA_CORRUPTED,
                Some(format!("Restore {schema}.credentials_keyrings from a backup.")),
            ),
            Self::KeyringMissing { schema } => (
                C::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                Some(format!("Restore {schema}.credentials_keyrings from the backup that the rows came from, or delete the rows from {schema}.encrypted_credentials.")),
            ),
            Self::KeyringSealsRow { schema, .. } => (
                C::ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST,
                Some(format!("Seal it with the current key: select omni_credentials.rotate_key({}). What does not open is listed by omni_credentials.verify().", quote_schema(schema))),
            ),
            Self::KeyringSealsFile { schema, filename } => (
                C::ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST,
                Some(format!("In a transaction before this one, write the file: select {}.credential_file_store_sync({}). Or give it up: omni_credentials.detach_file_store().", quote_identifier(schema), quote(filename))),
            ),
            Self::KeysMadeElsewhere { .. } => (
                C::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                Some("Do this on the server that makes the keys, and let replication bring the keyring. Or set omni_credentials.create_keys = on in postgresql.conf.".into()),
            ),
            Self::KeyringsNeeded { schema } => (
                C::ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST,
                Some(format!("To remove superseded keyrings: select omni_credentials.prune_keyrings({0}). To destroy the credentials: truncate {1}.encrypted_credentials, {1}.encrypted_credential_versions, {1}.credentials_keyrings.", quote_schema(schema), quote_identifier(schema))),
            ),
            Self::KeyringFull { schema } => (
                C::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                Some(format!("Move the instance to a fresh keyring: select omni_credentials.use_module({}, ...).", quote_schema(schema))),
            ),
            Self::NotAnInstance { .. } => (
                C::ERRCODE_INVALID_SCHEMA_NAME,
                Some("Create an instance with: select omni_credentials.instantiate(schema => '...'). Its tables must belong to a role that may execute that function.".into()),
            ),
            Self::WrongShape { .. } => (
                C::ERRCODE_INVALID_TABLE_DEFINITION,
                Some("Undo the change of the table. Columns, indexes, rules and triggers of your own belong on a table of your own.".into()),
            ),
            Self::SettingsMissing { schema } => (
                C::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                Some(format!("Restore its row, or make it: select omni_credentials.instantiate({}, env_var => '...').", quote_schema(schema))),
            ),
            Self::NotReadCommitted => (
                C::ERRCODE_ACTIVE_SQL_TRANSACTION,
                Some("Run it in a transaction of its own: begin isolation level read committed; select ...; commit;".into()),
            ),
            Self::AlreadyInstantiated { .. } => (
                C::ERRCODE_DUPLICATE_OBJECT,
                Some("Another instance needs a schema of its own: create schema ...; select omni_credentials.instantiate(schema => '...').".into()),
            ),
            Self::Unreadable { reason, .. } => (
                reason.sqlstate(),
                Some(format!("{} To read the other rows, or to delete this one: set omni_credentials.on_unreadable = 'null' (through a pooler: set local, in a transaction).", reason.remedy())),
            ),
            Self::NoSuchCredential { .. } => (
                C::ERRCODE_NO_DATA_FOUND,
                Some("Names, kinds, principals and scopes of what you may read: select name, kind, principal, scope from the credentials view.".into()),
            ),
            Self::NoSuchVersion { schema, .. } => (
                C::ERRCODE_NO_DATA_FOUND,
                Some(format!("Those that there are: select name, kind, principal, scope, version, valid_until from {}.credential_versions. -1 is the newest of them.", quote_identifier(schema))),
            ),
            Self::HistoryMissing { schema } => (
                C::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                Some(format!("Restore the table, or turn the history off: update {}.credentials_config set history_limit = 0.", quote_identifier(schema))),
            ),
            Self::HistoryWriteRefused { schema, .. } => (
                C::ERRCODE_INSUFFICIENT_PRIVILEGE,
                Some(format!("The history writes itself. To return to an earlier value: {0}.restore_credential(). To remove values: {0}.purge_history(), as the owner.", quote_identifier(schema))),
            ),
            Self::PolicyNotForHistory { .. } => (
                C::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                Some("The history shows what the policies of the credentials show. Write them with the columns name, value, kind, principal, scope and expires_at only.".into()),
            ),
            Self::PurgeWhat => (
                C::ERRCODE_INVALID_PARAMETER_VALUE,
                Some("Say what: purge_history('name'), purge_history(older_than => '90 days'), both, or purge_history(everything => true).".into()),
            ),
            Self::PurgeFuture => (
                C::ERRCODE_INVALID_PARAMETER_VALUE,
                Some("Say an age, such as '90 days'. To remove all of it: purge_history(everything => true).".into()),
            ),
            Self::HistoryLimit { .. } => (
                C::ERRCODE_INVALID_PARAMETER_VALUE,
                Some("10 is the default. 0 turns the history off.".into()),
            ),
            Self::SeveralCredentials { .. } => (
                C::ERRCODE_TOO_MANY_ROWS,
                Some("Say which: get_credential(name, kind => '...', principal => '...', scope => '...').".into()),
            ),
            Self::NotText { .. } => (
                C::ERRCODE_CHARACTER_NOT_IN_REPERTOIRE,
                Some("Read its bytes: select value from the credentials view.".into()),
            ),
            Self::NotSealed { .. } => (
                C::ERRCODE_CHECK_VIOLATION,
                Some("Write through the credentials view, which seals the value. Only if a newer omni_credentials sealed it, update this one.".into()),
            ),
            Self::SealedValueRefused { reason, .. } => (
                C::ERRCODE_CHECK_VIOLATION,
                Some(format!("Write through the credentials view, which seals the value. {}", reason.remedy())),
            ),
            Self::InvalidField { .. } => (
                C::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                Some("Limits in bytes: name 512, kind 63, scope 2048 as JSON, name and scope together 2600 as stored, value 1048576.".into()),
            ),
            Self::InvalidExpiry { .. } => (
                C::ERRCODE_DATETIME_FIELD_OVERFLOW,
                Some("Leave expires_at out, or write NULL, for a credential that does not expire.".into()),
            ),
            Self::PrincipalMissing { .. } => (
                C::ERRCODE_UNDEFINED_OBJECT,
                Some("Name a role that exists, or leave the principal out: then it is the current user.".into()),
            ),
            Self::NullField { .. } => (
                C::ERRCODE_NOT_NULL_VIOLATION,
                Some("A credential needs a name and a value. The other columns have defaults: leave them out or write DEFAULT.".into()),
            ),
            Self::NotPermitted { .. } => (
                C::ERRCODE_INSUFFICIENT_PRIVILEGE,
                Some("Read it through the credentials view, as a role with the rights of its principal.".into()),
            ),
            Self::SealNotPermitted { .. } => (
                C::ERRCODE_INSUFFICIENT_PRIVILEGE,
                Some("Seal it as a role that has the rights of the principal, or write it through the credentials view, where the policies decide.".into()),
            ),
            Self::NotGranted { privilege, role, schema, .. } => (
                C::ERRCODE_INSUFFICIENT_PRIVILEGE,
                Some(format!("Rights on the view alone are not enough. The owner gives them: select omni_credentials.grant_access({}, {}, {}).", quote(quote_identifier(role)), quote(privilege), quote_schema(schema))),
            ),
            Self::HistoryNotGranted { role, schema } => (
                C::ERRCODE_INSUFFICIENT_PRIVILEGE,
                Some(format!("It is for roles that may read the values. The owner gives that right: select omni_credentials.grant_access({}, 'SELECT', {}).", quote(quote_identifier(role)), quote_schema(schema))),
            ),
            Self::PgcryptoMissing => (
                C::ERRCODE_UNDEFINED_FUNCTION,
                Some("It opens what version 0.2.0 sealed: create extension pgcrypto. It can go again afterwards.".into()),
            ),
            Self::LaterTrigger { trigger, table } => (
                C::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                Some(format!("Rename the trigger so that it sorts before encrypted_credentials_check: alter trigger {} on {table} rename to {};", quote_identifier(trigger), quote_identifier(format!("a_{trigger}")))),
            ),
            Self::NotChanged { .. } => (
                C::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                Some("Nothing was changed. Remove what prevents it, or disable it for the time, and run this again.".into()),
            ),
            Self::NameNotSupported { .. } => (
                C::ERRCODE_FEATURE_NOT_SUPPORTED,
                Some("Rename the schema with ASCII letters only, or use a database in UTF-8.".into()),
            ),
            Self::NotOwner { .. } => (
                C::ERRCODE_INSUFFICIENT_PRIVILEGE,
                Some("Run it as the owner of the instance or as a superuser.".into()),
            ),
            Self::ConcurrentChange { .. } => (
                C::ERRCODE_T_R_SERIALIZATION_FAILURE,
                Some("Run the transaction again.".into()),
            ),
            Self::HoldsCredentials { .. } => (
                C::ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST,
                Some("Save them with pg_dump first. To destroy them: truncate omni_credentials.encrypted_credentials, omni_credentials.encrypted_credential_versions.".into()),
            ),
            Self::ModuleMissing { .. } => (
                C::ERRCODE_UNDEFINED_OBJECT,
                Some("Restore omni_credentials.crypto_modules from a backup, or install the module: select omni_credentials.install_module(name, wasm, digest).".into()),
            ),
            Self::ModuleNotAllowed { .. } => (
                C::ERRCODE_INSUFFICIENT_PRIVILEGE,
                Some("If it may run here, add its digest to omni_credentials.allowed_modules in postgresql.conf and restart the server.".into()),
            ),
            Self::ModuleDigest { .. } => (
                C::ERRCODE_CHECK_VIOLATION,
                Some("The digest of a module is the SHA-256 of its bytes. Get the file again, or the digest from whoever made it.".into()),
            ),
            Self::ModuleUnknown { .. } => (
                C::ERRCODE_UNDEFINED_OBJECT,
                Some("The modules of this database: select name, digest from omni_credentials.crypto_modules. Another one is added by omni_credentials.install_module(name, wasm, digest).".into()),
            ),
            Self::ModuleAmbiguous { .. } => (
                C::ERRCODE_AMBIGUOUS_ALIAS,
                Some("Name the module by its digest.".into()),
            ),
            Self::ModuleInUse { statements, .. } => (
                C::ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST,
                Some(format!("To free it: {statements}")),
            ),
            Self::ModuleBuiltin { .. } => (
                C::ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST,
                Some("It comes with the extension and stays, for instances to start with. An instance moves to another one by omni_credentials.use_module().".into()),
            ),
            Self::NotSuperuser { .. } => (
                C::ERRCODE_INSUFFICIENT_PRIVILEGE,
                Some("Must be superuser: a crypto module sees every credential in the clear, and the environment is the server's.".into()),
            ),
            Self::ModuleRefused { .. } => (
                C::ERRCODE_FEATURE_NOT_SUPPORTED,
                Some("A module imports wasi:random/random only and exports the world omni:credentials/crypto-module@1.0.0.".into()),
            ),
            Self::SystemMemory { .. } => (
                C::ERRCODE_OUT_OF_MEMORY,
                Some("Raise the limit of the server's address space or remove it: LimitAS=infinity in its unit file, ulimit -v in the shell that starts it. Without such a limit, the machine has no memory left.".into()),
            ),
            Self::NoExecutableMemory { .. } => (
                C::ERRCODE_SYSTEM_ERROR,
                Some("Crypto modules are compiled to machine code. In the server's unit file, set MemoryDenyWriteExecute=no and let SystemCallFilter= permit mprotect. With SELinux, permit execmem.".into()),
            ),
            Self::ModuleFailed { .. } => (
                C::ERRCODE_EXTERNAL_ROUTINE_EXCEPTION,
                Some("Nothing was written. The next statement starts with a fresh instance of the module.".into()),
            ),
            Self::Interrupted => (C::ERRCODE_QUERY_CANCELED, None),
            Self::FilePermission { .. } => (
                C::ERRCODE_INSUFFICIENT_PRIVILEGE,
                Some("Only superusers and roles with both pg_read_server_files and pg_write_server_files may use file stores, and the owner of the instance must be one.".into()),
            ),
            Self::FileNotRegistered { filename, schema } => (
                C::ERRCODE_UNDEFINED_OBJECT,
                Some(format!("Register it: select omni_credentials.instantiate_file_store({}, {}).", quote(filename), quote_schema(schema))),
            ),
            Self::FileAlreadyRegistered { filename, schema } => (
                C::ERRCODE_DUPLICATE_OBJECT,
                Some(format!("To read it again: select * from {}.credential_file_store_reload({}).", quote_identifier(schema), quote(filename))),
            ),
            Self::FileSystem { .. } => (
                C::ERRCODE_IO_ERROR,
                Some("The folder must exist and be writable for the server's user, and the file, if there is one, readable: a file of another account needs a group that both have, and mode 0660. Relative names start at the data directory. To go on without the file: omni_credentials.detach_file_store().".into()),
            ),
            Self::FilePlace { .. } => (
                C::ERRCODE_INSUFFICIENT_PRIVILEGE,
                Some("Name the file by a path without symbolic links of other accounts, outside the data directory. To go on without the file: omni_credentials.detach_file_store().".into()),
            ),
            Self::FileLocked { filename } => (
                C::ERRCODE_LOCK_NOT_AVAILABLE,
                Some(format!("Wait for it to finish. If no writer is left, remove {filename}.lock.")),
            ),
            Self::FileInvalid { .. } => (
                C::ERRCODE_BAD_COPY_FILE_FORMAT,
                Some("The file was left as it is. Restore it from version control, or resolve the merge with: omni-credentials merge. To take over a file of omni_credentials 0.2.0: select omni_credentials.import_old_file(...).".into()),
            ),
            Self::FileUnsupported { .. } => (
                C::ERRCODE_FEATURE_NOT_SUPPORTED,
                Some("The file was left as it is. Update omni_credentials, or install the module that made it.".into()),
            ),
            Self::FileLimitExceeded { filename, schema, .. } => (
                C::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                Some(format!("Nothing was written. A file has up to 100000 records, deleted ones included, and 64 MiB. Use several instances, or go on without the file: select omni_credentials.detach_file_store({}, {}).", quote(filename), quote_schema(schema))),
            ),
            Self::FileConflict { filename, schema, .. } => (
                C::ERRCODE_T_R_INTEGRITY_CONSTRAINT_VIOLATION,
                Some(format!(
                    "Nothing was overwritten. Keep one side: select * from {1}.credential_file_store_reload({0}, prefer => 'file'), or prefer => 'table'.",
                    quote(filename), quote_identifier(schema)
                )),
            ),
            Self::PrepareRefused => (
                C::ERRCODE_FEATURE_NOT_SUPPORTED,
                Some("Use COMMIT, or first end the mirroring: omni_credentials.detach_file_store().".into()),
            ),
            Self::NullArgument { .. } => (
                C::ERRCODE_NULL_VALUE_NOT_ALLOWED,
                Some("The functions and their arguments: \\df+ omni_credentials.*".into()),
            ),
            Self::UnknownPrivilege { .. } => (
                C::ERRCODE_INVALID_PARAMETER_VALUE,
                Some("A list of SELECT, INSERT, UPDATE and DELETE, separated by commas.".into()),
            ),
            Self::InvalidArgument(_) => (
                C::ERRCODE_INVALID_PARAMETER_VALUE,
                Some("The functions and their arguments: \\df+ omni_credentials.*".into()),
            ),
            Self::Internal(_) => (
                C::ERRCODE_INTERNAL_ERROR,
                Some("This should not happen: please report it as a bug of omni_credentials.".into()),
            ),
        }
    }
}

impl Unreadable {
    /// Whether another keyring may open the value.
    pub(crate) fn is_of_another_key(self) -> bool {
        matches!(self, Self::UnknownKey | Self::UnknownSuite(_))
    }

    fn sqlstate(self) -> PgSqlErrorCode {
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
    fn remedy(self) -> &'static str {
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
                "Restore the keyring it came with (credentials_keyrings), or set the value again."
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

impl From<pgrx::spi::SpiError> for Error {
    fn from(e: pgrx::spi::SpiError) -> Self {
        Self::Internal(format!("unexpected answer from SPI: {e}"))
    }
}

/// Gives the value or raises the error.
pub(crate) fn or_raise<T>(result: Result<T, Error>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => error.raise(),
    }
}

/// Runs SQL of the extension's own whose text does not belong into an error: a page of CONTEXT tells nothing to whoever
/// called the function. What failed is raised again with its SQLSTATE, message, detail and hint.
pub(crate) fn without_context<T>(run: impl FnOnce() -> T + UnwindSafe) -> T {
    let outcome = PgTryBuilder::new(|| Ok(run()))
        .catch_others(|caught| match caught {
            CaughtError::PostgresError(error) => Err(Box::new(error)),
            other => other.rethrow(),
        })
        .execute();
    match outcome {
        Ok(value) => value,
        Err(error) => {
            let mut report =
                ErrorReport::new(error.sql_error_code(), error.message().to_owned(), "omni_credentials");
            if let Some(detail) = error.detail() {
                report = report.set_detail(detail);
            }
            if let Some(hint) = error.hint() {
                report = report.set_hint(hint);
            }
            report.report(PgLogLevel::ERROR);
            unreachable!("an ERROR report does not return")
        }
    }
}

/// An argument that must not be NULL. No function that does something is STRICT: it would do nothing, and not say so.
pub(crate) fn given<T>(value: Option<T>, argument: &'static str) -> Result<T, Error> {
    value.ok_or(Error::NullArgument { argument })
}

/// The hint for Postgres's own error where a credential of that identity exists: the view takes no ON CONFLICT.
pub(crate) fn credential_exists_hint(schema: &str) -> std::ffi::CString {
    let hint = format!(
        "To set it whether it exists or not: select {}.set_credential(name, value, kind, principal, scope).",
        quote_identifier(schema)
    );
    std::ffi::CString::new(hint).unwrap_or_default()
}

/// A schema as a literal that regnamespace takes, for hints.
fn quote_schema(schema: &str) -> String {
    quote(quote_identifier(schema))
}

/// A credential's name for messages.
pub(crate) fn display_name(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    match name.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{:?}...", name.get(..end).unwrap_or_default()),
        None => format!("{name:?}"),
    }
}

/// How much of a name a message shows.
const SHOWN_CHARACTERS: usize = 128;
