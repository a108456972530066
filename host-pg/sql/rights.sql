-- Environment variables

create table omni_credentials.allowed_variables (
    role regrole,
    variable text collate pg_catalog."C" check (pg_catalog.octet_length(variable) between 1 and 255),
    primary key (role, variable)
) using heap;
comment on table omni_credentials.allowed_variables is
'Which roles may use which variable of the server''s environment as the master secret of their instances. Superusers may use any.';
comment on column omni_credentials.allowed_variables.role is 'The owner of instances: this role, not its members.';
comment on column omni_credentials.allowed_variables.variable is 'The variable; the same name with _FILE or _COMMAND appended goes with it.';
create trigger allowed_variables_changed after insert or update or delete or truncate on omni_credentials.allowed_variables
    for each statement execute function omni_credentials.credentials_store_changed();
alter table omni_credentials.allowed_variables enable always trigger allowed_variables_changed;
comment on trigger allowed_variables_changed on omni_credentials.allowed_variables is 'Every session looks again who may use what.';

create trigger skip_known_variable before insert on omni_credentials.allowed_variables
    for each row execute function omni_credentials.skip_known_row('role', 'variable');
alter table omni_credentials.allowed_variables enable always trigger skip_known_variable;
comment on trigger skip_known_variable on omni_credentials.allowed_variables is 'What a dump allows joins what is allowed already: the owner of an instance needs that before.';

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

create function omni_credentials.functions_of(schema regnamespace, name name) returns text
language sql stable
begin atomic
    -- Those that came with the instance, and not what another role gave the same name.
    select pg_catalog.string_agg(p.oid::pg_catalog.regprocedure::text, ', ')
    from pg_catalog.pg_proc p
    join pg_catalog.pg_class c on c.relnamespace operator(pg_catalog.=) p.pronamespace and c.relowner operator(pg_catalog.=) p.proowner
    where p.pronamespace operator(pg_catalog.=) functions_of.schema and p.proname operator(pg_catalog.=) functions_of.name
      and c.relname operator(pg_catalog.=) 'encrypted_credentials' and c.relkind operator(pg_catalog.=) 'r';
end;
comment on function omni_credentials.functions_of(regnamespace, name) is
'The functions of an instance that have a name, as GRANT takes them.';

create function omni_credentials.grant_access(
    grantee regrole,
    privileges text default 'SELECT',
    schema regnamespace default 'omni_credentials')
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set client_min_messages = error
as $$
declare
    ours text := (select e.extnamespace::pg_catalog.regnamespace from pg_catalog.pg_extension e where e.extname = 'omni_credentials');
    list text[];
    held text[];
    functions text;
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
        execute format('grant execute on function %s.open_credential(oid, text, anyenum, regrole, jsonb, bytea, timestamptz) to %s', ours, grantee);
    end if;
    if list && '{SELECT}' then
        execute format('grant execute on function %s.expiring(interval) to %s', schema, grantee);
        execute format('grant select on %s.credential_versions to %s', schema, grantee);
        execute format('grant execute on function %1$s.verify(regnamespace), %1$s.text_of_one(text, bigint, bytea),'
            ' %1$s.versions_seen(oid, text, anyenum, regrole, jsonb, bigint) to %2$s', ours, grantee);
        execute format('select %s.functions_of($1, $2)', ours) into functions using schema, 'get_credential'::name;
        if functions is not null then
            execute format('grant execute on function %s to %s', functions, grantee);
        end if;
    end if;
    if list && '{INSERT, UPDATE}' then
        execute format('grant execute on function %s.seal_credential(oid, text, anyenum, regrole, jsonb, bytea, timestamptz) to %s', ours, grantee);
    end if;
    execute format('select %s.privileges_held($1, $2)', ours) into held using grantee, schema;
    if held @> '{INSERT, UPDATE}' then
        execute format('select %s.functions_of($1, $2)', ours) into functions using schema, 'set_credential'::name;
        if functions is not null then
            execute format('grant execute on function %s to %s', functions, grantee);
        end if;
    end if;
    if held @> '{SELECT, INSERT, UPDATE}' then
        execute format('select %s.functions_of($1, $2)', ours) into functions using schema, 'restore_credential'::name;
        if functions is not null then
            execute format('grant execute on function %s to %s', functions, grantee);
        end if;
    end if;
    -- A GRANT of what the caller may not give is a warning of Postgres.
    select string_agg(needed.what, '; ') into functions
    from (
        select format('grant usage on schema %s to %I with grant option', ours, current_user) as what
        where not has_schema_privilege(grantee, ours, 'USAGE')
        union all
        select format('grant execute on function %s to %I with grant option', p.oid::regprocedure, current_user)
        from pg_proc p
        join (values ('open_credential', '{SELECT, UPDATE, DELETE}'::text[]), ('seal_credential', '{INSERT, UPDATE}'),
            ('verify', '{SELECT}'), ('text_of_one', '{SELECT}'), ('versions_seen', '{SELECT}')) as shared (name, privileges) on shared.name = p.proname
        where p.pronamespace = ours::regnamespace and list && shared.privileges and not has_function_privilege(grantee, p.oid, 'EXECUTE')
    ) needed;
    if functions is not null then
        raise exception using
            errcode = 'insufficient_privilege',
            message = format('role %I cannot give role %s access: it may not give the rights to what all instances share', current_user, grantee),
            hint = format('A superuser runs: %s.', functions);
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
    functions text;
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
    if not held && '{SELECT}' then
        execute format('revoke execute on function %s.expiring(interval) from %s', schema, grantee);
        execute format('revoke select on %s.credential_versions from %s', schema, grantee);
    end if;
    if not held @> '{SELECT, INSERT, UPDATE}' then
        execute format('select %s.functions_of($1, $2)', ours) into functions using schema, 'restore_credential'::name;
        if functions is not null then
            execute format('revoke execute on function %s from %s', functions, grantee);
        end if;
    end if;
    if not held @> '{INSERT, UPDATE}' then
        execute format('select %s.functions_of($1, $2)', ours) into functions using schema, 'set_credential'::name;
        if functions is not null then
            execute format('revoke execute on function %s from %s', functions, grantee);
        end if;
    end if;
    if not held && '{SELECT}' then
        execute format('select %s.functions_of($1, $2)', ours) into functions using schema, 'get_credential'::name;
        if functions is not null then
            execute format('revoke execute on function %s from %s', functions, grantee);
        end if;
    end if;
    if held = '{}' then
        execute format('revoke usage on type %s.credential_kind from %s', schema, grantee);
    end if;
    -- What all instances share, unless another instance still needs it.
    execute format('select %s.privileges_held($1, null)', ours) into held using grantee;
    if not held && '{SELECT, UPDATE, DELETE}' then
        execute format('revoke execute on function %s.open_credential(oid, text, anyenum, regrole, jsonb, bytea, timestamptz) from %s', ours, grantee);
    end if;
    if not held && '{SELECT}' then
        execute format('revoke execute on function %1$s.verify(regnamespace), %1$s.text_of_one(text, bigint, bytea),'
            ' %1$s.versions_seen(oid, text, anyenum, regrole, jsonb, bigint) from %2$s', ours, grantee);
    end if;
    if not held && '{INSERT, UPDATE}' then
        execute format('revoke execute on function %s.seal_credential(oid, text, anyenum, regrole, jsonb, bytea, timestamptz) from %s', ours, grantee);
    end if;
    if held = '{}' then
        execute format('revoke usage on schema %s from %s', ours, grantee);
    end if;
end
$$;
comment on function omni_credentials.revoke_access(regrole, text, regnamespace) is
'Takes back what grant_access gave, but for USAGE on the schema of another instance than the default one.';
