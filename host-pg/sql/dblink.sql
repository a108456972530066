-- Connections of dblink whose password is a credential. With the caller's rights: the caller says where it is sent, so it is
-- for those who may read it.

create function omni_credentials.dblink_connect_with(
    connection_name text,
    conninfo text,
    name text,
    kind text default null,
    principal text default null,
    scope jsonb default null,
    schema regnamespace default 'omni_credentials')
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    connects text;
    connected text;
begin
    if num_nulls(connection_name, conninfo, name, schema) > 0 then
        raise exception using
            errcode = 'null_value_not_allowed', message = 'argument connection_name, conninfo, name or schema is NULL';
    end if;
    if conninfo ~* '(^|\s)password\s*=' then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'conninfo has a password of its own',
            hint = 'Leave it out: the credential is the password.';
    end if;
    -- Any role can make functions of that name, and only a superuser what belongs to this extension.
    select format('%I.%I', n.nspname, p.proname) into connects
    from pg_extension e
    join pg_depend d on d.refclassid = 'pg_extension'::regclass and d.refobjid = e.oid and d.deptype = 'e'
    join pg_proc p on d.classid = 'pg_proc'::regclass and d.objid = p.oid
    join pg_namespace n on n.oid = p.pronamespace
    where e.extname = 'dblink' and p.proname = 'dblink_connect' and p.proargtypes = '25 25'::oidvector;
    if not found then
        raise exception using
            errcode = 'undefined_function',
            message = 'extension dblink is not installed',
            hint = 'As a superuser: create extension dblink.';
    end if;
    -- In one expression, and never in a variable or a parameter, which may be logged. It comes first: whatever is wrong with the
    -- rest, an error of libpq shows what it was reading then.
    execute format(
        'select %1$s($1, ''password='' || chr(39) || replace(replace(nullif(%2$s.get_credential($3, $4, $5, $6), ''''),
            chr(92), repeat(chr(92), 2)), chr(39), chr(92) || chr(39)) || chr(39) || '' '' || $2)', connects, schema)
    into connected using connection_name, conninfo, name, kind, principal, scope;
    if connected is null then
        raise exception using
            errcode = 'invalid_password',
            message = format('credential %I is no password', name),
            hint = 'It is empty, or it cannot be read.';
    end if;
    return connected;
end
$$;
comment on function omni_credentials.dblink_connect_with(text, text, text, text, text, jsonb, regnamespace) is
'Opens a connection of dblink with a credential as the password, which no statement, log or error shows. conninfo is the rest, as keywords and values. For roles that may read the credential, and that dblink lets connect.';
