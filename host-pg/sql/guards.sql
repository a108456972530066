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
