//! The SQLSTATE and the hint of each error. Its message stands with its variant.

use pgrx::PgSqlErrorCode;
use pgrx::spi::{quote_identifier, quote_literal as quote};

use super::Error;

impl Error {
    /// The SQLSTATE and the hint.
    pub(super) fn classify(&self) -> (PgSqlErrorCode, Option<String>) {
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
                Some(format!("Put it back from a backup, with insert into {0}.credentials_keyrings ... on conflict (id) do update. If there are no values that need it: delete from {0}.credentials_keyrings.", quote_identifier(schema))),
            ),
            Self::KeyringDamaged { schema, id } => (
                C::ERRCODE_DATA_CORRUPTED,
                Some(format!("Put it back from a backup, with insert into {0}.credentials_keyrings ... on conflict (id) do update. If no value needs it: delete from {0}.credentials_keyrings where id = {1}.", quote_identifier(schema), quote(id))),
            ),
            Self::KeyringOfAnotherSecret { schema, id, variable } => (
                C::ERRCODE_INVALID_PASSWORD,
                Some(format!("If the secret was changed on another server: select omni_credentials.rotate_master_secret(...), with the same variable as there. If {variable} is wrong, start the server with the right one. If no value needs the keyring: delete from {}.credentials_keyrings where id = {}.", quote_identifier(schema), quote(id))),
            ),
            Self::KeyringModuleMissing { schema, id, .. } => (
                C::ERRCODE_UNDEFINED_OBJECT,
                Some(format!("Install the module: select omni_credentials.install_module(name, wasm, digest). If no value needs the keyring: delete from {}.credentials_keyrings where id = {}.", quote_identifier(schema), quote(id))),
            ),
            Self::KeyringModuleNotAllowed { schema, id, .. } => (
                C::ERRCODE_INSUFFICIENT_PRIVILEGE,
                Some(format!("If it may run here, add its digest to omni_credentials.allowed_modules in postgresql.conf and restart the server. If no value needs the keyring: delete from {}.credentials_keyrings where id = {}.", quote_identifier(schema), quote(id))),
            ),
            Self::TooManyKeyrings { schema, number, .. } => (
                C::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                Some(format!("Delete those that no value needs: delete from {}.credentials_keyrings where number = {number}. If a value needs one of them, the error names it: add and id <> '...'.", quote_identifier(schema))),
            ),
            Self::KeyringNumber { schema, id, free, .. } => (
                C::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                Some(format!("Give it a lower number: update {0}.credentials_keyrings set number = {free} where id = {1}. Or, if no value needs it: delete from {0}.credentials_keyrings where id = {1}.", quote_identifier(schema), quote(id))),
            ),
            Self::KeyringNeeded { schema, .. } => (
                C::ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST,
                Some(format!("To seal all values with a fresh keyring and remove the others: select omni_credentials.use_module({0}), then select omni_credentials.prune_keyrings({0}). Values that do not open: select * from omni_credentials.verify({0}). To destroy the credentials: truncate {1}.encrypted_credentials, {1}.encrypted_credential_versions, {1}.credentials_keyrings.", quote_schema(schema), quote_identifier(schema))),
            ),
            Self::KeyringMissing { schema } => (
                C::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                Some(format!("If replication brought the rows, publish the keyrings with them: alter publication ... add table {0}.credentials_keyrings. Otherwise restore {0}.credentials_keyrings from the backup that the rows came from, or delete the rows from {0}.encrypted_credentials.", quote_identifier(schema))),
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
            Self::ValuesChanging { .. } => (
                C::ERRCODE_OBJECT_IN_USE,
                Some("Remove the keyring by a statement of its own, after the one that changes values.".into()),
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
                Some("The digest of a module is the SHA-256 of its bytes. Get the file again, or ask those who made it for the digest.".into()),
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
                Some("Raise the limit that the message names or remove it: LimitAS=infinity (address space) or LimitDATA=infinity (data segment) in the server's unit file, ulimit -v or ulimit -d in the shell that starts it. Where the message names none, the machine has no memory left.".into()),
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
