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
    other text;
begin
    select n.oid, n.nspname, n.nspowner, n.nspacl, r.rolname, r.rolsuper, e.oid as extension, e.extversion,
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
    -- An update from 0.2.0 finds what it has set aside.
    select pg_catalog.pg_describe_object(d.classid, d.objid, 0) into other
    from pg_catalog.pg_depend d
    where d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass and d.refobjid = made.oid
      and d.classid <> 'pg_catalog.pg_extension'::pg_catalog.regclass
      and not exists (
        select from pg_catalog.pg_depend m
        where m.classid = d.classid and m.objid = d.objid and m.deptype = 'e'
          and m.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass and m.refobjid = made.extension)
    limit 1;
    if found then
        raise exception using
            errcode = 'duplicate_schema',
            message = pg_catalog.format('schema %I exists and is not empty: it has %s', made.nspname, other),
            hint = case when made.extversion = '0.2.0'
                then 'Move what is not part of the extension to another schema, or drop it.'
                else 'Rename or drop that schema. CREATE EXTENSION makes its own.' end;
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
    store oid, name text, kind anyenum, principal regrole, scope jsonb, sealed bytea, expires_at timestamptz default null)
returns bytea
language c stable parallel safe cost 100
as 'MODULE_PATHNAME', 'open_credential_wrapper';
comment on function omni_credentials.open_credential(oid, text, anyenum, regrole, jsonb, bytea, timestamptz) is
'Opens a sealed value for its credential; what the credentials view calls. For roles that may select from that view, and have the rights of the principal, are past row-level security, or are shown the row by the policies. Roles that may only change or delete get the sealed value as it is.';

create function omni_credentials.seal_credential(
    store oid, name text, kind anyenum, principal regrole, scope jsonb, value bytea, expires_at timestamptz default null)
returns bytea
language c volatile parallel unsafe cost 100
as 'MODULE_PATHNAME', 'seal_credential_wrapper';
comment on function omni_credentials.seal_credential(oid, text, anyenum, regrole, jsonb, bytea, timestamptz) is
'Seals a value for a row of encrypted_credentials. For roles that may insert into or update that table, and that have the rights of the principal or are past row-level security.';

create function omni_credentials.text_of_one(name text, found bigint, value bytea) returns text
language c stable parallel safe
as 'MODULE_PATHNAME', 'text_of_one_wrapper';
comment on function omni_credentials.text_of_one(text, bigint, bytea) is
'The value of the one credential that was found, as text. What get_credential in each instance calls.';

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

create function omni_credentials.encrypted_credentials_keep() returns trigger
language c as 'MODULE_PATHNAME', 'encrypted_credentials_keep_wrapper';
comment on function omni_credentials.encrypted_credentials_keep() is
'Puts a value that is replaced or deleted into encrypted_credential_versions.';

create function omni_credentials.encrypted_credential_versions_check() returns trigger
language c as 'MODULE_PATHNAME', 'encrypted_credential_versions_check_wrapper';
comment on function omni_credentials.encrypted_credential_versions_check() is
'Keeps everyone but the extension, and what restores a dump, from writing the history.';

create function omni_credentials.versions_seen(
    store oid, name text, kind anyenum, principal regrole, scope jsonb, version bigint)
returns setof record
language c stable
as 'MODULE_PATHNAME', 'versions_seen_wrapper';
comment on function omni_credentials.versions_seen(oid, text, anyenum, regrole, jsonb, bigint) is
'The versions in the history of an instance, sealed, that the policies of the credentials show the caller; what the view credential_versions calls. With a version, that one.';

create function omni_credentials.purge_versions(
    schema regnamespace, name text, before timestamptz, everything boolean)
returns bigint
language c volatile
as 'MODULE_PATHNAME', 'purge_versions_wrapper';
comment on function omni_credentials.purge_versions(regnamespace, text, timestamptz, boolean) is
'What purge_history in each instance calls.';

create function omni_credentials.change_history_limit(schema regnamespace, versions integer)
returns void
language c volatile
as 'MODULE_PATHNAME', 'change_history_limit_wrapper';
comment on function omni_credentials.change_history_limit(regnamespace, integer) is
'What set_history_limit in each instance calls.';

create function omni_credentials.credentials_store_changed() returns trigger
language c as 'MODULE_PATHNAME', 'credentials_store_changed_wrapper';
comment on function omni_credentials.credentials_store_changed() is
'Tells every backend to read keyrings and settings again. Keeps keyrings that values need.';

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

create function omni_credentials.instance_status(schema regnamespace)
returns table (
    variable text, secret text, unlocks boolean, keyrings integer, module text,
    credentials bigint, expired bigint, due bigint, unknown_principals bigint, preloaded boolean, problem text)
language c volatile
as 'MODULE_PATHNAME', 'instance_status_wrapper';
comment on function omni_credentials.instance_status(regnamespace) is
'What status() says of one instance.';

create function omni_credentials.status()
returns table (
    schema text, version text, variable text, secret text, unlocks boolean, keyrings integer, module text,
    credentials bigint, expired bigint, due bigint, unknown_principals bigint,
    file_stores bigint, file_stores_behind bigint, preloaded boolean, problem text)
language plpgsql
set search_path = pg_catalog, pg_temp
-- An instance whose owner holds a lock is told of like one with another problem.
set lock_timeout = '2s'
as $$
declare
    ours text := (select e.extnamespace::pg_catalog.regnamespace from pg_catalog.pg_extension e where e.extname = 'omni_credentials');
    found record;
    behind text;
begin
    for found in execute format('select i.schema as place, i.version from %s.instances i order by i.schema::text', ours)
    loop
        schema := (select n.nspname from pg_namespace n where n.oid = found.place);
        version := found.version;
        variable := null; secret := null; unlocks := null; keyrings := null; module := null;
        credentials := null; expired := null; due := null; unknown_principals := null;
        file_stores := null; file_stores_behind := null; preloaded := null; problem := null;
        -- Whatever is wrong with one instance is told of that one. What ends the statement is not caught here.
        begin
            execute format('select s.variable, s.secret, s.unlocks, s.keyrings, s.module, s.credentials, s.expired, s.due,
                s.unknown_principals, s.preloaded, s.problem from %s.instance_status($1) s', ours)
            into variable, secret, unlocks, keyrings, module, credentials, expired, due, unknown_principals, preloaded, problem
            using found.place;
        exception when others then
            problem := sqlerrm;
        end;
        begin
            execute format('select count(*), count(*) filter (where f.in_step is false), string_agg(f.filename || '': '' || f.reason, ''; '')
                filter (where f.in_step is false) from %s.file_store_status($1) f', ours)
            into file_stores, file_stores_behind, behind using found.place;
            problem := concat_ws('; ', problem, behind);
        exception when others then
            problem := concat_ws('; ', problem, sqlerrm);
        end;
        problem := nullif(problem, '');
        return next;
    end loop;
end
$$;
comment on function omni_credentials.status() is
'How each instance of the database is, on any node: one row each, with what is wrong as problem. Derives keys, opens no value, and needs no rights on the instances: grant EXECUTE on it, on instance_status and file_store_status to a role that monitors.';

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

create function omni_credentials.repair_principals(schema regnamespace default 'omni_credentials')
returns bigint
language c volatile
as 'MODULE_PATHNAME', 'repair_principals_wrapper';
comment on function omni_credentials.repair_principals(regnamespace) is
'Gives rows their principal back that arrived as another role''s number, as COPY BINARY and binary subscriptions send it between clusters: the value itself opens for one role only. Returns how many. A row whose place is taken by a credential that opens stays, and verify lists it.';

-- An instance keeps the objects that it was made with. Its version is an argument of its trigger, so that dumps carry it.
create view omni_credentials.instances as
    select v.relnamespace::pg_catalog.regnamespace as schema,
           pg_catalog.split_part(pg_catalog.encode(t.tgargs, 'escape'), E'\\000', 1) as version
    from pg_catalog.pg_trigger t
    join pg_catalog.pg_class v on v.oid operator(pg_catalog.=) t.tgrelid
    where t.tgfoid operator(pg_catalog.=) 'omni_credentials.credentials_write()'::pg_catalog.regprocedure
      and v.relname operator(pg_catalog.=) 'credentials' and t.tgname operator(pg_catalog.=) 'credentials_write';
comment on view omni_credentials.instances is
'The instances in this database, the default one among them.';
comment on column omni_credentials.instances.schema is 'Where the instance is.';
comment on column omni_credentials.instances.version is 'The version of the extension that made its objects. ALTER EXTENSION UPDATE changes that of the default instance; the others keep theirs, and work on.';

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

create table omni_credentials.file_store_key (
    key bytea not null
);
comment on table omni_credentials.file_store_key is
'The key of the marks in credentials_files, made with the extension in this database. No dump carries it.';
comment on column omni_credentials.file_store_key.key is 'Random.';
revoke all on table omni_credentials.file_store_key from public;
insert into omni_credentials.file_store_key (key)
select pg_catalog.uuid_send(pg_catalog.gen_random_uuid()) operator(pg_catalog.||) pg_catalog.uuid_send(pg_catalog.gen_random_uuid());
