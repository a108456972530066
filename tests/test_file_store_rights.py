"""File stores and roles: who may set one up, and that whoever may write credentials need know nothing of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Database, refused
from file_stores import SEALED, STATUS, contents, deleted, edit, generation, live, mirrored, put

VIEW = "omni_credentials.credentials"
FILE_ROLES = "in role pg_read_server_files, pg_write_server_files"


@pytest.fixture
def db(role, db: Database) -> Database:
    # After the roles, so that the database goes first.
    return db


@pytest.fixture
def file(db: Database) -> Path:
    """A file store of the default copy, with a credential of the superuser in it."""
    return mirrored(db, {"theirs": b"kept"})


def test_whoever_writes_is_mirrored(app: str, db: Database, file: Path) -> None:
    """The file has the whole table, whatever the writer sees of it."""
    db.run(f"insert into {VIEW} (name, value) values ('a', '1'), ('b', '2')", user=app)
    assert live(file) == ["a", "b", "theirs"]
    db.run(f"update {VIEW} set value = '3' where name = 'a'", user=app)
    db.run(f"delete from {VIEW} where name = 'b'", user=app)
    db.run("grant truncate on omni_credentials.encrypted_credentials to " + app)
    assert (live(file), deleted(file)) == (["a", "theirs"], ["b"])
    assert db.run(STATUS) == [(str(file), True, None)]
    with db.connect(app, autocommit=False) as session:
        session.execute("truncate omni_credentials.encrypted_credentials")
        session.rollback()
    assert live(file) == ["a", "theirs"]
    db.run("revoke truncate on omni_credentials.encrypted_credentials from " + app)


def test_a_conflict_does_not_show_values(app: str, db: Database, file: Path) -> None:
    db.run(f"insert into {VIEW} (name, value) values ('a', 'table')", user=app)
    before = db.run("select value from omni_credentials.encrypted_credentials where name = 'theirs'")
    edit(db.server, file, theirs=b"secret-of-the-file")
    with db.connect() as session, refused("40002", "theirs") as met:
        session.execute(f"update {VIEW} set value = 'secret-of-the-table' where name = 'theirs'")
    said = " ".join(filter(None, (met.error.diag.message_primary, met.error.diag.message_detail, met.error.diag.message_hint,
                                  met.error.diag.context)))
    assert "secret" not in said
    assert db.run("select value from omni_credentials.encrypted_credentials where name = 'theirs'") == before
    # It is the conflict of that credential alone; who changes another one goes on.
    db.run(f"update {VIEW} set value = 'other' where name = 'a'", user=app)


def test_the_owner_of_a_copy(role, db: Database) -> None:
    """A role that is no superuser, with its own copy and both roles for files, does all of it."""
    owner = role("owner", FILE_ROLES)
    db.run(f"create schema mine authorization {owner}")
    db.run(f"grant usage on schema omni_credentials to {owner}")
    for function in (
        "instantiate", "instance_template", "open_credential", "seal_credential", "credentials_write",
        "encrypted_credentials_check", "encrypted_credentials_keep", "encrypted_credential_versions_check",
        "encrypted_credentials_changed", "credentials_store_changed", "replace_config",
        "instantiate_file_store", "detach_file_store", "file_store_reload", "file_store_status", "file_store_sync",
    ):
        db.run(f"grant execute on function omni_credentials.{function} to {owner}")
    db.allow(owner)
    file = db.server.data / f"{db.name}.mine"
    with db.connect(owner) as session:
        session.execute("select omni_credentials.instantiate('mine')")
        session.execute("insert into mine.credentials (name, value) values ('a', '1')")
        session.execute("select * from omni_credentials.instantiate_file_store(%s, 'mine')", (str(file),))
        assert contents(db.server, file) == {"a": b"1"}
        session.execute("select * from mine.credential_file_store_reload(%s)", (str(file),))
        session.execute("select mine.credential_file_store_sync(%s)", (str(file),))
        status = "select filename, in_step, reason from mine.credential_file_stores"
        assert session.execute(status).fetchall() == [(str(file), True, None)]
        session.execute("select omni_credentials.detach_file_store(%s, 'mine')", (str(file),))
        assert session.execute(status).fetchall() == []


def test_an_import_is_with_the_callers_rights(role, app: str, db: Database, file: Path) -> None:
    """What the caller may not write is refused as a whole, and table and file are as they were."""
    importer = role("importer", FILE_ROLES)
    db.grant(importer)
    for function in ("credential_file_store_reload", "file_store_reload"):
        db.run(f"grant execute on function omni_credentials.{function} to {importer}")
    edit(db.server, file, new=b"for the superuser")
    before = db.run(SEALED), file.read_bytes()
    with refused("42501", "row-level security"):
        db.run("select * from omni_credentials.credential_file_store_reload(%s)", str(file), user=importer)
    assert (db.run(SEALED), file.read_bytes()) == before


class TestStatus:
    def test_without_the_right_to_read_files(self, app: str, db: Database, file: Path) -> None:
        db.run(f"grant select on omni_credentials.credential_file_stores to {app}")
        db.run(f"grant execute on function omni_credentials.file_store_status to {app}")
        ((filename, in_step, reason),) = db.run(STATUS, user=app)
        assert (filename, in_step) == (str(file), None)
        assert reason == f"permission denied to use file store {file}"

    def test_generation_and_time(self, db: Database, file: Path) -> None:
        looks = []
        for name in ("a", "b"):
            put(db, name, b"x")
            looks += db.run("select generation, synchronized_at, now() from omni_credentials.credential_file_stores")
            assert looks[-1][0] == generation(file)
        (first, then, _), (second, later, now) = looks
        assert first < second and then < later <= now
        # To look, and to write what is in step already, is not to synchronise anew.
        db.run("select omni_credentials.credential_file_store_sync(%s)", str(file))
        assert db.run("select generation from omni_credentials.credential_file_stores") == [(second,)]
