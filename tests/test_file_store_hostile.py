"""Every hostile file of conformance/vectors through SQL: refused with its class, with file and table left as they are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import psycopg
import pytest
from conftest import Database, refused
from file_stores import SEALED, mirror, put

VECTORS = Path(__file__).parents[1] / "conformance" / "vectors" / "hostile"
# What only shows with the key. The vectors have a keyring of their own, which this server has no secret for, so that
# they are refused one step earlier.
NEED_A_KEY = {"seal-mismatch", "unknown-key"}


def cases(suite: str) -> list[tuple[str, str, int]]:
    manifest = json.loads((VECTORS / suite / "manifest.json").read_text())
    return [
        (case["name"], case["class"], case["line"])
        for case in manifest["cases"]
        if (VECTORS / suite / f"{case['name']}.credentials").exists()
    ]


def attempts(file: Path) -> dict[str, tuple[str, tuple]]:
    return {
        "reload": ("select * from omni_credentials.credential_file_store_reload(%s)", (str(file),)),
        "prefer file": ("select * from omni_credentials.credential_file_store_reload(%s, prefer => 'file')", (str(file),)),
        "dry run": ("select * from omni_credentials.credential_file_store_reload(%s, dry_run => true)", (str(file),)),
        "commit": ("select omni_credentials.set_credential('new', 'x')", ()),
        "sync": ("select omni_credentials.credential_file_store_sync(%s)", (str(file),)),
    }


def test_every_file(db: Database) -> None:
    file = db.server.data / f"{db.name}.credentials"
    put(db, "kept", b"value")
    mirror(db, file)
    everything = "select * from omni_credentials.credentials_files", "select * from omni_credentials.credentials_keyrings"
    before = [db.run(statement) for statement in (SEALED, *everything)]
    messages: dict[str, set[str]] = {}
    seen = 0
    with db.connect() as session:
        for name, cause, line in cases("xchacha20poly1305"):
            hostile = (VECTORS / "xchacha20poly1305" / f"{name}.credentials").read_bytes()
            file.write_bytes(hostile)
            for what, (statement, parameters) in attempts(file).items():
                with pytest.raises(psycopg.Error) as caught:
                    session.execute(statement, parameters)
                error = caught.value
                told = f"{name} ({cause}), {what}: {error.sqlstate} {error.diag.message_primary}"
                if cause in NEED_A_KEY:
                    assert error.sqlstate in ("28P01", "22P04", "28000"), told
                elif cause in ("unknown-version", "unknown-suite"):
                    assert error.sqlstate == "0A000", told
                else:
                    assert error.sqlstate in ("22P04", "28P01") if line == 0 else error.sqlstate == "22P04", told
                assert error.diag.message_hint, told
                assert file.read_bytes() == hostile, told
                if error.sqlstate != "28P01":
                    if line:
                        assert re.search(rf"\bline {line}\b", error.diag.message_primary), f"{told}, not line {line}"
                    messages.setdefault(cause, set()).add(re.sub(r"\d+", "N", error.diag.message_primary))
                seen += 1
            # The status says it too, instead of failing.
            ((step, reason),) = session.execute(
                "select in_step, reason from omni_credentials.credential_file_stores"
            ).fetchall()
            assert not step and reason, name
        after = [session.execute(statement).fetchall() for statement in (SEALED, *everything)]
    assert after == before
    assert seen > 300
    # Each class has words of its own.
    for cause, texts in messages.items():
        for other, others in messages.items():
            assert cause == other or not texts & others, (cause, other, texts & others)


def test_every_file_of_the_other_suite(db: Database) -> None:
    file = db.server.data / f"{db.name}.credentials"
    put(db, "kept", b"value")
    before = db.run(SEALED)
    with db.connect() as session:
        for name, _, _ in cases("aes256gcmsiv"):
            hostile = (VECTORS / "aes256gcmsiv" / f"{name}.credentials").read_bytes()
            file.write_bytes(hostile)
            with refused("0A000|22P04", "file store"):
                session.execute("select * from omni_credentials.instantiate_file_store(%s)", (str(file),))
            assert file.read_bytes() == hostile, name
    assert db.run(SEALED) == before
    assert db.run("select count(*) from omni_credentials.credentials_files") == [(0,)]


def test_more_credentials_than_a_file_holds(db: Database) -> None:
    file = db.server.data / f"{db.name}.credentials"
    put(db, "kept", b"value")
    mirror(db, file)
    before = file.read_bytes()
    with db.connect() as session:
        # One sealed value for all: what the file says of them does not matter, that there are too many does.
        with session.transaction(force_rollback=True):
            session.execute("set local session_replication_role = replica")
            session.execute(
                "insert into omni_credentials.encrypted_credentials (name, value)"
                " select 'n' || n, value from generate_series(1, 100000) n, omni_credentials.encrypted_credentials"
            )
            session.execute("set local session_replication_role = origin")
            session.execute("select omni_credentials.credential_file_store_sync(%s)", (str(file),))
            with refused("54000", "cannot hold all credentials.*records", hint="100000.*detach_file_store"):
                session.execute("commit")
    assert file.read_bytes() == before
