#!/usr/bin/env python3
"""Measures what a user of the extension waits for, side by side in one run, and prints one table of ratios.

Every pair of things compared takes turns, so that a busy machine disturbs both alike; each figure is a median. pgcrypto is
measured where a Postgres with it is at hand: the chosen one, one below the target folder, or the one that
OMNI_BENCH_PGCRYPTO (a pg_config) names.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

import psycopg
from throwaway import Installation, Server, ServerError

VARIABLE = "OMNI_CREDENTIALS_MASTER_PASSWORD"
# Values of 40 bytes, as API keys have.
VALUE = "repeat(chr(97 + i % 26), 40)"


@contextlib.contextmanager
def running(name: str, secret: str, settings: dict[str, str] | None = None) -> Iterator[Server]:
    server = Server.create(f"bench-{os.getpid()}-{name}", settings)
    try:
        yield server.start({VARIABLE: secret})
    finally:
        server.remove()


def connect(server: Server) -> psycopg.Connection:
    return psycopg.connect(server.conninfo(), autocommit=True)


def run(session: psycopg.Connection, statement: str) -> float:
    """Milliseconds."""
    begin = time.perf_counter()
    session.execute(statement).fetchall()
    return (time.perf_counter() - begin) * 1000


def in_turns(repeat: int, *measures: Callable[[], float]) -> list[float]:
    """The median of each, after one round that does not count."""
    rounds = [[measure() for measure in measures] for _ in range(repeat + 1)][1:]
    return [statistics.median(column) for column in zip(*rounds, strict=True)]


def fill(server: Server, rows: int) -> None:
    with connect(server) as session:
        session.execute("create extension if not exists omni_credentials")
        session.execute(
            "insert into omni_credentials.credentials (name, value) "
            f"select 'n' || i, convert_to({VALUE}, 'UTF8') from generate_series(1, {rows}) i"
        )
        session.execute("vacuum analyze omni_credentials.encrypted_credentials")


SEALED = "select sum(length(value)) from omni_credentials.encrypted_credentials"
OPENED = "select sum(length(value)) from omni_credentials.credentials"
FIRST = "select value from omni_credentials.credentials where name = 'n1'"


class Table:
    def __init__(self) -> None:
        self.lines: list[tuple[str, str, str]] = []

    def add(self, what: str, figure: str, ratio: str) -> None:
        self.lines.append((what, figure, ratio))

    def show(self) -> None:
        widths = [max(len(line[n]) for line in self.lines) for n in range(3)]
        for what, figure, ratio in self.lines:
            print(f"{what:<{widths[0]}}  {figure:>{widths[1]}}  {ratio}")


def scans(table: Table, server: Server, rows: int) -> None:
    one, two = connect(server), connect(server)
    for session in (one, two):
        session.execute("set max_parallel_workers_per_gather = 0")
    sealed, opened = in_turns(5, lambda: run(one, SEALED), lambda: run(one, OPENED))

    def both() -> float:
        begin = time.perf_counter()
        threads = [threading.Thread(target=run, args=(session, OPENED)) for session in (one, two)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return (time.perf_counter() - begin) * 1000

    alone, together = in_turns(3, lambda: run(one, OPENED), both)
    each = (opened - sealed) / rows * 1000
    table.add(f"scan of {rows} rows, decrypting nothing", f"{sealed:.1f} ms", "1")
    table.add("  the same through the view", f"{opened:.1f} ms", f"{opened / sealed:.1f} times")
    table.add("  decryption of a row of 40 bytes", f"{each:.2f} µs", "")
    table.add("  two sessions at once", f"{together:.1f} ms", f"{together / alone:.2f} times one session")
    pgcrypto(table, each, rows // 20)


def pgcrypto(table: Table, each: float, rows: int) -> None:
    """What a user of pgcrypto would write: a table with encrypted values, and a view over it."""
    for installation in with_pgcrypto():
        server = None
        try:
            server = other_server(installation)
            with connect(server) as session:
                session.execute("create extension pgcrypto")
                session.execute("set max_parallel_workers_per_gather = 0")
                session.execute(
                    "create table sealed as select 'n' || i as name, pgp_sym_encrypt("
                    f"{VALUE}, 'correct horse battery staple') as value from generate_series(1, {rows}) i"
                )
                session.execute(
                    "create view opened as select name, pgp_sym_decrypt(value, 'correct horse battery staple') as value "
                    "from sealed"
                )
                sealed, opened = in_turns(
                    3,
                    lambda: run(session, "select sum(length(value)) from sealed"),
                    lambda: run(session, "select sum(length(value)) from opened"),
                )
            theirs = (opened - sealed) / rows * 1000
            name = f"  pgcrypto's pgp_sym_decrypt (Postgres {installation.major})"
            table.add(name, f"{theirs:.2f} µs", f"{theirs / each:.0f} times ours (target: 40 or more)")
            return
        except (ServerError, psycopg.Error, OSError) as error:
            print(f"pgcrypto of {installation.pg_config}: {error}", file=sys.stderr)
        finally:
            if server is not None:
                server.remove()
    table.add("  pgcrypto's pgp_sym_decrypt", "not measured", "no Postgres with pgcrypto is at hand")


def with_pgcrypto() -> Iterator[Installation]:
    chosen = Installation.from_environment()
    below = sorted((chosen.target / "pg").glob("*/bin/pg_config"), reverse=True)
    named = [Path(os.environ["OMNI_BENCH_PGCRYPTO"])] if "OMNI_BENCH_PGCRYPTO" in os.environ else []
    system = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_config"), reverse=True)
    for pg_config in (*named, chosen.pg_config, *below, *system):
        installation = Installation(pg_config, chosen.target)
        with contextlib.suppress(OSError, ValueError, IndexError, ServerError):
            if (Path(installation.ask("sharedir")) / "extension" / "pgcrypto.control").exists():
                yield installation


def other_server(installation: Installation) -> Server:
    before = os.environ["OMNI_PG_CONFIG"]
    os.environ["OMNI_PG_CONFIG"] = str(installation.pg_config)
    try:
        return Server.create(f"bench-{os.getpid()}-pgcrypto").start({})
    finally:
        os.environ["OMNI_PG_CONFIG"] = before


def fresh(server: Server, statement: str) -> Callable[[], float]:
    def measure() -> float:
        begin = time.perf_counter()
        with connect(server) as session:
            session.execute(statement).fetchall()
        return (time.perf_counter() - begin) * 1000

    return measure


def connections(table: Table, key: str) -> None:
    password = "correct horse battery staple"
    cases = (
        ("generated key, library preloaded", key, {"shared_preload_libraries": "omni_credentials"}),
        ("generated key", key, {}),
        ("password, library preloaded", password, {"shared_preload_libraries": "omni_credentials"}),
        ("password, sharing by a segment", password, {}),
        ("password, no sharing", password, {"dynamic_shared_memory_type": "mmap"}),
    )
    for name, secret, settings in cases:
        with running("connect", secret, settings) as server:
            fill(server, 10)
            nothing, first = in_turns(15, fresh(server, "select 1"), fresh(server, FIRST))
            table.add(f"connect and first read: {name}", f"{first:.1f} ms", f"{first - nothing:+.1f} ms over select 1")
            if name == "generated key":
                compiled(table, server)
                memory(table, server)


def compiled(table: Table, server: Server) -> None:
    folder = server.data / "pgsql_tmp_omni_credentials"

    def without() -> float:
        shutil.rmtree(folder)
        return fresh(server, FIRST)()

    cached, anew = in_turns(5, fresh(server, FIRST), without)
    table.add("  with the module compiled anew", f"{anew:.1f} ms", f"{anew - cached:+.1f} ms over a cached one")


def memory(table: Table, server: Server) -> None:
    def private(session: psycopg.Connection) -> int:
        rollup = Path(f"/proc/{session.info.backend_pid}/smaps_rollup").read_text()
        return sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_"))

    # Another reader, so that the library's own pages count as what they are: shared.
    with connect(server) as plain, connect(server) as reader, connect(server) as another:
        for session in (plain, reader, another):
            session.execute("select name from omni_credentials.encrypted_credentials").fetchall()
        for session in (another, reader):
            session.execute(FIRST).fetchall()
        kept = (private(reader) - private(plain)) / 1024
    table.add("memory that a backend keeps after it", f"{kept:.1f} MiB", "private, over one that read sealed rows only (target: 4)")


def swap(table: Table, server: Server, rows: int) -> None:
    wasm = (Path(os.environ["OMNI_CREDENTIALS_MODULES"]) / "aes256gcmsiv.wasm").read_bytes()
    with connect(server) as session:
        session.execute("select omni_credentials.install_module('aes', %s, sha256(%s))", (wasm, wasm))
        there = run(session, "select omni_credentials.use_module(module => 'aes')")
        back = run(session, "select omni_credentials.use_module(module => 'xchacha20poly1305')")
    table.add(f"use_module with {rows} rows, there and back", f"{there / 1000:.1f} s, {back / 1000:.1f} s", "")


def cancellation(table: Table, server: Server) -> None:
    """How long a module that loops goes on after it was asked to stop."""
    wasm = (Path(os.environ["OMNI_CREDENTIALS_MODULES"]) / "hostile" / "loop.wasm").read_bytes()
    with connect(server) as admin:
        admin.execute("create schema looping; select omni_credentials.instantiate('looping')")
        admin.execute("insert into looping.encrypted_credentials (name, value) values ('a', 'b')")
        admin.execute(
            "insert into omni_credentials.crypto_modules (digest, wasm, name, version, contract, suite) "
            "values (sha256(%s), %s, 'loop', '', '', '')",
            (wasm, wasm),
        )
        admin.execute("insert into looping.credentials_keyrings values (1, sha256(%s), 'keyring')", (wasm,))

        def stopped(how: str) -> float:
            asked = 0.0
            with connect(server) as session:
                if how == "timeout":
                    session.execute("set statement_timeout = '100ms'")
                    asked = time.perf_counter() + 0.1

                def ask() -> None:
                    nonlocal asked
                    time.sleep(0.1)
                    asked = time.perf_counter()
                    admin.execute(f"select {how}(%s)", (session.info.backend_pid,))

                asking = threading.Thread(target=ask)
                if how != "timeout":
                    asking.start()
                with contextlib.suppress(psycopg.Error):
                    session.execute("select value from looping.credentials")
                end = time.perf_counter()
                if how != "timeout":
                    asking.join()
            return (end - asked) * 1000

        for how in ("timeout", "pg_cancel_backend", "pg_terminate_backend"):
            times = [stopped(how) for _ in range(7)]
            name = "statement_timeout" if how == "timeout" else how
            table.add(
                f"a looping module ends after {name}", f"{statistics.median(times):.0f} ms",
                f"at most {max(times):.0f} ms (target: 200)",
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    rows = parser.parse_args().rows
    table = Table()
    with running("scan", "correct horse battery staple") as server:
        fill(server, rows)
        with connect(server) as session:
            key = session.execute("select omni_credentials.generate_master_key()").fetchone()[0]
        scans(table, server, rows)
        swap(table, server, rows)
        cancellation(table, server)
    connections(table, key)
    table.show()


if __name__ == "__main__":
    main()
