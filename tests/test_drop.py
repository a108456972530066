"""DROP EXTENSION never destroys sealed data in silence."""

from __future__ import annotations

import pytest
from conftest import Database, refused

VIEW = "omni_credentials.credentials"
TABLE = "omni_credentials.encrypted_credentials"


WAYS = ["drop extension omni_credentials", "drop extension omni_credentials cascade", "drop schema omni_credentials cascade"]


@pytest.mark.parametrize("drop", WAYS)
def test_with_credentials_in_it(db: Database, drop: str) -> None:
    db.run(f"insert into {VIEW} (name, value) values ('n', 'v')")
    with refused("2BP01", "holds credentials", hint=f"truncate {TABLE}"):
        db.run(drop)
    assert db.run(f"select value from {VIEW}") == [(b"v",)]
    # What the hint says works.
    db.run(f"truncate {TABLE}")
    db.run(drop)
    assert db.run(f"select to_regclass('{TABLE}')::text") == [(None,)]
    db.run("create extension omni_credentials")
    db.run(f"insert into {VIEW} (name, value) values ('n', 'v')")


def test_in_a_transaction_with_the_delete(db: Database) -> None:
    db.run(f"insert into {VIEW} (name, value) values ('n', 'v')")
    session = db.connect(autocommit=False)
    session.execute(f"delete from {VIEW}")
    session.execute("drop extension omni_credentials")
    session.rollback()
    assert db.run(f"select value from {VIEW}") == [(b"v",)]


@pytest.mark.parametrize("statement", [f"drop table {TABLE} cascade", f"drop view {VIEW}"])
def test_parts_of_the_extension(db: Database, statement: str) -> None:
    db.run(f"insert into {VIEW} (name, value) values ('n', 'v')")
    with refused("2BP01", "because extension omni_credentials requires it"):
        db.run(statement)


def test_by_drop_owned(db: Database) -> None:
    """The extension goes with its owner's things, unless it holds credentials."""
    db.run("create role installer superuser")
    try:
        db.run("drop extension omni_credentials")
        with db.connect() as session:
            session.execute("set role installer")
            session.execute("create extension omni_credentials")
            session.execute(f"insert into {VIEW} (name, value) values ('n', 'v')")
        with refused("2BP01", "holds credentials"):
            db.run("drop owned by installer cascade")
        assert db.run(f"select count(*) from {TABLE}") == [(1,)]
        db.run(f"truncate {TABLE}")
        db.run("drop owned by installer cascade")
        assert db.run(f"select to_regclass('{TABLE}')::text") == [(None,)]
    finally:
        db.run("drop owned by installer cascade")
        db.run("drop role installer")


def test_with_a_copy(db: Database) -> None:
    db.run("create schema app")
    db.run("select omni_credentials.instantiate('app')")
    db.run("insert into app.credentials (name, value) values ('n', 'v')")
    with refused("2BP01", "other objects depend on it", hint="CASCADE"):
        db.run("drop extension omni_credentials")
    sealed = db.run("select * from app.encrypted_credentials"), db.run("select * from app.credentials_keyrings")
    # The copy's tables belong to the database: CASCADE takes what needs the library, and leaves what is sealed.
    db.run("drop extension omni_credentials cascade")
    assert (db.run("select * from app.encrypted_credentials"), db.run("select * from app.credentials_keyrings")) == sealed
    # With the extension back, a fresh copy takes over rows and keyring.
    db.run("create extension omni_credentials")
    db.run("alter schema app rename to old")
    db.run("create schema app")
    db.run("select omni_credentials.instantiate('app')")
    db.run("insert into app.credentials_keyrings select * from old.credentials_keyrings")
    db.run(
        "insert into app.encrypted_credentials (name, value, kind, principal, scope)"
        " select name, value, kind::text::app.credential_kind, principal, scope from old.encrypted_credentials"
    )
    assert db.run("select name, value from app.credentials") == [("n", b"v")]


def test_other_extensions_are_not_kept(db: Database) -> None:
    db.run(f"insert into {VIEW} (name, value) values ('n', 'v')")
    db.run("create extension pageinspect")
    db.run("drop extension pageinspect")


def test_a_copy_is_dropped_like_any_schema(db: Database) -> None:
    db.run("create schema app")
    db.run("select omni_credentials.instantiate('app')")
    db.run("insert into app.credentials (name, value) values ('n', 'v')")
    session = db.connect()
    session.execute("select value from app.credentials")
    session.execute("drop schema app cascade")
    assert session.execute(f"select count(*) from {VIEW}").fetchone() == (0,)
