"""import_old_file: a file of omni_credentials 0.2.0, in the text format of COPY, with values by pgcrypto."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MASTER_KEY, VARIABLE, Database, drop_database, fresh_database, refused
from owners import instance_of
from test_adopt import FILLED, ROWS, old, old_server  # noqa: F401
from throwaway import Server

IMPORT = "select name, kind, principal, scope, action from omni_credentials.import_old_file(%s)"


@pytest.fixture
def file(old: Database, old_server: Server) -> Path:
    """What the old extension wrote."""
    folder = old_server.data.parent / f"old-{old.name}"
    folder.mkdir()
    old_server.account.own(folder)
    path = folder / "old.credentials"
    old.run(f"copy omni_credentials.encrypted_credentials (name, value, kind, principal, scope) to '{path}' (encoding 'UTF8')")
    return path


@pytest.fixture
def db(old: Database, file: Path) -> Iterator[Database]:
    """A database of the same server with the extension as it is now, and pgcrypto."""
    database = fresh_database(old.server)
    database.run("create schema crypto; create extension pgcrypto schema crypto")
    yield database
    database.run("drop owned by app")
    drop_database(database)


def count(database: Database) -> int:
    ((number,),) = database.run("select count(*) from omni_credentials.credentials")
    return number


def test_it_is_imported_once(db: Database, file: Path) -> None:
    bytes_before = file.read_bytes()
    expected = [("one", "credential", "app", {"all": True}, "import"), ("two", "token[jwt]", "postgres", {"host": "h"}, "import")]
    dry = "select name, kind, principal, scope, action from omni_credentials.import_old_file(%s, dry_run => true)"
    assert db.run(dry, str(file)) == expected
    assert count(db) == 0
    # Twice in one transaction, too.
    with db.connect(autocommit=False) as session:
        assert session.execute(IMPORT, (str(file),)).fetchall() == expected
        assert [row[-1] for row in session.execute(IMPORT, (str(file),)).fetchall()] == ["same", "same"]
    assert db.run(ROWS.format("omni_credentials")) == FILLED
    assert db.run("select count(*) from omni_credentials.credential_versions") == [(0,)]
    assert db.run("select * from omni_credentials.verify()") == []
    assert db.run("select count(*) from pg_class where relname like '%%0.2.0%%'") == [(0,)]
    assert file.read_bytes() == bytes_before
    db.run("drop extension pgcrypto")


def test_what_is_there_stays(db: Database, file: Path) -> None:
    db.run("select omni_credentials.set_credential('two', 'another', 'token[jwt]', scope => '{\"host\": \"h\"}')")
    with refused("23505", "other values for 1 of the credentials in file .*: two", hint="Nothing was imported"):
        db.run(IMPORT, str(file))
    assert count(db) == 1
    assert db.run("select name, action from omni_credentials.import_old_file(%s, dry_run => true)", str(file)) == [
        ("one", "import"), ("two", "differs")
    ]


def test_all_or_nothing(db: Database, file: Path) -> None:
    text = file.read_text()
    for name, changed, sqlstate, message in (
        ("role", text.replace("\tapp\t", "\tgone-1\t") + text.replace("\tpostgres\t", "\tgone-2\t"), "42704", "do not exist here: gone-1, gone-2"),
        ("kind", text.replace("token[jwt]", "of_our_own"), "22P02", "of_our_own"),
        ("value", re.sub(r"(two\t\\\\x)..", r"\g<1>00", text), "39000|22P02|22021", ""),
        ("twice", text + text.replace("one\t", "uno\t", 1).replace("two\t\\\\x", "one\t\\\\x").replace("token[jwt]\tpostgres\t{\"host\": \"h\"}",
            "credential\tapp\t{\"all\": true}"), "23505", "other values"),
        ("null", text.replace("two", "\\N"), "22P04", "is not in the format of omni_credentials 0.2.0"),
        ("more", text.replace("\n", "\tmore\n"), "22P04", "is not in the format"),
        ("scope", text.replace('{"host": "h"}', "{"), "22P04", "is not in the format"),
        ("new", "omni-credentials 1\n", "22P04", "is not in the format"),
    ):
        other = file.with_name(name)
        other.write_text(changed)
        other.chmod(0o644)
        for call in (IMPORT, IMPORT.replace("(%s)", "(%s, dry_run => true)")):
            if name == "twice" and "dry_run" in call:
                continue
            with refused(sqlstate, message):
                db.run(call, str(other))
        assert count(db) == 0, name
    with refused("58P01"):
        db.run(IMPORT, "/nowhere/file")
    with refused("22004"):
        db.run(IMPORT, None)
    with refused("42704|3F000|55000"):
        db.run("select omni_credentials.import_old_file(%s, 'public')", str(file))


def test_another_secret(old: Database, db: Database, file: Path) -> None:
    other = file.with_name("other.credentials")
    old.run(f"copy mine.encrypted_credentials (name, value, kind, principal, scope) to '{other}' (encoding 'UTF8')")
    with refused("39000", "Wrong key or corrupt data"):
        db.run(IMPORT, str(other))
    with refused("F0000", "NOT_SET is not set"):
        db.run("select omni_credentials.import_old_file(%s, env_var => 'NOT_SET')", str(other))
    assert count(db) == 0
    assert len(db.run("select omni_credentials.import_old_file(%s, env_var => 'OTHER')", str(other))) == 2
    assert db.run(ROWS.format("omni_credentials")) == FILLED


def test_who_may(db: Database, file: Path) -> None:
    """The owner of an instance who may read the server's files, with a variable that it may use."""
    db.run("create role keeper login")
    try:
        instance_of(db, "keeper")
        db.run("grant execute on all functions in schema omni_credentials to keeper")
        call = "select name from omni_credentials.import_old_file(%s, 'mine', env_var => %s)"
        with refused("42501", "COPY"):
            db.run(call, str(file), None, user="keeper")
        db.run("grant pg_read_server_files, app to keeper; grant usage on schema crypto to keeper")
        with refused("42501", "permission denied for table encrypted_credentials"):
            db.run("select name from omni_credentials.import_old_file(%s)", str(file), user="keeper")
        with refused("42501", "variable"):
            db.run(call, str(file), "OTHER", user="keeper")
        assert db.run(call, str(file), None, user="keeper") == [("one",), ("two",)]
        # Its code does not run with the rights of a superuser.
        with refused("42501", "belong to role keeper"):
            db.run(call, str(file), None)
        # The function behind it asks for the same.
        sealed = file.read_text().split("\t")[1].replace("\\\\", "\\")
        behind = "select omni_credentials.open_old_value(%s, %s, %s::bytea)"
        assert db.run(behind, "mine", VARIABLE, sealed, user="keeper") == [("v\\x41",)]
        for schema, variable in (("omni_credentials", VARIABLE), ("mine", "OTHER")):
            with refused("42501"):
                db.run(behind, schema, variable, sealed, user="keeper")
        db.run("grant execute on function omni_credentials.open_old_value to app; grant usage on schema omni_credentials to app")
        with refused("42501"):
            db.run(behind, "mine", VARIABLE, sealed, user="app")
    finally:
        db.run("drop owned by keeper cascade; drop role keeper")


def test_only_pgcrypto_gets_the_secret(db: Database, file: Path) -> None:
    """Any role may own that extension, and put its own functions there."""
    db.run("drop extension pgcrypto")
    db.run("create role mallory login; grant create on schema public, crypto to mallory")
    try:
        trap = "create function {}.pgp_sym_decrypt(bytea, text) returns text language plpgsql as $$ begin raise 'trap %', $2; end $$"
        for schema in ("public", "crypto"):
            db.run(trap.format(schema), user="mallory")
        with refused("42883", "extension pgcrypto has no function pgp_sym_decrypt", hint="create extension pgcrypto"):
            db.run(IMPORT, str(file))
        db.run("drop function crypto.pgp_sym_decrypt; create extension pgcrypto schema crypto")
        assert len(db.run(IMPORT, str(file))) == 2
        db.run("alter extension pgcrypto drop function crypto.pgp_sym_decrypt(bytea, text); drop function crypto.pgp_sym_decrypt(bytea, text)")
        db.run(trap.format("crypto"), user="mallory")
        db.run("alter extension pgcrypto add function crypto.pgp_sym_decrypt(bytea, text)")
        with refused("42883", "that belongs to a superuser") as caught:
            db.run(IMPORT, str(file))
        assert MASTER_KEY not in str(caught.error)
    finally:
        db.run("drop extension if exists pgcrypto; drop owned by mallory; drop role mallory")


def test_it_is_no_file_store(db: Database, file: Path) -> None:
    """Nor is it written."""
    before = file.read_bytes()
    with refused("22P04", "this is not an encrypted credentials file", hint="import_old_file"):
        db.run("select omni_credentials.instantiate_file_store(%s)", str(file))
    assert file.read_bytes() == before


def test_the_page(db: Database, file: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "coming-from.md").read_text()
    (block,) = [block for block in re.findall(r"```sql\n(.*?)```", page, re.S) if "import_old_file" in block]
    db.run("drop extension pgcrypto")
    for statement in block.replace("/srv/old.credentials", str(file)).split(";")[:-1]:
        db.run(statement)
    assert db.run(ROWS.format("omni_credentials")) == FILLED
