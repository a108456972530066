"""What an owner adds to the table of keyrings, and the triggers that keep what values need."""

from __future__ import annotations

import pytest
from conftest import Database, refused
from foreign_keyrings import replica


class TestWithWhatTheOwnerAdds:
    """Columns, triggers and policies on the table of keyrings: what values need stays, and what they do not need goes."""

    PASS = "create function mine.pass() returns trigger language plpgsql as 'begin return case tg_op when ''DELETE'' then old else new end; end'"
    ADDED = {
        "generated column": ("alter table mine.credentials_keyrings add twice int generated always as (number * 2) stored",),
        "column before a dropped one": (
            "alter table mine.credentials_keyrings add gone int",
            "alter table mine.credentials_keyrings add note text default 'x'",
            "alter table mine.credentials_keyrings drop gone",
        ),
        "trigger before ours": (
            PASS,
            "create trigger a before insert or update or delete on mine.credentials_keyrings for each row execute function mine.pass()",
            "alter table mine.credentials_keyrings enable always trigger a",
        ),
        "trigger after ours": (
            PASS,
            "create trigger z before insert or update or delete on mine.credentials_keyrings for each row execute function mine.pass()",
            "alter table mine.credentials_keyrings enable always trigger z",
        ),
        "policy": (
            "create policy p on mine.credentials_keyrings using (true) with check (true)",
            "alter table mine.credentials_keyrings enable row level security",
            "alter table mine.credentials_keyrings force row level security",
        ),
        "full replica identity": ("alter table mine.credentials_keyrings replica identity full",),
    }

    @pytest.mark.parametrize("added", ADDED.values(), ids=ADDED)
    def test_rows(self, db: Database, added: tuple[str, ...]) -> None:
        db.run("create schema mine")
        db.run("select omni_credentials.instantiate('mine')")
        db.run("select mine.set_credential('a', '1'::text)")
        for statement in added:
            db.run(statement)
        ((good,),) = db.run("select id::text from mine.credentials_keyrings")
        session, warnings = replica(db)
        session.execute(
            "insert into mine.credentials_keyrings (number, module, keyring) select 9, module, 'x' from mine.credentials_keyrings"
        )
        for change in ("delete from mine.credentials_keyrings", "update mine.credentials_keyrings set keyring = 'y'"):
            with refused("2BP01", good):
                db.run(f"{change} where id = %s", good)
            assert session.execute(f"{change} where id = %s", (good,)).rowcount == 0
        assert len(warnings) == 2
        assert db.run("update mine.credentials_keyrings set keyring = 'y' where number = 9 returning number") == [(9,)]
        assert db.run("delete from mine.credentials_keyrings where number = 9 returning number") == [(9,)]
        assert db.run("select value from mine.credentials") == [(b"1",)]


class TestWithWhatTheOwnerChanges:
    """Tables that were moved and constraints that were dropped hide no value and no keyring from the triggers."""

    MOVED = {
        "keyrings renamed": "alter table mine.credentials_keyrings rename to k",
        "keyrings moved": "alter table mine.credentials_keyrings set schema other",
        "values renamed": "alter table mine.encrypted_credentials rename to v",
        "values moved": "alter table mine.encrypted_credentials set schema other",
        "history renamed": "alter table mine.encrypted_credential_versions rename to h",
        "history moved": "alter table mine.encrypted_credential_versions set schema other",
    }
    CHANGES = {
        "delete": "delete from {keyrings}",
        "update": r"update {keyrings} set keyring = '\x00'",
        "truncate": "truncate {keyrings}",
    }

    @pytest.fixture(autouse=True)
    def _history(self, db: Database) -> None:
        """All that is sealed is in the history."""
        db.run("create schema mine")
        db.run("create schema other")
        db.run("select omni_credentials.instantiate('mine')")
        db.run("select mine.set_history_limit(5)")
        for value in ("1", "2"):
            db.run("select mine.set_credential('a', %s::text)", value)
        db.run("delete from mine.credentials")

    @pytest.mark.parametrize("replicates", [False, True], ids=["session", "replica"])
    @pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
    @pytest.mark.parametrize("moved", MOVED.values(), ids=MOVED)
    def test_moved_tables(self, db: Database, moved: str, change: str, *, replicates: bool) -> None:
        ((keyrings,),) = db.run("select 'mine.credentials_keyrings'::regclass::oid")
        before = db.run("select * from mine.credentials_keyrings")
        db.run(moved)
        ((now,),) = db.run("select %s::regclass::text", keyrings)
        session = replica(db)[0] if replicates else db.connect()
        if replicates and not change.startswith("truncate"):
            assert session.execute(change.format(keyrings=now)).rowcount == 0
        else:
            with refused("2BP01" if not change.startswith("truncate") else "42P16"):
                session.execute(change.format(keyrings=now))
        assert db.run(f"select * from {now}") == before

    @pytest.mark.parametrize("column", ["keyring = null", r"module = '\x00'", "module = null", "id = null"])
    @pytest.mark.parametrize("replicates", [False, True], ids=["session", "replica"])
    def test_a_row_that_is_none(self, db: Database, column: str, *, replicates: bool) -> None:
        for constraint in db.run(
            "select format('alter table %s drop constraint %I cascade', conrelid::regclass, conname) from pg_constraint"
            " where conrelid = 'mine.credentials_keyrings'::regclass and contype <> 'n'"
        ):
            db.run(*constraint)
        for name in ("module", "keyring", "id"):
            db.run(f"alter table mine.credentials_keyrings alter {name} drop not null")
        before = db.run("select * from mine.credentials_keyrings")
        change = f"update mine.credentials_keyrings set {column}"
        if replicates:
            session, warnings = replica(db)
            assert session.execute(change).rowcount == 0
            assert len(warnings) == 1 and "that another server changed" in warnings[0]
        else:
            with refused("2BP01", "overwrite"):
                db.run(change)
        assert db.run("select * from mine.credentials_keyrings") == before
        # What is none opens nothing, and can go.
        db.run("insert into mine.credentials_keyrings (number, module, keyring) values (9, null, null)")
        assert db.run("delete from mine.credentials_keyrings where number = 9 returning number") == [(9,)]
