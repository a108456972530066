-- Coming from supabase/vault, and serving what is written for it. Everything here runs with the caller's rights.

create function omni_credentials.import_vault(
    schema regnamespace default 'omni_credentials',
    principal regrole default null,
    kind text default 'credential',
    dry_run boolean default false)
returns table (id uuid, name text, description text, action text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    owner oid;
    source oid;
    secret record;
    known bytea;
    differ text[] := '{}';
    place text := schema;
    mine oid := coalesce(principal::oid, quote_ident(current_user)::regrole::oid);
begin
    if num_nulls(schema, kind, dry_run) > 0 then
        raise exception using errcode = 'null_value_not_allowed', message = 'argument schema, kind or dry_run is NULL';
    end if;
    select c.relowner into owner
    from pg_class c where c.relnamespace = import_vault.schema and c.relname = 'encrypted_credentials' and c.relkind = 'r';
    if not found then
        raise exception using
            errcode = 'object_not_in_prerequisite_state',
            message = format('schema %s has no credentials', place),
            hint = format('select omni_credentials.instantiate(%L)', place);
    end if;
    -- The owner may have triggers on the table, which run as the caller does.
    if (select r.rolsuper from pg_roles r where r.rolname = current_user) and not (select r.rolsuper from pg_roles r where r.oid = owner) then
        raise exception using
            errcode = 'insufficient_privilege',
            message = format('schema %s belongs to role %s, whose triggers would run with the rights of a superuser', place, owner::regrole),
            hint = format('Run it as that role: set role %s.', owner::regrole);
    end if;
    -- Anyone who may create schemas can make one of that name, with a view that does as it likes.
    select c.oid into source
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'vault' and c.relname = 'decrypted_secrets'
      and not exists (
        select from pg_roles r where r.oid in (c.relowner, n.nspowner) and not r.rolsuper and r.rolname <> current_user);
    if not found then
        raise exception using
            errcode = 'undefined_table',
            message = 'there is no vault.decrypted_secrets that belongs to a superuser or to the current user',
            hint = 'import_vault reads the view of the extension supabase_vault.';
    end if;

    -- Row by row: whatever sorts or joins values may write them to a temporary file.
    for secret in execute format(
        'select s.id, coalesce(s.name, s.id::text) as name, s.description, convert_to(s.decrypted_secret, ''UTF8'') as value
         from %s s order by s.created_at, s.id', source::regclass)
    loop
        if secret.value is null then
            raise exception using
                errcode = 'null_value_not_allowed', message = format('secret %s of the vault has no value', secret.id);
        end if;
        execute format('select c.value from %1$s.credentials c
            where c.name = $1 and c.kind = $2::%1$s.credential_kind and c.principal::oid = $3 and c.scope = ''{"all": true}''', place)
        into known using secret.name, kind, mine;
        id := secret.id;
        name := secret.name;
        description := secret.description;
        if known is null then
            action := 'import';
            if not dry_run then
                execute format('insert into %1$s.credentials (name, value, kind, principal)
                    values ($1, $4, $2::%1$s.credential_kind, $3::regrole)', place)
                using secret.name, kind, mine, secret.value;
                -- What is there now, and not what was meant to be.
                execute format('select c.value from %1$s.credentials c
                    where c.name = $1 and c.kind = $2::%1$s.credential_kind and c.principal::oid = $3 and c.scope = ''{"all": true}''', place)
                into known using secret.name, kind, mine;
                if known is distinct from secret.value then
                    raise exception using
                        errcode = 'data_exception',
                        message = format('credential %I does not read back as it was written', secret.name),
                        hint = format('Look at the triggers and policies of %s.encrypted_credentials.', place);
                end if;
            end if;
        elsif known = secret.value then
            action := 'same';
        else
            action := 'differs';
            differ := differ || secret.name;
        end if;
        return next;
    end loop;
    if not dry_run and differ <> '{}' then
        raise exception using
            errcode = 'unique_violation',
            message = format('%s has other values for %s of the secrets: %s', place, cardinality(differ), array_to_string(differ[1:10], ', ')),
            hint = 'Nothing was imported. Rename or delete one of each two, or import for another principal or kind.';
    end if;
end
$$;
comment on function omni_credentials.import_vault(regnamespace, regrole, text, boolean) is
'Takes over the secrets of supabase/vault: all or none, each read back. The vault stays as it is. A secret without a name is named by its id. With dry_run it only says what it would do.';

create function omni_credentials.create_vault_view(
    schema regnamespace default 'omni_credentials',
    place name default 'vault')
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $function$
declare
    ours text := (select e.extnamespace::regnamespace from pg_extension e where e.extname = 'omni_credentials');
    made record;
    other text;
begin
    if num_nulls(schema, place) > 0 then
        raise exception using errcode = 'null_value_not_allowed', message = 'argument schema or place is NULL';
    end if;
    if to_regnamespace(quote_ident(place)) is not null then
        raise exception using
            errcode = 'duplicate_schema',
            message = format('schema %I exists', place),
            hint = 'Drop it, or the extension supabase_vault, once its secrets are imported; or give another place.';
    end if;
    if not exists (select from pg_class c where c.relnamespace = create_vault_view.schema and c.relname = 'credentials' and c.relkind = 'v') then
        raise exception using
            errcode = 'object_not_in_prerequisite_state',
            message = format('schema %s has no credentials', schema),
            hint = format('select omni_credentials.instantiate(%L)', schema);
    end if;
    execute format($template$
        create schema %1$I;
        comment on schema %1$I is 'The credentials of %2$s, shaped as supabase/vault shapes its secrets.';

        create table %1$I.about (
            name text collate "C",
            principal regrole default quote_ident(current_user)::regrole,
            id uuid unique,
            description text not null default '',
            created_at timestamptz not null default current_timestamp,
            updated_at timestamptz not null default current_timestamp,
            primary key (name, principal)
        );
        comment on table %1$I.about is 'What a vault keeps of a secret besides its value. A secret without a row here is shown all the same.';
        comment on column %1$I.about.id is 'The id that the secret had elsewhere; NULL is the one that its name and principal give.';
        alter table %1$I.about enable row level security;
        create policy about_principal on %1$I.about
            using (pg_has_role(principal::oid, 'USAGE')) with check (pg_has_role(principal::oid, 'USAGE'));

        -- A name that is an id stands for a secret without a name.
        create function %1$I.secret_id(name text, principal regrole) returns uuid language sql stable
        begin atomic
            select case
                when secret_id.name ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then secret_id.name::uuid
                -- A UUID of version 8 (RFC 9562): the hash, but for the bits of version and variant.
                else encode(set_byte(set_byte(hash.bytes, 6, get_byte(hash.bytes, 6) & 15 | 128), 8, get_byte(hash.bytes, 8) & 63 | 128), 'hex')::uuid
            end
            from (select substring(sha256(convert_to(format('%%L for %%s', secret_id.name, secret_id.principal), 'UTF8')) for 16) as bytes) hash;
        end;
        comment on function %1$I.secret_id(text, regrole) is 'The id of a secret: the same wherever its name and the name of its principal are.';

        create function %1$I.as_text(value bytea) returns text language plpgsql stable set search_path = pg_catalog, pg_temp as $body$
        begin
            return convert_from(value, 'UTF8');
        exception
            when character_not_in_repertoire or untranslatable_character then return null;
        end
        $body$;
        comment on function %1$I.as_text(bytea) is 'A value as text; NULL if it is none.';

        create view %1$I.decrypted_secrets with (security_invoker = true) as
            select coalesce(a.id, %1$I.secret_id(c.name, c.principal)) as id,
                   case when c.name !~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then c.name end as name,
                   coalesce(a.description, '') as description,
                   encode(c.value, 'base64') as secret,
                   %1$I.as_text(%3$s.open_credential(c.tableoid, c.name, c.kind, c.principal, c.scope, c.value, c.expires_at)) as decrypted_secret,
                   null::uuid as key_id,
                   null::bytea as nonce,
                   a.created_at,
                   a.updated_at
            from %2$s.encrypted_credentials c
            left join %1$I.about a on a.name = c.name and a.principal = c.principal
            where c.kind = 'credential' and c.scope = '{"all": true}';
        comment on view %1$I.decrypted_secrets is 'Credentials of the default kind and scope, in the clear, for the roles that they belong to.';

        create view %1$I.secrets with (security_invoker = true) as
            select coalesce(a.id, %1$I.secret_id(c.name, c.principal)) as id,
                   case when c.name !~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then c.name end as name,
                   coalesce(a.description, '') as description,
                   encode(c.value, 'base64') as secret,
                   null::uuid as key_id,
                   null::bytea as nonce,
                   a.created_at,
                   a.updated_at
            from %2$s.encrypted_credentials c
            left join %1$I.about a on a.name = c.name and a.principal = c.principal
            where c.kind = 'credential' and c.scope = '{"all": true}';
        comment on view %1$I.secrets is 'The same, sealed. What is inserted or set as secret is the secret as it is, and sealed.';

        create function %1$I.create_secret(
            new_secret text, new_name text default null, new_description text default '', new_key_id uuid default null)
        returns uuid language sql
        begin atomic
            with named as materialized (select coalesce(create_secret.new_name, gen_random_uuid()::text) as name),
            written as (
                insert into %2$s.credentials (name, value)
                select n.name, convert_to(create_secret.new_secret, 'UTF8') from named n),
            noted as (
                insert into %1$I.about as a (name, description)
                select n.name, coalesce(create_secret.new_description, '') from named n
                on conflict (name, principal) do update
                    set id = null, description = excluded.description, created_at = excluded.created_at, updated_at = excluded.updated_at)
            select %1$I.secret_id(n.name, quote_ident(current_user)::regrole) from named n;
        end;
        comment on function %1$I.create_secret(text, text, text, uuid) is 'Adds a secret for the current user and returns its id.';

        create function %1$I.remove_secret(secret_id uuid) returns void language sql
        begin atomic
            with found as (
                select c.name, c.principal from %2$s.encrypted_credentials c
                left join %1$I.about a on a.name = c.name and a.principal = c.principal
                where c.kind = 'credential' and c.scope = '{"all": true}'
                  and coalesce(a.id, %1$I.secret_id(c.name, c.principal)) = remove_secret.secret_id),
            removed as (
                delete from %2$s.credentials c using found f
                where c.kind = 'credential' and c.scope = '{"all": true}' and c.name = f.name and c.principal = f.principal)
            delete from %1$I.about a using found f where a.name = f.name and a.principal = f.principal;
        end;
        comment on function %1$I.remove_secret(uuid) is 'What a DELETE from secrets does for a row.';

        -- Its id stays with a secret that gets another name.
        create function %1$I.update_secret(
            secret_id uuid, new_secret text default null, new_name text default null, new_description text default null,
            new_key_id uuid default null)
        returns void language sql
        begin atomic
            with found as materialized (
                select c.name, c.principal from %2$s.encrypted_credentials c
                left join %1$I.about a on a.name = c.name and a.principal = c.principal
                where c.kind = 'credential' and c.scope = '{"all": true}'
                  and coalesce(a.id, %1$I.secret_id(c.name, c.principal)) = update_secret.secret_id),
            changed as (
                update %2$s.credentials c
                set name = coalesce(update_secret.new_name, c.name),
                    value = coalesce(convert_to(update_secret.new_secret, 'UTF8'), c.value)
                from found f
                where c.kind = 'credential' and c.scope = '{"all": true}' and c.name = f.name and c.principal = f.principal
                  and num_nonnulls(update_secret.new_secret, update_secret.new_name) > 0),
            forgotten as (
                delete from %1$I.about a using found f where a.name = f.name and a.principal = f.principal
                  and update_secret.new_name <> f.name
                returning a.description, a.created_at)
            insert into %1$I.about as a (name, principal, id, description, created_at)
            select coalesce(update_secret.new_name, f.name), f.principal,
                case when update_secret.new_name <> f.name then update_secret.secret_id end,
                coalesce(update_secret.new_description, (select o.description from forgotten o), ''),
                coalesce((select o.created_at from forgotten o), current_timestamp)
            from found f
            on conflict (name, principal) do update
                set description = coalesce(update_secret.new_description, a.description), updated_at = current_timestamp;
        end;
        comment on function %1$I.update_secret(uuid, text, text, text, uuid) is 'Changes of a secret what is not NULL.';

        create function %1$I.secrets_write() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $body$
        begin
            if tg_op = 'INSERT' then
                execute format('select %%I.create_secret($1, $2, coalesce($3, ''''))', tg_table_schema) into new.id
                using new.secret, new.name, new.description;
                return new;
            end if;
            if tg_op = 'UPDATE' then
                execute format('select %%I.update_secret($1, $2, $3, $4)', tg_table_schema)
                using old.id, case when new.secret <> old.secret then new.secret end, new.name, new.description;
                return new;
            end if;
            execute format('select %%I.remove_secret($1)', tg_table_schema) using old.id;
            return old;
        end
        $body$;
        comment on function %1$I.secrets_write() is 'INSTEAD OF trigger of secrets.';
        create trigger secrets_write instead of insert or update or delete on %1$I.secrets for each row execute function %1$I.secrets_write();
        comment on trigger secrets_write on %1$I.secrets is 'Writes credentials as the caller.';
    $template$, place, schema, ours);
    -- Default privileges give nothing to others.
    for made in
        select 'table' as kind, c.oid::regclass::text as object, c.relacl as acl, c.relowner as owner, 'r'::"char" as letter
        from pg_class c where c.relnamespace = quote_ident(place)::regnamespace and c.relkind in ('r', 'v')
        union all
        select 'function', p.oid::regprocedure::text, p.proacl, p.proowner, 'f'
        from pg_proc p where p.pronamespace = quote_ident(place)::regnamespace
        union all
        select 'schema', n.oid::regnamespace::text, n.nspacl, n.nspowner, 'n'
        from pg_namespace n where n.oid = quote_ident(place)::regnamespace
    loop
        for other in
            select distinct case a.grantee when 0 then 'public' else a.grantee::regrole::text end
            from aclexplode(coalesce(made.acl, acldefault(made.letter, made.owner))) a where a.grantee <> made.owner
        loop
            execute format('revoke all on %s %s from %s', made.kind, made.object, other);
        end loop;
    end loop;
end
$function$;
comment on function omni_credentials.create_vault_view(regnamespace, name) is
'Makes a schema with what software written for supabase/vault reads and calls, over the credentials of an instance: decrypted_secrets, secrets, create_secret, update_secret.';
