-- One instance. Names after a colon are filled in by instantiate(), quoted as they must be; the
-- version is that of the extension whose script this is part of. `others` are PUBLIC and the roles that default privileges
-- of the owner name.

-- What the session has set does not reach the objects made here. The settings end with instantiate().
set local default_table_access_method = heap;
set local default_tablespace = '';

create type :schema.credential_kind as enum (
    'credential', 'api_key', 'api_secret', 'password', 'token', 'token[jwt]', 'token[oauth]',
    'ssh', 'certificate', 'otp', 'saml_assertion');
comment on type :schema.credential_kind is 'What sort of thing a credential is.';

create table :schema.credentials_config (
    singleton boolean primary key default true check (singleton),
    environment_variable text not null,
    module bytea check (pg_catalog.octet_length(module) = 32),
    kdf_memory_kib integer,
    kdf_passes integer,
    kdf_lanes integer,
    history_limit integer not null default 10 check (history_limit between 0 and 1000),
    check (pg_catalog.num_nonnulls(kdf_memory_kib, kdf_passes, kdf_lanes) in (0, 3))
) using heap;
comment on table :schema.credentials_config is 'The settings of this instance: one row.';
comment on column :schema.credentials_config.singleton is 'Ensures that the table has a single row.';
comment on column :schema.credentials_config.environment_variable is 'The variable of the server''s environment that holds the master secret; with _FILE appended, one that names a file with it; with _COMMAND appended, one that names a program that prints it.';
comment on column :schema.credentials_config.module is 'SHA-256 of the crypto module for new keyrings; NULL is the one that comes with the extension.';
comment on column :schema.credentials_config.kdf_memory_kib is 'Argon2id memory for new keyrings, in KiB; NULL leaves all three costs to the module.';
comment on column :schema.credentials_config.kdf_passes is 'Argon2id passes.';
comment on column :schema.credentials_config.history_limit is 'How many replaced or deleted values of a credential the history keeps; 0 is none. To change it: set_history_limit.';
comment on column :schema.credentials_config.kdf_lanes is 'Argon2id lanes.';

-- A random id, so that two servers that replicate to each other can both make a keyring. A changed keyring is a new row.
create table :schema.credentials_keyrings (
    number integer not null,
    module bytea not null check (pg_catalog.octet_length(module) = 32),
    keyring bytea not null,
    id uuid primary key default pg_catalog.gen_random_uuid()
) using heap;
comment on table :schema.credentials_keyrings is 'The keyrings of this instance, wrapped under the master secret. The highest number is current; an instance has none before its first credential.';
comment on column :schema.credentials_keyrings.number is 'Counts up with each keyring that supersedes those before it. Keyrings with one number and module are one keyring: servers that replicate to each other changed it at the same time.';
comment on column :schema.credentials_keyrings.id is 'Random. A changed keyring is a new row with another id.';
comment on column :schema.credentials_keyrings.keyring is 'Data keys, wrapped (FORMAT.md, section 4).';
comment on column :schema.credentials_keyrings.module is 'SHA-256 of the crypto module that the keyring is for.';

create table :schema.encrypted_credentials (
    name text collate pg_catalog."C" not null,
    value bytea not null,
    kind :schema.credential_kind not null default 'credential',
    principal regrole not null default pg_catalog.quote_ident(current_user)::pg_catalog.regrole,
    scope jsonb not null default '{"all": true}',
    -- In whole seconds: a sealed value is bound to it, and a file has no others.
    expires_at timestamptz(0)
) using heap;
alter table :schema.encrypted_credentials alter column value set storage external;
create unique index encrypted_credentials_uniq on :schema.encrypted_credentials (name, kind, principal, scope);
-- So that logical replication can carry updates and deletes.
alter table :schema.encrypted_credentials replica identity using index encrypted_credentials_uniq;
comment on index :schema.encrypted_credentials_uniq is 'One credential for each name, kind, principal and scope.';
comment on table :schema.encrypted_credentials is 'Credentials with their values sealed. Read and write them through the view credentials.';
comment on column :schema.encrypted_credentials.name is 'What the credential is called; up to 512 bytes.';
comment on column :schema.encrypted_credentials.value is 'The sealed value; it opens for this very name, kind, principal, scope and expires_at only.';
comment on column :schema.encrypted_credentials.kind is 'What sort of thing it is.';
comment on column :schema.encrypted_credentials.principal is 'The role that it is for.';
comment on column :schema.encrypted_credentials.scope is 'Where it is valid; up to 2048 bytes of JSON.';
comment on column :schema.encrypted_credentials.expires_at is 'When it expires, from 1970 to 9999; NULL is never.';

alter table :schema.encrypted_credentials enable row level security;
create policy encrypted_credentials_principal on :schema.encrypted_credentials
    using (pg_catalog.pg_has_role(principal::pg_catalog.oid, 'USAGE'))
    with check (pg_catalog.pg_has_role(principal::pg_catalog.oid, 'USAGE'));
comment on policy encrypted_credentials_principal on :schema.encrypted_credentials is 'A role reads and writes the credentials of the roles whose rights it has.';

-- What was replaced or deleted. The first columns are those of encrypted_credentials, whose policies decide who sees a row
-- here: the view credential_versions has the server ask them. Row-level security without a policy of its own keeps everyone
-- but the owner from the table itself.
create table :schema.encrypted_credential_versions (
    name text collate pg_catalog."C" not null,
    value bytea not null,
    kind :schema.credential_kind not null,
    principal regrole not null,
    scope jsonb not null,
    expires_at timestamptz(0),
    version bigint not null,
    valid_from timestamptz,
    valid_until timestamptz not null,
    changed_by name not null,
    deleted boolean not null
) using heap;
alter table :schema.encrypted_credential_versions alter column value set storage external;
-- The time is in it for two servers that replicate to each other: both may make a version of the same number.
create unique index encrypted_credential_versions_uniq on :schema.encrypted_credential_versions
    (name, kind, principal, scope, version, valid_until);
alter table :schema.encrypted_credential_versions replica identity using index encrypted_credential_versions_uniq;
alter table :schema.encrypted_credential_versions enable row level security;
comment on index :schema.encrypted_credential_versions_uniq is 'Finds the versions of a credential.';
comment on table :schema.encrypted_credential_versions is 'The history: values that were replaced or deleted, sealed. Read it through the view credential_versions. The extension writes it.';
comment on column :schema.encrypted_credential_versions.name is 'What the credential was called.';
comment on column :schema.encrypted_credential_versions.value is 'The sealed value, as encrypted_credentials had it.';
comment on column :schema.encrypted_credential_versions.kind is 'What sort of thing it was.';
comment on column :schema.encrypted_credential_versions.principal is 'The role that it was for.';
comment on column :schema.encrypted_credential_versions.scope is 'Where it was valid.';
comment on column :schema.encrypted_credential_versions.expires_at is 'When it was to expire.';
comment on column :schema.encrypted_credential_versions.version is 'Counts up with each change of a credential.';
comment on column :schema.encrypted_credential_versions.valid_from is 'When the version before it was replaced; NULL where the history does not know since when it was valid.';
comment on column :schema.encrypted_credential_versions.valid_until is 'When it was replaced or deleted.';
comment on column :schema.encrypted_credential_versions.changed_by is 'The role that replaced or deleted it.';
comment on column :schema.encrypted_credential_versions.deleted is 'Whether it was deleted, and not replaced.';

create trigger encrypted_credentials_check before insert or update on :schema.encrypted_credentials
    for each row execute function :extension.encrypted_credentials_check();
create trigger encrypted_credentials_changed after insert or update or delete or truncate on :schema.encrypted_credentials
    for each statement execute function :extension.encrypted_credentials_changed();
create trigger encrypted_credentials_keep after update or delete on :schema.encrypted_credentials
    for each row execute function :extension.encrypted_credentials_keep();
create trigger encrypted_credential_versions_check before insert or update or delete on :schema.encrypted_credential_versions
    for each row execute function :extension.encrypted_credential_versions_check();
create trigger credentials_keyrings_changed after insert or update or delete or truncate on :schema.credentials_keyrings
    for each statement execute function :extension.credentials_store_changed();
alter table :schema.credentials_keyrings enable always trigger credentials_keyrings_changed;
create trigger credentials_keyrings_arrive before insert or update or delete on :schema.credentials_keyrings
    for each row execute function :extension.credentials_store_changed();
alter table :schema.credentials_keyrings enable always trigger credentials_keyrings_arrive;
create trigger credentials_config_changed after insert or update or delete or truncate on :schema.credentials_config
    for each statement execute function :extension.credentials_store_changed();
create trigger credentials_config_replace before insert on :schema.credentials_config
    for each row execute function :extension.replace_config();
alter table :schema.credentials_config enable always trigger credentials_config_replace;
comment on trigger encrypted_credentials_check on :schema.encrypted_credentials is 'A sealed value must open for its row.';
comment on trigger encrypted_credentials_changed on :schema.encrypted_credentials is 'File stores follow at commit.';
comment on trigger encrypted_credentials_keep on :schema.encrypted_credentials is 'What is replaced or deleted goes to the history.';
comment on trigger encrypted_credential_versions_check on :schema.encrypted_credential_versions is 'No one but the extension writes the history, and what restores a dump.';
comment on trigger credentials_keyrings_changed on :schema.credentials_keyrings is 'Every session reads the keyrings again. TRUNCATE fails where there are sealed values.';
comment on trigger credentials_keyrings_arrive on :schema.credentials_keyrings is 'The same for what logical replication brings. A keyring that values need is neither deleted nor overwritten.';
comment on trigger credentials_config_changed on :schema.credentials_config is 'Every session reads the settings again.';
comment on trigger credentials_config_replace on :schema.credentials_config is 'A dump''s settings take the place of those of CREATE EXTENSION.';

create table :schema.credentials_files (
    filename text collate pg_catalog."C" primary key,
    generation bigint,
    synchronized_at timestamptz,
    unloaded integer not null default 0,
    file_digest bytea,
    base bytea not null default '',
    pending_digest bytea,
    pending_base bytea,
    written_as bigint,
    base_changes bytea,
    pending_changes bytea
) using heap;
alter table :schema.credentials_files alter column base set storage external;
alter table :schema.credentials_files alter column pending_base set storage external;
alter table :schema.credentials_files alter column base_changes set storage external;
alter table :schema.credentials_files alter column pending_changes set storage external;
comment on table :schema.credentials_files is 'What is known of the files that mirror this instance. To read it: credential_file_stores.';
comment on column :schema.credentials_files.filename is 'As registered; relative to the data directory unless absolute.';
comment on column :schema.credentials_files.generation is 'The highest generation of the file that this instance has read or written.';
comment on column :schema.credentials_files.synchronized_at is 'When this instance last read or wrote the file.';
comment on column :schema.credentials_files.unloaded is 'How many records of the file the table did not have then.';
comment on column :schema.credentials_files.file_digest is 'SHA-256 of the file then.';
comment on column :schema.credentials_files.base is 'What file and table agreed on then: a manifest (FORMAT.md, section 8).';
comment on column :schema.credentials_files.pending_digest is 'SHA-256 of the file that the last commit wrote, until it is seen in place.';
comment on column :schema.credentials_files.pending_base is 'The manifest that goes with it, unless pending_changes says it.';
comment on column :schema.credentials_files.written_as is 'What the extension marks a row with that it wrote. It does not fit a row that a dump restored: that file store is suspended until the file is loaded or written again.';
comment on column :schema.credentials_files.base_changes is 'What changed since base was written: the few changes of each commit, so that it need not be written each time.';
comment on column :schema.credentials_files.pending_changes is 'What changes in base with the file that the last commit wrote.';

