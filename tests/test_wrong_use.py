"""Wrong use: a clear error with a SQLSTATE and a hint, and nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import PASSWORD, VARIABLE, Database, refused

READ = "select name, value from omni_credentials.credentials order by name"
SEALED = "select * from omni_credentials.encrypted_credentials order by name"
WRITE = "insert into omni_credentials.credentials (name, value) values (%s, %b)"


class TestMasterSecret:
    def test_missing(self, own_db: Database) -> None:
        server = own_db.server
        own_db.run(WRITE, "kept", b"value")
        server.restart({"UNRELATED": "x"})
        for attempt in (READ, "insert into omni_credentials.credentials (name, value) values ('new', 'x')"):
            with refused("F0000", f"{VARIABLE} is not set", hint=f"{VARIABLE}_FILE"):
                own_db.run(attempt)
        server.restart({VARIABLE: PASSWORD})
        assert own_db.run(READ) == [("kept", b"value")]

    def test_missing_from_the_start(self, own_db: Database) -> None:
        own_db.server.restart({"UNRELATED": "x"})
        with refused("F0000", f"{VARIABLE} is not set"):
            own_db.run(WRITE, "first", b"value")
        assert own_db.run("select count(*) from omni_credentials.credentials_keyrings") == [(0,)]

    def test_wrong(self, own_db: Database) -> None:
        server = own_db.server
        own_db.run(WRITE, "kept", b"value")
        before = own_db.run(SEALED)
        keyrings = own_db.run("select * from omni_credentials.credentials_keyrings")
        server.restart({VARIABLE: "a wrong guess"})
        for attempt in (
            READ,
            "insert into omni_credentials.credentials (name, value) values ('new', 'x')",
            "update omni_credentials.credentials set value = 'x'",
        ):
            with refused("28P01", VARIABLE, hint="rotate_master_secret"):
                own_db.run(attempt)
        # What needs no key goes on.
        assert own_db.run("select name from omni_credentials.credentials") == [("kept",)]
        server.restart({VARIABLE: PASSWORD})
        assert own_db.run(SEALED) == before
        assert own_db.run("select * from omni_credentials.credentials_keyrings") == keyrings
        assert own_db.run(READ) == [("kept", b"value")]

    def test_from_a_file(self, own_db: Database) -> None:
        server = own_db.server
        own_db.run(WRITE, "kept", b"value")
        file = server.folder / "secret"
        file.write_text(PASSWORD + "\n")
        server.account.own(file)
        server.restart({f"{VARIABLE}_FILE": str(file)})
        assert own_db.run(READ) == [("kept", b"value")]
        file.unlink()
        with refused("58P01", f"{VARIABLE}_FILE", hint="readable"):
            own_db.run(READ)

    @pytest.mark.parametrize("secret", ["", "omck1_not-a-whole-key", "x" * 4097], ids=["empty", "damaged", "long"])
    def test_unusable(self, own_db: Database, secret: str) -> None:
        own_db.server.restart({VARIABLE: secret})
        with refused("28000", VARIABLE, hint="4096"):
            own_db.run(WRITE, "first", b"value")


def plant(db: Database, name: str, sealed: bytes) -> None:
    """Puts bytes into the table past its triggers, as damage or an attacker with the disk would."""
    with db.connect() as session:
        session.execute("set session_replication_role = replica")
        session.execute(
            "insert into omni_credentials.encrypted_credentials (name, value) values (%s, %b)"
            " on conflict (name, kind, principal, scope) do update set value = excluded.value",
            (name, sealed),
        )


class TestGarbageInTheTable:
    JUNK = "insert into omni_credentials.encrypted_credentials (name, value) values ('junk', 'garbage')"

    def test_is_refused_when_written(self, db: Database) -> None:
        db.run(WRITE, "good", b"value")
        before = db.run(SEALED)
        with refused("23514", "credential .*junk", hint="credentials view"):
            db.run(self.JUNK)
        assert db.run(SEALED) == before

    @pytest.mark.parametrize("keyring", [False, True], ids=["before the first credential", "after it"])
    def test_is_refused_to_an_ordinary_role(self, role, db: Database, keyring: bool) -> None:
        app = role("app")
        db.run("select omni_credentials.grant_access(%s::regrole, 'SELECT, INSERT')", app)
        if keyring:
            db.run(WRITE, "good", b"value")
        before = db.run(SEALED)
        # Before the first credential there is no key that could open anything.
        with refused("23514" if keyring else "23514|55000", "junk|keyring", hint="."):
            db.run(self.JUNK, user=app)
        assert db.run(SEALED) == before

    def test_does_not_stop_the_other_rows(self, db: Database) -> None:
        db.run(WRITE, "good", b"value")
        db.run(WRITE, "moved", b"value")
        ((good,),) = db.run("select value from omni_credentials.encrypted_credentials where name = 'good'")
        flipped = good[:-1] + bytes([good[-1] ^ 1])
        damaged = {
            "empty": b"",
            "flipped": flipped,
            "junk": b"garbage",
            "moved": good,
            "short": good[:-1],
            "suite": good[:1] + b"\x09" + good[2:],
            "version": b"\x09" + good[1:],
        }
        for name, sealed in damaged.items():
            plant(db, name, sealed)

        assert db.run("select value from omni_credentials.credentials where name = 'good'") == [(b"value",)]
        for name in damaged:
            with refused("XX001|0A000|42704", f"credential .*{name}", hint="on_unreadable"):
                db.run("select value from omni_credentials.credentials where name = %s", name)

        with db.connect() as session:
            session.execute("set omni_credentials.on_unreadable = 'null'")
            read = dict(session.execute(READ).fetchall())
        assert read == {"good": b"value"} | dict.fromkeys(damaged)

        listed = db.run("select name, reason from omni_credentials.verify() order by name")
        assert [name for name, _ in listed] == sorted(damaged)
        assert all(reason for _, reason in listed)

        with db.connect() as session:
            session.execute("set omni_credentials.on_unreadable = 'null'")
            session.execute("delete from omni_credentials.credentials where name <> 'good'")
        assert db.run(READ) == [("good", b"value")]


def store(db: Database) -> Path:
    """Registers a file store with one credential in it and gives its path."""
    db.run(WRITE, "kept", b"value")
    file = db.server.data / f"{db.name}.omni"
    db.run("select * from omni_credentials.instantiate_file_store(%s)", file.name)
    assert file.exists()
    return file


DAMAGE = {
    "empty": lambda good: b"",
    "not text": lambda good: bytes(range(256)),
    "another format": lambda good: b"stripe: sk-demo\nsmtp: relay\n",
    "truncated": lambda good: good[: len(good) // 2],
    "without its trailer": lambda good: good[: good.index(b"end\n")],
    "one byte of a value": lambda good: flip(good, good.index(b"  value\n") + 14),
    "one byte of the seal": lambda good: flip(good, good.index(b"  seal ") + 30),
    "another name": lambda good: good.replace(b'credential "kept"', b'credential "kepu"'),
    "carriage returns": lambda good: good.replace(b"\n", b"\r\n"),
    "conflict markers": lambda good: b"<<<<<<< ours\n" + good + b"=======\n>>>>>>> theirs\n",
    "a later version": lambda good: good.replace(b"omni-credentials 1", b"omni-credentials 2"),
}


def flip(data: bytes, at: int) -> bytes:
    """Replaces one character of base64 by another."""
    return data[:at] + (b"A" if data[at : at + 1] != b"A" else b"B") + data[at + 1 :]


@pytest.mark.parametrize(
    "call,argument",
    [
        ("instantiate(null)", "schema"),
        ("instantiate('public', null)", "env_var"),
        ("verify(null)", "schema"),
        ("rotate_key(null)", "schema"),
        ("rotate_master_secret(null)", "new_env_var"),
        ("rotate_master_secret('PATH', null)", "schema"),
        ("rename_principal(null, 'postgres')", "old_name"),
        ("rename_principal('x', null)", "principal"),
        ("rename_principal('x', 'postgres', null)", "schema"),
        ("use_module(null)", "schema"),
        ("prune_keyrings(null)", "schema"),
        ("install_module(null, 'x', 'x'::bytea)", "name"),
        ("install_module('x', null, 'x'::bytea)", "wasm"),
        ("install_module('x', 'x', null::bytea)", "digest"),
        ("install_module('x', 'x', null::text)", "digest"),
        ("remove_module(null)", "module"),
        ("instantiate_file_store(null)", "filename"),
        ("instantiate_file_store('x', null)", "schema"),
        ("detach_file_store(null)", "filename"),
        ("detach_file_store('x', null)", "schema"),
        ("file_store_status(null)", "schema"),
        ("credential_file_store_sync(null)", "filename"),
        ("credential_file_store_reload(null)", "filename"),
        ("credential_file_store_reload('x', dry_run => null)", "dry_run"),
        ("grant_access(null)", "grantee"),
        ("grant_access('postgres', null)", "privileges"),
        ("grant_access('postgres', schema => null)", "schema"),
        ("revoke_access(null)", "grantee"),
        ("revoke_access('postgres', null)", "privileges"),
        ("revoke_access('postgres', schema => null)", "schema"),
    ],
)
def test_null_for_what_must_be_given(db: Database, call: str, argument: str) -> None:
    with refused("22004", f"argument {argument} must not be NULL", hint="df"):
        db.run(f"select omni_credentials.{call}")


def test_no_function_that_does_something_is_strict(db: Database) -> None:
    """A NULL would have it do nothing, and say nothing."""
    silent = db.run(
        "select oid::regprocedure::text from pg_proc"
        " where pronamespace = 'omni_credentials'::regnamespace and proisstrict and provolatile = 'v'"
    )
    assert silent == []


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
class TestGarbageFile:
    def test_registered(self, db: Database, damage) -> None:
        file = store(db)
        good = file.read_bytes()
        bad = damage(good)
        assert bad != good
        file.write_bytes(bad)
        with refused("22P04|0A000", file.name, hint="left as it is"):
            db.run("select * from omni_credentials.credential_file_store_reload(%s)", file.name)
        with refused("22P04|0A000", file.name, hint="left as it is"):
            db.run(WRITE, "new", b"value")
        assert file.read_bytes() == bad
        assert db.run(READ) == [("kept", b"value")]

        file.write_bytes(good)
        db.run(WRITE, "new", b"value")
        assert db.run(READ) == [("kept", b"value"), ("new", b"value")]
        assert b'credential "new"' in file.read_bytes()

    def test_new(self, db: Database, damage) -> None:
        bad = damage(store(db).read_bytes())
        other = db.server.data / f"{db.name}-other.omni"
        other.write_bytes(bad)
        db.server.account.own(other)
        with refused("22P04|0A000", other.name, hint="left as it is"):
            db.run("select * from omni_credentials.instantiate_file_store(%s)", other.name)
        assert other.read_bytes() == bad
        assert db.run("select count(*) from omni_credentials.credential_file_stores") == [(1,)]
