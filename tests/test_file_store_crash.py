"""Crashes around a commit: a backend killed and a server stopped at once, at any moment of a busy session.

OMNI_CRASH_ROUNDS=200 makes it the long test.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time

import psycopg
from conftest import MASTER_KEY, VARIABLE, Database, fresh_database, new_server
from file_stores import contents, deleted, in_step, leftovers, live, mirror

ROUNDS = int(os.environ.get("OMNI_CRASH_ROUNDS", "12"))
WRITERS = 3
SLOTS = 8


class Writer(threading.Thread):
    """Changes its own credentials, one transaction after another, and remembers what was certainly committed."""

    def __init__(self, db: Database, who: int, number: random.Random, state: dict[str, bytes | None]) -> None:
        super().__init__()
        self.db, self.who, self.number, self.state = db, who, number, state
        self.unsure: dict[str, bytes | None] = {}
        self.pid = 0
        self.commits = 0

    def run(self) -> None:
        # The server goes away in the middle of something.
        with contextlib.suppress(psycopg.OperationalError):
            with self.db.connect() as session:
                self.pid = session.info.backend_pid
                while True:
                    self.change(session)

    def change(self, session: psycopg.Connection) -> None:
        names = [f"w{self.who}-{self.number.randrange(SLOTS)}" for _ in range(self.number.choice((1, 1, 3)))]
        wanted = {name: self.number.choice((self.number.randbytes(40), None)) for name in names}
        self.unsure = wanted
        with session.transaction():
            for name, value in wanted.items():
                if value is None:
                    session.execute("delete from omni_credentials.credentials where name = %s", (name,))
                else:
                    session.execute("select omni_credentials.set_credential(%s, %b)", (name, value))
        self.state.update(wanted)
        self.unsure = {}
        self.commits += 1


def present(state: dict[str, bytes | None]) -> dict[str, bytes]:
    return {name: value for name, value in state.items() if value is not None}


def test_nothing_committed_is_lost() -> None:
    seed = int(os.environ.get("OMNI_CRASH_SEED", "0")) or random.randrange(2**32)
    print(f"OMNI_CRASH_SEED={seed}")
    number = random.Random(seed)
    # The data itself must survive a stop without a checkpoint, not a loss of power: fsync stays off.
    server = new_server("crash", {"restart_after_crash": "on"})
    server.start({VARIABLE: MASTER_KEY})
    try:
        db = fresh_database(server)
        file = server.data / "crash.credentials"
        mirror(db, file)
        db.run("select omni_credentials.set_credential('anchor', 'x')")
        states: list[dict[str, bytes | None]] = [{} for _ in range(WRITERS)]
        seen = {"behind": 0, "stale lock": 0, "commits": 0}
        for round_ in range(ROUNDS):
            writers = [Writer(db, who, number, states[who]) for who in range(WRITERS)]
            for writer in writers:
                writer.start()
            time.sleep(number.uniform(0.02, 0.2))
            if round_ % 2:
                server.stop(signal.SIGQUIT)
            else:
                while not (pids := [writer.pid for writer in writers if writer.pid]):
                    time.sleep(0.01)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number.choice(pids), signal.SIGKILL)
            for writer in writers:
                writer.join(60)
                assert not writer.is_alive(), "a writer waits for ever"
                seen["commits"] += writer.commits
            db.close()
            if not server.running():
                server.start()
            wait_until_ready(db)

            found = {"anchor": b"x"}
            actual = dict(db.run("select name, value from omni_credentials.credentials"))
            for writer in writers:
                # The transaction that was cut off is there as a whole or not at all.
                mine = {name: value for name, value in actual.items() if name.startswith(f"w{writer.who}-")}
                before, after = writer.state, writer.state | writer.unsure
                assert mine in (present(before), present(after)), (seed, round_)
                writer.state.clear()
                writer.state.update(mine)
                found |= mine
            assert actual == found

            # Whatever is there now is a whole file: a reader sees the old one or the new one.
            text = file.read_text()
            assert text.startswith("omni-credentials 1\n") and text.splitlines()[-1].startswith("  seal "), (seed, round_)
            said = in_step(db)
            assert not said or sorted(live(file)) == sorted(found), (seed, round_)
            seen["behind"] += not said
            seen["stale lock"] += bool(leftovers(server.data))
            # One synchronisation, by itself or with the next change.
            if number.random() < 0.5:
                db.run("select omni_credentials.credential_file_store_sync(%s)", str(file))
            else:
                db.run("select omni_credentials.set_credential('anchor', %b)", b"x")
            assert sorted(live(file)) == sorted(found), (seed, round_)
            assert not set(deleted(file)) & set(found)
            assert leftovers(server.data) == [], (seed, round_)
            assert in_step(db)
            if round_ % 10 == 0:
                assert contents(server, file) == found
        assert contents(server, file) == dict(db.run("select name, value from omni_credentials.credentials"))
        print(f"{ROUNDS} crashes: {seen}")
    finally:
        server.remove()


def wait_until_ready(db: Database) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            db.run("select 1")
            return
        except psycopg.OperationalError:
            assert time.monotonic() < deadline, "the server does not recover"
            time.sleep(0.02)
