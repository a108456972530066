"""Where a file store may be: names, folders, links, rights, and what is said where it cannot be."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import (
    MASTER_KEY,
    VARIABLE,
    Database,
    drop_database,
    fresh_database,
    master_key,
    new_server,
    refused,
)
from file_stores import (
    INSERT,
    READ,
    SEALED,
    STATUS,
    contents,
    in_step,
    in_threads,
    leftovers,
    live,
    mirror,
    put,
)


@pytest.fixture
def folder(db: Database) -> Path:
    """A folder that belongs to the server's user."""
    folder = db.server.folder / f"files-{db.name}"
    folder.mkdir()
    db.server.account.own(folder)
    return folder


def test_imports_then_exports_what_is_missing(db: Database, folder: Path) -> None:
    file = folder / "team.credentials"
    other = fresh_database(db.server)
    put(other, "theirs", b"1")
    mirror(other, file)
    put(db, "ours", b"2")
    assert mirror(db, file) == [("theirs", "added")]
    assert live(file) == ["ours", "theirs"]
    assert db.run(READ) == [("ours", b"2"), ("theirs", b"1")]
    drop_database(other)


def test_absolute_and_relative_names(db: Database, folder: Path) -> None:
    put(db, "kept", b"value")
    relative = f"{db.name}.credentials"
    mirror(db, relative)
    mirror(db, folder / "other.credentials")
    assert live(db.server.data / relative) == live(folder / "other.credentials") == ["kept"]
    # The same file by another name would be merged with itself.
    for name in (str(db.server.data / relative), f"./{relative}"):
        with refused("42710", "already registered", hint="credential_file_store_reload"):
            mirror(db, name)


def test_an_empty_copy_has_nothing_to_show(db: Database, folder: Path) -> None:
    file = folder / "new.credentials"
    assert mirror(db, file) == []
    assert live(file) == [] and in_step(db)
    put(db, "first", b"value")
    assert live(file) == ["first"]


def test_several_files_for_one_copy(db: Database, folder: Path) -> None:
    files = [folder / f"{n}.credentials" for n in range(3)]
    for file in files:
        mirror(db, file)
    put(db, "kept", b"value")
    assert [contents(db.server, file) for file in files] == [{"kept": b"value"}] * 3
    assert db.run(STATUS) == [(str(file), True, None) for file in files]
    assert leftovers(folder) == []


def test_one_file_for_several_copies_and_databases(db: Database, folder: Path) -> None:
    file = folder / "shared.credentials"
    db.run("create schema second")
    db.run("select omni_credentials.instantiate('second')")
    mirror(db, file)
    mirror(db, file, "second")
    with db.connect(autocommit=False) as session:
        session.execute(INSERT, ("first", b"1"))
        session.execute("insert into second.credentials (name, value) values ('second', '2')")
    assert live(file) == ["first", "second"]
    assert contents(db.server, file) == {"first": b"1", "second": b"2"}
    db.run("select * from second.credential_file_store_reload(%s)", str(file))
    assert dict(db.run("select name, value from second.credentials")) == {"first": b"1", "second": b"2"}
    assert leftovers(folder) == []


@pytest.fixture
def twin() -> Iterator[Callable[..., Database]]:
    """Makes a database with the extension on another server, which has the master secret that is given."""
    made: list[Database] = []

    def make(secret: str = MASTER_KEY) -> Database:
        made.append(fresh_database(new_server(f"twin-{len(made)}").start({VARIABLE: secret})))
        return made[-1]

    yield make
    for database in made:
        database.close()
        database.server.remove()


def test_two_servers_with_one_secret(db: Database, folder: Path, twin: Callable[..., Database]) -> None:
    file = folder / "shared.credentials"
    put(db, "first", b"1")
    mirror(db, file)
    other = twin()
    assert mirror(other, file) == [("first", "added")]
    put(other, "second", b"2")
    put(db, "third", b"3")
    assert live(file) == ["first", "second", "third"]


def test_two_servers_at_once(db: Database, folder: Path, twin: Callable[..., Database]) -> None:
    """Each with sessions of its own: the lock file keeps them apart, and none waits for ever."""
    file = folder / "shared.credentials"
    put(db, "first", b"1")
    mirror(db, file)
    other = twin()
    mirror(other, file)
    written = {"first": b"1"}

    def writer(database: Database, who: str) -> Callable[[], None]:
        def run() -> None:
            with database.connect() as session:
                for n in range(10):
                    name = f"{who}-{n}"
                    session.execute(INSERT, (name, name.encode()))
                    written[name] = name.encode()

        return run

    in_threads(*(writer(*who) for who in ((db, "a"), (db, "b"), (other, "c"), (other, "d"))))
    assert len(written) == 41
    assert leftovers(folder) == []
    assert contents(db.server, file) == written
    for database in (db, other):
        database.run("select * from omni_credentials.credential_file_store_reload(%s)", str(file))
        assert dict(database.run(READ)) == written
        assert in_step(database)


def test_another_secret_is_refused(db: Database, folder: Path, twin: Callable[..., Database]) -> None:
    file = folder / "ours.credentials"
    put(db, "first", b"1")
    mirror(db, file)
    before = file.read_bytes()
    stranger = twin(master_key(b"another"))
    with refused("28P01", VARIABLE, hint="."):
        mirror(stranger, file)
    assert stranger.run("select count(*) from omni_credentials.credentials_keyrings") == [(0,)]
    assert file.read_bytes() == before


def test_a_link_is_followed(db: Database, folder: Path) -> None:
    (folder / "real").mkdir()
    db.server.account.own(folder / "real")
    link = folder / "link.credentials"
    link.symlink_to("real/file.credentials")
    put(db, "first", b"1")
    mirror(db, link)
    put(db, "second", b"2")
    assert link.is_symlink()
    assert live(folder / "real" / "file.credentials") == ["first", "second"]
    with refused("42710", "already registered"):
        mirror(db, folder / "real" / "file.credentials")


def test_the_file_is_for_its_owner(db: Database, folder: Path) -> None:
    file = folder / "ours.credentials"
    put(db, "first", b"1")
    mirror(db, file)
    assert file.stat().st_mode & 0o777 == 0o600


class TestRefused:
    """Each with nothing registered and nothing changed."""

    def attempt(self, db: Database, file: Path | str, sqlstate: str, message: str, hint: str = ".") -> None:
        put(db, "kept", b"value")
        before = db.run(SEALED)
        with refused(sqlstate, message, hint=hint):
            mirror(db, file)
        assert db.run("select count(*) from omni_credentials.credentials_files") == [(0,)]
        assert db.run(SEALED) == before
        put(db, "goes on", b"value")

    def test_missing_folder(self, db: Database, folder: Path) -> None:
        self.attempt(db, folder / "none" / "file", "58030", "folder does not exist", "folder must exist")

    def test_directory(self, db: Database, folder: Path) -> None:
        self.attempt(db, folder, "58030", "is a directory")

    def test_pipe(self, db: Database, folder: Path) -> None:
        os.mkfifo(folder / "pipe")
        self.attempt(db, folder / "pipe", "58030", "not a regular file")

    def test_loop_of_links(self, db: Database, folder: Path) -> None:
        (folder / "loop").symlink_to("loop")
        self.attempt(db, folder / "loop", "58030", "too many symbolic links")

    def test_read_only_folder(self, db: Database, folder: Path) -> None:
        folder.chmod(0o500)
        self.attempt(db, folder / "file", "58030", "permission denied", "writable")
        assert leftovers(folder) == []

    def test_empty_name(self, db: Database) -> None:
        self.attempt(db, "", "22023", "file name", None)

    @pytest.mark.parametrize("granted", [[], ["pg_read_server_files"], ["pg_write_server_files"]])
    def test_without_rights(self, role, db: Database, folder: Path, granted: list[str]) -> None:
        app = role("app", f"in role {', '.join(granted)}" if granted else "")
        db.run("grant usage on schema omni_credentials to public")
        db.run("grant execute on function omni_credentials.instantiate_file_store to public")
        with refused("42501", "permission denied to use file store", hint="pg_write_server_files"):
            db.run("select * from omni_credentials.instantiate_file_store(%s)", str(folder / "file"), user=app)
        assert list(folder.iterdir()) == []

    def test_nothing_is_for_everybody(self, role, db: Database) -> None:
        app = role("app", "in role pg_read_server_files, pg_write_server_files")
        db.run("grant usage on schema omni_credentials to public")
        for call in (
            "omni_credentials.instantiate_file_store('x')",
            "omni_credentials.detach_file_store('x')",
            "omni_credentials.credential_file_store_reload('x')",
            "omni_credentials.credential_file_store_sync('x')",
            "omni_credentials.credential_file_stores",
            "omni_credentials.credentials_files",
        ):
            with refused("42501", "permission denied"):
                db.run(f"select * from {call}", user=app)


def test_a_folder_that_goes_read_only_stops_the_commit(db: Database, folder: Path) -> None:
    file = folder / "ours.credentials"
    put(db, "kept", b"value")
    mirror(db, file)
    before = file.read_bytes()
    folder.chmod(0o500)
    with refused("58030", "permission denied"):
        put(db, "new", b"value")
    assert db.run(READ) == [("kept", b"value")]
    folder.chmod(0o700)
    assert file.read_bytes() == before
    put(db, "new", b"value")
    assert live(file) == ["kept", "new"]


def test_a_read_only_file_is_replaced(db: Database, folder: Path) -> None:
    # As a rename does: the folder's rights count. Git itself leaves files writable.
    file = folder / "ours.credentials"
    put(db, "kept", b"value")
    mirror(db, file)
    file.chmod(0o400)
    put(db, "new", b"value")
    assert live(file) == ["kept", "new"]


def test_an_unreadable_file_is_left_alone(db: Database, folder: Path) -> None:
    file = folder / "ours.credentials"
    put(db, "kept", b"value")
    mirror(db, file)
    before = file.read_bytes()
    file.chmod(0)
    if os.geteuid() == 0 and db.server.account.popen == {}:
        pytest.skip("the server's user can read every file")
    with refused("58030", "permission denied"):
        put(db, "new", b"value")
    file.chmod(0o600)
    assert file.read_bytes() == before


@pytest.fixture
def tiny(db: Database) -> Iterator[Path]:
    """A file system of 128 KiB."""
    folder = db.server.folder / f"tiny-{db.name}"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k,mode=0777", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_fails_the_transaction(db: Database, tiny: Path) -> None:
    file = tiny / "ours.credentials"
    put(db, "kept", b"value")
    mirror(db, file)
    before = file.read_bytes()
    with refused("58030", "no space left"):
        put(db, "large", bytes(200_000))
    assert db.run(READ) == [("kept", b"value")]
    assert file.read_bytes() == before
    assert leftovers(tiny) == []
    put(db, "small", b"value")
    assert live(file) == ["kept", "small"]
    # Not even room for the lock file.
    subprocess.run(["dd", "if=/dev/zero", f"of={tiny / 'filler'}", "bs=4k"], capture_output=True, check=False)
    with refused("58030", "no space left"):
        put(db, "third", bytes(5000))
    (tiny / "filler").unlink()
    assert leftovers(tiny) == []
    put(db, "third", b"value")
    assert in_step(db)


def test_one_file_by_two_paths(db: Database) -> None:
    """A folder that is mounted twice: one file store, however it is named, and never one that waits for its own lock."""
    folder, other = (db.server.folder / f"{name}-{db.name}" for name in ("first", "second"))
    for made in (folder, other):
        made.mkdir()
        db.server.account.own(made)
    put(db, "a", b"1")
    mirror(db, folder / "ours")
    mirror(db, other / "ours")
    mounted = subprocess.run(["mount", "--bind", folder, other], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.strip()}")
    try:
        # What was registered before it was mounted is written once.
        put(db, "b", b"2")
        assert live(folder / "ours") == ["a", "b"] and db.run(STATUS) == [(str(folder / "ours"), True, None), (str(other / "ours"), True, None)]
        db.run("select omni_credentials.detach_file_store(%s)", str(other / "ours"))
        with refused("42710", "already registered"):
            mirror(db, other / "ours")
    finally:
        subprocess.run(["umount", "-l", other], check=True)
    assert leftovers(folder) == []


class TestFilesThatCannotBeReplaced:
    """Found out before the commit, with the reason."""

    def attempt(self, db: Database, file: Path, message: str) -> None:
        before = file.read_bytes()
        with refused("58030", message):
            put(db, "b", b"2")
        assert db.run("select name from omni_credentials.credentials") == [("a",)]
        assert file.read_bytes() == before and leftovers(file.parent) == []

    @pytest.fixture
    def file(self, db: Database) -> Path:
        file = db.server.folder / f"kept-{db.name}" / "ours"
        file.parent.mkdir()
        db.server.account.own(file.parent)
        put(db, "a", b"1")
        mirror(db, file)
        return file

    def test_sticky_folder(self, db: Database, file: Path) -> None:
        if os.geteuid() != 0 or not db.server.account.popen:
            pytest.skip("needs files of another account")
        os.chown(file.parent, 0, 0)
        file.parent.chmod(0o1777)
        put(db, "a", b"1")
        os.chown(file, 0, -1)
        file.chmod(0o644)
        self.attempt(db, file, "belongs to another account, and the sticky bit of its folder")
        file.parent.chmod(0o777)
        put(db, "b", b"2")
        assert live(file) == ["a", "b"]

    def test_immutable(self, db: Database, file: Path) -> None:
        made = subprocess.run(["chattr", "+i", file], capture_output=True, text=True)
        if made.returncode != 0:
            pytest.skip(f"no file can be made immutable here: {made.stderr.strip()}")
        try:
            self.attempt(db, file, "is immutable")
        finally:
            subprocess.run(["chattr", "-i", file], check=True)
        put(db, "b", b"2")
        assert live(file) == ["a", "b"]
