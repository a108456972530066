-- Coming from the extension of the same name at version 0.2.0, which kept text, sealed by pgcrypto. Its objects get another
-- name, an instance takes their place, and its own decrypt_credential reads what is taken over.

create function omni_credentials.must_trust(schema regnamespace, objects oid[]) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    me record;
    owners oid[];
    other oid;
begin
    select r.oid, r.rolname, r.rolsuper into me from pg_roles r where r.rolname = current_user;
    -- The owner of the schema can put others in the place of its objects.
    owners := array(
        select n.nspowner from pg_namespace n where n.oid = must_trust.schema
        union select c.relowner from pg_class c where c.oid = any (objects)
        union select p.proowner from pg_proc p where p.oid = any (objects)
        union select t.typowner from pg_type t where t.oid = any (objects));
    select o.oid into other from unnest(owners) o (oid)
    where o.oid <> me.oid and not exists (select from pg_roles r where r.oid = o.oid and r.rolsuper) limit 1;
    if not found and not me.rolsuper and session_user <> current_user and me.oid = any (owners) then
        other := me.oid;
    end if;
    if other is not null then
        raise exception using
            errcode = 'insufficient_privilege',
            message = format('the credentials in schema %s belong to role %s, whose code would run with the rights of role %I',
                schema, other::regrole, case other when me.oid then session_user else current_user end),
            hint = format('Connect as role %s and run it there. SET ROLE is not enough: code of that role can take it back.', other::regrole);
    end if;
end
$$;
comment on function omni_credentials.must_trust(regnamespace, oid[]) is
'Refuses to use what another role than the caller and superusers can shape: a schema and objects in it.';

create function omni_credentials.adopt_prepare(schema regnamespace) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    ours text := (select e.extnamespace::regnamespace from pg_extension e where e.extname = 'omni_credentials');
    parts oid[];
    shape text;
    left_over text;
    store text;
    old record;
begin
    -- Locked before anything is believed: from here on no one else changes these two.
    if (select count(*) from pg_class c
        where c.relnamespace = adopt_prepare.schema and c.relname in ('encrypted_credentials', 'credentials_config') and c.relkind = 'r') = 2
    then
        execute format('lock table only %s.encrypted_credentials, only %s.credentials_config in access exclusive mode', schema, schema);
    end if;
    select array_agg(o.oid), string_agg(o.shape, ', ' order by o.shape) into parts, shape
    from (
        select c.oid, format('%s %s (%s)', c.relkind, c.relname,
            (select string_agg(format('%s %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ' order by a.attnum) from pg_attribute a
             where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped)) as shape
        from pg_class c where c.relnamespace = adopt_prepare.schema and c.relname in ('encrypted_credentials', 'credentials_config', 'credentials')
        union all
        select p.oid, format('%s(%s) %s', p.proname, pg_get_function_identity_arguments(p.oid), p.prorettype::regtype)
        from pg_proc p where p.pronamespace = adopt_prepare.schema and p.proname = 'decrypt_credential'
        union all
        select t.oid, format('%s %s', t.typtype, t.typname)
        from pg_type t where t.typnamespace = adopt_prepare.schema and t.typname = 'credential_kind'
    ) o;
    if shape is distinct from format(
        'decrypt_credential(credential bytea) text, e credential_kind, r credentials_config (environment_variable text), '
        'r encrypted_credentials (name text, value bytea, kind %1$s, principal regrole, scope jsonb), '
        'v credentials (name text, value text, kind %1$s, principal regrole, scope jsonb)',
        (select format_type(t.oid, null) from pg_type t where t.typnamespace = adopt_prepare.schema and t.typname = 'credential_kind'))
    then
        raise exception using
            errcode = 'object_not_in_prerequisite_state',
            message = format('schema %s has no credentials of omni_credentials 0.2.0', schema),
            hint = format('For a new instance: select omni_credentials.instantiate(%L).', schema);
    end if;
    -- What their owner made is called below.
    execute format('select %s.must_trust($1, $2)', ours) using schema, parts;
    select a.grantee::regrole into left_over
    from pg_namespace n, aclexplode(n.nspacl) a
    where n.oid = adopt_prepare.schema and a.privilege_type = 'CREATE' and a.grantee <> n.nspowner
    limit 1;
    if found then
        raise exception using
            errcode = 'duplicate_schema',
            message = format('others than its owner may create objects in schema %s: %s', schema, case left_over when '-' then 'public' else left_over end),
            hint = format('revoke create on schema %s from %s', schema, case left_over when '-' then 'public' else left_over end);
    end if;
    -- What would be lost in silence.
    select string_agg(o.what, ', ' order by o.what) into left_over
    from (
        select format('trigger %I', t.tgname) as what from pg_trigger t
        where t.tgrelid = any (parts) and not t.tgisinternal and t.tgname not in ('credentials_update', 'file_store_credentials_update')
        union all
        select format('index %I', c.relname) from pg_index i join pg_class c on c.oid = i.indexrelid
        where i.indrelid = any (parts) and c.relname not in ('encrypted_credentials_uniq', 'credentials_config_environment_variable_key')
        union all
        select format('publication %I', p.pubname) from pg_publication_rel r join pg_publication p on p.oid = r.prpubid where r.prrelid = any (parts)
        union all
        select format('the grants of column %I', a.attname) from pg_attribute a where a.attrelid = any (parts) and a.attacl is not null
        union all
        select format('rule %I', r.rulename) from pg_rewrite r where r.ev_class = any (parts) and r.rulename <> '_RETURN'
    ) o;
    if left_over is not null then
        raise exception using
            errcode = 'object_not_in_prerequisite_state',
            message = format('the credentials in schema %s have what cannot be adopted: %s', schema, left_over),
            hint = 'Drop it before, and make it again afterwards.';
    end if;

    for old in
        select c.oid from pg_class c
        where c.relnamespace = adopt_prepare.schema and c.relname = 'credential_file_stores' and c.relkind = 'r'
          and c.relowner in (select t.relowner from pg_class t where t.oid = any (parts))
    loop
        for store in execute format('select f.filename::text from only %s f order by 1', old.oid::regclass) loop
            raise notice using
                message = format('file %s is not written any more', store),
                hint = 'It stays as it is, in the format of version 0.2.0. For a new one: select omni_credentials.instantiate_file_store(...).';
        end loop;
        execute format('drop trigger if exists file_store_credentials_update on %s.encrypted_credentials', schema);
        execute format('drop table %s', old.oid::regclass);
    end loop;
    for old in
        select p.oid::regprocedure as function from pg_proc p
        where p.pronamespace = adopt_prepare.schema
          and p.proowner in (select t.relowner from pg_class t where t.oid = any (parts))
          and (p.proname in ('credential_file_store_reload', 'file_store_credentials_update', 'update_credentials_file', 'get_function_name')
            or p.proname in ('instantiate', 'instantiate_file_store') and exists (
                select from pg_depend d join pg_extension e on d.refobjid = e.oid
                where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.refclassid = 'pg_extension'::regclass
                  and d.deptype = 'e' and e.extname = 'omni_credentials'))
    loop
        execute format('drop function %s', old.function);
    end loop;
    execute format('drop trigger if exists credentials_update on %s.credentials', schema);
    execute format('drop function if exists %s.credentials_update()', schema);
    execute format('drop function if exists %s.encrypt_credential(text)', schema);
    execute format('alter index if exists %s.encrypted_credentials_uniq rename to "encrypted_credentials_uniq 0.2.0"', schema);
    execute format('alter table %s.encrypted_credentials rename to "encrypted_credentials 0.2.0"', schema);
    execute format('alter table %s.credentials_config rename to "credentials_config 0.2.0"', schema);
    execute format('alter view %s.credentials rename to "credentials 0.2.0"', schema);
    execute format('alter type %s.credential_kind rename to "credential_kind 0.2.0"', schema);
    execute format('alter function %s.decrypt_credential(bytea) rename to "decrypt_credential 0.2.0"', schema);
end
$$;
comment on function omni_credentials.adopt_prepare(regnamespace) is
'Sets aside what omni_credentials 0.2.0 made in a schema. The first half of adopt.';

create function omni_credentials.adopt_finish(schema regnamespace) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
-- A row that a policy hides would be lost with the table.
set row_security = off
as $$
declare
    ours text := (select e.extnamespace::regnamespace from pg_extension e where e.extname = 'omni_credentials');
    was oid := format('%s."encrypted_credentials 0.2.0"', schema)::regclass;
    is_now oid := format('%s.encrypted_credentials', schema)::regclass;
    was_kind oid := format('%s."credential_kind 0.2.0"', schema)::regtype;
    forced boolean := (select c.relforcerowsecurity from pg_class c where c.oid = was);
    variable text;
    other record;
    held text[];
    place tid;
    label text;
    same boolean;
    used boolean;
    adopted bigint := 0;
begin
    execute format('select c.environment_variable from %s."credentials_config 0.2.0" c', schema) into strict variable;
    if not (select c.relrowsecurity from pg_class c where c.oid = was) then
        raise exception using
            errcode = 'object_not_in_prerequisite_state',
            message = format('row-level security of the credentials in schema %s was switched off', schema),
            hint = format('An instance has it. Switch it on before: alter table %s.encrypted_credentials enable row level security.', schema);
    elsif forced and schema::text = ours then
        raise exception using
            errcode = 'feature_not_supported',
            message = format('%s has FORCE ROW LEVEL SECURITY, which pg_dump would not carry', is_now::regclass),
            hint = format('Before the update: alter table %s no force row level security.', is_now::regclass);
    end if;
    execute format('alter table %s no force row level security', was::regclass);

    -- Kinds that were added: before the ones that follow them, as they were.
    for other in
        select e.enumlabel as label, lead(e.enumlabel) over (order by e.enumsortorder) as following
        from pg_enum e where e.enumtypid = was_kind
        order by e.enumsortorder desc
    loop
        if not exists (
            select from pg_enum e where e.enumtypid = format('%s.credential_kind', schema)::regtype and e.enumlabel = other.label)
        then
            execute format('select exists (select from %s c where c.kind::text = $1)', was::regclass) into used using other.label;
            if used and schema::text <> ours and current_setting('server_version_num')::int < 170000 then
                raise exception using
                    errcode = 'feature_not_supported',
                    message = format('credentials in schema %s are of kind %s, and this version of Postgres cannot use a kind in the transaction that adds it', schema, other.label),
                    hint = 'Update Postgres to version 17 or later before, or give those credentials one of the kinds that every instance has.';
            end if;
            if schema::text = ours then
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

    -- One credential at a time, and never in a variable: what passes a value on as a parameter may write it to the log.
    for place, label in execute format('select c.ctid, c.name from %s c', was::regclass)
    loop
        execute format('select %1$s."decrypt_credential 0.2.0"(c.value) is null from %2$s c where c.ctid = $1', schema, was::regclass)
        into used using place;
        if used then
            raise exception using
                errcode = 'object_not_in_prerequisite_state',
                message = format('credential %I cannot be opened: environment variable %s is not set', label, variable),
                hint = format('Start the server with %s as it was.', variable);
        end if;
        execute format(
            'insert into %1$s.encrypted_credentials (name, value, kind, principal, scope)
             select c.name, %3$s.seal_credential(%4$L::regclass, c.name, c.kind::text::%1$s.credential_kind, c.principal, c.scope,
                convert_to(%1$s."decrypt_credential 0.2.0"(c.value), ''UTF8'')), c.kind::text::%1$s.credential_kind, c.principal, c.scope
             from %2$s c where c.ctid = $1', schema, was::regclass, ours, is_now::regclass)
        using place;
        execute format(
            'select coalesce(bool_and(%3$s.open_credential(n.tableoid, n.name, n.kind, n.principal, n.scope, n.value, n.expires_at)
                = convert_to(%1$s."decrypt_credential 0.2.0"(c.value), ''UTF8'')), false)
             from %2$s c, %1$s.encrypted_credentials n
             where c.ctid = $1 and n.name = c.name and n.kind = c.kind::text::%1$s.credential_kind and n.principal = c.principal and n.scope = c.scope',
            schema, was::regclass, ours)
        into same using place;
        if not same then
            raise exception using errcode = 'data_exception', message = format('credential %I does not read back as it was', label);
        end if;
        adopted := adopted + 1;
    end loop;
    execute format('select (select count(*) from %s) = (select count(*) from %s)', was::regclass, is_now::regclass) into same;
    if not same then
        raise exception using errcode = 'data_exception', message = format('not all credentials of schema %s are adopted', schema);
    end if;

    -- Policies, but for the one that every instance has. Their expressions name what they are about by its present name.
    for other in
        select p.polname as name, p.polpermissive as permissive, p.polcmd as command, p.polroles as roles,
            replace(replace(pg_get_expr(p.polqual, p.polrelid),
                format('%s."credential_kind 0.2.0"', schema), format('%s.credential_kind', schema)),
                '"encrypted_credentials 0.2.0"', 'encrypted_credentials') as using_expression,
            replace(replace(pg_get_expr(p.polwithcheck, p.polrelid),
                format('%s."credential_kind 0.2.0"', schema), format('%s.credential_kind', schema)),
                '"encrypted_credentials 0.2.0"', 'encrypted_credentials') as check_expression
        from pg_policy p where p.polrelid = was
    loop
        continue when other.name = 'encrypted_credentials_principal' and other.permissive and other.command = '*' and other.roles = '{0}'
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
    if forced then
        execute format('alter table %s force row level security', is_now::regclass);
    end if;

    -- A role that could read had rights to the view, the table and the function behind it.
    for other in
        select a.grantee, array_agg(distinct a.privilege_type) as privileges
        from pg_class c, aclexplode(c.relacl) a
        where c.oid = format('%s."credentials 0.2.0"', schema)::regclass and a.grantee <> c.relowner
        group by a.grantee
    loop
        if other.grantee = 0 then
            raise warning using
                message = format('credentials in schema %s were granted to PUBLIC, and are no more', schema),
                hint = format('For each role that uses them: select %s.grant_access(...).', ours);
            continue;
        end if;
        held := array(
            select p from unnest(other.privileges) p
            where p in ('INSERT', 'UPDATE', 'DELETE')
               or p = 'SELECT' and has_table_privilege(other.grantee, was, 'SELECT')
                and has_function_privilege(other.grantee, format('%s."decrypt_credential 0.2.0"(bytea)', schema)::regprocedure, 'EXECUTE'));
        if held <> '{}' then
            execute format('select %s.grant_access($1, $2, $3)', ours)
            using other.grantee::regrole, array_to_string(held, ', '), schema;
        end if;
    end loop;

    -- What somebody has built on the old ones stands in the way, and is named.
    execute format('drop view %s."credentials 0.2.0"', schema);
    execute format('drop table %s', was::regclass);
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

create function omni_credentials.open_old_value(schema regnamespace, variable text, sealed bytea) returns text
language c volatile
as 'MODULE_PATHNAME', 'open_old_value_wrapper';
comment on function omni_credentials.open_old_value(regnamespace, text, bytea) is
'A value that omni_credentials 0.2.0 sealed with pgcrypto, under the secret of the instance or of another variable. For the owner of the instance, who may use the variable.';

create function omni_credentials.import_old_file(
    filename text,
    schema regnamespace default 'omni_credentials',
    env_var text default null,
    dry_run boolean default false)
returns table (name text, kind text, principal text, scope jsonb, action text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    ours text := (select e.extnamespace::regnamespace from pg_extension e where e.extname = 'omni_credentials');
    place text := schema;
    line tid;
    compare text;
    found_there integer;
    same boolean;
    missing text;
    differ text[] := '{}';
begin
    if num_nulls(filename, schema, dry_run) > 0 then
        raise exception using errcode = 'null_value_not_allowed', message = 'argument filename, schema or dry_run is NULL';
    end if;
    execute format('select %s.trusted_instance($1)', ours) using schema;
    -- COPY asks for the right to read files of the server. The values stay sealed here.
    create temporary table "omni_credentials 0.2.0"
        (name text not null, value bytea not null, kind text not null, principal text not null, scope jsonb not null)
        on commit drop;
    begin
        execute format('copy pg_temp."omni_credentials 0.2.0" from %L (encoding ''UTF8'')', filename);
    exception when bad_copy_file_format or data_exception or not_null_violation then
        raise exception using
            errcode = 'bad_copy_file_format',
            message = format('file %s is not in the format of omni_credentials 0.2.0', filename),
            detail = sqlerrm,
            hint = 'For a file of this version: select omni_credentials.instantiate_file_store(...).';
    end;

    select string_agg(distinct f.principal, ', ') into missing
    from pg_temp."omni_credentials 0.2.0" f where to_regrole(f.principal) is null;
    if missing is not null then
        raise exception using
            errcode = 'undefined_object',
            message = format('file %s has credentials of roles that do not exist here: %s', filename, missing),
            hint = 'Nothing was imported. Create these roles first.';
    end if;

    -- How many credentials a line has here, and whether their values are its own.
    compare := format(
        'select count(*), coalesce(bool_and(%1$s.open_credential(c.tableoid, c.name, c.kind, c.principal, c.scope, c.value, c.expires_at)
            = convert_to(%1$s.open_old_value($2, $3, f.value), ''UTF8'')), false)
         from %4$s.encrypted_credentials c, pg_temp."omni_credentials 0.2.0" f
         where f.ctid = $1 and c.name = f.name and c.kind = f.kind::%4$s.credential_kind
           and c.principal = f.principal::regrole and c.scope = f.scope', ours, null, null, place);
    -- One credential at a time, and never in a variable: as in import_vault.
    for line, name, kind, principal, scope in
        select f.ctid, f.name, f.kind, f.principal, f.scope from pg_temp."omni_credentials 0.2.0" f order by f.ctid
    loop
        execute compare into found_there, same using line, schema, env_var;
        if found_there = 0 then
            action := 'import';
            -- Also where nothing is to be imported: what does not open is told.
            execute format(
                'select %s.open_old_value($2, $3, f.value) is not null from pg_temp."omni_credentials 0.2.0" f where f.ctid = $1', ours)
            into strict same using line, schema, env_var;
            if not dry_run then
                execute format(
                    'insert into %2$s.encrypted_credentials (name, value, kind, principal, scope)
                     select f.name, %1$s.seal_credential(%3$L::regclass, f.name, f.kind::%2$s.credential_kind, f.principal::regrole, f.scope,
                        convert_to(%1$s.open_old_value($2, $3, f.value), ''UTF8'')),
                        f.kind::%2$s.credential_kind, f.principal::regrole, f.scope
                     from pg_temp."omni_credentials 0.2.0" f where f.ctid = $1',
                    ours, place, place || '.encrypted_credentials')
                using line, schema, env_var;
                execute compare into found_there, same using line, schema, env_var;
                if not same then
                    raise exception using
                        errcode = 'data_exception',
                        message = format('credential %I does not read back as it was written', name),
                        hint = format('Look at the triggers and policies of %s.encrypted_credentials.', place);
                end if;
            end if;
        elsif same then
            action := 'same';
        else
            action := 'differs';
            differ := differ || name;
        end if;
        return next;
    end loop;
    drop table pg_temp."omni_credentials 0.2.0";
    if not dry_run and differ <> '{}' then
        raise exception using
            errcode = 'unique_violation',
            message = format('%s has other values for %s of the credentials in file %s: %s', place, cardinality(differ), filename,
                array_to_string(differ[1:10], ', ')),
            hint = 'Nothing was imported. Rename or delete one of each two.';
    end if;
end
$$;
comment on function omni_credentials.import_old_file(text, regnamespace, text, boolean) is
'Takes over the credentials in a file of omni_credentials 0.2.0: all or none, each read back. The file stays as it is. The secret is that of the instance, or of another variable. Needs pgcrypto, the right to read the server''s files and to own the instance. With dry_run it only says what it would do.';
