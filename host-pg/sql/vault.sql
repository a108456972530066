-- Coming from supabase/vault, and serving what is written for it. Everything here runs with the caller's rights.

create function omni_credentials.trusted_instance(schema regnamespace) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    ours text := (select e.extnamespace::regnamespace from pg_extension e where e.extname = 'omni_credentials');
    parts oid[];
begin
    parts := array(
        select c.oid from pg_class c
        where c.relnamespace = trusted_instance.schema
          and (c.relname = 'encrypted_credentials' and c.relkind = 'r'
            or c.relname = 'credentials' and c.relkind = 'v'
                and exists (select from pg_trigger t where t.tgrelid = c.oid and t.tgfoid = (ours || '.credentials_write()')::regprocedure))
        union all
        select t.oid from pg_type t
        where t.typnamespace = trusted_instance.schema and t.typname = 'credential_kind' and t.typtype = 'e');
    if cardinality(parts) <> 3 then
        raise exception using
            errcode = 'object_not_in_prerequisite_state',
            message = format('schema %s has no credentials', schema),
            hint = format('select omni_credentials.instantiate(%L)', schema);
    end if;
    execute format('select %s.must_trust($1, $2)', ours) using schema, parts;
end
$$;
comment on function omni_credentials.trusted_instance(regnamespace) is
'Refuses a schema that has no instance, or one that another role than the caller and superusers can shape.';

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
    ours text := (select e.extnamespace::regnamespace from pg_extension e where e.extname = 'omni_credentials');
    source oid;
    place text := schema;
    mine oid := coalesce(principal::oid, quote_ident(current_user)::regrole::oid);
    compare text;
    found_there integer;
    same boolean;
    differ text[] := '{}';
begin
    if num_nulls(schema, kind, dry_run) > 0 then
        raise exception using errcode = 'null_value_not_allowed', message = 'argument schema, kind or dry_run is NULL';
    end if;
    execute format('select %s.trusted_instance($1)', ours) using schema;
    -- Anyone who may create schemas can make one of that name, with a view that does as it likes.
    select c.oid into source
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'vault' and c.relname = 'decrypted_secrets' and not exists (
        select from pg_roles r where r.oid in (c.relowner, n.nspowner) and not r.rolsuper and r.rolname <> current_user);
    if not found then
        raise exception using
            errcode = 'undefined_table',
            message = 'there is no vault.decrypted_secrets that belongs to a superuser or to the current user',
            hint = 'import_vault reads the view of the extension supabase_vault.';
    end if;

    -- How many credentials a secret has here, and whether their values are its own.
    compare := format(
        'select count(*), coalesce(bool_and(%1$s.open_credential(c.tableoid, c.name, c.kind, c.principal, c.scope, c.value, c.expires_at)
            = convert_to(s.decrypted_secret, ''UTF8'')), false)
         from %2$s.encrypted_credentials c, %3$s s
         where s.id = $1 and c.name = $2 and c.kind = $3::%2$s.credential_kind and c.principal::oid = $4 and c.scope = ''{"all": true}''',
        ours, place, source::regclass);
    -- One secret at a time, and never in a variable: what sorts or joins values may write them to a temporary file, and what
    -- passes them on as a parameter may write them to the log.
    for id, name, description in execute format(
        'select s.id, coalesce(s.name, s.id::text), s.description from %s s order by s.created_at, s.id', source::regclass)
    loop
        execute compare into found_there, same using id, name, kind, mine;
        if found_there = 0 then
            action := 'import';
            if not dry_run then
                execute format(
                    'insert into %2$s.encrypted_credentials (name, value, kind, principal)
                     select $2, %1$s.seal_credential(%4$L::regclass, $2, $3::%2$s.credential_kind, $4::regrole, ''{"all": true}'',
                        convert_to(s.decrypted_secret, ''UTF8'')), $3::%2$s.credential_kind, $4::regrole
                     from %3$s s where s.id = $1',
                    ours, place, source::regclass, place || '.encrypted_credentials')
                using id, name, kind, mine;
                -- What is there now, and not what was meant to be.
                execute compare into found_there, same using id, name, kind, mine;
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
    one text;
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
    execute format('select %s.trusted_instance($1)', ours) using schema;
    -- The secrets that the caller sees under an id. One role cannot give two an id, but several roles can.
    one := $one$(
                select c.name, c.principal, %1$I.must_be_one(count(*) over ()) as found
                from %2$s.encrypted_credentials c
                left join %1$I.about a on a.name = c.name and a.principal = c.principal
                where c.kind = 'credential' and c.scope = '{"all": true}' and coalesce(a.id, %1$I.secret_id(c.name, c.principal)) = %4$s)$one$;
    execute format($template$
        create schema %1$I;
        comment on schema %1$I is %4$L;

        create table %1$I.about (
            name text collate "C",
            principal regrole default quote_ident(current_user)::regrole,
            id uuid not null default gen_random_uuid(),
            unnamed boolean not null default false,
            description text not null default '',
            created_at timestamptz not null default current_timestamp,
            updated_at timestamptz not null default current_timestamp,
            primary key (name, principal),
            unique (principal, id)
        ) using heap;
        comment on table %1$I.about is 'What a vault keeps of a secret besides its value. A secret without a row here is shown all the same.';
        comment on column %1$I.about.name is 'The name of the credential.';
        comment on column %1$I.about.principal is 'Its principal.';
        comment on column %1$I.about.id is 'Its id in the vault.';
        comment on column %1$I.about.unnamed is 'Whether the vault shows it without a name.';
        alter table %1$I.about enable row level security;
        create policy about_principal on %1$I.about
            using (pg_has_role(principal::oid, 'USAGE')) with check (pg_has_role(principal::oid, 'USAGE'));

        create function %1$I.secret_id(name text, principal regrole) returns uuid language sql stable
        begin atomic
            -- A UUID of version 8 (RFC 9562): the hash, but for the bits of version and variant.
            select encode(set_byte(set_byte(hash.bytes, 6, get_byte(hash.bytes, 6) & 15 | 128), 8, get_byte(hash.bytes, 8) & 63 | 128), 'hex')::uuid
            from (select substring(sha256(convert_to(octet_length(secret_id.name) || ':' || secret_id.name || pg_get_userbyid(secret_id.principal), 'UTF8'))
                for 16) as bytes) hash;
        end;
        comment on function %1$I.secret_id(text, regrole) is 'The id of a secret that was not made here: the same wherever its name and the name of its principal are.';

        create function %1$I.as_text(value bytea) returns text language plpgsql stable set search_path = pg_catalog, pg_temp as $body$
        begin
            return convert_from(value, 'UTF8');
        exception
            when character_not_in_repertoire or untranslatable_character then return null;
        end
        $body$;
        comment on function %1$I.as_text(bytea) is 'A value as text; NULL if it is none.';

        create function %1$I.must_be_one(count bigint) returns bigint language plpgsql stable set search_path = pg_catalog, pg_temp as $body$
        begin
            if count > 1 then
                raise exception using
                    errcode = 'cardinality_violation',
                    message = format('%%s secrets of different principals have this id', count),
                    hint = 'Change the credential itself, by its name and principal.';
            end if;
            return count;
        end
        $body$;
        comment on function %1$I.must_be_one(bigint) is 'Refuses an id that stands for several secrets.';

        create view %1$I.decrypted_secrets with (security_invoker = true) as
            select coalesce(a.id, %1$I.secret_id(c.name, c.principal)) as id,
                   case when a.unnamed is not true then c.name end as name,
                   coalesce(a.description, '') as description,
                   encode(c.value, 'base64') as secret,
                   %1$I.as_text(%3$s.open_credential(c.tableoid, c.name, c.kind, c.principal, c.scope, c.value, c.expires_at)) as decrypted_secret,
                   null::uuid as key_id,
                   null::bytea as nonce,
                   a.created_at,
                   a.updated_at,
                   c.principal
            from %2$s.encrypted_credentials c
            left join %1$I.about a on a.name = c.name and a.principal = c.principal
            where c.kind = 'credential' and c.scope = '{"all": true}';
        comment on view %1$I.decrypted_secrets is 'Credentials of the default kind and scope, in the clear, for the roles that they belong to.';

        create view %1$I.secrets with (security_invoker = true) as
            select coalesce(a.id, %1$I.secret_id(c.name, c.principal)) as id,
                   case when a.unnamed is not true then c.name end as name,
                   coalesce(a.description, '') as description,
                   encode(c.value, 'base64') as secret,
                   null::uuid as key_id,
                   null::bytea as nonce,
                   a.created_at,
                   a.updated_at,
                   c.principal
            from %2$s.encrypted_credentials c
            left join %1$I.about a on a.name = c.name and a.principal = c.principal
            where c.kind = 'credential' and c.scope = '{"all": true}';
        comment on view %1$I.secrets is 'The same, sealed. What is inserted or set as secret is the secret as it is, and sealed.';

        create function %1$I.create_secret(
            new_secret text, new_name text default null, new_description text default '', new_key_id uuid default null)
        returns uuid language sql
        begin atomic
            with n as materialized (select coalesce(create_secret.new_name, gen_random_uuid()::text) as name, gen_random_uuid() as id),
            written as (
                insert into %2$s.credentials (name, value)
                select n.name, convert_to(create_secret.new_secret, 'UTF8') from n)
            insert into %1$I.about as a (name, id, unnamed, description)
            select n.name, n.id, create_secret.new_name is null, coalesce(create_secret.new_description, '') from n
            on conflict (name, principal) do update
                set id = excluded.id, unnamed = excluded.unnamed, description = excluded.description,
                    created_at = excluded.created_at, updated_at = excluded.updated_at
            returning a.id;
        end;
        comment on function %1$I.create_secret(text, text, text, uuid) is 'Adds a secret for the current user and returns its id.';
    $template$, place, schema, ours, format('The credentials of %s, shaped as supabase/vault shapes its secrets.', schema));
    execute format($template$
        create function %1$I.remove_secret(secret_id uuid) returns void language sql
        begin atomic
            with found as materialized %3$s,
            removed as (
                delete from %2$s.credentials c using found f
                where c.kind = 'credential' and c.scope = '{"all": true}' and c.name = f.name and c.principal = f.principal
                returning f.name, f.principal)
            delete from %1$I.about a using removed r where a.name = r.name and a.principal = r.principal;
        end;
        comment on function %1$I.remove_secret(uuid) is 'What a DELETE from secrets does for a row.';

        create function %1$I.update_secret(
            secret_id uuid, new_secret text default null, new_name text default null, new_description text default null,
            new_key_id uuid default null)
        returns void language sql
        begin atomic
            -- What was left behind by a credential of the new name.
            with found as materialized %4$s
            delete from %1$I.about a using found f
            where a.name = update_secret.new_name and a.principal = f.principal and a.name <> f.name
              and not exists (
                select from %2$s.encrypted_credentials c
                where c.kind = 'credential' and c.scope = '{"all": true}' and c.name = a.name and c.principal = a.principal);

            with found as materialized %4$s,
            changed as (
                update %2$s.credentials c
                set name = coalesce(update_secret.new_name, c.name),
                    value = coalesce(convert_to(update_secret.new_secret, 'UTF8'), c.value)
                from found f
                where c.kind = 'credential' and c.scope = '{"all": true}' and c.name = f.name and c.principal = f.principal
                  and num_nonnulls(update_secret.new_secret, update_secret.new_name) > 0
                returning f.name, f.principal),
            touched as (
                select ch.name, ch.principal from changed ch
                union all
                select f.name, f.principal from found f where num_nonnulls(update_secret.new_secret, update_secret.new_name) = 0),
            noted as (
                update %1$I.about a
                set name = coalesce(update_secret.new_name, a.name),
                    unnamed = a.unnamed and update_secret.new_name is null,
                    description = coalesce(update_secret.new_description, a.description),
                    updated_at = current_timestamp
                from touched t where a.name = t.name and a.principal = t.principal)
            -- Its id stays with a secret that gets another name.
            insert into %1$I.about (name, principal, id, description)
            select coalesce(update_secret.new_name, t.name), t.principal, update_secret.secret_id, coalesce(update_secret.new_description, '')
            from touched t
            where not exists (select from %1$I.about a where a.name = t.name and a.principal = t.principal);
        end;
        comment on function %1$I.update_secret(uuid, text, text, text, uuid) is 'Changes of a secret what is not NULL.';

        create function %1$I.secrets_write() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $body$
        begin
            if tg_op = 'INSERT' then
                if num_nonnulls(new.id, new.principal) > 0 then
                    raise exception using
                        errcode = 'feature_not_supported', message = 'a new secret gets its id here, and is for the current user';
                end if;
                execute format('select %%I.create_secret($1, $2, coalesce($3, ''''))', tg_table_schema) into new.id
                using new.secret, new.name, new.description;
                return new;
            elsif tg_op = 'UPDATE' then
                if (new.id, new.principal) is distinct from (old.id, old.principal) or num_nulls(new.secret, new.description) > 0
                    or new.name is null and old.name is not null
                then
                    raise exception using
                        errcode = 'feature_not_supported',
                        message = 'a secret keeps its id and its principal, and has a value, a description and the name that it was given';
                end if;
                execute format('select %%I.update_secret($1, $2, $3, $4)', tg_table_schema)
                using old.id, case when new.secret <> old.secret then new.secret end,
                    case when new.name is distinct from old.name then new.name end,
                    case when new.description <> old.description then new.description end;
                return new;
            end if;
            execute format('select %%I.remove_secret($1)', tg_table_schema) using old.id;
            return old;
        end
        $body$;
        comment on function %1$I.secrets_write() is 'INSTEAD OF trigger of secrets.';
        create trigger secrets_write instead of insert or update or delete on %1$I.secrets for each row execute function %1$I.secrets_write();
        comment on trigger secrets_write on %1$I.secrets is 'Writes credentials as the caller.';
    $template$, place, schema,
        format(one, place, schema, ours, 'remove_secret.secret_id'), format(one, place, schema, ours, 'update_secret.secret_id'));
    -- Default privileges neither give to others nor take from the owner.
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
        execute format('grant all on %s %s to %s', made.kind, made.object, made.owner::regrole);
    end loop;
end
$function$;
comment on function omni_credentials.create_vault_view(regnamespace, name) is
'Makes a schema with what software written for supabase/vault reads and calls, over the credentials of an instance: decrypted_secrets, secrets, create_secret, update_secret.';
