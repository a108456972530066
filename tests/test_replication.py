"""Replicas: a standby reads, logical replication carries what is sealed and its keyring."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conftest import MASTER_KEY, VARIABLE, Database, fresh_database, new_server, refused
from standbys import base_backup, eventually
from throwaway import Server

VIEW = "omni_credentials.credentials"
READ = f"select name, value from {VIEW} order by name"


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
        # A new key and a new secret arrive in a session that is open.
        db.run("select omni_credentials.rotate_key()")
        db.run(f"update {VIEW} set value = 'new'")
        db.run(f"select omni_credentials.rotate_master_secret('{VARIABLE}')")
        db.run(f"insert into {VIEW} (name, value) values ('o', 'other')", user="app")
        eventually(lambda: session.execute(READ).fetchall() == [("n", b"new"), ("o", b"other")])
        # Promoted, it writes.
        replica.run("select pg_promote()")
        session.execute(f"update {VIEW} set value = 'after'")
        assert replica.run(READ, user="app") == [("n", b"after"), ("o", b"after")]
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
        synchronised = "select count(*) = 2 and bool_and(srsubstate = 'r') from pg_subscription_rel"
        eventually(lambda: there.run(synchronised) == [(True,)])
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
