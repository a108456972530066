create view :schema.credential_versions with (security_invoker = true) as
    select v.name,
           :extension.open_credential(:table::pg_catalog.regclass, v.name, v.kind, v.principal, v.scope, v.value, v.expires_at) as value,
           v.kind, v.principal, v.scope, v.expires_at, v.version, v.valid_from, v.valid_until, v.changed_by, v.deleted
    from :extension.versions_seen(:table::pg_catalog.regclass, null, cast(null as :schema.credential_kind), null, null, null)
        as v (name text, value bytea, kind :schema.credential_kind, principal regrole, scope jsonb, expires_at timestamptz,
            version bigint, valid_from timestamptz, valid_until timestamptz, changed_by name, deleted boolean)
    -- As in credentials.
    where pg_catalog.num_nonnulls(:versions::pg_catalog.regclass) operator(pg_catalog.=) 1;
comment on view :schema.credential_versions is 'The values that credentials had before, in the clear, for the roles that may read the credentials.';
comment on column :schema.credential_versions.name is 'What the credential was called.';
comment on column :schema.credential_versions.value is 'The value, opened.';
comment on column :schema.credential_versions.kind is 'What sort of thing it was.';
comment on column :schema.credential_versions.principal is 'The role that it was for.';
comment on column :schema.credential_versions.scope is 'Where it was valid.';
comment on column :schema.credential_versions.expires_at is 'When it was to expire.';
comment on column :schema.credential_versions.version is 'Counts up with each change of a credential.';
comment on column :schema.credential_versions.valid_from is 'When the version before it was replaced; NULL where the history does not know since when it was valid.';
comment on column :schema.credential_versions.valid_until is 'When it was replaced or deleted.';
comment on column :schema.credential_versions.changed_by is 'The role that replaced or deleted it.';
comment on column :schema.credential_versions.deleted is 'Whether it was deleted, and not replaced.';

-- As for the functions before: none of these takes the arguments of another one, whichever are left out.
create function :schema.get_credential(
    name text,
    version bigint,
    kind :schema.credential_kind,
    principal regrole default null,
    scope jsonb default null)
returns text
language sql stable
begin atomic
    select case when coalesce(get_credential.version, 0) operator(pg_catalog.=) 0
        then :schema.get_credential(get_credential.name, get_credential.kind, get_credential.principal, get_credential.scope)
        else (select :extension.text_of_one(get_credential.name, 1,
            :extension.open_credential(:table::pg_catalog.regclass, v.name, v.kind, v.principal, v.scope, v.value, v.expires_at))
        from :extension.versions_seen(
            :table::pg_catalog.regclass, get_credential.name, get_credential.kind, get_credential.principal, get_credential.scope,
            get_credential.version)
            as v (name text, value bytea, kind :schema.credential_kind, principal regrole, scope jsonb, expires_at timestamptz,
                version bigint, valid_from timestamptz, valid_until timestamptz, changed_by name, deleted boolean))
        end;
end;
create function :schema.get_credential(
    name text,
    version bigint,
    kind text default null,
    principal text default null,
    scope jsonb default null)
returns text
language sql stable
begin atomic
    select :schema.get_credential(
        get_credential.name,
        get_credential.version,
        cast(get_credential.kind as :schema.credential_kind),
        coalesce(
            (select r.oid from pg_catalog.pg_roles r where r.rolname operator(pg_catalog.=) get_credential.principal),
            get_credential.principal::pg_catalog.regrole::pg_catalog.oid)::pg_catalog.regrole,
        get_credential.scope);
end;
create function :schema.get_credential(
    name text,
    version bigint,
    principal regrole,
    scope jsonb default null)
returns text
language sql stable
begin atomic
    select :schema.get_credential(
        get_credential.name, get_credential.version, cast(null as :schema.credential_kind), get_credential.principal, get_credential.scope);
end;
comment on function :schema.get_credential(text, bigint, text, text, jsonb) is 'The value of a version of a credential as text: its number in credential_versions, or -1 for the value before the present one, or before it was deleted, -2 for the one before that. 0 or NULL is the present one.';
comment on function :schema.get_credential(text, bigint, :schema.credential_kind, regrole, jsonb) is 'The same with the types of the view.';
comment on function :schema.get_credential(text, bigint, regrole, jsonb) is 'The same for a principal.';

create function :schema.restore_credential(
    name text,
    kind :schema.credential_kind,
    principal regrole default null,
    scope jsonb default null,
    version bigint default -1)
returns bigint
language sql
begin atomic
    with v as materialized (
        select *
        from :extension.versions_seen(
            :table::pg_catalog.regclass, restore_credential.name, restore_credential.kind, restore_credential.principal,
            restore_credential.scope, coalesce(restore_credential.version, -1))
            as v (name text, value bytea, kind :schema.credential_kind, principal regrole, scope jsonb, expires_at timestamptz,
                version bigint, valid_from timestamptz, valid_until timestamptz, changed_by name, deleted boolean)),
    restored as (
        insert into :schema.encrypted_credentials as c (name, value, kind, principal, scope, expires_at)
        select v.name, v.value, v.kind, v.principal, v.scope, v.expires_at from v
        on conflict (name, kind, principal, scope) do update set value = excluded.value, expires_at = excluded.expires_at)
    select v.version from v;
end;
create function :schema.restore_credential(
    name text,
    kind text default null,
    principal text default null,
    scope jsonb default null,
    version bigint default -1)
returns bigint
language sql
begin atomic
    select :schema.restore_credential(
        restore_credential.name,
        cast(restore_credential.kind as :schema.credential_kind),
        coalesce(
            (select r.oid from pg_catalog.pg_roles r where r.rolname operator(pg_catalog.=) restore_credential.principal),
            restore_credential.principal::pg_catalog.regrole::pg_catalog.oid)::pg_catalog.regrole,
        restore_credential.scope,
        restore_credential.version);
end;
create function :schema.restore_credential(
    name text,
    principal regrole,
    version bigint default -1,
    scope jsonb default null)
returns bigint
language sql
begin atomic
    select :schema.restore_credential(
        restore_credential.name, cast(null as :schema.credential_kind), restore_credential.principal, restore_credential.scope,
        restore_credential.version);
end;
comment on function :schema.restore_credential(text, text, text, jsonb, bigint) is 'Gives a credential the value and the expiry again that it had in a version of its history, by default the last one, whether it was replaced or deleted. Returns the version. The value that it replaces goes to the history.';
comment on function :schema.restore_credential(text, :schema.credential_kind, regrole, jsonb, bigint) is 'The same with the types of the view.';
comment on function :schema.restore_credential(text, regrole, bigint, jsonb) is 'The same for a principal.';

create function :schema.purge_history(
    name text default null,
    older_than interval default null,
    everything boolean default false)
returns bigint
language sql
begin atomic
    select :extension.purge_versions(
        :namespace::pg_catalog.regnamespace, purge_history.name,
        pg_catalog.now() operator(pg_catalog.-) purge_history.older_than, purge_history.everything);
end;
comment on function :schema.purge_history is 'Removes values from the history: those of a name, those that were replaced or deleted longer ago than an age, both, or everything. Returns how many. For the owner of the instance.';

create function :schema.set_history_limit(versions integer)
returns void
language sql
begin atomic
    select :extension.change_history_limit(:namespace::pg_catalog.regnamespace, set_history_limit.versions);
end;
comment on function :schema.set_history_limit is 'How many replaced or deleted values of a credential are kept from its next change on; 0 is none. What is kept already stays until then, with 0 until purge_history. For the owner of the instance.';

create function :schema.expiring(within interval default '30 days')
returns table (name text, kind :schema.credential_kind, principal regrole, scope jsonb, expires_at timestamptz)
language sql stable
begin atomic
    select c.name, c.kind, c.principal, c.scope, c.expires_at
    from :schema.encrypted_credentials c
    where c.expires_at operator(pg_catalog.<=) (pg_catalog.now() operator(pg_catalog.+) expiring.within)
    order by c.expires_at, c.name;
end;
comment on function :schema.expiring is 'The credentials that have expired or will expire within this time, those of the caller''s principals. Opens nothing.';

