"""Crypto modules from SQL: installing, pinning, swapping and removing them."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
from pathlib import Path

import pytest
from conftest import MASTER_KEY, PASSWORD, VARIABLE, Database, drop_database, fresh_database, new_server, refused
from readers import undisturbed
from standbys import eventually
from test_concurrency import Background
from throwaway import Server

MODULES = Path(os.environ["OMNI_CREDENTIALS_MODULES"])
XCHACHA = (MODULES / "xchacha20poly1305.wasm").read_bytes()
AES = (MODULES / "aes256gcmsiv.wasm").read_bytes()
ROWS = 3000


def digest(wasm: bytes) -> str:
    return hashlib.sha256(wasm).hexdigest()


def install(database: Database, name: str = "aes", wasm: bytes = AES) -> None:
    database.run("select omni_credentials.install_module(%s, %s, %s::text)", name, wasm, digest(wasm))


def fill(database: Database, rows: int = ROWS) -> None:
    database.run(
        "insert into omni_credentials.credentials (name, value) "
        "select 'n' || i, convert_to('v' || i, 'UTF8') from generate_series(1, %s) i",
        rows,
    )


WRONG = "select count(*) from omni_credentials.credentials where convert_from(value, 'UTF8') <> 'v' || substr(name, 2)"
SUITES = "select distinct get_byte(value, 1) from omni_credentials.encrypted_credentials"


def test_the_shipped_module_is_there(db: Database) -> None:
    rows = db.run("select name, suite, digest, wasm from omni_credentials.crypto_modules")
    assert rows == [("xchacha20poly1305", "xchacha20poly1305", bytes.fromhex(digest(XCHACHA)), XCHACHA)]


def test_install_records_what_the_module_says(db: Database) -> None:
    install(db)
    row = db.run(
        "select name, suite, contract, installed_by, encode(digest, 'hex') from omni_credentials.crypto_modules "
        "where name = 'aes'"
    )
    assert row == [("aes", "aes256gcmsiv", "omni:credentials@1.0.0", "postgres", digest(AES))]
    # The digest may be given as bytea, too, and a second time nothing happens.
    db.run("select omni_credentials.install_module('again', %s, %s::bytea)", AES, bytes.fromhex(digest(AES)))
    assert db.run("select count(*) from omni_credentials.crypto_modules") == [(2,)]


def test_install_refuses(db: Database) -> None:
    with refused("23514", digest(AES), "SHA-256"):
        db.run("select omni_credentials.install_module('aes', %s, %s::text)", AES, digest(XCHACHA))
    with refused("22023", "32 bytes"):
        db.run("select omni_credentials.install_module('aes', %s, '\\x00'::bytea)", AES)
    with refused("22023"):
        db.run("select omni_credentials.install_module('aes', %s, 'not hexadecimal')", AES)
    with refused("22023", "needs a name"):
        install(db, "")
    with refused("0A000", "16777217 bytes, more than 16777216"):
        install(db, "large", bytes(16 * 1024 * 1024 + 1))
    garbage = b"\0asm\x0d\0\x01\0garbage"
    with refused("0A000", "not a usable crypto module"):
        install(db, "garbage", garbage)
    assert db.run("select count(*) from omni_credentials.crypto_modules") == [(1,)]


def test_only_superusers_change_modules(role, db: Database) -> None:
    user = role("mallory")
    db.run(f"grant usage on schema omni_credentials to {user}")
    db.run(f"grant execute on all functions in schema omni_credentials to {user}")
    db.run(f"grant all on omni_credentials.crypto_modules to {user}")
    with refused("42501", "crypto modules", "superuser"):
        db.run("select omni_credentials.install_module('aes', %s, %s::text)", AES, digest(AES), user=user)
    with refused("42501", "crypto modules"):
        db.run("select omni_credentials.remove_module('xchacha20poly1305')", user=user)
    insert = (
        "insert into omni_credentials.crypto_modules (digest, wasm, name, version, contract, suite) "
        "values (sha256(%s), %s, 'aes', '', '', '')"
    )
    with refused("42501", "crypto modules"):
        db.run(insert, AES, AES, user=user)
    with refused("42501", "crypto modules"):
        db.run("truncate omni_credentials.crypto_modules", user=user)
    with refused("42501", "must be owner"):
        db.run("select omni_credentials.use_module('omni_credentials')", user=user)


def test_rows_of_the_registry_are_guarded(db: Database) -> None:
    install(db)
    insert = (
        "insert into omni_credentials.crypto_modules (digest, wasm, name, version, contract, suite) "
        "values (sha256('other'), %s, 'forged', '', '', '')"
    )
    with refused("23514", digest(AES)):
        db.run(insert, AES)
    with refused("23514"):
        db.run("update omni_credentials.crypto_modules set wasm = %s where name = 'aes'", XCHACHA)
    fill(db, 1)
    db.run("select omni_credentials.use_module(module => 'aes')")
    for change in (
        "delete from omni_credentials.crypto_modules where name = 'aes'",
        "update omni_credentials.crypto_modules set digest = sha256('x'), wasm = 'x' where name = 'aes'",
        "select omni_credentials.remove_module('aes')",
        f"select omni_credentials.remove_module('{digest(AES)}')",
    ):
        with refused("2BP01", "in use by .*omni_credentials.credentials_", "use_module"):
            db.run(change)
    with refused("2BP01", "in use by the extension itself"):
        db.run("truncate omni_credentials.crypto_modules")
    db.run("update omni_credentials.crypto_modules set name = 'renamed' where name = 'aes'")
    assert db.run(WRONG) == [(0,)]


def test_remove_what_nobody_uses(db: Database) -> None:
    install(db)
    db.run("select omni_credentials.remove_module('aes')")
    with refused("42704", '"aes"', "install_module"):
        db.run("select omni_credentials.remove_module('aes')")
    with refused("42704", '"aes"', "install_module"):
        db.run("select omni_credentials.use_module(module => 'aes')")
    with refused("2BP01", "the extension itself"):
        db.run("select omni_credentials.remove_module('xchacha20poly1305')")


def test_settings_of_another_instance_keep_a_module(db: Database) -> None:
    install(db)
    db.run("create schema \"Other \"\"one\"")
    db.run("select omni_credentials.instantiate('\"Other \"\"one\"')")
    db.run("select omni_credentials.use_module('\"Other \"\"one\"', 'aes')")
    with refused("2BP01", "credentials_config"):
        db.run("select omni_credentials.remove_module('aes')")
    db.run("drop schema \"Other \"\"one\" cascade")
    db.run("select omni_credentials.remove_module('aes')")


def test_a_name_that_two_modules_have(db: Database) -> None:
    install(db, "xchacha20poly1305")
    with refused("42P09", f"{digest(AES)}|{digest(XCHACHA)}", "digest"):
        db.run("select omni_credentials.use_module(module => 'xchacha20poly1305')")
    db.run("select omni_credentials.use_module(module => %s)", "\\x" + digest(AES))


def test_swap_there_and_back(db: Database) -> None:
    install(db)
    fill(db)
    session = db.connect()
    assert session.execute("select omni_credentials.use_module(module => 'aes')").fetchall() == [(ROWS,)]
    assert db.run(SUITES) == [(2,)]
    assert db.run(WRONG) == [(0,)]
    # New credentials follow, in this session and in others.
    session.execute("insert into omni_credentials.credentials (name, value) values ('n0', 'v0')")
    db.run("insert into omni_credentials.credentials (name, value) values ('n00', 'v00')")
    assert db.run(SUITES) == [(2,)]
    assert session.execute("select omni_credentials.use_module('omni_credentials', 'xchacha20poly1305')").fetchall() == [(ROWS + 2,)]
    assert db.run(SUITES) == [(1,)]
    assert db.run(WRONG) == [(0,)]
    assert db.run("select count(*) from omni_credentials.credentials_keyrings") == [(3,)]
    # A fresh keyring of the module in use.
    assert db.run("select omni_credentials.use_module()") == [(ROWS + 2,)]
    assert db.run(SUITES + ", substr(value, 1, 10)") != []
    assert db.run(WRONG) == [(0,)]


def test_a_large_store(db: Database) -> None:
    """It shows how far it is, is cancelled as a whole, and readers read on."""
    rows, step = 100_000, 10_000
    install(db)
    fill(db, rows)
    notices: list[str] = []
    session = db.connect()
    session.add_notice_handler(lambda notice: notices.append(notice.message_primary))

    def cancel(_: object) -> None:
        if len(notices) == 3:
            db.run("select pg_cancel_backend(%s)", session.info.backend_pid)

    session.add_notice_handler(cancel)
    with refused("57014", "user request"):
        session.execute("select omni_credentials.use_module(module => 'aes')")
    assert db.run("select module from omni_credentials.credentials_keyrings") == [(bytes.fromhex(digest(XCHACHA)),)]
    assert db.run(SUITES) == [(1,)]
    assert session.execute(WRONG).fetchall() == [(0,)]
    session.remove_notice_handler(cancel)

    notices.clear()
    with undisturbed(db, WRONG, rows):
        assert session.execute("select omni_credentials.use_module(module => 'aes')").fetchall() == [(rows,)]
    assert notices == [f"sealed {n} credentials with the new key" for n in range(step, rows + 1, step)]
    assert db.run(SUITES) == [(2,)]
    assert db.run(WRONG) == [(0,)]


def test_swap_is_all_or_nothing(db: Database) -> None:
    install(db)
    fill(db, 50)
    session = db.connect(autocommit=False)
    session.execute("select omni_credentials.use_module(module => 'aes')")
    assert session.execute(WRONG).fetchall() == [(0,)]
    session.rollback()
    assert session.execute(WRONG).fetchall() == [(0,)]
    # What this session seals now, others can read: the keyring that it had made is gone.
    session.execute("insert into omni_credentials.credentials (name, value) values ('n51', 'v51')")
    session.commit()
    assert db.run(SUITES) == [(1,)]
    assert db.run(WRONG) == [(0,)]
    assert db.run("select count(*) from omni_credentials.credentials_keyrings") == [(1,)]

    # One value that does not open stops it.
    damage = (
        "alter table omni_credentials.encrypted_credentials disable trigger encrypted_credentials_check; "
        "update omni_credentials.encrypted_credentials set value = set_byte(value, 60, get_byte(value, 60) # 1) where name = 'n7'; "
        "alter table omni_credentials.encrypted_credentials enable trigger encrypted_credentials_check"
    )
    db.run(damage)
    before = db.run("select name, value from omni_credentials.encrypted_credentials order by name")
    with refused("XX001", "n7"):
        db.run("select omni_credentials.use_module(module => 'aes')")
    assert db.run("select name, value from omni_credentials.encrypted_credentials order by name") == before
    assert db.run("select module from omni_credentials.credentials_config") == [(None,)]


def test_swap_in_a_savepoint_that_is_rolled_back(db: Database) -> None:
    install(db)
    fill(db, 5)
    session = db.connect(autocommit=False)
    session.execute("savepoint here")
    session.execute("select omni_credentials.use_module(module => 'aes')")
    session.execute("rollback to here")
    session.execute("insert into omni_credentials.credentials (name, value) values ('n6', 'v6')")
    session.commit()
    assert db.run(SUITES) == [(1,)]
    assert db.run(WRONG) == [(0,)]


def test_older_snapshots_read_on(db: Database) -> None:
    install(db)
    fill(db, 100)
    old = db.connect(autocommit=False)
    old.execute("set transaction isolation level repeatable read")
    old.execute("select 1").fetchall()
    cursor = db.connect(autocommit=False)
    cursor.execute("declare c cursor for " + WRONG.replace("count(*)", "name").split(" where")[0])
    cursor.execute("fetch 10 from c")
    # A transaction that keeps its lock on the table, and so is not told of the new keyring when it takes it.
    reader = db.connect(autocommit=False)
    prepared = "select name, value from omni_credentials.credentials order by name"
    before = reader.execute(prepared, prepare=True).fetchall()
    writer = db.connect()
    writer.execute("select count(value) from omni_credentials.credentials")

    db.run("select omni_credentials.use_module(module => 'aes')")

    assert old.execute(WRONG).fetchall() == [(0,)]
    assert len(cursor.execute("fetch all from c").fetchall()) == 90
    assert reader.execute(prepared, prepare=True).fetchall() == before
    writer.execute("insert into omni_credentials.credentials (name, value) values ('n101', 'v101')")
    assert db.run(SUITES) == [(2,)]
    old.rollback()
    assert old.execute(WRONG).fetchall() == [(0,)]


def test_a_writer_that_waited_seals_with_the_new_key(db: Database) -> None:
    install(db)
    fill(db, 20)
    session = db.connect()
    session.execute("select count(value) from omni_credentials.credentials")
    swap = db.connect(autocommit=False)
    swap.execute("select omni_credentials.use_module(module => 'aes')")
    writer = threading.Thread(
        target=session.execute, args=("insert into omni_credentials.credentials (name, value) values ('n21', 'v21')",)
    )
    writer.start()
    waiting = "select count(*) from pg_locks where not granted and relation = 'omni_credentials.encrypted_credentials'::regclass"
    while db.run(waiting) == [(0,)]:
        assert writer.is_alive()
    swap.commit()
    writer.join()
    assert db.run(SUITES) == [(2,)]
    assert db.run(WRONG) == [(0,)]


def test_readers_during_swaps_see_only_what_they_can_read(db: Database) -> None:
    install(db)
    fill(db, 300)
    with undisturbed(db, WRONG, 300):
        for module in ("aes", "xchacha20poly1305") * 3:
            db.run("select omni_credentials.use_module(module => %s)", module)
            db.run("select omni_credentials.rotate_key()")


def test_a_transaction_with_an_old_snapshot_may_not_swap(db: Database) -> None:
    fill(db, 1)
    session = db.connect(autocommit=False)
    session.execute("set transaction isolation level repeatable read")
    with refused("25001", "READ COMMITTED"):
        session.execute("select omni_credentials.use_module()")


def test_a_changed_secret_reaches_the_keyrings_of_before(own_db: Database) -> None:
    install(own_db)
    fill(own_db, 3)
    old = own_db.run("select * from omni_credentials.encrypted_credentials where name = 'n1'")
    own_db.run("select omni_credentials.use_module(module => 'aes')")
    server = own_db.server
    server.restart({VARIABLE: PASSWORD, "NEW_SECRET": "another one"})
    own_db.run("select omni_credentials.rotate_master_secret('NEW_SECRET')")
    server.restart({"NEW_SECRET": "another one"})
    assert own_db.run(WRONG) == [(0,)]
    # A value from before the swap still opens where it belongs, as one that an older snapshot shows must.
    own_db.run("update omni_credentials.encrypted_credentials set value = %s where name = 'n1'", old[0][1])
    assert own_db.run(WRONG) == [(0,)]


def test_modules_survive_dump_and_restore(server, db: Database, tmp_path: Path) -> None:
    install(db)
    fill(db, 10)
    db.run("select omni_credentials.use_module(module => 'aes')")
    dump = subprocess.run(
        server.program("pg_dump", "--format=custom", database=db.name),
        env=server.client_environment(), capture_output=True, check=True,
    ).stdout
    restored = fresh_database(server, extension=False)
    try:
        subprocess.run(
            server.program("pg_restore", "--exit-on-error", database=restored.name),
            env=server.client_environment(), input=dump, check=True,
        )
        assert restored.run("select name from omni_credentials.crypto_modules order by 1") == [("aes",), ("xchacha20poly1305",)]
        assert restored.run(WRONG) == [(0,)]
        assert restored.run(SUITES) == [(2,)]
        with refused("2BP01"):
            restored.run("select omni_credentials.remove_module('aes')")
    finally:
        drop_database(restored)


def moved_to_aes(server: Server, secret: str) -> Database:
    """Starts the server with a database in it whose copy works with the second module."""
    server.start({VARIABLE: secret})
    database = fresh_database(server)
    install(database)
    fill(database, 3)
    database.run("select omni_credentials.use_module(module => 'aes')")
    return database


@pytest.mark.parametrize("preload", ["", "omni_credentials"])
def test_allowed_modules(preload: str) -> None:
    server = new_server("allowed", {"shared_preload_libraries": preload} if preload else None)
    try:
        database = moved_to_aes(server, PASSWORD)
        server.stop()
        server.settings["omni_credentials.allowed_modules"] = f"{'0' * 64}, {digest(XCHACHA)}"
        server.start()
        # In the table and in use, and yet refused at load.
        with refused("42501", digest(AES), "allowed_modules"):
            database.run("select value from omni_credentials.credentials")
        with refused("42501", digest(AES), "allowed_modules"):
            database.run("select omni_credentials.use_module(module => 'aes')")
        # SQL does not change it.
        session = database.connect()
        with refused("55P02"):
            session.execute("select omni_credentials.generate_master_key()")
            session.execute("set omni_credentials.allowed_modules = ''")
        server.stop()
        server.settings["omni_credentials.allowed_modules"] = digest(AES).upper() + "," + digest(XCHACHA)
        server.start()
        assert database.run(WRONG) == [(0,)]
    finally:
        server.remove()


@pytest.mark.parametrize("preload", ["", "omni_credentials"])
def test_allowed_modules_and_a_reload(preload: str) -> None:
    """Preloaded, SQL cannot change it. Otherwise it holds from the reload on, also where a keyring is unlocked already."""
    server = new_server("reload", {"shared_preload_libraries": preload} if preload else None)
    try:
        database = moved_to_aes(server, MASTER_KEY)
        session = database.connect()
        assert session.execute(WRONG).fetchall() == [(0,)]
        session.execute(f"alter system set omni_credentials.allowed_modules = '{digest(XCHACHA)}'")
        loaded = "select pg_conf_load_time()"
        before = database.run(loaded)
        database.run("select pg_reload_conf()")
        eventually(lambda: database.run(loaded) != before)
        if preload:
            assert session.execute(WRONG).fetchall() == [(0,)]
            assert database.run(WRONG) == [(0,)]
            session.close()
            database.close()
            server.restart()
        else:
            with refused("42501", digest(AES), "allowed_modules"):
                session.execute(WRONG)
        with refused("42501", digest(AES), "allowed_modules"):
            database.run(WRONG)
        database.close()
    finally:
        server.remove()


def test_a_module_about_to_be_used_is_not_removed(db: Database) -> None:
    """Whoever comes first: the one that waits finds out."""
    install(db)
    fill(db, 3)
    mover, remover = db.connect(autocommit=False), db.connect(autocommit=False)
    mover.execute("select omni_credentials.use_module(module => 'aes')")
    removal = Background(db, remover, "select omni_credentials.remove_module('aes')")
    mover.commit()
    removal.finish()
    assert removal.error is not None and removal.error.sqlstate == "2BP01"
    remover.rollback()
    db.run("select omni_credentials.use_module(module => 'xchacha20poly1305')")
    db.run("select omni_credentials.prune_keyrings()")

    remover.execute("select omni_credentials.remove_module('aes')")
    move = Background(db, mover, "select omni_credentials.use_module(module => 'aes')")
    remover.commit()
    move.finish()
    assert move.error is not None and move.error.sqlstate == "42704"
    mover.rollback()
    assert db.run(WRONG) == [(0,)]
    assert db.run("select module from omni_credentials.credentials_config") == [(bytes.fromhex(digest(XCHACHA)),)]


def records(database: Database) -> list[tuple]:
    return database.run("select name, value from omni_credentials.credentials order by name")


@pytest.mark.parametrize("module", ["aes", None])
def test_files_move_along(db: Database, module: str | None) -> None:
    install(db)
    fill(db, 5)
    db.run("select omni_credentials.instantiate_file_store('team.credentials')")
    path = db.server.data / "team.credentials"
    before = path.read_bytes()
    # A record that this table cannot hold stays in the file.
    db.run("create role passing_by")
    db.run("insert into omni_credentials.credentials (name, value, principal) values ('theirs', 'x', 'passing_by')")
    db.run(
        "alter table omni_credentials.encrypted_credentials disable trigger encrypted_credentials_changed; "
        "delete from omni_credentials.encrypted_credentials where name = 'theirs'; "
        "alter table omni_credentials.encrypted_credentials enable trigger encrypted_credentials_changed; "
        "drop role passing_by; select omni_credentials.purge_history('theirs')"
    )
    held = path.read_bytes()
    assert b"theirs" in held and held != before
    # As after a restore: it is not known what file and table agreed on.
    db.run("update omni_credentials.credentials_files set filename = filename")
    with db.connect(autocommit=False) as session:
        session.execute("select omni_credentials.credential_file_store_sync('team.credentials')")
        session.execute("select omni_credentials.use_module(module => %s)", (module,))
    after = path.read_bytes()
    assert after != held and b"theirs" in after
    # The same again changes nothing, and another copy can take everything from the file.
    db.run("update omni_credentials.credentials set value = value")
    assert path.read_bytes() == after
    db.run("update omni_credentials.credentials set value = 'changed' where name = 'n2'")
    assert path.read_bytes() != after
    changed = path.read_bytes()
    db.run("select * from omni_credentials.credential_file_store_reload('team.credentials')")

    # As after a crash between the commit and the file: the old file is in place.
    path.write_bytes(held)
    with refused("40002", "n2"):
        db.run("insert into omni_credentials.credentials (name, value) values ('n6', 'v6')")
    db.run("select * from omni_credentials.credential_file_store_reload('team.credentials', prefer => 'table')")
    db.run("insert into omni_credentials.credentials (name, value) values ('n6', 'v6')")
    final = path.read_bytes()
    assert b"theirs" in final and b"n6" in final and final != changed
    assert records(db)[1] == ("n2", b"changed")
    path.unlink()
