"""What credential_file_stores says of a file: in step or not, whatever changed the table and whoever looks."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import VARIABLE, Database, fresh_database
from file_stores import INSERT, READ, SEALED, STATUS, contents, deleted, in_threads, live, mirror, mirrored, put

TABLE = "omni_credentials.encrypted_credentials"


@pytest.fixture
def file(db: Database) -> Path:
    """A file store of the default copy, with credentials a and b in it."""
    return mirrored(db, dict.fromkeys("ab", b"old"))


def status(db: Database) -> tuple[bool, str | None]:
    ((_, step, reason),) = db.run(STATUS)
    return step, reason


def mended(db: Database) -> None:
    """Runs what the reason says, and looks whether file and table are in step then."""
    step, reason = status(db)
    assert step is False
    db.run(reason.rpartition("to write it: ")[2])
    assert status(db) == (True, None)


# As a subscriber of logical replication applies changes, and with triggers that somebody switched off.
SILENT = {
    "replica": "set session_replication_role = replica",
    "triggers disabled": f"alter table {TABLE} disable trigger all",
}
CHANGES = {
    "insert": f"insert into {TABLE} select 'c', value, kind, principal, scope from {TABLE} where name = 'a'",
    "update": f"update {TABLE} set name = 'c' where name = 'a'",
    "value": f"update {TABLE} t set value = (select value from {TABLE} where name = 'b') where name = 'a'",
    "delete": f"delete from {TABLE} where name = 'a'",
    "truncate": f"truncate {TABLE}",
}


@pytest.mark.parametrize("silence", SILENT.values(), ids=SILENT)
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_no_trigger_fired(db: Database, file: Path, silence: str, change: str) -> None:
    before = file.read_bytes()
    with db.connect() as session:
        session.execute(silence)
        session.execute(change)
    assert file.read_bytes() == before
    step, reason = status(db)
    assert step is False
    assert reason.startswith("the table was changed and the file was not; to write it: select omni_credentials.")
    mended(db)
    assert live(file) == [name for name, *_ in db.run(SEALED)]
    # What went away left its tombstone.
    assert set("ab") <= {*live(file), *deleted(file)}


def test_a_role_was_renamed(role, db: Database, file: Path) -> None:
    app = role("app")
    db.run(f"insert into omni_credentials.credentials (name, value, principal) values ('c', 'x', '{app}')")
    assert status(db) == (True, None)
    db.run(f"alter role {app} rename to {app}_renamed")
    try:
        step, reason = status(db)
        assert step is False and "the table was changed" in reason
    finally:
        db.run(f"alter role {app}_renamed rename to {app}")
    assert status(db) == (True, None)


def test_a_role_was_dropped(role, db: Database, file: Path) -> None:
    """Its row cannot become a record; the file keeps the one that it has."""
    app, gone = role("app"), f"{db.name}_gone"
    db.run(f"create role {gone}")
    db.run(f"insert into omni_credentials.credentials (name, value, principal) values ('c', 'x', '{gone}')")
    db.run(f"drop role {gone}")
    for _ in range(2):
        step, reason = status(db)
        assert step is False and "roles that no longer exist" in reason and "rename_principal" in reason
        # A synchronisation changes nothing about it.
        before = file.read_bytes()
        db.run("select omni_credentials.credential_file_store_sync(%s)", str(file))
        assert file.read_bytes() == before
    db.run(f"select omni_credentials.rename_principal('{gone}', '{app}')")
    assert status(db) == (True, None)
    assert (live(file), deleted(file)) == (["a", "b", "c"], ["c"])


def test_another_keyring(db: Database, file: Path) -> None:
    """As replication brings it after rotate_master_secret elsewhere: no row is touched."""
    with db.connect(autocommit=False) as session:
        session.execute(f"select omni_credentials.rotate_master_secret('{VARIABLE}')")
        ((keyring,),) = session.execute("select keyring from omni_credentials.credentials_keyrings").fetchall()
        session.rollback()
    session = db.connect()
    assert session.execute(STATUS).fetchone()[1]
    with db.connect() as other:
        other.execute(SILENT["replica"])
        other.execute("update omni_credentials.credentials_keyrings set keyring = %b", (keyring,))
    # In a session that was told nothing.
    ((_, step, reason),) = session.execute(STATUS).fetchall()
    assert step is False and reason.startswith("the file has another keyring than the table; to write it: ")
    before = file.read_bytes()
    mended(db)
    assert file.read_bytes() != before
    assert contents(db.server, file) == dict(db.run(READ))


def test_inside_the_transaction_that_writes(db: Database, file: Path) -> None:
    with db.connect(autocommit=False) as session:
        session.execute(INSERT, ("c", b"new"))
        ((_, step, reason),) = session.execute(STATUS).fetchall()
        assert step is False and "the commit of this transaction writes it" in reason
        # For the others nothing has happened.
        assert status(db) == (True, None)
        session.execute("delete from omni_credentials.credentials where name = 'c'")
        assert session.execute(STATUS).fetchone()[1:] == (True, None)
        session.execute(INSERT, ("d", b"new"))
    assert status(db) == (True, None)
    assert live(file) == ["a", "b", "d"]


def test_rows_without_a_keyring(db: Database) -> None:
    """As replication may bring them before the keyring: there is no file, but there should be."""
    put(db, "a", b"x")
    ((keyring, module),) = db.run("select keyring, module from omni_credentials.credentials_keyrings")
    ((sealed,),) = db.run(f"select value from {TABLE}")
    file = db.server.data / f"{db.name}.credentials"
    db.run("delete from omni_credentials.encrypted_credentials")
    mirror(db, file)
    db.run("select omni_credentials.purge_history(everything => true)")
    db.run("delete from omni_credentials.credentials_keyrings")
    file.unlink()
    assert "missing" in status(db)[1]
    with db.connect() as session:
        session.execute(SILENT["replica"])
        session.execute(f"insert into {TABLE} (name, value) values ('a', %b)", (sealed,))
    step, reason = status(db)
    assert step is False and "no keyring" in reason
    db.run("insert into omni_credentials.credentials_keyrings values (1, %b, %b)", module, keyring)
    assert "missing" in status(db)[1]
    mended(db)


def test_needs_no_key(own_server) -> None:
    db = fresh_database(own_server)
    file = own_server.data / "team.credentials"
    put(db, "a", b"x")
    mirror(db, file)
    db.close()
    own_server.restart({})
    assert status(db) == (True, None)
    with db.connect() as session:
        session.execute(SILENT["replica"])
        session.execute(f"delete from {TABLE}")
    assert "the table was changed" in status(db)[1]
    db.close()


def test_between_commit_and_rename(db: Database, file: Path) -> None:
    """Whoever looks then is told of a commit on its way, or of a crash where nobody is at it."""
    before = file.read_bytes()
    put(db, "c", b"new")
    file.write_bytes(before)
    shutil.rmtree(db.server.data / "pgsql_tmp_omni_credentials_files")
    lock = file.with_name(file.name + ".lock")
    lock.write_text("omni-credentials lock 1\npid 1\nstart 1\nboot b\nnamespace n\nmachine m\nhost elsewhere\n")
    step, reason = status(db)
    assert step is False and reason == "a writer that holds the lock has not put the last commit into the file yet"
    lock.unlink()
    step, reason = status(db)
    assert step is False and reason.startswith("a crash or an error kept the last commit from reaching the file; to write it: ")
    mended(db)
    assert live(file) == ["a", "b", "c"]


@pytest.mark.parametrize("command", ["vacuum (freeze)", "vacuum (full)", "cluster"])
def test_housekeeping(db: Database, file: Path, command: str) -> None:
    """Whatever rewrites or freezes the registry leaves it what it was."""
    index = " using credentials_files_pkey" if command == "cluster" else ""
    db.run(f"{command} omni_credentials.credentials_files{index}")
    assert status(db) == (True, None)
    put(db, "c", b"x")
    assert live(file) == ["a", "b", "c"]


def test_while_others_commit(db: Database, file: Path) -> None:
    """Nobody but these sessions touches file and table: no look may find otherwise."""
    said, done = set(), []

    def writer() -> None:
        with db.connect() as session:
            for n in range(60):
                session.execute(INSERT, (f"n{n}", b"x"))
        done.append(True)

    def watcher() -> None:
        with db.connect() as session:
            while not done:
                said.update(session.execute(STATUS).fetchall())

    in_threads(writer, watcher, watcher)
    assert {reason for _, step, reason in said if not step} <= {
        "a writer that holds the lock has not put the last commit into the file yet"
    }
    assert {name for name, *_ in said} == {str(file)}
