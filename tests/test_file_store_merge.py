"""File and table both change: what stays, what conflicts, and who decides."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from conftest import MASTER_KEY, VARIABLE, Database, drop_database, fresh_database, new_server, refused
from file_stores import (
    READ,
    RELOAD,
    SEALED,
    STATUS,
    contents,
    deleted,
    edit,
    generation,
    in_step,
    leftovers,
    live,
    mirror,
    mirrored,
    outsider,
    put,
    remove,
)


@pytest.fixture
def file(db: Database) -> Path:
    """A file store of the default copy, with credentials a, b and c in it."""
    return mirrored(db, dict.fromkeys("abc", b"old"))


def reload(db: Database, file: Path, options: str = "") -> list[tuple]:
    return db.run(
        f"select name, action from omni_credentials.credential_file_store_reload(%s{options}) order by name", str(file)
    )


def values(db: Database) -> dict[str, bytes]:
    return dict(db.run(READ))


def status(db: Database) -> tuple[bool, str | None]:
    ((_, step, reason),) = db.run(STATUS)
    return step, reason


class TestOutsideEdits:
    def test_survive_an_export(self, db: Database, file: Path) -> None:
        edit(db.server, file, a=b"new", b=None, d=b"new")
        put(db, "c", b"mine")
        assert contents(db.server, file) == {"a": b"new", "c": b"mine", "d": b"new"}
        assert deleted(file) == ["b"]
        # They are in the file, and the table says that it lacks them.
        assert values(db) == {"a": b"old", "b": b"old", "c": b"mine"}
        step, reason = status(db)
        assert not step and "3 changes" in reason and "credential_file_store_reload" in reason
        assert reload(db, file) == [("a", "changed"), ("b", "removed"), ("d", "added")]
        assert values(db) == {"a": b"new", "c": b"mine", "d": b"new"}
        assert status(db) == (True, None)

    def test_are_reloaded_at_once(self, db: Database, file: Path) -> None:
        edit(db.server, file, a=b"new", b=None, d=b"new")
        assert status(db)[0] is False
        assert "another writer" in status(db)[1]
        assert reload(db, file) == [("a", "changed"), ("b", "removed"), ("d", "added")]
        assert values(db) == contents(db.server, file) == {"a": b"new", "c": b"old", "d": b"new"}
        assert reload(db, file) == []

    def test_of_what_the_last_commit_wrote(self, db: Database, file: Path) -> None:
        # Nothing has told the table yet that its last file came into place.
        put(db, "a", b"mine")
        put(db, "d", b"mine")
        edit(db.server, file, a=b"theirs", d=None)
        assert reload(db, file) == [("a", "changed"), ("d", "removed")]
        assert values(db) == {"a": b"theirs", "b": b"old", "c": b"old"}

    def test_of_a_credential_that_the_last_commit_deleted(self, db: Database, file: Path) -> None:
        remove(db, "a")
        edit(db.server, file, a=b"theirs")
        assert reload(db, file) == [("a", "added")]

    def test_the_same_without_the_note(self, db: Database, file: Path) -> None:
        # What the note is for is known from the records that were not edited, too.
        put(db, "a", b"mine")
        edit(db.server, file, b=b"theirs")
        shutil.rmtree(db.server.data / "pgsql_tmp_omni_credentials_files")
        put(db, "c", b"mine")
        edit(db.server, file, b=b"again", c=b"theirs", d=b"theirs")
        assert reload(db, file) == [("b", "changed"), ("c", "changed"), ("d", "added")]
        assert values(db) == {"a": b"mine", "b": b"again", "c": b"theirs", "d": b"theirs"}

    def test_tombstones_stay(self, db: Database, file: Path) -> None:
        remove(db, "a")
        put(db, "b", b"1")
        put(db, "b", b"2")
        assert (live(file), deleted(file)) == (["b", "c"], ["a"])
        put(db, "a", b"again")
        assert (live(file), deleted(file)) == (["a", "b", "c"], [])

    def test_equal_values_do_not_conflict(self, db: Database, file: Path) -> None:
        with outsider(db.server, file) as other:
            before = file.read_bytes()
            put(db, "a", b"same")
            mine = file.read_bytes()
            file.write_bytes(before)
            put(other, "a", b"same")
            assert file.read_bytes() != mine
        assert reload(db, file) in ([], [("a", "changed")])
        assert values(db)["a"] == b"same"
        assert in_step(db)

    def test_a_missing_file_is_written_again(self, db: Database, file: Path) -> None:
        file.unlink()
        assert "missing" in status(db)[1]
        db.run("select omni_credentials.credential_file_store_sync(%s)", str(file))
        assert contents(db.server, file) == values(db)
        assert status(db) == (True, None)


def test_records_for_roles_that_are_not_here(db: Database) -> None:
    file = db.server.folder / f"roles-{db.name}.credentials"
    twin = new_server("roles").start({VARIABLE: MASTER_KEY})
    try:
        other = fresh_database(twin)
        other.run("create role only_there")
        other.run("insert into omni_credentials.credentials (name, value, principal) values ('far', 'x', 'only_there')")
        put(other, "near", b"x")
        shared = twin.data / "shared.credentials"
        mirror(other, shared)
        shutil.copy(shared, file)
        db.server.account.own(file)
        other.close()
    finally:
        twin.remove()
    listed = db.run("select name, action, reason from omni_credentials.instantiate_file_store(%s) order by 1", str(file))
    assert listed == [("far", "skipped", 'role "only_there" does not exist here'), ("near", "added", None)]
    put(db, "near", b"y")
    remove(db, "near")
    assert (live(file), deleted(file)) == (["far"], ["near"])
    assert "1 changes" in status(db)[1]
    assert [row[:2] for row in reload(db, file)] == [("far", "skipped")]
    file.unlink()


class TestConflict:
    @pytest.fixture(autouse=True)
    def both_changed(self, db: Database, file: Path) -> None:
        """a, b and c changed here and outside; the file on disk is the outsider's."""
        with outsider(db.server, file) as other:
            before = file.read_bytes()
            put(other, "a", b"theirs")
            remove(other, "b")
            put(other, "c", b"theirs")
            put(other, "d", b"theirs")
            theirs = file.read_bytes()
            file.write_bytes(before)
        with db.connect(autocommit=False) as session:
            session.execute("update omni_credentials.credentials set value = 'mine' where name in ('a', 'b')")
            session.execute("delete from omni_credentials.credentials where name = 'c'")
            file.write_bytes(theirs)
            with refused("40002", '"a".*"b".*"c"', hint="prefer => 'file'.*prefer => 'table'"):
                session.commit()
        # Refused before anything was overwritten.
        assert file.read_bytes() == theirs
        assert values(db) == {"a": b"old", "b": b"old", "c": b"old"}
        # A commit whose file did not come into place, as after a crash, before somebody edited the old one.
        file.write_bytes(before)
        with db.connect(autocommit=False) as session:
            session.execute("update omni_credentials.credentials set value = 'mine' where name in ('a', 'b')")
            session.execute("delete from omni_credentials.credentials where name = 'c'")
        shutil.rmtree(db.server.data / "pgsql_tmp_omni_credentials_files")
        file.write_bytes(theirs)
        self.theirs, self.file, self.db = theirs, file, db

    def test_blocks_reload_and_commit(self) -> None:
        before = self.db.run(SEALED)
        with refused("40002", '"a".*"b".*"c"', hint="prefer"):
            reload(self.db, self.file)
        with refused("40002", '"a".*"b".*"c"', hint="prefer"):
            put(self.db, "e", b"x")
        assert self.db.run(SEALED) == before
        assert self.file.read_bytes() == self.theirs

    def test_prefer_file(self) -> None:
        dry = reload(self.db, self.file, ", prefer => 'file', dry_run => true")
        assert values(self.db) == {"a": b"mine", "b": b"mine"}
        done = reload(self.db, self.file, ", prefer => 'file'")
        assert done == dry == [("a", "changed"), ("b", "removed"), ("c", "added"), ("d", "added")]
        assert values(self.db) == contents(self.db.server, self.file)
        assert values(self.db) == {"a": b"theirs", "c": b"theirs", "d": b"theirs"}

    def test_prefer_table(self) -> None:
        assert reload(self.db, self.file, ", prefer => 'table'") == [("d", "added")]
        assert values(self.db) == contents(self.db.server, self.file)
        assert values(self.db) == {"a": b"mine", "b": b"mine", "d": b"theirs"}
        assert deleted(self.file) == ["c"]

    def test_another_preference(self) -> None:
        with refused("22023", "prefer must be"):
            reload(self.db, self.file, ", prefer => 'newest'")


class TestDryRun:
    def everything(self, db: Database, file: Path) -> tuple:
        registered, keyrings = (f"select * from omni_credentials.credentials_{part}" for part in ("files", "keyrings"))
        return db.run(SEALED), file.read_bytes(), db.run(registered), db.run(keyrings)

    def tried(self, db: Database, file: Path) -> list[tuple]:
        """What a dry run says. It changes nothing, may be had in a read-only transaction, and comes true."""
        before = self.everything(db, file)
        dry = reload(db, file, ", dry_run => true")
        with db.connect(default_transaction_read_only="on") as session:
            assert session.execute(RELOAD.replace("%s", "%s, dry_run => true"), (str(file),)).fetchall() == dry
        assert self.everything(db, file) == before
        assert reload(db, file) == dry
        return dry

    def test_edited_outside(self, db: Database, file: Path) -> None:
        edit(db.server, file, a=b"new", b=None, d=b"new")
        assert self.tried(db, file) == [("a", "changed"), ("b", "removed"), ("d", "added")]

    def test_a_file_with_keys_of_others(self, db: Database, file: Path) -> None:
        other = fresh_database(db.server)
        put(other, "d", b"under a key of its own")
        mirror(other, file)
        assert self.tried(db, file) == [("d", "added")]
        drop_database(other)

    def test_a_copy_without_a_keyring(self, db: Database) -> None:
        file = db.server.data / f"{db.name}.credentials"
        mirror(db, file)
        other = fresh_database(db.server)
        put(other, "d", b"x")
        mirror(other, file)
        assert self.tried(db, file) == [("d", "added")]
        drop_database(other)


class TestOlderFile:
    def test_reloaded_deletes_nothing(self, db: Database, file: Path) -> None:
        old = file.read_bytes()
        put(db, "d", b"new")
        put(db, "a", b"new")
        file.write_bytes(old)
        notices = []
        with db.connect() as session:
            session.add_notice_handler(lambda notice: notices.append(notice.message_primary))
            session.execute(RELOAD, (str(file),))
        assert any("went back from generation" in notice for notice in notices), notices
        assert set(values(db)) == {"a", "b", "c", "d"}
        assert contents(db.server, file) == values(db)
        assert generation(file) > 3

    def test_both_ways_out_that_the_status_names(self, db: Database, file: Path) -> None:
        old = file.read_bytes()
        put(db, "a", b"new")
        remove(db, "b")
        now = values(db)
        file.write_bytes(old)
        ways = re.search(r"to take its values over: (.*), to write those of the table: remove the file, then (.*)$", status(db)[1])
        file.unlink()
        db.run(ways[2])
        assert contents(db.server, file) == values(db) == now and in_step(db)
        file.write_bytes(old)
        db.run(ways[1])
        assert contents(db.server, file) == values(db) == now | {"a": b"old", "b": b"old"} and in_step(db)

    def test_its_tombstones_do_not_delete_what_came_back(self, db: Database, file: Path) -> None:
        remove(db, "a")
        old = file.read_bytes()
        put(db, "a", b"again")
        put(db, "b", b"new")
        put(db, "c", b"new")
        file.write_bytes(old)
        assert "went back from generation" in status(db)[1]
        assert "a" not in dict(reload(db, file))
        assert values(db)["a"] == b"again"
        assert sorted(live(file)) == ["a", "b", "c"]
        assert reload(db, file) == []

    def test_a_commit_notices_too(self, db: Database, file: Path) -> None:
        remove(db, "a")
        old = file.read_bytes()
        put(db, "a", b"again")
        put(db, "b", b"new")
        file.write_bytes(old)
        notices = []
        with db.connect() as session:
            session.add_notice_handler(lambda notice: notices.append(notice.message_primary))
            session.execute("select omni_credentials.set_credential('e', 'x')")
        assert any("went back from generation" in notice for notice in notices), notices
        assert sorted(live(file)) == ["a", "b", "c", "e"]
        assert values(db)["a"] == b"again"

    def test_an_empty_history_reloaded_deletes_nothing(self, db: Database, file: Path) -> None:
        with db.connect() as session:
            session.execute("delete from omni_credentials.credentials where name <> 'a'")
            session.execute("select omni_credentials.set_credential('b', 'x')")
        first = file.read_bytes()
        put(db, "z", b"x")
        file.write_bytes(first)
        reload(db, file)
        assert set(values(db)) == {"a", "b", "z"}


class TestKeys:
    def test_rotated(self, db: Database, file: Path) -> None:
        before = generation(file)
        db.run("select omni_credentials.rotate_key()")
        assert generation(file) == before + 1
        assert contents(db.server, file) == values(db)
        put(db, "d", b"new")
        assert reload(db, file) == []
        assert in_step(db)

    def test_master_secret_rotated(self, own_server) -> None:
        first, second = VARIABLE, "NEXT_MASTER_PASSWORD"
        own_server.restart({first: "the first secret", second: "the second secret"})
        db = fresh_database(own_server)
        put(db, "a", b"old")
        file = own_server.data / "rotated.credentials"
        mirror(db, file)
        db.run("select omni_credentials.rotate_master_secret(%s)", second)
        assert in_step(db)
        # The old secret is gone for good.
        own_server.restart({second: "the second secret"})
        put(db, "b", b"new")
        assert live(file) == ["a", "b"]
        other = fresh_database(own_server)
        other.run("update omni_credentials.credentials_config set environment_variable = %s", second)
        mirror(other, file)
        assert dict(other.run(READ)) == {"a": b"old", "b": b"new"}
        put(other, "c", b"new")
        assert reload(db, file) == [("c", "added")]
        db.close()
        other.close()


class TestDetach:
    def test_leaves_the_file(self, db: Database, file: Path) -> None:
        before = file.read_bytes()
        db.run("select omni_credentials.detach_file_store(%s)", str(file))
        put(db, "d", b"new")
        assert file.read_bytes() == before
        assert db.run(STATUS) == []
        assert leftovers(file.parent) == []
        with refused("42704", "no file store", hint="instantiate_file_store"):
            reload(db, file)
        # And back again.
        assert mirror(db, file) == []
        assert live(file) == ["a", "b", "c", "d"]

    def test_unknown(self, db: Database) -> None:
        for call in ("detach_file_store('x')", "credential_file_store_sync('x')"):
            with refused("42704", "no file store", hint="instantiate_file_store"):
                db.run(f"select omni_credentials.{call}")


def test_two_databases_end_equal(db: Database, file: Path) -> None:
    other = fresh_database(db.server)
    mirror(other, file)
    put(db, "a", b"1")
    put(other, "b", b"2")
    remove(db, "c")
    put(other, "d", b"3")
    reload(db, file)
    reload(other, file)
    assert values(db) == values(other) == {"a": b"1", "b": b"2", "d": b"3"}
    assert in_step(db) and in_step(other)
    drop_database(other)
