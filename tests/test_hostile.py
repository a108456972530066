"""Modules that break down or lie harm nothing but their own call."""

from __future__ import annotations

import hashlib
import resource
from pathlib import Path

import psycopg
import pytest
from conftest import MASTER_KEY, VARIABLE, Database, fresh_database, new_server, refused
from hostile_copies import CASES, GOOD, LIST, LOOP, MEMORY, RECURSION, TRAP, component, hostile_copy, read

# By what they are refused at installation: the SQLSTATE and a part of the message.
INSTALL = {
    "imports-a-clock": "clock",
    "imports-a-function": "run-command",
    "imports-more-of-random": "get-random-u64",
    "imports-random-of-wasi-0-4": "wasi:random/random@0.4.0",
    "lacks-an-interface": "primitives",
    "lacks-a-function": "key-of",
    "has-another-type": "string",
    "is-of-another-version": "1.0.0",
}
EVIL = {
    TRAP: "unreachable",
    MEMORY: "MiB of memory",
    RECURSION: "stack",
    LIST: "encryption.keyring.open",
}


def state(session: psycopg.Connection) -> tuple:
    """Threads, and the signals that are caught, ignored and blocked, of a session's backend."""
    process = Path(f"/proc/{session.info.backend_pid}")
    status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
    return len(list((process / "task").iterdir())), *(status[name] for name in ("SigCgt", "SigIgn", "SigBlk"))


def postmaster(database: Database) -> tuple[int, int]:
    """The postmaster, and how often it had to start anew after a crash."""
    return database.server.running(), database.server.log.read_text(errors="replace").count("all server processes terminated")


def test_there_are_cases() -> None:
    assert {"by-length", "trap", "loop", "memory-bomb", "recursion", *INSTALL} <= set(CASES)


@pytest.mark.parametrize("case", CASES)
def test_refused_at_installation(db: Database, case: str) -> None:
    before = postmaster(db)
    session = db.connect(statement_timeout="400ms" if case.startswith(("loop", "handle-bomb")) else "60s")
    wasm = component(case)
    with pytest.raises(psycopg.Error) as caught:
        session.execute("select omni_credentials.install_module('x', %s, %s::bytea)", (wasm, hashlib.sha256(wasm).digest()))
    assert caught.value.sqlstate in ("0A000", "57014"), f"{caught.value.sqlstate}: {caught.value}"
    assert INSTALL.get(case, "") in str(caught.value)
    assert session.execute("select name from omni_credentials.crypto_modules").fetchall() == [("xchacha20poly1305",)]
    assert postmaster(db) == before


@pytest.mark.parametrize("case", [case for case in CASES if case not in ("by-length", "loop-in-files")])
def test_in_the_table_all_the_same(db: Database, case: str) -> None:
    hostile_copy(db, case)
    db.run("insert into omni_credentials.credentials (name, value) values ('good', 'value')")
    before = postmaster(db)
    session = db.connect(statement_timeout="400ms" if case.startswith(("loop", "handle-bomb")) else "60s")
    for statement in (
        read(GOOD),
        "insert into evil.credentials (name, value) values ('a', 'b')",
        "select omni_credentials.verify('evil')",
        "select omni_credentials.use_module('evil')",
    ):
        with pytest.raises(psycopg.Error) as caught:
            session.execute(statement)
        assert caught.value.sqlstate is not None, "the connection is gone"
        assert session.execute("select value from omni_credentials.credentials").fetchall() == [(b"value",)]
    assert postmaster(db) == before


@pytest.mark.parametrize("length", EVIL)
def test_the_session_goes_on(db: Database, length: int) -> None:
    hostile_copy(db, "by-length", (GOOD, length))
    before = postmaster(db)
    session = db.connect()
    for _ in range(3):
        with refused("38000", EVIL[length], "next statement"):
            session.execute(read(length))
        assert session.execute(read(GOOD)).fetchall() == [(bytes(32),)]
    # A breakdown is not an unreadable value: it is never taken for NULL.
    session.execute("set omni_credentials.on_unreadable = 'null'")
    with refused("38000"):
        session.execute(read(length))
    assert postmaster(db) == before


@pytest.mark.parametrize("length", EVIL)
def test_inside_subtransactions_and_cursors(db: Database, length: int) -> None:
    hostile_copy(db, "by-length", (GOOD, length))
    session = db.connect(autocommit=False)
    session.execute(
        f"""
        do $$
        declare
            bytes bytea;
            caught int := 0;
        begin
            for i in 1..5 loop
                begin
                    {read(length).replace('select value', 'select value into bytes')};
                exception when external_routine_exception then
                    caught := caught + 1;
                end;
                {read(GOOD).replace('select value', 'select value into strict bytes')};
            end loop;
            if caught <> 5 then
                raise exception 'caught %', caught;
            end if;
        end
        $$"""
    )
    session.execute(f"declare c cursor for select value from evil.credentials order by length(name) desc, name <> 'n{GOOD}'")
    session.execute("savepoint here")
    with refused("38000"):
        session.execute("fetch all from c")
    session.execute("rollback to here")
    assert session.execute(read(GOOD)).fetchall() == [(bytes(32),)]
    session.rollback()
    assert session.execute(read(GOOD)).fetchall() == [(bytes(32),)]


@pytest.mark.parametrize("length", [TRAP, MEMORY, RECURSION])
def test_inside_a_parallel_worker(db: Database, length: int) -> None:
    hostile_copy(db, "by-length", (GOOD, length))
    before = postmaster(db)
    force = "debug_parallel_query" if db.server.installation.major >= 16 else "force_parallel_mode"
    session = db.connect(**{force: "on", "parallel_setup_cost": "0", "parallel_tuple_cost": "0"})
    plan = "\n".join(row[0] for row in session.execute("explain " + read(length)).fetchall())
    assert "Gather" in plan
    for _ in range(2):
        with refused("38000"):
            session.execute(read(length))
        assert session.execute(read(GOOD)).fetchall() == [(bytes(32),)]
    assert postmaster(db) == before


def test_a_loop_inside_a_parallel_worker(db: Database) -> None:
    hostile_copy(db, "by-length", (GOOD, LOOP))
    force = "debug_parallel_query" if db.server.installation.major >= 16 else "force_parallel_mode"
    session = db.connect(statement_timeout="200ms", **{force: "on"})
    with refused("57014"):
        session.execute(read(LOOP))
    assert session.execute(read(GOOD)).fetchall() == [(bytes(32),)]


def test_deep_in_the_stack() -> None:
    """Where the server is about to refuse to go deeper, a module still has its own stack, and compiling one has enough."""
    room, _ = resource.getrlimit(resource.RLIMIT_STACK)
    most = 7680 if room == resource.RLIM_INFINITY else room // 1024 - 512
    server = new_server("deep", {"max_stack_depth": f"{most}kB"})
    try:
        server.start({VARIABLE: MASTER_KEY})
        db = fresh_database(server)
        hostile_copy(db, "by-length", (GOOD, RECURSION))
        before = postmaster(db)
        for name, statement in (("nothing", "select 1"), ("good", read(GOOD)), ("recursion", read(RECURSION))):
            db.run(
                f"create function {name}(depth int) returns text language plpgsql as $$ begin"
                f" if depth = 0 then return ({statement}); end if; return {name}(depth - 1); end $$"
            )

        def outcome(name: str, depth: int) -> str:
            for artifact in (server.data / "pgsql_tmp_omni_credentials").glob("*"):
                artifact.unlink()
            try:
                db.run(f"select {name}(%s)", depth)
            except psycopg.Error as error:
                return error.sqlstate or "the connection is gone"
            return "00000"

        possible, impossible = 1, 1_000_000
        while impossible - possible > 1:
            depth = (possible + impossible) // 2
            if outcome("nothing", depth) == "00000":
                possible = depth
            else:
                impossible = depth
        outcomes = [(outcome("good", depth), outcome("recursion", depth)) for depth in range(possible - 12, possible + 1)]
        assert set(outcomes) == {("00000", "38000"), ("54001", "54001")}
        assert postmaster(db) == before
    finally:
        server.remove()


def test_no_thread_and_no_signal_handler(db: Database) -> None:
    db.run("insert into omni_credentials.credentials (name, value) values ('good', 'value')")
    hostile_copy(db, "by-length", (GOOD, TRAP, MEMORY, RECURSION))
    session = db.connect()
    session.execute("select 1")
    before = state(session)
    assert before[0] == 1
    assert session.execute("select value from omni_credentials.credentials").fetchall() == [(b"value",)]
    assert state(session) == before
    for length in (TRAP, MEMORY, RECURSION):
        with refused("38000"):
            session.execute(read(length))
        assert state(session) == before


def test_failures_to_authenticate_leave_the_memory_alone(db: Database) -> None:
    """Hostile ciphertext is refused, not trapped: no new instance, however often."""
    db.run("insert into omni_credentials.credentials (name, value) values ('good', 'value')")
    db.run(
        "alter table omni_credentials.encrypted_credentials disable trigger encrypted_credentials_check; "
        "insert into omni_credentials.encrypted_credentials (name, value) "
        "select 'n' || i, value from omni_credentials.encrypted_credentials, generate_series(1, 20000) i; "
        "alter table omni_credentials.encrypted_credentials enable trigger encrypted_credentials_check"
    )
    session = db.connect(**{"omni_credentials.on_unreadable": "null"})
    count = "select count(*), count(value) from omni_credentials.credentials"
    assert session.execute(count).fetchall() == [(20_001, 1)]

    def resident() -> int:
        status = Path(f"/proc/{session.info.backend_pid}/status").read_text()
        return int(status.split("RssAnon:")[1].split()[0])

    before = resident()
    for _ in range(5):
        assert session.execute(count).fetchall() == [(20_001, 1)]
    assert resident() - before < 1024, "KiB"
