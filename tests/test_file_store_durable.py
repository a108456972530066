"""What survives a loss of power, which no test can cause: in which order a commit reaches the disk."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import pytest
from conftest import Database, fresh_database
from file_stores import contents, in_step, live, mirror, put
from syscalls import Call, trace


def run_alone(db: Database, statement: str) -> list[Call]:
    """Runs a statement in a server of one process, which can be traced, and gives what it did to files."""
    server = db.server
    db.close()
    server.stop()
    settings = server._all_settings() | {"fsync": "on", "wal_sync_method": "fdatasync"}
    options = [item for pair in settings.items() for item in ("-c", "=".join(pair))]
    with tempfile.TemporaryFile() as statements, server.log.open("ab") as log:
        statements.write(statement.encode() + b"\n")
        statements.seek(0)
        return trace(
            [server.installation.bin / "postgres", "--single", "-D", server.data, *options, db.name],
            folder=server.data,
            stdin=statements,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=server._child_environment() | server.environment,
            **server.account.popen,
        )


def places(calls: list[Call], name: str, *paths: Path) -> list[int]:
    return [at for at, call in enumerate(calls) if call == Call(name, paths)]


@pytest.mark.parametrize("synchronous_commit", ["on", "off"])
def test_a_commit_reaches_the_disk_in_order(own_server, synchronous_commit: str) -> None:
    db = fresh_database(own_server)
    file = own_server.data / "ours.credentials"
    put(db, "a", b"1")
    mirror(db, file)
    calls = run_alone(
        db, f"set synchronous_commit = {synchronous_commit}; select omni_credentials.set_credential('b', '2')"
    )

    (renamed,) = (at for at, call in enumerate(calls) if call.name == "rename" and call.paths[1] == file)
    new = calls[renamed].paths[0]
    # The new file is on the disk as a whole,
    (synced,) = places(calls, "fsync", new)
    assert max(places(calls, "write", new)) < synced < renamed
    # and after it what commits the rows,
    logged = [at for at, call in enumerate(calls) if call.name == "fsync" and call.paths[0].parent.name == "pg_wal"]
    assert any(synced < at < renamed for at in logged)
    # before it takes the old one's place, for good, while nobody else may write.
    lasting = [at for at in places(calls, "fsync", own_server.data) if at > renamed]
    (freed,) = places(calls, "unlink", file.with_name(file.name + ".lock"))
    assert lasting and lasting[0] < freed

    own_server.start()
    assert live(file) == ["a", "b"]
    assert in_step(db)
    assert contents(own_server, file) == {"a": b"1", "b": b"2"}
    db.close()


def test_a_transaction_that_fails_has_no_file_in_place(own_server) -> None:
    db = fresh_database(own_server)
    file = own_server.data / "ours.credentials"
    put(db, "a", b"1")
    mirror(db, file)
    db.run("create table t (n int unique deferrable initially deferred)")
    calls = run_alone(
        db, "begin; select omni_credentials.set_credential('b', '2'); insert into t values (1), (1); commit"
    )
    assert not [call for call in calls if call.name == "rename" and file in call.paths]
    own_server.start()
    assert live(file) == ["a"]
    assert in_step(db)
    db.close()
