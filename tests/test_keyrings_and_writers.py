"""Keyrings that go, and values and keyrings that are written at the same time: by the same statement, or by another session."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import MASTER_KEY, VARIABLE, Database, drop_database, fresh_database, master_key, new_server, refused
from foreign_keyrings import replica
from throwaway import Server

KEYRINGS = "mine.credentials_keyrings"
TABLE = "mine.encrypted_credentials"


def instance(db: Database) -> None:
    db.run("create schema mine")
    db.run("select omni_credentials.instantiate('mine')")


def read(db: Database) -> list[tuple]:
    values = db.run("select name, value from mine.credentials")
    return [*values, *db.run("select name, value from mine.credential_versions")]


class TestOneStatement:
    """A statement that removes a keyring and writes values: what it writes after that would be sealed with what is gone, and
    the versions that it leaves come when it has ended."""

    DELETE = f"with d as (delete from {KEYRINGS} where number = 1 returning 1)"
    # What is there before, and the statement.
    CASES = {
        "a first value": ("empty", f"{DELETE} insert into mine.credentials (name, value) select 'a', 'x' from d"),
        "values, then the keyring": (
            "value",
            f"with d as (delete from {TABLE} returning 1) delete from {KEYRINGS} where (select count(*) from d) > 0",
        ),
        "the keyring, then an older value": ("moved", f"{DELETE} update {TABLE} set value = %(old)b from d"),
        "an older value at the end": (
            "moved", f"with u as (update {TABLE} set value = %(old)b) delete from {KEYRINGS} where number = 1"),
        "a version": (
            "moved",
            f"{DELETE} insert into mine.encrypted_credential_versions select name, %(old)b, kind, principal, scope,"
            f" expires_at, 1, null, now(), 'postgres', false from {TABLE}, d",
        ),
        "overwritten": (
            "moved",
            rf"with d as (update {KEYRINGS} set keyring = '\x00' where number = 1 returning 1)"
            f" update {TABLE} set value = %(old)b from d",
        ),
        "merge": (
            "moved",
            f"with u as (update {TABLE} set value = %(old)b) merge into {KEYRINGS} k using (values (1)) v (number)"
            " on k.number = v.number when matched then delete",
        ),
        "truncate": ("value", f"delete from {TABLE} returning mine.gone('truncate {KEYRINGS}')"),
        "prune": ("older", f"update {TABLE} set value = %(new)b returning mine.gone('select omni_credentials.prune_keyrings(''mine'')')"),
    }  # fmt: skip

    @pytest.mark.parametrize(("before", "statement"), CASES.values(), ids=CASES)
    def test_is_refused(self, db: Database, before: str, statement: str) -> None:
        instance(db)
        db.run("select mine.set_credential('a', '1'::text)")
        ((old,),) = db.run(f"select value from {TABLE}")
        if before in ("moved", "older"):
            db.run("select omni_credentials.use_module('mine')")
        ((new,),) = db.run(f"select value from {TABLE}")
        if before == "older":
            db.run(f"update {TABLE} set value = %b", old)
            db.run("select mine.purge_history(everything => true)")
        if before == "empty":
            db.run(f"truncate {TABLE}, mine.encrypted_credential_versions")
        db.run(
            "create function mine.gone(statement text) returns int language plpgsql as 'begin perform 1; execute statement; return 1; end'"
        )
        session = db.connect()
        session.execute("select value from mine.credentials")
        stored, values = db.run(f"select * from {KEYRINGS}"), read(db)
        with refused("55006", "may change values", "a statement of its own"):
            session.execute(statement, {"old": old, "new": new})
        assert db.run(f"select * from {KEYRINGS}") == stored
        assert read(db) == values

    def test_what_only_reads_values(self, db: Database) -> None:
        """And one after the other, in one transaction."""
        instance(db)
        db.run("select mine.set_credential('a', '1'::text)")
        db.run("select omni_credentials.use_module('mine')")
        with db.connect(autocommit=False) as session:
            statement = f"delete from {KEYRINGS} where number = 1 and (select count(value) from mine.credentials) = 1"
            assert session.execute(statement).rowcount == 1
            session.execute("select mine.set_credential('a', '2'::text)")
            session.execute("select omni_credentials.use_module('mine')")
            assert session.execute(f"delete from {KEYRINGS} where number = 2").rowcount == 1
            session.execute("delete from mine.credentials")
            session.execute(f"truncate {TABLE}, mine.encrypted_credential_versions, {KEYRINGS}")
        assert db.run(f"select count(*) from {KEYRINGS}") == [(0,)]


@pytest.mark.parametrize("replicates", [False, True], ids=["session", "replica"])
class TestWhatTheOwnerMoved:
    @pytest.fixture(autouse=True)
    def _value(self, db: Database) -> None:
        instance(db)
        db.run("select mine.set_credential('a', '1'::text)")

    @pytest.mark.parametrize(
        "change", ["delete from {}", r"update {} set keyring = '\x01'", "delete from {} where length(keyring) > 9"]
    )
    def test_keyrings_with_one_id(self, db: Database, change: str, *, replicates: bool) -> None:
        db.run(f"alter table {KEYRINGS} drop constraint credentials_keyrings_pkey")
        ((good,),) = db.run(f"select keyring from {KEYRINGS}")
        for number in (0, 2):
            db.run(f"insert into {KEYRINGS} select %s, module, %b, id from {KEYRINGS} limit 1", number, bytes(1))
        session = replica(db)[0] if replicates else db.connect()
        change = change.format(KEYRINGS)
        if replicates:
            session.execute(change)
        else:
            with refused("2BP01", "sealed with its keys"):
                session.execute(change)
        assert (good,) in db.run(f"select keyring from {KEYRINGS}")

    def test_truncate_with_another_name_and_column(self, db: Database, *, replicates: bool) -> None:
        db.run(f"alter table {KEYRINGS} rename keyring to bytes")
        db.run(f"alter table {KEYRINGS} rename to k")
        session = replica(db)[0] if replicates else db.connect()
        with refused("42P16", "another name"):
            session.execute("truncate mine.k")
        assert db.run("select count(*) from mine.k") == [(1,)]

    def test_other_tables_of_the_names(self, db: Database, *, replicates: bool) -> None:
        for name in ("encrypted_credentials", "encrypted_credential_versions"):
            db.run(f"alter table mine.{name} rename to {name}_")
            db.run(f"create table mine.{name} (like mine.{name}_ including all)")
        session = replica(db)[0] if replicates else db.connect()
        if replicates:
            assert session.execute(f"delete from {KEYRINGS}").rowcount == 0
        else:
            with refused("2BP01", "no table encrypted_credentials of ours"):
                session.execute(f"delete from {KEYRINGS}")
        with refused("42P16", "no table encrypted_credentials of ours"):
            session.execute(f"truncate {KEYRINGS}")
        assert db.run(f"select count(*) from {KEYRINGS}") == [(1,)]


def test_truncate_of_the_other_tables(db: Database) -> None:
    """Their triggers call the same function."""
    db.run("select omni_credentials.set_credential('a', '1'::text)")
    for table in ("allowed_variables", "credentials_config"):
        db.run(f"truncate omni_credentials.{table}")
        assert db.run(f"select count(*) from omni_credentials.{table}") == [(0,)]


@pytest.fixture(scope="module")
def server_of_two() -> Iterator[Server]:
    """Its sessions have two master secrets."""
    server = new_server("rotating")
    server.start({VARIABLE: MASTER_KEY, "NEXT_SECRET": master_key(b"next")})
    yield server
    server.remove()


class TestWhileTheMasterSecretRotates:
    """No keyring is left behind under the old secret, whichever comes first."""

    ROTATE = "select omni_credentials.rotate_master_secret('NEXT_SECRET', 'mine')"
    OTHERS = {
        "another keyring": "select omni_credentials.use_module('mine')",
        "another key": "select omni_credentials.rotate_key('mine')",
        "the first value": "select mine.set_credential('b', '2'::text)",
        "one that arrives": f"insert into {KEYRINGS} select number + 1, module, keyring from {KEYRINGS}",
    }

    @pytest.fixture
    def db(self, server_of_two: Server) -> Iterator[Database]:
        database = fresh_database(server_of_two)
        instance(database)
        yield database
        drop_database(database)

    @staticmethod
    def at_the_same_time(db: Database, first: str, second: str) -> None:
        """The second one waits for the first one's lock, and has its error raised here."""
        holder, waiter = db.connect(autocommit=False), db.connect()
        holder.execute(first)
        with ThreadPoolExecutor() as threads:
            waiting = threads.submit(waiter.execute, second)
            waits = ("select wait_event_type from pg_stat_activity where pid = %s", waiter.info.backend_pid)
            while db.run(*waits) != [("Lock",)]:
                assert not waiting.done(), waiting.result()
                time.sleep(0.01)
            holder.commit()
            waiting.result()

    @pytest.mark.parametrize("rotation_first", [False, True], ids=["other first", "rotation first"])
    @pytest.mark.parametrize("other", OTHERS)
    def test_at_the_same_time(self, db: Database, other: str, *, rotation_first: bool) -> None:
        if other != "the first value":
            db.run("select mine.set_credential('a', '1'::text)")
        first, second = (self.ROTATE, self.OTHERS[other]) if rotation_first else (self.OTHERS[other], self.ROTATE)
        self.at_the_same_time(db, first, second)
        db.run("select mine.set_credential('c', '3'::text)")
        assert db.run("select environment_variable from mine.credentials_config") == [("NEXT_SECRET",)]
        assert db.run("select * from omni_credentials.verify('mine')") == []
        assert len(db.run("select value from mine.credentials")) == 2

    @pytest.mark.parametrize("rotation_first", [False, True], ids=["other first", "rotation first"])
    def test_a_first_keyring_from_a_file(self, db: Database, *, rotation_first: bool) -> None:
        file = db.server.folder / f"{db.name}.credentials"
        db.run("select omni_credentials.set_credential('a', '1'::text)")
        db.run("select omni_credentials.instantiate_file_store(%s)", str(file))
        db.run("select omni_credentials.detach_file_store(%s)", str(file))
        store = f"select omni_credentials.instantiate_file_store('{file}', 'mine')"
        if rotation_first:
            with refused("40001", "the master secret of schema mine was changed"):
                self.at_the_same_time(db, self.ROTATE, store)
            # The file is under the old one.
            with refused("28P01", "NEXT_SECRET"):
                db.run(store)
            assert db.run(f"select count(*) from {KEYRINGS}") == [(0,)]
        else:
            self.at_the_same_time(db, store, self.ROTATE)
            assert db.run("select value from mine.credentials") == [(b"1",)]
