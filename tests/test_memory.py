"""A key derivation needs 64 MiB, and a backend does not keep them."""

from __future__ import annotations

from pathlib import Path

import psycopg
from conftest import Database

# What Argon2id takes with the default costs, in KiB.
DERIVATION = 65_536


def memory(session: psycopg.Connection) -> tuple[int, int]:
    """The backend's own memory now, and the most it ever had resident, in KiB."""
    status = Path(f"/proc/{session.info.backend_pid}/status").read_text()
    lines = dict(line.split(":", 1) for line in status.splitlines())
    return tuple(int(lines[name].split()[0]) for name in ("RssAnon", "VmHWM"))


def test_memory_after_a_derivation(own_db: Database) -> None:
    session = own_db.connect()
    session.execute("select 1")
    before, most = memory(session)
    assert most < DERIVATION, "nothing was derived yet"
    session.execute("insert into omni_credentials.credentials (name, value) values ('a', 'b')")
    assert session.execute("select value from omni_credentials.credentials").fetchall() == [(b"b",)]
    after, most = memory(session)
    assert most > DERIVATION, "a key was derived"
    assert after - before < DERIVATION / 8, f"{after - before} KiB are kept"
