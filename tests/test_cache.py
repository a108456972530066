"""The cache of compiled modules, through a server: whatever happens to it, values are read."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import threading
from pathlib import Path

import pytest
from conftest import PASSWORD, VARIABLE, Database, fresh_database, new_server
from standbys import base_backup
from throwaway import Server

READ = "select value from omni_credentials.credentials"
USELESS = "cannot be kept"


@pytest.fixture
def stored(own_db: Database) -> Database:
    own_db.run("insert into omni_credentials.credentials (name, value) values ('a', 'value')")
    return own_db


def folder(server: Server) -> Path:
    return server.data / "pgsql_tmp_omni_credentials"


def artifact(server: Server) -> Path:
    (found,) = folder(server).iterdir()
    return found


def reads(database: Database) -> bool:
    """Whether a new session reads the value."""
    return database.run(READ) == [(b"value",)]


def rewrite(server: Server, path: Path, content: bytes) -> None:
    """Replaces an artifact as the server's user would."""
    beside = path.with_suffix(".test")
    beside.write_bytes(content)
    beside.chmod(0o600)
    server.account.own(beside)
    beside.rename(path)


def test_it_is_private_and_used(stored: Database) -> None:
    server = stored.server
    assert stat.S_IMODE(folder(server).stat().st_mode) == 0o700
    path = artifact(server)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.stat()
    assert reads(stored)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert USELESS not in server.log.read_text(errors="replace")


def test_missing(stored: Database) -> None:
    server = stored.server
    artifact(server).unlink()
    folder(server).rmdir()
    assert reads(stored)
    assert artifact(server).stat().st_size > 100_000


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty", "garbage", "of another module"])
def test_damaged(stored: Database, damage: str) -> None:
    server = stored.server
    path = artifact(server)
    sound = path.read_bytes()
    middle = len(sound) // 2
    bad = {
        "flipped": sound[:middle] + bytes([sound[middle] ^ 1]) + sound[middle + 1 :],
        "truncated": sound[:middle],
        "empty": b"",
        "garbage": os.urandom(4096),
        "of another module": sound,
    }[damage]
    if damage == "of another module":
        # The artifact of this module under the name of the other one.
        wasm = (Path(os.environ["OMNI_CREDENTIALS_MODULES"]) / "aes256gcmsiv.wasm").read_bytes()
        digest = hashlib.sha256(wasm).hexdigest()
        other = path.with_name(digest + path.name[64:])
        rewrite(server, other, bad)
        stored.run("select omni_credentials.install_module('aes', %s, %s::text)", wasm, digest)
        assert stored.run("select omni_credentials.use_module(module => 'aes')") == [(1,)]
        assert other.read_bytes() != bad
        assert stored.run("select suite from omni_credentials.crypto_modules where name = 'aes'") == [("aes256gcmsiv",)]
    else:
        rewrite(server, path, bad)
    assert reads(stored)
    assert path.read_bytes() != bad or damage == "of another module"
    assert reads(stored)


def test_open_to_others(stored: Database) -> None:
    """What others could have written is not run, and not silently."""
    server = stored.server
    folder(server).chmod(0o777)
    assert reads(stored)
    assert "others may write to it" in server.log.read_text(errors="replace")


def test_read_only(stored: Database) -> None:
    """What is there is used, and nothing is said; what is not there is compiled, and that is said."""
    server = stored.server
    path = artifact(server)
    sound = path.read_bytes()
    folder(server).chmod(0o500)
    assert reads(stored)
    assert USELESS not in server.log.read_text(errors="replace")
    folder(server).chmod(0o700)
    rewrite(server, path, sound[:-1])
    folder(server).chmod(0o500)
    assert reads(stored)
    assert server.log.read_text(errors="replace").count(USELESS) == 1
    assert path.read_bytes() == sound[:-1]
    folder(server).chmod(0o700)
    assert reads(stored)
    assert path.read_bytes() == sound
    assert server.log.read_text(errors="replace").count(USELESS) == 1


def test_replaced_while_sessions_read_it(stored: Database) -> None:
    server = stored.server
    path = artifact(server)
    sound = path.read_bytes()
    done = threading.Event()

    def replace() -> None:
        turn = 0
        while not done.is_set():
            rewrite(server, path, (sound, sound[: len(sound) // 3], os.urandom(1000))[turn % 3])
            turn += 1

    replacer = threading.Thread(target=replace)
    replacer.start()
    try:
        assert all(reads(stored) for _ in range(12))
    finally:
        done.set()
        replacer.join()


@pytest.mark.parametrize("what", ["not a folder", "not writable"])
def test_of_no_use(what: str) -> None:
    # In /proc nobody can make a folder, whoever the server runs as.
    place = Path("/dev/null") if what == "not a folder" else Path("/proc/omni_credentials")
    server = new_server("cache", {"omni_credentials.cache_directory": str(place)})
    try:
        server.start({VARIABLE: PASSWORD})
        database = fresh_database(server)
        database.run("insert into omni_credentials.credentials (name, value) values ('a', 'value')")
        before = server.log.read_text(errors="replace").count(USELESS)
        session = database.connect()
        for _ in range(3):
            assert session.execute(READ).fetchall() == [(b"value",)]
        # Said once by this session, and with the reason.
        assert server.log.read_text(errors="replace").count(USELESS) == before + 1
    finally:
        server.remove()


def test_a_full_disk(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make a small file system")
    small = tmp_path / "small"
    small.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=1777", "none", small], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"cannot mount: {done.stderr.strip()}")
    server = None
    try:
        for parent in (tmp_path, *tmp_path.parents[:3]):
            parent.chmod(parent.stat().st_mode | 0o055)
        server = new_server("full", {"omni_credentials.cache_directory": str(small / "cache")})
        server.start({VARIABLE: PASSWORD})
        database = fresh_database(server)
        database.run("insert into omni_credentials.credentials (name, value) values ('a', 'value')")
        assert reads(database)
        assert "No space left" in server.log.read_text(errors="replace")
        # No half-written file stays behind.
        assert list((small / "cache").iterdir()) == []
    finally:
        if server is not None:
            server.remove()
        subprocess.run(["umount", small], check=True)


def test_hot_standby(stored: Database) -> None:
    """A standby has the installed modules, compiles them for its own machine into its own folder, and reads."""
    primary = stored.server
    wasm = (Path(os.environ["OMNI_CREDENTIALS_MODULES"]) / "aes256gcmsiv.wasm").read_bytes()
    digest = hashlib.sha256(wasm).hexdigest()
    stored.run("select omni_credentials.install_module('aes', %s, %s::text)", wasm, digest)
    stored.run("select omni_credentials.use_module(module => 'aes')")
    standby = base_backup(primary)
    try:
        assert not folder(standby).exists(), "compiled code travelled with the backup"
        standby.start({VARIABLE: PASSWORD})
        replica = Database(standby, stored.name)
        assert replica.run("select pg_is_in_recovery()") == [(True,)]
        assert reads(replica)
        assert artifact(standby).name.startswith(digest)
    finally:
        standby.remove()
