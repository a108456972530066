"""Dumps of databases with file stores. A restore needs no file, writes none, and takes no missing row for a deletion."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Database, drop_database, fresh_database, new_server
from file_stores import deleted, live, mirror
from test_dump import run
from throwaway import Server

SCHEMAS = ("omni_credentials", "copy")
NAMES = ["a", "b", "c"]


@pytest.fixture
def folder(server: Server, db: Database) -> Path:
    folder = server.folder / f"repository-{db.name}"
    folder.mkdir()
    server.account.own(folder)
    return folder


@pytest.fixture
def source(db: Database, folder: Path) -> Database:
    """The default copy and another one, each with three credentials and a file."""
    db.run("create schema copy")
    db.run("select omni_credentials.instantiate('copy')")
    for schema in SCHEMAS:
        db.run(f"insert into {schema}.credentials (name, value) select unnest(%s::text[]), 'x'", NAMES)
        mirror(db, folder / schema, schema)
    return db


@pytest.fixture
def target(server: Server) -> Iterator[Database]:
    """On the same server: the files are in reach."""
    database = fresh_database(server, extension=False)
    yield database
    drop_database(database)


def dump(source: Database, file: Path, *options: str) -> None:
    run(source.server, "pg_dump", *(options or ("-Fc",)), "-f", str(file), database=source.name)


def restore(target: Database, program: str, *arguments: str) -> None:
    run(target.server, program, *arguments, database=target.name)


def files(folder: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in folder.iterdir()}


def names(database: Database, schema: str) -> list[str]:
    return [name for (name,) in database.run(f"select name from {schema}.encrypted_credentials order by name")]


def status(database: Database, schema: str) -> tuple[bool, str | None]:
    ((step, reason),) = database.run(f"select in_step, reason from {schema}.credential_file_stores")
    return step, reason


@pytest.mark.parametrize("way", ["custom", "row by row", "data only"])
def test_a_restored_file_store_is_suspended(source: Database, target: Database, folder: Path, tmp_path: Path, way: str) -> None:
    dump(source, tmp_path / "dump", *(["--inserts"] if way == "row by row" else []))
    # The files went on since.
    for schema in SCHEMAS:
        source.run(f"insert into {schema}.credentials (name, value) values ('later', 'x')")
    before = files(folder)
    if way == "row by row":
        restore(target, "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", str(tmp_path / "dump"))
    elif way == "custom":
        restore(target, "pg_restore", "--exit-on-error", str(tmp_path / "dump"))
    else:
        # With the triggers of both copies in place.
        target.run("create extension omni_credentials")
        target.run("create schema copy")
        target.run("select omni_credentials.instantiate('copy')")
        restore(target, "pg_restore", "--exit-on-error", "--data-only", str(tmp_path / "dump"))
    for schema in SCHEMAS:
        assert names(target, schema) == NAMES
        step, reason = status(target, schema)
        assert step is False and "came from another database" in reason
        target.run(f"delete from {schema}.credentials where name = 'a'")
    assert files(folder) == before
    # What the reason says takes the file up. What the table lacks is not taken for deleted.
    for schema in SCHEMAS:
        target.run(status(target, schema)[1].rpartition("to load the file: ")[2])
        assert names(target, schema) == ["a", "b", "c", "later"]
        assert status(target, schema) == (True, None)
        target.run(f"delete from {schema}.credentials where name = 'a'")
        assert (live(folder / schema), deleted(folder / schema)) == (["b", "c", "later"], ["a"])


def test_a_database_made_of_another(source: Database, folder: Path) -> None:
    """A copy to try things out in does not write the files of the one it was made of."""
    before = files(folder)
    source.close()
    made = Database(source.server, f"{source.name}_made")
    Database(source.server, "postgres").run(f"create database {made.name} template {source.name}")
    for schema in SCHEMAS:
        step, reason = status(made, schema)
        assert step is False and "is suspended" in reason
        made.run(f"truncate {schema}.encrypted_credentials")
    assert files(folder) == before
    for schema in SCHEMAS:
        assert status(source, schema) == (True, None)
    drop_database(made)


def test_rows_that_did_not_come_along(source: Database, target: Database, folder: Path, tmp_path: Path) -> None:
    """As where their roles are missing. A synchronisation deletes nothing."""
    dump(source, tmp_path / "dump")
    restore(target, "pg_restore", "--exit-on-error", str(tmp_path / "dump"))
    before = files(folder)
    for schema in SCHEMAS:
        target.run(f"truncate {schema}.encrypted_credentials")
        target.run(f"select {schema}.credential_file_store_sync(%s)", str(folder / schema))
        step, reason = status(target, schema)
        assert step is False and "3 changes" in reason
    assert files(folder) == before


@pytest.mark.parametrize("secret", [True, False], ids=["with the secret", "without"])
def test_the_folder_is_not_there(source: Database, target: Database, folder: Path, tmp_path: Path, secret: bool) -> None:
    dump(source, tmp_path / "dump")
    folder.rename(folder.with_name(folder.name + "-elsewhere"))
    keyless = None
    if not secret:
        keyless = new_server("keyless").start({})
        target = fresh_database(keyless, extension=False)
    try:
        restore(target, "pg_restore", "--exit-on-error", str(tmp_path / "dump"))
        for schema in SCHEMAS:
            assert names(target, schema) == NAMES
            assert status(target, schema)[0] is False
            # Changes go on, and so does whoever gives the file up.
            target.run(f"delete from {schema}.encrypted_credentials where name = 'a'")
            target.run("select omni_credentials.detach_file_store(%s, %s::regnamespace)", str(folder / schema), schema)
            assert target.run(f"select * from {schema}.credential_file_stores") == []
        target.close()
    finally:
        if keyless:
            keyless.remove()
