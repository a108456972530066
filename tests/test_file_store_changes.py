"""What a session remembers of the file that it wrote last, and what is agreed on as changes: as if it did neither."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from conftest import VARIABLE, Database, refused
from file_stores import INSERT, READ, STATUS, contents, edit, in_step, live, mirrored

UPDATE = "update omni_credentials.credentials set value = %b where name = %s"
DELETE = "delete from omni_credentials.credentials where name = %s"
RELOAD = "select action from omni_credentials.credential_file_store_reload(%s)"
KNOWN = (
    "select octet_length(base), coalesce(octet_length(base_changes), 0), octet_length(pending_base),"
    " octet_length(pending_changes) from omni_credentials.credentials_files"
)
# As in host-pg/src/file_store/agreed.rs.
MAX_CHANGES = 6 * 1024


@pytest.fixture
def file(db: Database) -> Path:
    return mirrored(db, {f"n{number}": b"first" for number in range(30)})


def notes(db: Database) -> Path:
    return db.server.data / "pgsql_tmp_omni_credentials_files"


def check(db: Database, file: Path) -> None:
    """File and table hold the same, as sees who remembers nothing."""
    assert in_step(db), db.run(STATUS)
    held = {name: bytes(value) for name, value in db.run("select name, value from omni_credentials.credentials")}
    assert contents(db.server, file) == held


def warm(session: psycopg.Connection) -> None:
    """The session parses the file at its first commit, and goes on from there."""
    for value in (b"one", b"two"):
        session.execute(UPDATE, (value, "n1"))


Between = Callable[[Database, psycopg.Connection, Path], None]


def another_session(db: Database, _: psycopg.Connection, __: Path) -> None:
    db.run(UPDATE, b"theirs", "n2")
    db.run(INSERT, "new", b"theirs")
    db.run(DELETE, "n3")


def an_edit_of_the_file(db: Database, session: psycopg.Connection, file: Path) -> None:
    edit(db.server, file, n2=b"edited", n4=None, added=b"edited")
    session.execute(UPDATE, (b"beside the edit", "n5"))
    assert {name for (name,) in session.execute(RELOAD, (str(file),))} == {"added", "changed", "removed"}


def an_older_file(db: Database, session: psycopg.Connection, file: Path) -> None:
    before = file.read_bytes()
    session.execute(UPDATE, (b"newer", "n2"))
    file.write_bytes(before)
    session.execute(UPDATE, (b"beside the older file", "n5"))
    assert session.execute(RELOAD, (str(file),)).fetchall() == [("changed",)]


def no_file(_: Database, __: psycopg.Connection, file: Path) -> None:
    file.unlink()


def one_byte(_: Database, __: psycopg.Connection, file: Path) -> None:
    bytes_ = bytearray(file.read_bytes())
    at = bytes_.rindex(b"\nend\n") - 3
    bytes_[at] ^= 1
    kept = file.stat()
    with file.open("r+b") as opened:
        opened.write(bytes_)
    assert file.stat().st_ino == kept.st_ino and file.stat().st_size == kept.st_size


def a_rollback(_: Database, session: psycopg.Connection, __: Path) -> None:
    with session.transaction(force_rollback=True):
        session.execute(UPDATE, (b"rolled back", "n2"))
        session.execute(DELETE, ("n3",))


def a_commit_that_fails(db: Database, session: psycopg.Connection, _: Path) -> None:
    db.run("create table other (n int unique deferrable initially deferred)")
    with refused("23505"), session.transaction():
        session.execute(UPDATE, (b"failed", "n2"))
        session.execute("insert into other values (1), (1)")


def savepoints(_: Database, session: psycopg.Connection, __: Path) -> None:
    with session.transaction():
        session.execute(UPDATE, (b"kept", "n2"))
        with session.transaction(force_rollback=True):
            session.execute(DELETE, ("n2",))
            session.execute(INSERT, ("gone", b"x"))
        session.execute(INSERT, ("stays", b"x"))


def the_same_row_again(_: Database, session: psycopg.Connection, __: Path) -> None:
    with session.transaction():
        session.execute(DELETE, ("n2",))
        session.execute(INSERT, ("n2", b"again"))
    session.execute("update omni_credentials.encrypted_credentials set value = value where name = 'n3'")


def a_replica_session(_: Database, session: psycopg.Connection, __: Path) -> None:
    """Ordinary triggers do not fire."""
    session.execute("set session_replication_role = replica")
    session.execute("delete from omni_credentials.encrypted_credentials where name = 'n2'")
    session.execute("reset session_replication_role")


def other_storage(*commands: str) -> Between:
    def between(_: Database, session: psycopg.Connection, __: Path) -> None:
        for command in commands:
            session.execute(f"{command} omni_credentials.encrypted_credentials")

    return between


def a_rotation(_: Database, session: psycopg.Connection, __: Path) -> None:
    session.execute("select omni_credentials.rotate_key('omni_credentials')")


def everything(_: Database, session: psycopg.Connection, __: Path) -> None:
    session.execute("update omni_credentials.credentials set value = 'all'")


BETWEEN: dict[str, Between] = {
    "another session": another_session,
    "an edit of the file": an_edit_of_the_file,
    "an older file": an_older_file,
    "no file": no_file,
    "a rollback": a_rollback,
    "a commit that fails": a_commit_that_fails,
    "savepoints": savepoints,
    "the same row again": the_same_row_again,
    "a replica session": a_replica_session,
    "vacuum full": other_storage("vacuum full"),
    "vacuum": other_storage("vacuum (freeze)"),
    "truncate": other_storage("truncate"),
    "a rotation": a_rotation,
    "everything": everything,
}


@pytest.mark.parametrize("between", BETWEEN.values(), ids=BETWEEN)
def test_a_session_that_goes_on(db: Database, file: Path, between: Between) -> None:
    with db.connect() as session:
        warm(session)
        for number in range(3):
            if number == 1:
                between(db, session, file)
            session.execute(INSERT, (f"after {number}", b"x"))
            session.execute(UPDATE, (b"after", "n7"))
            session.execute(DELETE, (f"n{number + 10}",))
            check(db, file)


def test_a_changed_byte_is_seen(db: Database, file: Path) -> None:
    with db.connect() as session:
        warm(session)
        before = db.run(READ)
        one_byte(db, session, file)
        with refused("22P04|XX001"):
            session.execute(UPDATE, (b"after", "n7"))
        assert db.run(READ) == before


def test_a_role_with_another_name(db: Database, file: Path) -> None:
    """No row changes, and yet each record of the role does."""
    before, after = f"{db.name}_before", f"{db.name}_after"
    with db.connect() as session:
        session.execute(f"create role {before}")
        try:
            session.execute(
                "insert into omni_credentials.credentials (name, value, principal)"
                f" values ('owned', 'x', '{before}'::regrole)"
            )
            warm(session)
            assert f'principal "{before}"' in file.read_text()
            db.run(f"alter role {before} rename to {after}")
            session.execute(UPDATE, (b"after", "n7"))
            assert f'principal "{after}"' in file.read_text()
        finally:
            session.execute("set omni_credentials.on_unreadable = 'null'")
            session.execute("delete from omni_credentials.credentials where name = 'owned'")
            session.execute(f"drop role if exists {before}, {after}")


def test_sessions_in_turns(db: Database, file: Path) -> None:
    with db.connect() as one, db.connect() as two:
        for number in range(6):
            for session in (one, two):
                session.execute(INSERT, (f"{number} {session is one}", b"x"))
                session.execute(DELETE, (f"n{2 * number + (session is one)}",))
            check(db, file)


def test_changes_are_folded(db: Database, file: Path) -> None:
    """Until then the manifest is not written again."""
    seen = []
    with db.connect() as session:
        warm(session)
        for number in range(200):
            session.execute(UPDATE, (b"%d" % number, f"n{number % 30}"))
            seen += session.execute(KNOWN).fetchall()
            if number % 40 == 0:
                check(db, file)
        check(db, file)
    assert all(pending_base is None and pending for _, _, pending_base, pending in seen)
    assert all(changes <= MAX_CHANGES for _, changes, _, _ in seen)
    lengths = [changes for _, changes, _, _ in seen]
    folds = [at for at, (before, after) in enumerate(itertools.pairwise(lengths)) if after < before]
    assert len(folds) == 2 and lengths[folds[0]] > MAX_CHANGES - 100
    assert len({base for base, _, _, _ in seen}) == 1


def test_a_crash_at_any_number_of_changes(db: Database, file: Path) -> None:
    """The commit before the file came into place, the note of it lost, and the file edited by another writer."""
    crashes = {*range(0, 200, 37), *range(84, 92)}
    with db.connect() as session:
        warm(session)
        for number in range(200):
            before = file.read_bytes()
            session.execute(UPDATE, (b"%d" % number, f"n{number % 10}"))
            if number not in crashes:
                continue
            shutil.rmtree(notes(db))
            if number % 2:
                # The new file was in place.
                edit(db.server, file, n20=b"edited %d" % number)
            else:
                file.write_bytes(before)
                edit(db.server, file, n20=b"edited %d" % number)
            db.run(RELOAD, str(file))
            check(db, file)
            held = dict(db.run("select name, value from omni_credentials.credentials"))
            assert bytes(held[f"n{number % 10}"]) == b"%d" % number
            assert bytes(held["n20"]) == b"edited %d" % number


def test_many_changes_are_a_manifest(db: Database, file: Path) -> None:
    many = "insert into omni_credentials.credentials (name, value) select 'm' || n, 'x' from generate_series(1, 500) n"
    with db.connect() as session:
        warm(session)
        session.execute(many)
        ((_, _, pending_base, pending_changes),) = session.execute(KNOWN)
        assert pending_base > 500 * 32 and pending_changes is None
        session.execute(UPDATE, (b"after", "m7"))
        ((base, changes, pending_base, pending_changes),) = session.execute(KNOWN)
        assert (base > 500 * 32, changes, pending_base) == (True, 0, None) and pending_changes < 100
        check(db, file)


def test_wal_grows_with_the_change(db: Database, file: Path) -> None:
    many = "insert into omni_credentials.credentials (name, value) select 'm' || n, 'x' from generate_series(1, 3000) n"
    here = "select pg_current_wal_insert_lsn()"
    with db.connect() as session:
        session.execute(many)
        warm(session)
        wal = []
        for number in range(20):
            ((before,),) = session.execute(here)
            session.execute(UPDATE, (b"x", f"m{number + 1}"))
            ((after,),) = session.execute(f"select pg_wal_lsn_diff(({here}), %s)", (before,))
            wal.append(after)
        check(db, file)
    # Others write too, and whole pages follow a checkpoint.
    assert sorted(wal)[10] <= 10 * 1024


def test_a_table_without_changes(db: Database, file: Path) -> None:
    """An earlier version made `credentials_files`: the manifest is written whole."""
    db.run("select omni_credentials.detach_file_store(%s)", str(file))
    file.unlink()
    db.run("create schema earlier")
    db.run(f"select omni_credentials.instantiate('earlier', '{VARIABLE}')")
    db.run("alter table earlier.credentials_files rename to later")
    db.run(
        'create table earlier.credentials_files (filename text collate "C" primary key, generation bigint,'
        " synchronized_at timestamptz, unloaded integer not null default 0, file_digest bytea,"
        " base bytea not null default '', pending_digest bytea, pending_base bytea, written_as bigint)"
    )
    with db.connect() as session:
        session.execute("select earlier.set_credential('a', 'x')")
        session.execute("select * from omni_credentials.instantiate_file_store(%s, 'earlier')", (str(file),))
        for number in range(4):
            session.execute("select earlier.set_credential('a', %s)", (str(number),))
            session.execute("select earlier.set_credential(%s, 'x')", (f"n{number}",))
            ((pending,),) = session.execute("select octet_length(pending_base) from earlier.credentials_files")
            assert pending == 29 + 32 * (number + 2)
    assert contents(db.server, file)["a"] == b"3"
    assert live(file) == ["a", "n0", "n1", "n2", "n3"]
