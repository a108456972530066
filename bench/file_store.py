"""What a file store costs: the same transactions with and without one. Each number is the best of several."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / folder) for folder in ("tests", "tests/support", "tools")]

import psycopg  # noqa: E402
from conftest import MASTER_KEY, VARIABLE, drop_database, fresh_database, new_server  # noqa: E402

REPEAT = 3
# How often one row is changed in a database.
ONES = 10
INSERT = "insert into omni_credentials.credentials (name, value) values (%s, %b)"
UPDATE = "update omni_credentials.credentials set value = %b where name = %s"
MANY = (
    "insert into omni_credentials.credentials (name, value)"
    " select 'c' || n, convert_to('value ' || n, 'utf8') from generate_series(1, 10000) n"
)


def insert_each(count: int) -> Callable[[psycopg.Connection], None]:
    """Single-row statements in one transaction."""

    def run(session: psycopg.Connection) -> None:
        with session.transaction():
            for n in range(count):
                session.execute(INSERT, (f"n{n}", b"value"))

    return run


def update_each(count: int) -> Callable[[psycopg.Connection], None]:
    def run(session: psycopg.Connection) -> None:
        with session.transaction():
            for n in range(count):
                session.execute(UPDATE, (b"changed", f"c{n + 1}"))

    return run


def update_at_once(count: int) -> Callable[[psycopg.Connection], None]:
    """One statement."""

    def run(session: psycopg.Connection) -> None:
        session.execute(
            "update omni_credentials.credentials set value = 'changed'"
            " where name in (select 'c' || n from generate_series(1, %s) n)",
            (count,),
        )

    return run


def update_one(session: psycopg.Connection) -> None:
    """A transaction each."""
    for n in range(ONES):
        session.execute(UPDATE, (b"changed", f"c{n + 77}"))


CASES = {
    "1,000 rows inserted, one by one": (False, insert_each(1_000), 3.0),
    "10,000 rows inserted, one by one": (False, insert_each(10_000), 2.0),
    "1,000 of 10,000 rows changed, one by one": (True, update_each(1_000), 3.0),
    "10,000 of 10,000 rows changed, one by one": (True, update_each(10_000), 2.0),
    "1,000 of 10,000 rows changed, one statement": (True, update_at_once(1_000), 3.0),
    "10,000 of 10,000 rows changed, one statement": (True, update_at_once(10_000), 2.0),
    "1 of 10,000 rows changed": (True, update_one, None),
}


def measure(server, full: bool, mirrored: bool, run: Callable[[psycopg.Connection], None]) -> float:
    """Seconds until the transaction is committed, in a session that has made a change before."""
    db = fresh_database(server)
    try:
        with db.connect() as session:
            if full:
                session.execute(MANY)
            if mirrored:
                session.execute("select * from omni_credentials.instantiate_file_store(%s)", (f"{db.name}.credentials",))
            session.execute(INSERT, ("warm", b"x"))
            started = time.perf_counter()
            run(session)
            took = time.perf_counter() - started
            return took / ONES if run is update_one else took
    finally:
        drop_database(db)


def measured() -> Iterator[tuple[str, float, float, float | None]]:
    """For each case its name, seconds without and with a file store, and the ratio to reach if there is one."""
    server = new_server("bench-file-store").start({VARIABLE: MASTER_KEY})
    try:
        for name, (full, run, target) in CASES.items():
            # In turns, so that a busy machine disturbs both alike.
            rounds = [[measure(server, full, on, run) for on in (False, True)] for _ in range(REPEAT)]
            without, mirrored = (min(column) for column in zip(*rounds, strict=True))
            yield name, without, mirrored, target
    finally:
        server.remove()
