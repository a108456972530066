"""Keyrings as another server may send them, and sessions that change rows as an apply worker does."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

import psycopg
from conftest import Database

KEYRINGS = "omni_credentials.credentials_keyrings"
TABLE = "omni_credentials.encrypted_credentials"
VIEW = "omni_credentials.credentials"
# What a keyring that does not open here can be, made from one that does: SQLSTATE, and its module and bytes.
CLOSED: dict[str, tuple[str, Callable[[bytes, bytes], tuple[bytes, bytes]]]] = {
    "altered": ("XX001", lambda module, good: (module, good[:-1] + bytes([good[-1] ^ 1]))),
    "garbage": ("XX001", lambda module, _: (module, b"\x00")),
    # Another salt: the master secret gives another KEK.
    "another secret": ("28P01", lambda module, good: (module, good[:10] + bytes([good[10] ^ 1]) + good[11:])),
    "another module": ("42704", lambda _, good: (hashlib.sha256(b"unknown").digest(), good)),
}


def replica(db: Database, **options: str) -> tuple[psycopg.Connection, list[str]]:
    """A session in which only those triggers fire that fire for an apply worker, and the warnings that it gets."""
    session = db.connect(**options)
    warnings: list[str] = []
    session.add_notice_handler(lambda notice: warnings.append(notice.message_primary or ""))
    session.execute("set session_replication_role = replica")
    return session, warnings


def stored(db: Database) -> list[tuple[int, bytes, bytes, str]]:
    return db.run(f"select number, module, keyring, id::text from {KEYRINGS} order by number, id")


def ids(db: Database) -> set[str]:
    return {id for (*_, id) in stored(db)}


def arrive(db: Database, number: int, module: bytes, keyring: bytes, count: int = 1) -> list[str]:
    """Keyrings that replication brings."""
    session, _ = replica(db)
    made = session.execute(
        f"insert into {KEYRINGS} (number, module, keyring) select %s, %b, %b from generate_series(1, %s) returning id::text",
        (number, module, keyring, count),
    ).fetchall()
    session.close()
    return [id for (id,) in made]


def send_closed(db: Database, kind: str, number: int | None = None) -> str:
    """One that does not open, above the others unless a number is given."""
    highest, module, good, _ = stored(db)[-1]
    (id,) = arrive(db, highest + 1 if number is None else number, *CLOSED[kind][1](module, good))
    return id


def put(db: Database, name: str, value: str) -> None:
    db.run("select omni_credentials.set_credential(%s, %s)", name, value)


def read(db: Database) -> dict[str, str]:
    return dict(db.run(f"select name, convert_from(value, 'UTF8') from {VIEW}"))


def unguarded(db: Database, statement: str, *parameters: object, table: str = KEYRINGS) -> None:
    """A change past the triggers, as by an accident."""
    with db.connect(autocommit=False) as session:
        triggers = session.execute(
            "select quote_ident(tgname), case tgenabled when 'A' then 'enable always' else 'enable' end"
            " from pg_trigger where tgrelid = %s::regclass", (table,),
        ).fetchall()
        # It would enable them again.
        session.execute("alter event trigger omni_credentials_keep_restorable disable")
        for name, _ in triggers:
            session.execute(f"alter table {table} disable trigger {name}")
        session.execute(statement, parameters or None)
        session.execute("alter event trigger omni_credentials_keep_restorable enable")
        for name, enable in triggers:
            session.execute(f"alter table {table} {enable} trigger {name}")


def delete_of(error: psycopg.Error) -> str:
    """The DELETE that a hint gives."""
    found = re.search(r"delete from \S+ where id = '[^']*'", error.diag.message_hint or "")
    assert found, error.diag.message_hint
    return found[0]


def orphaned(db: Database, kind: str) -> str:
    """Value a is sealed with a superseded keyring that does not open any more, b with the current one."""
    put(db, "a", "1")
    ((sealed,),) = db.run(f"select value from {TABLE}")
    ((_, module, good, old),) = stored(db)
    db.run("select omni_credentials.use_module()")
    put(db, "b", "2")
    unguarded(db, f"update {TABLE} set value = %b where name = 'a'", sealed, table=TABLE)
    unguarded(db, f"update {KEYRINGS} set (module, keyring) = (%b, %b) where id = %s", *CLOSED[kind][1](module, good), old)
    return old
