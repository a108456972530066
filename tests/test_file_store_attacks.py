"""File stores against the account that owns the folder, and against roles that may write to an instance's tables."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from conftest import Database, refused
from file_stores import (
    INSERT,
    RELOAD,
    STATUS,
    contents,
    deleted,
    edit,
    in_threads,
    leftovers,
    live,
    mirror,
    mirrored,
    put,
    remove,
)
from test_modules import install

# The account that owns the folder.
ATTACKER = 65534
# How often the server writes while links are swapped.
ROUNDS = 200
FILES = "in role pg_read_server_files, pg_write_server_files"

# Swaps the file for a link and back, at once and whenever a lock appears, until its standard input ends.
RACER = """
import os, select, sys
folder, target, account = sys.argv[1:]
os.setgroups([])
os.setgid(int(account))
os.setuid(int(account))
file, link, kept = (os.path.join(folder, name) for name in ("f.credentials", "link", "kept"))
rounds = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    rounds += 1
    try:
        if rounds % 2 or os.path.lexists(file + ".lock"):
            os.symlink(target, link)
            os.rename(file, kept)
            os.rename(link, file)
        for name in os.listdir(folder):
            if rounds % 5 == 0 and name.endswith(".tmp"):
                os.unlink(os.path.join(folder, name))
                os.symlink(target, os.path.join(folder, name))
    except OSError:
        pass
    try:
        if os.path.islink(file):
            os.rename(kept, file)
    except OSError:
        pass
    try:
        os.unlink(link)
    except OSError:
        pass
print(rounds)
"""


@pytest.fixture
def folder(db: Database) -> Path:
    """A folder of another account, which the server may write to."""
    if os.geteuid() != 0:
        pytest.skip("needs a second account")
    folder = db.server.folder / f"files-{db.name}"
    folder.mkdir()
    os.chown(folder, ATTACKER, -1)
    folder.chmod(0o777)
    return folder


def link(path: Path, target: Path | str) -> None:
    path.symlink_to(target)
    os.lchown(path, ATTACKER, -1)


class TestLinks:
    def test_a_file_that_becomes_a_link_to_nowhere(self, db: Database, folder: Path) -> None:
        file, signal = folder / "f.credentials", db.server.data / "standby.signal"
        put(db, "a", b"1")
        mirror(db, file)
        file.unlink()
        link(file, signal)
        with refused("42501", "belongs to another account", hint="without symbolic links"):
            put(db, "b", b"2")
        assert not signal.exists() and leftovers(folder) == []
        ((name, step, reason),) = db.run(STATUS)
        assert (name, step) == (str(file), False) and "another account" in reason
        file.unlink()
        put(db, "b", b"2")
        assert live(file) == ["a", "b"]

    def test_a_folder_that_becomes_a_link(self, db: Database, folder: Path) -> None:
        inner = folder / "inner"
        inner.mkdir(mode=0o777)
        inner.chmod(0o777)
        file = inner / "f.credentials"
        put(db, "a", b"1")
        mirror(db, file)
        inner.rename(folder / "away")
        link(inner, db.server.data)
        with refused("42501", "belongs to another account"):
            put(db, "b", b"2")
        assert not (db.server.data / "f.credentials").exists()

    def test_links_of_the_server_do_not_lead_into_its_data(self, db: Database, folder: Path) -> None:
        file = folder / "f.credentials"
        file.symlink_to(db.server.data / "f.credentials")
        put(db, "a", b"1")
        with refused("42501", "leads into the data directory"):
            mirror(db, file)

    @pytest.mark.parametrize(
        "name",
        ["standby.signal", "postgresql.conf", "pg_hba.conf", "postmaster.pid", "PG_VERSION", "base/x", "global/x", "pg_wal/x",
         "promote", "server.key", "pg_xact/x"],
    )
    def test_names_of_postgres(self, db: Database, name: str) -> None:
        path = db.server.data / name
        before = path.read_bytes() if path.exists() else None
        put(db, "a", b"1")
        for filename in (name, str(path), f"./{name}"):
            with refused("42501", "belongs to the server"):
                mirror(db, filename)
        assert (path.read_bytes() if path.exists() else None) == before

    def test_a_file_that_is_no_credentials_file_is_never_replaced(self, db: Database, folder: Path) -> None:
        file = folder / "f.credentials"
        put(db, "a", b"1")
        mirror(db, file)
        file.write_bytes(b"precious")
        with refused("22P04", "not an encrypted credentials file"):
            put(db, "b", b"2")
        assert file.read_bytes() == b"precious"

    def test_swapped_all_the_time(self, db: Database, folder: Path) -> None:
        """Whatever the folder's owner does with links, the file that they point at stays as it is."""
        file, target = folder / "f.credentials", db.server.data / "pg_hba.conf"
        signal = db.server.data / "standby.signal"
        put(db, "a", b"0")
        mirror(db, file)
        before = target.read_bytes()
        for aim in (target, signal):
            racer = subprocess.Popen(
                [sys.executable, "-c", RACER, folder, aim, str(ATTACKER)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/",
            )
            expected = ("42501", "58030", "40002", "55P03", "22P04")
            with db.connect() as session:
                for n in range(ROUNDS):
                    try:
                        session.execute("select omni_credentials.set_credential('a', %b)", (str(n).encode(),))
                    except psycopg.Error as error:
                        assert error.sqlstate in expected, error
                    try:
                        # An older file that was put back conflicts until a side is chosen.
                        session.execute("select * from omni_credentials.credential_file_store_reload(%s, 'table')", (str(file),))
                    except psycopg.Error as error:
                        assert error.sqlstate in expected, error
            rounds = int(racer.communicate(b"\n")[0])
            # However slow the machine is, there was a race.
            assert rounds > ROUNDS // 10
            assert target.read_bytes() == before and not signal.exists()
            assert db.run("select 1") == [(1,)]

    def test_mode_and_group_are_kept(self, db: Database, folder: Path) -> None:
        file = folder / "f.credentials"
        put(db, "a", b"1")
        mirror(db, file)
        file.chmod(0o644)
        put(db, "a", b"2")
        assert file.stat().st_mode & 0o7777 == 0o644


class TestReloadSeesLess:
    """What a reloading role cannot see or change is reported as skipped, and never written back."""

    @pytest.fixture
    def importer(self, role, db: Database) -> str:
        importer = role("importer", FILES)
        db.grant(importer)
        for function in ("credential_file_store_reload", "file_store_reload"):
            db.run(f"grant execute on function omni_credentials.{function} to {importer}")
        return importer

    @pytest.fixture
    def db(self, role, db: Database) -> Database:
        return db

    def test_a_hidden_deletion_is_not_undone(self, importer: str, db: Database) -> None:
        file = mirrored(db, {"theirs": b"1", "other": b"2"})
        edit(db.server, file, theirs=None)
        report = db.run("select name, action, reason from omni_credentials.credential_file_store_reload(%s)", str(file), user=importer)
        assert report == [("theirs", "skipped", "a policy hides the row from this role")]
        put(db, "other", b"3")
        assert (live(file), deleted(file)) == (["other"], ["theirs"])
        ((_, step, reason),) = db.run(STATUS)
        assert not step and "1 changes" in reason
        # A role that sees the row loads what is left.
        assert db.run(RELOAD, str(file)) == [("theirs", "removed")]

    def test_a_hidden_edit_is_not_undone(self, importer: str, db: Database) -> None:
        file = mirrored(db, {"theirs": b"1", "other": b"2"})
        edit(db.server, file, theirs=b"newer")
        report = db.run("select name, action from omni_credentials.credential_file_store_reload(%s)", str(file), user=importer)
        assert report == [("theirs", "skipped")]
        put(db, "other", b"3")
        assert contents(db.server, file)["theirs"] == b"newer"
        assert db.run(RELOAD, str(file)) == [("theirs", "changed")]

    def test_a_change_that_changes_nothing_is_not_reported(self, importer: str, db: Database) -> None:
        file = mirrored(db, {"theirs": b"1", "other": b"2"})
        db.run(f"create policy seen on omni_credentials.encrypted_credentials for select to {importer} using (true)")
        edit(db.server, file, theirs=b"newer", other=None)
        report = db.run(RELOAD, str(file), user=importer)
        assert report == [("other", "skipped"), ("theirs", "skipped")]
        put(db, "third", b"3")
        assert contents(db.server, file) == {"theirs": b"newer", "third": b"3"}


def test_a_table_that_is_too_large_is_refused_before_it_is_read(db: Database) -> None:
    """300 values of 1 MB: the backend does not take what they would take."""
    file = mirrored(db, {"kept": b"value"})
    before = file.read_bytes()
    with db.connect(autocommit=False) as session:
        session.execute("set local session_replication_role = replica")
        session.execute(
            "insert into omni_credentials.encrypted_credentials (name, value)"
            " select 'n' || n, big.value from generate_series(1, 300) n,"
            " (select string_agg(decode(md5(i::text), 'hex'), '') as value from generate_series(1, 62500) i) big"
        )
        session.execute("set local session_replication_role = origin")
        session.execute("select omni_credentials.credential_file_store_sync(%s)", (str(file),))
        (pid,) = session.execute("select pg_backend_pid()").fetchone()
        process = Path(f"/proc/{pid}")

        def kilobytes(what: str) -> int:
            return int(next(line for line in (process / "status").read_text().splitlines() if line.startswith(what)).split()[1])

        # The peak starts again at what the process has now.
        (process / "clear_refs").write_text("5")
        used = kilobytes("VmRSS")
        with refused("54000", "longer than 64 MiB", hint="detach_file_store"):
            session.execute("commit")
        assert kilobytes("VmHWM") - used < 150_000
    assert file.read_bytes() == before


def test_instances_that_share_files_do_not_block_each_other(db: Database) -> None:
    """One order of locks for all: sessions that change several instances around several files all come through."""
    folder = db.server.folder / f"files-{db.name}"
    folder.mkdir()
    db.server.account.own(folder)
    files = [folder / "one.credentials", folder / "two.credentials"]
    schemas = ["first", "second"]
    for schema in schemas:
        db.run(f"create schema {schema}")
        db.run(f"select omni_credentials.instantiate('{schema}')")
        db.run(f"insert into {schema}.credentials (name, value) values ('first', 'x')")
    for schema, order in zip(schemas, (files, files[::-1]), strict=True):
        for file in order:
            db.run("select omni_credentials.instantiate_file_store(%s, %s::regnamespace, prefer => 'file')", str(file), schema)

    def writer(order: list[str], who: str):
        def run() -> None:
            with db.connect(autocommit=False) as session:
                session.execute("set omni_credentials.file_lock_timeout = '20s'")
                for n in range(15):
                    for schema in order:
                        session.execute(f"insert into {schema}.credentials (name, value) values (%s, 'x')", (f"{who}{n}",))
                    session.commit()

        return run

    in_threads(
        writer(schemas, "a"), writer(schemas[::-1], "b"), writer(schemas[:1], "c"), writer(schemas[1:], "d"),
    )
    assert len(live(files[0])) == len(live(files[1])) == 61
    assert leftovers(folder) == []


class TestRegistry:
    def test_a_row_with_a_computed_mark_is_not_believed(self, role, db: Database) -> None:
        """A role with INSERT on the registry of the superuser does not make the server create files."""
        writer = role("writer")
        file = db.server.data / f"{db.name}.forged"
        db.grant(writer)
        db.run(f"grant insert, select on omni_credentials.credentials_files to {writer}")
        with db.connect(writer, autocommit=False) as session:
            row = "insert into omni_credentials.credentials_files (filename, written_as) values (%s, %s)"
            session.execute(row, (str(file), 0))
            database, table, xid = session.execute(
                "select d.oid::bigint, 'omni_credentials.credentials_files'::regclass::oid::bigint, f.xmin::text::bigint"
                " from pg_database d, omni_credentials.credentials_files f where d.datname = current_database()"
            ).fetchone()
            session.execute("insert into omni_credentials.credentials (name, value) values ('a', 'x')")
            rotated = ((database << 16) | (database >> 16)) & 0xFFFFFFFF
            mark = int.from_bytes(((table ^ rotated) << 32 | xid).to_bytes(8, "big"), "big", signed=True)
            session.execute(row, (f"{file}2", mark))
            session.commit()
        put(db, "b", b"x")
        assert not file.exists() and not Path(f"{file}2").exists()
        assert all("suspended" in reason for _, _, reason in db.run(STATUS))
        with refused("42501", "permission denied"):
            db.run("select key from omni_credentials.file_store_key", user=writer)

    def test_marks_count_after_vacuum_full(self, db: Database) -> None:
        file = mirrored(db, {"a": b"1"})
        db.run("vacuum (full, freeze) omni_credentials.credentials_files")
        put(db, "b", b"2")
        assert live(file) == ["a", "b"]


def test_what_never_reached_a_file_leaves_no_tombstone(db: Database) -> None:
    file = mirrored(db, {"kept": b"value"})
    with db.connect(autocommit=False) as session:
        session.execute(INSERT, ("short", b"lived"))
        session.execute("delete from omni_credentials.credentials where name = 'short'")
        session.commit()
    assert deleted(file) == []
    put(db, "long", b"lived")
    remove(db, "long")
    assert deleted(file) == ["long"]


@pytest.mark.parametrize("filename", ["/nowhere/x", "/nowhere", "/etc", "/etc/shadow", "/etc/passwd", "PG_VERSION"])
def test_pruning_tells_nothing_of_files(role, db: Database, filename: str) -> None:
    """An owner who may not use the server's files learns nothing of a path that it writes into its registry."""
    owner = role("owner")
    install(db)
    db.run(f"create schema mine authorization {owner}")
    db.run(f"grant usage on schema omni_credentials to {owner}")
    for function in (
        "instantiate", "instance_template", "open_credential", "seal_credential", "credentials_write",
        "encrypted_credentials_check", "encrypted_credentials_keep", "encrypted_credential_versions_check",
        "encrypted_credentials_changed", "credentials_store_changed", "replace_config",
        "prune_keyrings", "file_store_status",
    ):
        db.run(f"grant execute on function omni_credentials.{function} to {owner}")
    db.allow(owner)
    with db.connect(owner) as session:
        session.execute("select omni_credentials.instantiate('mine')")
        session.execute("insert into mine.credentials (name, value) values ('a', '1')")
        db.run("select omni_credentials.use_module('mine', 'aes')")
        session.execute("insert into mine.credentials_files (filename) values (%s)", (filename,))
        with refused("42501", f"^permission denied to use file store {filename}$"):
            session.execute("select omni_credentials.prune_keyrings('mine')")
        status = "select filename, in_step, reason from mine.credential_file_stores"
        assert session.execute(status).fetchall() == [(filename, None, f"permission denied to use file store {filename}")]
