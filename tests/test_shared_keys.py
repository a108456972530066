"""Backends share derived keys, and only with whoever has the same master secret."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from conftest import VARIABLE, Database, fresh_database, new_server, refused
from throwaway import Server

PRELOAD = {"shared_preload_libraries": "omni_credentials"}
# Where it is not preloaded, Postgres 17 and later have memory for it all the same, unless it would be a file.
SEGMENT: dict[str, str] = {}
NOTHING = {"dynamic_shared_memory_type": "mmap"}
SECRETS = {VARIABLE: "a password", "OTHER": "another password"}
# Argon2id takes 64 MiB, so whether a backend derived a key shows in the most memory it ever had.
DERIVED_KIB = 50 * 1024

READ = "select value from omni_credentials.credentials"


@pytest.fixture
def start(request: pytest.FixtureRequest):
    def start(settings: dict[str, str]) -> Database:
        server = new_server("keys", settings)
        request.addfinalizer(server.remove)
        server.start(SECRETS)
        database = fresh_database(server)
        database.run("insert into omni_credentials.credentials (name, value) values ('a', 'value')")
        return database

    return start


def peak(session: psycopg.Connection) -> int:
    """The most resident memory that a session's backend had, in KiB."""
    status = Path(f"/proc/{session.info.backend_pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


def derives(database: Database, statement: str = READ) -> bool:
    """Whether a new session derives a key for the statement."""
    session = database.connect()
    session.execute("select 1")
    before = peak(session)
    assert session.execute(statement).fetchall() == [(b"value",)]
    return peak(session) - before > DERIVED_KIB


def cap_file_size(server: Server, pid: int, limit: int) -> None:
    """Limits the files that a process of the server may write; its own account may."""
    program = f"import resource; resource.prlimit({pid}, resource.RLIMIT_FSIZE, ({limit}, {limit}))"
    subprocess.run(["python3", "-c", program], check=True, cwd="/", **server.account.popen)


def shares(server: Server, settings: dict[str, str]) -> bool:
    return settings == PRELOAD or (settings == SEGMENT and server.installation.major >= 17)


@pytest.mark.parametrize("settings", [PRELOAD, SEGMENT, NOTHING], ids=["preload", "segment", "nothing"])
def test_one_derivation_for_all(start, settings: dict[str, str]) -> None:
    database = start(settings)
    server = database.server
    # The session that made the keyring has shared its key.
    assert derives(database) is not shares(server, settings)
    # After a restart the first one derives it, and the rest have it.
    server.restart()
    assert derives(database)
    for _ in range(2):
        assert derives(database) is not shares(server, settings)
    # After a change of the secret, the session that made it has shared the new key.
    database.run("select omni_credentials.rotate_master_secret('OTHER')")
    assert derives(database) is not shares(server, settings)


def test_many_first_reads_at_once(start) -> None:
    """After a start of the server all clients come at once: one derives, and the others wait for it."""
    database = start(PRELOAD)
    database.server.restart()
    sessions = [database.connect() for _ in range(8)]
    before = [(session.execute("select 1"), peak(session))[1] for session in sessions]
    with ThreadPoolExecutor(len(sessions)) as pool:
        for read in pool.map(lambda session: session.execute(READ).fetchall(), sessions):
            assert read == [(b"value",)]
    derived = [peak(session) - most > DERIVED_KIB for session, most in zip(sessions, before, strict=True)]
    assert derived.count(True) == 1
    assert database.run("select count(*) from pg_locks where locktype = 'advisory'") == [(0,)]


def test_after_a_crash(start) -> None:
    database = start(PRELOAD)
    victim = database.connect()
    pid = victim.info.backend_pid
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while True:
        try:
            assert database.run("select 1") == [(1,)]
            if derives(database):
                break
        except psycopg.OperationalError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not derives(database)


def test_no_room_in_shared_memory(start) -> None:
    """A full /dev/shm: sessions that cannot share keys read and write all the same."""
    database = start(SEGMENT)
    server = database.server
    server.restart()
    database.run("select count(*) from omni_credentials.encrypted_credentials")
    database.run("checkpoint")
    before = server.log.stat().st_size
    # As for a full disk, the system refuses to make the segment larger.
    limit = 512 * 1024
    assert before < limit
    full = [database.connect() for _ in range(2)]
    for session in full:
        session.execute("select 1")
        cap_file_size(server, session.info.backend_pid, limit)
        for _ in range(2):
            assert session.execute(READ).fetchall() == [(b"value",)]
        # Nothing was left behind by the error.
        session.execute("begin")
        session.execute("savepoint s")
        with refused("22012"):
            session.execute("select value, 1 / 0 from omni_credentials.credentials")
        session.execute("rollback to s")
        assert session.execute(READ).fetchall() == [(b"value",)]
        session.execute("commit")
    log = server.log.read_bytes()[before:].decode()
    notes = log.count("this session shares no keys")
    assert notes == (2 if shares(server, SEGMENT) else 0), log
    assert "was not closed" not in log and "leak" not in log and "terminated by signal" not in log
    # Where there is room, the others share.
    assert derives(database)
    assert derives(database) is not shares(server, SEGMENT)


def test_no_room_for_the_segment_alone(start) -> None:
    """The server's list of segments exists and ours does not fit: what is left in the list must not keep anyone from reading."""
    database = start(SEGMENT)
    server = database.server
    server.restart()
    if shares(server, SEGMENT):
        # An extension that makes the list.
        database.run("create extension pg_prewarm")
        database.run("select autoprewarm_dump_now()")
    database.run("select count(*) from omni_credentials.encrypted_credentials")
    database.run("checkpoint")
    session = database.connect()
    session.execute("select 1")
    cap_file_size(server, session.info.backend_pid, 8 * 1024)
    for _ in range(2):
        assert session.execute(READ).fetchall() == [(b"value",)]
    for _ in range(3):
        assert database.run(READ) == [(b"value",)]
    assert b"terminated by signal" not in server.log.read_bytes()


@pytest.mark.parametrize("settings", [PRELOAD, SEGMENT], ids=["preload", "segment"])
def test_a_copy_with_another_secret_gets_nothing(start, settings: dict[str, str]) -> None:
    """Knowing a keyring's bytes is not enough, whoever unlocked it before: in this session or in another."""
    database = start(settings)
    database.run("create schema thief")
    database.run("select omni_credentials.instantiate('thief', 'OTHER')")
    database.run(
        "insert into thief.encrypted_credentials (name, value) "
        "select name, value from omni_credentials.encrypted_credentials"
    )
    database.run("insert into thief.credentials_keyrings select * from omni_credentials.credentials_keyrings")
    session = database.connect()
    assert session.execute(READ).fetchall() == [(b"value",)]
    for _ in range(2):
        with refused("28P01", "OTHER"):
            session.execute("select value from thief.credentials")
    with refused("28P01", "OTHER"):
        database.run("select value from thief.credentials")


@pytest.mark.parametrize("settings", [PRELOAD, SEGMENT], ids=["preload", "segment"])
def test_a_wrong_secret_is_told_at_once(start, settings: dict[str, str]) -> None:
    database = start(settings)
    database.server.restart({VARIABLE: "wrong"})
    for _ in range(2):
        with refused("28P01", VARIABLE):
            database.run(READ)
    database.server.restart(SECRETS)
    assert database.run(READ) == [(b"value",)]


def test_more_keyrings_than_the_table_has_room_for(start) -> None:
    database = start(PRELOAD)
    for n in range(70):
        database.run(f"create schema s{n}")
        database.run(
            f"select omni_credentials.instantiate('s{n}', kdf_memory_kib => 64, kdf_passes => 1, kdf_lanes => 1)"
        )
        database.run(f"insert into s{n}.credentials (name, value) values ('a', 'value')")
    for n in (0, 35, 69):
        assert database.run(f"select value from s{n}.credentials") == [(b"value",)]
    # The first one had to make room.
    assert derives(database)
    assert not derives(database)
