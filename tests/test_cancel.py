"""A module that does not come back ends with the statement: statement_timeout, cancel and terminate."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import psycopg
import pytest
from conftest import PASSWORD, VARIABLE, Database, refused
from hostile_copies import GOOD, LOOP, TRAP, component, hostile_copy, read

LOOPS = ["loop", "loop-in-start", "loop-in-realloc", "loop-filling-memory", "loop-asking-for-entropy"]
RUNNING = "select count(*) from pg_stat_activity where pid = %s and state = 'active' and wait_event is null"


@pytest.fixture
def looping(db: Database) -> Database:
    hostile_copy(db, "by-length", (GOOD, LOOP, TRAP))
    db.run("insert into omni_credentials.credentials (name, value) values ('good', 'value')")
    return db


def works(session: psycopg.Connection) -> None:
    assert session.execute(read(GOOD)).fetchall() == [(bytes(32),)]
    assert session.execute("select value from omni_credentials.credentials").fetchall() == [(b"value",)]


def stop(database: Database, session: psycopg.Connection, how: str) -> None:
    """Calls `how` on the session once it is at work."""
    pid = session.info.backend_pid
    while database.run(RUNNING, pid) == [(0,)]:
        pass
    assert database.run(f"select {how}(%s)", pid) == [(True,)]


@contextlib.contextmanager
def rescued(database: Database, session: psycopg.Connection) -> Iterator[None]:
    """Cancels the session where nothing else ends it, so that the test fails and does not hang."""
    timer = threading.Timer(30, database.run, ("select pg_cancel_backend(%s)", session.info.backend_pid))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def test_statement_timeout_again_and_again(looping: Database) -> None:
    session = looping.connect(statement_timeout="100ms")
    for _ in range(3):
        with refused("57014", "statement timeout"):
            session.execute(read(LOOP))
        works(session)


def test_after_an_earlier_error(looping: Database) -> None:
    session = looping.connect(statement_timeout="100ms")
    with refused("22012"):
        session.execute("select 1 / 0")
    with refused("38000"):
        session.execute(read(TRAP))
    with refused("57014", "statement timeout"):
        session.execute(read(LOOP))
    with refused("38000"):
        session.execute(read(TRAP))
    with refused("57014", "statement timeout"):
        session.execute(read(LOOP))
    works(session)


def test_cancel(looping: Database) -> None:
    session = looping.connect()
    for _ in range(2):
        canceller = threading.Thread(target=stop, args=(looping, session, "pg_cancel_backend"))
        canceller.start()
        with refused("57014", "user request"):
            session.execute(read(LOOP))
        canceller.join()
        works(session)


def test_terminate(looping: Database) -> None:
    session = looping.connect()
    terminator = threading.Thread(target=stop, args=(looping, session, "pg_terminate_backend"))
    terminator.start()
    with refused("57P01", "administrator command"):
        session.execute(read(LOOP))
    terminator.join()
    works(looping.connect())


def test_transaction_timeout(looping: Database) -> None:
    if looping.server.installation.major < 17:
        pytest.skip("there is no such setting")
    session = looping.connect(transaction_timeout="150ms")
    works(session)
    with rescued(looping, session), refused("25P04", "transaction timeout"):
        session.execute(read(LOOP))
    works(looping.connect())


def test_in_a_commit(db: Database) -> None:
    """Where the files of a copy are written. Postgres no longer counts statement_timeout then."""
    hostile_copy(db, "loop-in-files")
    db.run("insert into evil.credentials_files (filename) values ('loop.omni')")
    # Registered by hand, the file store is suspended; a synchronisation resumes it, and the module loops in its commit.
    insert = (
        "select evil.credential_file_store_sync('loop.omni'); "
        "insert into evil.credentials (name, value) values ('a', 'b')"
    )
    session = db.connect()
    for _ in range(2):
        canceller = threading.Thread(target=stop, args=(db, session, "pg_cancel_backend"))
        canceller.start()
        with refused("57014", "user request"):
            session.execute(insert)
        canceller.join()
        assert session.execute(read(GOOD)).fetchall() == [(bytes(32),)]
    terminator = threading.Thread(target=stop, args=(db, session, "pg_terminate_backend"))
    terminator.start()
    with refused("57P01", "administrator command"):
        session.execute(insert)
    terminator.join()
    if db.server.installation.major >= 17:
        session = db.connect(transaction_timeout="150ms")
        with rescued(db, session), refused("25P04", "transaction timeout"):
            session.execute(insert)
    assert db.run("select name from evil.encrypted_credentials") == [(f"n{GOOD}",)]
    assert not (db.server.data / "loop.omni").exists()


def test_in_a_transaction_and_its_savepoints(looping: Database) -> None:
    session = looping.connect(autocommit=False, statement_timeout="100ms")
    session.execute("create table kept (n int)")
    for _ in range(2):
        session.execute("savepoint here")
        with refused("57014"):
            session.execute(read(LOOP))
        session.execute("rollback to here")
        works(session)
    session.commit()
    with refused("57014"):
        session.execute(read(LOOP))
    session.rollback()
    works(session)
    assert session.execute("select count(*) from kept").fetchall() == [(0,)]


def test_other_timeouts_stay(looping: Database) -> None:
    """The module's ticks use the server's own timers: they must not disturb others."""
    session = looping.connect(statement_timeout="10s", lock_timeout="100ms")
    works(session)
    blocker = looping.connect(autocommit=False)
    blocker.execute("lock table omni_credentials.encrypted_credentials")
    with refused("55P03", "lock timeout"):
        session.execute("select value from omni_credentials.credentials")
    blocker.rollback()
    works(session)


@pytest.mark.parametrize("case", LOOPS)
def test_every_kind_of_loop(db: Database, case: str) -> None:
    hostile_copy(db, case)
    session = db.connect(statement_timeout="150ms")
    for _ in range(2):
        with refused("57014", "statement timeout"):
            session.execute(read(GOOD))
    assert session.execute("select 1").fetchall() == [(1,)]


def test_installing_a_module_that_loops(db: Database) -> None:
    session = db.connect(statement_timeout="300ms")
    install = "select omni_credentials.install_module('loop', %s, sha256(%s))"
    with refused("57014", "statement timeout"):
        session.execute(install, (component("loop"), component("loop")))
    assert session.execute("select count(*) from omni_credentials.crypto_modules").fetchall() == [(1,)]


def test_key_derivation_can_be_cancelled(own_db: Database) -> None:
    """The shipped module at its slowest."""
    own_db.run("create schema slow")
    own_db.run(
        "select omni_credentials.instantiate('slow', kdf_memory_kib => 262144, kdf_passes => 16, kdf_lanes => 1)"
    )
    session = own_db.connect(statement_timeout="200ms")
    with refused("57014", "statement timeout"):
        session.execute("insert into slow.credentials (name, value) values ('a', 'b')")
    assert own_db.run("select count(*) from slow.credentials_keyrings") == [(0,)]
    assert own_db.server.environment == {VARIABLE: PASSWORD}
