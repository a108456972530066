"""When credentials expire: in the view, the table, a file store and the command."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from command import Folder, beside, own
from conftest import Database, refused
from file_stores import contents, edit, in_step, mirrored

VIEW = "omni_credentials.credentials"
TABLE = "omni_credentials.encrypted_credentials"
SET = "select omni_credentials.set_credential('n', 'v', expires_at => %s)"
SOON = datetime(2027, 1, 15, 8, tzinfo=UTC)
LATER = datetime(2028, 2, 29, tzinfo=UTC)


def expiry(db: Database) -> datetime | None:
    ((value, expires_at),) = db.run(f"select value, expires_at from {VIEW} where name = 'n'")
    assert value == b"v"
    return expires_at


def test_it_is_written_and_changed(db: Database) -> None:
    db.run(f"insert into {VIEW} (name, value) values ('n', 'v')")
    assert expiry(db) is None
    sealed = db.run(f"select value from {TABLE}")
    for expires_at in (SOON, LATER, None, SOON):
        db.run(f"update {VIEW} set expires_at = %s", expires_at)
        assert expiry(db) == expires_at
        before, sealed = sealed, db.run(f"select value from {TABLE}")
        assert sealed != before, "the same sealed bytes under another expiry"
    db.run(f"update {VIEW} set expires_at = %s", SOON)
    assert db.run(f"select value from {TABLE}") == sealed, "sealed again without need"
    db.run(SET, LATER)
    assert expiry(db) == LATER
    db.run("select omni_credentials.set_credential('n', 'v')")
    assert expiry(db) is None
    db.run(f"delete from {VIEW}")
    db.run(f"insert into {VIEW} (name, value, expires_at) values ('n', 'v', %s)", SOON)
    assert expiry(db) == SOON
    assert db.run("select count(*) from omni_credentials.verify()") == [(0,)]
    db.run("select omni_credentials.rotate_key()")
    assert expiry(db) == SOON


def test_fractions_of_a_second_are_rounded(db: Database) -> None:
    for write in (SET, f"update {VIEW} set expires_at = %s"):
        db.run(write, SOON + timedelta(milliseconds=400))
        assert expiry(db) == SOON


def test_a_value_is_bound_to_it(db: Database) -> None:
    """Who can change the table, or knows the sealed bytes, cannot prolong a credential."""
    db.run(SET, SOON)
    for expires_at in (None, LATER):
        with refused("23514|XX001", "altered, or sealed for another name, kind, principal, scope or expires_at"):
            db.run(f"update {TABLE} set expires_at = %s", expires_at)
        with refused("XX001", "altered"):
            db.run(f"select omni_credentials.open_credential(tableoid, name, kind, principal, scope, value, %s) from {TABLE}",
                   expires_at)
    assert db.run(
        f"select omni_credentials.open_credential(tableoid, name, kind, principal, scope, value, expires_at) from {TABLE}"
    ) == [(b"v",)]


@pytest.mark.parametrize("expires_at", ["infinity", "-infinity", "1969-12-31 23:59:59+00", "10000-01-01 00:00:00+00"])
def test_what_no_file_can_say_is_refused(db: Database, expires_at: str) -> None:
    with refused("22008", 'the expires_at of credential "n" is not a whole second from 1970 to 9999'):
        db.run(f"select omni_credentials.set_credential('n', 'v', expires_at => '{expires_at}')")
    with refused("22008", "expires_at"):
        db.run(f"insert into {VIEW} (name, value, expires_at) values ('n', 'v', '{expires_at}')")
    assert db.run(f"select count(*) from {TABLE}") == [(0,)]


@pytest.mark.parametrize("expires_at", ["1970-01-01 00:00:00+00", "9999-12-31 23:59:59+00"])
def test_the_first_and_the_last(db: Database, expires_at: str) -> None:
    db.run(f"select omni_credentials.set_credential('n', 'v', expires_at => '{expires_at}')")
    assert db.run(f"select value, expires_at = '{expires_at}' from {VIEW}") == [(b"v", True)]


def test_a_column_that_the_owner_changed(db: Database) -> None:
    """What does not fit there is reported as such, by name, and other rows are read on."""
    db.run("create schema mine; select omni_credentials.instantiate('mine')")
    db.run("select mine.set_credential('n', 'v', expires_at => %s)", SOON)
    db.run("insert into mine.credentials (name, value) values ('other', 'w')")
    table = "mine.encrypted_credentials"
    db.run("drop view mine.credentials cascade")
    db.run("do $$ declare f text; begin loop"
           " select oid::regprocedure into f from pg_proc where pronamespace = 'mine'::regnamespace limit 1;"
           " exit when not found; execute format('drop function %s cascade', f); end loop; end $$")
    db.run(f"alter table {table} disable trigger user; alter table {table} alter column expires_at type timestamptz(6);"
           f"update {table} set expires_at = 'infinity' where name = 'n'; alter table {table} enable trigger user")
    assert db.run("select name, reason from omni_credentials.verify('mine')") == [
        ("n", "its expires_at is not a whole second from 1970 to 9999")
    ]
    db.run(f"alter table {table} alter column expires_at type text")
    with refused("42P16", "column 6 is not expires_at"):
        db.run("select * from omni_credentials.verify('mine')")


def test_expiring_lists_what_is_due(role, db: Database) -> None:
    app, other = role("app"), role("other")
    db.grant(app)
    db.grant(other, "INSERT")
    now = datetime.now(UTC)
    for name, within in (("past", -1), ("soon", 10), ("late", 100)):
        db.run("select omni_credentials.set_credential(%s, 'v', expires_at => %s)", name, now + timedelta(days=within),
               user=app)
    db.run("select omni_credentials.set_credential('never', 'v')", user=app)
    due = "select name from omni_credentials.expiring({})"
    assert db.run(due.format(""), user=app) == [("past",), ("soon",)]
    assert db.run(due.format("interval '1 year'"), user=app) == [("past",), ("soon",), ("late",)]
    assert db.run(due.format("interval '0'"), user=app) == [("past",)]
    with refused("42501"):
        db.run(due.format(""), user=other)
    db.grant(other)
    assert db.run(due.format(""), user=other) == []


def test_reading_goes_on_and_can_warn(db: Database) -> None:
    with db.connect() as session:
        notices: list[str] = []
        session.add_notice_handler(lambda notice: notices.append(f"{notice.severity}: {notice.message_primary}"))
        session.execute("select omni_credentials.set_credential('n', 'v', expires_at => now() - interval '1 day')")
        assert session.execute(f"select value from {VIEW}").fetchone() == (b"v",)
        assert notices == []
        session.execute("set omni_credentials.warn_expired = on")
        assert session.execute(f"select value from {VIEW}").fetchone() == (b"v",)
        assert notices == ['WARNING: credential "n" has expired']
        session.execute("select omni_credentials.set_credential('n', 'v', expires_at => now() + interval '1 day')")
        session.execute(f"select value from {VIEW}")
        assert len(notices) == 1


def test_a_file_store_carries_it(db: Database) -> None:
    file = mirrored(db, {"n": b"v"})
    db.run(SET, SOON)
    assert "\n  expires 2027-01-15T08:00:00Z\n" in file.read_text()
    assert in_step(db)
    assert contents(db.server, file) == {"n": b"v"}
    db.run(f"update {VIEW} set expires_at = null")
    assert "expires" not in file.read_text()
    db.run(SET, SOON)
    # Set from outside, without an expiry; the reload takes over both.
    edit(db.server, file, n=b"v")
    db.run("select * from omni_credentials.credential_file_store_reload(%s)", str(file))
    assert expiry(db) is None and in_step(db)
    db.run(f"delete from {VIEW}")
    assert 'deleted "n"' in file.read_text()


def test_the_command_and_the_database_hand_it_to_each_other(db: Database) -> None:
    folder = beside(db)
    db.run(SET, SOON)
    db.run("select omni_credentials.instantiate_file_store(%s)", str(folder.file))
    assert "expires 2027-01-15T08:00:00Z" in folder.run("list").text and folder.get("n") == b"v"
    folder.run("set", "n", "--exact", "--expires", "2028-02-29", stdin=b"v")
    reload = "select name, action from omni_credentials.credential_file_store_reload(%s)"
    own(db, folder)
    assert db.run(reload, str(folder.file)) == [("n", "changed")]
    assert expiry(db) == LATER
    folder.run("set", "n", "--exact", "--expires", "2027-01-15T08:00:00Z", stdin=b"v")
    own(db, folder)
    with refused("40002|40001|23505", "n "):
        db.run(f"update {VIEW} set expires_at = null")
    db.run(reload, str(folder.file))
    assert expiry(db) == SOON


class TestCommand:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Folder:
        (path := tmp_path / "work").mkdir()
        folder = Folder(path)
        folder.run("init")
        return folder

    def test_set_and_list(self, folder: Folder) -> None:
        folder.set("n", "v", "--expires", "2027-01-15T08:00:00Z")
        folder.set("never", "v")
        assert "  expires 2027-01-15T08:00:00Z\n" in folder.file.read_text()
        assert folder.run("list").text.splitlines()[0].endswith("  expires 2027-01-15T08:00:00Z")
        listed = {it["name"]: it.get("expires") for it in folder.run("list", "--json").json["credentials"]}
        assert listed == {"n": "2027-01-15T08:00:00Z", "never": None}
        assert ", expires 2027-01-15T08:00:00Z: sealed" in folder.run("show").text
        before = folder.file.read_bytes()
        assert folder.set("n", "v", "--expires", "2027-01-15 08:00:00").err.startswith("unchanged ")
        assert folder.file.read_bytes() == before
        assert folder.set("n", "v", "--expires", "2028-02-29").err.startswith("changed ")
        assert folder.get("n") == b"v"
        said = folder.set("n", "w").err
        assert "it does not expire any more: --expires says when" in said and "changed n" in said
        assert folder.set("n", "x", "--expires", "never").err.startswith("changed ")
        folder.run("set", "n", "--expires", "soon", stdin=b"v", status=2)

    def test_what_is_due(self, folder: Folder) -> None:
        assert folder.run("list", "--expiring", "30d").out == b""
        for name, when in (("late", "100d"), ("soon", "10d"), ("past", "2001-01-01"), ("never", "never")):
            folder.set(name, "v", "--expires", when)
        due = folder.run("list", "--expiring", "30d", "--json", status=16).json["credentials"]
        assert [it["name"] for it in due] == ["past", "soon"]
        assert [line.split()[0] for line in folder.run("list", "--expiring", "0s", status=16).text.splitlines()] == ["past"]
        folder.run("list", "--expiring", "30", status=2)

    def test_diff_tells_it_from_a_rotation(self, folder: Folder) -> None:
        folder.set("n", "v")
        folder.git("init")
        folder.git("add", "credentials.omni")
        folder.git("commit", "-m", "one")
        folder.set("n", "v", "--expires", "2027-01-15T08:00:00Z")
        text = folder.run("diff").text
        assert text.startswith("~ n (") and "    expires never, now 2027-01-15T08:00:00Z\n" in text
        (change,) = folder.run("diff", "--json").json["changes"]
        assert (change["change"], change.get("old_expires"), change["new_expires"]) == (
            "changed", None, "2027-01-15T08:00:00Z"
        )
        folder.git("commit", "-am", "two")
        folder.run("rotate-key")
        assert folder.run("diff").text.startswith("= n (")
        folder.run("verify")

    def test_an_editor_changes_it(self, folder: Folder) -> None:
        folder.set("n", "v", "--expires", "2027-01-15T08:00:00Z")
        folder.run("edit", EDITOR="sed -i 's/^expires = .*/expires = \"2028-02-29\"/'")
        assert "expires 2028-02-29T00:00:00Z" in folder.run("list").text and folder.get("n") == b"v"
        folder.run("edit", EDITOR="sed -i '/^expires = /d'")
        assert "expires" not in folder.run("list").text
