"""Keyrings of another server that do not open here: what is read, what is refused, and how they go."""

from __future__ import annotations

import pytest
from conftest import PASSWORD, VARIABLE, Database, refused
from foreign_keyrings import (
    CLOSED,
    KEYRINGS,
    VIEW,
    arrive,
    delete_of,
    ids,
    orphaned,
    put,
    read,
    send_closed,
    stored,
    unguarded,
)
from test_modules import AES, digest, install

KINDS = pytest.mark.parametrize("kind", CLOSED)


@KINDS
class TestAboveTheGoodOne:
    def test_reading_goes_on(self, db: Database, kind: str) -> None:
        put(db, "a", "1")
        put(db, "a", "2")
        bad = send_closed(db, kind)
        assert read(db) == {"a": "2"}
        assert db.run("select version, value from omni_credentials.credential_versions") == [(1, b"1")]
        assert db.run("select * from omni_credentials.verify()") == []
        ((unlocks, problem),) = db.run("select unlocks, problem from omni_credentials.status()")
        assert unlocks is False and bad in problem
        # What it seals is to open with each keyring that is current; the hint's command puts that right.
        with refused(CLOSED[kind][0], f"keyring {bad} of schema omni_credentials") as caught:
            put(db, "b", "3")
        db.run(delete_of(caught.error))
        put(db, "b", "3")
        assert read(db) == {"a": "2", "b": "3"} and len(ids(db)) == 1

    @pytest.mark.parametrize("function", ["rotate_key()", "prune_keyrings()"])
    @pytest.mark.parametrize("above", [0, 1])
    def test_maintenance_names_it(self, db: Database, kind: str, function: str, above: int) -> None:
        """Also where it has the number of the good one, and would be united with it."""
        put(db, "a", "1")
        ((number, *_, good),) = stored(db)
        bad = send_closed(db, kind, number + above)
        if kind == "another module" and not above and good > bad:
            # Then it is superseded by the good one, whose module is another.
            db.run(f"update {KEYRINGS} set number = number + 1 where id = %s", bad)
        with refused(CLOSED[kind][0], f"keyring {bad} of schema omni_credentials") as caught:
            db.run(f"select omni_credentials.{function}")
        db.run(delete_of(caught.error))
        db.run(f"select omni_credentials.{function}")
        assert read(db) == {"a": "1"} and bad not in ids(db)

    def test_use_module_goes_past_it(self, db: Database, kind: str) -> None:
        put(db, "a", "1")
        bad = send_closed(db, kind)
        assert db.run("select omni_credentials.use_module()") == [(1,)]
        put(db, "b", "2")
        assert bad in ids(db)
        # No value needs it, nor the one before.
        assert db.run("select omni_credentials.prune_keyrings()") == [(2,)]
        assert read(db) == {"a": "1", "b": "2"}

    @pytest.mark.parametrize("copies", [1, 3])
    def test_rotate_master_secret_leaves_it(self, db: Database, kind: str, copies: int) -> None:
        put(db, "a", "1")
        number, module, good, _ = stored(db)[-1]
        sent = arrive(db, number + 1, *CLOSED[kind][1](module, good), count=copies)
        session = db.connect()
        warnings: list[str] = []
        session.add_notice_handler(lambda notice: warnings.append(notice.message_primary or ""))
        session.execute("select omni_credentials.rotate_master_secret('OMNI_CREDENTIALS_MASTER_PASSWORD')")
        assert len(warnings) == copies
        for bad in sent:
            (warning,) = (warning for warning in warnings if f"left keyring {bad}" in warning)
            assert "No value needs it" in warning
            db.run(warning.partition("to delete it: ")[2])
        put(db, "b", "2")
        assert read(db) == {"a": "1", "b": "2"} and len(ids(db)) == 1

    @pytest.mark.parametrize("copies", [0, 2])
    def test_rotate_master_secret_leaves_none_behind_that_may_be_needed(self, db: Database, kind: str, copies: int) -> None:
        bad = orphaned(db, kind)
        (here,) = (row for row in stored(db) if row[3] == bad)
        sent = arrive(db, *here[:3], count=copies) if copies else []
        with refused(CLOSED[kind][0], "|".join([bad, *sent])):
            db.run("select omni_credentials.rotate_master_secret('OMNI_CREDENTIALS_MASTER_PASSWORD')")

    def test_only_values_of_it_are_unreadable(self, db: Database, kind: str) -> None:
        """It seals one of two values: the other one is read, and verify() lists the one."""
        bad = orphaned(db, kind)
        ((name, reason),) = db.run("select name, reason from omni_credentials.verify() where reason not like 'version%'")
        assert name == "a" and reason.startswith("no keyring that opens has its key") and bad in reason
        with refused(CLOSED[kind][0], bad):
            read(db)
        assert db.run(f"select value from {VIEW} where name = 'b'") == [(b"2",)]
        session = db.connect(**{"omni_credentials.on_unreadable": "null"})
        assert session.execute(f"select name, value from {VIEW} order by name").fetchall() == [("a", None), ("b", b"2")]

    def test_a_file_store_goes_on(self, db: Database, kind: str) -> None:
        put(db, "a", "1")
        file = db.server.data / f"{db.name}.credentials"
        db.run("select * from omni_credentials.instantiate_file_store(%s)", str(file))
        bad = send_closed(db, kind)
        with refused(CLOSED[kind][0], bad) as caught:
            put(db, "b", "2")
        db.run(delete_of(caught.error))
        put(db, "b", "2")
        assert db.run("select in_step, reason from omni_credentials.credential_file_stores") == [(True, None)]
        # Superseded, it is in no one's way.
        send_closed(db, kind, -1)
        put(db, "c", "3")
        db.run("select * from omni_credentials.credential_file_store_reload(%s)", str(file))
        assert db.run("select in_step, reason from omni_credentials.credential_file_stores") == [(True, None)]
        assert read(db) == {"a": "1", "b": "2", "c": "3"}
        file.unlink()


class TestWithoutKeyrings:
    def test_rows_alone(self, db: Database) -> None:
        """A publication without credentials_keyrings."""
        put(db, "a", "1")
        unguarded(db, f"truncate {KEYRINGS}")
        with refused("42704", '"a"', hint="publish omni_credentials.credentials_keyrings"):
            read(db)
        with refused("55000", "no keyring", hint="alter publication .* add table omni_credentials.credentials_keyrings"):
            put(db, "b", "2")
        ((problem,),) = db.run("select problem from omni_credentials.status()")
        assert "no keyring" in problem and "publish omni_credentials.credentials_keyrings with the rows" in problem


def test_a_module_that_may_not_run(own_db: Database) -> None:
    """It is read past, and not said to be damaged."""
    db = own_db
    install(db)
    put(db, "a", "1")
    db.run("create schema other")
    db.run("select omni_credentials.instantiate('other')")
    db.run("select omni_credentials.use_module('other', 'aes')")
    db.run("select other.set_credential('x', 'y')")
    ((module, keyring),) = db.run("select module, keyring from other.credentials_keyrings")
    (bad,) = arrive(db, 2, module, keyring)
    ((builtin,),) = db.run(f"select encode(module, 'hex') from {KEYRINGS} where number = 1")
    assert digest(AES) == module.hex()
    db.close()
    db.server.settings["omni_credentials.allowed_modules"] = builtin
    db.server.restart({VARIABLE: PASSWORD})
    assert read(db) == {"a": "1"}
    with refused("42501", f"keyring {bad} .*not allowed", hint="allowed_modules"):
        put(db, "b", "2")


def test_a_cancel_is_no_damage(own_db: Database) -> None:
    """A keyring of the highest costs: a reader that is cancelled meanwhile does not take it for one that does not open."""
    put(own_db, "a", "1")
    ((number, module, good, _),) = stored(own_db)
    costly = good[:7] + (262_144).to_bytes(4, "big") + (16).to_bytes(4, "big") + (1).to_bytes(4, "big") + good[19:]
    (bad,) = arrive(own_db, number + 1, module, costly)
    session = own_db.connect(statement_timeout="300ms")
    with refused("57014"):
        session.execute(f"select value from {VIEW}")
    with refused("57014"):
        session.execute("select * from omni_credentials.verify()")
    session.execute("set statement_timeout = 0")
    session.execute(f"delete from {KEYRINGS} where id = %s", (bad,))
    assert session.execute(f"select value from {VIEW}").fetchall() == [(b"1",)]
