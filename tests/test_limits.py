"""Names and scopes of any characters within the limits; beyond them a clear error before anything is written."""

from __future__ import annotations

import json
import os

import pytest
from conftest import Database, refused

VIEW = "omni_credentials.credentials"
TABLE = "omni_credentials.encrypted_credentials"
INSERT = f"insert into {VIEW} (name, value, scope) values (%s, %b, %s)"

NAMES = {
    "quotes": "a'b\"c`d$1%s",
    "backslashes": "\\x00\\",
    "controls": "\x01\x1f\x7f",
    "spaces": "  a  b  ",
    "right to left": "מפתח",
    "combining": "e\u0301 is not \u00e9",
    "astral": "🔑" * 128,
    "limit": "n" * 512,
    "random": os.urandom(256).hex(),
}
SCOPES = {
    "null": None,
    "string": "",
    "number": 0,
    "big number": int("9" * 600),
    "false": False,
    "empty object": {},
    "empty array": [],
    "nested": json.loads("[" * 31 + "1" + "]" * 31),
    "odd keys": {"": 1, '"': 2, "\\": 3, "ключ": "🔑", " a": None},
    "limit": "s" * 2046,
}
TOO_MUCH = {
    "text": ("s" * 2047, "scope"),
    "many": (list(range(1000)), "scope"),
    "compressible": ("0" * 100_000, "scope"),
    "deep": (json.loads("[" * 33 + "]" * 33), "scope"),
    "big number": (int("9" * 3000), "scope"),
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_names(db: Database, name: str) -> None:
    db.run(INSERT, name, b"v", '{"all": true}')
    assert db.run(f"select value from {VIEW} where name = %s", name) == [(b"v",)]
    db.run(f"update {VIEW} set value = 'w'")
    assert db.run("select * from omni_credentials.verify()") == []


@pytest.mark.parametrize("scope", SCOPES.values(), ids=SCOPES.keys())
def test_scopes(db: Database, scope: object) -> None:
    # The longest name, so that the index has to hold both.
    db.run(INSERT, "n" * 512, b"v", json.dumps(scope))
    assert db.run(f"select value, scope from {VIEW} where scope = %s", json.dumps(scope)) == [(b"v", scope)]
    assert db.run("select * from omni_credentials.verify()") == []


@pytest.mark.parametrize("scope,field", TOO_MUCH.values(), ids=TOO_MUCH.keys())
def test_too_much_scope(db: Database, scope: object, field: str) -> None:
    # With a keyring, so that sealed values are looked at.
    db.run(INSERT, "first", b"v", "1")
    before = db.run("select * from omni_credentials.credentials_keyrings")
    for statement, parameters in (
        (INSERT, ("named", b"v", json.dumps(scope))),
        ("select omni_credentials.set_credential(%s, %b, scope => %s)", ("named", b"v", json.dumps(scope))),
        (f"insert into {TABLE} (name, value, scope) values (%s, %b, %s)", ("named", b"v", json.dumps(scope))),
    ):
        with refused("54000|23514", f'{field} of credential "named"|credential "named"'):
            db.run(statement, *parameters)
    with refused("54000", f'{field} of credential "named"', hint="scope 2048"):
        db.run(INSERT, "named", b"v", json.dumps(scope))
    assert db.run(f"select name from {TABLE}") == [("first",)]
    assert db.run("select * from omni_credentials.credentials_keyrings") == before


@pytest.mark.parametrize("length", [513, 2700, 8192, 1_000_000])
def test_too_long_name(db: Database, length: int) -> None:
    """Some of these lengths break a btree, which would say so in its own words."""
    db.run(INSERT, "short", b"v", "1")
    for statement in (
        f"insert into {VIEW} (name, value) values (%s, 'v')",
        "select omni_credentials.set_credential(%s, 'v')",
        f"update {VIEW} set name = %s",
        f"insert into {TABLE} (name, value) values (%s, 'v')",
        f"update {TABLE} set name = %s",
    ):
        # Incompressible, so that TOAST does not help.
        with refused("54000|23514", "credential") as refusal:
            db.run(statement, os.urandom(length).hex()[:length])
        # The message shows what is needed to find it, not all of it.
        assert len(str(refusal.error)) < 1000
    with refused("54000", "^name of credential "):
        db.run(f"insert into {VIEW} (name, value) values (%s, 'v')", "n" * length)
    assert db.run(f"select name, value from {VIEW}") == [("short", b"v")]


def test_value_limit_on_every_way(db: Database) -> None:
    whole, more = os.urandom(1024 * 1024), os.urandom(1024 * 1024 + 1)
    db.run("select omni_credentials.set_credential('n', %b)", whole)
    assert db.run(f"select value from {VIEW}") == [(whole,)]
    for statement in (
        "select omni_credentials.set_credential('n', %b)",
        f"update {VIEW} set value = %b",
        f"insert into {VIEW} (name, value) values ('m', %b)",
    ):
        with refused("54000", "value of credential .*1048577 bytes", hint="1048576"):
            db.run(statement, more)
    assert db.run(f"select name, value from {VIEW}") == [("n", whole)]


def test_many_large_values_in_one_session(db: Database) -> None:
    """Memory that one took is there for the next."""
    session = db.connect()
    for number in range(24):
        session.execute(f"insert into {VIEW} (name, value) values (%s, %b)", (str(number), os.urandom(1024 * 1024)))
    assert session.execute(f"select sum(octet_length(value)) from {VIEW}").fetchone() == (24 * 1024 * 1024,)
    session.execute(f"update {VIEW} set value = value || ''")
    session.execute("select omni_credentials.rotate_key()")
    assert session.execute("select count(*) from omni_credentials.verify()").fetchone() == (0,)
