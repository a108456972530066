"""When files are written: once per transaction, with the commit, and not otherwise."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import psycopg
import pytest
from conftest import Database, drop_database, fresh_database, refused
from file_stores import (
    INSERT,
    READ,
    STATUS,
    contents,
    deleted,
    generation,
    in_step,
    in_threads,
    leftovers,
    live,
    mirror,
    mirrored,
    put,
)


@pytest.fixture
def file(db: Database) -> Path:
    """A file store of the default copy, with one credential in it."""
    return mirrored(db, {"kept": b"value"})


TABLE = "omni_credentials.encrypted_credentials"
COPIED = f"copy (select * from {TABLE}) to stdout"

WRITES = {
    "view": "insert into omni_credentials.credentials (name, value) select 'n' || n, 'x' from generate_series(1, 20) n",
    "several statements": "insert into omni_credentials.credentials (name, value) values ('a', 'x');"
    "update omni_credentials.credentials set value = 'y' where name = 'a';"
    "update omni_credentials.credentials set name = 'b' where name = 'a'",
    "direct": f"insert into {TABLE} (name, value) select 'd', omni_credentials.seal_credential("
    f"'{TABLE}'::regclass, 'd', 'credential'::omni_credentials.credential_kind, quote_ident(current_user)::regrole,"
    " '{\"all\": true}', 'x')",
    "direct deletion": f"delete from {TABLE}",
    "truncate": f"truncate {TABLE}",
    "truncate and insert": f"truncate {TABLE}; insert into omni_credentials.credentials (name, value) values ('n', 'x')",
    "do": "do $$ begin for n in 1..5 loop"
    " insert into omni_credentials.credentials (name, value) values ('n' || n, 'x'); end loop; end $$",
    "function": "create function f() returns void language sql as"
    " 'select omni_credentials.set_credential(''f'', ''x'')'; select f(); select f()",
    "savepoint kept": "begin; savepoint s; insert into omni_credentials.credentials (name, value) values ('s', 'x');"
    " release s; insert into omni_credentials.credentials (name, value) values ('t', 'x'); commit",
    "savepoint rolled back": "begin; insert into omni_credentials.credentials (name, value) values ('s', 'x');"
    " savepoint s; delete from omni_credentials.credentials; rollback to s; commit",
    "exception block": "do $$ begin"
    " insert into omni_credentials.credentials (name, value) values ('s', 'x');"
    " begin delete from omni_credentials.credentials; raise division_by_zero; exception when division_by_zero then end;"
    " end $$",
    "merge": f"merge into {TABLE} t using (select 1) s on t.name = 'kept' when matched then delete",
    "cte": "with gone as (delete from omni_credentials.credentials returning value)"
    " insert into omni_credentials.credentials (name, value) select 'moved', value from gone",
}


@pytest.mark.parametrize("statements", WRITES.values(), ids=WRITES.keys())
def test_once_whatever_wrote(db: Database, file: Path, statements: str) -> None:
    before = generation(file)
    with db.connect() as session:
        session.execute(statements)
    assert generation(file) == before + 1
    assert contents(db.server, file) == dict(db.run(READ))
    assert in_step(db)
    assert leftovers(file.parent) == []


def test_copy(db: Database, file: Path) -> None:
    with db.connect() as session:
        with session.cursor().copy(COPIED) as out:
            dumped = b"".join(out)
        session.execute("delete from omni_credentials.credentials")
        assert (live(file), deleted(file)) == ([], ["kept"])
        before = generation(file)
        with session.cursor().copy(f"copy {TABLE} from stdin") as into:
            into.write(dumped)
    assert generation(file) == before + 1
    assert (live(file), deleted(file)) == (["kept"], [])


def test_procedure_that_commits(db: Database, file: Path) -> None:
    before = generation(file)
    with db.connect() as session:
        session.execute(
            "create procedure p() language plpgsql as $$ begin for n in 1..3 loop"
            " insert into omni_credentials.credentials (name, value) values ('n' || n, 'x'); commit;"
            " end loop; end $$"
        )
        session.execute("call p()")
    assert generation(file) == before + 3
    assert live(file) == ["kept", "n1", "n2", "n3"]


def test_several_copies_in_one_transaction(db: Database, file: Path) -> None:
    other = file.with_suffix(".second")
    db.run("create schema second")
    db.run("select omni_credentials.instantiate('second')")
    mirror(db, other, "second")
    before = generation(file)
    with db.connect(autocommit=False) as session:
        session.execute(INSERT, ("a", b"1"))
        session.execute("insert into second.credentials (name, value) values ('b', '2'), ('c', '3')")
        session.execute("delete from second.credentials where name = 'c'")
    assert (live(file), live(other)) == (["a", "kept"], ["b"])
    assert (generation(file), generation(other)) == (before + 1, 2)


def test_no_change_writes_nothing(db: Database, file: Path) -> None:
    before = (file.read_bytes(), file.stat().st_ino)
    with db.connect(autocommit=False) as session:
        session.execute("update omni_credentials.credentials set value = value")
        session.execute("delete from omni_credentials.credentials where name = 'none'")
        session.execute("savepoint s")
        session.execute(INSERT, ("gone", b"x"))
        session.execute("rollback to s")
    assert (file.read_bytes(), file.stat().st_ino) == before


class TestNoTrace:
    def check(self, db: Database, file: Path, before: bytes) -> None:
        assert file.read_bytes() == before
        assert leftovers(file.parent) == []
        assert db.run(READ) == [("kept", b"value")]
        put(db, "next", b"value")
        assert live(file) == ["kept", "next"]

    def test_rollback(self, db: Database, file: Path) -> None:
        before = file.read_bytes()
        with db.connect(autocommit=False) as session:
            session.execute(INSERT, ("gone", b"x"))
            session.rollback()
        self.check(db, file, before)

    def test_failing_deferred_constraint(self, db: Database, file: Path) -> None:
        before = file.read_bytes()
        db.run("create table t (n int unique deferrable initially deferred)")
        with db.connect(autocommit=False) as session:
            session.execute(INSERT, ("gone", b"x"))
            session.execute("insert into t values (1), (1)")
            with refused("23505"):
                session.commit()
        self.check(db, file, before)

    def test_deferred_trigger_that_writes(self, db: Database, file: Path) -> None:
        db.run("create table t (n int)")
        db.run(
            "create function late() returns trigger language plpgsql as $$ begin"
            " perform omni_credentials.set_credential('late', 'x'); return null; end $$"
        )
        db.run("create constraint trigger late after insert on t deferrable initially deferred"
               " for each row execute function late()")
        db.run("insert into t values (1)")
        assert live(file) == ["kept", "late"]

    def test_error(self, db: Database, file: Path) -> None:
        before = file.read_bytes()
        with db.connect(autocommit=False) as session:
            session.execute(INSERT, ("gone", b"x"))
            with refused("22012"):
                session.execute("select 1 / 0")
            session.rollback()
        self.check(db, file, before)

    def test_the_second_file_fails(self, db: Database, file: Path) -> None:
        # The first is staged by then, and must not stay.
        folder = db.server.folder / f"late-{db.name}"
        folder.mkdir()
        db.server.account.own(folder)
        mirror(db, folder / "z.credentials")
        before = file.read_bytes()
        (folder / "z.credentials").write_bytes(b"not a credentials file")
        with refused("22P04"):
            put(db, "gone", b"x")
        assert file.read_bytes() == before
        assert leftovers(file.parent) == leftovers(folder) == []
        db.run("select omni_credentials.detach_file_store(%s)", str(folder / "z.credentials"))
        self.check(db, file, before)


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
def test_concurrent_committers_are_complete(db: Database, file: Path, isolation: str) -> None:
    before = generation(file)
    written = []

    def writer(who: int):
        def run() -> None:
            with db.connect() as session:
                session.execute(f"set default_transaction_isolation = '{isolation}'")
                for n in range(15):
                    while True:
                        try:
                            session.execute(INSERT, (f"w{who}-{n}", b"x"))
                            break
                        except psycopg.errors.SerializationFailure:
                            continue
                    written.append(f"w{who}-{n}")

        return run

    in_threads(*(writer(who) for who in range(4)))
    assert sorted(live(file)) == sorted(["kept", *written])
    assert len(written) == 60
    assert generation(file) == before + 60
    assert in_step(db)
    assert leftovers(file.parent) == []


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_an_old_snapshot_drops_nothing(db: Database, file: Path, isolation: str) -> None:
    with db.connect() as session, session.transaction():
        session.execute(f"set transaction isolation level {isolation}")
        assert session.execute(READ).fetchall() == [("kept", b"value")]
        put(db, "meanwhile", b"1")
        session.execute(INSERT, ("late", b"2"))
        # Its own view of the table is the old one.
        assert session.execute("select name from omni_credentials.credentials order by 1").fetchall() == [
            ("kept",), ("late",)
        ]
    assert live(file) == ["kept", "late", "meanwhile"]
    assert deleted(file) == []


def test_two_databases_at_once(db: Database, file: Path) -> None:
    other = fresh_database(db.server)
    mirror(other, file)

    def writer(database: Database, who: str):
        def run() -> None:
            with database.connect() as session:
                for n in range(20):
                    session.execute(INSERT, (f"{who}{n}", b"x"))

        return run

    in_threads(writer(db, "a"), writer(other, "b"))
    assert sorted(live(file)) == sorted(["kept"] + [f"{who}{n}" for who in "ab" for n in range(20)])
    for database in (db, other):
        database.run("select * from omni_credentials.credential_file_store_reload(%s)", str(file))
        assert dict(database.run(READ)) == contents(db.server, file)
    drop_database(other)


@contextlib.contextmanager
def cancelled(db: Database, session: psycopg.Connection):
    """Cancels what the session does, again and again until it is done. (A commit has no statement_timeout.)"""
    done = threading.Event()
    pid = session.info.backend_pid

    def cancel() -> None:
        with db.connect() as other:
            while not done.wait(0.2):
                other.execute("select pg_cancel_backend(%s)", (pid,))

    thread = threading.Thread(target=cancel)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_a_waiting_committer_can_be_cancelled(db: Database, file: Path) -> None:
    with db.connect(autocommit=False) as first, db.connect() as second:
        # Registers a file and so holds the registry's lock.
        first.execute("select * from omni_credentials.instantiate_file_store(%s)", (f"{db.name}.other",))
        second.execute("set lock_timeout = '200ms'")
        with refused("55P03"):
            second.execute(INSERT, ("waits", b"x"))
        second.execute("set lock_timeout = 0")
        with cancelled(db, second), refused("57014"):
            second.execute(INSERT, ("waits", b"x"))
        first.rollback()
        second.execute(INSERT, ("done", b"x"))
    assert live(file) == ["done", "kept"]


def test_a_lock_of_another_writer_is_waited_for_but_not_for_ever(db: Database, file: Path) -> None:
    lock = file.with_name(file.name + ".lock")
    # A writer elsewhere, of whom this machine cannot tell whether it lives.
    lock.write_text("omni-credentials lock 1\npid 1\nstart 1\nboot b\nnamespace n\nmachine m\nhost elsewhere\n")
    before = file.read_bytes()
    with db.connect() as session:
        session.execute("set omni_credentials.file_lock_timeout = '200ms'")
        with refused("55P03", "locked by another writer", hint="lock"):
            session.execute(INSERT, ("waits", b"x"))
        session.execute("set omni_credentials.file_lock_timeout = '1min'")
        with cancelled(db, session), refused("57014"):
            session.execute(INSERT, ("waits", b"x"))
    assert file.read_bytes() == before
    lock.unlink()
    put(db, "done", b"x")
    assert live(file) == ["done", "kept"]


def test_a_read_only_transaction_writes_nothing(db: Database, file: Path) -> None:
    """Neither a file nor a key, by whatever function."""
    before = file.read_bytes()
    db.run("create schema empty")
    db.run("select omni_credentials.instantiate('empty')")
    with db.connect(default_transaction_read_only="on") as session:
        for call in (
            f"omni_credentials.instantiate_file_store('{file}.other')",
            f"omni_credentials.credential_file_store_reload('{file}')",
            f"omni_credentials.credential_file_store_sync('{file}')",
            f"omni_credentials.detach_file_store('{file}')",
            "omni_credentials.rotate_key()",
            "omni_credentials.use_module()",
            "omni_credentials.seal_credential('empty.encrypted_credentials'::regclass, 'n',"
            " 'credential'::empty.credential_kind, 'postgres', '1', 'x')",
        ):
            with refused("25006", "read-only transaction"):
                session.execute(f"select * from {call}")
    assert file.read_bytes() == before
    assert db.run("select count(*) from empty.credentials_keyrings") == [(0,)]
    assert db.run(STATUS) == [(str(file), True, None)]


def test_prepare_transaction_is_refused(own_server) -> None:
    own_server.stop()
    own_server.settings["max_prepared_transactions"] = "2"
    own_server.start()
    db = fresh_database(own_server)
    file = own_server.data / "prepared.credentials"
    put(db, "kept", b"value")
    with db.connect() as session:
        # Without a file store it is nobody's business.
        session.execute("begin; select omni_credentials.set_credential('a', 'x'); prepare transaction 'fine'")
        session.execute("commit prepared 'fine'")
        session.execute("select * from omni_credentials.instantiate_file_store(%s)", (str(file),))
        before = file.read_bytes()
        session.execute("begin")
        session.execute("select omni_credentials.set_credential('b', 'x')")
        with refused("0A000", "PREPARE", hint="COMMIT"):
            session.execute("prepare transaction 'refused'")
        session.execute("rollback")
        assert file.read_bytes() == before
        assert session.execute("select count(*) from pg_prepared_xacts").fetchone() == (0,)
        session.execute("begin; create table t (); prepare transaction 'unrelated'")
        session.execute("commit prepared 'unrelated'")
    put(db, "c", b"x")
    assert live(file) == ["a", "c", "kept"]
    db.close()


def test_dropping_the_copy_with_its_file(db: Database, file: Path) -> None:
    db.run("create schema second")
    db.run("select omni_credentials.instantiate('second')")
    other = file.with_suffix(".second")
    mirror(db, other, "second")
    with db.connect(autocommit=False) as session:
        session.execute("insert into second.credentials (name, value) values ('a', 'x')")
        session.execute("drop schema second cascade")
        session.execute(INSERT, ("b", b"x"))
    assert live(other) == [] and generation(other) == 1
    assert live(file) == ["b", "kept"]
    assert db.run(STATUS) == [(str(file), True, None)]
