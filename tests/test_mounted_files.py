"""Files that are mount points themselves: no other file can take their place, and every host says so before it writes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Folder
from conftest import Database, refused
from file_stores import leftovers, mirror, put
from omni_credentials import FileError, Store
from python_files import folder, store  # noqa: F401 # fixtures

MESSAGE = "is a mount point, which cannot be replaced: mount its folder instead"


def mounted(file: Path) -> Iterator[Path]:
    """The file, mounted over itself."""
    done = subprocess.run(["mount", "--bind", file, file], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"no file can be mounted here: {done.stderr.strip()}")
    yield file
    subprocess.run(["umount", "-l", file], check=True)


@pytest.fixture
def mount(folder: Folder, store: Store) -> Iterator[Path]:
    """A file with one credential, which is a mount point."""
    folder.set("a", "1")
    yield from mounted(folder.file)


def test_the_command(folder: Folder, mount: Path) -> None:
    before = mount.read_bytes()
    assert folder.get("a") == b"1", "a mounted file can be read"
    for arguments in (["set", "a"], ["rm", "a"], ["rotate-key"]):
        assert MESSAGE in folder.run(*arguments, stdin=b"2", status=4).err
    assert mount.read_bytes() == before and folder.leftovers() == []


def test_python(folder: Folder, store: Store, mount: Path) -> None:
    before = mount.read_bytes()
    store.reload()
    assert store["a"] == b"1"
    store["b"] = "2"
    with pytest.raises(FileError, match=MESSAGE) as caught:
        store.save()
    assert caught.value.fault == "mount-point"
    assert mount.read_bytes() == before and folder.leftovers() == []
    # Once it is no mount, what was not saved is.
    subprocess.run(["umount", mount], check=True)
    assert store.save() and folder.get("b") == b"2"
    subprocess.run(["mount", "--bind", mount, mount], check=True)


def test_postgres(db: Database) -> None:
    file = db.server.folder / f"mounted-{db.name}" / "ours.credentials"
    file.parent.mkdir()
    db.server.account.own(file.parent)
    put(db, "a", b"1")
    mirror(db, file)
    before = file.read_bytes()
    for _ in mounted(file):
        with refused("58030", MESSAGE):
            put(db, "b", b"2")
    assert file.read_bytes() == before and leftovers(file.parent) == []
    put(db, "b", b"2")
    assert file.read_bytes() != before
