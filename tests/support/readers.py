"""Sessions that read all the while that something else happens to a copy."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import psycopg
from conftest import Database


@contextlib.contextmanager
def undisturbed(database: Database, wrong: str, expected: int) -> Iterator[None]:
    """While the block runs, two isolation levels read all values; each time all `expected` open, and `wrong` counts none."""
    failures: list[object] = []
    counts: list[int] = []
    done = threading.Event()

    def read(isolation: str) -> None:
        session = database.connect(autocommit=False)
        try:
            while not done.is_set():
                session.execute(f"set transaction isolation level {isolation}")
                for _ in range(3):
                    counts.append(session.execute("select count(value) from omni_credentials.credentials").fetchone()[0])
                    failures.extend(row for row in session.execute(wrong).fetchall() if row != (0,))
                session.commit()
        except psycopg.Error as error:
            failures.append(error)

    readers = [threading.Thread(target=read, args=(level,)) for level in ("read committed", "repeatable read")]
    for reader in readers:
        reader.start()
    try:
        yield
    finally:
        done.set()
        for reader in readers:
            reader.join()
    assert not failures
    assert counts and set(counts) == {expected}
