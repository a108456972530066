"""The library in shared_preload_libraries: what no session has a part in is made before the server forks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from conftest import PASSWORD, VARIABLE, Database, fresh_database, new_server, refused
from hostile_copies import LOOP, hostile_copy, read
from throwaway import Server

READ = "select value from omni_credentials.credentials"
CODE = "omni-credentials-module"


@pytest.fixture
def preloaded() -> Iterator[Database]:
    """A server that was started once, and has compiled the default module at that."""
    server = new_server("preload", {"shared_preload_libraries": "omni_credentials"})
    try:
        server.start({VARIABLE: PASSWORD})
        database = fresh_database(server)
        database.run("insert into omni_credentials.credentials (name, value) values ('a', 'value')")
        yield database
        database.close()
    finally:
        server.remove()


def again(server: Server) -> None:
    server.stop()
    server.start({VARIABLE: PASSWORD})


def postmaster(server: Server) -> int:
    return int((server.data / "postmaster.pid").read_text().splitlines()[0])


def code_of(pid: int) -> set[str]:
    """Where a process has a module's code mapped: the inodes."""
    lines = [line.split() for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    return {line[4] for line in lines if len(line) > 5 and CODE in line[5]}


def first_read(database: Database) -> psycopg.Connection:
    session = database.connect()
    assert session.execute(READ).fetchall() == [(b"value",)]
    return session


def test_backends_have_the_code_of_the_server(preloaded: Database) -> None:
    server = postmaster(preloaded.server)
    code = code_of(server)
    assert len(code) == 1
    session = first_read(preloaded)
    assert code_of(session.info.backend_pid) == code
    # No thread; and the one file that is left is memory that no one can change, and that no program inherits.
    status = dict(line.split(":", 1) for line in Path(f"/proc/{server}/status").read_text().splitlines())
    assert int(status["Threads"]) == 1
    links = {path.name: os.readlink(path) for path in Path(f"/proc/{server}/fd").iterdir()}
    assert not [path for path in links.values() if "native" in path]
    for number in (name for name, path in links.items() if CODE in path):
        info = dict(line.split(":", 1) for line in Path(f"/proc/{server}/fdinfo/{number}").read_text().splitlines())
        flags = int(info["flags"], 8)
        assert flags & os.O_ACCMODE == os.O_RDONLY and flags & os.O_CLOEXEC


def ended_and_not_waited_for(pid: int) -> list[str]:
    """Of the processes that one has started, those that it has left behind."""
    stats = [Path(f"/proc/{child}/stat").read_text() for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [stat for stat in stats if stat.rpartition(")")[2].split()[0] == "Z"]


def test_the_first_start_compiles(preloaded: Database) -> None:
    """In a process of its own, which is gone when the server is up."""
    server = preloaded.server
    folder = server.data / "pgsql_tmp_omni_credentials"
    (artifact,) = folder.iterdir()
    artifact.unlink()
    again(server)
    assert list(folder.iterdir()) == [artifact]
    assert ended_and_not_waited_for(postmaster(server)) == []
    assert code_of(first_read(preloaded).info.backend_pid) == code_of(postmaster(server)) != set()
    # It is compiled once.
    before = artifact.stat()
    again(server)
    assert artifact.stat().st_ino == before.st_ino


def test_a_damaged_artifact_is_replaced(preloaded: Database) -> None:
    server = preloaded.server
    (artifact,) = (server.data / "pgsql_tmp_omni_credentials").iterdir()
    size = artifact.stat().st_size
    os.truncate(artifact, size // 2)
    again(server)
    assert artifact.stat().st_size == size
    assert code_of(first_read(preloaded).info.backend_pid) == code_of(postmaster(server)) != set()


def test_a_cache_that_is_of_no_use_does_not_stop_the_server(preloaded: Database) -> None:
    server = preloaded.server
    (server.data / "pgsql_tmp_omni_credentials").chmod(0o777)
    before = server.log.stat().st_size
    again(server)
    assert "others may write to it" in server.log.read_text()[before:]
    assert code_of(postmaster(server)) == set()
    first_read(preloaded)


def test_another_folder_after_a_reload(preloaded: Database) -> None:
    server = preloaded.server
    folder = server.data / "pgsql_tmp_other"
    with preloaded.connect() as admin:
        admin.execute(f"alter system set omni_credentials.cache_directory = '{folder}'")
        admin.execute("select pg_reload_conf()")
        while admin.execute("show omni_credentials.cache_directory").fetchone() != (str(folder),):
            pass
    session = first_read(preloaded)
    assert len(list(folder.iterdir())) == 1
    assert code_of(session.info.backend_pid) != code_of(postmaster(server))


def test_a_module_that_is_not_allowed_is_not_loaded(preloaded: Database) -> None:
    preloaded.run(f"alter system set omni_credentials.allowed_modules = '{'00' * 32}'")
    again(preloaded.server)
    assert code_of(postmaster(preloaded.server)) == set()
    with refused("42501"):
        preloaded.run(READ)


def test_a_loop_ends(preloaded: Database) -> None:
    """The timeout belongs to the backend, whatever the server made before."""
    hostile_copy(preloaded, "by-length", (LOOP,))
    session = first_read(preloaded)
    session.execute("set statement_timeout = '100ms'")
    for _ in range(2):
        with refused("57014", "statement timeout"):
            session.execute(read(LOOP))
        assert session.execute(READ).fetchall() == [(b"value",)]


def test_after_a_crash(preloaded: Database) -> None:
    """The server starts its processes again, and is itself the same."""
    server = preloaded.server
    session = first_read(preloaded)
    os.kill(session.info.backend_pid, 9)
    for _ in range(600):
        try:
            found = first_read(preloaded)
            break
        except psycopg.OperationalError:
            pass
    assert code_of(found.info.backend_pid) == code_of(postmaster(server))
