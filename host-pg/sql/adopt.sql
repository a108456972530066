-- Coming from the extension of the same name at version 0.2.0, which kept text, sealed by pgcrypto. Its objects get another
-- name, an instance takes their place, and its own decrypt_credential reads what is taken over.

create function omni_credentials.adopt_prepare(schema regnamespace) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    parts record;
    store text;
    old record;
begin
    select t.oid, t.relowner, r.rolname, r.rolsuper into parts
    from pg_class t join pg_roles r on r.oid = t.relowner
    where t.relnamespace = adopt_prepare.schema and t.relname = 'encrypted_credentials' and t.relkind = 'r'
      and (select array_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod) order by a.attnum) from pg_attribute a
           where a.attrelid = t.oid and a.attnum > 0 and not a.attisdropped)
        = array['name text', 'value bytea', 'kind ' || format('%s.credential_kind', schema), 'principal regrole', 'scope jsonb'];
    if not found or (
        select count(*) from pg_proc p
        where p.pronamespace = adopt_prepare.schema and p.proname = 'decrypt_credential' and p.prorettype = 'text'::regtype
          and p.proargtypes = array['bytea'::regtype]::oidvector and p.proowner = parts.relowner) <> 1
        or (select count(*) from pg_class c
            where c.relnamespace = adopt_prepare.schema and c.relowner = parts.relowner
              and (c.relname, c.relkind) in (('credentials', 'v'), ('credentials_config', 'r'))) <> 2
    then
        raise exception using
            errcode = 'object_not_in_prerequisite_state',
            message = format('schema %s has no credentials of omni_credentials 0.2.0', schema),
            hint = format('For a new instance: select omni_credentials.instantiate(%L).', schema);
    end if;
    -- What the owner made is called below.
    if parts.rolname <> current_user and not (parts.rolsuper and (select r.rolsuper from pg_roles r where r.rolname = current_user)) then
        raise exception using
            errcode = 'insufficient_privilege',
            message = format('the credentials in schema %s belong to role %I', schema, parts.rolname),
            hint = format('Run it as that role: set role %I.', parts.rolname);
    end if;
    execute format('lock table %s.encrypted_credentials, %s.credentials_config in access exclusive mode', schema, schema);
    if exists (select from pg_class c where c.relnamespace = adopt_prepare.schema and c.relname = 'credential_file_stores') then
        for store in execute format('select f.filename from %s.credential_file_stores f order by 1', schema) loop
            raise notice using
                message = format('file %s is not written any more', store),
                hint = 'It stays as it is, in the format of version 0.2.0. For a new one: select omni_credentials.instantiate_file_store(…).';
        end loop;
        execute format('drop trigger if exists file_store_credentials_update on %s.encrypted_credentials', schema);
        execute format('drop table %s.credential_file_stores', schema);
    end if;
    for old in
        select p.oid::regprocedure as function from pg_proc p
        where p.pronamespace = adopt_prepare.schema and p.proowner = parts.relowner
          and (p.proname in ('credential_file_store_reload', 'file_store_credentials_update')
            or p.proname in ('instantiate', 'instantiate_file_store') and exists (
                select from pg_depend d join pg_extension e on d.refobjid = e.oid
                where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.refclassid = 'pg_extension'::regclass
                  and d.deptype = 'e' and e.extname = 'omni_credentials'))
    loop
        execute format('drop function %s', old.function);
    end loop;
    execute format('drop trigger if exists credentials_update on %s.credentials', schema);
    execute format('drop function if exists %s.credentials_update()', schema);
    execute format('alter index if exists %s.encrypted_credentials_uniq rename to "encrypted_credentials_uniq 0.2.0"', schema);
    execute format('alter table %s.encrypted_credentials rename to "encrypted_credentials 0.2.0"', schema);
    execute format('alter table %s.credentials_config rename to "credentials_config 0.2.0"', schema);
    execute format('alter view %s.credentials rename to "credentials 0.2.0"', schema);
    execute format('alter type %s.credential_kind rename to "credential_kind 0.2.0"', schema);
    execute format('alter function %s.decrypt_credential(bytea) rename to "decrypt_credential 0.2.0"', schema);
    execute format('drop function if exists %s.encrypt_credential(text)', schema);
end
$$;
comment on function omni_credentials.adopt_prepare(regnamespace) is
'Sets aside what omni_credentials 0.2.0 made in a schema. The first half of adopt.';

create function omni_credentials.adopt_finish(schema regnamespace) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    ours text := (select e.extnamespace::regnamespace from pg_extension e where e.extname = 'omni_credentials');
    was oid := format('%s."encrypted_credentials 0.2.0"', schema)::regclass;
    is_now oid := format('%s.encrypted_credentials', schema)::regclass;
    variable text;
    other record;
    held text[];
    credential record;
    known bytea;
    used boolean;
    adopted bigint := 0;
begin
    execute format('select c.environment_variable from %s."credentials_config 0.2.0" c', schema) into strict variable;
    -- Kinds that were added: before the ones that follow them, as they were.
    for other in
        select e.enumlabel as label, lead(e.enumlabel) over (order by e.enumsortorder) as following, e.enumsortorder as place
        from pg_enum e where e.enumtypid = format('%s."credential_kind 0.2.0"', schema)::regtype
        order by e.enumsortorder desc
    loop
        if not exists (
            select from pg_enum e where e.enumtypid = format('%s.credential_kind', schema)::regtype and e.enumlabel = other.label)
        then
            if schema::text = ours then
                execute format('select exists (select from %s."encrypted_credentials 0.2.0" c where c.kind::text = $1)', schema)
                into used using other.label;
                if used then
                    raise exception using
                        errcode = 'feature_not_supported',
                        message = format('the default instance has credentials of kind %s, which pg_dump would not carry', other.label),
                        hint = 'Before the update, instantiate a schema of your own and move those credentials there; then adopt that schema.';
                end if;
                continue;
            end if;
            execute format('alter type %s.credential_kind add value %L %s', schema, other.label,
                case when other.following is not null then format('before %L', other.following) end);
        end if;
    end loop;

    for credential in execute format(
        'select c.name, convert_to(%1$s."decrypt_credential 0.2.0"(c.value), ''UTF8'') as value, c.kind::text as kind, c.principal, c.scope
         from %1$s."encrypted_credentials 0.2.0" c', schema)
    loop
        if credential.value is null then
            raise exception using
                errcode = 'object_not_in_prerequisite_state',
                message = format('credential %I cannot be opened: environment variable %s is not set', credential.name, variable),
                hint = format('Start the server with %s as it was.', variable);
        end if;
        execute format('insert into %1$s.credentials (name, value, kind, principal, scope)
            values ($1, $2, $3::%1$s.credential_kind, $4, $5)', schema)
        using credential.name, credential.value, credential.kind, credential.principal, credential.scope;
        execute format('select c.value from %1$s.credentials c
            where c.name = $1 and c.kind = $2::%1$s.credential_kind and c.principal = $3 and c.scope = $4', schema)
        into known using credential.name, credential.kind, credential.principal, credential.scope;
        if known is distinct from credential.value then
            raise exception using errcode = 'data_exception', message = format('credential %I does not read back as it was', credential.name);
        end if;
        adopted := adopted + 1;
    end loop;

    -- Policies, but for the one that every instance has.
    for other in
        select p.polname as name, p.polpermissive as permissive, p.polcmd as command, p.polroles as roles,
            replace(pg_get_expr(p.polqual, p.polrelid), format('%s."credential_kind 0.2.0"', schema), format('%s.credential_kind', schema)) as using_expression,
            replace(pg_get_expr(p.polwithcheck, p.polrelid), format('%s."credential_kind 0.2.0"', schema), format('%s.credential_kind', schema)) as check_expression
        from pg_policy p where p.polrelid = was
    loop
        continue when other.name = 'encrypted_credentials_principal' and other.permissive and other.command = '*'
            and other.using_expression = 'pg_has_role(CURRENT_USER, (principal)::oid, ''USAGE''::text)' and other.check_expression is null;
        execute format('drop policy if exists %I on %s', other.name, is_now::regclass);
        execute format('create policy %I on %s as %s for %s to %s%s%s', other.name, is_now::regclass,
            case when other.permissive then 'permissive' else 'restrictive' end,
            case other.command when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update' when 'd' then 'delete' else 'all' end,
            (select string_agg(case r.oid when 0 then 'public' else r.oid::regrole::text end, ', ') from unnest(other.roles) as r (oid)),
            ' using (' || other.using_expression || ')', ' with check (' || other.check_expression || ')');
    end loop;
    if not exists (select from pg_policy p where p.polrelid = was and p.polname = 'encrypted_credentials_principal') then
        execute format('drop policy encrypted_credentials_principal on %s', is_now::regclass);
    end if;
    if not (select c.relrowsecurity from pg_class c where c.oid = was) then
        raise exception using
            errcode = 'object_not_in_prerequisite_state',
            message = format('row-level security of the credentials in schema %s was switched off', schema),
            hint = format('An instance has it. Switch it on before: alter table %s.encrypted_credentials enable row level security.', schema);
    end if;
    if (select c.relforcerowsecurity from pg_class c where c.oid = was) then
        if schema::text = ours then
            raise exception using
                errcode = 'feature_not_supported',
                message = format('%s has FORCE ROW LEVEL SECURITY, which pg_dump would not carry', is_now::regclass),
                hint = format('Before the update: alter table %s no force row level security.', is_now::regclass);
        end if;
        execute format('alter table %s force row level security', is_now::regclass);
    end if;

    for other in
        select a.grantee, array_agg(distinct a.privilege_type) as privileges
        from pg_class c, aclexplode(c.relacl) a
        where c.oid in (was, format('%s."credentials 0.2.0"', schema)::regclass) and a.grantee <> c.relowner
        group by a.grantee
    loop
        held := array(select p from unnest(other.privileges) p where p in ('SELECT', 'INSERT', 'UPDATE', 'DELETE'));
        if other.grantee = 0 then
            raise warning using
                message = format('credentials in schema %s were granted to PUBLIC, and are no more', schema),
                hint = format('For each role that uses them: select %s.grant_access(…).', ours);
        elsif held <> '{}' then
            execute format('select %s.grant_access($1, $2, $3)', ours)
            using other.grantee::regrole, array_to_string(held, ', '), schema;
        end if;
    end loop;

    -- What somebody has built on the old ones stands in the way, and is named.
    execute format('drop view %s."credentials 0.2.0"', schema);
    execute format('drop table %s."encrypted_credentials 0.2.0"', schema);
    execute format('drop function %s."decrypt_credential 0.2.0"(bytea)', schema);
    execute format('drop table %s."credentials_config 0.2.0"', schema);
    execute format('drop type %s."credential_kind 0.2.0"', schema);
    return adopted;
end
$$;
comment on function omni_credentials.adopt_finish(regnamespace) is
'Takes over what adopt_prepare set aside: kinds, credentials, policies and rights. The second half of adopt.';

create function omni_credentials.adopt(schema regnamespace) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    ours text := (select e.extnamespace::regnamespace from pg_extension e where e.extname = 'omni_credentials');
    variable text;
    adopted bigint;
begin
    if schema is null then
        raise exception using errcode = 'null_value_not_allowed', message = 'argument schema is NULL';
    end if;
    execute format('select %s.adopt_prepare($1)', ours) using schema;
    execute format('select c.environment_variable from %s."credentials_config 0.2.0" c', schema) into strict variable;
    execute format('select %s.instantiate($1, $2)', ours) using schema, variable;
    execute format('select %s.adopt_finish($1)', ours) into adopted using schema;
    return adopted;
end
$$;
comment on function omni_credentials.adopt(regnamespace) is
'Makes an instance of what omni_credentials 0.2.0 instantiated in a schema: its credentials, each read back, its kinds, policies and rights, under the same variable. Returns how many credentials. All or nothing. For the owner.';
