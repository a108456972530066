"""Replicas: a standby reads, logical replication carries what is sealed and its keyring."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conftest import MASTER_KEY, VARIABLE, Database, fresh_database, new_server, refused
from file_stores import STATUS, contents, live, mirror
from standbys import base_backup, eventually
from throwaway import Server

VIEW = "omni_credentials.credentials"
READ = f"select name, value from {VIEW} order by name"
SYNCHRONISED = "select count(*) = 2 and bool_and(srsubstate = 'r') from pg_subscription_rel"


@pytest.fixture
def primary() -> Iterator[Server]:
    server = new_server("primary", {"wal_level": "logical", "max_wal_senders": "8", "max_replication_slots": "8"})
    server.start({VARIABLE: MASTER_KEY})
    yield server
    server.remove()


def test_streaming_standby(primary: Server) -> None:
    db = fresh_database(primary)
    db.run("create role app login")
    db.grant("app")
    db.run(f"insert into {VIEW} (name, value) values ('n', 'v')", user="app")
    mirror(db, "team.credentials")
    # A compiled module of this machine is not for another one.
    assert list(primary.data.glob("pgsql_tmp_omni_credentials/*"))
    standby = base_backup(primary)
    try:
        assert not list(standby.data.glob("pgsql_tmp_omni_credentials/*"))
        standby.start({VARIABLE: MASTER_KEY})
        replica = Database(standby, db.name)
        session = replica.connect("app")
        assert session.execute(READ).fetchall() == [("n", b"v")]
        assert replica.run("select * from omni_credentials.verify()", user="app") == []
        for statement in (f"insert into {VIEW} (name, value) values ('m', 'w')", f"update {VIEW} set value = 'w'", f"delete from {VIEW}"):
            with refused("25006"):
                replica.run(statement, user="app")
        # What there is of files belongs to the primary.
        assert replica.run(STATUS) == [("team.credentials", None, "a standby keeps no files: ask the primary")]
        before = (standby.data / "team.credentials").read_bytes()
        for function in ("sync", "reload"):
            with refused("25006"):
                replica.run(f"select omni_credentials.credential_file_store_{function}('team.credentials')")
        # A new key and a new secret arrive in a session that is open.
        db.run("select omni_credentials.rotate_key()")
        db.run(f"update {VIEW} set value = 'new'")
        db.run(f"select omni_credentials.rotate_master_secret('{VARIABLE}')")
        db.run(f"insert into {VIEW} (name, value) values ('o', 'other')", user="app")
        eventually(lambda: session.execute(READ).fetchall() == [("n", b"new"), ("o", b"other")])
        # Promoted, it writes.
        assert (standby.data / "team.credentials").read_bytes() == before
        replica.run("select pg_promote()")
        # The file came with the base backup, and is older than the table.
        with refused("40002", '"n"', hint="prefer => 'table'"):
            session.execute(f"update {VIEW} set value = 'after'")
        replica.run("select * from omni_credentials.credential_file_store_reload('team.credentials', prefer => 'table')")
        session.execute(f"update {VIEW} set value = 'after'")
        assert replica.run(READ, user="app") == [("n", b"after"), ("o", b"after")]
        # And keeps its files from here on.
        assert replica.run(STATUS) == [("team.credentials", True, None)]
        assert contents(standby, standby.data / "team.credentials") == {"n": b"after", "o": b"after"}
        session.close()
        replica.close()
        # Without the secret, it says so.
        standby.restart({})
        with refused("F0000", VARIABLE):
            replica.run(READ)
        replica.close()
    finally:
        standby.remove()


@pytest.mark.parametrize("schema", ["omni_credentials", "copy"])
def test_logical_replication(primary: Server, schema: str) -> None:
    """Sealed values and keyring go to another cluster, where they open with the same secret."""
    subscriber = new_server("subscriber", {"wal_level": "logical"})
    try:
        subscriber.start({VARIABLE: MASTER_KEY})
        here, there = fresh_database(primary), fresh_database(subscriber)
        for database in (here, there):
            database.run("create role app login")
            if schema == "copy":
                database.run("create schema copy")
                database.run("select omni_credentials.instantiate('copy')")
        view, table = f"{schema}.credentials", f"{schema}.encrypted_credentials"
        read = f"select name, value, principal::text from {view} order by name"
        here.run(f"insert into {view} (name, value, principal) values ('a', '1', 'app'), ('b', '2', 'postgres')")
        here.run(f"create publication p for table {schema}.credentials_keyrings, {table}")
        session = there.connect()
        assert session.execute(read).fetchall() == []
        there.run(f"create subscription s connection '{primary.conninfo(here.name)}' publication p")
        # Rows may come before the keyring: the tables are copied side by side.
        eventually(lambda: there.run(SYNCHRONISED) == [(True,)])
        assert session.execute(read).fetchall() == [("a", b"1", "app"), ("b", b"2", "postgres")]
        # Changes, deletions, new identities, and a new key in a session that knows the old one.
        here.run(f"update {view} set value = 'new' where name = 'a'")
        here.run(f"delete from {view} where name = 'b'")
        here.run("select omni_credentials.rotate_key(%s::regnamespace)", schema)
        here.run(f"insert into {view} (name, value) values ('c', '3')")
        here.run(f"update {view} set name = 'd' where name = 'c'")
        eventually(lambda: session.execute(f"select name from {view} order by name").fetchall() == [("a",), ("d",)])
        assert session.execute(read).fetchall() == [("a", b"new", "app"), ("d", b"3", "postgres")]
        assert there.run("select * from omni_credentials.verify(%s::regnamespace)", schema) == []
        there.run("drop subscription s")
        # On its own again, it writes with the keyring that came.
        session.execute(f"update {view} set value = 'there'")
        assert there.run(f"select distinct value from {view}") == [(b"there",)]
        here.close()
        there.close()
    finally:
        subscriber.remove()


def test_a_file_store_on_the_subscriber(primary: Server) -> None:
    """No statement trigger fires for what is applied, and nobody tells the backends of a keyring that came: the status
    says so, and a synchronisation writes a file that opens, in a session that knows the older keyring, too."""
    subscriber = new_server("subscriber", {"wal_level": "logical"})
    try:
        subscriber.start({VARIABLE: MASTER_KEY})
        here, there = fresh_database(primary), fresh_database(subscriber)
        here.run(f"insert into {VIEW} (name, value) values ('a', '1'), ('b', '2')")
        here.run("create publication p for table omni_credentials.credentials_keyrings, omni_credentials.encrypted_credentials")
        there.run(f"create subscription s connection '{primary.conninfo(here.name)}' publication p")
        eventually(lambda: there.run(SYNCHRONISED) == [(True,)])
        file = subscriber.data / "replica.credentials"
        # Both have keys in hand. One looks, the other writes: neither learns from the other of a keyring that came.
        looking, writing = there.connect(), there.connect()
        writing.execute("select * from omni_credentials.instantiate_file_store(%s)", (str(file),))
        assert looking.execute(READ).fetchall() == writing.execute(READ).fetchall()

        def status() -> tuple:
            ((_, in_step, reason),) = looking.execute(STATUS).fetchall()
            return in_step, reason

        def sync() -> None:
            writing.execute("select omni_credentials.credential_file_store_sync(%s)", (str(file),))

        assert status() == (True, None)
        # A new row, a deletion, a new key for all; then a truncation and a new secret's wrapping, where no row changes.
        here.run(f"insert into {VIEW} (name, value) values ('c', '3')")
        here.run(f"delete from {VIEW} where name = 'b'")
        here.run("select omni_credentials.rotate_key()")
        here.run(f"insert into {VIEW} (name, value) values ('d', '4')")
        eventually(lambda: there.run(f"select name from {VIEW} order by name") == [("a",), ("c",), ("d",)])
        in_step, reason = status()
        assert in_step is False and "credential_file_store_sync" in reason
        sync()
        assert status() == (True, None)
        assert contents(subscriber, file) == {"a": b"1", "c": b"3", "d": b"4"}
        ((before,),) = there.run("select keyring from omni_credentials.credentials_keyrings")
        here.run(f"select omni_credentials.rotate_master_secret('{VARIABLE}')")
        eventually(lambda: there.run("select keyring from omni_credentials.credentials_keyrings") != [(before,)])
        assert status()[0] is False
        sync()
        assert status() == (True, None)
        here.run("truncate omni_credentials.encrypted_credentials")
        eventually(lambda: there.run(f"select name from {VIEW}") == [])
        assert status()[0] is False
        sync()
        assert status() == (True, None) and live(file) == []
        there.run("drop subscription s")
        here.close()
        there.close()
    finally:
        subscriber.remove()


def test_a_subscriber_that_makes_no_keys(primary: Server) -> None:
    """It would otherwise make a keyring of its own where a write comes before the first keyring of the publisher."""
    subscriber = new_server("subscriber", {"wal_level": "logical", "omni_credentials.create_keys": "off"})
    try:
        subscriber.start({VARIABLE: MASTER_KEY})
        here, there = fresh_database(primary), fresh_database(subscriber)
        here.run("create publication p for table omni_credentials.credentials_keyrings, omni_credentials.encrypted_credentials")
        there.run(f"create subscription s connection '{primary.conninfo(here.name)}' publication p")
        eventually(lambda: there.run(SYNCHRONISED) == [(True,)])
        for statement in (
            f"insert into {VIEW} (name, value) values ('early', '0')",
            "select omni_credentials.set_credential('early', '0')",
            "select * from omni_credentials.instantiate_file_store('team.credentials')",
        ):
            with refused("55000", "makes no keys", hint="create_keys"):
                there.run(statement)
        # No session turns it on, neither after the library was loaded nor before.
        session = there.connect()
        session.execute("set omni_credentials.create_keys = on")
        with refused("55000", "makes no keys"):
            session.execute(f"insert into {VIEW} (name, value) values ('early', '0')")
        with refused("55P02"):
            session.execute("set omni_credentials.create_keys = on")
        here.run(f"insert into {VIEW} (name, value) values ('a', '1')")
        eventually(lambda: there.run(READ) == [("a", b"1")])
        # With the keyring that came, it writes.
        there.run(f"insert into {VIEW} (name, value) values ('b', '2')")
        assert there.run(READ) == [("a", b"1"), ("b", b"2")]
        for function in ("rotate_key()", "use_module()"):
            with refused("55000", "makes no keys"):
                there.run(f"select omni_credentials.{function}")
        there.run("drop subscription s")
        here.close()
        there.close()
    finally:
        subscriber.remove()
