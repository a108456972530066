-- Crypto modules

create table omni_credentials.crypto_modules (
    digest bytea primary key check (pg_catalog.octet_length(digest) = 32),
    wasm bytea not null,
    name text not null,
    version text not null,
    contract text not null,
    suite text not null,
    installed_by name not null default current_user,
    installed_at timestamptz not null default pg_catalog.now()
) using heap;
alter table omni_credentials.crypto_modules alter column wasm set storage external;
comment on table omni_credentials.crypto_modules is
'The crypto modules of this database: WebAssembly components, known by their SHA-256 digest.';
comment on column omni_credentials.crypto_modules.digest is 'SHA-256 of the component.';
comment on column omni_credentials.crypto_modules.wasm is 'The bytes of the component.';
comment on column omni_credentials.crypto_modules.name is 'The name of the module.';
comment on column omni_credentials.crypto_modules.version is 'The version of the module.';
comment on column omni_credentials.crypto_modules.contract is 'The version of the contract that the module implements.';
comment on column omni_credentials.crypto_modules.suite is 'The cipher suite of the module.';
comment on column omni_credentials.crypto_modules.installed_by is 'The role that installed the module.';
comment on column omni_credentials.crypto_modules.installed_at is 'When the module was installed.';

create function omni_credentials.register_builtin_module() returns void
language c volatile
as 'MODULE_PATHNAME', 'register_builtin_module_wrapper';
comment on function omni_credentials.register_builtin_module() is
'Puts the module that comes with the extension into crypto_modules, unless it is there.';

create function omni_credentials.skip_known_row() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    known boolean;
begin
    -- Here and below, the schema of the extension is where the catalogs say, under whatever name.
    execute pg_catalog.format('select exists (select from %I.%I k where %s)', tg_table_schema, tg_table_name,
        (select pg_catalog.string_agg(pg_catalog.format('k.%1$I = ($1).%1$I', c.name), ' and ') from unnest(tg_argv) c (name)))
        into known using new;
    if known then
        return null;
    end if;
    return new;
end
$$;
comment on function omni_credentials.skip_known_row() is
'Lets a dump be restored where a table has some of its rows already. Its arguments are the columns that tell rows apart.';

create function omni_credentials.crypto_modules_guard() returns trigger
language c
as 'MODULE_PATHNAME', 'crypto_modules_guard_wrapper';
comment on function omni_credentials.crypto_modules_guard() is
'Refuses modules whose digest is wrong, and removal of modules that are in use.';

create trigger crypto_modules_guard before insert or update or delete on omni_credentials.crypto_modules
for each row execute function omni_credentials.crypto_modules_guard();
create trigger crypto_modules_guard_truncate before truncate on omni_credentials.crypto_modules
for each statement execute function omni_credentials.crypto_modules_guard();
comment on trigger crypto_modules_guard on omni_credentials.crypto_modules is 'Digests are right, and modules in use stay.';
comment on trigger crypto_modules_guard_truncate on omni_credentials.crypto_modules is 'Modules in use stay.';

create function omni_credentials.install_module(name text, wasm bytea, digest bytea) returns void
language c volatile
as 'MODULE_PATHNAME', 'install_module_wrapper';
comment on function omni_credentials.install_module(text, bytea, bytea) is
'Adds a crypto module under a name: checks its SHA-256 digest, what it imports, its contract and its answers to known tests. Superusers only.';

create function omni_credentials.install_module(name text, wasm bytea, digest text) returns void
language sql volatile
begin atomic
    select omni_credentials.install_module(
        install_module.name, install_module.wasm,
        pg_catalog.decode(pg_catalog.regexp_replace(install_module.digest, E'^\\\\x', ''), 'hex'));
end;
comment on function omni_credentials.install_module(text, bytea, text) is
'The same with the digest in hexadecimal.';

create function omni_credentials.remove_module(module text) returns void
language c volatile
as 'MODULE_PATHNAME', 'remove_module_wrapper';
comment on function omni_credentials.remove_module(text) is
'Removes a crypto module, given by name or digest, that no keyring and no setting refers to. Superusers only.';

create function omni_credentials.use_module(
    schema regnamespace default 'omni_credentials', module text default null)
returns bigint
language c volatile
as 'MODULE_PATHNAME', 'use_module_wrapper';
comment on function omni_credentials.use_module(regnamespace, text) is
'Moves an instance to another crypto module, given by name or digest: makes a keyring with it and seals every credential again. Without a module, a fresh keyring of the one in use. Returns how many credentials. All or nothing.';

create function omni_credentials.prune_keyrings(schema regnamespace default 'omni_credentials')
returns bigint
language c volatile
as 'MODULE_PATHNAME', 'prune_keyrings_wrapper';
comment on function omni_credentials.prune_keyrings(regnamespace) is
'Removes the keyrings that came before the current one of an instance, unless a credential or a registered file still needs one of them. Returns how many. What holds values from before, such as an older file or dump, must hold its keyring as well.';

create trigger skip_known_module before insert on omni_credentials.crypto_modules
for each row execute function omni_credentials.skip_known_row('digest');
alter table omni_credentials.crypto_modules enable always trigger skip_known_module;
comment on trigger skip_known_module on omni_credentials.crypto_modules is 'A dump''s modules join those of CREATE EXTENSION.';
