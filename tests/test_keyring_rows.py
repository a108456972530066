"""Rows of credentials_keyrings that statements and replication delete or change: what values need stays."""

from __future__ import annotations

import pytest
from conftest import Database, refused
from foreign_keyrings import (
    CLOSED,
    KEYRINGS,
    TABLE,
    VIEW,
    arrive,
    ids,
    orphaned,
    put,
    read,
    replica,
    send_closed,
    stored,
    unguarded,
)

KINDS = pytest.mark.parametrize("kind", CLOSED)


class TestDeleting:
    @pytest.fixture
    def owner(self, role, db: Database) -> str:
        """The owner of the keyrings, no superuser."""
        owner = role("owner")
        db.run(f"grant usage on schema omni_credentials to {owner}")
        db.run(f"grant select, delete, update, insert on {KEYRINGS} to {owner}")
        return owner

    @KINDS
    def test_by_a_statement(self, owner: str, db: Database, kind: str) -> None:
        put(db, "a", "1")
        ((*_, good),) = stored(db)
        bad = send_closed(db, kind)
        for user in ("postgres", owner):
            for statement in (f"delete from {KEYRINGS}", f"delete from {KEYRINGS} where id = '{good}'"):
                with refused("2BP01", f"cannot delete keyring {good} of schema omni_credentials: values here", hint="use_module"):
                    db.run(statement, user=user)
        db.run(f"delete from {KEYRINGS} where id = %s", bad, user=owner)
        assert ids(db) == {good} and read(db) == {"a": "1"}

    @KINDS
    def test_where_no_one_can_tell(self, db: Database, kind: str) -> None:
        bad = orphaned(db, kind)
        with refused("2BP01", f"cannot delete keyring {bad} .*may be sealed with its keys", hint="verify"):
            db.run(f"delete from {KEYRINGS} where id = %s", bad)
        session, warnings = replica(db)
        assert session.execute(f"delete from {KEYRINGS}").rowcount == 0
        assert len(warnings) == 2 and all("kept keyring" in warning for warning in warnings)
        session = db.connect(**{"omni_credentials.on_unreadable": "null"})
        session.execute(f"delete from {VIEW} where name = 'a'")
        # A version of it is in the history.
        with refused("2BP01", bad):
            session.execute(f"delete from {KEYRINGS} where id = %s", (bad,))
        session.execute("select omni_credentials.purge_history('a')")
        session.execute(f"delete from {KEYRINGS} where id = %s", (bad,))
        assert read(db) == {"b": "2"}

    def test_what_a_version_needs(self, db: Database) -> None:
        put(db, "a", "1")
        ((*_, good),) = stored(db)
        db.run(f"delete from {VIEW}")
        with refused("2BP01", good):
            db.run(f"delete from {KEYRINGS}")
        db.run("select omni_credentials.purge_history(everything => true)")
        db.run(f"delete from {KEYRINGS}")

    def test_of_two_with_the_same_keys_one_stays(self, db: Database) -> None:
        put(db, "a", "1")
        ((number, module, good, _),) = stored(db)
        db.run("select omni_credentials.rotate_master_secret('OMNI_CREDENTIALS_MASTER_PASSWORD')")
        arrive(db, number, module, good)
        (both,) = [ids(db)]
        assert len(both) == 2
        with refused("2BP01", "cannot delete keyring"):
            db.run(f"delete from {KEYRINGS}")
        assert ids(db) == both
        session, warnings = replica(db)
        assert session.execute(f"delete from {KEYRINGS}").rowcount == 1
        (warning,) = warnings
        assert "kept keyring" in warning and "values here are sealed with its keys" in warning
        assert len(ids(db)) == 1 and read(db) == {"a": "1"}

    @pytest.mark.parametrize("same_bytes", [True, False])
    @pytest.mark.parametrize("replicates", [True, False])
    def test_of_two_sessions_one_waits(self, db: Database, same_bytes: bool, replicates: bool) -> None:
        put(db, "a", "1")
        ((number, module, good, _),) = stored(db)
        if not same_bytes:
            db.run("select omni_credentials.rotate_master_secret('OMNI_CREDENTIALS_MASTER_PASSWORD')")
        arrive(db, number, module, good)
        first, second = sorted(ids(db))
        role = {"session_replication_role": "replica" if replicates else "origin"}
        one, other = db.connect(autocommit=False, **role), db.connect(autocommit=False, **role)
        one.execute(f"delete from {KEYRINGS} where id = %s", (first,))
        other.execute("set local lock_timeout = '300ms'")
        with refused("55P03"):
            other.execute(f"delete from {KEYRINGS} where id = %s", (second,))
        other.rollback()
        one.commit()
        if replicates:
            assert other.execute(f"delete from {KEYRINGS} where id = %s", (second,)).rowcount == 0
        else:
            with refused("2BP01", second):
                other.execute(f"delete from {KEYRINGS} where id = %s", (second,))
        other.rollback()
        assert ids(db) == {second} and read(db) == {"a": "1"}

    @pytest.mark.parametrize("statement", ["delete from", "truncate"])
    def test_a_value_that_is_not_committed_counts(self, db: Database, statement: str) -> None:
        put(db, "a", "1")
        db.run(f"delete from {VIEW}")
        db.run("select omni_credentials.purge_history(everything => true)")
        writer, other = db.connect(autocommit=False), db.connect(lock_timeout="300ms")
        writer.execute("select omni_credentials.set_credential('b', '2')")
        with refused("55P03"):
            other.execute(f"{statement} {KEYRINGS}")
        writer.commit()
        with refused("2BP01"):
            other.execute(f"{statement} {KEYRINGS}")
        assert read(db) == {"b": "2"}

    def test_a_later_statement_looks_again(self, db: Database) -> None:
        """What one statement found does not hold for the next one of the transaction, nor after a rollback."""
        put(db, "a", "1")
        ((sealed,),) = db.run(f"select value from {TABLE}")
        ((*_, old),) = stored(db)
        db.run("select omni_credentials.use_module()")
        db.run("select omni_credentials.purge_history(everything => true)")
        session, _ = replica(db)
        session.execute("begin")
        session.execute("savepoint here")
        assert session.execute(f"delete from {KEYRINGS} where id = %s", (old,)).rowcount == 1
        session.execute("rollback to here")
        session.execute(f"update {TABLE} set value = %b", (sealed,))
        assert session.execute(f"delete from {KEYRINGS} where id = %s", (old,)).rowcount == 0
        session.execute("commit")
        assert read(db) == {"a": "1"}

    @pytest.mark.parametrize("replicates", [True, False])
    def test_truncate(self, db: Database, replicates: bool) -> None:
        put(db, "a", "1")
        before = stored(db)
        session = replica(db)[0] if replicates else db.connect()
        with refused("2BP01", "cannot remove keyrings of schema omni_credentials"):
            session.execute(f"truncate {KEYRINGS}")
        assert stored(db) == before
        session.execute(f"truncate {TABLE}, omni_credentials.encrypted_credential_versions, {KEYRINGS}")
        assert stored(db) == []


class TestOverwriting:
    @KINDS
    def test_with_what_does_not_open(self, db: Database, kind: str) -> None:
        put(db, "a", "1")
        before = stored(db)
        ((_, module, good, id),) = before
        new = CLOSED[kind][1](module, good)
        with refused("2BP01", f"cannot overwrite keyring {id} of schema omni_credentials"):
            db.run(f"update {KEYRINGS} set (module, keyring) = (%b, %b)", *new)
        session, warnings = replica(db)
        assert session.execute(f"update {KEYRINGS} set (module, keyring) = (%b, %b)", new).rowcount == 0
        assert stored(db) == before and read(db) == {"a": "1"}
        (warning,) = warnings
        assert f"kept keyring {id} of schema omni_credentials that another server changed" in warning

    def test_with_what_lacks_its_keys(self, db: Database) -> None:
        put(db, "a", "1")
        ((_, _, good, old),) = stored(db)
        db.run("select omni_credentials.use_module()")
        other = next(keyring for *_, keyring, id in stored(db) if id != old)
        new = next(id for id in ids(db) if id != old)
        # The superseded one is needed no more: it may get any bytes.
        session, warnings = replica(db)
        with refused("2BP01", new):
            db.run(f"update {KEYRINGS} set keyring = %b where id = %s", good, new)
        assert session.execute(f"update {KEYRINGS} set keyring = %b where id = %s", (good, new)).rowcount == 0
        assert len(warnings) == 1
        assert session.execute(f"update {KEYRINGS} set keyring = %b where id = %s", (other, old)).rowcount == 1
        assert read(db) == {"a": "1"}

    def test_with_more_keys(self, db: Database) -> None:
        """As an older version of the extension did, or a union: nothing is lost."""
        put(db, "a", "1")
        ((number, _, _, id),) = before = stored(db)
        db.run("select omni_credentials.rotate_key()")
        ((_, _, more, _),) = stored(db)
        arrive(db, *before[0][:3])
        put(db, "b", "2")
        older = next(id for (_, _, keyring, id) in stored(db) if keyring == before[0][2])
        assert db.run(f"update {KEYRINGS} set keyring = %b where id = %s returning number", more, older) == [(number,)]
        assert db.run(f"delete from {KEYRINGS} where id <> %s returning number", older) == [(number,)]
        assert read(db) == {"a": "1", "b": "2"}
        assert id not in ids(db)

    @KINDS
    def test_a_keyring_from_a_backup_is_put_back(self, db: Database, kind: str) -> None:
        put(db, "a", "1")
        ((*_, id),) = before = stored(db)
        module, good = before[0][1:3]
        unguarded(db, f"update {KEYRINGS} set (module, keyring) = (%b, %b)", *CLOSED[kind][1](module, good))
        with refused(CLOSED[kind][0]):
            read(db)
        db.run(
            f"insert into {KEYRINGS} values (%s, %b, %b, %s) on conflict (id) do update"
            " set (module, keyring) = (excluded.module, excluded.keyring)", *before[0],
        )
        assert stored(db) == before and read(db) == {"a": "1"}
        assert ids(db) == {id}


class TestMany:
    @pytest.mark.parametrize("kind", ["copies", *CLOSED])
    def test_three_thousand_go_in_one_statement(self, db: Database, kind: str) -> None:
        for name in "abcdefgh":
            put(db, name, "1")
        ((number, module, good, id),) = stored(db)
        new = (module, good) if kind == "copies" else CLOSED[kind][1](module, good)
        arrive(db, number, *new, count=3_000)
        with refused("2BP01", "cannot delete keyring"):
            db.run(f"delete from {KEYRINGS}")
        session = db.connect(statement_timeout="60s")
        assert session.execute(f"delete from {KEYRINGS} where id <> %s", (id,)).rowcount == 3_000
        assert len(read(db)) == 8

    def test_copies_are_one_keyring(self, db: Database) -> None:
        put(db, "a", "1")
        arrive(db, *stored(db)[0][:3], count=3_000)
        session = db.connect(statement_timeout="60s")
        assert session.execute(f"select value from {VIEW}").fetchall() == [(b"1",)]
        put(db, "b", "2")
        session.execute("select omni_credentials.rotate_key()")
        assert len(ids(db)) == 1 and read(db) == {"a": "1", "b": "2"}

    def test_too_many_that_differ(self, db: Database) -> None:
        put(db, "a", "1")
        ((number, module, good, id),) = stored(db)
        session, _ = replica(db)
        session.execute(
            f"insert into {KEYRINGS} (number, module, keyring) select %s + (n > 150)::int, %b, %b || int4send(n)"
            " from generate_series(1, 550) n",
            (number, module, good),
        )
        limit = ("54000", "credentials_keyrings has more than 256 keyrings", f"delete from {KEYRINGS} where number = {number + 1}")
        for statement in (f"select value from {VIEW}", "select omni_credentials.rotate_key()"):
            with refused(*limit) as caught:
                db.run(statement)
        with refused(*limit):
            put(db, "b", "2")
        assert db.run("select problem like '%256%' from omni_credentials.status()") == [(True,)]
        db.run((caught.error.diag.message_hint or "").partition("delete ")[1] + f"from {KEYRINGS} where number = {number + 1}")
        assert read(db) == {"a": "1"}
        with refused("2BP01", id):
            db.run(f"delete from {KEYRINGS} where number = {number}")
        db.run(f"delete from {KEYRINGS} where number = {number} and id <> '{id}'")
        put(db, "b", "2")


class TestNumbers:
    def test_the_highest_number(self, db: Database) -> None:
        put(db, "a", "1")
        ((_, module, good, _),) = stored(db)
        (high,) = arrive(db, 2**31 - 1, module, good)
        with refused("54000", f"no keyring can supersede keyring {high} of schema omni_credentials", hint="update") as caught:
            db.run("select omni_credentials.use_module()")
        update = (caught.error.diag.message_hint or "").partition("Give it a lower number: ")[2].partition(". Or")[0]
        db.run(update)
        db.run("select omni_credentials.use_module()")
        assert db.run("select omni_credentials.prune_keyrings()") == [(2,)]
        assert read(db) == {"a": "1"}
