"""Physical standbys of a throw-away server."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

from conftest import Database
from throwaway import Server


def base_backup(primary: Server, settings: dict[str, str] | None = None) -> Server:
    """A standby that streams from `primary`, not started. The caller removes it."""
    standby = Server.create(primary.name + "-standby", settings, initdb=False)
    done = subprocess.run(
        [str(primary.installation.bin / "pg_basebackup"), "-h", str(primary.socket), "-U", "postgres",
         "-D", str(standby.data), "-R", "-c", "fast", "-X", "stream"],
        env=primary.client_environment(), capture_output=True, text=True, cwd="/", **primary.account.popen, check=False,
    )
    assert done.returncode == 0, done.stderr
    return standby


def catch_up(primary: Database, replica: Database) -> None:
    """Waits until the standby has replayed all that the primary has written."""
    ((position,),) = primary.run("select pg_current_wal_flush_lsn()::text")
    eventually(lambda: replica.run("select pg_last_wal_replay_lsn() >= %s::pg_lsn", position) == [(True,)])


def eventually(check: Callable[[], bool]) -> None:
    """Waits until `check` holds; fails after a minute."""
    deadline = time.monotonic() + 60
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.05)
