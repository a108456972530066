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
    execute format('select exists (select from only %1$I.encrypted_credentials)'
        ' or exists (select from only %1$I.encrypted_credential_versions)', ours) into holds;
    if not holds then
        return;
    end if;
    begin
        execute format('select %I.watch_drops()', ours);
    exception when others then
        -- The library is missing or cannot be loaded, for which Postgres has several codes and for some none. Whatever the
        -- reason, this way is as strict: Postgres drops no table that an open cursor of the session reads.
        open reading for execute format('select from only %1$I.encrypted_credentials, only %1$I.encrypted_credential_versions', ours);
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
        with dropped as materialized (
            select d.objid, d.objsubid, d.object_type, d.schema_name, d.object_name, d.address_names
            from pg_event_trigger_dropped_objects() d
            where d.object_type in ('table', 'table column', 'trigger') and not d.is_temporary
        ), ours (name, trigger_name, columns) as (
            values ('encrypted_credentials', 'encrypted_credentials_check', 6), ('credentials_keyrings', 'credentials_keyrings_changed', 4),
                ('credentials_config', 'credentials_config_changed', 7), ('credentials_files', null, 11),
                ('encrypted_credential_versions', 'encrypted_credential_versions_check', 11)
        )
        -- A table is known by its name, or by the trigger that goes with it: it may have been renamed before.
        select d.schema_name, d.object_name, null as column_name, o.name = 'encrypted_credentials' as of_values, null::oid as left_over
        from dropped d
        join ours o on d.object_name = o.name or exists (
            select from dropped t
            where t.object_type = 'trigger' and t.address_names = array[d.schema_name, d.object_name, o.trigger_name])
        where d.object_type = 'table'
        union all
        -- A column is known by its number. Those that someone added come later.
        select n.nspname, c.relname, d.address_names[3], o.name = 'encrypted_credentials', c.oid
        from dropped d
        join pg_class c on c.oid = d.objid
        join pg_namespace n on n.oid = c.relnamespace
        join ours o on d.objsubid <= o.columns and (o.name = c.relname or exists (
            select from pg_trigger t where t.tgrelid = c.oid and t.tgname = o.trigger_name))
        where d.object_type = 'table column'
    loop
        -- A table with values, or the one with what they were sealed with, where the command has left it.
        holds := false;
        for kept in
            select c.oid
            from pg_class c
            join pg_namespace n on n.oid = c.relnamespace
            join pg_trigger t on t.tgrelid = c.oid
            join pg_depend d on d.classid = 'pg_proc'::regclass and d.objid = t.tgfoid and d.deptype = 'e'
            join pg_extension e on d.refclassid = 'pg_extension'::regclass and d.refobjid = e.oid
            where n.nspname = gone.schema_name and c.relkind = 'r' and e.extname = 'omni_credentials'
              and t.tgname = any (case when gone.of_values and gone.left_over is null
                  then array['credentials_keyrings_changed']
                  else array['encrypted_credentials_check', 'encrypted_credential_versions_check'] end)
            order by t.tgname desc
        loop
            if has_table_privilege(kept, 'SELECT') and not row_security_active(kept) then
                execute format('select exists (select from only %s)', kept::regclass) into holds;
            else
                holds := pg_relation_size(kept) > 0;
            end if;
            exit when holds;
        end loop;
        if not holds then
            continue;
        elsif gone.left_over is not null then
            raise exception using
                errcode = 'dependent_objects_still_exist',
                message = format('cannot drop column %I of table %I.%I because %s holds credentials',
                    gone.column_name, gone.schema_name, gone.object_name, kept::regclass),
                hint = format('To destroy the credentials: truncate %s, or drop schema %I cascade.', kept::regclass, gone.schema_name);
        elsif gone.of_values then
            raise exception using
                errcode = 'dependent_objects_still_exist',
                message = format('cannot drop table %I.%I and keep the keyring of its values', gone.schema_name, gone.object_name),
                hint = format('To destroy the credentials, drop what belongs together in one command: drop schema %I cascade,'
                    ' or drop table %I.%I, %I.encrypted_credential_versions, %s cascade.',
                    gone.schema_name, gone.schema_name, gone.object_name, gone.schema_name, kept::regclass);
        else
            raise exception using
                errcode = 'dependent_objects_still_exist',
                message = format('cannot drop table %I.%I because %s holds credentials', gone.schema_name, gone.object_name, kept::regclass),
                hint = format('To destroy the credentials: truncate %s, or drop schema %I cascade.', kept::regclass, gone.schema_name);
        end if;
    end loop;
end
$$;
comment on function omni_credentials.guard_tables() is
'Refuses to drop one table of an instance that holds credentials, or one of its columns, and keep the others.';

create event trigger omni_credentials_guard_tables on sql_drop
    when tag in ('DROP TABLE', 'ALTER TABLE', 'DROP SCHEMA', 'DROP OWNED', 'DROP TYPE', 'DROP EXTENSION')
    execute function omni_credentials.guard_tables();
comment on event trigger omni_credentials_guard_tables is
'The tables of an instance that holds credentials go together or not at all.';

create function omni_credentials.keep_restorable() returns event_trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    forgiving record;
begin
    -- pg_restore --disable-triggers disables all triggers of a table, and enables them again as ordinary ones, which do not
    -- fire under session_replication_role = replica. Without these, rows of the dump meet those that are there, and keyrings
    -- that another server removed are gone.
    for forgiving in
        select distinct t.tgrelid::regclass as of_table, t.tgname as name
        from pg_event_trigger_ddl_commands() d
        join pg_trigger t on t.tgrelid = d.objid
        join pg_proc p on p.oid = t.tgfoid
        join pg_depend e on e.classid = 'pg_proc'::regclass and e.objid = p.oid and e.deptype = 'e'
        join pg_extension x on e.refclassid = 'pg_extension'::regclass and e.refobjid = x.oid
        where d.classid = 'pg_class'::regclass and x.extname = 'omni_credentials' and t.tgenabled <> 'A'
          and (p.proname in ('replace_config', 'skip_known_row', 'restore_policy')
            or t.tgname in ('credentials_keyrings_arrive', 'credentials_keyrings_changed', 'allowed_variables_changed'))
    loop
        execute format('alter table %s enable always trigger %I', forgiving.of_table, forgiving.name);
    end loop;
end
$$;
comment on function omni_credentials.keep_restorable() is
'Keeps the triggers enabled that let data be restored over what CREATE EXTENSION and instantiate made.';

create function omni_credentials.guard_default() returns event_trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    made record;
    problem text;
    lost text;
begin
    -- A dump has the rows of an extension's tables and not their shape: a row with a kind or a column that CREATE EXTENSION does
    -- not make stops the restore.
    for made in
        select d.objid, d.classid, c.relname, c.relforcerowsecurity, c.relrowsecurity, c.relreplident, d.object_identity,
            d.object_type, d.command_tag
        from pg_event_trigger_ddl_commands() d
        left join pg_trigger t on d.classid = 'pg_trigger'::regclass and t.oid = d.objid
        left join pg_index i on d.classid = 'pg_class'::regclass and i.indexrelid = d.objid
        left join pg_rewrite w on d.classid = 'pg_rewrite'::regclass and w.oid = d.objid
        left join pg_class c on d.classid = 'pg_class'::regclass and c.oid = d.objid and c.relkind = 'r'
        where not d.in_extension and (d.object_type in ('table', 'type', 'trigger', 'index', 'rule') or d.command_tag = 'COMMENT')
          and exists (
            select from pg_depend e
            join pg_extension x on e.refclassid = 'pg_extension'::regclass and e.refobjid = x.oid
            where x.extname = 'omni_credentials' and e.deptype = 'e'
              and ((e.classid = 'pg_class'::regclass and e.objid in (t.tgrelid, i.indrelid, w.ev_class, c.oid))
                or (e.classid = 'pg_type'::regclass and d.classid = 'pg_type'::regclass and e.objid = d.objid)))
    loop
        if made.classid = 'pg_type'::regclass then
            lost := null;
            problem := case when array(select enumlabel::text from pg_enum where enumtypid = made.objid order by enumsortorder) <> array[
                'credential', 'api_key', 'api_secret', 'password', 'token', 'token[jwt]', 'token[oauth]',
                'ssh', 'certificate', 'otp', 'saml_assertion'] then 'other kinds' end;
        elsif made.command_tag = 'COMMENT' or made.object_type in ('trigger', 'index', 'rule') then
            problem := null;
            lost := case made.command_tag when 'COMMENT' then 'the comment on ' else '' end || made.object_type || ' ' || made.object_identity;
        else
            -- What changes the table and stops no restore.
            lost := (
                select string_agg(l.what || made.object_identity, ', ')
                from (values
                    (not made.relrowsecurity and made.relname in ('encrypted_credentials', 'encrypted_credential_versions'),
                        'the disabled row-level security of '),
                    (made.relreplident <> case when made.relname in ('encrypted_credentials', 'encrypted_credential_versions')
                        then 'i' else 'd' end, 'the replica identity of '),
                    (exists (
                        select from pg_constraint o where o.conrelid = made.objid and o.contype in ('c', 'f', 'u', 'x')
                          and made.relname in ('encrypted_credentials', 'encrypted_credential_versions', 'credentials_files')),
                        'the constraints of ')) as l (lost, what)
                where l.lost);
            problem := case
                when made.relforcerowsecurity then 'FORCE ROW LEVEL SECURITY'
                when exists (
                    select from pg_attribute a
                    join (values ('encrypted_credentials', 6), ('credentials_keyrings', 4), ('credentials_config', 7),
                        ('credentials_files', 11), ('encrypted_credential_versions', 11)) as ours (name, columns) on ours.name = made.relname
                    where a.attrelid = made.objid and a.attnum > ours.columns and not a.attisdropped) then 'other columns'
            end;
        end if;
        if problem is not null then
            raise exception using
                errcode = 'feature_not_supported',
                message = format('cannot give %s %s: it belongs to the extension, and pg_dump would not carry that', made.object_identity, problem),
                hint = 'Use an instance of your own: create schema ...; select omni_credentials.instantiate(schema => ''...'').';
        elsif lost is not null then
            raise warning using
                message = format('pg_dump does not carry %s: the table belongs to an extension', lost),
                hint = 'Do it again after a restore, or use an instance of your own: omni_credentials.instantiate().';
        end if;
    end loop;
end
$$;
comment on function omni_credentials.guard_default() is
'Refuses changes of the default instance that a dump would lose together with rows or a security setting, and warns of others.';
