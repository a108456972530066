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
