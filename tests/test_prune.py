"""Superseded keyrings are pruned when nothing needs them, and never before."""

from __future__ import annotations

import re
import subprocess
import threading

import psycopg
import pytest
from conftest import PASSWORD, VARIABLE, Database, drop_database, fresh_database, refused
from readers import undisturbed
from standbys import base_backup, catch_up, eventually
from test_modules import AES, WRONG, digest, fill, install

MOVE = "select omni_credentials.use_module(module => %s)"
PRUNE = "select omni_credentials.prune_keyrings()"
KEYRINGS = "select count(*) from omni_credentials.credentials_keyrings"
TABLE = "omni_credentials.encrypted_credentials"
OLD, NEW = "aes", "xchacha20poly1305"
# A standby that has the primary keep what its snapshots show, and that lets its sessions finish.
PATIENT = {"hot_standby_feedback": "on", "max_standby_streaming_delay": "-1"}


@pytest.fixture
def moved(db: Database) -> Database:
    """A copy of ten credentials that has moved from one module to another."""
    return move(db)


def move(database: Database) -> Database:
    install(database)
    fill(database, 10)
    database.run(MOVE, OLD)
    database.run("create table kept as select * from omni_credentials.encrypted_credentials")
    database.run(MOVE, NEW)
    return database


def put_back(database: Database, name: str, damage: str = "k.value") -> None:
    """Writes the value that a row had before the move into the table, past the trigger that would refuse a damaged one."""
    database.run(
        f"alter table {TABLE} disable trigger encrypted_credentials_check; "
        f"update {TABLE} c set value = {damage} from kept k where k.name = c.name and c.name = '{name}'; "
        f"alter table {TABLE} enable trigger encrypted_credentials_check"
    )


def hint(error: psycopg.Error) -> str:
    return error.diag.message_hint or ""


def test_a_module_is_free_after_its_stores_have_moved(moved: Database) -> None:
    reader = moved.connect()
    assert reader.execute(WRONG).fetchall() == [(0,)]
    # The hint is the statement that mends it.
    with refused("2BP01", "in use by omni_credentials.credentials_keyrings$") as caught:
        moved.run("select omni_credentials.remove_module('aes')")
    assert caught.error and hint(caught.error) == "To free it: select omni_credentials.prune_keyrings('omni_credentials');"
    assert moved.run(hint(caught.error).split(": ", 1)[1]) == [(2,)]
    moved.run("select omni_credentials.remove_module('aes')")
    assert moved.run(KEYRINGS) == [(1,)]
    assert moved.run(PRUNE) == [(0,)]
    assert reader.execute(WRONG).fetchall() == [(0,)]
    assert moved.run(WRONG) == [(0,)]
    assert moved.run("select * from omni_credentials.verify()") == []
    reader.execute("insert into omni_credentials.credentials (name, value) values ('n11', 'v11')")
    assert moved.run(WRONG) == [(0,)]


def test_the_hint_for_a_store_that_has_not_moved(db: Database) -> None:
    install(db)
    db.run('create schema "Its own"')
    db.run("select omni_credentials.instantiate('\"Its own\"')")
    db.run("select omni_credentials.use_module('\"Its own\"', 'aes')")
    db.run("insert into \"Its own\".credentials (name, value) values ('a', 'value')")
    with refused("2BP01", "Its own.credentials_config, Its own.credentials_keyrings") as caught:
        db.run("select omni_credentials.remove_module('aes')")
    assert caught.error
    move, prune = re.findall(r"select [^;]*;", hint(caught.error))
    db.run(move.replace("another_module", "'xchacha20poly1305'"))
    assert db.run(prune) == [(1,)]
    db.run("select omni_credentials.remove_module('aes')")
    assert db.run('select value from "Its own".credentials') == [(b"value",)]


def test_old_data_keys_go_with_their_keyring(db: Database) -> None:
    fill(db, 5)
    db.run("select omni_credentials.rotate_key()")
    size = "select length(keyring) from omni_credentials.credentials_keyrings"
    ((two_keys,),) = db.run(size)
    assert db.run(PRUNE) == [(0,)]
    db.run("select omni_credentials.use_module()")
    assert db.run(PRUNE) == [(1,)]
    ((one_key,),) = db.run(size)
    assert one_key < two_keys
    assert db.run(WRONG) == [(0,)]


def test_nothing_is_pruned_while_a_row_needs_it(moved: Database) -> None:
    # With the oldest keyring of three.
    moved.run(MOVE, NEW)
    put_back(moved, "n7")
    assert moved.run(WRONG) == [(0,)]
    before = moved.run("select * from omni_credentials.credentials_keyrings order by number")
    assert len(before) == 4
    with refused("2BP01", '"n7" needs', "rotate_key"):
        moved.run(PRUNE)
    assert moved.run("select * from omni_credentials.credentials_keyrings order by number") == before
    moved.run("select omni_credentials.rotate_key()")
    assert moved.run(PRUNE) == [(3,)]
    assert moved.run(WRONG) == [(0,)]


@pytest.mark.parametrize(
    "damage",
    ["set_byte(k.value, 60, get_byte(k.value, 60) # 1)", "set_byte(k.value, 0, 9)"],
    ids=["altered", "of a later format"],
)
def test_a_damaged_value_keeps_its_keyring(moved: Database, damage: str) -> None:
    """It may be mended from a backup, or be readable for a later version."""
    put_back(moved, "n3", damage)
    with refused("2BP01", '"n3"', "verify"):
        moved.run(PRUNE)
    moved.run(f"delete from {TABLE} where name = 'n3'")
    # The history has it now.
    with refused("2BP01", '"n3" \\(version 2\\)', "verify"):
        moved.run(PRUNE)
    moved.run("select omni_credentials.purge_history('n3')")
    assert moved.run(PRUNE) == [(2,)]


def test_what_is_no_sealed_value_keeps_nothing(moved: Database) -> None:
    put_back(moved, "n3", "'\\x01'")
    put_back(moved, "n4", "substr(k.value, 1, 40)")
    assert moved.run(PRUNE) == [(2,)]
    assert moved.run("select name from omni_credentials.verify() order by 1") == [("n3",), ("n4",)]


def test_a_value_whose_principal_is_gone_can_still_be_rescued(role, db: Database) -> None:
    install(db)
    gone = role("gone")
    db.run(MOVE, OLD)
    db.run("insert into omni_credentials.credentials (name, value, principal) values ('a', 'value', %s::regrole)", gone)
    db.run(f"alter role {gone} rename to renamed_{gone}")
    try:
        session = db.connect(**{"omni_credentials.on_unreadable": "null"})
        assert session.execute(MOVE, (NEW,)).fetchall() == [(0,)]
        with refused("2BP01", '"a"'):
            db.run(PRUNE)
        assert db.run(f"select omni_credentials.rename_principal('{gone}', 'renamed_{gone}')") == [(1,)]
        assert db.run(PRUNE) == [(1,)]
        assert db.run("select value from omni_credentials.credentials") == [(b"value",)]
    finally:
        db.run(f"alter role renamed_{gone} rename to {gone}")


def test_rows_that_the_owner_does_not_see_count(role, db: Database) -> None:
    owner, other = role("owner"), role("other")
    install(db)
    db.run(f"create schema theirs authorization {owner}")
    db.run(f"grant usage on schema omni_credentials to {owner}")
    for function in (
        "instantiate", "use_module", "prune_keyrings", "open_credential", "seal_credential", "credentials_write",
        "encrypted_credentials_check", "encrypted_credentials_keep", "encrypted_credential_versions_check",
        "encrypted_credentials_changed", "credentials_store_changed", "replace_config",
        "file_store_reload", "file_store_sync", "file_store_status",
    ):
        db.run(f"grant execute on function omni_credentials.{function} to {owner}")
    db.allow(owner)
    db.run("select omni_credentials.instantiate('theirs')", user=owner)
    db.run("insert into theirs.credentials (name, value) values ('own', 'value')", user=owner)
    db.run("insert into theirs.credentials (name, value, principal) values ('hidden', 'value', %s::regrole)", other)
    # Policies hold for the owner, too.
    db.run("alter table theirs.encrypted_credentials force row level security", user=owner)
    assert db.run("select name from theirs.credentials", user=owner) == [("own",)]
    ((hidden,),) = db.run("select value from theirs.encrypted_credentials where name = 'hidden'")
    assert db.run("select omni_credentials.use_module('theirs')", user=owner) == [(2,)]
    # As it came back from a backup.
    db.run("update theirs.encrypted_credentials set value = %s where name = 'hidden'", hidden)
    with refused("2BP01", '"hidden"'):
        db.run("select omni_credentials.prune_keyrings('theirs')", user=owner)
    assert db.run("select count(value) from theirs.credentials") == [(2,)]
    db.run("select omni_credentials.rotate_key('theirs')")
    assert db.run("select omni_credentials.prune_keyrings('theirs')", user=owner) == [(1,)]
    assert db.run("select count(value) from theirs.credentials") == [(2,)]


def test_it_is_for_the_owner(role, moved: Database) -> None:
    user = role("user")
    moved.grant(user)
    with refused("42501", "permission denied for function"):
        moved.run(PRUNE, user=user)
    moved.run(f"grant execute on function omni_credentials.prune_keyrings to {user}")
    with refused("42501", "must be owner of", "owner of the instance"):
        moved.run(PRUNE, user=user)
    with refused("3F000"):
        moved.run("select omni_credentials.prune_keyrings('pg_catalog')")
    assert moved.run(KEYRINGS) == [(3,)]


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_older_snapshots_read_on(moved: Database, isolation: str) -> None:
    """Also in a session that has not seen the old keyring yet, after its module is gone as well."""
    moved.run(MOVE, OLD)
    old = moved.connect(autocommit=False)
    old.execute(f"set transaction isolation level {isolation}")
    old.execute("select 1").fetchall()
    cursor = moved.connect(autocommit=False)
    cursor.execute("declare c cursor for select name, value from omni_credentials.credentials")
    assert len(cursor.execute("fetch 3 from c").fetchall()) == 3

    moved.run(MOVE, NEW)
    assert moved.run(PRUNE) == [(4,)]
    moved.run("select omni_credentials.remove_module('aes')")
    for artifact in (moved.server.data / "pgsql_tmp_omni_credentials").glob(f"{digest(AES)}*"):
        artifact.unlink()

    assert old.execute(WRONG).fetchall() == [(0,)]
    assert old.execute("select count(value) from omni_credentials.credentials").fetchall() == [(10,)]
    rest = cursor.execute("fetch all from c").fetchall()
    assert len(rest) == 7 and all(value == b"v" + name[1:].encode() for name, value in rest)
    # But what only its snapshot can open does not get into the table again.
    moved.run("delete from omni_credentials.credentials where name = 'n2'")
    old.execute("savepoint here")
    with refused("23514", "n2.*(key|suite)"):
        old.execute(f"insert into {TABLE} select * from {TABLE} where name = 'n2'")
    old.execute("rollback to here")
    with refused("40001"):
        old.execute("update omni_credentials.credentials set value = value || 'x'")
    old.rollback()
    assert old.execute(WRONG).fetchall() == [(0,)]


def test_older_snapshots_read_on_with_the_secret_of_then(own_db: Database) -> None:
    server = own_db.server
    server.restart({VARIABLE: PASSWORD, "NEW_SECRET": "another one"})
    move(own_db)
    own_db.run(MOVE, OLD)
    old = own_db.connect(autocommit=False)
    old.execute("set transaction isolation level repeatable read")
    old.execute("select 1").fetchall()
    own_db.run("select omni_credentials.rotate_master_secret('NEW_SECRET')")
    own_db.run(MOVE, NEW)
    assert own_db.run(PRUNE) == [(4,)]
    assert old.execute(WRONG).fetchall() == [(0,)]
    assert old.execute("select count(value) from omni_credentials.credentials").fetchall() == [(10,)]


def test_older_snapshots_of_a_standby_read_on(own_db: Database) -> None:
    """It is not asked before its keyrings and modules go; what its snapshots show stays there for them."""
    move(own_db)
    own_db.run(MOVE, OLD)
    # Replay would wait for the cursor to leave a page that is cleaned up.
    own_db.run("vacuum (truncate false)")
    standby = base_backup(own_db.server, PATIENT)
    try:
        standby.start({VARIABLE: PASSWORD})
        replica = Database(standby, own_db.name)
        catch_up(own_db, replica)
        # One session that knows nothing of keyrings, one in the middle of its rows, one that reads now and then.
        old = replica.connect(autocommit=False)
        old.execute("set transaction isolation level repeatable read")
        old.execute("select 1").fetchall()
        cursor = replica.connect(autocommit=False)
        cursor.execute("declare c cursor for select name, value from omni_credentials.credentials")
        assert len(cursor.execute("fetch 3 from c").fetchall()) == 3
        reader = replica.connect()
        assert reader.execute(WRONG).fetchall() == [(0,)]
        # Vacuum spares what a standby's snapshots show once they have been reported.
        oldest = "select backend_xmin is not null from pg_stat_replication"
        eventually(lambda: own_db.run(oldest) == [(True,)])

        own_db.run(MOVE, NEW)
        assert own_db.run(PRUNE) == [(4,)]
        own_db.run("select omni_credentials.remove_module('aes')")
        catch_up(own_db, replica)
        rest = cursor.execute("fetch all from c").fetchall()
        assert len(rest) == 7 and all(value == b"v" + name[1:].encode() for name, value in rest)
        cursor.rollback()
        own_db.run("vacuum (truncate false)")
        catch_up(own_db, replica)
        for artifact in (standby.data / "pgsql_tmp_omni_credentials").glob(f"{digest(AES)}*"):
            artifact.unlink()

        assert replica.run(KEYRINGS) == [(1,)]
        assert old.execute(KEYRINGS).fetchall() == [(4,)]
        assert old.execute(WRONG).fetchall() == [(0,)]
        assert old.execute("select count(value) from omni_credentials.credentials").fetchall() == [(10,)]
        old.rollback()
        for session in (reader, old, replica.connect()):
            assert session.execute(WRONG).fetchall() == [(0,)]
            assert session.execute("select count(value) from omni_credentials.credentials").fetchall() == [(10,)]
        assert replica.run("select * from omni_credentials.verify()") == []

        # A module that is installed while the standby streams reaches it, and a session that is open.
        install(own_db)
        own_db.run(MOVE, OLD)
        catch_up(own_db, replica)
        assert reader.execute(WRONG).fetchall() == [(0,)]
        assert reader.execute("select count(value) from omni_credentials.credentials").fetchall() == [(10,)]
        replica.close()
    finally:
        standby.remove()


def test_readers_of_a_standby_during_moves_and_pruning(own_db: Database) -> None:
    install(own_db)
    fill(own_db, 10)
    standby = base_backup(own_db.server, PATIENT)
    try:
        standby.start({VARIABLE: PASSWORD})
        replica = Database(standby, own_db.name)
        catch_up(own_db, replica)
        with undisturbed(replica, WRONG, 10):
            for module in (OLD, NEW) * 3:
                own_db.run(MOVE, module)
                own_db.run(PRUNE)
                own_db.run("vacuum (truncate false)")
            catch_up(own_db, replica)
        replica.close()
    finally:
        standby.remove()


def test_it_waits_for_writers(moved: Database) -> None:
    writer = moved.connect(autocommit=False)
    writer.execute(f"update {TABLE} c set value = k.value from kept k where k.name = c.name and c.name = 'n1'")
    caught: list[psycopg.Error] = []

    def prune() -> None:
        try:
            moved.run(PRUNE)
        except psycopg.Error as error:
            caught.append(error)

    pruning = threading.Thread(target=prune)
    pruning.start()
    waiting = f"select count(*) from pg_locks where not granted and relation = '{TABLE}'::regclass"
    while moved.run(waiting) == [(0,)]:
        assert pruning.is_alive()
    writer.commit()
    pruning.join()
    assert [error.sqlstate for error in caught] == ["2BP01"]
    assert moved.run(WRONG) == [(0,)]


def test_a_rollback_brings_them_back(moved: Database) -> None:
    session = moved.connect(autocommit=False)
    session.execute("savepoint here")
    assert session.execute(PRUNE).fetchall() == [(2,)]
    with refused("23514"):
        session.execute(f"update {TABLE} c set value = k.value from kept k where k.name = c.name")
    session.execute("rollback to here")
    session.execute(f"update {TABLE} c set value = k.value from kept k where k.name = c.name")
    assert session.execute(WRONG).fetchall() == [(0,)]
    session.commit()
    assert moved.run(KEYRINGS) == [(3,)]
    assert moved.run(WRONG) == [(0,)]


def test_not_with_an_old_snapshot(moved: Database) -> None:
    session = moved.connect(autocommit=False)
    session.execute("set transaction isolation level repeatable read")
    with refused("25001", "READ COMMITTED"):
        session.execute(PRUNE)


@pytest.mark.parametrize("old", [OLD, NEW])
def test_files(db: Database, old: str) -> None:
    """A file from before the move keeps its keyring where it is registered, and carries it where it comes back."""
    install(db)
    fill(db, 5)
    db.run(MOVE, old)
    db.run("select omni_credentials.instantiate_file_store('team.credentials')")
    path = db.server.data / "team.credentials"
    before = path.read_bytes()
    db.run(MOVE, NEW)
    after = path.read_bytes()
    assert after != before

    # As after a crash between the commit and the file.
    path.write_bytes(before)
    with refused("2BP01", "team.credentials", "credential_file_store_sync") as caught:
        db.run(PRUNE)
    assert caught.error
    (sync,) = re.findall(r"select [^.]*\.credential_file_store_sync\([^)]*\)", hint(caught.error))
    db.run(sync)
    path.rename(path.with_suffix(".away"))
    with refused("2BP01", "team.credentials"):
        db.run(PRUNE)
    path.with_suffix(".away").rename(path)
    for garbage in (path.read_bytes()[:100], b"stripe: sk_live\n"):
        path.write_bytes(garbage)
        with refused("22P04", "team.credentials"):
            db.run(PRUNE)
    path.unlink()
    db.run(sync)
    assert db.run(PRUNE) == [(2,)]

    # Somebody checks out the old file, after the table went on.
    db.run("delete from omni_credentials.credentials where name = 'n5'")
    path.write_bytes(before)
    db.run("select * from omni_credentials.credential_file_store_reload('team.credentials', prefer => 'file')")
    assert db.run("select count(value) from omni_credentials.credentials where name <> 'n5'") == [(4,)]
    assert db.run(WRONG) == [(0,)]
    path.unlink()


def test_a_file_of_a_module_that_is_gone(db: Database) -> None:
    install(db)
    fill(db, 5)
    db.run(MOVE, OLD)
    db.run("select omni_credentials.instantiate_file_store('team.credentials')")
    path = db.server.data / "team.credentials"
    before = path.read_bytes()
    db.run(MOVE, NEW)
    db.run(PRUNE)
    db.run("select omni_credentials.remove_module('aes')")
    path.write_bytes(before)
    reload = "select * from omni_credentials.credential_file_store_reload('team.credentials', prefer => 'file')"
    with refused("0A000", "suite", "install the module"):
        db.run(reload)
    assert path.read_bytes() == before
    install(db)
    db.run(reload)
    assert db.run("select count(value) from omni_credentials.credentials") == [(5,)]
    assert db.run(WRONG) == [(0,)]
    path.unlink()


def test_a_dump_from_before_has_its_keyring(server, moved: Database) -> None:
    moved.run(MOVE, OLD)
    dump = subprocess.run(
        server.program("pg_dump", "--format=custom", database=moved.name),
        env=server.client_environment(), capture_output=True, check=True,
    ).stdout
    moved.run(MOVE, NEW)
    moved.run(PRUNE)
    restored = fresh_database(server, extension=False)
    try:
        subprocess.run(
            server.program("pg_restore", "--exit-on-error", database=restored.name),
            env=server.client_environment(), input=dump, check=True,
        )
        assert restored.run(WRONG) == [(0,)]
        assert restored.run("select count(value) from omni_credentials.credentials") == [(10,)]
        assert restored.run(PRUNE) == [(3,)]
        assert restored.run(WRONG) == [(0,)]
    finally:
        drop_database(restored)


def test_readers_during_moves_and_pruning(moved: Database) -> None:
    with undisturbed(moved, WRONG, 10):
        for module in (OLD, NEW) * 5:
            moved.run(MOVE, module)
            moved.run(PRUNE)
    assert moved.run(KEYRINGS) == [(1,)]
