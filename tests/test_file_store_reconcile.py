"""What is a change and what is none: rotations, deletions and old files between a table and the file that mirrors it."""

from __future__ import annotations

from command import beside
from conftest import Database, refused
from file_stores import READ, deleted, generation, in_step, live, mirrored, outsider, put, remove

RELOAD = "select name, action from omni_credentials.credential_file_store_reload(%s)"
UPDATE = "update omni_credentials.credentials set value = %s where name = %s"


def values(db: Database) -> dict[str, bytes]:
    return dict(db.run(READ))


def test_rotation_by_the_command_and_an_edit_in_the_table(db: Database) -> None:
    """One side changed nothing: no conflict, and both have the edit under the new key."""
    file = mirrored(db, {"a": b"1", "b": b"2"})
    folder = beside(db)
    folder.run("rotate-key", "--file", str(file))
    db.server.account.own(file)
    db.run(UPDATE, b"3", "a")
    assert values(db) == {"a": b"3", "b": b"2"}
    db.run(RELOAD, str(file))
    assert values(db) == {"a": b"3", "b": b"2"} and in_step(db)


def test_rotation_in_the_table_and_an_edit_by_the_command(db: Database) -> None:
    file = mirrored(db, {"a": b"1", "b": b"2"})
    folder = beside(db)
    with db.connect() as session:
        session.autocommit = False
        session.execute("select omni_credentials.rotate_key()")
        folder.run("set", "--file", str(file), "a", stdin=b"3")
        db.server.account.own(file)
        session.commit()
    db.run(RELOAD, str(file))
    assert values(db) == {"a": b"3", "b": b"2"} and in_step(db)


def test_rotation_by_the_command_and_a_deletion_in_the_table(db: Database) -> None:
    file = mirrored(db, {"a": b"1", "b": b"2"})
    folder = beside(db)
    folder.run("rotate-key", "--file", str(file))
    db.server.account.own(file)
    remove(db, "a")
    assert (live(file), deleted(file)) == (["b"], ["a"])
    db.run(RELOAD, str(file))
    assert values(db) == {"b": b"2"} and in_step(db)


def test_deletion_by_the_command_and_rotation_in_the_table(db: Database) -> None:
    file = mirrored(db, {"a": b"1", "b": b"2"})
    folder = beside(db)
    folder.run("rm", "--file", str(file), "a")
    db.server.account.own(file)
    db.run("select omni_credentials.rotate_key()")
    db.run(RELOAD, str(file))
    assert values(db) == {"b": b"2"} and in_step(db)


def test_deletions_do_not_add_up(db: Database) -> None:
    """A credential that comes and goes in transactions of their own leaves a bounded file."""
    file = mirrored(db, {"kept": b"1"})
    for number in range(1100):
        put(db, f"n{number}", b"x")
        remove(db, f"n{number}")
    assert live(file) == ["kept"] and len(deleted(file)) <= 1000
    assert in_step(db)


def test_a_forgotten_deletion_is_a_conflict(db: Database) -> None:
    """The file lost a credential and the knowledge of its deletion: that is asked, not decided."""
    file = mirrored(db, {"a": b"1", "b": b"2"})
    folder = beside(db)
    folder.run("rm", "--file", str(file), "a")
    folder.run("compact", "--file", str(file))
    db.server.account.own(file)
    with refused("40002") as met:
        db.run(RELOAD, str(file))
    assert "no longer knows what was deleted" in str(met.error)
    assert values(db) == {"a": b"1", "b": b"2"}
    prefer = "select name, action from omni_credentials.credential_file_store_reload(%s, prefer => %s)"
    assert dict(db.run(prefer, str(file), "file")) == {"a": "removed"}
    assert values(db) == {"b": b"2"}


def test_an_older_file_deletes_nothing(db: Database) -> None:
    """Its tombstones are older than what the table has."""
    file = mirrored(db, {"a": b"1", "b": b"2"})
    remove(db, "a")
    before = file.read_bytes()
    put(db, "a", b"again")
    assert generation(file) > 0
    file.write_bytes(before)
    db.run(RELOAD, str(file))
    assert values(db)["a"] == b"again"


def test_a_rewrapped_file_is_not_wrapped_back(db: Database) -> None:
    """A file whose master secret was changed elsewhere is refused until the server has it, and stays as it is."""
    file = mirrored(db, {"a": b"1"})
    folder = beside(db)
    folder.run("rotate-master-secret", "--file", str(file), OMNI_CREDENTIALS_NEW_MASTER_PASSWORD="another one")
    db.server.account.own(file)
    changed = file.read_bytes()
    with refused("28P01"):
        db.run(UPDATE, b"2", "a")
    assert file.read_bytes() == changed


def test_the_keyring_of_the_table_is_preferred(db: Database) -> None:
    """Two keyrings that know nothing of each other: the session that chose the table's goes on with it."""
    file = db.server.data / f"{db.name}.credentials"
    with outsider(db.server, file) as other:
        put(other, "theirs", b"1")
    put(db, "ours", b"2")
    with db.connect() as session:
        session.execute(
            "select * from omni_credentials.instantiate_file_store(%s, 'omni_credentials', prefer => 'table')", (str(file),)
        )
        session.execute("select omni_credentials.set_credential('more', '3')")
        assert dict(session.execute(READ).fetchall()) == {"ours": b"2", "theirs": b"1", "more": b"3"}
        session.execute("select omni_credentials.rotate_key()")
    assert values(db) == {"ours": b"2", "theirs": b"1", "more": b"3"}
    assert in_step(db)
