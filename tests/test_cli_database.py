"""The command and a database on the same file: each takes over what the other wrote, and neither loses anything."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from command import PATIENCE, PROGRAM, Folder, beside, own
from conftest import Database


@pytest.fixture
def folder(db: Database) -> Folder:
    return beside(db)


def reload(db: Database, folder: Folder) -> None:
    own(db, folder)
    db.run("select * from omni_credentials.credential_file_store_reload(%s)", str(folder.file))


def table(db: Database) -> dict[str, bytes]:
    return dict(db.run("select name, value from omni_credentials.credentials"))


def file(folder: Folder) -> dict[str, bytes]:
    shown = folder.run("list", "--json").json["credentials"]
    return {it["name"]: folder.get(it["name"]) for it in shown}


def insert(db: Database, name: str, value: bytes) -> None:
    db.run("select omni_credentials.set_credential(%s, %s)", name, value)


def test_from_the_table_to_the_file_and_back(db: Database, folder: Folder) -> None:
    insert(db, "stripe", b"sk_live")
    insert(db, "aws", b"\x00\xff")
    db.run("select omni_credentials.instantiate_file_store(%s)", str(folder.file))
    assert file(folder) == {"stripe": b"sk_live", "aws": b"\x00\xff"}
    reload(db, folder)
    sealed = {it["name"]: it["sealed"] for it in folder.run("show", "--json").json["credentials"]}

    folder.run("set", "stripe", "--principal", "postgres", stdin=b"sk_new")
    folder.run("set", "new", "--principal", "postgres", stdin=b"n")
    reload(db, folder)
    assert table(db) == {"stripe": b"sk_new", "aws": b"\x00\xff", "new": b"n"}
    after = {it["name"]: it["sealed"] for it in folder.run("show", "--json").json["credentials"]}
    assert after["aws"] == sealed["aws"], "an untouched record was sealed again"

    folder.run("rm", "aws")
    reload(db, folder)
    assert set(table(db)) == {"stripe", "new"}
    db.run("delete from omni_credentials.credentials where name = 'new'")
    assert set(file(folder)) == {"stripe"}
    folder.run("verify")


def test_from_the_file_to_the_table(db: Database, folder: Folder) -> None:
    folder.run("init")
    folder.run("set", "a", "--principal", "postgres", stdin=b"1")
    folder.run("set", "elsewhere", "--principal", "no_such_role", stdin=b"2")
    own(db, folder)
    db.run("select omni_credentials.instantiate_file_store(%s)", str(folder.file))
    assert table(db) == {"a": b"1"}
    insert(db, "b", b"3")
    assert file(folder) == {"a": b"1", "b": b"3", "elsewhere": b"2"}, "what the table cannot hold stays in the file"


def test_one_role_each(role: Callable[..., str], db: Database, folder: Folder) -> None:
    """The principal in the file is the role's name."""
    app = role("app")
    folder.run("init")
    folder.run("set", "mine", stdin=b"1", PGUSER=app)
    own(db, folder)
    db.run("select omni_credentials.instantiate_file_store(%s)", str(folder.file))
    db.run("select omni_credentials.grant_access(%s::regrole)", app)
    assert db.run("select name, value from omni_credentials.credentials", user=app) == [("mine", b"1")]


def test_in_random_order(db: Database, folder: Folder) -> None:
    """Both change the file in turn; what each reads is what was written last."""
    db.run("select omni_credentials.instantiate_file_store(%s)", str(folder.file))
    dice, expected = random.Random(7), {}
    for step in range(40):
        name, value = f"c{dice.randrange(6)}", str(step).encode()
        by_command, delete = dice.random() < 0.5, name in expected and dice.random() < 0.3
        if by_command and delete:
            folder.run("rm", name)
        elif by_command:
            folder.run("set", name, "--principal", "postgres", stdin=value)
        elif delete:
            db.run("delete from omni_credentials.credentials where name = %s", name)
        else:
            insert(db, name, value)
        expected.pop(name, None) if delete else expected.update({name: value})
        reload(db, folder)
        assert table(db) == expected == file(folder), f"step {step}"
    folder.run("verify")


def test_both_at_once(db: Database, folder: Folder) -> None:
    """Writers of both sorts, at the same time: the lock keeps them apart, and all of it is in the file."""
    insert(db, "first", b"0")
    db.run("select omni_credentials.instantiate_file_store(%s)", str(folder.file))
    own(db, folder)
    count = 15
    commands = [
        subprocess.Popen(
            [PROGRAM, "set", f"command{n}", "--principal", "postgres", "--wait", "60"],
            cwd=folder.path, env=folder.environment, stdin=subprocess.PIPE, **db.server.account.popen,
        )
        for n in range(count)
        if reachable(db)
    ]
    if not commands:
        pytest.skip("the server's user cannot run the command from where it is built")
    for n, command in enumerate(commands):
        command.stdin.write(str(n).encode())
        command.stdin.close()
    for n in range(count):
        insert_until_taken(db, f"table{n}", str(n).encode())
    for command in commands:
        assert command.wait(timeout=PATIENCE) == 0
    reload(db, folder)
    expected = {f"{side}{n}": str(n).encode() for side in ("command", "table") for n in range(count)}
    expected["first"] = b"0"
    assert table(db) == expected == file(folder)
    assert folder.leftovers() == []


def reachable(db: Database) -> bool:
    return db.server.account.reaches(Path(PROGRAM)) and os.access(PROGRAM, os.X_OK)


def insert_until_taken(db: Database, name: str, value: bytes) -> None:
    for _ in range(50):
        try:
            return insert(db, name, value)
        except psycopg.errors.LockNotAvailable:
            continue
    pytest.fail("the file stayed locked")
