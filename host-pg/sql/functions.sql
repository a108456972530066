\echo Use "CREATE EXTENSION omni_credentials" to load this file. \quit

-- The functions in the library, and what all instances share.
-- Nothing here is granted to PUBLIC; omni_credentials.grant_access gives a role what it needs.

-- What a session has set does not reach the objects that this script makes. The settings end with the script.
set local search_path = pg_catalog, pg_temp;
set local default_table_access_method = heap;
set local default_tablespace = '';

-- CREATE EXTENSION uses a schema of the name that exists, no matter which role owns it. Its owner could rename it and put another one
-- in its place, and what another role made in it would be among the objects of the extension.
do $check$
declare
    made record;
    grantee text;
begin
    select n.oid, n.nspname, n.nspowner, n.nspacl, r.rolname, r.rolsuper,
        n.xmin = pg_catalog.pg_current_xact_id()::pg_catalog.xid as is_new into strict made
    from pg_catalog.pg_extension e
    join pg_catalog.pg_namespace n on n.oid = e.extnamespace
    join pg_catalog.pg_roles r on r.oid = n.nspowner
    where e.extname = 'omni_credentials';
    if made.rolname <> current_user and not made.rolsuper then
        raise exception using
            errcode = 'duplicate_schema',
            message = pg_catalog.format('schema %I exists and belongs to role %I, which is no superuser', made.nspname, made.rolname),
            hint = 'Rename or drop that schema. CREATE EXTENSION makes its own.';
    end if;
    if exists (
        select from pg_catalog.pg_depend d
        where d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass and d.refobjid = made.oid
          and d.classid <> 'pg_catalog.pg_extension'::pg_catalog.regclass)
    then
        raise exception using
            errcode = 'duplicate_schema',
            message = pg_catalog.format('schema %I exists and is not empty', made.nspname),
            hint = 'Rename or drop that schema. CREATE EXTENSION makes its own.';
    end if;
    for grantee in
        select distinct case a.grantee when 0 then 'public' else a.grantee::pg_catalog.regrole::text end
        from pg_catalog.aclexplode(made.nspacl) a where a.grantee <> made.nspowner
    loop
        -- What another transaction is about to commit there cannot be seen.
        if not made.is_new and exists (
            select from pg_catalog.aclexplode(made.nspacl) a where a.grantee <> made.nspowner and a.privilege_type = 'CREATE')
        then
            raise exception using
                errcode = 'duplicate_schema',
                message = pg_catalog.format('schema %I exists and others than its owner may create objects in it', made.nspname),
                hint = 'Rename or drop that schema. CREATE EXTENSION makes its own.';
        end if;
        execute pg_catalog.format('revoke all on schema %I from %s', made.nspname, grantee);
    end loop;
end
$check$;

create function omni_credentials.open_credential(
    store oid, name text, kind anyenum, principal regrole, scope jsonb, sealed bytea)
returns bytea
language c stable strict parallel safe cost 100
as 'MODULE_PATHNAME', 'open_credential_wrapper';
comment on function omni_credentials.open_credential(oid, text, anyenum, regrole, jsonb, bytea) is
'Opens a sealed value for its credential; what the credentials view calls. For roles that may select from that view, and have the rights of the principal, are past row-level security, or are shown the row by the policies. Roles that may only change or delete get the sealed value as it is.';

create function omni_credentials.seal_credential(
    store oid, name text, kind anyenum, principal regrole, scope jsonb, value bytea)
returns bytea
language c volatile parallel unsafe cost 100
as 'MODULE_PATHNAME', 'seal_credential_wrapper';
comment on function omni_credentials.seal_credential(oid, text, anyenum, regrole, jsonb, bytea) is
'Seals a value for a row of encrypted_credentials. For roles that may insert into or update that table, and that have the rights of the principal or are past row-level security.';

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
'Notes that the file stores of this instance must be written before the transaction commits.';

create function omni_credentials.credentials_store_changed() returns trigger
language c as 'MODULE_PATHNAME', 'credentials_store_changed_wrapper';
comment on function omni_credentials.credentials_store_changed() is
'Tells every backend to read keyrings and settings again.';

create function omni_credentials.generate_master_key() returns text
language c volatile parallel safe
as 'MODULE_PATHNAME', 'generate_master_key_wrapper';
comment on function omni_credentials.generate_master_key() is
'A fresh random master key for the environment of a server. The server does not keep it.';

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
'Makes an independent instance in a schema, with its own keys and its own master secret. The three Argon2id costs go together; without them the module chooses.';

create function omni_credentials.instance_template() returns text
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $function$select $template$
@INSTANCE_SQL@
$template$$function$;
comment on function omni_credentials.instance_template() is
'The SQL that makes an instance, as this version of the extension does it.';

create function omni_credentials.instantiate_file_store(
    filename text,
    schema regnamespace default 'omni_credentials',
    prefer text default null)
returns table (name text, kind text, principal text, scope jsonb, action text, reason text)
language c volatile
as 'MODULE_PATHNAME', 'instantiate_file_store_wrapper';
comment on function omni_credentials.instantiate_file_store(text, regnamespace, text) is
'Mirrors an instance into an encrypted file: imports what the file has, exports what it lacks, and keeps it up to date with every commit. Returns what was imported.';

create function omni_credentials.file_store_reload(
    schema regnamespace, filename text, prefer text, dry_run boolean)
returns table (name text, kind text, principal text, scope jsonb, action text, reason text)
language c volatile
as 'MODULE_PATHNAME', 'file_store_reload_wrapper';
comment on function omni_credentials.file_store_reload(regnamespace, text, text, boolean) is
'What credential_file_store_reload in each instance calls.';

create function omni_credentials.file_store_status(schema regnamespace)
returns table (filename text, generation bigint, synchronized_at timestamptz, in_step boolean, reason text)
language c volatile
as 'MODULE_PATHNAME', 'file_store_status_wrapper';
comment on function omni_credentials.file_store_status(regnamespace) is
'What the view credential_file_stores in each instance shows.';

create function omni_credentials.file_store_sync(schema regnamespace, filename text)
returns void
language c volatile
as 'MODULE_PATHNAME', 'file_store_sync_wrapper';
comment on function omni_credentials.file_store_sync(regnamespace, text) is
'What credential_file_store_sync in each instance calls.';

create function omni_credentials.detach_file_store(
    filename text,
    schema regnamespace default 'omni_credentials')
returns void
language c volatile
as 'MODULE_PATHNAME', 'detach_file_store_wrapper';
comment on function omni_credentials.detach_file_store(text, regnamespace) is
'Ends the mirroring of an instance into a file. The file stays as it is.';

create function omni_credentials.verify(schema regnamespace default 'omni_credentials')
returns table (name text, kind text, principal text, scope jsonb, reason text)
language c volatile
as 'MODULE_PATHNAME', 'verify_wrapper';
comment on function omni_credentials.verify(regnamespace) is
'The credentials of an instance that do not open, and why. Looks at the rows that the caller may see.';

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
'Wraps the keyring under the secret in another environment variable, which the instance uses from then on. No credential is touched.';

create function omni_credentials.rename_principal(
    old_name text, principal regrole, schema regnamespace default 'omni_credentials')
returns bigint
language c volatile
as 'MODULE_PATHNAME', 'rename_principal_wrapper';
comment on function omni_credentials.rename_principal(text, regrole, regnamespace) is
'Seals again, for a role, what was sealed for it under its old name or for a role that no longer exists. Returns how many.';

-- An instance keeps the objects that it was made with. Its version is an argument of its trigger, so that dumps carry it.
create view omni_credentials.instances as
    select v.relnamespace::pg_catalog.regnamespace as schema,
           pg_catalog.convert_from(pg_catalog.btrim(t.tgargs, E'\\x00'), 'UTF8') as version
    from pg_catalog.pg_trigger t
    join pg_catalog.pg_class v on v.oid operator(pg_catalog.=) t.tgrelid
    where t.tgfoid operator(pg_catalog.=) 'omni_credentials.credentials_write()'::pg_catalog.regprocedure
      and v.relname operator(pg_catalog.=) 'credentials';
comment on view omni_credentials.instances is
'The instances in this database, the default one among them.';
comment on column omni_credentials.instances.schema is 'Where the instance is.';
comment on column omni_credentials.instances.version is 'The version of the extension that made its objects. ALTER EXTENSION UPDATE changes that of the default instance; the others keep theirs, and work on.';

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
) using heap;
alter table omni_credentials.crypto_modules alter column wasm set storage external;
comment on table omni_credentials.crypto_modules is
'The crypto modules of this database: WebAssembly components, known by their SHA-256 digest.';
comment on column omni_credentials.crypto_modules.digest is 'SHA-256 of the component.';
comment on column omni_credentials.crypto_modules.wasm is 'The bytes of the component.';
comment on column omni_credentials.crypto_modules.name is 'The name of the module.';
comment on column omni_credentials.crypto_modules.version is 'The version of the module.';
comment on column omni_credentials.crypto_modules.contract is 'The version of the contract that the module implements.';
comment on column omni_credentials.crypto_modules.suite is 'The cipher suite of the module.';
comment on column omni_credentials.crypto_modules.installed_by is 'The role that installed the module.';
comment on column omni_credentials.crypto_modules.installed_at is 'When the module was installed.';

create function omni_credentials.register_builtin_module() returns void
language c volatile
as 'MODULE_PATHNAME', 'register_builtin_module_wrapper';
comment on function omni_credentials.register_builtin_module() is
'Puts the module that comes with the extension into crypto_modules, unless it is there.';

create function omni_credentials.skip_known_module() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    known boolean;
begin
    -- Here and below, the schema of the extension is where the catalogs say, under whatever name.
    execute pg_catalog.format('select exists (select from %I.%I m where m.digest = $1)', tg_table_schema, tg_table_name)
        into known using new.digest;
    if known then
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
comment on trigger crypto_modules_guard on omni_credentials.crypto_modules is 'Digests are right, and modules in use stay.';
comment on trigger crypto_modules_guard_truncate on omni_credentials.crypto_modules is 'Modules in use stay.';

create function omni_credentials.install_module(name text, wasm bytea, digest bytea) returns void
language c volatile
as 'MODULE_PATHNAME', 'install_module_wrapper';
comment on function omni_credentials.install_module(text, bytea, bytea) is
'Adds a crypto module under a name: checks its SHA-256 digest, what it imports, its contract and its answers to known tests. Superusers only.';

create function omni_credentials.install_module(name text, wasm bytea, digest text) returns void
language sql volatile
begin atomic
    select omni_credentials.install_module(
        install_module.name, install_module.wasm,
        pg_catalog.decode(pg_catalog.regexp_replace(install_module.digest, E'^\\\\x', ''), 'hex'));
end;
comment on function omni_credentials.install_module(text, bytea, text) is
'The same with the digest in hexadecimal.';

create function omni_credentials.remove_module(module text) returns void
language c volatile
as 'MODULE_PATHNAME', 'remove_module_wrapper';
comment on function omni_credentials.remove_module(text) is
'Removes a crypto module, given by name or digest, that no keyring and no setting refers to. Superusers only.';

create function omni_credentials.use_module(
    schema regnamespace default 'omni_credentials', module text default null)
returns bigint
language c volatile
as 'MODULE_PATHNAME', 'use_module_wrapper';
comment on function omni_credentials.use_module(regnamespace, text) is
'Moves an instance to another crypto module, given by name or digest: makes a keyring with it and seals every credential again. Without a module, a fresh keyring of the one in use. Returns how many credentials. All or nothing.';

create function omni_credentials.prune_keyrings(schema regnamespace default 'omni_credentials')
returns bigint
language c volatile
as 'MODULE_PATHNAME', 'prune_keyrings_wrapper';
comment on function omni_credentials.prune_keyrings(regnamespace) is
'Removes the keyrings that came before the current one of an instance, unless a credential or a registered file still needs one of them. Returns how many. What holds values from before, such as an older file or dump, must hold its keyring as well.';

create trigger skip_known_module before insert on omni_credentials.crypto_modules
for each row execute function omni_credentials.skip_known_module();
comment on trigger skip_known_module on omni_credentials.crypto_modules is 'A dump''s modules join those of CREATE EXTENSION.';

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

create function omni_credentials.only_for_owner(class oid, object oid) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    made record;
    usual aclitem[];
    other text;
begin
    if class = 'pg_class'::regclass then
        select 'table' as kind, c.oid::regclass::text as name, c.relowner as owner, c.relacl as acl, 'r'::"char" as letter into made
        from pg_class c where c.oid = object and c.relkind in ('r', 'v');
    elsif class = 'pg_proc'::regclass then
        select 'function' as kind, p.oid::regprocedure::text as name, p.proowner as owner, p.proacl as acl, 'f'::"char" as letter into made
        from pg_proc p where p.oid = object;
    elsif class = 'pg_type'::regclass then
        select 'type' as kind, t.oid::regtype::text as name, t.typowner as owner, t.typacl as acl, 'T'::"char" as letter into made
        from pg_type t where t.oid = object and t.typtype in ('d', 'e', 'r');
    else
        return;
    end if;
    if not found then
        return;
    end if;
    usual := acldefault(made.letter, made.owner);
    for other in
        select distinct case a.grantee when 0 then 'public' else a.grantee::regrole::text end
        from aclexplode(coalesce(made.acl, usual)) a where a.grantee <> made.owner
    loop
        execute format('revoke all on %s %s from %s', made.kind, made.name, other);
    end loop;
    if exists (
        select a.privilege_type from aclexplode(usual) a where a.grantee = made.owner
        except select a.privilege_type from aclexplode(coalesce(made.acl, usual)) a where a.grantee = made.owner)
    then
        execute format('grant all on %s %s to %s', made.kind, made.name, made.owner::regrole);
    end if;
end
$$;
comment on function omni_credentials.only_for_owner(oid, oid) is
'Takes back what default privileges gave to others on an object that a script of the extension made, and gives the owner what they took.';

-- Environment variables

create table omni_credentials.allowed_variables (
    role regrole,
    variable text collate pg_catalog."C" check (pg_catalog.octet_length(variable) between 1 and 255),
    primary key (role, variable)
) using heap;
comment on table omni_credentials.allowed_variables is
'Which roles may use which variable of the server''s environment as the master secret of their instances. Superusers may use any.';
comment on column omni_credentials.allowed_variables.role is 'The owner of instances: this role, not its members.';
comment on column omni_credentials.allowed_variables.variable is 'The variable; the same name with _FILE appended goes with it.';
create trigger allowed_variables_changed after insert or update or delete or truncate on omni_credentials.allowed_variables
    for each statement execute function omni_credentials.credentials_store_changed();
alter table omni_credentials.allowed_variables enable always trigger allowed_variables_changed;
comment on trigger allowed_variables_changed on omni_credentials.allowed_variables is 'Every session looks again who may use what.';

create function omni_credentials.allow_variable(role regrole, variable text) returns void
language c volatile
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'allow_variable_wrapper';
comment on function omni_credentials.allow_variable(regrole, text) is
'Lets a role use a variable of the server''s environment as the master secret of the instances that it owns. Superusers only.';

create function omni_credentials.disallow_variable(role regrole, variable text) returns void
language c volatile
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'disallow_variable_wrapper';
comment on function omni_credentials.disallow_variable(regrole, text) is
'Takes back what allow_variable gave. Instances of the role with that variable are closed until it is back. Superusers only.';

-- Rights

create function omni_credentials.privilege_list(grantee regrole, privileges text, schema regnamespace) returns text[]
language c volatile
as 'MODULE_PATHNAME', 'privilege_list_wrapper';
comment on function omni_credentials.privilege_list(regrole, text, regnamespace) is
'The privileges in a list for grant_access and revoke_access; refuses what is none, and a NULL among their arguments.';

create function omni_credentials.privileges_held(grantee regrole, schema regnamespace) returns text[]
language sql stable
begin atomic
    select coalesce(pg_catalog.array_agg(distinct a.privilege_type), '{}')
    from pg_catalog.pg_trigger t
    join pg_catalog.pg_class v on v.oid operator(pg_catalog.=) t.tgrelid,
    pg_catalog.aclexplode(v.relacl) a
    where t.tgfoid operator(pg_catalog.=) 'omni_credentials.credentials_write()'::pg_catalog.regprocedure
      and v.relname operator(pg_catalog.=) 'credentials'
      and (privileges_held.schema is null or v.relnamespace operator(pg_catalog.=) privileges_held.schema)
      and a.grantee operator(pg_catalog.=) privileges_held.grantee;
end;
comment on function omni_credentials.privileges_held(regrole, regnamespace) is
'What a role was granted on the credentials view of an instance, or with NULL on that of any instance.';

create function omni_credentials.grant_access(
    grantee regrole,
    privileges text default 'SELECT',
    schema regnamespace default 'omni_credentials')
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    ours text := (select e.extnamespace::pg_catalog.regnamespace from pg_catalog.pg_extension e where e.extname = 'omni_credentials');
    list text[];
    held text[];
begin
    execute format('select %s.privilege_list($1, $2, $3)', ours) into list using grantee, privileges, schema;
    execute format('grant usage on schema %s, %s to %s', ours, schema, grantee);
    execute format('grant usage on type %s.credential_kind to %s', schema, grantee);
    execute format('grant %s on %s.credentials, %s.encrypted_credentials to %s',
        array_to_string(list, ', '), schema, schema, grantee);
    if list && '{SELECT, UPDATE, DELETE}' then
        -- A change through the view first looks at the sealed value that it replaces. It does not open for a role
        -- that may not SELECT from the view.
        execute format('grant select on %s.encrypted_credentials to %s', schema, grantee);
        execute format('grant execute on function %s.open_credential(oid, text, anyenum, regrole, jsonb, bytea) to %s', ours, grantee);
    end if;
    if list && '{SELECT}' then
        execute format('grant execute on function %s.verify(regnamespace) to %s', ours, grantee);
    end if;
    if list && '{INSERT, UPDATE}' then
        execute format('grant execute on function %s.seal_credential(oid, text, anyenum, regrole, jsonb, bytea) to %s', ours, grantee);
    end if;
    execute format('select %s.privileges_held($1, $2)', ours) into held using grantee, schema;
    if held @> '{INSERT, UPDATE}' then
        execute format('grant execute on function %1$s.set_credential(text, bytea, %1$s.credential_kind, regrole, jsonb) to %2$s', schema, grantee);
    end if;
end
$$;
comment on function omni_credentials.grant_access(regrole, text, regnamespace) is
'Gives a role all it needs to SELECT, INSERT, UPDATE or DELETE credentials of an instance. The policies of the instance say which.';

create function omni_credentials.revoke_access(
    grantee regrole,
    privileges text default 'SELECT, INSERT, UPDATE, DELETE',
    schema regnamespace default 'omni_credentials')
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    ours text := (select e.extnamespace::pg_catalog.regnamespace from pg_catalog.pg_extension e where e.extname = 'omni_credentials');
    list text[];
    held text[];
begin
    execute format('select %s.privilege_list($1, $2, $3)', ours) into list using grantee, privileges, schema;
    execute format('revoke %s on %s.credentials, %s.encrypted_credentials from %s',
        array_to_string(list, ', '), schema, schema, grantee);
    execute format('select %s.privileges_held($1, $2)', ours) into held using grantee, schema;
    if not held && '{SELECT, UPDATE, DELETE}' then
        execute format('revoke select on %s.encrypted_credentials from %s', schema, grantee);
    else
        execute format('grant select on %s.encrypted_credentials to %s', schema, grantee);
    end if;
    if not held @> '{INSERT, UPDATE}' then
        execute format('revoke execute on function %1$s.set_credential(text, bytea, %1$s.credential_kind, regrole, jsonb) from %2$s', schema, grantee);
    end if;
    if held = '{}' then
        execute format('revoke usage on type %s.credential_kind from %s', schema, grantee);
    end if;
    -- What all instances share, unless another instance still needs it.
    execute format('select %s.privileges_held($1, null)', ours) into held using grantee;
    if not held && '{SELECT, UPDATE, DELETE}' then
        execute format('revoke execute on function %s.open_credential(oid, text, anyenum, regrole, jsonb, bytea) from %s', ours, grantee);
    end if;
    if not held && '{SELECT}' then
        execute format('revoke execute on function %s.verify(regnamespace) from %s', ours, grantee);
    end if;
    if not held && '{INSERT, UPDATE}' then
        execute format('revoke execute on function %s.seal_credential(oid, text, anyenum, regrole, jsonb, bytea) from %s', ours, grantee);
    end if;
    if held = '{}' then
        execute format('revoke usage on schema %s from %s', ours, grantee);
    end if;
end
$$;
comment on function omni_credentials.revoke_access(regrole, text, regnamespace) is
'Takes back what grant_access gave, but for USAGE on the schema of another instance than the default one.';

-- DROP EXTENSION, and dropping an instance in parts
--
-- These functions run for everybody's commands, so that they do nothing unless objects of the extension are concerned,
-- and need no library.

create function omni_credentials.watch_drops() returns void
language c as 'MODULE_PATHNAME', 'watch_drops_wrapper';
comment on function omni_credentials.watch_drops() is
'Has this session look at the default instance before it is dropped. What guard_drop calls.';

create function omni_credentials.guard_drop() returns event_trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    ours text;
    holds boolean;
    reading refcursor;
begin
    select n.nspname into ours
    from pg_extension e
    join pg_namespace n on n.oid = e.extnamespace
    join pg_class c on c.relnamespace = n.oid
    where e.extname = 'omni_credentials' and c.relname = 'encrypted_credentials' and c.relkind = 'r'
      -- No command of another role can drop the extension.
      and pg_has_role(c.relowner, 'USAGE');
    if not found then
        return;
    end if;
    execute format('select exists (select from only %I.encrypted_credentials)', ours) into holds;
    if not holds then
        return;
    end if;
    begin
        execute format('select %I.watch_drops()', ours);
    exception when others then
        -- The library is missing or cannot be loaded, for which Postgres has several codes and for some none. Whatever the
        -- reason, this way is as strict: Postgres drops no table that an open cursor of the session reads.
        open reading for execute format('select from only %I.encrypted_credentials', ours);
    end;
end
$$;
comment on function omni_credentials.guard_drop() is
'Refuses to drop the extension while its own instance holds credentials.';

create event trigger omni_credentials_guard_drop on ddl_command_start
    when tag in ('DROP EXTENSION', 'DROP SCHEMA', 'DROP OWNED')
    execute function omni_credentials.guard_drop();
comment on event trigger omni_credentials_guard_drop is
'Dropping the extension, or its schema, does not destroy credentials in silence.';

create function omni_credentials.guard_tables() returns event_trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    gone record;
    kept oid;
    holds boolean;
begin
    for gone in
        select d.schema_name, d.object_name, d.object_name = 'encrypted_credentials' as values_gone
        from pg_event_trigger_dropped_objects() d
        where d.object_type = 'table' and not d.is_temporary
          and d.object_name in ('encrypted_credentials', 'credentials_keyrings', 'credentials_config', 'credentials_files')
    loop
        -- The other half of the instance, where the command has left it: the values, or what they were sealed with.
        select c.oid into kept
        from pg_class c
        join pg_namespace n on n.oid = c.relnamespace
        where n.nspname = gone.schema_name and c.relkind = 'r'
          and c.relname = case when gone.values_gone then 'credentials_keyrings' else 'encrypted_credentials' end
          and exists (
              select from pg_trigger t
              join pg_depend d on d.classid = 'pg_proc'::regclass and d.objid = t.tgfoid and d.deptype = 'e'
              join pg_extension e on d.refclassid = 'pg_extension'::regclass and d.refobjid = e.oid
              where t.tgrelid = c.oid and e.extname = 'omni_credentials');
        continue when not found;
        if has_table_privilege(kept, 'SELECT') and not row_security_active(kept) then
            execute format('select exists (select from only %s)', kept::regclass) into holds;
        else
            holds := pg_relation_size(kept) > 0;
        end if;
        if not holds then
            continue;
        elsif gone.values_gone then
            raise exception using
                errcode = 'dependent_objects_still_exist',
                message = format('cannot drop table %I.%I and keep the keyring of its values', gone.schema_name, gone.object_name),
                hint = format('To destroy the credentials, drop what belongs together in one command: drop schema %1$I cascade,'
                    ' or drop table %1$I.encrypted_credentials, %1$I.credentials_keyrings cascade.', gone.schema_name);
        else
            raise exception using
                errcode = 'dependent_objects_still_exist',
                message = format('cannot drop table %I.%I because %1$I.encrypted_credentials holds credentials', gone.schema_name, gone.object_name),
                hint = format('To destroy the credentials: truncate %1$I.encrypted_credentials, or drop schema %1$I cascade.', gone.schema_name);
        end if;
    end loop;
end
$$;
comment on function omni_credentials.guard_tables() is
'Refuses to drop one table of an instance that holds credentials and keep the others.';

create event trigger omni_credentials_guard_tables on sql_drop
    when tag in ('DROP TABLE', 'DROP SCHEMA', 'DROP OWNED', 'DROP TYPE', 'DROP EXTENSION')
    execute function omni_credentials.guard_tables();
comment on event trigger omni_credentials_guard_tables is
'The tables of an instance that holds credentials go together or not at all.';

create table omni_credentials.file_store_key (
    key bytea not null
);
comment on table omni_credentials.file_store_key is
'The key of the marks in credentials_files, made with the extension in this database. No dump carries it.';
comment on column omni_credentials.file_store_key.key is 'Random.';
revoke all on table omni_credentials.file_store_key from public;
insert into omni_credentials.file_store_key (key)
select pg_catalog.uuid_send(pg_catalog.gen_random_uuid()) operator(pg_catalog.||) pg_catalog.uuid_send(pg_catalog.gen_random_uuid());

-- Policies on the default instance. pg_dump leaves out policies on tables of an extension, and a restore without a
-- restrictive one would open more than there was before. So they are written down in a table that is dumped.

create table omni_credentials.added_policies (
    name name primary key,
    permissive boolean,
    command "char",
    roles regrole[],
    using_expression text,
    check_expression text
) using heap;
comment on table omni_credentials.added_policies is
'The policies of the default instance since the first change to them, as a dump carries them. A row without a command is for a policy that was dropped.';

create function omni_credentials.current_policies() returns setof omni_credentials.added_policies
language sql stable
begin atomic
    with ours as (
        select c.oid from pg_catalog.pg_class c
        join pg_catalog.pg_extension e on e.extnamespace operator(pg_catalog.=) c.relnamespace
        where e.extname operator(pg_catalog.=) 'omni_credentials'
          and c.relname operator(pg_catalog.=) 'encrypted_credentials'
    )
    select p.polname, p.polpermissive, p.polcmd, p.polroles::pg_catalog.regrole[],
        pg_catalog.pg_get_expr(p.polqual, p.polrelid), pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid)
    from pg_catalog.pg_policy p join ours on p.polrelid operator(pg_catalog.=) ours.oid
    union all
    select 'encrypted_credentials_principal', null, null, null, null, null
    where not exists (
        select from pg_catalog.pg_policy p join ours on p.polrelid operator(pg_catalog.=) ours.oid
        where p.polname operator(pg_catalog.=) 'encrypted_credentials_principal');
end;
comment on function omni_credentials.current_policies() is
'The policies of the default instance as the catalog has them.';

create function omni_credentials.note_policies() returns event_trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    ours text;
    guarded oid;
    touched boolean;
begin
    -- Inside restore_policy there is nothing to note, and most policies are on tables of somebody else.
    if pg_trigger_depth() > 0 then
        return;
    end if;
    select n.nspname, c.oid into ours, guarded
    from pg_extension e
    join pg_namespace n on n.oid = e.extnamespace
    join pg_class c on c.relnamespace = n.oid
    where e.extname = 'omni_credentials' and c.relname = 'encrypted_credentials';
    if tg_event = 'sql_drop' then
        touched := exists (
            select from pg_event_trigger_dropped_objects() d
            where d.object_type = 'policy'
              and d.address_names[1:2] = array[ours, 'encrypted_credentials']);
    else
        touched := exists (
            select from pg_event_trigger_ddl_commands() d join pg_policy p on p.oid = d.objid
            where d.classid = 'pg_policy'::regclass and p.polrelid = guarded);
    end if;
    if touched then
        execute format('delete from %I.added_policies', ours);
        execute format('insert into %1$I.added_policies select * from %1$I.current_policies()', ours);
    end if;
end
$$;
comment on function omni_credentials.note_policies() is
'Keeps added_policies as the catalog is.';

create function omni_credentials.restore_policy() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    known boolean;
begin
    execute format('select exists (select from %I.current_policies() p where p::text = $1)', tg_table_schema)
        into known using new::text;
    if known then
        return new;
    end if;
    execute format('drop policy if exists %I on %I.encrypted_credentials', new.name, tg_table_schema);
    if new.command is not null then
        execute format('create policy %I on %I.encrypted_credentials as %s for %s to %s%s%s',
            new.name,
            tg_table_schema,
            case when new.permissive then 'permissive' else 'restrictive' end,
            case new.command when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update' when 'd' then 'delete' else 'all' end,
            (select string_agg(case when r = 0 then 'public' else r::text end, ', ') from unnest(new.roles) r),
            ' using (' || new.using_expression || ')',
            ' with check (' || new.check_expression || ')');
    end if;
    return new;
end
$$;
comment on function omni_credentials.restore_policy() is
'Creates the policies of a dump again when it is restored.';

create trigger restore_policy before insert on omni_credentials.added_policies
for each row execute function omni_credentials.restore_policy();
comment on trigger restore_policy on omni_credentials.added_policies is 'A restored row becomes a policy again.';
comment on column omni_credentials.added_policies.name is 'The policy.';
comment on column omni_credentials.added_policies.permissive is 'True for a permissive policy, false for a restrictive one.';
comment on column omni_credentials.added_policies.command is 'As in pg_policy: r, a, w, d or *. NULL: the policy was dropped.';
comment on column omni_credentials.added_policies.roles is 'Roles the policy applies to; 0 means PUBLIC.';
comment on column omni_credentials.added_policies.using_expression is 'The condition for existing rows.';
comment on column omni_credentials.added_policies.check_expression is 'The condition for new rows.';
