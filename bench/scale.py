"""What takes long to measure, `./just bench --scale N`: N rows, two workers, 200 sessions that read first at once, a
hundred instances or N / 1,000 in one backend, and a backend that goes on for N reads and N / 10 writes."""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / folder) for folder in ("tests", "tests/support", "tools")]

import psycopg  # noqa: E402
from conftest import MASTER_KEY, VARIABLE, fresh_database, new_server  # noqa: E402

INSERT = (
    "insert into omni_credentials.credentials (name, value)"
    " select 'c' || n, convert_to('value ' || n, 'utf8') from generate_series(%s::int, %s::int) n"
)
SUM = "select sum(length(value)) from omni_credentials.credentials"
SESSIONS = 200
INSTANCES = 100
BATCH = 10_000


def private(session: psycopg.Connection) -> float:
    """MiB that the backend has for itself."""
    status = Path(f"/proc/{session.info.backend_pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:")) / 1024


def timed(session: psycopg.Connection, statement: str) -> float:
    started = time.perf_counter()
    session.execute(statement).fetchall()
    return time.perf_counter() - started


def rows(db, count: int) -> Iterator[str]:
    """The cost of a row at some sizes, and with two workers at the last."""
    with db.connect() as session:
        done = 0
        for size in (count // 100, count // 10, count):
            session.execute(INSERT, (done + 1, size))
            done = size
            session.execute("analyze omni_credentials.encrypted_credentials")
            session.execute("set max_parallel_workers_per_gather = 0")
            alone = min(timed(session, SUM) for _ in range(3))
            yield f"{size:,} rows: {alone / size * 1e6:.2f} µs a row"
        # Two processes read: the leader only gathers.
        session.execute(
            "set max_parallel_workers_per_gather = 2; set parallel_leader_participation = off;"
            " set parallel_setup_cost = 0; set parallel_tuple_cost = 0; set min_parallel_table_scan_size = 0"
        )
        together = min(timed(session, SUM) for _ in range(3))
        yield f"two workers: {alone / together:.2f} times as fast"


def at_once(db) -> Iterator[str]:
    """Sessions that have not read yet, all at once."""
    sessions = [db.connect() for _ in range(SESSIONS)]
    took = []
    start = threading.Barrier(SESSIONS)

    def read(session: psycopg.Connection) -> None:
        start.wait()
        took.append(timed(session, "select value from omni_credentials.credentials where name = 'c1'"))

    threads = [threading.Thread(target=read, args=(session,)) for session in sessions]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = time.perf_counter() - started
    kept = statistics.median(private(session) for session in sessions)
    yield f"{len(took)} of {SESSIONS} first reads at once: {total:.2f} s, median {statistics.median(took):.2f} s, {kept:.1f} MiB each"
    for session in sessions:
        session.close()


def instances(db, count: int) -> Iterator[str]:
    names = [f"i{number}" for number in range(count)]
    with db.connect() as session:
        for name in names:
            session.execute(f"create schema {name}")
            session.execute("select omni_credentials.instantiate(%s::regnamespace, %s, 8192, 1, 1)", (name, VARIABLE))
            session.execute(f"select {name}.set_credential('a', 'x')")
    with db.connect() as session:
        for number, name in enumerate(names, 1):
            session.execute(f"select value from {name}.credentials")
            if number in (1, count // 10, count // 2, count):
                yield f"{number} instances read in one backend: {private(session):.1f} MiB"


def soak(db, count: int) -> Iterator[str]:
    batch = min(BATCH, count)
    with db.connect() as session:
        for done in range(0, count, batch):
            few = f"select value from omni_credentials.credentials limit {batch}"
            session.execute(f"select sum(length(value)) from ({few}) as few").fetchall()
            session.execute(
                "update omni_credentials.credentials set value = convert_to(%s, 'utf8') where name in"
                " (select 'c' || n from generate_series(1, %s) n)",
                (str(done), batch // 10),
            )
            if done // batch % max(1, count // batch // 10) == 0 or done + batch >= count:
                yield f"{done + batch:,} reads and {(done + batch) // 10:,} writes in one backend: {private(session):.1f} MiB"


def measured(count: int) -> Iterator[str]:
    for kind, secret in (("generated key", MASTER_KEY), ("password", "correct horse battery staple")):
        server = new_server("bench-scale", {"max_connections": "250"}).start({VARIABLE: secret})
        try:
            db = fresh_database(server)
            with db.connect() as session:
                session.execute(INSERT, (1, 1))
            server.restart()
            for line in at_once(db):
                yield f"{kind}: {line}"
            if kind == "generated key":
                with db.connect() as session:
                    session.execute("delete from omni_credentials.credentials")
                yield from rows(db, count)
                yield from soak(db, count)
                yield from instances(db, max(INSTANCES, count // 1000))
        finally:
            server.remove()
