"""omni_credentials.log_reads: one line of the log for each statement and credential."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator

import psycopg
import pytest
from conftest import MASTER_KEY, VARIABLE, Database, drop_database, fresh_database, new_server, refused
from throwaway import Server

VIEW = "omni_credentials.credentials"
MARK = "credential read: "
FIELDS = ["name", "kind", "principal", "scope", "instance", "role", "session_role", "application_name"]


@pytest.fixture(scope="module")
def audited() -> Iterator[Server]:
    server = new_server("audit", {
        "shared_preload_libraries": "omni_credentials",
        "omni_credentials.log_reads": "on",
        "logging_collector": "on",
        "log_destination": "stderr,jsonlog",
        "log_directory": "log",
        "log_filename": "server.log",
        # As chatty as a server gets about statements.
        "log_statement": "none",
        "log_min_error_statement": "debug5",
        "log_error_verbosity": "verbose",
    })
    try:
        yield server.start({VARIABLE: MASTER_KEY})
    finally:
        server.remove()


class Log:
    """What the server logged since the last look."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.seen = {name: len(self._text(name)) for name in ("server.log", "server.json")}

    def _text(self, name: str) -> str:
        """The lines that are whole: Postgres's logger writes a longer one in pieces."""
        text = (self.database.server.data / "log" / name).read_text(errors="replace")
        return text[:text.rfind("\n") + 1]

    def _new(self, name: str) -> str:
        """What came up to a line of its own, which all that was written before it precedes."""
        mark = f"mark {time.monotonic_ns()}"
        self.database.run(f"do $$ begin raise log '{mark}'; end $$")
        deadline = time.monotonic() + 60
        while mark not in (text := self._text(name)[self.seen[name]:]):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        self.seen[name] += len(text)
        return text

    def reads(self) -> list[dict]:
        """The lines, each one with all its fields; the same in both logs."""
        plain = self._new("server.log").splitlines()
        lines = [line.split(MARK, 1)[1] for line in plain if MARK in line]
        found = [json.loads(line) for line in lines]
        records = [json.loads(line) for line in self._new("server.json").splitlines()]
        records = [record for record in records if record["message"].startswith(MARK)]
        recorded = [json.loads(record["message"].removeprefix(MARK)) for record in records]
        # The processes of a parallel query write at the same time.
        assert sorted(recorded, key=json.dumps) == sorted(found, key=json.dumps)
        for record in records:
            assert record["error_severity"] == "LOG"
            assert not {"statement", "context", "detail", "hint", "query"} & record.keys(), record
        for read, line in zip(found, lines, strict=True):
            assert list(read) == FIELDS and line.isascii()
        return found

    def names(self) -> list[str]:
        return [read["name"] for read in self.reads()]


@pytest.fixture
def db(audited: Server) -> Iterator[Database]:
    database = fresh_database(audited)
    yield database
    drop_database(database)


@pytest.fixture
def log(db: Database) -> Log:
    db.run(f"insert into {VIEW} (name, value, kind) values ('a', 'secret-1', 'api_key'), ('b', 'secret-2', 'token')")
    return Log(db)


@pytest.fixture
def app(db: Database, log: Log) -> Iterator[str]:
    db.run("create role app login")
    db.grant("app")
    db.run(f"insert into {VIEW} (name, value, principal) values ('of app', 'secret-3', 'app')")
    log.reads()
    yield "app"
    db.run("drop owned by app")
    db.run("drop role app")


def test_the_view(db: Database, log: Log) -> None:
    db.run(f"select value from {VIEW} where name = 'a'")
    common = {"principal": "postgres", "scope": {"all": True}, "instance": "omni_credentials", "role": "postgres",
              "session_role": "postgres", "application_name": ""}
    assert log.reads() == [{"name": "a", "kind": "api_key"} | common]
    db.run(f"select * from {VIEW}")
    assert sorted(log.names()) == ["a", "b"]


def test_what_reads_nothing(db: Database, log: Log) -> None:
    for statement in (
        f"select name, kind from {VIEW}", f"select count(*) from {VIEW}", "select * from omni_credentials.verify()",
        "select * from omni_credentials.status()", "select omni_credentials.rotate_key()",
        "select omni_credentials.use_module()", "select * from omni_credentials.expiring()",
        "select value from omni_credentials.encrypted_credentials", f"explain select value from {VIEW}",
        f"insert into {VIEW} (name, value) values ('c', 'new')",
    ):
        db.run(statement)
        assert log.reads() == [], statement


def test_the_functions(db: Database, log: Log) -> None:
    assert db.run("select omni_credentials.get_credential('a')") == [("secret-1",)]
    assert log.names() == ["a"]
    ((value,),) = db.run("select omni_credentials.open_credential('omni_credentials.encrypted_credentials'::regclass, name, kind,"
                         " principal, scope, value) from omni_credentials.encrypted_credentials where name = 'b'")
    assert (value, log.names()) == (b"secret-2", ["b"])
    with refused("P0002|02000"):
        db.run("select omni_credentials.get_credential('none')")
    assert log.reads() == []


def test_once_for_each_statement_and_credential(db: Database, log: Log) -> None:
    with db.connect() as session:
        for statement, expected in (
            (f"select x.value, y.value from {VIEW} x, {VIEW} y", ["a", "b"]),
            (f"select value from {VIEW} union all select value from {VIEW}", ["a", "b"]),
            ("select omni_credentials.get_credential('a') from generate_series(1, 5)", ["a"]),
            (f"select value from {VIEW} where value <> 'x' and value is not null", ["a", "b"]),
            (f"do $$ begin perform value from {VIEW}; perform value from {VIEW}; end $$", ["a", "a", "b", "b"]),
        ):
            session.execute(statement)
            assert sorted(log.names()) == expected, statement
        # Two statements in one message.
        session.execute(f"select value from {VIEW} where name = 'a'; select value from {VIEW} where name = 'a'")
        assert log.names() == ["a", "a"]
        session.execute(f"explain analyze select value from {VIEW}")
        assert sorted(log.names()) == ["a", "b"]


def test_prepared_statements(db: Database, log: Log) -> None:
    with db.connect() as session:
        for _ in range(8):
            # A generic plan from the sixth on.
            session.execute(f"select value from {VIEW} where name = %s", ("a",), prepare=True)
            assert log.names() == ["a"]


def test_cursors(db: Database, log: Log) -> None:
    db.run(f"insert into {VIEW} (name, value) select 'n' || n, 'v' from generate_series(1, 20) n")
    log.reads()
    with db.connect() as session:
        session.execute("begin")
        session.execute(f"declare c scroll cursor for select name, value from {VIEW} order by name")
        assert log.reads() == []
        found = []
        for _ in range(6):
            session.execute("fetch 4 from c")
            found += log.names()
        assert sorted(found) == sorted(name for (name,) in db.run(f"select name from {VIEW}"))
        # Reading again is reading.
        session.execute("move absolute 0 in c")
        session.execute("rollback")
        session.execute("begin")
        session.execute(f"declare h cursor with hold for select value from {VIEW} where name = 'a'")
        session.execute("commit")
        assert log.names() == ["a"]
        session.execute("fetch all from h")
        assert log.reads() == [], "it was read at the commit"


def test_parallel_queries(db: Database, log: Log) -> None:
    db.run(f"insert into {VIEW} (name, value) select 'n' || n, 'v' from generate_series(1, 3000) n")
    db.run("analyze omni_credentials.encrypted_credentials")
    log.reads()
    with db.connect(application_name="parallel") as session:
        for setting in ("parallel_setup_cost = 0", "parallel_tuple_cost = 0", "min_parallel_table_scan_size = 0"):
            session.execute(f"set {setting}")
        plan = session.execute(f"explain (analyze, costs off) select count(value) from {VIEW}").fetchall()
        assert any("Workers Launched" in line for (line,) in plan), plan
        reads = log.reads()
    assert len(reads) == 3002 and len({read["name"] for read in reads}) == 3002
    assert {(read["role"], read["session_role"], read["application_name"]) for read in reads} == {
        ("postgres", "postgres", "parallel")
    }


def test_an_error_in_the_middle(db: Database, log: Log) -> None:
    with db.connect() as session:
        with refused("22012"):
            session.execute(f"select value, 1 / (case name when 'b' then 0 else 1 end) from {VIEW} order by name")
        assert set(log.names()) <= {"a", "b"}
        session.execute("begin")
        session.execute(f"select value from {VIEW} where name = 'a'")
        session.execute("rollback")
        assert log.names() == ["a"]
        session.execute(f"select value from {VIEW} where name = 'a'")
        assert log.names() == ["a"]


def test_what_is_written_is_in_no_line(db: Database, log: Log) -> None:
    """Nor is the statement, which has it in the clear."""
    db.run(f"update {VIEW} set value = 'a-new-value' where name = 'a'")
    assert log.names() == ["a"], "the old row has the old value"
    db.run(f"delete from {VIEW} where value = 'a-new-value'")
    log.reads()
    for path in (db.server.data / "log").iterdir():
        text = path.read_text(errors="replace")
        assert "a-new-value" not in text and "secret-" not in text


def test_earlier_values(db: Database, log: Log) -> None:
    """They are values of the credential."""
    for value in ("x", "y"):
        db.run("select omni_credentials.set_credential('a', %s, 'api_key')", value)
    log.reads()
    db.run("select name from omni_credentials.credential_versions")
    assert log.reads() == []
    found = db.run("select value from omni_credentials.credential_versions where name = 'a'")
    assert {value for (value,) in found} >= {b"x", b"secret-1"}
    assert log.names() == ["a"]


def test_what_does_not_open(db: Database, log: Log) -> None:
    with db.connect() as session:
        session.execute("set session_replication_role = replica")
        session.execute("update omni_credentials.encrypted_credentials set value = '\\x00' where name = 'a'")
        session.execute("set session_replication_role = origin")
        with refused("0A000"):
            session.execute(f"select value from {VIEW} where name = 'a'")
        session.execute("set omni_credentials.on_unreadable = 'null'")
        session.execute(f"select value from {VIEW}")
    assert log.names() == ["b"]


def test_an_ordinary_role(db: Database, log: Log, app: str) -> None:
    with db.connect(app, application_name="billing") as session:
        session.execute(f"select value from {VIEW}")
        (read,) = log.reads()
        assert (read["name"], read["principal"], read["role"], read["session_role"], read["application_name"]) == (
            "of app", "app", "app", "app", "billing"
        )
        # What it may not read, it does not read.
        with refused("42501"):
            session.execute("select omni_credentials.open_credential('omni_credentials.encrypted_credentials'::regclass, 'a',"
                            " 'api_key'::omni_credentials.credential_kind, 'postgres', '{\"all\": true}', '\\x00')")
        assert log.reads() == []


def test_it_cannot_turn_it_off(db: Database, log: Log, app: str) -> None:
    with db.connect(app) as session:
        for statement in ("set omni_credentials.log_reads = off", "reset omni_credentials.log_reads", "set local omni_credentials.log_reads = off",
                          "select set_config('omni_credentials.log_reads', 'off', false)",
                          f"alter role {app} set omni_credentials.log_reads = off",
                          "create function f() returns void language sql set omni_credentials.log_reads = off as ''"):
            with refused("42501"):
                session.execute(statement)
        for statement in ("set client_min_messages = 'debug5'", "set session_replication_role = 'replica'", "set log_min_messages = 'panic'"):
            with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
                session.execute(statement)
        notices: list[str] = []
        session.add_notice_handler(lambda notice: notices.append(notice.message_primary))
        session.execute("discard all")
        session.execute(f"select value from {VIEW}")
        assert log.names() == ["of app"]
        assert not any(MARK in notice for notice in notices), "no client sees it"
    # Nor where the setting is given before the session begins.
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        db.connect(app, **{"omni_credentials.log_reads": "off"})


def test_a_definer_function(db: Database, log: Log, app: str) -> None:
    db.run("create schema api")
    db.run("grant usage on schema api to app")
    db.run("create function api.read() returns text language sql security definer set search_path = '' as"
           " $$ select omni_credentials.get_credential('a') $$")
    assert db.run("select api.read()", user=app) == [("secret-1",)]
    (read,) = log.reads()
    assert (read["name"], read["role"], read["session_role"]) == ("a", "postgres", "app")


def test_names_forge_no_line(db: Database, log: Log, app: str) -> None:
    forged = 'x"}\n2026-01-01 00:00:00 UTC [1] LOG:  ' + MARK + '{"name":"innocent"}\r\u2028\u202e\x7f\t\\"é鍵😀'
    with db.connect(app) as session:
        session.execute("select set_config('application_name', %s, false)", (forged.replace("\r", "") + "\n",))
        session.execute("select omni_credentials.set_credential(%s, 'v', scope => %s::jsonb)", (forged, json.dumps({"s": forged})))
        log.reads()
        session.execute(f"select value from {VIEW} where name = %s", (forged,))
    (read,) = log.reads()
    assert read["name"] == forged and read["scope"] == {"s": forged}
    assert "\n" not in read["application_name"] and read["application_name"].startswith('x"}')
    db.run('create role "evil\n' + MARK + '{}" login')
    try:
        name = f'"evil\n{MARK}{{}}"'
        db.run(f"select omni_credentials.set_credential('e', 'v', principal => '{name}'::regrole)")
        log.reads()
        db.run(f"select value from {VIEW} where name = 'e'")
        (read,) = log.reads()
        assert read["principal"] == f"evil\n{MARK}{{}}"
    finally:
        db.run(f"drop owned by {name}")
        db.run("delete from omni_credentials.encrypted_credentials where name = 'e'")
        db.run(f"drop role {name}")


def test_another_encoding(audited: Server) -> None:
    with psycopg.connect(audited.conninfo(), autocommit=True) as admin:
        admin.execute("create database latin encoding 'LATIN1' template template0 locale 'C'")
    database = Database(audited, "latin")
    try:
        database.run("create extension omni_credentials")
        database.run(f"insert into {VIEW} (name, value) values ('naïve', 'v')")
        log = Log(database)
        database.run(f"select value from {VIEW}")
        assert log.names() == ["naïve"]
    finally:
        drop_database(database)


class TestWithoutPreload:
    """The library is loaded by the session."""

    def test_a_role_is_too_late(self, own_db: Database) -> None:
        server = own_db.server
        own_db.run("create role app login")
        own_db.grant("app")
        own_db.run(f"insert into {VIEW} (name, value, principal) values ('n', 'v', 'app')", user="postgres")
        with own_db.connect() as session:
            session.execute("load 'omni_credentials'")
            session.execute("alter system set omni_credentials.log_reads = on")
            session.execute("select pg_reload_conf()")
        while own_db.run("select current_setting('omni_credentials.log_reads', true)") != [("on",)]:
            time.sleep(0.05)
        for options in ({}, {"omni_credentials.log_reads": "off"}):
            before = len(server.log.read_text())
            with own_db.connect("app", **options) as session:
                # No library, no setting yet: the server takes any name.
                session.execute("set omni_credentials.log_reads = off")
                session.execute(f"select value from {VIEW}")
            assert server.log.read_text()[before:].count(MARK) == 1

    def test_for_one_role(self, own_db: Database) -> None:
        own_db.run("create role app login")
        own_db.grant("app")
        own_db.run(f"insert into {VIEW} (name, value, principal) values ('n', 'v', 'app')")
        with own_db.connect() as session:
            session.execute("load 'omni_credentials'")
            session.execute("alter role app set omni_credentials.log_reads = on")
        own_db.run(f"select value from {VIEW}")
        assert MARK not in own_db.server.log.read_text()
        own_db.run(f"select value from {VIEW}", user="app")
        assert own_db.server.log.read_text().count(MARK) == 1


@pytest.mark.parametrize("libraries", ["auto_explain,omni_credentials", "omni_credentials,auto_explain"])
def test_another_library_beside_it(libraries: str) -> None:
    """A statement that fails inside of the other library's hook ends, too: the next one is another statement."""
    server = new_server("audit-hooks", {"shared_preload_libraries": libraries, "omni_credentials.log_reads": "on"})
    try:
        server.start({VARIABLE: MASTER_KEY})
        database = fresh_database(server)
        database.run("select omni_credentials.set_credential('n', 'v')")
        with database.connect() as session:
            for _ in range(2):
                with refused("22012"):
                    session.execute("select 1 / g from generate_series(0, 1) g")
                with refused("22012"):
                    session.execute(f"select value, 1 / 0 from {VIEW}")
            before = server.log.read_text().count(MARK)
            for _ in range(3):
                session.execute(f"select value from {VIEW}")
        assert server.log.read_text().count(MARK) - before == 3
        database.close()
    finally:
        server.remove()


def test_off(db: Database, log: Log) -> None:
    with db.connect() as session:
        session.execute("set omni_credentials.log_reads = off")
        session.execute(f"select value from {VIEW}")
    assert log.reads() == []
