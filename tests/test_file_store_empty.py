"""A file store of an instance that has no credentials yet: the file is there from the first minute."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Database, drop_database, fresh_database, new_server, refused
from file_stores import RELOAD, STATUS, live, mirror, put


@pytest.fixture
def file(db: Database) -> Path:
    return db.server.data / f"{db.name}.credentials"


def test_a_file_without_records(db: Database, file: Path) -> None:
    assert mirror(db, file) == []
    assert live(file) == [] and "keyring" in file.read_text()
    assert db.run(STATUS) == [(str(file), True, None)]
    assert db.run(RELOAD, str(file)) == []
    before = file.read_bytes()
    put(db, "n", b"v")
    assert live(file) == ["n"] and file.read_bytes() != before
    assert db.run("select count(*) from omni_credentials.credentials_keyrings") == [(1,)]


def test_another_server_takes_the_keyring(db: Database, file: Path) -> None:
    """The file is shared before it has a credential: both write with one keyring."""
    mirror(db, file)
    other = fresh_database(db.server)
    try:
        mirror(other, file)
        put(db, "a", b"1")
        assert other.run(RELOAD, str(file)) == [("a", "added")]
        put(other, "b", b"2")
        assert live(file) == ["a", "b"]
        keyrings = "select keyring from omni_credentials.credentials_keyrings"
        assert db.run(keyrings) == other.run(keyrings)
    finally:
        drop_database(other)


def test_a_file_that_is_missing_is_told_and_written(db: Database, file: Path) -> None:
    mirror(db, file)
    file.unlink()
    ((_, in_step, reason),) = db.run(STATUS)
    assert not in_step and "the file is missing" in reason
    db.run("select omni_credentials.credential_file_store_sync(%s)", str(file))
    assert live(file) == [] and db.run(STATUS) == [(str(file), True, None)]


def test_without_the_secret_nothing_is_registered() -> None:
    server = new_server("nosecret")
    try:
        server.start({})
        db = fresh_database(server)
        with refused("F0000", "master secret is missing"):
            mirror(db, "team.credentials")
        assert db.run(STATUS) == []
    finally:
        server.remove()
