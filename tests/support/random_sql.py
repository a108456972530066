"""Random statements of an adversary: the owner of an instance, who is no superuser, changes its own tables in every way that SQL
has, and everyone calls every function with odd arguments over what is left of them."""

from __future__ import annotations

import random
from collections.abc import Callable

TABLES = (
    "encrypted_credentials", "encrypted_credential_versions", "credentials_keyrings", "credentials_config", "credentials_files",
)
COLUMNS = {
    "encrypted_credentials": ("name", "value", "kind", "principal", "scope"),
    "encrypted_credential_versions": ("name", "value", "kind", "principal", "scope", "version", "valid_until", "changed_by", "deleted"),
    "credentials_keyrings": ("number", "module", "keyring", "id"),
    "credentials_config": ("singleton", "environment_variable", "module", "kdf_memory_kib", "kdf_passes", "kdf_lanes", "history_limit"),
    "credentials_files": ("filename", "generation", "synchronized_at", "unloaded", "file_digest", "base", "written_as"),
}
TYPES = (
    "text", "bytea", "bigint", "integer", "smallint", "boolean", "jsonb", "json", "oid", "regrole", "regclass", "name", '"char"', "uuid",
    "numeric", "float8", "timestamptz", "interval", "int[]", "text[]", "varchar(3)", "char(5)", "mine.credential_kind", "mine.given",
    "mine.pair", "int4range", "xml", "tsvector", "bit(3)", "cidr", "point", "mine.other_kind",
)
VALUES = (
    "null", "''", "'x'", "repeat('x', 3000)", "1234567", "-1", "0", "2147483647", "true", "'\\x00'::bytea", "'{}'", "'[1]'",
    "current_user", "sha256('x')", "(select value from mine.encrypted_credentials limit 1)",
    "(select keyring from mine.credentials_keyrings limit 1)", "'token'", "now()", "random()", "gen_random_uuid()", "default",
    "'NaN'", "4294967295", "(select module from mine.credentials_keyrings limit 1)", "array[1]", "row(1, 'x')",
)
ARGUMENTS = {
    "regnamespace": (
        "'mine'", "'mine'", "'mine'", "'omni_credentials'", "'pg_catalog'", "0::oid", "null", "4294967295::oid", "'public'",
        "pg_my_temp_schema()", "'theirs'",
    ),
    "text": (
        "'a'", "''", "null", "repeat('x', 5000)", "E'\\n'", "'{file}'", "'{file}'", "'{variable}'", "'PATH'", "'table'", "'file'",
        "'select'", "'SELECT, insert'", "'PG_VERSION'", "'/dev/null'", "'/'", "'\U0001f511'", "'builtin'", "'{role}'",
        "(select name from omni_credentials.crypto_modules limit 1)", "encode(sha256('x'), 'hex')",
    ),
    "bytea": (
        "'a'", "''", "null", "'\\x0101'", "decode(repeat('ab', 3000), 'hex')", "sha256('x')", "convert_to(repeat('x', 2000000), 'UTF8')",
        "(select value from mine.encrypted_credentials limit 1)", "(select keyring from mine.credentials_keyrings limit 1)",
        "(select substr(value, 1, 40) from mine.encrypted_credentials limit 1)",
    ),
    "regrole": ("current_user::regrole", "null", "0::oid", "4294967295::oid", "'{role}'", "'pg_read_all_data'", "10::oid"),
    "oid": (
        "'mine.encrypted_credentials'::regclass", "'mine.encrypted_credentials'::regclass", "'mine.credentials'::regclass", "0", "null",
        "'pg_class'::regclass", "4294967295", "'omni_credentials.encrypted_credentials'::regclass", "'mine.credentials_keyrings'::regclass",
        "1259", "'pg_toast.pg_toast_1255'::regclass",
    ),
    "jsonb": (
        """'{"all": true}'""", "'null'", "null", "to_jsonb(repeat('x', 100000))", "'1e131071'", "'{}'",
        "(repeat('[', 60) || repeat(']', 60))::jsonb", "to_jsonb(1.00)",
    ),
    "anyenum": ("'token'::mine.credential_kind", "'x'::mine.other_kind", "null::mine.credential_kind", "'otp'::omni_credentials.credential_kind"),
    "bigint": ("1", "-1", "0", "null", "9223372036854775807", "-9223372036854775808"),
    "interval": ("'1 day'", "'0'", "'-1 day'", "null"),
    "timestamp with time zone": ("now()", "'-infinity'", "'infinity'", "null", "'2000-01-01'"),
    "integer": ("8", "0", "-1", "null", "2147483647", "19456", "2", "1"),
    "boolean": ("true", "false", "null"),
}
ARGUMENTS["mine.credential_kind"] = ARGUMENTS["anyenum"]
TRIGGERS = (
    "mine.spy", "mine.veto", "mine.meddle", "omni_credentials.credentials_write", "omni_credentials.encrypted_credentials_check",
    "omni_credentials.encrypted_credentials_changed", "omni_credentials.credentials_store_changed", "omni_credentials.replace_config",
    "omni_credentials.crypto_modules_guard", "omni_credentials.encrypted_credentials_keep",
    "omni_credentials.encrypted_credential_versions_check",
)
# What the owner has at hand. The trick is the owner's aim: the rights of a superuser who maintains the instance.
TOOLS = """
create type mine.pair as (a int, b text);
create type mine.other_kind as enum ('x', 'y');
create domain mine.given as text check (value is null or length(value) < 100);
create function mine.spy() returns trigger language plpgsql as $$begin
    begin execute 'alter role {role} superuser'; exception when others then null; end;
    if tg_op = 'DELETE' then return old; end if;
    return new;
end$$;
create function mine.veto() returns trigger language plpgsql as 'begin return null; end';
create function mine.meddle() returns trigger language plpgsql as
    $$begin if tg_op = 'UPDATE' then new := old; end if; return new; end$$;
create function mine.pure(anyelement) returns int language plpgsql immutable as $$begin
    begin execute 'alter role {role} superuser'; exception when others then null; end;
    return 1;
end$$;
create function mine.later() returns trigger language plpgsql as
    'begin delete from mine.credentials_keyrings; return null; end';
"""


class Adversary:
    """A source of statements. The same seed gives the same ones."""

    def __init__(self, seed: int, names: dict[str, str], functions: list[tuple[str, list[str]]]) -> None:
        self.random = random.Random(seed)
        self.names = names
        self.functions = functions
        self.made = 0

    def __call__(self, *kinds: Callable[[Adversary], str]) -> str:
        statement = self.random.choice(kinds)(self)
        for name, value in self.names.items():
            statement = statement.replace(f"{{{name}}}", value)
        return statement

    def one(self, *options):
        return self.random.choice(options)

    def fresh(self) -> str:
        self.made += 1
        return f"z{self.made}"

    def table(self) -> str:
        return self.random.choices(TABLES, (4, 3, 3, 2, 2))[0]

    def column(self, table: str) -> str:
        if self.random.random() < 0.1:
            return self.one("ctid", "nothing", "moved", "z1", "z2")
        return self.one(*COLUMNS[table])


def alter_columns(a: Adversary) -> str:
    table = a.table()
    column, other = a.column(table), a.column(table)
    return f"alter table mine.{table} " + a.one(
        f"rename column {column} to moved",
        f"rename column moved to {column}",
        f"add column {a.fresh()} {a.one(*TYPES)}",
        f"add column {column} {a.one(*TYPES)} default {a.one(*VALUES)}",
        f"add column {a.fresh()} {a.one(*TYPES)} not null default {a.one(*VALUES)}",
        f"add column {a.fresh()} int generated always as (mine.pure({column})) {a.one('stored', '')}",
        f"add column {a.fresh()} int generated by default as identity",
        f"drop column {column} cascade",
        f"alter {column} type {a.one(*TYPES)}",
        f"alter {column} type {a.one(*TYPES)} using {a.one(column, other, *VALUES)}",
        f"alter {column} drop not null",
        f"alter {column} set not null",
        f"alter {column} set default {a.one(*VALUES)}",
        f"alter {column} set storage {a.one('plain', 'external', 'main', 'extended')}",
        f"alter {column} set compression {a.one('pglz', 'lz4')}",
        f"alter {column} set statistics 0",
        f"alter {column} add generated always as identity",
        f"alter {column} drop expression",
    )


def alter_table(a: Adversary) -> str:
    table = a.table()
    column = a.column(table)
    return f"alter table mine.{table} " + a.one(
        "rename to hidden",
        "set unlogged",
        "set logged",
        f"add check (mine.pure({column}) = 1)",
        f"add check ({column} is {a.one('', 'not ')}null) {a.one('', 'not valid')}",
        f"add unique ({column}) deferrable initially deferred",
        f"add primary key ({column})",
        f"add exclude using btree ({column} with =)",
        f"add foreign key ({column}) references mine.{a.table()} {a.one('', 'not valid', 'deferrable initially deferred')}",
        f"drop constraint {table}_{a.one('pkey', 'module_check', 'check', 'singleton_check')} cascade",
        "inherit mine.parent",
        "no inherit mine.parent",
        "enable row level security",
        "disable row level security",
        "force row level security",
        "no force row level security",
        f"{a.one('disable', 'enable', 'enable always', 'enable replica')} trigger {a.one('user', 'all', 'spy', 'encrypted_credentials_check')}",
        f"replica identity {a.one('full', 'nothing', 'default')}",
        f"owner to {a.one('{role}', '{stranger}')}",
        f"set schema {a.one('mine', 'theirs')}",
        "set with oids",
        f"cluster on {table}_pkey",
        "set (fillfactor = 10)",
        "set access method heap",
        f"of {a.one('mine.pair', 'mine.nothing')}",
    )


def define(a: Adversary) -> str:
    table = a.table()
    column, other = a.column(table), a.column(table)
    timing, level = a.one("before", "after"), a.one("row", "statement")
    event = a.one("insert", "update", "delete", "insert or update", "insert or update or delete", "truncate", f"update of {column}")
    return a.one(
        f"create trigger {a.one('spy', 'a', 'zz')} {timing} {event} on mine.{table} for each {level} execute function {a.one(*TRIGGERS)}()",
        f"create trigger {a.one('spy', 'a', 'zz')} {timing} {event} on mine.{table} for each {level} execute function {a.one(*TRIGGERS)}()",
        f"create trigger z instead of {a.one('insert', 'update', 'delete')} on mine.credentials for each row execute function {a.one(*TRIGGERS)}()",
        f"create constraint trigger later after {a.one('insert', 'update', 'delete')} on mine.{table} deferrable initially deferred"
        f" for each row execute function {a.one('mine.later', *TRIGGERS)}()",
        f"create trigger t after delete on mine.{table} referencing old table as o for each statement execute function {a.one(*TRIGGERS)}()",
        f"drop trigger if exists {a.one('spy', 'a', 'zz', 'later', f'{table}_changed', 'encrypted_credentials_check')} on mine.{table}",
        f"create {a.one('', 'unique')} index on mine.{table} ({column}, {other})",
        f"create index on mine.{table} (mine.pure({column}))",
        f"create index on mine.{table} ({column}) where mine.pure({other}) = 1",
        f"create index on mine.{table} using {a.one('hash', 'gin', 'gist', 'brin', 'spgist')} ({column})",
        f"create index concurrently on mine.{table} ({column})",
        f"create statistics mine.{a.fresh()} on {column}, {other} from mine.{table}",
        f"create rule r as on {a.one('insert', 'update', 'delete')} to mine.{table} do {a.one('also select 1', 'instead nothing', 'also notify x')}",
        f"drop rule if exists r on mine.{table} cascade",
        f"create policy {a.fresh()} on mine.{table} as {a.one('permissive', 'restrictive')} using ({a.one('true', 'false', f'mine.pure({column}) = 1')})",
        f"create table mine.{a.fresh()} () inherits (mine.{table})",
        f"create table mine.{a.fresh()} partition of mine.{table} default",
        "create table if not exists mine.parent (id int, name text)",
        f"create view mine.{table} as select * from mine.hidden",
        f"create materialized view mine.{table} as select * from mine.hidden",
        f"create table mine.{table} (like mine.hidden including all)",
        f"create table mine.{table} (like mine.hidden) partition by {a.one('list', 'hash', 'range')} ({column})",
        f"create table mine.{table} as select * from mine.hidden",
        f"create unlogged table mine.{table} (like mine.hidden)",
        f"create sequence mine.{table}",
        f"create type mine.{table} as (a int)",
        f"create temporary table {table} (like mine.{table} including all)",
        f"create temporary table {table} as select * from mine.{table}",
        f"create table theirs.{table} (like mine.{table} including all)",
        f"insert into theirs.{table} select * from mine.{table}",
        f"insert into pg_temp.{table} select * from mine.{table}",
        f"drop table mine.{table} cascade",
        "drop table mine.hidden cascade",
        "drop view mine.credentials cascade",
        "drop view mine.credential_file_stores",
        "drop type mine.credential_kind cascade",
        "alter type mine.credential_kind rename value 'token' to 'tok'",
        f"alter type mine.credential_kind add value '{a.fresh()}'",
        "alter type mine.credential_kind rename to gone_kind",
        "create view mine.credentials as select * from mine.encrypted_credentials",
        "create or replace view mine.credentials as select name, value, kind, principal, scope from mine.encrypted_credentials",
        "alter view mine.credentials set (security_invoker = false)",
        f"alter view mine.credentials owner to {a.one('{role}', '{stranger}')}",
        f"alter view mine.credentials rename column {a.one('name', 'value')} to {a.one('value', 'other')}",
        f"grant all on all tables in schema mine to {a.one('{stranger}', 'public')}",
        "grant usage on schema mine to {stranger}",
        "grant all on type mine.credential_kind to {stranger}",
        "revoke all on mine.encrypted_credentials from {role}",
        "grant all on mine.encrypted_credentials to {role}",
        f"reindex table mine.{table}",
        "alter schema mine rename to elsewhere",
        "alter schema elsewhere rename to mine",
    )


def change(a: Adversary) -> str:
    table = a.table()
    column, other = a.column(table), a.column(table)
    value = a.one(*VALUES)
    relation = a.one("credentials", "credentials", table)
    return a.one(
        f"update mine.{table} set {column} = {value}",
        f"update mine.{table} set {column} = {value}",
        f"update mine.{table} set {column} = {other}",
        f"insert into mine.{table} select * from mine.{table}",
        f"insert into mine.{table} ({column}) values ({value})",
        f"insert into mine.credentials_keyrings values ({a.one('1', '2', '99', '-1', '2147483647')}, {a.one(*VALUES)}, {a.one(*VALUES)})",
        f"insert into mine.credentials_files (filename, base, written_as) values ({a.one(*ARGUMENTS['text'])}, {a.one(*VALUES)}, {value})",
        f"insert into mine.credentials_config (environment_variable, kdf_memory_kib, kdf_passes, kdf_lanes)"
        f" values ({a.one(*ARGUMENTS['text'])}, {a.one('null', '8', '19456')}, {a.one('null', '1', '2')}, {a.one('null', '1', '0')})",
        f"delete from mine.{table}",
        f"truncate mine.{table} {a.one('', 'cascade')}",
        "truncate mine.encrypted_credentials, mine.credentials_keyrings",
        f"insert into mine.credentials (name, value) values ('{a.fresh()}', {a.one(*ARGUMENTS['bytea'])})",
        f"insert into mine.credentials (name, value) values ('{a.fresh()}', 'v') returning *",
        "insert into mine.credentials (name, value) select 'n' || i, 'v' from generate_series(1, 20) i on conflict do nothing",
        f"insert into mine.credentials values ({', '.join(a.one(*ARGUMENTS[t]) for t in ('text', 'bytea', 'anyenum', 'regrole', 'jsonb'))})",
        f"insert into mine.encrypted_credentials values ({', '.join(a.one(*ARGUMENTS[t]) for t in ('text', 'bytea', 'anyenum', 'regrole', 'jsonb'))})",
        f"update mine.{relation} set value = {a.one(*ARGUMENTS['bytea'])}",
        f"update mine.{relation} set name = name || 'x', kind = {a.one(*ARGUMENTS['anyenum'])}",
        f"update mine.{relation} set principal = {a.one(*ARGUMENTS['regrole'])}",
        f"update mine.credentials set scope = {a.one(*ARGUMENTS['jsonb'])} where random() < 0.5",
        f"delete from mine.{relation} where random() < 0.5",
        f"select * from mine.{a.one('credentials', 'credential_versions', 'credential_file_stores', 'encrypted_credentials', 'hidden')}",
        "select * from mine.credentials for update",
        "select name, value from mine.credentials order by value",
        "select name, value, version from mine.credential_versions order by value",
        f"select mine.get_credential({a.one(*ARGUMENTS['text'])}, version => {a.one('-1', '1', '-9', '9')})",
        "select count(*) from mine.credentials a, mine.credentials b where a.value = b.value",
        f"merge into mine.{table} t using (values (1)) v on true when matched then delete",
        f"copy mine.{relation} to stdout",
        "vacuum full mine.encrypted_credentials",
        f"analyze mine.{relation}",
        "lock mine.encrypted_credentials in share mode",
    )


def session(a: Adversary) -> str:
    return a.one(
        "begin", "begin isolation level repeatable read", "begin isolation level serializable, read only", "commit", "commit",
        "rollback", "rollback", "savepoint s", "savepoint s", "rollback to s", "release s",
        "set omni_credentials.on_unreadable = 'null'", "reset omni_credentials.on_unreadable", "set search_path = mine, pg_catalog",
        "set search_path = mine, theirs", "reset search_path", "set enable_seqscan = off", "reset enable_seqscan", "set row_security = off",
        "reset row_security", "set role {stranger}", "reset role", "discard plans", "discard temp", "discard all", "set constraints all deferred",
        "set constraints all immediate", "declare c cursor with hold for select * from mine.credentials", "fetch 2 c", "close all",
        "prepare p as select * from mine.credentials", "execute p", "execute p", "set plan_cache_mode = force_generic_plan",
        "set statement_timeout = '3ms'", "reset statement_timeout", "set debug_parallel_query = on", "set debug_parallel_query = off",
        "listen x", "select pg_terminate_backend(0)", "set default_transaction_read_only = on", "reset default_transaction_read_only",
        "set client_encoding = latin1", "reset client_encoding", "prepare transaction 'x'",
    )


def call(a: Adversary) -> str:
    name, types = a.one(*a.functions)
    arguments = [a.one(*ARGUMENTS.get(kind, ("null",))) + f"::{kind}" if kind != "anyenum" else a.one(*ARGUMENTS[kind]) for kind in types]
    return f"select * from {name}({', '.join(arguments)}) x"


def call_ours(a: Adversary) -> str:
    """The functions of the extension and nothing of the owner's: what a superuser calls."""
    while (statement := call(a)).split("(")[0].split()[-1].startswith("mine."):
        pass
    return statement


def maintain(a: Adversary) -> str:
    return "select * from omni_credentials." + a.one(
        "verify('mine')", "rotate_key('mine')", "use_module('mine')", "prune_keyrings('mine')", "rename_principal('a', '{role}', 'mine')",
        "rotate_master_secret('{variable}', 'mine')", "file_store_status('mine')", "instantiate_file_store('{file}', 'mine')",
        "file_store_reload('mine', '{file}', null, false)", "file_store_reload('mine', '{file}', 'file', false)",
        "file_store_reload('mine', '{file}', 'table', true)", "file_store_sync('mine', '{file}')", "detach_file_store('{file}', 'mine')",
        "purge_versions('mine', null, null, true)", "purge_versions('mine', 'a', now(), false)", "change_history_limit('mine', 2)",
        "change_history_limit('mine', 0)", "remove_module('none')", "grant_access('{stranger}', 'select, insert', 'mine')", "revoke_access('{stranger}', 'select', 'mine')",
    )
