\echo Use "CREATE EXTENSION omni_credentials" to load this file. \quit

-- The functions in the library, and what all copies share.
-- Nothing here is granted to PUBLIC; omni_credentials.grant_access gives a role what it needs.

create function omni_credentials.open_credential(
    store oid, name text, kind anyenum, principal regrole, scope jsonb, sealed bytea)
returns bytea
language c stable strict parallel safe cost 100
as 'MODULE_PATHNAME', 'open_credential_wrapper';
comment on function omni_credentials.open_credential(oid, text, anyenum, regrole, jsonb, bytea) is
'Opens a sealed value for its credential; what the credentials view calls. Members of the principal, roles past row-level security, and roles whom the policies show the row.';

create function omni_credentials.seal_credential(
    store oid, name text, kind anyenum, principal regrole, scope jsonb, value bytea)
returns bytea
language c volatile strict parallel unsafe cost 100
as 'MODULE_PATHNAME', 'seal_credential_wrapper';
comment on function omni_credentials.seal_credential(oid, text, anyenum, regrole, jsonb, bytea) is
'Seals a value for a row of encrypted_credentials. Roles that may insert into or update that table.';

create function omni_credentials.credentials_write() returns trigger
language c as 'MODULE_PATHNAME', 'credentials_write_wrapper';
comment on function omni_credentials.credentials_write() is
'INSTEAD OF trigger of a credentials view: seals values and writes encrypted_credentials as the caller.';

create function omni_credentials.encrypted_credentials_check() returns trigger
language c as 'MODULE_PATHNAME', 'encrypted_credentials_check_wrapper';
comment on function omni_credentials.encrypted_credentials_check() is
'Refuses a sealed value that does not open for the row it is written to.';

create function omni_credentials.encrypted_credentials_changed() returns trigger
language c as 'MODULE_PATHNAME', 'encrypted_credentials_changed_wrapper';
comment on function omni_credentials.encrypted_credentials_changed() is
'Notes that the file stores of this copy must be written before the transaction commits.';

create function omni_credentials.credentials_store_changed() returns trigger
language c as 'MODULE_PATHNAME', 'credentials_store_changed_wrapper';
comment on function omni_credentials.credentials_store_changed() is
'Tells every backend to read keyrings and settings again.';

create function omni_credentials.generate_master_key() returns text
language c volatile parallel safe
as 'MODULE_PATHNAME', 'generate_master_key_wrapper';
comment on function omni_credentials.generate_master_key() is
'A fresh random master key for the environment of a server. It is not kept anywhere.';

create function omni_credentials.instantiate(
    schema regnamespace default 'omni_credentials',
    env_var text default 'OMNI_CREDENTIALS_MASTER_PASSWORD',
    kdf_memory_kib integer default null,
    kdf_passes integer default null,
    kdf_lanes integer default null)
returns void
language c volatile
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'instantiate_wrapper';
comment on function omni_credentials.instantiate(regnamespace, text, integer, integer, integer) is
'Makes an independent copy of the credential store in a schema, with its own keys and its own master secret. The three Argon2id costs go together; without them the module chooses.';

create function omni_credentials.instantiate_file_store(
    filename text,
    schema regnamespace default 'omni_credentials',
    prefer text default null)
returns table (name text, kind text, principal text, scope jsonb, action text, reason text)
language c volatile
as 'MODULE_PATHNAME', 'instantiate_file_store_wrapper';
comment on function omni_credentials.instantiate_file_store(text, regnamespace, text) is
'Mirrors a copy of the store into an encrypted file: imports what the file has, exports what it lacks, and keeps it up to date with every commit. Returns what was imported.';

create function omni_credentials.file_store_reload(
    schema regnamespace, filename text, prefer text, dry_run boolean)
returns table (name text, kind text, principal text, scope jsonb, action text, reason text)
language c volatile
as 'MODULE_PATHNAME', 'file_store_reload_wrapper';
comment on function omni_credentials.file_store_reload(regnamespace, text, text, boolean) is
'What credential_file_store_reload in each copy calls.';

create function omni_credentials.verify(schema regnamespace default 'omni_credentials')
returns table (name text, kind text, principal text, scope jsonb, reason text)
language c volatile
as 'MODULE_PATHNAME', 'verify_wrapper';
comment on function omni_credentials.verify(regnamespace) is
'The credentials of a copy that do not open, and why. Looks at the rows that the caller may see.';

create function omni_credentials.rotate_key(schema regnamespace default 'omni_credentials')
returns bigint
language c volatile
as 'MODULE_PATHNAME', 'rotate_key_wrapper';
comment on function omni_credentials.rotate_key(regnamespace) is
'Adds a data key and seals every credential again with it. Returns how many. All or nothing.';

create function omni_credentials.rotate_master_secret(
    new_env_var text, schema regnamespace default 'omni_credentials')
returns void
language c volatile
as 'MODULE_PATHNAME', 'rotate_master_secret_wrapper';
comment on function omni_credentials.rotate_master_secret(text, regnamespace) is
'Wraps the keyring under the secret in another environment variable, which the copy uses from then on. No credential is touched.';

create function omni_credentials.rename_principal(
    old_name text, principal regrole, schema regnamespace default 'omni_credentials')
returns bigint
language c volatile
as 'MODULE_PATHNAME', 'rename_principal_wrapper';
comment on function omni_credentials.rename_principal(text, regrole, regnamespace) is
'Seals again, for a role, what was sealed for it under its old name or for a role that no longer exists. Returns how many.';

-- Crypto modules

create table omni_credentials.crypto_modules (
    digest bytea primary key check (pg_catalog.octet_length(digest) = 32),
    wasm bytea not null,
    name text not null,
    version text not null,
    contract text not null,
    suite text not null,
    installed_by name not null default current_user,
    installed_at timestamptz not null default pg_catalog.now()
);
alter table omni_credentials.crypto_modules alter column wasm set storage external;
comment on table omni_credentials.crypto_modules is
'The crypto modules of this database: WebAssembly components, known by their SHA-256 digest.';

create function omni_credentials.register_builtin_module() returns void
language c volatile
as 'MODULE_PATHNAME', 'register_builtin_module_wrapper';
comment on function omni_credentials.register_builtin_module() is
'Puts the module that comes with the extension into crypto_modules, unless it is there.';

create function omni_credentials.skip_known_module() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if exists (select from omni_credentials.crypto_modules m where m.digest = new.digest) then
        return null;
    end if;
    return new;
end
$$;
comment on function omni_credentials.skip_known_module() is
'Lets a dump, which carries all modules, be restored where CREATE EXTENSION has brought one of them already.';

create function omni_credentials.crypto_modules_guard() returns trigger
language c
as 'MODULE_PATHNAME', 'crypto_modules_guard_wrapper';
comment on function omni_credentials.crypto_modules_guard() is
'Refuses modules whose digest is wrong, and removal of modules that are in use.';

create trigger crypto_modules_guard before insert or update or delete on omni_credentials.crypto_modules
for each row execute function omni_credentials.crypto_modules_guard();
create trigger crypto_modules_guard_truncate before truncate on omni_credentials.crypto_modules
for each statement execute function omni_credentials.crypto_modules_guard();

create function omni_credentials.install_module(name text, wasm bytea, digest bytea) returns void
language c volatile strict
as 'MODULE_PATHNAME', 'install_module_wrapper';
comment on function omni_credentials.install_module(text, bytea, bytea) is
'Adds a crypto module under a name: checks its SHA-256 digest, what it imports, its contract and its answers to known tests. Superusers only.';

create function omni_credentials.install_module(name text, wasm bytea, digest text) returns void
language sql volatile strict
begin atomic
    select omni_credentials.install_module(
        install_module.name, install_module.wasm,
        pg_catalog.decode(pg_catalog.regexp_replace(install_module.digest, '^\\x', ''), 'hex'));
end;
comment on function omni_credentials.install_module(text, bytea, text) is
'The same with the digest in hexadecimal.';

create function omni_credentials.remove_module(module text) returns void
language c volatile strict
as 'MODULE_PATHNAME', 'remove_module_wrapper';
comment on function omni_credentials.remove_module(text) is
'Removes a crypto module, given by name or digest, that no keyring and no setting refers to. Superusers only.';

create function omni_credentials.use_module(
    schema regnamespace default 'omni_credentials', module text default null)
returns bigint
language c volatile
as 'MODULE_PATHNAME', 'use_module_wrapper';
comment on function omni_credentials.use_module(regnamespace, text) is
'Moves a copy to another crypto module, given by name or digest: makes a keyring with it and seals every credential again. Without a module, a fresh keyring of the one in use. Returns how many credentials. All or nothing.';

create trigger skip_known_module before insert on omni_credentials.crypto_modules
for each row execute function omni_credentials.skip_known_module();

create function omni_credentials.replace_config() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    execute pg_catalog.format('delete from %I.%I', tg_table_schema, tg_table_name);
    return new;
end
$$;
comment on function omni_credentials.replace_config() is
'Lets the settings in a dump take the place of those that CREATE EXTENSION made.';

-- Rights

create function omni_credentials.grant_access(
    grantee regrole,
    privileges text default 'SELECT',
    schema regnamespace default 'omni_credentials')
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    privilege text;
begin
    foreach privilege in array pg_catalog.regexp_split_to_array(pg_catalog.upper(pg_catalog.btrim(privileges)), '\s*,\s*') loop
        if privilege not in ('SELECT', 'INSERT', 'UPDATE', 'DELETE') then
            raise exception using errcode = 'invalid_parameter_value',
                message = pg_catalog.format('unknown privilege: %s', privilege),
                hint = 'A list of SELECT, INSERT, UPDATE and DELETE, separated by commas.';
        end if;
        execute pg_catalog.format('grant usage on schema omni_credentials, %s to %s', schema, grantee);
        execute pg_catalog.format('grant %s on %s.credentials, %s.encrypted_credentials to %s', privilege, schema, schema, grantee);
        -- Every change through the view first looks at the sealed value that it replaces.
        if privilege in ('UPDATE', 'DELETE') then
            execute pg_catalog.format('grant select on %s.encrypted_credentials to %s', schema, grantee);
        end if;
        if privilege <> 'INSERT' then
            execute pg_catalog.format('grant execute on function omni_credentials.open_credential(oid, text, anyenum, regrole, jsonb, bytea) to %s', grantee);
        end if;
        if privilege in ('INSERT', 'UPDATE') then
            execute pg_catalog.format('grant execute on function omni_credentials.seal_credential(oid, text, anyenum, regrole, jsonb, bytea) to %s', grantee);
            execute pg_catalog.format('grant execute on function %s.set_credential to %s', schema, grantee);
        end if;
    end loop;
end
$$;
comment on function omni_credentials.grant_access(regrole, text, regnamespace) is
'Gives a role all it needs to SELECT, INSERT, UPDATE or DELETE credentials of a copy. The policies of the copy say which.';

create function omni_credentials.revoke_access(
    grantee regrole,
    privileges text default 'SELECT, INSERT, UPDATE, DELETE',
    schema regnamespace default 'omni_credentials')
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    privilege text;
begin
    foreach privilege in array pg_catalog.regexp_split_to_array(pg_catalog.upper(pg_catalog.btrim(privileges)), '\s*,\s*') loop
        if privilege not in ('SELECT', 'INSERT', 'UPDATE', 'DELETE') then
            raise exception using errcode = 'invalid_parameter_value',
                message = pg_catalog.format('unknown privilege: %s', privilege),
                hint = 'A list of SELECT, INSERT, UPDATE and DELETE, separated by commas.';
        end if;
        execute pg_catalog.format('revoke %s on %s.credentials, %s.encrypted_credentials from %s', privilege, schema, schema, grantee);
        if privilege in ('INSERT', 'UPDATE') then
            execute pg_catalog.format('revoke execute on function %s.set_credential from %s', schema, grantee);
        end if;
    end loop;
end
$$;
comment on function omni_credentials.revoke_access(regrole, text, regnamespace) is
'Takes back what grant_access gave on the view and the table of a copy.';
