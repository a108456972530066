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
    check (pg_catalog.num_nonnulls(kdf_memory_kib, kdf_passes, kdf_lanes) in (0, 3))
) using heap;
comment on table :schema.credentials_config is 'The settings of this instance: one row.';
comment on column :schema.credentials_config.singleton is 'Ensures that the table has a single row.';
comment on column :schema.credentials_config.environment_variable is 'The variable of the server''s environment that holds the master secret; with _FILE appended, one that names a file with it.';
comment on column :schema.credentials_config.module is 'SHA-256 of the crypto module for new keyrings; NULL is the one that comes with the extension.';
comment on column :schema.credentials_config.kdf_memory_kib is 'Argon2id memory for new keyrings, in KiB; NULL leaves all three costs to the module.';
comment on column :schema.credentials_config.kdf_passes is 'Argon2id passes.';
comment on column :schema.credentials_config.kdf_lanes is 'Argon2id lanes.';

create table :schema.credentials_keyrings (
    id integer primary key,
    module bytea not null check (pg_catalog.octet_length(module) = 32),
    keyring bytea not null
) using heap;
comment on table :schema.credentials_keyrings is 'The keyrings of this instance, wrapped under the master secret. The highest id is current; an instance has none before its first credential.';
comment on column :schema.credentials_keyrings.id is 'Counts up with each new keyring.';
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

create trigger encrypted_credentials_check before insert or update on :schema.encrypted_credentials
    for each row execute function :extension.encrypted_credentials_check();
create trigger encrypted_credentials_changed after insert or update or delete or truncate on :schema.encrypted_credentials
    for each statement execute function :extension.encrypted_credentials_changed();
create trigger credentials_keyrings_changed after insert or update or truncate on :schema.credentials_keyrings
    for each statement execute function :extension.credentials_store_changed();
create trigger credentials_keyrings_removed after delete on :schema.credentials_keyrings referencing old table as removed
    for each statement execute function :extension.credentials_store_changed();
create trigger credentials_config_changed after insert or update or delete or truncate on :schema.credentials_config
    for each statement execute function :extension.credentials_store_changed();
create trigger credentials_config_replace before insert on :schema.credentials_config
    for each row execute function :extension.replace_config();
alter table :schema.credentials_config enable always trigger credentials_config_replace;
comment on trigger encrypted_credentials_check on :schema.encrypted_credentials is 'A sealed value must open for its row.';
comment on trigger encrypted_credentials_changed on :schema.encrypted_credentials is 'File stores follow at commit.';
comment on trigger credentials_keyrings_changed on :schema.credentials_keyrings is 'Every session reads the keyrings again. Keyrings stay where there are sealed values.';
comment on trigger credentials_keyrings_removed on :schema.credentials_keyrings is 'The same for rows that are deleted.';
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
    written_as bigint
) using heap;
alter table :schema.credentials_files alter column base set storage external;
alter table :schema.credentials_files alter column pending_base set storage external;
comment on table :schema.credentials_files is 'What is known of the files that mirror this instance. To read it: credential_file_stores.';
comment on column :schema.credentials_files.filename is 'As registered; relative to the data directory unless absolute.';
comment on column :schema.credentials_files.generation is 'The highest generation of the file that this instance has read or written.';
comment on column :schema.credentials_files.synchronized_at is 'When this instance last read or wrote the file.';
comment on column :schema.credentials_files.unloaded is 'How many records of the file the table did not have then.';
comment on column :schema.credentials_files.file_digest is 'SHA-256 of the file then.';
comment on column :schema.credentials_files.base is 'What file and table agreed on then: a manifest (FORMAT.md, section 8).';
comment on column :schema.credentials_files.pending_digest is 'SHA-256 of the file that the last commit wrote, until it is seen in place.';
comment on column :schema.credentials_files.pending_base is 'The manifest that goes with it.';
comment on column :schema.credentials_files.written_as is 'What the extension marks a row with that it wrote. It does not fit a row that a dump restored: that file store is suspended until the file is loaded or written again.';

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
    :schema.credentials, :schema.credential_file_stores
    from :others;
grant all on
    :schema.credentials_config, :schema.credentials_keyrings, :schema.encrypted_credentials, :schema.credentials_files,
    :schema.credentials, :schema.credential_file_stores
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
    :schema.expiring, :schema.credential_file_store_reload, :schema.credential_file_store_sync
    to current_user;
revoke all on type :schema.credential_kind from :others;
grant all on type :schema.credential_kind to current_user;

insert into :schema.credentials_config (environment_variable, kdf_memory_kib, kdf_passes, kdf_lanes)
values (:env_var, :costs);
