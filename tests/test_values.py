"""Values and names as applications have them, through the view and back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import Database, refused

CERTIFICATE = (Path(__file__).parents[1] / "demo" / "certificate.pem").read_bytes()
LIMIT = 1024 * 1024

VALUES = {
    "api_key": b"sk-demo-4f9Zk2vXw8Rb7TqN1mYc6Lp3",
    "certificate": CERTIFICATE,
    "every_byte": bytes(range(256)),
    "empty": b"",
    "one_nul": b"\x00",
    # The neighbours of the padding's bucket of 32 bytes.
    "31_bytes": b"x" * 31,
    "32_bytes": b"x" * 32,
    "looks_padded": b"\x80" + b"\x00" * 31,
    "one_mebibyte": os.urandom(LIMIT),
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
def test_value_comes_back_unchanged(db: Database, value: bytes) -> None:
    db.run("insert into omni_credentials.credentials (name, value) values ('v', %b)", value)
    # A session of its own, so that nothing is remembered.
    assert db.run("select value from omni_credentials.credentials where name = 'v'") == [(value,)]
    ((sealed,),) = db.run("select value from omni_credentials.encrypted_credentials where name = 'v'")
    assert len(value) < 8 or value not in sealed
    assert sealed[:2] == b"\x01\x01"


def test_length_shows_as_a_bucket_only(db: Database) -> None:
    for length in (0, 1, 31, 32, 63):
        db.run("insert into omni_credentials.credentials (name, value) values (%s, %b)", str(length), b"x" * length)
    sizes = dict(db.run("select name, octet_length(value) from omni_credentials.encrypted_credentials"))
    assert sizes["0"] == sizes["1"] == sizes["31"]
    assert sizes["32"] == sizes["63"] == sizes["0"] + 32


def test_value_over_the_limit_is_refused(db: Database) -> None:
    with refused("54000", "value of credential", hint="1048576"):
        db.run("insert into omni_credentials.credentials (name, value) values ('big', %b)", os.urandom(LIMIT + 1))
    assert db.run("select count(*) from omni_credentials.encrypted_credentials") == [(0,)]


@pytest.mark.parametrize(
    "name", ["stripe", "päyments/ключ/鍵🔑", "with 'quotes' and \"more\"", "line\nbreak\ttab", "n" * 512], ids=ascii
)
def test_name_of_any_characters(db: Database, name: str) -> None:
    db.run("insert into omni_credentials.credentials (name, value) values (%s, 'secret')", name)
    assert db.run("select name, value from omni_credentials.credentials") == [(name, b"secret")]


@pytest.mark.parametrize("name", ["", "n" * 513], ids=["empty", "513 bytes"])
def test_name_outside_the_limits_is_refused(db: Database, name: str) -> None:
    with refused("54000", "name of credential", hint="512"):
        db.run("insert into omni_credentials.credentials (name, value) values (%s, 'secret')", name)


def test_same_name_in_two_kinds_and_scopes(db: Database) -> None:
    rows = [
        ("api_key", '{"all": true}', b"1"),
        ("password", '{"all": true}', b"2"),
        ("password", '{"host": "a.example.com"}', b"3"),
    ]
    for kind, scope, value in rows:
        db.run(
            "insert into omni_credentials.credentials (name, kind, scope, value) values ('db', %s, %s, %b)",
            kind,
            scope,
            value,
        )
    read = db.run("select value from omni_credentials.credentials order by value")
    assert read == [(b"1",), (b"2",), (b"3",)]
    with refused("23505"):
        # The same scope, written in another way.
        db.run(
            "insert into omni_credentials.credentials (name, kind, scope, value) "
            """values ('db', 'password', '{ "host":"\\u0061.example.com" }', 'x')"""
        )
