"""Shapes that SQL can give the tables of an instance. Any role that calls any function over them gets an error that names the table,
but no crash of the server, no value for a role that may not read it, and no wrong answer."""

from __future__ import annotations

import psycopg
import pytest
from conftest import Database, refused

SECRET = b"a value that the stranger must not see"
# A value that crashes code that takes it for a pointer.
ADDRESS = 1234567


@pytest.fixture
def owner(role) -> str:
    return role("owner")


@pytest.fixture
def stranger(role) -> str:
    return role("stranger")


@pytest.fixture
def mine(owner: str, stranger: str, db: Database) -> Database:
    """An instance of an owner who is no superuser, in schema `mine`, with one credential."""
    db.log_before = db.server.log.stat().st_size
    functions = db.run(
        "select p.oid::regprocedure::text from pg_proc p join pg_depend d on d.objid = p.oid and d.deptype = 'e'"
        " where d.classid = 'pg_proc'::regclass and p.pronamespace = 'omni_credentials'::regnamespace"
    )
    db.run(f"grant usage on schema omni_credentials to {owner}")
    for (function,) in functions:
        db.run(f"grant execute on function {function} to {owner}")
    db.run(f"create schema mine authorization {owner}")
    db.allow(owner)
    db.run("select omni_credentials.instantiate('mine')", user=owner)
    db.run("insert into mine.credentials (name, value) values ('n', %b)", SECRET, user=owner)
    db.run(f"grant usage on schema mine to {stranger}")
    return db


def assert_alive(db: Database, started: object) -> None:
    assert db.run("select pg_postmaster_start_time()") == [(started,)]
    with db.server.log.open("rb") as log:
        log.seek(db.log_before)
        assert b"terminated by signal" not in log.read()


class TestColumns:
    """A column is what it was made as, by its place, its name and its type, or nothing is read."""

    CHANGES = (
        f"rename column {{0}} to old; alter table mine.encrypted_credentials add column {{0}} bigint default {ADDRESS}",
        "rename column {0} to old; alter table mine.encrypted_credentials add column {0} text default 'x'",
        "rename column {0} to old",
        "drop column {0} cascade",
        "drop column {0} cascade; alter table mine.encrypted_credentials add column {0} text",
    )
    CALLS = (
        "select * from omni_credentials.verify('mine')",
        "select omni_credentials.rotate_key('mine')",
        "select omni_credentials.use_module('mine')",
        "select omni_credentials.prune_keyrings('mine')",
        "select omni_credentials.rename_principal('someone', current_user::regrole, 'mine')",
    )

    @pytest.mark.parametrize("change", CHANGES)
    @pytest.mark.parametrize("column", ["name", "value", "kind", "principal", "scope"])
    def test_not_where_it_was(self, mine: Database, owner: str, change: str, column: str) -> None:
        session = mine.connect(owner)
        session.execute(f"alter table mine.encrypted_credentials {change.format(column)}")
        boss = mine.connect()
        for call in self.CALLS:
            for caller in (session, boss):
                with refused("42P16", r"mine\.encrypted_credentials does not have the shape", hint="Undo"):
                    caller.execute(call)

    def test_what_shadows_a_column(self, mine: Database, owner: str) -> None:
        """The table is as it was made; a table of the same name in its place is not."""
        with mine.connect(owner) as session:
            session.execute("alter table mine.encrypted_credentials rename to hidden")
            session.execute(
                f"create table mine.encrypted_credentials (name text, value bigint default {ADDRESS}, kind mine.credential_kind,"
                " principal regrole, scope jsonb)"
            )
            session.execute(
                "insert into mine.encrypted_credentials (name, kind, principal, scope)"
                " values ('n', 'token', current_user::regrole, '{}')"
            )
            for call in self.CALLS:
                with refused("42P16", "column 2 is not value bytea"):
                    session.execute(call)


class TestTablesWrittenDirectly:
    """Keyrings are stored without SQL, by functions of the server that can keep plain btree indexes only."""

    CHANGES = {
        "expression": "create index i on mine.credentials_keyrings ((octet_length(keyring)))",
        "partial": "create index i on mine.credentials_keyrings (id) where id > 0",
        "exclusion": "alter table mine.credentials_keyrings add constraint i exclude using btree (id with =)",
        "deferrable": "alter table mine.credentials_keyrings add constraint i unique (id) deferrable",
        "hash": "create index i on mine.credentials_keyrings using hash (id)",
        "not null": "alter table mine.credentials_keyrings add column more text not null default 'x'",
        "unlogged": "alter table mine.credentials_keyrings set unlogged",
        "inherited": "create table mine.child () inherits (mine.credentials_keyrings)",
        "rule": "create rule r as on update to mine.credentials_keyrings do also select 1",
        "generated": "alter table mine.credentials_keyrings add column more int generated always as (id + 1) stored",
    }

    @pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
    @pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
    def test_refused(self, mine: Database, owner: str, change: str, first: bool) -> None:
        ((started,),) = mine.run("select pg_postmaster_start_time()")
        with mine.connect(owner) as session:
            if first:
                session.execute("delete from mine.credentials")
                session.execute("delete from mine.credentials_keyrings")
            session.execute(change)
            statement = (
                "insert into mine.credentials (name, value) values ('first', 'v')"
                if first
                else "select omni_credentials.rotate_key('mine')"
            )
            with refused("42P16", r"mine\.credentials_keyrings does not have the shape", hint="Undo"):
                session.execute(statement)
        assert_alive(mine, started)

    @pytest.mark.parametrize("column", ["synchronized_at", "pending_digest", "pending_base"])
    def test_a_column_that_is_null_at_times(self, mine: Database, owner: str, column: str) -> None:
        """NOT NULL on a column of ours: the server may read it without looking for a NULL."""
        ((started,),) = mine.run("select pg_postmaster_start_time()")
        mine.run(f"grant pg_read_server_files, pg_write_server_files to {owner}")
        with mine.connect(owner) as session:
            session.execute(f"alter table mine.credentials_files alter {column} set not null")
            file = str(mine.server.data / f"{mine.name}.shapes")
            if column == "synchronized_at":
                session.execute("select omni_credentials.instantiate_file_store(%s, 'mine')", (file,))
            else:
                with refused("42P16", f"its column {column} cannot be NULL", hint="Undo"):
                    session.execute("select omni_credentials.instantiate_file_store(%s, 'mine')", (file,))
        assert_alive(mine, started)

    def test_a_plain_index_does_no_harm(self, mine: Database, owner: str) -> None:
        with mine.connect(owner) as session:
            session.execute("create index i on mine.credentials_keyrings (module, id)")
            session.execute("alter table mine.credentials_keyrings add column note text")
            assert session.execute("select omni_credentials.rotate_key('mine')").fetchone() == (1,)
            session.execute("set enable_seqscan = off")
            assert session.execute("select count(*) from mine.credentials_keyrings where module is not null").fetchone() == (1,)


class TestTriggersElsewhere:
    """Our trigger functions, attached by a role that may execute them to tables and events that they are not made for."""

    def test_an_error_and_nothing_else(self, mine: Database, owner: str) -> None:
        ((started,),) = mine.run("select pg_postmaster_start_time()")
        with mine.connect(owner) as session:
            session.execute(f"create table mine.t (name bigint default {ADDRESS}, value bigint, kind int, principal int, scope int)")
            session.execute("create view mine.v as select * from mine.t")
            functions = ("credentials_write", "encrypted_credentials_check", "encrypted_credentials_changed",
                         "credentials_store_changed", "crypto_modules_guard")
            places = (
                *((f"{timing} {event}", "mine.t", level) for timing in ("before", "after")
                  for event in ("insert", "update", "delete") for level in ("row", "statement")),
                *((f"{timing} truncate", "mine.t", "statement") for timing in ("before", "after")),
                *((f"instead of {event}", "mine.v", "row") for event in ("insert", "update", "delete")),
            )
            for function in functions:
                for when, relation, level in places:
                    session.execute("truncate mine.t")
                    session.execute("insert into mine.t (value) values (1)")
                    session.execute(
                        f"create trigger x {when} on {relation} for each {level} execute function omni_credentials.{function}()"
                    )
                    for statement in (f"insert into {relation} (value) values (2)", f"update {relation} set value = 3",
                                      f"delete from {relation}", "truncate mine.t"):
                        try:
                            session.execute(statement)
                        except psycopg.errors.InternalError as error:
                            pytest.fail(f"{function} {when} {relation}: {error}")
                        except (
                            psycopg.errors.InvalidParameterValue, psycopg.errors.InvalidTableDefinition,
                            psycopg.errors.InvalidSchemaName, psycopg.errors.InsufficientPrivilege,
                        ):
                            pass
                    session.execute(f"drop trigger x on {relation}")
        assert_alive(mine, started)


class TestModulesInUse:
    """Only instances use modules: what has the names of their tables neither pins a module nor stands in the way."""

    @pytest.mark.parametrize(
        "tables",
        [
            "create table s.credentials_keyrings (id int, module bytea, keyring bytea)",
            "create table s.credentials_config (singleton boolean, environment_variable text, module bytea)",
            f"create table s.credentials_keyrings (id bigint default {ADDRESS}, module bytea, keyring bytea)",
            "create temporary table credentials_keyrings (id int, module bytea, keyring bytea)",
            "create temporary table encrypted_credentials (id int)",
        ],
    )
    def test_tables_that_look_like_ours(self, mine: Database, stranger: str, tables: str) -> None:
        mine.run(f"create schema s authorization {stranger}")
        session = mine.connect(stranger, autocommit=False)
        session.execute(tables)
        name = tables.split("table ")[1].split(" ")[0]
        ((digest,),) = mine.run("select digest from omni_credentials.crypto_modules")
        if "keyring bytea" in tables:
            session.execute(f"insert into {name} (module, keyring) values (%s, '')", (digest,))
        elif "module bytea" in tables:
            session.execute(f"insert into {name} (module) values (%s)", (digest,))
        session.commit()
        # As it would be found by a session that is in the middle of changing it.
        session.execute(f"alter table {name} add column more int")
        with mine.connect() as boss:
            boss.execute("set lock_timeout = '5s'")
            with refused("2BP01", "in use by the extension itself"):
                boss.execute("select omni_credentials.remove_module(%s)", (digest.hex(),))
            # The guard looks at the users of any other module.
            with refused("42704", "there is no crypto module"):
                boss.execute("select omni_credentials.remove_module('none')")
        session.rollback()


class TestEveryFunction:
    """Every function that is installed, over every shape, as anyone."""

    SHAPES = {
        "as made": (),
        "renamed column": ("alter table mine.encrypted_credentials rename column value to value_",),
        "retyped column": ("alter table mine.credentials_config alter environment_variable type varchar",),
        "dropped column": ("alter table mine.credentials_keyrings drop column keyring",),
        "generated column": ("alter table mine.encrypted_credentials add column g int generated always as (1) stored",),
        "partitioned": (
            "drop table mine.credentials_keyrings cascade",
            "create table mine.credentials_keyrings (id int, module bytea, keyring bytea) partition by list (id)",
        ),
        "inherited": ("create table mine.child () inherits (mine.credentials_keyrings)",),
        "unlogged": ("alter table mine.credentials_files set unlogged",),
        "view in its place": (
            "alter table mine.credentials_config rename to hidden",
            "create view mine.credentials_config as select * from mine.hidden",
        ),
        "sequence in its place": ("drop table mine.credentials_files cascade", "create sequence mine.credentials_files"),
        "index": ("create index on mine.credentials_files ((upper(filename)))",),
        "rule": ("create rule r as on insert to mine.encrypted_credentials do instead nothing",),
        "trigger": (
            "create function mine.veto() returns trigger language plpgsql as 'begin return null; end'",
            "create trigger a before insert or update or delete on mine.encrypted_credentials for each row execute function mine.veto()",
        ),
        "policy": ("create policy p on mine.encrypted_credentials as restrictive using (1 / length(name) > 5)",),
        "not null": ("alter table mine.credentials_files alter pending_digest set not null",),
        "partitioned table in its place": (
            "alter table mine.credentials_config rename to hidden",
            "create table mine.credentials_config (like mine.hidden) partition by range (kdf_lanes)",
        ),
        "no view": ("drop view mine.credentials",),
        "garbage keyring": ("update mine.credentials_keyrings set keyring = '\\x00'",),
        "no keyring": ("delete from mine.credentials_keyrings",),
        "other module": ("update mine.credentials_config set module = sha256('x')",),
        "many settings": ("alter table mine.credentials_config drop constraint credentials_config_pkey",),
    }
    ARGUMENTS = {
        "regnamespace": ("'mine'::regnamespace", "0::oid::regnamespace", "null::regnamespace"),
        "text": ("'n'", "repeat('x', 3000)", "null"),
        "bytea": ("'\\x0101'::bytea", "''::bytea", "(select value from mine.encrypted_credentials limit 1)", "null::bytea"),
        "regrole": ("current_user::regrole", "4294967295::oid::regrole", "null::regrole"),
        "oid": ("'mine.encrypted_credentials'::regclass::oid", "0::oid", "'pg_class'::regclass::oid"),
        "jsonb": ("'{\"all\": true}'::jsonb", "to_jsonb(repeat('x', 1000000))", "'1e131071'::jsonb", "null::jsonb"),
        "anyenum": ("'token'::mine.credential_kind",),
        "mine.credential_kind": ("'token'::mine.credential_kind", "null"),
        "integer": ("8", "2147483647", "null::int"),
        "boolean": ("true", "false", "null::boolean"),
    }

    @pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
    def test_no_crash_and_no_leak(self, mine: Database, owner: str, stranger: str, shape: tuple[str, ...]) -> None:
        ((started,),) = mine.run("select pg_postmaster_start_time()")
        session = mine.connect(owner)
        # It refuses some of the shapes to owners of credentials; a superuser may switch it off.
        mine.run("alter event trigger omni_credentials_guard_tables disable")
        for statement in shape:
            session.execute(statement)
        functions = mine.run(
            "select p.oid::regprocedure::text, array(select format_type(t, null) from unnest(p.proargtypes) t)"
            " from pg_proc p where p.pronamespace = any (array['omni_credentials', 'mine']::regnamespace[])"
            " and p.prorettype not in ('trigger'::regtype, 'event_trigger'::regtype)"
            # Argon2id takes a while, and what these two do is not about an instance.
            " and p.proname not in ('install_module', 'register_builtin_module') order by 1"
        )
        assert len(functions) > 20
        for user in (stranger, owner, None):
            caller = mine.connect(user) if user else mine.connect()
            caller.execute("set statement_timeout = '10s'")
            for function, types in functions:
                name = function.split("(")[0]
                for turn in range(4):
                    chosen = [self.ARGUMENTS.get(it, ("null",)) for it in types]
                    arguments = ", ".join(options[turn % len(options)] for options in chosen)
                    self.call(caller, f"select * from {name}({arguments}) x", leaks=user == stranger)
            for relation in ("mine.credentials", "mine.credential_file_stores", "mine.encrypted_credentials"):
                self.call(caller, f"select * from {relation}", leaks=user == stranger)
            for change in ("insert into mine.credentials (name, value) values ('a', 'b')", "update mine.credentials set value = 'c'",
                           "update mine.credentials set name = 'd'", "delete from mine.credentials"):
                caller.execute("begin")
                self.call(caller, change, leaks=user == stranger)
                caller.execute("rollback")
        assert_alive(mine, started)

    @staticmethod
    def call(session: psycopg.Connection, statement: str, *, leaks: bool) -> None:
        try:
            cursor = session.execute(statement)
        except (psycopg.OperationalError, psycopg.InterfaceError):
            # A lost connection is a crash; a cancelled or refused statement has a SQLSTATE and leaves the session open.
            assert not session.broken, statement
            return
        except psycopg.Error as error:
            assert error.sqlstate != "XX000", f"{statement}: {error}"
            assert SECRET.decode() not in str(error)
            return
        if leaks and cursor.description:
            assert SECRET not in repr(cursor.fetchall()).encode(), statement
