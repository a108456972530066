"""Two sessions at once: nothing is lost, nothing deadlocks with itself."""

from __future__ import annotations

import threading
import time

import psycopg
import pytest
from conftest import Database, refused
from psycopg import errors

VIEW = "omni_credentials.credentials"


@pytest.fixture
def filled(db: Database) -> Database:
    db.run(f"insert into {VIEW} (name, value) values ('n', '')")
    return db


@pytest.fixture
def sessions(filled: Database) -> tuple[psycopg.Connection, psycopg.Connection]:
    """One that is in a transaction, and another that will meet what it did."""
    return filled.connect(autocommit=False), filled.connect()


class Background:
    """A statement in a thread, that is known to wait for a lock before `run` returns."""

    def __init__(self, db: Database, session, statement: str) -> None:
        self.error: Exception | None = None
        self.count = -1
        pid = session.info.backend_pid

        def work() -> None:
            try:
                self.count = session.execute(statement).rowcount
            except errors.Error as error:
                self.error = error

        self.thread = threading.Thread(target=work)
        self.thread.start()
        deadline = time.monotonic() + 30
        while db.run("select wait_event_type from pg_stat_activity where pid = %s", pid) != [("Lock",)]:
            assert self.thread.is_alive(), "the statement did not wait"
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def finish(self) -> None:
        self.thread.join(30)
        assert not self.thread.is_alive()


def serialization_failure(error: Exception | None) -> bool:
    return getattr(error, "sqlstate", None) == "40001"


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
def test_appending_from_two_sessions(filled: Database, level: str) -> None:
    one, two = filled.connect(autocommit=False), filled.connect(autocommit=False)
    for session in (one, two):
        session.execute(f"set session characteristics as transaction isolation level {level}")
        session.commit()
    one.execute(f"update {VIEW} set value = value || 'a' where name = 'n'")
    other = Background(filled, two, f"update {VIEW} set value = value || 'b' where name = 'n'")
    one.commit()
    other.finish()
    assert serialization_failure(other.error)
    two.rollback()
    two.execute(f"update {VIEW} set value = value || 'b' where name = 'n'")
    two.commit()
    assert filled.run(f"select value from {VIEW}") == [(b"ab",)]


def test_many_sessions_appending(filled: Database) -> None:
    rounds, workers = 10, 4
    failures = []

    def work(letter: str) -> None:
        session = filled.connect()
        for _ in range(rounds):
            while True:
                try:
                    session.execute(f"update {VIEW} set value = value || %b where name = 'n'", (letter.encode(),))
                    break
                except errors.SerializationFailure:
                    continue
                except errors.Error as error:
                    failures.append(error)
                    return

    threads = [threading.Thread(target=work, args=(letter,)) for letter in "abcd"[:workers]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    ((value,),) = filled.run(f"select value from {VIEW}")
    assert sorted(value.decode()) == sorted("abcd"[:workers] * rounds)


def test_first_one_rolls_back(filled: Database, sessions) -> None:
    one, two = sessions
    one.execute(f"update {VIEW} set value = 'a'")
    other = Background(filled, two, f"update {VIEW} set value = value || 'b'")
    one.rollback()
    other.finish()
    assert other.error is None and other.count == 1
    assert filled.run(f"select value from {VIEW}") == [(b"b",)]


def test_update_of_a_row_that_was_renamed(filled: Database, sessions) -> None:
    """Lost in silence, if a row that is gone counted as deleted."""
    one, two = sessions
    one.execute(f"update {VIEW} set name = 'm'")
    other = Background(filled, two, f"update {VIEW} set value = value || 'b' where kind = 'credential'")
    one.commit()
    other.finish()
    assert serialization_failure(other.error)
    assert filled.run(f"select name, value from {VIEW}") == [("m", b"")]


def test_update_of_a_row_that_was_deleted(filled: Database, sessions) -> None:
    one, two = sessions
    one.execute(f"delete from {VIEW}")
    other = Background(filled, two, f"update {VIEW} set value = value || 'b'")
    one.commit()
    other.finish()
    assert serialization_failure(other.error)


def test_two_deletes(filled: Database, sessions) -> None:
    one, two = sessions
    assert one.execute(f"delete from {VIEW}").rowcount == 1
    other = Background(filled, two, f"delete from {VIEW}")
    one.commit()
    other.finish()
    assert other.error is None and other.count == 0


def test_delete_of_a_row_that_was_changed(filled: Database, sessions) -> None:
    one, two = sessions
    one.execute(f"update {VIEW} set value = 'new'")
    other = Background(filled, two, f"delete from {VIEW}")
    one.commit()
    other.finish()
    assert serialization_failure(other.error)
    assert filled.run(f"select value from {VIEW}") == [(b"new",)]


def test_two_inserts_of_one_credential(filled: Database, sessions) -> None:
    one, two = sessions
    one.execute(f"insert into {VIEW} (name, value) values ('new', '1')")
    other = Background(filled, two, f"insert into {VIEW} (name, value) values ('new', '2')")
    one.commit()
    other.finish()
    assert isinstance(other.error, errors.UniqueViolation)


def test_two_set_credential(filled: Database, sessions) -> None:
    one, two = sessions
    one.execute("select omni_credentials.set_credential('new', '1')")
    other = Background(filled, two, "select omni_credentials.set_credential('new', '2')")
    one.commit()
    other.finish()
    assert other.error is None
    assert filled.run(f"select value from {VIEW} where name = 'new'") == [(b"2",)]


def test_first_writers_of_two_instances_in_opposite_order(db: Database) -> None:
    """Each waits for the other's keyring. Postgres finds it: one has to start again, and nothing is lost."""
    for schema in ("a", "b"):
        db.run(f"create schema {schema}")
        db.run(f"select omni_credentials.instantiate('{schema}')")
    insert = "insert into {}.credentials (name, value) values ('n', '{}')"
    one, other = (db.connect(autocommit=False, deadlock_timeout="100ms") for _ in range(2))
    one.execute(insert.format("a", "one"))
    other.execute(insert.format("b", "other"))
    waiting = Background(db, other, insert.format("a", "other"))
    try:
        one.execute(insert.format("b", "one"))
        won, lost = one, other
        waiting.finish()
        assert getattr(waiting.error, "sqlstate", None) == "40P01"
    except errors.DeadlockDetected:
        one.rollback()
        waiting.finish()
        assert waiting.error is None
        won, lost = other, one
    won.commit()
    lost.rollback()
    value = b"one" if won is one else b"other"
    # Again: the keyrings exist, so that it waits for nothing, and the names are taken.
    for schema in ("a", "b"):
        lost.execute(insert.format(schema, "again").replace("'n'", "'m'"))
    lost.commit()
    for schema in ("a", "b"):
        assert db.run(f"select name, value from {schema}.credentials order by name") == [("m", b"again"), ("n", value)]
        assert db.run(f"select count(*) from {schema}.credentials_keyrings") == [(1,)]


def test_two_first_writers(db: Database) -> None:
    """Both need the copy's first keyring: there is one, and it opens what either wrote."""
    one, two = db.connect(autocommit=False), db.connect()
    one.execute(f"insert into {VIEW} (name, value) values ('a', '1')")
    other = Background(db, two, f"insert into {VIEW} (name, value) values ('b', '2')")
    one.commit()
    other.finish()
    assert other.error is None
    assert db.run("select count(*) from omni_credentials.credentials_keyrings") == [(1,)]
    assert db.run(f"select name, value from {VIEW} order by 1") == [("a", b"1"), ("b", b"2")]


def test_old_row_in_repeatable_read(filled: Database) -> None:
    session = filled.connect(autocommit=False)
    session.execute("set transaction isolation level repeatable read")
    assert session.execute(f"select value from {VIEW}").fetchall() == [(b"",)]
    filled.run(f"update {VIEW} set value = 'new'")
    assert session.execute(f"select value from {VIEW}").fetchall() == [(b"",)]
    with refused("40001"):
        session.execute(f"update {VIEW} set value = value || 'x'")


def test_readers_and_writers_during_a_rotation(filled: Database) -> None:
    rotating = filled.connect(autocommit=False)
    reader, writer = filled.connect(), filled.connect()
    reader.execute(f"select value from {VIEW}")
    rotating.execute("select omni_credentials.rotate_key()")
    # Readers go on, in old and in new sessions.
    assert reader.execute(f"select value from {VIEW}").fetchall() == [(b"",)]
    assert filled.run(f"select value from {VIEW}") == [(b"",)]
    waiting = Background(filled, writer, f"insert into {VIEW} (name, value) values ('m', 'w')")
    rotating.commit()
    waiting.finish()
    assert waiting.error is None
    assert reader.execute(f"select name, value from {VIEW} order by 1").fetchall() == [("m", b"w"), ("n", b"")]


class TestBlindUpdates:
    """An update that does not depend on what it replaces is made to the row as it is now."""

    @pytest.mark.parametrize(
        "update",
        [
            f"update {VIEW} set value = 'b' where name = 'n'",
            f"update {VIEW} set value = convert_to('b', 'UTF8') where name = any (array['n', 'm']) and kind = 'credential'",
            f"update {VIEW} set value = 'b', kind = 'token' where principal = current_user::regrole",
            f"update {VIEW} set value = 'b'",
            f"do $$ begin update {VIEW} set value = 'b' where name = 'n'; end $$",
        ],
        ids=["by name", "list", "with the kind", "all", "in a function"],
    )
    @pytest.mark.parametrize("level", ["read committed", "repeatable read"])
    def test_the_last_one_stays(self, filled: Database, sessions, update: str, level: str) -> None:
        one, two = sessions
        two.execute(f"set default_transaction_isolation = '{level}'")
        one.execute(f"update {VIEW} set value = 'a'")
        other = Background(filled, two, update)
        one.commit()
        other.finish()
        if level == "read committed":
            assert other.error is None and filled.run(f"select value from {VIEW}") == [(b"b",)]
        else:
            assert serialization_failure(other.error) and filled.run(f"select value from {VIEW}") == [(b"a",)]

    @pytest.mark.parametrize(
        "update",
        [
            f"update {VIEW} set value = value || 'b' where name = 'n'",
            f"update {VIEW} set value = 'b' where name = 'n' and value = ''",
            f"update {VIEW} set value = 'b' where name = 'n' and omni_credentials.get_credential('n') = ''",
            f"update {VIEW} set value = (select value || 'b' from {VIEW} where name = 'n')",
            f"update {VIEW} c set value = 'b' from {VIEW} d where d.name = c.name and d.value = ''",
            f"update {VIEW} set name = convert_from(value, 'UTF8') || 'b'",
            f"update {VIEW} set value = convert_to(omni_credentials.get_credential('n') || 'b', 'UTF8')",
            f"update {VIEW} set value = 'b' where exists (select from {VIEW} where value = '')",
        ],
        ids=["appended", "compared", "compared by a function", "subquery", "joined", "renamed to it", "read by a function", "exists"],
    )
    def test_one_that_depends_on_it_is_not_lost(self, filled: Database, sessions, update: str) -> None:
        one, two = sessions
        one.execute(f"update {VIEW} set value = 'a'")
        other = Background(filled, two, update)
        one.commit()
        other.finish()
        assert serialization_failure(other.error)
        assert filled.run(f"select name, value from {VIEW}") == [("n", b"a")]

    def test_another_update_with_its_own_value_inside(self, filled: Database, sessions) -> None:
        """What counts is the statement that updates the row, not the one around it."""
        one, two = sessions
        filled.run(
            "create function append() returns text language plpgsql as $$ begin"
            f" update {VIEW} set value = value || 'b' where name = 'n'; return 'm'; end $$"
        )
        filled.run(f"insert into {VIEW} (name, value) values ('m', '')")
        one.execute(f"update {VIEW} set value = 'a' where name = 'n'")
        other = Background(filled, two, f"update {VIEW} set value = 'c' where name = append()")
        one.commit()
        other.finish()
        assert serialization_failure(other.error)
        assert filled.run(f"select name, value from {VIEW} order by 1") == [("m", b""), ("n", b"a")]

    def test_the_value_set_meanwhile_goes_with_the_new_name(self, filled: Database, sessions) -> None:
        one, two = sessions
        one.execute(f"update {VIEW} set value = 'a'")
        other = Background(filled, two, f"update {VIEW} set name = 'm', kind = 'token' where name = 'n'")
        one.commit()
        other.finish()
        assert other.error is None
        assert filled.run(f"select name, value, kind::text from {VIEW}") == [("m", b"a", "token")]
        assert filled.run("select * from omni_credentials.verify()") == []

    @pytest.mark.parametrize(
        ("first", "second", "expiry", "value"),
        [
            ("expires_at = '2040-01-01Z'", "value = 'b'", "2040", b"b"),
            ("value = 'a'", "expires_at = '2041-01-01Z'", "2041", b"a"),
            ("value = 'a', expires_at = '2040-01-01Z'", "value = 'b', expires_at = null", None, b"b"),
            ("value = 'a', expires_at = '2040-01-01Z'", "kind = 'token'", "2040", b"a"),
        ],
        ids=["expiry, then value", "value, then expiry", "both, then both", "both, then kind"],
    )
    def test_what_it_does_not_assign_stays(
        self, filled: Database, sessions, first: str, second: str, expiry: str | None, value: bytes
    ) -> None:
        """The expiry is bound into the value, and is another session's as much as the value is."""
        one, two = sessions
        one.execute(f"update {VIEW} set {first}")
        other = Background(filled, two, f"update {VIEW} set {second} where name = 'n'")
        one.commit()
        other.finish()
        assert other.error is None
        assert filled.run(f"select value, to_char(expires_at, 'YYYY') from {VIEW}") == [(value, expiry)]
        assert filled.run("select * from omni_credentials.verify()") == []

    def test_a_computed_expiry_is_not_lost(self, filled: Database, sessions) -> None:
        one, two = sessions
        filled.run(f"update {VIEW} set expires_at = '2040-01-01Z'")
        one.execute(f"update {VIEW} set expires_at = expires_at + interval '1 year'")
        other = Background(filled, two, f"update {VIEW} set expires_at = expires_at + interval '1 year'")
        one.commit()
        other.finish()
        assert serialization_failure(other.error)

    def test_returning_shows_what_is_stored(self, filled: Database, sessions) -> None:
        one, two = sessions
        one.execute(f"update {VIEW} set value = 'a'")
        returned = []

        class Returning:
            info = two.info

            @staticmethod
            def execute(statement: str):
                cursor = two.execute(statement)
                returned.extend(cursor.fetchall())
                return cursor

        other = Background(filled, Returning, f"update {VIEW} set name = 'm' where name = 'n' returning name, value")
        one.commit()
        other.finish()
        assert other.error is None and returned == [("m", b"a")]

    def test_many_sessions(self, filled: Database) -> None:
        """With parameters, as drivers send them: no one fails, and each value is a whole one."""
        failures = []

        def work(letter: str) -> None:
            session = filled.connect()
            try:
                for _ in range(10):
                    session.execute(f"update {VIEW} set value = %s where name = %s", (letter.encode() * 40, "n"))
            except errors.Error as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(letter,)) for letter in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert filled.run(f"select value from {VIEW}")[0][0] in [letter.encode() * 40 for letter in "abcd"]


class TestRotationMeanwhile:
    """A writer that waited for a rotation finds other sealed bytes and the same value."""

    @pytest.mark.parametrize("rotation", ["rotate_key()", "use_module()"])
    @pytest.mark.parametrize(
        ("change", "after"),
        [
            (f"update {VIEW} set value = value || 'b'", [(b"b",)]),
            (f"update {VIEW} set value = 'c'", [(b"c",)]),
            (f"delete from {VIEW}", []),
        ],
        ids=["computed", "blind", "delete"],
    )
    @pytest.mark.parametrize("privileges", ["SELECT, INSERT, UPDATE, DELETE", "INSERT, UPDATE, DELETE"])
    def test_no_writer_fails(self, role, db: Database, rotation: str, change: str, after: list, privileges: str) -> None:
        app = role("app")
        db.grant(app, privileges)
        db.run(f"insert into {VIEW} (name, value, principal) values ('n', '', '{app}')")
        if "SELECT" not in privileges and "||" in change:
            pytest.skip("without SELECT the value to add to is the sealed one")
        rotating, writer = db.connect(autocommit=False), db.connect(app)
        rotating.execute(f"select omni_credentials.{rotation}")
        waiting = Background(db, writer, change)
        rotating.commit()
        waiting.finish()
        assert waiting.error is None and waiting.count == 1
        assert db.run(f"select value from {VIEW}") == after
