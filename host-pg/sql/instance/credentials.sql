create view :schema.credentials with (security_invoker = true) as
    select c.name,
           :extension.open_credential(c.tableoid, c.name, c.kind, c.principal, c.scope, c.value, c.expires_at) as value,
           c.kind, c.principal, c.scope, c.expires_at
    from :schema.encrypted_credentials c
    -- Always true, and gone when a query is planned: none of these is dropped before the view is.
    where pg_catalog.num_nonnulls(:keyrings::pg_catalog.regclass, :config::pg_catalog.regclass, :files::pg_catalog.regclass) operator(pg_catalog.=) 3;
alter view :schema.credentials
    alter column kind set default 'credential',
    alter column principal set default pg_catalog.quote_ident(current_user)::pg_catalog.regrole,
    alter column scope set default '{"all": true}';
create trigger credentials_write instead of insert or update or delete on :schema.credentials
    for each row execute function :extension.credentials_write('@CARGO_VERSION@');
comment on trigger credentials_write on :schema.credentials is 'Seals values and writes encrypted_credentials as the caller.';
comment on view :schema.credentials is 'Credentials in the clear, for the roles that they belong to.';
comment on column :schema.credentials.name is 'What the credential is called.';
comment on column :schema.credentials.value is 'Its value, opened; sealed when written.';
comment on column :schema.credentials.kind is 'What sort of thing it is.';
comment on column :schema.credentials.principal is 'The role that it is for; by default the current user.';
comment on column :schema.credentials.scope is 'Where it is valid; by default everywhere.';
comment on column :schema.credentials.expires_at is 'When it expires; NULL is never. It opens afterwards, too.';

-- Setting and reading one credential. Literals and parameters without a type take the functions whose arguments are text,
-- since Postgres prefers text. No two of them take the same arguments, whichever are left out: those with the types of the
-- table have one that must be given. And where one takes text in a place, the others take whatever they like, but a place
-- without text has one type in all of them: that is why the scope of some comes last.
create function :schema.set_credential(
    name text,
    value bytea,
    kind :schema.credential_kind,
    principal regrole default null,
    scope jsonb default null,
    expires_at timestamptz default null)
returns void
language sql
begin atomic
    insert into :schema.encrypted_credentials as c (name, value, kind, principal, scope, expires_at)
    select n.name,
        :extension.seal_credential(
            :table::pg_catalog.regclass, n.name, n.kind, n.principal, n.scope, n.value, n.expires_at),
        n.kind, n.principal, n.scope, n.expires_at
    from (select
        set_credential.name,
        set_credential.value,
        coalesce(set_credential.kind, 'credential') as kind,
        coalesce(set_credential.principal, pg_catalog.quote_ident(current_user)::pg_catalog.regrole) as principal,
        coalesce(set_credential.scope, '{"all": true}') as scope,
        set_credential.expires_at::timestamptz(0) as expires_at) n
    on conflict (name, kind, principal, scope) do update set value = excluded.value, expires_at = excluded.expires_at;
end;
create function :schema.set_credential(
    name text,
    value bytea,
    kind text default null,
    principal text default null,
    scope jsonb default null,
    expires_at timestamptz default null)
returns void
language sql
begin atomic
    select :schema.set_credential(
        set_credential.name,
        set_credential.value,
        cast(set_credential.kind as :schema.credential_kind),
        -- The exact name of a role, such as current_user, or what a literal of type regrole may be.
        coalesce(
            (select r.oid from pg_catalog.pg_roles r where r.rolname operator(pg_catalog.=) set_credential.principal),
            set_credential.principal::pg_catalog.regrole::pg_catalog.oid)::pg_catalog.regrole,
        set_credential.scope,
        set_credential.expires_at);
end;
create function :schema.set_credential(
    name text,
    value bytea,
    principal regrole,
    expires_at timestamptz default null,
    scope jsonb default null)
returns void
language sql
begin atomic
    select :schema.set_credential(
        set_credential.name, set_credential.value, cast(null as :schema.credential_kind), set_credential.principal, set_credential.scope,
        set_credential.expires_at);
end;
create function :schema.set_credential(
    name text,
    value text,
    kind text default null,
    principal text default null,
    scope jsonb default null,
    expires_at timestamptz default null)
returns void
language sql
begin atomic
    select :schema.set_credential(
        set_credential.name,
        pg_catalog.convert_to(set_credential.value, 'UTF8'),
        set_credential.kind,
        set_credential.principal,
        set_credential.scope,
        set_credential.expires_at);
end;
create function :schema.set_credential(
    name text,
    value text,
    kind :schema.credential_kind,
    principal regrole default null,
    scope jsonb default null,
    expires_at timestamptz default null)
returns void
language sql
begin atomic
    select :schema.set_credential(
        set_credential.name,
        pg_catalog.convert_to(set_credential.value, 'UTF8'),
        set_credential.kind,
        set_credential.principal,
        set_credential.scope,
        set_credential.expires_at);
end;
create function :schema.set_credential(
    name text,
    value text,
    principal regrole,
    expires_at timestamptz default null,
    scope jsonb default null)
returns void
language sql
begin atomic
    select :schema.set_credential(
        set_credential.name,
        pg_catalog.convert_to(set_credential.value, 'UTF8'),
        cast(null as :schema.credential_kind),
        set_credential.principal,
        set_credential.scope,
        set_credential.expires_at);
end;
comment on function :schema.set_credential(text, text, text, text, jsonb, timestamptz) is 'Sets a credential, whether it exists or not. The value is stored as its UTF-8 bytes, exactly as given. What is left out or NULL has the default of the view. Without expires_at it does not expire, not even if it did before.';
comment on function :schema.set_credential(text, text, :schema.credential_kind, regrole, jsonb, timestamptz) is 'The same with the types of the view.';
comment on function :schema.set_credential(text, text, regrole, timestamptz, jsonb) is 'The same for a principal, with the default kind.';
comment on function :schema.set_credential(text, bytea, text, text, jsonb, timestamptz) is 'The same for a value of any bytes.';
comment on function :schema.set_credential(text, bytea, :schema.credential_kind, regrole, jsonb, timestamptz) is 'The same for a value of any bytes, with the types of the view.';
comment on function :schema.set_credential(text, bytea, regrole, timestamptz, jsonb) is 'The same for a value of any bytes and a principal, with the default kind.';

create function :schema.get_credential(
    name text,
    kind text default null,
    principal text default null,
    scope jsonb default null)
returns text
language sql stable
begin atomic
    select :extension.text_of_one(get_credential.name, pg_catalog.count(*), (pg_catalog.array_agg(f.value))[1])
    from (
        select :extension.open_credential(c.tableoid, c.name, c.kind, c.principal, c.scope, c.value, c.expires_at) as value
        from :schema.encrypted_credentials c
        where c.name operator(pg_catalog.=) get_credential.name
          and (get_credential.kind is null or c.kind operator(pg_catalog.=) cast(get_credential.kind as :schema.credential_kind))
          and (get_credential.principal is null or c.principal operator(pg_catalog.=) (select coalesce(
            (select r.oid from pg_catalog.pg_roles r where r.rolname operator(pg_catalog.=) get_credential.principal),
            get_credential.principal::pg_catalog.regrole::pg_catalog.oid)))
          and (get_credential.scope is null or c.scope operator(pg_catalog.=) get_credential.scope)
        limit 2) f;
end;
create function :schema.get_credential(
    name text,
    kind :schema.credential_kind,
    principal regrole default null,
    scope jsonb default null)
returns text
language sql stable
begin atomic
    select :extension.text_of_one(get_credential.name, pg_catalog.count(*), (pg_catalog.array_agg(f.value))[1])
    from (
        select :extension.open_credential(c.tableoid, c.name, c.kind, c.principal, c.scope, c.value, c.expires_at) as value
        from :schema.encrypted_credentials c
        where c.name operator(pg_catalog.=) get_credential.name
          and (get_credential.kind is null or c.kind operator(pg_catalog.=) get_credential.kind)
          and (get_credential.principal is null or c.principal operator(pg_catalog.=) get_credential.principal)
          and (get_credential.scope is null or c.scope operator(pg_catalog.=) get_credential.scope)
        limit 2) f;
end;
create function :schema.get_credential(
    name text,
    principal regrole,
    scope jsonb default null)
returns text
language sql stable
begin atomic
    select :schema.get_credential(
        get_credential.name, cast(null as :schema.credential_kind), get_credential.principal, get_credential.scope);
end;
comment on function :schema.get_credential(text, text, text, jsonb) is 'The value of a credential as text: an error if there is none or if there are several, or if the value is not text. What is left out or NULL may be anything.';
comment on function :schema.get_credential(text, :schema.credential_kind, regrole, jsonb) is 'The same with the types of the view.';
comment on function :schema.get_credential(text, regrole, jsonb) is 'The same for a principal.';

