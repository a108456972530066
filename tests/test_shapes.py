"""Shapes that SQL can give the tables of an instance. Any role that calls any function over them gets an error that names the table,
but no crash of the server, no value for a role that may not read it, and no wrong answer."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from conftest import Database, refused
from foreign_keyrings import unguarded
from test_modules import install

SECRET = b"a value that the stranger must not see"
# A value that crashes code that takes it for a pointer.
ADDRESS = 1234567
SPY = "create function mine.spy() returns trigger language plpgsql as 'begin return new; end'"


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
        # It refuses to drop columns where there are credentials; a superuser may switch it off.
        mine.run("alter event trigger omni_credentials_guard_tables disable")
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


class TestTheHistory:
    """It is written without SQL, like the keyrings, and read with the server's rights."""

    CHANGES = {
        "expression": "create index i on mine.encrypted_credential_versions ((length(name)))",
        "partial": "create index i on mine.encrypted_credential_versions (name) where version > 0",
        "exclusion": "alter table mine.encrypted_credential_versions add constraint i exclude using btree (version with =)",
        "deferrable": "alter table mine.encrypted_credential_versions add constraint i unique (version) deferrable",
        "hash": "create index i on mine.encrypted_credential_versions using hash (name)",
        "not null": "alter table mine.encrypted_credential_versions add column more text not null default 'x'",
        "unlogged": "alter table mine.encrypted_credential_versions set unlogged",
        "inherited": "create table mine.child () inherits (mine.encrypted_credential_versions)",
        "rule": "create rule r as on insert to mine.encrypted_credential_versions do also select 1",
        "generated": "alter table mine.encrypted_credential_versions add column more int generated always as (1) stored",
        "check": "alter table mine.encrypted_credential_versions add check (version < 100)",
        "trigger": f"{SPY}; create trigger spy before insert on mine.encrypted_credential_versions"
        " for each row execute function mine.spy()",
        "no index": "drop index mine.encrypted_credential_versions_uniq",
        "another collation": "drop index mine.encrypted_credential_versions_uniq; create unique index encrypted_credential_versions_uniq"
        " on mine.encrypted_credential_versions (name collate \"POSIX\", kind, principal, scope, version, valid_until)",
        "descending": "drop index mine.encrypted_credential_versions_uniq; create unique index encrypted_credential_versions_uniq"
        " on mine.encrypted_credential_versions (name, kind, principal, scope, version desc, valid_until)",
        "other columns": "drop index mine.encrypted_credential_versions_uniq; create unique index encrypted_credential_versions_uniq"
        " on mine.encrypted_credential_versions (name, kind, principal, scope, valid_until, version)",
        "a column renamed": "alter table mine.encrypted_credential_versions rename version to number",
        "a column of another type": "drop view mine.credential_versions;"
        f" alter table mine.encrypted_credential_versions alter scope type bigint using {ADDRESS}",
        "the kind": "drop view mine.credential_versions; create type mine.kind as enum ('credential');"
        " alter table mine.encrypted_credential_versions alter kind type mine.kind using 'credential'",
    }

    @pytest.mark.parametrize("change", CHANGES)
    def test_refused(self, mine: Database, owner: str, change: str) -> None:
        ((started,),) = mine.run("select pg_postmaster_start_time()")
        mine.run("alter event trigger omni_credentials_guard_tables disable")
        mine.run("update mine.credentials set value = 'w'", user=owner)
        with mine.connect(owner) as session:
            session.execute(self.CHANGES[change])
        for user in (owner, "postgres"):
            for statement in ("update mine.credentials set value = 'x'", "delete from mine.credentials"):
                with refused("42P16", r"mine\.encrypted_credential_versions does not have the shape", hint="Undo"):
                    mine.run(statement, user=user)
        assert_alive(mine, started)
        # Without a history, the credentials can be changed.
        mine.run("update mine.credentials_config set history_limit = 0", user=owner)
        mine.run("update mine.credentials set value = 'x'", user=owner)
        assert mine.run("select value from mine.credentials", user=owner) == [(b"x",)]

    @pytest.mark.parametrize("change", CHANGES)
    def test_refused_where_it_was_written_before(self, mine: Database, owner: str, change: str) -> None:
        """What a session has found good is looked at again after each change, its own or that of another one."""
        mine.run("alter event trigger omni_credentials_guard_tables disable")
        mine.run("update mine.credentials set value = 'w'", user=owner)
        write = "update mine.credentials set value = value || 'x'"
        with mine.connect(owner, autocommit=False) as session:
            session.execute(write)
            session.execute("savepoint good")
            session.execute(self.CHANGES[change])
            with refused("42P16", r"mine\.encrypted_credential_versions does not have the shape"):
                session.execute(write)
            session.execute("rollback to savepoint good")
            session.execute(write)
        with mine.connect(owner) as session:
            session.execute(write)
            with mine.connect(owner) as other:
                other.execute(self.CHANGES[change])
            with refused("42P16", r"mine\.encrypted_credential_versions does not have the shape"):
                session.execute(write)

    @pytest.mark.parametrize("change", ["a column renamed", "a column of another type", "the kind"])
    def test_reading(self, mine: Database, owner: str, stranger: str, change: str) -> None:
        mine.run("alter event trigger omni_credentials_guard_tables disable")
        mine.run("update mine.credentials set value = 'w'", user=owner)
        with mine.connect(owner) as session:
            session.execute(self.CHANGES[change])
        # There is nothing to prune, so that nothing is looked at.
        maintenance = [call for call in TestColumns.CALLS if "prune" not in call]
        for call in ("select mine.get_credential('n', version => -1)", "select mine.restore_credential('n')",
                     *maintenance, "select mine.purge_history('n')"):
            with refused("42P16", r"mine\.encrypted_credential_versions does not have the shape"):
                mine.run(call)

    def test_of_another_owner(self, mine: Database, owner: str, role) -> None:
        """Whoever has CREATE on the schema could put a table in its place and collect what is replaced."""
        thief = role("thief")
        mine.run(f"grant create, usage on schema mine to {thief}")
        mine.run("alter event trigger omni_credentials_guard_tables disable")
        mine.run("alter table mine.encrypted_credential_versions rename to gone", user=owner)
        mine.run(f"grant select on mine.gone to {thief}; grant usage on type mine.credential_kind to {thief}", user=owner)
        with mine.connect(thief) as session:
            session.execute("create table mine.encrypted_credential_versions (like mine.gone including all)")
        with refused("55000", "schema mine has no table encrypted_credential_versions that belongs", hint="history_limit = 0"):
            mine.run("update mine.credentials set value = 'w'", user=owner)
        with refused("55000", "schema mine has no table"):
            mine.run("select mine.get_credential('n', version => -1)", user=owner)
        assert mine.run("select count(*) from omni_credentials.verify('mine')") == [(0,)]


class TestTablesWrittenDirectly:
    """Keyrings are stored without SQL, by functions of the server that can keep plain btree indexes only."""

    CHANGES = {
        "expression": "create index i on mine.credentials_keyrings ((octet_length(keyring)))",
        "partial": "create index i on mine.credentials_keyrings (number) where number > 0",
        "exclusion": "alter table mine.credentials_keyrings add constraint i exclude using btree (id with =)",
        "deferrable": "alter table mine.credentials_keyrings add constraint i unique (id) deferrable",
        "hash": "create index i on mine.credentials_keyrings using hash (id)",
        "not null": "alter table mine.credentials_keyrings add column more text not null default 'x'",
        "unlogged": "alter table mine.credentials_keyrings set unlogged",
        "inherited": "create table mine.child () inherits (mine.credentials_keyrings)",
        "rule": "create rule r as on update to mine.credentials_keyrings do also select 1",
        "generated": "alter table mine.credentials_keyrings add column more int generated always as (number + 1) stored",
        "check": "alter table mine.credentials_keyrings add check (number < 100)",
        "check in place of ours": "alter table mine.credentials_keyrings drop constraint credentials_keyrings_module_check;"
        " alter table mine.credentials_keyrings add constraint credentials_keyrings_module_check check (module is not null)",
        "foreign key": "create table mine.ids (id int primary key); insert into mine.ids select generate_series(1, 9);"
        " alter table mine.credentials_keyrings add foreign key (number) references mine.ids",
        "referenced": "create table mine.uses (id uuid references mine.credentials_keyrings)",
        "trigger for each row": f"{SPY}; create trigger spy before insert or update on mine.credentials_keyrings"
        " for each row execute function mine.spy()",
        "trigger of the statement": f"{SPY}; create trigger spy after insert or update on mine.credentials_keyrings"
        " execute function mine.spy()",
        "constraint trigger": f"{SPY}; create constraint trigger spy after insert or update on mine.credentials_keyrings"
        " deferrable for each row execute function mine.spy()",
        "child": "create table mine.parent (number int); alter table mine.credentials_keyrings inherit mine.parent",
        "domain": "create domain mine.given as text not null; alter table mine.credentials_keyrings add note text;"
        " update mine.credentials_keyrings set note = 'x'; alter table mine.credentials_keyrings alter note type mine.given",
        "domain with a check": "create domain mine.given as text check (value is not null);"
        " alter table mine.credentials_keyrings add note text; update mine.credentials_keyrings set note = 'x';"
        " alter table mine.credentials_keyrings alter note type mine.given",
    }

    @pytest.mark.parametrize("change", CHANGES)
    @pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
    def test_refused(self, mine: Database, owner: str, change: str, first: bool) -> None:
        ((started,),) = mine.run("select pg_postmaster_start_time()")
        with mine.connect(owner) as session:
            if first:
                session.execute("delete from mine.credentials")
                session.execute("truncate mine.encrypted_credential_versions")
                session.execute("delete from mine.credentials_keyrings")
            session.execute(self.CHANGES[change])
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

    FILES = {
        "check": "alter table mine.credentials_files add check (length(filename) < 1000)",
        "trigger": f"{SPY}; create trigger spy before insert or update or delete on mine.credentials_files"
        " for each row execute function mine.spy()",
        "referenced": "create table mine.uses (name text collate \"C\" references mine.credentials_files)",
        "domain": "create domain mine.given as text check (value is not null); alter table mine.credentials_files add note mine.given",
    }

    @pytest.mark.parametrize("change", FILES.values(), ids=FILES)
    def test_files(self, mine: Database, owner: str, change: str) -> None:
        mine.run(f"grant pg_read_server_files, pg_write_server_files to {owner}")
        file = str(mine.server.data / f"{mine.name}.shapes")
        shape = r"mine\.credentials_files does not have the shape"
        with mine.connect(owner) as session:
            session.execute("begin")
            session.execute(change)
            with refused("42P16", shape, hint="Undo"):
                session.execute("select omni_credentials.instantiate_file_store(%s, 'mine')", (file,))
            session.execute("rollback")
            session.execute("select omni_credentials.instantiate_file_store(%s, 'mine')", (file,))
            if "domain" in change:
                return
            session.execute(change)
            # To write what a commit did to the file, and to remove the row.
            with refused("42P16", shape, hint="Undo"):
                session.execute("insert into mine.credentials (name, value) values ('m', 'v')")
            with refused("42P16", shape, hint="Undo"):
                session.execute("select omni_credentials.detach_file_store(%s, 'mine')", (file,))
        assert mine.run("select name from mine.encrypted_credentials") == [("n",)]

    @pytest.mark.parametrize(
        "change", ["trigger for each row", "referenced", "check", "index"],
    )
    def test_removing_rows(self, mine: Database, owner: str, change: str) -> None:
        with mine.connect(owner) as session:
            session.execute("select omni_credentials.use_module('mine')")
            session.execute({**self.CHANGES, "index": self.CHANGES["expression"]}[change])
            with refused("42P16", r"mine\.credentials_keyrings does not have the shape", hint="Undo"):
                session.execute("select omni_credentials.prune_keyrings('mine')")
            assert session.execute("select count(*) from mine.credentials_keyrings").fetchone() == (2,)

    UNDONE = (
        ("create table mine.child () inherits (mine.credentials_keyrings)", "drop table mine.child"),
        ("create rule r as on update to mine.credentials_keyrings do also select 1", "drop rule r on mine.credentials_keyrings"),
        (CHANGES["trigger for each row"], "drop trigger spy on mine.credentials_keyrings"),
        (CHANGES["trigger for each row"], "alter table mine.credentials_keyrings disable trigger spy"),
        (CHANGES["referenced"], "drop table mine.uses"),
        (CHANGES["child"], "alter table mine.credentials_keyrings no inherit mine.parent"),
        # As our own check is written does not depend on who looks.
        ("create function mine.octet_length(bytea) returns int language sql as 'select 1'", "set search_path = mine, pg_catalog"),
    )

    @pytest.mark.parametrize("change, undo", UNDONE)
    def test_nobody_is_locked_out_once_it_is_gone(self, mine: Database, owner: str, change: str, undo: str) -> None:
        """What pg_class says of subclasses, rules and triggers stays true after the last one was dropped."""
        with mine.connect(owner) as session:
            session.execute(change)
            session.execute(undo)
            assert session.execute("select omni_credentials.rotate_key('mine')").fetchone() == (1,)
            assert session.execute("select omni_credentials.use_module('mine')").fetchone() == (1,)

    def test_a_plain_index_does_no_harm(self, mine: Database, owner: str) -> None:
        with mine.connect(owner) as session:
            session.execute("create index i on mine.credentials_keyrings (module, id)")
            session.execute("alter table mine.credentials_keyrings add column note text")
            assert session.execute("select omni_credentials.rotate_key('mine')").fetchone() == (1,)
            session.execute("set enable_seqscan = off")
            assert session.execute("select count(*) from mine.credentials_keyrings where module is not null").fetchone() == (1,)


class TestRows:
    """A row that the table's constraints no longer keep as it was made: the error names the column."""

    @pytest.mark.parametrize("column", ["name", "value", "kind", "principal", "scope"])
    def test_null(self, mine: Database, owner: str, stranger: str, column: str) -> None:
        with mine.connect(owner) as session:
            session.execute("alter table mine.encrypted_credentials replica identity nothing")
            session.execute(f"alter table mine.encrypted_credentials alter {column} drop not null")
            session.execute(f"update mine.encrypted_credentials set {column} = null")
            session.execute("create policy all_rows on mine.encrypted_credentials for select using (true)")
        mine.grant(stranger, "select", schema="mine")
        shape = rf"mine\.encrypted_credentials does not have the shape .*: column {column} of a row is NULL"
        calls = ("verify('mine')", "rotate_key('mine')", "use_module('mine')", "rename_principal('x', current_user::regrole, 'mine')")
        for call in calls:
            for user in (owner, "postgres"):
                with refused("42P16", shape, hint="Undo"):
                    mine.run(f"select omni_credentials.{call}", user=user)
        # With the rights of a role that sees only what the policies show.
        with refused("42P16", shape, hint="Undo"):
            mine.run("select omni_credentials.verify('mine')", user=stranger)

    @pytest.mark.parametrize("table", ["credentials_keyrings", "credentials_config"])
    def test_a_digest_of_another_length(self, mine: Database, owner: str, table: str) -> None:
        with mine.connect(owner) as session:
            session.execute(f"alter table mine.{table} drop constraint {table}_module_check")
            unguarded(mine, f"update mine.{table} set module = 'short'", table=f"mine.{table}")
            for statement in ("select value from mine.credentials", "select omni_credentials.rotate_key('mine')"):
                with refused("42P16", rf"mine\.{table} does not have the shape .*: column module of a row is not 32 bytes long"):
                    session.execute(statement)


class TestTriggersElsewhere:
    """Our trigger functions, attached by a role that may execute them to tables and events that they are not made for."""

    def test_an_error_and_nothing_else(self, mine: Database, owner: str) -> None:
        ((started,),) = mine.run("select pg_postmaster_start_time()")
        with mine.connect(owner) as session:
            session.execute(f"create table mine.t (name bigint default {ADDRESS}, value bigint, kind int, principal int, scope int)")
            session.execute("create view mine.v as select * from mine.t")
            functions = ("credentials_write", "encrypted_credentials_check", "encrypted_credentials_keep",
                         "encrypted_credential_versions_check", "encrypted_credentials_changed",
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
            "create table s.credentials_keyrings (number int, module bytea, keyring bytea, id uuid)",
            "create table s.credentials_config (singleton boolean, environment_variable text, module bytea)",
            f"create table s.credentials_keyrings (number bigint default {ADDRESS}, module bytea, keyring bytea, id uuid)",
            "create temporary table credentials_keyrings (number int, module bytea, keyring bytea, id uuid)",
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


class TestInstancesThatAreBroken:
    """Removing a module looks at every instance, also at those that its owner broke or drops meanwhile."""

    BROKEN = (
        "delete from mine.credentials_config",
        "alter table mine.credentials_config rename to hidden; create view mine.credentials_config as select * from mine.hidden",
    )

    @pytest.fixture
    def other_module(self, mine: Database) -> str:
        install(mine, "other")
        return "other"

    @pytest.mark.parametrize("change", BROKEN)
    def test_they_do_not_stand_in_the_way(self, mine: Database, owner: str, other_module: str, change: str) -> None:
        with mine.connect(owner) as session:
            session.execute(change)
        mine.run("select omni_credentials.remove_module(%s)", other_module)
        assert mine.run("select count(*) from omni_credentials.crypto_modules") == [(1,)]

    def test_one_that_is_dropped_meanwhile(self, mine: Database, owner: str, other_module: str) -> None:
        with mine.connect(owner, autocommit=False) as session, mine.connect() as boss:
            session.execute("drop schema mine cascade")
            with ThreadPoolExecutor(1) as pool:
                removed = pool.submit(boss.execute, "select omni_credentials.remove_module(%s)", (other_module,))
                waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and pid = %s"
                while mine.run(waiting, boss.info.backend_pid) == [(0,)]:
                    time.sleep(0.01)
                session.commit()
                removed.result(60)
        assert mine.run("select count(*) from omni_credentials.crypto_modules") == [(1,)]


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
            "create table mine.credentials_keyrings (number int, module bytea, keyring bytea, id uuid) partition by list (number)",
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
        "garbage keyring": (
            "alter table mine.credentials_keyrings disable trigger user",
            "update mine.credentials_keyrings set keyring = '\\x00'",
        ),
        "no keyring": (
            "alter table mine.credentials_keyrings disable trigger user",
            "delete from mine.credentials_keyrings",
        ),
        "other module": ("update mine.credentials_config set module = sha256('x')",),
        "many settings": ("alter table mine.credentials_config drop constraint credentials_config_pkey",),
        "no settings": ("delete from mine.credentials_config",),
        "checks": (
            "alter table mine.credentials_keyrings add check (octet_length(keyring) > 1)",
            "alter table mine.credentials_files add check (1 / length(filename) = 0)",
        ),
        "foreign keys": (
            "create table mine.ids (id int primary key)",
            "alter table mine.credentials_keyrings add foreign key (number) references mine.ids not valid",
            "create table mine.uses (name text collate \"C\" references mine.credentials_files)",
        ),
        "triggers on what is written directly": (
            SPY,
            "create trigger spy before insert or update or delete on mine.credentials_keyrings for each row execute function mine.spy()",
            "create trigger spy before insert or update or delete on mine.credentials_files for each row execute function mine.spy()",
            "create trigger spy before insert or update or delete on mine.credentials_config for each row execute function mine.spy()",
        ),
        "a short digest": (
            "alter table mine.credentials_keyrings drop constraint credentials_keyrings_module_check",
            "alter table mine.credentials_keyrings disable trigger credentials_keyrings_arrive",
            "update mine.credentials_keyrings set module = 'x'",
            "alter table mine.credentials_keyrings enable always trigger credentials_keyrings_arrive",
        ),
        "a short digest in the settings": (
            "alter table mine.credentials_config drop constraint credentials_config_module_check",
            "update mine.credentials_config set module = 'x'",
        ),
        "a NULL": (
            "alter table mine.encrypted_credentials replica identity nothing",
            "alter table mine.encrypted_credentials alter name drop not null",
            "update mine.encrypted_credentials set name = null",
        ),
        "foreign table in its place": (
            "alter table mine.encrypted_credentials rename to hidden",
            "create foreign table mine.encrypted_credentials (name text, value bytea, kind mine.credential_kind,"
            " principal regrole, scope jsonb) server nowhere",
        ),
        "foreign table of settings": (
            "alter table mine.credentials_config rename to hidden",
            "create foreign table mine.credentials_config (singleton boolean, environment_variable text) server nowhere",
        ),
        "temporary tables": (
            "create temporary table encrypted_credentials (like mine.encrypted_credentials)",
            "create temporary table credentials_config (like mine.credentials_config)",
            "create temporary table credentials_keyrings (like mine.credentials_keyrings)",
            "create temporary table credentials_files (like mine.credentials_files)",
            "insert into credentials_config select * from mine.credentials_config",
            "insert into credentials_keyrings select * from mine.credentials_keyrings",
            "insert into encrypted_credentials select * from mine.encrypted_credentials",
        ),
    }
    # The schema of the temporary tables of the one session that has some.
    TEMPORARY = "(select relnamespace from pg_class where relname = 'encrypted_credentials' and relpersistence = 't')"
    ARGUMENTS = {
        "regnamespace": (
            "'mine'::regnamespace", "0::oid::regnamespace", "null::regnamespace", f"{TEMPORARY}::regnamespace",
        ),
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
        mine.run(f"grant temporary on database {mine.name} to {owner}")
        mine.run("create foreign data wrapper nowhere; create server nowhere foreign data wrapper nowhere")
        mine.run(f"grant usage on foreign server nowhere to {owner}")
        # It refuses some of the shapes to owners of credentials; a superuser may switch it off.
        for trigger in ("guard_tables", "keep_restorable"):
            mine.run(f"alter event trigger omni_credentials_{trigger} disable")
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
