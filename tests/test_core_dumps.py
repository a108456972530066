"""Keys, and values that nobody asked for, are not in what a core dump of a server process would hold.

No process is made to dump: what a dump would hold is read from /proc. The system leaves out every mapping that is marked
`dd` (MADV_DONTDUMP) in /proc/PID/smaps; here all others count as dumped, although more of them may be left out.
"""

from __future__ import annotations

import re
import secrets
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import psycopg
import pytest
from conftest import MASTER_KEY, PASSWORD, VARIABLE, Database, fresh_database, new_server
from independent.omni_credentials_format import Keyring, kek
from throwaway import Server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

LABELS = (b"value", b"file")


def memory(pid: int, *, dumped_only: bool) -> Iterator[bytes]:
    """The readable mappings of a process; with `dumped_only` without those that are left out of core dumps."""
    maps = re.findall(
        r"^([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ (\d+).*?^VmFlags: ([^\n]*)$",
        Path(f"/proc/{pid}/smaps").read_text(), re.M | re.S,
    )
    assert maps
    with Path(f"/proc/{pid}/mem").open("rb", 0) as file:
        for start, end, access, inode, flags in maps:
            flags = flags.split()
            # What cannot be written is a program's or a library's file.
            if access[0] != "r" or (access[1] != "w" and inode != "0") or (dumped_only and "dd" in flags):
                continue
            file.seek(int(start, 16))
            try:
                yield file.read(int(end, 16) - int(start, 16))
            except OSError:
                # Pages of the system's own, such as [vvar].
                continue


def found(pid: int, needles: dict[str, bytes], *, dumped_only: bool) -> set[str]:
    """Which of the needles are in a process's memory."""
    return {
        name
        for part in memory(pid, dumped_only=dumped_only)
        for name, needle in needles.items()
        if needle in part
    }


def keys(database: Database, secret: str) -> dict[str, bytes]:
    """Every key of the default copy, found with the independent reader."""
    ((stored,),) = database.run("select keyring from omni_credentials.credentials_keyrings")
    wrapping = kek(secret.encode(), stored)
    ring = Keyring(stored, wrapping)
    needles = {"KEK": wrapping}
    for number, (key_id, key) in enumerate(ring.keys.items()):
        needles[f"data key {number}"] = key
        for label in LABELS:
            needles[f"{label.decode()} key {number}"] = ring.key(label, key_id)
    return needles


def children(postmaster: int) -> Iterable[int]:
    return map(int, Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split())


@pytest.fixture
def start(request: pytest.FixtureRequest):
    def start(secret: str, **settings: str) -> Server:
        # The less there is to search, the better.
        server = new_server("dumps", {"shared_buffers": "1MB"} | settings)
        request.addfinalizer(server.remove)
        return server.start({VARIABLE: secret})

    return start


@pytest.mark.parametrize("secret", [MASTER_KEY, PASSWORD], ids=["generated key", "password"])
@pytest.mark.parametrize("preload", ["", "omni_credentials"], ids=["loaded by the session", "preloaded"])
def test_keys(start, secret: str, preload: str) -> None:
    server = start(secret, shared_preload_libraries=preload)
    database = fresh_database(server)
    writer, reader = database.connect(), database.connect()
    view = "omni_credentials.credentials"
    writer.execute(f"insert into {view} (name, value) select 'n' || n, 'v' from generate_series(1, 20) n")
    writer.execute("select omni_credentials.rotate_key()")
    # Large values, and what does not open, go other ways.
    writer.execute(f"insert into {view} (name, value) values ('large', repeat('x', 500000)::bytea)")
    reader.execute(f"select value from {view}")
    reader.execute("select * from omni_credentials.verify()")
    needles = keys(database, secret)
    for session in (writer, reader):
        # The search sees what is there ...
        assert {"KEK", "data key 0", "data key 1"} <= found(session.info.backend_pid, needles, dumped_only=False)
        # ... and none of it would be dumped.
        assert found(session.info.backend_pid, needles, dumped_only=True) == set()
    # Shared memory is mapped by all processes of the server.
    postmaster = server.running()
    for pid in (postmaster, *children(postmaster)):
        assert found(pid, needles, dumped_only=True) == set()


def test_after_errors_and_rotations(start) -> None:
    server = start(PASSWORD)
    database = fresh_database(server)
    session = database.connect()
    session.execute("insert into omni_credentials.credentials (name, value) values ('n', 'v')")
    needles = {f"before: {name}": needle for name, needle in keys(database, PASSWORD).items()}
    session.execute("select omni_credentials.use_module()")
    ((stored,),) = database.run("select keyring from omni_credentials.credentials_keyrings order by number desc limit 1")
    needles |= {f"after: {name}": needle for name, needle in {"KEK": kek(PASSWORD.encode(), stored)}.items()}
    with pytest.raises(psycopg.Error, match="1 to 512 bytes"):
        session.execute("insert into omni_credentials.credentials (name, value) values (repeat('x', 600), 'v')")
    session.execute("select value from omni_credentials.credentials")
    assert "after: KEK" in found(session.info.backend_pid, needles, dumped_only=False)
    assert found(session.info.backend_pid, needles, dumped_only=True) == set()


def test_values_that_nobody_asked_for(start) -> None:
    """`verify`, `rotate_key` and a change of the principal open values; only a query's own result stays in the backend's
    memory, as any bytea does."""
    server = start(MASTER_KEY)
    database = fresh_database(server)
    canary = f"canary-{secrets.token_hex(16)}".encode()
    large = canary[::-1] + bytes(200_000) + canary[::-1]
    for name, value in (("small", canary), ("large", large)):
        database.run("insert into omni_credentials.credentials (name, value) values (%s, %b)", name, value)
    needles = {"small": canary, "large": large[: len(canary)]}
    session = database.connect()
    assert session.execute("select * from omni_credentials.verify()").fetchall() == []
    assert found(session.info.backend_pid, needles, dumped_only=True) == set()
    assert session.execute("select omni_credentials.rotate_key()").fetchall() == [(2,)]
    assert found(session.info.backend_pid, needles, dumped_only=True) == set()
    # The search sees it where a result is held.
    session.execute("begin")
    session.execute("declare c cursor with hold for select value from omni_credentials.credentials")
    session.execute("commit")
    assert found(session.info.backend_pid, needles, dumped_only=True) == set(needles)
