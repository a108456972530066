#!/usr/bin/env python3
"""Measures what a user of the extension waits for, side by side in one run, and prints one table of ratios.

Every pair of things compared takes turns, so that a busy machine disturbs both alike; each figure is a median, and for rows
the best. pgcrypto is measured where a Postgres with it is at hand: the chosen one, one below the target folder, or the one
that OMNI_BENCH_PGCRYPTO (a pg_config) names; supabase/vault where `--vault` says (bench/vault.py). `--readme` writes the table
into README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

import file_store
import psycopg
import scale
import vault
from report import Report, seconds
from throwaway import Installation, Server, ServerError

VARIABLE = "OMNI_CREDENTIALS_MASTER_PASSWORD"
# How it was built: `dist` is how packages are.
PROFILE = os.environ.get("OMNI_PROFILE", "release")
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


SANDBOX = "the same code without a sandbox"
VAULT = "supabase/vault, native libsodium"


def component(report: Report) -> None:
    """The core in the sandbox against the core natively."""
    target = Path(os.environ["CARGO_TARGET_DIR"])
    program = target / PROFILE / "omni-credentials-bench-native-vs-component"
    done = subprocess.run([program, target / "modules"], check=True, capture_output=True, text=True)
    targets = {"open 40 B": 1.05, "open 16 KiB": 2.0, "open 1 MiB": 2.5, "Argon2id 64 MiB, 3 passes, 4 lanes": 1.3}
    for line in done.stdout.splitlines()[2:]:
        what, native, inside, _ = (cell.strip() for cell in line.strip("|").split("|"))
        wanted = targets.get(what.removeprefix("xchacha20poly1305: "))
        report.ratio(what, seconds(inside), SANDBOX, seconds(native), wanted, readme=wanted is not None)


# Bytes, rows, and the ratio to reach.
SIZES = ((40, 20_000, 0.7), (1 << 10, 4_000, 1.0), (16 << 10, 400, 1.0), (256 << 10, 30, 1.5))


def against_vault(report: Report, key: str, folder: Path | None) -> None:
    server = Server.create(f"bench-{os.getpid()}-vault")
    try:
        server.settings |= vault.settings(server, folder)
        server.start({VARIABLE: key})
        with connect(server) as session:
            session.execute("create extension omni_credentials")
            session.execute("create extension supabase_vault cascade")
            session.execute("set max_parallel_workers_per_gather = 0")
            rows_against_vault(report, session)
        ones, theirs = "select value from omni_credentials.credentials where name = '40-1'", \
            "select decrypted_secret from vault.decrypted_secrets where name = '40-1'"
        nothing, our_first, their_first = in_turns(
            25, fresh(server, "select 1"), fresh(server, ones), fresh(server, theirs)
        )
        report.ratio(
            "first read of a session, over connecting and `select 1`", (our_first - nothing) / 1e3, VAULT,
            (their_first - nothing) / 1e3, readme=True,
        )
    except vault.NotThere as reason:
        report.figure(VAULT, str(reason))
    finally:
        server.remove()


def rows_against_vault(report: Report, session: psycopg.Connection) -> None:
    for size, count, target in SIZES:
        value = f"repeat(chr(97 + i % 26), {size})"
        ours = run(session, (
            f"insert into omni_credentials.credentials (name, value) select '{size}-' || i, convert_to({value}, 'UTF8') "
            f"from generate_series(1, {count}) i returning 1"
        ))
        theirs = run(session, (
            f"select count(vault.create_secret({value}, '{size}-' || i)) from generate_series(1, {count}) i"
        ))
        session.execute("vacuum analyze")
        if size == 40:
            report.ratio("insert, per row of 40 bytes", ours / count / 1e3, VAULT, theirs / count / 1e3, 1.0, readme=True)
        view = f"select sum(octet_length(value)) from omni_credentials.credentials where name like '{size}-%'"
        their_view = f"select sum(octet_length(decrypted_secret)) from vault.decrypted_secrets where name like '{size}-%'"
        best = [min(times) for times in zip(*((run(session, view), run(session, their_view)) for _ in range(15)), strict=True)]
        name = f"{size} bytes" if size < 1024 else f"{size >> 10} KiB"
        report.ratio(
            f"query of the view, per row of {name}", best[0] / count / 1e3, VAULT, best[1] / count / 1e3, target, readme=True
        )


def files(report: Report) -> None:
    for name, without, mirrored, target in file_store.measured():
        if target:
            report.ratio(name + ", file store", mirrored, "no file store", without, target)
        else:
            report.more(name + ", file store", mirrored, "no file store", without, 0.015, readme=True)


def scans(report: Report, server: Server, rows: int) -> None:
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
    report.ratio(f"scan of {rows} rows through the view", opened / 1e3, "the same, decrypting nothing", sealed / 1e3)
    report.ratio("two sessions at once", together / 1e3, "one session", alone / 1e3)
    two.execute("set omni_credentials.log_reads = on")
    silent, logged = in_turns(3, lambda: run(one, OPENED), lambda: run(two, OPENED))
    report.ratio("the same scan with omni_credentials.log_reads", logged / 1e3, "off", silent / 1e3)
    pgcrypto(report, each, rows // 20)


def pgcrypto(report: Report, each: float, rows: int) -> None:
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
            against = f"pgcrypto's `pgp_sym_decrypt`, Postgres {installation.major}"
            report.ratio("decryption of a row of 40 bytes", each / 1e6, against, theirs / 1e6, 0.025, readme=True)
            return
        except (ServerError, psycopg.Error, OSError) as error:
            print(f"pgcrypto of {installation.pg_config}: {error}", file=sys.stderr)
        finally:
            if server is not None:
                server.remove()
    report.figure("pgcrypto's pgp_sym_decrypt", "not measured", "no Postgres with pgcrypto is at hand")


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


def connections(report: Report, key: str) -> None:
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
            target = {"generated key, library preloaded": 0.0009, "generated key": 0.002}.get(name)
            report.more(
                f"connect and first read: {name}", first / 1e3, "connect and `select 1`", nothing / 1e3, target,
                readme=target is not None,
            )
            if name == "generated key":
                compiled(report, server)
                memory(report, server)


def compiled(report: Report, server: Server) -> None:
    folder = server.data / "pgsql_tmp_omni_credentials"

    def without() -> float:
        shutil.rmtree(folder)
        return fresh(server, FIRST)()

    cached, again = in_turns(5, fresh(server, FIRST), without)
    report.more("first read, with the module compiled again", again / 1e3, "a cached one", cached / 1e3)


def memory(report: Report, server: Server) -> None:
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
    report.figure("memory that a backend keeps after it", f"{kept:.1f} MiB", "private, over one that read sealed rows only (target: 2)")


def swap(report: Report, server: Server, rows: int) -> None:
    wasm = (Path(os.environ["OMNI_CREDENTIALS_MODULES"]) / "aes256gcmsiv.wasm").read_bytes()
    with connect(server) as session:
        session.execute("select omni_credentials.install_module('aes', %s, sha256(%s))", (wasm, wasm))
        there = run(session, "select omni_credentials.use_module(module => 'aes')")
        back = run(session, "select omni_credentials.use_module(module => 'xchacha20poly1305')")
    report.figure(f"use_module with {rows} rows, there and back", f"{there / 1000:.1f} s, {back / 1000:.1f} s")


def cancellation(report: Report, server: Server) -> None:
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
            report.figure(
                f"a looping module ends after {name}", f"{statistics.median(times):.0f} ms",
                f"at most {max(times):.0f} ms (target: 200)",
            )


def history(report: Report, server: Server, rows: int = 2_000) -> None:
    """Updates of credentials whose histories are full, and of the same ones with the history turned off."""
    with connect(server) as session:
        session.execute("create schema history")
        session.execute("select omni_credentials.instantiate('history')")
        session.execute(f"insert into history.credentials (name, value) select 'n' || i, 'v' from generate_series(1, {rows}) i")

        def update(versions: int) -> float:
            session.execute("select history.set_history_limit(%s)", (versions,))
            session.execute("vacuum history.encrypted_credentials, history.encrypted_credential_versions")
            return run(session, "update history.credentials set value = convert_to('v' || random(), 'UTF8') returning 1")

        for _ in range(11):
            update(10)
        with_history, without = in_turns(9, lambda: update(10), lambda: update(0))
        session.execute("drop schema history cascade")
    report.ratio(
        "update, per row, with a history of 10 versions", with_history / rows / 1e3, "no history", without / rows / 1e3, 1.5,
        readme=True,
    )


def command(report: Report, key: str) -> None:
    """The command, as a script calls it again and again."""
    program = Path(os.environ["CARGO_TARGET_DIR"]) / PROFILE / "omni-credentials"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "cache").mkdir()
        environment = os.environ | {VARIABLE: key, "XDG_CACHE_HOME": str(folder / "cache")}

        def call(*arguments: str, given: bytes = b"") -> float:
            begin = time.perf_counter()
            subprocess.run(
                [program, *arguments], input=given, cwd=folder, env=environment, capture_output=True, check=True
            )
            return time.perf_counter() - begin

        call("init")
        for number in range(10):
            call("set", f"n{number}", "--principal", "app", given=b"value")

        def compiled_again() -> float:
            shutil.rmtree(folder / "cache")
            (folder / "cache").mkdir()
            return call("list")

        # Two calls alike, since what comes before a call differs: the first after `compiled_again` reads a new file.
        again, _, listed, got, nothing = in_turns(
            20, compiled_again, lambda: call("list"), lambda: call("list"), lambda: call("get", "n1"),
            lambda: call("--version"),
        )
    against = "`omni-credentials --version`"
    report.more("`omni-credentials list`, 10 credentials", listed, against, nothing, 0.015)
    report.more("`omni-credentials get`", got, against, nothing)
    report.more("`omni-credentials list`, with the module compiled again", again, against, nothing)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--vault", type=Path, help="the folder in which supabase/vault was built")
    parser.add_argument("--readme", action="store_true", help="write the table into README.md")
    parser.add_argument("--scale", type=int, help="only what takes long: so many rows, and other things in number")
    options = parser.parse_args()
    if options.scale:
        for line in scale.measured(options.scale):
            print(line, flush=True)
        return
    report = Report()
    component(report)
    with running("scan", "correct horse battery staple") as server:
        fill(server, options.rows)
        with connect(server) as session:
            key = session.execute("select omni_credentials.generate_master_key()").fetchone()[0]
        scans(report, server, options.rows)
        swap(report, server, options.rows)
        history(report, server)
        cancellation(report, server)
    connections(report, key)
    command(report, key)
    against_vault(report, key, options.vault)
    files(report)
    print()
    report.show()
    if options.readme:
        report.write()


if __name__ == "__main__":
    main()
