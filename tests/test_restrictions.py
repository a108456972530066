"""Less address space, and no code made at run time: what works, and what is told where nothing can."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Folder
from conftest import PASSWORD, VARIABLE, fresh_database, new_server, refused
from file_stores import contents
from restrictions import address_space, data_segment, no_executable_memory, no_such_calls
from throwaway import Server

VIEW = "omni_credentials.credentials"
READ = f"select name, value from {VIEW} order by name"
LARGE = b"x" * (1 << 20)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A folder with a file of one credential, under a password: reading it takes Argon2id."""
    work = tmp_path / "work"
    work.mkdir()
    folder = Folder(work, {VARIABLE: PASSWORD})
    folder.run("init")
    folder.set("n", "v")
    return folder


@pytest.fixture
def restricted(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server with the settings and the restriction of the test."""
    settings, prepare = request.param
    server = new_server("restricted", settings)
    server.start({VARIABLE: PASSWORD}, prepare)
    yield server
    server.remove()


class TestCommand:
    @pytest.mark.parametrize("mib", [1024, 2048, 16384])
    def test_little_address_space(self, folder: Folder, mib: int) -> None:
        folder.prepare = address_space(mib)
        assert folder.get("n") == b"v"
        folder.set("large", LARGE)
        folder.run("rotate-key")
        folder.fill(200, 10_000)
        assert folder.get("n7") == b"v" * 10_000
        assert folder.run("verify").status == 0

    def test_too_little(self, folder: Folder) -> None:
        # What is compiled is kept, so that the next one only has to run it.
        folder.prepare = address_space(2048)
        folder.get("n")
        folder.prepare = address_space(70)
        failed = folder.run("get", "n", status=1)
        assert "the system refused memory for a sandbox" in failed.err and "limited to 70 MiB" in failed.err
        assert "ulimit -v" in failed.err and "LimitAS=" in failed.err and "--module" not in failed.err

    @pytest.mark.parametrize("prepare", [no_executable_memory, no_such_calls])
    def test_no_code_made_at_run_time(self, folder: Folder, prepare) -> None:
        folder.prepare = prepare
        failed = folder.run("get", "n", status=1)
        assert "the system lets this process run no code that it compiled itself" in failed.err
        assert "MemoryDenyWriteExecute=no" in failed.err and "--module" not in failed.err
        folder.prepare = None
        assert folder.get("n") == b"v"


@pytest.mark.parametrize(
    "restricted",
    [({}, address_space(2048)), ({"shared_preload_libraries": "omni_credentials"}, address_space(2048))],
    ids=["", "preloaded"],
    indirect=True,
)
def test_a_server_with_little_address_space(restricted: Server) -> None:
    db = fresh_database(restricted)
    file = restricted.data / "small.credentials"
    with db.connect() as session:
        session.execute(f"insert into {VIEW} (name, value) values ('n', 'v')")
        session.execute(f"insert into {VIEW} (name, value) values ('large', %b)", (LARGE,))
        # Several keyrings at once, each with a sandbox of its own, and a file.
        session.execute("select omni_credentials.use_module()")
        session.execute("select omni_credentials.rotate_key()")
        session.execute("select * from omni_credentials.instantiate_file_store(%s)", (str(file),))
        session.execute(f"insert into {VIEW} (name, value) select 'n' || n, convert_to(repeat('v', 1000), 'UTF8') from generate_series(1, 500) n")
        assert session.execute("select count(*) from omni_credentials.verify()").fetchall() == [(0,)]
        assert len(session.execute(READ).fetchall()) == 502
    # As another server reads it, with all the address space there is.
    assert len(contents(restricted, file)) == 502
    db.close()


@pytest.mark.parametrize(
    "restricted", [({}, no_executable_memory), ({}, no_such_calls)], ids=["prctl", "seccomp"], indirect=True
)
def test_a_server_that_may_run_no_code(restricted: Server) -> None:
    empty = fresh_database(restricted, extension=False)
    with empty.connect() as session:
        with refused("58000", "lets the server run no code", hint="MemoryDenyWriteExecute=no"):
            session.execute("create extension omni_credentials")
        assert session.execute("select 1").fetchone() == (1,)
    restricted.stop()
    restricted.start()
    empty.run("create extension omni_credentials")
    empty.run(f"insert into {VIEW} (name, value) values ('n', 'v')")
    # Rows are there, what is compiled as well, and only values are out of reach.
    restricted.stop()
    restricted.start(prepare=no_executable_memory)
    with empty.connect() as session:
        with refused("58000", hint="MemoryDenyWriteExecute=no"):
            session.execute(READ)
        assert session.execute(f"select name from {VIEW}").fetchall() == [("n",)]
    empty.close()


@pytest.mark.parametrize("restricted", [({}, data_segment(64))], indirect=True)
def test_a_server_with_a_small_data_segment(restricted: Server) -> None:
    """The limit is named, and what needs no sandbox works."""
    db = fresh_database(restricted)
    with db.connect() as session:
        with refused("53200", "refused memory for a sandbox.*data segment of this process is limited to 64 MiB", hint="LimitDATA="):
            session.execute(f"insert into {VIEW} (name, value) values ('n', 'v')")
        assert session.execute(f"select name from {VIEW}").fetchall() == []
    restricted.stop()
    restricted.start(prepare=data_segment(256))
    db.run(f"insert into {VIEW} (name, value) values ('n', 'v')")
    assert db.run(READ) == [("n", b"v")]
    db.close()


def test_a_server_with_too_little_address_space(own_server: Server) -> None:
    own_server.stop()
    own_server.start(prepare=address_space(2048))
    db = fresh_database(own_server)
    db.run(f"insert into {VIEW} (name, value) values ('n', 'v')")
    with db.connect() as session:
        session.execute("load 'omni_credentials'")
        status = Path(f"/proc/{session.info.backend_pid}/status").read_text()
        size = int(status.split("VmSize:")[1].split()[0]) >> 10
    # Enough for a session and the sandbox, and not for Argon2id in it, which takes 64 MiB.
    own_server.stop()
    own_server.start(prepare=address_space(size + 40))
    with db.connect() as session:
        for statement in (READ, f"insert into {VIEW} (name, value) values ('m', 'w')"):
            with refused("53200", "the system refused memory for a sandbox.*limited to", hint="LimitAS="):
                session.execute(statement)
        assert session.execute(f"select name from {VIEW}").fetchall() == [("n",)]
    own_server.stop()
    own_server.start(prepare=address_space(2048))
    assert db.run(READ) == [("n", b"v")]
    db.close()
