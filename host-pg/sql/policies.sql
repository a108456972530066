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
alter table omni_credentials.added_policies enable always trigger restore_policy;
comment on trigger restore_policy on omni_credentials.added_policies is 'A restored row becomes a policy again.';
comment on column omni_credentials.added_policies.name is 'The policy.';
comment on column omni_credentials.added_policies.permissive is 'True for a permissive policy, false for a restrictive one.';
comment on column omni_credentials.added_policies.command is 'As in pg_policy: r, a, w, d or *. NULL: the policy was dropped.';
comment on column omni_credentials.added_policies.roles is 'Roles the policy applies to; 0 means PUBLIC.';
comment on column omni_credentials.added_policies.using_expression is 'The condition for existing rows.';
comment on column omni_credentials.added_policies.check_expression is 'The condition for new rows.';
