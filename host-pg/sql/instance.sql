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
create trigger credentials_keyrings_changed after insert or update or truncate on :schema.credentials_keyrings
    for each statement execute function :extension.credentials_store_changed();
create trigger credentials_keyrings_removed after delete on :schema.credentials_keyrings referencing old table as removed
    for each statement execute function :extension.credentials_store_changed();
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
comment on trigger credentials_keyrings_changed on :schema.credentials_keyrings is 'Every session reads the keyrings again. Keyrings stay where there are sealed values.';
comment on trigger credentials_keyrings_removed on :schema.credentials_keyrings is 'The same for rows that are deleted.';
comment on trigger credentials_keyrings_arrive on :schema.credentials_keyrings is 'The same for what logical replication brings. A keyring that another server removed stays where values need it.';
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

create view :schema.credentials with (security_invoker = true) as
    select c.name,
           :extension.open_credential(c.tableoid, c.name, c.kind, c.principal, c.scope, c.value, c.expires_at) as value,
           c.kind, c.principal, c.scope, c.expires_at
    from :schema.encrypted_credentials c
    -- Always true, and gone when a query is planned: none of these is dropped before the view is.
    where pg_catalog.num_nonnulls(:keyrings::pg_catalog.regclass, :config::pg_catalog.regclass, :files::pg_catalog.regclass) operator(pg_catalog.=) 3;
alter view :schema.credentials
    alter column kind set default 'credential',
    alter column principal set default pg_catalog.quote_ident(current_user)::pg_catalog.regrole,
    alter column scope set default '{"all": true}';
create trigger credentials_write instead of insert or update or delete on :schema.credentials
    for each row execute function :extension.credentials_write('@CARGO_VERSION@');
comment on trigger credentials_write on :schema.credentials is 'Seals values and writes encrypted_credentials as the caller.';
comment on view :schema.credentials is 'Credentials in the clear, for the roles that they belong to.';
comment on column :schema.credentials.name is 'What the credential is called.';
comment on column :schema.credentials.value is 'Its value, opened; sealed when written.';
comment on column :schema.credentials.kind is 'What sort of thing it is.';
comment on column :schema.credentials.principal is 'The role that it is for; by default the current user.';
comment on column :schema.credentials.scope is 'Where it is valid; by default everywhere.';
comment on column :schema.credentials.expires_at is 'When it expires; NULL is never. It opens afterwards, too.';

-- Setting and reading one credential. Literals and parameters without a type take the functions whose arguments are text,
-- since Postgres prefers text. No two of them take the same arguments, whichever are left out: those with the types of the
-- table have one that must be given. And where one takes text in a place, the others take whatever they like, but a place
-- without text has one type in all of them: that is why the scope of some comes last.
create function :schema.set_credential(
    name text,
    value bytea,
    kind :schema.credential_kind,
    principal regrole default null,
    scope jsonb default null,
    expires_at timestamptz default null)
returns void
language sql
begin atomic
    insert into :schema.encrypted_credentials as c (name, value, kind, principal, scope, expires_at)
    select n.name,
        :extension.seal_credential(
            :table::pg_catalog.regclass, n.name, n.kind, n.principal, n.scope, n.value, n.expires_at),
        n.kind, n.principal, n.scope, n.expires_at
    from (select
        set_credential.name,
        set_credential.value,
        coalesce(set_credential.kind, 'credential') as kind,
        coalesce(set_credential.principal, pg_catalog.quote_ident(current_user)::pg_catalog.regrole) as principal,
        coalesce(set_credential.scope, '{"all": true}') as scope,
        set_credential.expires_at::timestamptz(0) as expires_at) n
    on conflict (name, kind, principal, scope) do update set value = excluded.value, expires_at = excluded.expires_at;
end;
create function :schema.set_credential(
    name text,
    value bytea,
    kind text default null,
    principal text default null,
    scope jsonb default null,
    expires_at timestamptz default null)
returns void
language sql
begin atomic
    select :schema.set_credential(
        set_credential.name,
        set_credential.value,
        cast(set_credential.kind as :schema.credential_kind),
        -- The exact name of a role, such as current_user, or what a literal of type regrole may be.
        coalesce(
            (select r.oid from pg_catalog.pg_roles r where r.rolname operator(pg_catalog.=) set_credential.principal),
            set_credential.principal::pg_catalog.regrole::pg_catalog.oid)::pg_catalog.regrole,
        set_credential.scope,
        set_credential.expires_at);
end;
create function :schema.set_credential(
    name text,
    value bytea,
    principal regrole,
    expires_at timestamptz default null,
    scope jsonb default null)
returns void
language sql
begin atomic
    select :schema.set_credential(
        set_credential.name, set_credential.value, cast(null as :schema.credential_kind), set_credential.principal, set_credential.scope,
        set_credential.expires_at);
end;
create function :schema.set_credential(
    name text,
    value text,
    kind text default null,
    principal text default null,
    scope jsonb default null,
    expires_at timestamptz default null)
returns void
language sql
begin atomic
    select :schema.set_credential(
        set_credential.name,
        pg_catalog.convert_to(set_credential.value, 'UTF8'),
        set_credential.kind,
        set_credential.principal,
        set_credential.scope,
        set_credential.expires_at);
end;
create function :schema.set_credential(
    name text,
    value text,
    kind :schema.credential_kind,
    principal regrole default null,
    scope jsonb default null,
    expires_at timestamptz default null)
returns void
language sql
begin atomic
    select :schema.set_credential(
        set_credential.name,
        pg_catalog.convert_to(set_credential.value, 'UTF8'),
        set_credential.kind,
        set_credential.principal,
        set_credential.scope,
        set_credential.expires_at);
end;
create function :schema.set_credential(
    name text,
    value text,
    principal regrole,
    expires_at timestamptz default null,
    scope jsonb default null)
returns void
language sql
begin atomic
    select :schema.set_credential(
        set_credential.name,
        pg_catalog.convert_to(set_credential.value, 'UTF8'),
        cast(null as :schema.credential_kind),
        set_credential.principal,
        set_credential.scope,
        set_credential.expires_at);
end;
comment on function :schema.set_credential(text, text, text, text, jsonb, timestamptz) is 'Sets a credential, whether it exists or not. The value is stored as its UTF-8 bytes, exactly as given. What is left out or NULL has the default of the view. Without expires_at it does not expire, not even if it did before.';
comment on function :schema.set_credential(text, text, :schema.credential_kind, regrole, jsonb, timestamptz) is 'The same with the types of the view.';
comment on function :schema.set_credential(text, text, regrole, timestamptz, jsonb) is 'The same for a principal, with the default kind.';
comment on function :schema.set_credential(text, bytea, text, text, jsonb, timestamptz) is 'The same for a value of any bytes.';
comment on function :schema.set_credential(text, bytea, :schema.credential_kind, regrole, jsonb, timestamptz) is 'The same for a value of any bytes, with the types of the view.';
comment on function :schema.set_credential(text, bytea, regrole, timestamptz, jsonb) is 'The same for a value of any bytes and a principal, with the default kind.';

create function :schema.get_credential(
    name text,
    kind text default null,
    principal text default null,
    scope jsonb default null)
returns text
language sql stable
begin atomic
    select :extension.text_of_one(get_credential.name, pg_catalog.count(*), (pg_catalog.array_agg(f.value))[1])
    from (
        select :extension.open_credential(c.tableoid, c.name, c.kind, c.principal, c.scope, c.value, c.expires_at) as value
        from :schema.encrypted_credentials c
        where c.name operator(pg_catalog.=) get_credential.name
          and (get_credential.kind is null or c.kind operator(pg_catalog.=) cast(get_credential.kind as :schema.credential_kind))
          and (get_credential.principal is null or c.principal operator(pg_catalog.=) (select coalesce(
            (select r.oid from pg_catalog.pg_roles r where r.rolname operator(pg_catalog.=) get_credential.principal),
            get_credential.principal::pg_catalog.regrole::pg_catalog.oid)))
          and (get_credential.scope is null or c.scope operator(pg_catalog.=) get_credential.scope)
        limit 2) f;
end;
create function :schema.get_credential(
    name text,
    kind :schema.credential_kind,
    principal regrole default null,
    scope jsonb default null)
returns text
language sql stable
begin atomic
    select :extension.text_of_one(get_credential.name, pg_catalog.count(*), (pg_catalog.array_agg(f.value))[1])
    from (
        select :extension.open_credential(c.tableoid, c.name, c.kind, c.principal, c.scope, c.value, c.expires_at) as value
        from :schema.encrypted_credentials c
        where c.name operator(pg_catalog.=) get_credential.name
          and (get_credential.kind is null or c.kind operator(pg_catalog.=) get_credential.kind)
          and (get_credential.principal is null or c.principal operator(pg_catalog.=) get_credential.principal)
          and (get_credential.scope is null or c.scope operator(pg_catalog.=) get_credential.scope)
        limit 2) f;
end;
create function :schema.get_credential(
    name text,
    principal regrole,
    scope jsonb default null)
returns text
language sql stable
begin atomic
    select :schema.get_credential(
        get_credential.name, cast(null as :schema.credential_kind), get_credential.principal, get_credential.scope);
end;
comment on function :schema.get_credential(text, text, text, jsonb) is 'The value of a credential as text: an error if there is none or if there are several, or if the value is not text. What is left out or NULL may be anything.';
comment on function :schema.get_credential(text, :schema.credential_kind, regrole, jsonb) is 'The same with the types of the view.';
comment on function :schema.get_credential(text, regrole, jsonb) is 'The same for a principal.';

create view :schema.credential_versions with (security_invoker = true) as
    select v.name,
           :extension.open_credential(:table::pg_catalog.regclass, v.name, v.kind, v.principal, v.scope, v.value, v.expires_at) as value,
           v.kind, v.principal, v.scope, v.expires_at, v.version, v.valid_from, v.valid_until, v.changed_by, v.deleted
    from :extension.versions_seen(:table::pg_catalog.regclass, null, cast(null as :schema.credential_kind), null, null, null)
        as v (name text, value bytea, kind :schema.credential_kind, principal regrole, scope jsonb, expires_at timestamptz,
            version bigint, valid_from timestamptz, valid_until timestamptz, changed_by name, deleted boolean)
    -- As in credentials.
    where pg_catalog.num_nonnulls(:versions::pg_catalog.regclass) operator(pg_catalog.=) 1;
comment on view :schema.credential_versions is 'The values that credentials had before, in the clear, for the roles that may read the credentials.';
comment on column :schema.credential_versions.name is 'What the credential was called.';
comment on column :schema.credential_versions.value is 'The value, opened.';
comment on column :schema.credential_versions.kind is 'What sort of thing it was.';
comment on column :schema.credential_versions.principal is 'The role that it was for.';
comment on column :schema.credential_versions.scope is 'Where it was valid.';
comment on column :schema.credential_versions.expires_at is 'When it was to expire.';
comment on column :schema.credential_versions.version is 'Counts up with each change of a credential.';
comment on column :schema.credential_versions.valid_from is 'When the version before it was replaced; NULL where the history does not know since when it was valid.';
comment on column :schema.credential_versions.valid_until is 'When it was replaced or deleted.';
comment on column :schema.credential_versions.changed_by is 'The role that replaced or deleted it.';
comment on column :schema.credential_versions.deleted is 'Whether it was deleted, and not replaced.';

-- As for the functions before: none of these takes the arguments of another one, whichever are left out.
create function :schema.get_credential(
    name text,
    version bigint,
    kind :schema.credential_kind,
    principal regrole default null,
    scope jsonb default null)
returns text
language sql stable
begin atomic
    select case when coalesce(get_credential.version, 0) operator(pg_catalog.=) 0
        then :schema.get_credential(get_credential.name, get_credential.kind, get_credential.principal, get_credential.scope)
        else (select :extension.text_of_one(get_credential.name, 1,
            :extension.open_credential(:table::pg_catalog.regclass, v.name, v.kind, v.principal, v.scope, v.value, v.expires_at))
        from :extension.versions_seen(
            :table::pg_catalog.regclass, get_credential.name, get_credential.kind, get_credential.principal, get_credential.scope,
            get_credential.version)
            as v (name text, value bytea, kind :schema.credential_kind, principal regrole, scope jsonb, expires_at timestamptz,
                version bigint, valid_from timestamptz, valid_until timestamptz, changed_by name, deleted boolean))
        end;
end;
create function :schema.get_credential(
    name text,
    version bigint,
    kind text default null,
    principal text default null,
    scope jsonb default null)
returns text
language sql stable
begin atomic
    select :schema.get_credential(
        get_credential.name,
        get_credential.version,
        cast(get_credential.kind as :schema.credential_kind),
        coalesce(
            (select r.oid from pg_catalog.pg_roles r where r.rolname operator(pg_catalog.=) get_credential.principal),
            get_credential.principal::pg_catalog.regrole::pg_catalog.oid)::pg_catalog.regrole,
        get_credential.scope);
end;
create function :schema.get_credential(
    name text,
    version bigint,
    principal regrole,
    scope jsonb default null)
returns text
language sql stable
begin atomic
    select :schema.get_credential(
        get_credential.name, get_credential.version, cast(null as :schema.credential_kind), get_credential.principal, get_credential.scope);
end;
comment on function :schema.get_credential(text, bigint, text, text, jsonb) is 'The value of a version of a credential as text: its number in credential_versions, or -1 for the value before the present one, or before it was deleted, -2 for the one before that. 0 or NULL is the present one.';
comment on function :schema.get_credential(text, bigint, :schema.credential_kind, regrole, jsonb) is 'The same with the types of the view.';
comment on function :schema.get_credential(text, bigint, regrole, jsonb) is 'The same for a principal.';

create function :schema.restore_credential(
    name text,
    kind :schema.credential_kind,
    principal regrole default null,
    scope jsonb default null,
    version bigint default -1)
returns bigint
language sql
begin atomic
    with v as materialized (
        select *
        from :extension.versions_seen(
            :table::pg_catalog.regclass, restore_credential.name, restore_credential.kind, restore_credential.principal,
            restore_credential.scope, coalesce(restore_credential.version, -1))
            as v (name text, value bytea, kind :schema.credential_kind, principal regrole, scope jsonb, expires_at timestamptz,
                version bigint, valid_from timestamptz, valid_until timestamptz, changed_by name, deleted boolean)),
    restored as (
        insert into :schema.encrypted_credentials as c (name, value, kind, principal, scope, expires_at)
        select v.name, v.value, v.kind, v.principal, v.scope, v.expires_at from v
        on conflict (name, kind, principal, scope) do update set value = excluded.value, expires_at = excluded.expires_at)
    select v.version from v;
end;
create function :schema.restore_credential(
    name text,
    kind text default null,
    principal text default null,
    scope jsonb default null,
    version bigint default -1)
returns bigint
language sql
begin atomic
    select :schema.restore_credential(
        restore_credential.name,
        cast(restore_credential.kind as :schema.credential_kind),
        coalesce(
            (select r.oid from pg_catalog.pg_roles r where r.rolname operator(pg_catalog.=) restore_credential.principal),
            restore_credential.principal::pg_catalog.regrole::pg_catalog.oid)::pg_catalog.regrole,
        restore_credential.scope,
        restore_credential.version);
end;
create function :schema.restore_credential(
    name text,
    principal regrole,
    version bigint default -1,
    scope jsonb default null)
returns bigint
language sql
begin atomic
    select :schema.restore_credential(
        restore_credential.name, cast(null as :schema.credential_kind), restore_credential.principal, restore_credential.scope,
        restore_credential.version);
end;
comment on function :schema.restore_credential(text, text, text, jsonb, bigint) is 'Gives a credential the value and the expiry again that it had in a version of its history, by default the last one, whether it was replaced or deleted. Returns the version. The value that it replaces goes to the history.';
comment on function :schema.restore_credential(text, :schema.credential_kind, regrole, jsonb, bigint) is 'The same with the types of the view.';
comment on function :schema.restore_credential(text, regrole, bigint, jsonb) is 'The same for a principal.';

create function :schema.purge_history(
    name text default null,
    older_than interval default null,
    everything boolean default false)
returns bigint
language sql
begin atomic
    select :extension.purge_versions(
        :namespace::pg_catalog.regnamespace, purge_history.name,
        pg_catalog.now() operator(pg_catalog.-) purge_history.older_than, purge_history.everything);
end;
comment on function :schema.purge_history is 'Removes values from the history: those of a name, those that were replaced or deleted longer ago than an age, both, or everything. Returns how many. For the owner of the instance.';

create function :schema.set_history_limit(versions integer)
returns void
language sql
begin atomic
    select :extension.change_history_limit(:namespace::pg_catalog.regnamespace, set_history_limit.versions);
end;
comment on function :schema.set_history_limit is 'How many replaced or deleted values of a credential are kept from its next change on; 0 is none. What is kept already stays until then, with 0 until purge_history. For the owner of the instance.';

create function :schema.expiring(within interval default '30 days')
returns table (name text, kind :schema.credential_kind, principal regrole, scope jsonb, expires_at timestamptz)
language sql stable
begin atomic
    select c.name, c.kind, c.principal, c.scope, c.expires_at
    from :schema.encrypted_credentials c
    where c.expires_at operator(pg_catalog.<=) (pg_catalog.now() operator(pg_catalog.+) expiring.within)
    order by c.expires_at, c.name;
end;
comment on function :schema.expiring is 'The credentials that have expired or will expire within this time, those of the caller''s principals. Opens nothing.';

create view :schema.credential_file_stores as
    select s.filename, s.generation, s.synchronized_at, s.in_step, s.reason
    from :extension.file_store_status(:namespace::pg_catalog.regnamespace) s;
comment on view :schema.credential_file_stores is 'The files that mirror this instance, and whether they are in step.';
comment on column :schema.credential_file_stores.filename is 'As registered; relative to the data directory unless absolute.';
comment on column :schema.credential_file_stores.generation is 'The highest generation of the file that this instance has read or written.';
comment on column :schema.credential_file_stores.synchronized_at is 'When this instance last read or wrote the file.';
comment on column :schema.credential_file_stores.in_step is 'Whether file and table hold the same; NULL on a standby, and where the reader may not read the server''s files.';
comment on column :schema.credential_file_stores.reason is 'Why they do not, and how to fix it.';

create function :schema.credential_file_store_reload(
    filename text, prefer text default null, dry_run boolean default false)
returns table (name text, kind text, principal text, scope jsonb, action text, reason text)
language sql
begin atomic
    select r.name, r.kind, r.principal, r.scope, r.action, r.reason
    from :extension.file_store_reload(
        :namespace::pg_catalog.regnamespace,
        credential_file_store_reload.filename, credential_file_store_reload.prefer, credential_file_store_reload.dry_run) r;
end;
comment on function :schema.credential_file_store_reload is 'Imports the changes in a registered file. Says what it added, changed, removed and skipped. Where file and table changed the same credential, prefer => ''file'' or ''table'' decides.';

create function :schema.credential_file_store_sync(filename text)
returns void
language sql
begin atomic
    select :extension.file_store_sync(
        :namespace::pg_catalog.regnamespace, credential_file_store_sync.filename);
end;
comment on function :schema.credential_file_store_sync is 'Writes a registered file again before the transaction commits, if it is behind the table. Changes in the file stay there.';

-- For the owner, who gives access with grant_access. No row is written before this.
revoke all on
    :schema.credentials_config, :schema.credentials_keyrings, :schema.encrypted_credentials, :schema.credentials_files,
    :schema.encrypted_credential_versions, :schema.credentials, :schema.credential_versions, :schema.credential_file_stores
    from :others;
grant all on
    :schema.credentials_config, :schema.credentials_keyrings, :schema.encrypted_credentials, :schema.credentials_files,
    :schema.encrypted_credential_versions, :schema.credentials, :schema.credential_versions, :schema.credential_file_stores
    to current_user;
revoke all on function
    :schema.set_credential(text, text, text, text, jsonb, timestamptz),
    :schema.set_credential(text, text, :schema.credential_kind, regrole, jsonb, timestamptz),
    :schema.set_credential(text, text, regrole, timestamptz, jsonb),
    :schema.set_credential(text, bytea, text, text, jsonb, timestamptz),
    :schema.set_credential(text, bytea, :schema.credential_kind, regrole, jsonb, timestamptz),
    :schema.set_credential(text, bytea, regrole, timestamptz, jsonb),
    :schema.get_credential(text, text, text, jsonb),
    :schema.get_credential(text, :schema.credential_kind, regrole, jsonb),
    :schema.get_credential(text, regrole, jsonb),
    :schema.get_credential(text, bigint, text, text, jsonb),
    :schema.get_credential(text, bigint, :schema.credential_kind, regrole, jsonb),
    :schema.get_credential(text, bigint, regrole, jsonb),
    :schema.restore_credential(text, text, text, jsonb, bigint),
    :schema.restore_credential(text, :schema.credential_kind, regrole, jsonb, bigint),
    :schema.restore_credential(text, regrole, bigint, jsonb),
    :schema.purge_history, :schema.set_history_limit,
    :schema.expiring, :schema.credential_file_store_reload, :schema.credential_file_store_sync
    from :others;
grant all on function
    :schema.set_credential(text, text, text, text, jsonb, timestamptz),
    :schema.set_credential(text, text, :schema.credential_kind, regrole, jsonb, timestamptz),
    :schema.set_credential(text, text, regrole, timestamptz, jsonb),
    :schema.set_credential(text, bytea, text, text, jsonb, timestamptz),
    :schema.set_credential(text, bytea, :schema.credential_kind, regrole, jsonb, timestamptz),
    :schema.set_credential(text, bytea, regrole, timestamptz, jsonb),
    :schema.get_credential(text, text, text, jsonb),
    :schema.get_credential(text, :schema.credential_kind, regrole, jsonb),
    :schema.get_credential(text, regrole, jsonb),
    :schema.get_credential(text, bigint, text, text, jsonb),
    :schema.get_credential(text, bigint, :schema.credential_kind, regrole, jsonb),
    :schema.get_credential(text, bigint, regrole, jsonb),
    :schema.restore_credential(text, text, text, jsonb, bigint),
    :schema.restore_credential(text, :schema.credential_kind, regrole, jsonb, bigint),
    :schema.restore_credential(text, regrole, bigint, jsonb),
    :schema.purge_history, :schema.set_history_limit,
    :schema.expiring, :schema.credential_file_store_reload, :schema.credential_file_store_sync
    to current_user;
revoke all on type :schema.credential_kind from :others;
grant all on type :schema.credential_kind to current_user;

insert into :schema.credentials_config (environment_variable, kdf_memory_kib, kdf_passes, kdf_lanes)
values (:env_var, :costs);
