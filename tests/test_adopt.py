"""Coming from omni_credentials 0.2.0, an older extension of the same name: ALTER EXTENSION UPDATE, and adopt().

The old one here is a stand-in with the same objects and the same sealing. Where this Postgres has no pgcrypto, that is
a stand-in, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from conftest import MASTER_KEY, VARIABLE, Database, fresh_database, new_server, refused
from installed import with_extension
from throwaway import Server

KINDS = ["credential", "api_key", "api_secret", "password", "token", "token[jwt]", "token[oauth]", "ssh", "certificate", "otp", "saml_assertion"]
# What the old instantiate() made in a schema, by names and shapes.
COPY = f"""
set local search_path = SCHEMA, public;
create table credentials_config (environment_variable text not null unique);
insert into credentials_config values ('VARIABLE');
create type credential_kind as enum ({", ".join(f"'{kind}'" for kind in KINDS)});
create table encrypted_credentials (name text not null, value bytea not null, kind credential_kind not null default 'credential',
    principal regrole not null default current_user::regrole, scope jsonb not null default '{{"all": true}}');
alter table encrypted_credentials enable row level security;
create policy encrypted_credentials_principal on encrypted_credentials using (pg_has_role(current_user, principal, 'USAGE'));
create unique index encrypted_credentials_uniq on encrypted_credentials (name, kind, principal, scope);
create function decrypt_credential(credential bytea) returns text security definer language sql
    begin atomic select pgp_sym_decrypt(credential, value) from omni_os.env, credentials_config where variable = environment_variable; end;
create function encrypt_credential(credential text) returns bytea security definer language sql
    begin atomic select pgp_sym_encrypt(credential, value) from omni_os.env, credentials_config where variable = environment_variable; end;
create view credentials with (security_barrier, security_invoker) as
    select name, decrypt_credential(value) as value, kind, principal, scope from encrypted_credentials;
create function credentials_update() returns trigger language plpgsql as 'begin return new; end';
create trigger credentials_update instead of insert or update or delete on credentials for each row execute function credentials_update();
"""
FILES = """
create table SCHEMA.credential_file_stores (filename text unique);
insert into SCHEMA.credential_file_stores values ('/srv/old.credentials');
create function SCHEMA.credential_file_store_reload(filename text) returns boolean language sql as 'select true';
create function SCHEMA.file_store_credentials_update() returns trigger language plpgsql as 'begin return new; end';
create constraint trigger file_store_credentials_update after insert or update or delete on SCHEMA.encrypted_credentials
    deferrable initially deferred for each row execute function SCHEMA.file_store_credentials_update();
"""
OLD = "create function omni_credentials.instantiate(schema regnamespace default 'omni_credentials', env_var text default 'V') returns void" \
    " language sql as '';\ncreate function omni_credentials.instantiate_file_store(filename text, schema regnamespace default" \
    " 'omni_credentials') returns void language sql as '';\n" + COPY.replace("SCHEMA", "omni_credentials").replace("VARIABLE", VARIABLE)
PGCRYPTO = """
create function pgp_sym_encrypt(text, text) returns bytea language sql immutable as $$ select convert_to(reverse($1) || '|' || md5($2), 'UTF8') $$;
create function pgp_sym_decrypt(bytea, text) returns text language plpgsql immutable as $$ begin
    if split_part(convert_from($1, 'UTF8'), '|', 2) <> md5($2) then raise 'Wrong key or corrupt data' using errcode = '39000'; end if;
    return reverse(split_part(convert_from($1, 'UTF8'), '|', 1)); end $$;
"""
CONTROL = "default_version = '1.0'\nrelocatable = true\n"
SET = "insert into {0}.encrypted_credentials (name, value, kind, principal, scope)" \
    " values (%s, {0}.encrypt_credential(%s), %s::{0}.credential_kind, %s::regrole, %s::jsonb)"
ROWS = "select name, convert_from(value, 'UTF8'), kind::text, principal::text, scope from {}.credentials order by name"
FILLED = [("one", "v\\x41", "credential", "app", {"all": True}), ("two", "Zoë", "token[jwt]", "postgres", {"host": "h"})]


@pytest.fixture(scope="module")
def old_server() -> Iterator[Server]:
    """A server that has both extensions, with generated keys in its environment and in what the old one reads."""
    server = new_server("old")
    with_extension(server)
    folder = Path(server.installation.ask("sharedir")) / "extension"
    (folder / "omni_credentials--0.2.0.sql").write_text(OLD)
    (folder / "omni_os.control").write_text("default_version = '1.0'\nschema = omni_os\nrelocatable = false\n")
    (folder / "omni_os--1.0.sql").write_text(
        f"create view omni_os.env as select * from (values ('{VARIABLE}', '{MASTER_KEY}'), ('OTHER', 'another secret')) as v (variable, value);")
    if not (folder / "pgcrypto.control").exists():
        (folder / "pgcrypto.control").write_text(CONTROL)
        (folder / "pgcrypto--1.0.sql").write_text(PGCRYPTO)
    server.start({VARIABLE: MASTER_KEY, "OTHER": "another secret"})
    yield server
    server.remove()


@pytest.fixture
def old(old_server: Server) -> Iterator[Database]:
    """A database with the old extension, another copy of it in schema `mine`, and credentials in both."""
    database = fresh_database(old_server, extension=False)
    database.run("do $$ begin create role app login; exception when duplicate_object then end $$")
    database.run("create extension pgcrypto; create extension omni_os; create extension omni_credentials version '0.2.0'")
    database.run("create schema mine;" + COPY.replace("SCHEMA", "mine").replace("VARIABLE", "OTHER"))
    for schema in ("omni_credentials", "mine"):
        database.run(SET.format(schema), "one", "v\\x41", "credential", "app", '{"all": true}')
        database.run(SET.format(schema), "two", "Zoë", "token[jwt]", "postgres", '{"host": "h"}')
        database.run(f"grant usage on schema {schema} to app; grant select on {schema}.encrypted_credentials to app;"
                     f" grant select, insert on {schema}.credentials to app")
    yield database
    database.close()


def update(database: Database) -> None:
    database.run("alter extension omni_credentials update")


def leftovers(database: Database) -> list[tuple]:
    return database.run(
        "select relname from pg_class where relname like '%%0.2.0%%' union all select proname from pg_proc where proname like '%%0.2.0%%'"
        " or proname in ('encrypt_credential', 'decrypt_credential', 'credentials_update')"
        " union all select typname from pg_type where typname like '%%0.2.0%%'")


def test_update(old: Database) -> None:
    old.run(FILES.replace("SCHEMA", "omni_credentials"))
    old.run("create policy no_otp on omni_credentials.encrypted_credentials as restrictive for select to app using (kind <> 'otp')")
    update(old)
    assert old.run(ROWS.format("omni_credentials")) == FILLED
    assert old.run(ROWS.format("omni_credentials"), user="app") == FILLED[:1]
    old.run("insert into omni_credentials.credentials (name, value) values ('new', 'v')", user="app")
    assert old.run("select omni_credentials.rotate_key()") == [(3,)]
    assert old.run("select * from omni_credentials.verify()") == []
    assert old.run("select extversion <> '0.2.0' from pg_extension where extname = 'omni_credentials'") == [(True,)]
    assert ("no_otp",) in old.run("select polname from pg_policy where polrelid = 'omni_credentials.encrypted_credentials'::regclass")
    assert old.run("select name, using_expression like '%%otp%%' from omni_credentials.added_policies where name = 'no_otp'") == [("no_otp", True)]
    # The other copy goes on as it was, and then comes along.
    assert old.run("select name, value from mine.credentials order by 1") == [("one", "v\\x41"), ("two", "Zoë")]
    assert old.run("select omni_credentials.adopt('mine')") == [(2,)]
    assert leftovers(old) == []
    # Nothing of the old requirements stays.
    old.run("drop extension omni_os; drop extension pgcrypto")


def test_the_updated_extension_is_the_installed_one(old: Database, old_server: Server) -> None:
    """The same objects, with the same rights, whichever way they came."""
    members = """
        select pg_identify_object(d.classid, d.objid, 0)::text,
            (select p.prosrc || coalesce(pg_get_function_sqlbody(p.oid), '') || p.proacl::text from pg_proc p where d.classid = 'pg_proc'::regclass and p.oid = d.objid),
            (select coalesce(c.relacl::text, '') || (select string_agg(format('%s %s %s', attname, format_type(atttypid, atttypmod), attnotnull), ',' order by attnum)
                from pg_attribute where attrelid = c.oid and attnum > 0) from pg_class c where d.classid = 'pg_class'::regclass and c.oid = d.objid),
            obj_description(d.objid, (select relname from pg_class where oid = d.classid)::name)
        from pg_depend d join pg_extension e on d.refobjid = e.oid and d.refclassid = 'pg_extension'::regclass
        where e.extname = 'omni_credentials' and d.deptype = 'e' order by 1"""
    old.run("revoke all on all tables in schema omni_credentials from app")
    old.run("drop schema mine cascade; drop owned by app")
    update(old)
    new = fresh_database(old_server)
    assert old.run(members) == new.run(members)
    assert old.run("select extconfig is not null, cardinality(extconfig), extcondition from pg_extension where extname = 'omni_credentials'") \
        == new.run("select extconfig is not null, cardinality(extconfig), extcondition from pg_extension where extname = 'omni_credentials'")
    new.close()


class TestAdopt:
    @pytest.fixture
    def updated(self, old: Database) -> Database:
        update(old)
        return old

    def test_kinds_policies_and_rights(self, updated: Database) -> None:
        updated.run("alter type mine.credential_kind add value 'before' before 'api_key'")
        updated.run("alter type mine.credential_kind add value 'last'")
        # Before Postgres 17, a kind cannot be used in the transaction that adds it.
        kind = "last" if updated.server.installation.major >= 17 else "otp"
        updated.run(SET.format("mine"), "three", "3", kind, "app", '{"all": true}')
        updated.run("create policy more on mine.encrypted_credentials for select to app using (kind = 'token[jwt]')")
        updated.run("create policy less on mine.encrypted_credentials as restrictive for delete using (name <> 'one') ")
        updated.run("alter table mine.encrypted_credentials force row level security")
        policies = "select polname, polcmd, polpermissive, polroles::regrole[]::text from pg_policy where polrelid = 'mine.encrypted_credentials'::regclass order by 1"
        labels = "select enumlabel from pg_enum where enumtypid = 'mine.credential_kind'::regtype order by enumsortorder"
        before = updated.run(policies), updated.run(labels)
        assert updated.run("select omni_credentials.adopt('mine')") == [(3,)]
        assert (updated.run(policies), updated.run(labels)) == before
        assert updated.run("select relforcerowsecurity from pg_class where oid = 'mine.encrypted_credentials'::regclass") == [(True,)]
        assert [row[0] for row in updated.run(ROWS.format("mine"), user="app")] == ["one", "three", "two"]
        assert updated.run("select environment_variable from mine.credentials_config") == [("OTHER",)]
        assert leftovers(updated) == []

    def test_a_kind_in_use(self, updated: Database) -> None:
        if updated.server.installation.major >= 17:
            pytest.skip("Postgres 17 can use a kind in the transaction that adds it")
        updated.run("alter type mine.credential_kind add value 'last'")
        updated.run(SET.format("mine"), "three", "3", "last", "app", '{"all": true}')
        with refused("0A000", "credentials in schema mine are of kind last", hint="version 17"):
            updated.run("select omni_credentials.adopt('mine')")
        updated.run("update mine.encrypted_credentials set kind = 'otp' where name = 'three'")
        assert updated.run("select omni_credentials.adopt('mine')") == [(3,)]

    def test_its_owner_does(self, updated: Database) -> None:
        updated.run("do $$ begin create role keeper login; exception when duplicate_object then end $$")
        for kind, names in {"table": ["encrypted_credentials", "credentials_config"], "view": ["credentials"], "type": ["credential_kind"],
                            "function": ["encrypt_credential(text)", "decrypt_credential(bytea)", "credentials_update()"]}.items():
            for name in names:
                updated.run(f"alter {kind} mine.{name} owner to keeper")
        updated.run("alter schema mine owner to keeper; grant usage on schema omni_os, omni_credentials to keeper; grant select on omni_os.env to keeper")
        with refused("42501", "belong to role keeper"):
            updated.run("select omni_credentials.adopt('mine')")
        with refused("42501"):
            updated.run("select omni_credentials.adopt('mine')", user="keeper")
        updated.run("grant execute on all functions in schema omni_credentials to keeper with grant option; grant usage on schema omni_credentials to keeper with grant option")
        with refused("42501", "OTHER"):
            updated.run("select omni_credentials.adopt('mine')", user="keeper")
        updated.allow("keeper", "OTHER")
        assert updated.run("select omni_credentials.adopt('mine')", user="keeper") == [(2,)]
        assert updated.run(ROWS.format("mine")) == FILLED
        updated.run("drop schema mine cascade; drop owned by keeper cascade; drop role keeper")

    @pytest.mark.parametrize(
        ("change", "sqlstate", "text"),
        [
            ("create view public.mine as select name, value from mine.credentials", "2BP01", "public.mine|view mine"),
            ("update mine.encrypted_credentials set value = 'x'", "39000", ""),
            ("update mine.credentials_config set environment_variable = 'NONE'", "55000", "NONE is not set"),
            ("delete from mine.credentials_config", "P0002", ""),
            ("alter table mine.encrypted_credentials add column more text", "55000", "no credentials of omni_credentials 0.2.0"),
            ("drop view mine.credentials", "55000", "no credentials of omni_credentials 0.2.0"),
            ("alter table mine.encrypted_credentials disable row level security", "55000", "switched off"),
            ("update mine.encrypted_credentials set principal = '4242'", ".*", "4242"),
            ("insert into mine.encrypted_credentials select repeat('n', 600), value from mine.encrypted_credentials limit 1", "54000", ""),
        ],
        ids=["view", "damaged", "no secret", "no settings", "column", "no view", "no policies", "no role", "long name"],
    )
    def test_all_or_nothing(self, updated: Database, change: str, sqlstate: str, text: str) -> None:
        updated.run(change)
        names = "select relname, relkind from pg_class where relnamespace = 'mine'::regnamespace order by 1"
        before = updated.run(names), updated.run("select * from mine.encrypted_credentials order by 1")
        with refused(sqlstate, text):
            updated.run("select omni_credentials.adopt('mine')")
        assert (updated.run(names), updated.run("select * from mine.encrypted_credentials order by 1")) == before

    def test_what_there_is_not(self, updated: Database) -> None:
        for schema in ("public", "omni_credentials"):
            with refused("55000", "no credentials of omni_credentials 0.2.0"):
                updated.run("select omni_credentials.adopt(%s::regnamespace)", schema)
        with refused("22004"):
            updated.run("select omni_credentials.adopt(null)")

    def test_files_are_told_and_not_written(self, updated: Database) -> None:
        updated.run(FILES.replace("SCHEMA", "mine"))
        told: list[str] = []
        session = updated.connect()
        session.add_notice_handler(lambda notice: told.append(notice.message_primary or ""))
        session.execute("select omni_credentials.adopt('mine')")
        assert "file /srv/old.credentials is not written any more" in told
        assert updated.run("select * from mine.credential_file_stores") == []

    def test_public_is_told(self, updated: Database) -> None:
        updated.run("grant select on mine.credentials to public")
        told: list[str] = []
        session = updated.connect()
        session.add_notice_handler(lambda notice: told.append(notice.message_primary or ""))
        session.execute("select omni_credentials.adopt('mine')")
        assert "credentials in schema mine were granted to PUBLIC, and are no more" in told


def test_an_update_that_cannot_be(old: Database) -> None:
    old.run("update omni_credentials.encrypted_credentials set value = 'x' where name = 'two'")
    with pytest.raises(psycopg.errors.ExternalRoutineInvocationException):
        update(old)
    assert old.run("select extversion from pg_extension where extname = 'omni_credentials'") == [("0.2.0",)]
    assert old.run("select value from omni_credentials.credentials where name = 'one'") == [("v\\x41",)]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("update omni_credentials.encrypted_credentials set kind = 'of_our_own' where name = 'one'", "credentials of kind of_our_own"),
        ("alter table omni_credentials.encrypted_credentials force row level security", "FORCE ROW LEVEL SECURITY"),
    ],
    ids=["kind", "force"],
)
def test_what_the_default_instance_cannot_have(old: Database, change: str, text: str) -> None:
    # A kind that no credential has is left behind.
    old.run("alter type omni_credentials.credential_kind add value 'of_our_own'")
    old.run(change)
    with refused("0A000", text):
        update(old)
    old.run("update omni_credentials.encrypted_credentials set kind = 'otp' where name = 'one'")
    old.run("alter table omni_credentials.encrypted_credentials no force row level security")
    update(old)
    assert old.run("select kind::text from omni_credentials.credentials where name = 'one'") == [("otp",)]


def test_somebody_else_in_the_schema(old: Database) -> None:
    intruder = "intruder"
    old.run(f"create role {intruder} login")
    old.run(f"grant create on schema omni_credentials to {intruder}")
    old.run("create table omni_credentials.extra ()", user=intruder)
    with refused("42P06"):
        update(old)
    old.run("drop table omni_credentials.extra")
    with refused("42P06"):
        update(old)
    old.run(f"revoke create on schema omni_credentials from {intruder}; drop role {intruder}")
    update(old)
    assert old.run(ROWS.format("omni_credentials")) == FILLED
