"""Rotation and its like: as the owner of the instance, in a restricted operation, and of every row or none."""

from __future__ import annotations

import pytest
from conftest import VARIABLE, Database, refused
from file_stores import edit
from owners import instance_of

SEALED = "select name, value from mine.encrypted_credentials order by name"
OPENED = "select name, value from mine.credentials order by name"
CALLS = {
    "rotate_key": "rotate_key('mine')",
    "use_module": "use_module('mine')",
    "rename_principal": "rename_principal('{old}', '{old}_x', 'mine')",
    "rotate_master_secret": f"rotate_master_secret('{VARIABLE}', 'mine')",
    "prune_keyrings": "prune_keyrings('mine')",
    "verify": "verify('mine')",
}
SPY = """
create function mine.spy() returns {returns} language plpgsql as $$
declare outcome text;
begin
    {body}
    insert into mine.seen values (current_user, session_user, current_setting('search_path'), outcome);
    return {result};
end$$
"""


class Owned:
    """An instance of an owner who puts code wherever a table takes it."""

    def __init__(self, db: Database, owner: str, old: str, body: str = "outcome := 'ran';") -> None:
        self.db, self.owner, self.old = db, owner, old
        instance_of(db, owner)
        db.run(f"grant temporary on database {db.name} to {owner}")
        db.run(
            "insert into mine.credentials (name, value, principal) values ('a', 'x', %s::regrole), ('b', 'y', %s::regrole)",
            owner, old, user=owner,
        )
        self("create table mine.seen (current name, session name, path text, outcome text)")
        self(SPY.format(returns="trigger", body=body, result="new"))
        self(SPY.format(returns="boolean", body=body, result="true").replace("mine.spy()", "mine.spied(name text)"))

    def __call__(self, statement: str) -> list[tuple]:
        return self.db.run(statement, user=self.owner)

    def seen(self) -> list[tuple]:
        return self("select current, session, path, outcome from mine.seen")


@pytest.fixture
def owner(role) -> str:
    return role("owner")


@pytest.fixture
def old(role) -> str:
    return role("old")


@pytest.fixture
def owned(owner: str, old: str, db: Database) -> Owned:
    return Owned(db, owner, old)


def put(db: Database, owner: str, where: str) -> None:
    """The owner's code on every way into the tables."""
    triggers = f"create trigger a_spy_{WHERE.index(where)} {{}} on mine.{{}} for each {{}} execute function mine.spy()"
    for statement in {
        "a trigger before": [triggers.format("before update", "encrypted_credentials", "row")],
        "a trigger after": [triggers.format("after update", "encrypted_credentials", "row")],
        "a trigger of the statement": [triggers.format("after update", "encrypted_credentials", "statement")],
        "a trigger of the settings": [triggers.format("before update", "credentials_config", "row")],
        "a policy": [
            "alter table mine.encrypted_credentials force row level security",
            "create policy spy on mine.encrypted_credentials using (mine.spied(name)) with check (mine.spied(name))",
        ],
        "a constraint": ["alter table mine.encrypted_credentials add check (mine.spied(name))"],
        "a default": [
            "alter table mine.encrypted_credentials add more boolean generated always as (mine.pure(name)) stored",
        ],
        "a rule": [
            "create rule spy as on update to mine.encrypted_credentials do also select mine.spied(new.name)",
        ],
    }[where]:
        if "pure" in statement:
            db.run(
                "create function mine.pure(name text) returns boolean language plpgsql immutable as"
                " $$begin return mine.spied(name); end$$",
                user=owner,
            )
        db.run(statement, user=owner)


WHERE = (
    "a trigger before", "a trigger after", "a trigger of the statement", "a trigger of the settings", "a policy", "a constraint",
    "a default", "a rule",
)


class TestAsTheOwner:
    @pytest.mark.parametrize("where", WHERE)
    @pytest.mark.parametrize("call", CALLS)
    def test_code_of_the_owner_runs_as_the_owner(self, owned: Owned, db: Database, call: str, where: str) -> None:
        """Whatever it is attached to, and no matter who asks. What a superuser is asked to run is never run with their rights."""
        put(db, owned.owner, where)
        if call == "rename_principal":
            # Its value was sealed for a role that has another name now.
            db.run(f"alter role {owned.old} rename to {owned.old}_x")
        owned("delete from mine.seen")
        with db.connect() as boss:
            boss.execute("set search_path = public, pg_catalog")
            answer = boss.execute(f"select * from omni_credentials.{CALLS[call].format(old=owned.old)}").fetchall()
            # What it was before is back.
            assert boss.execute("select current_user::text, current_setting('search_path')").fetchone() == (
                "postgres", "public, pg_catalog",
            )
        if call == "rename_principal":
            assert answer == [(1,)]
            assert [value for _, value in db.run(OPENED)] == [b"x", b"y"]
            db.run(f"alter role {owned.old}_x rename to {owned.old}")
            db.run(f"select omni_credentials.rename_principal('{owned.old}_x', '{owned.old}', 'mine')")
        for current, session, path, _ in owned.seen():
            assert (current, session, path) == (owned.owner, "postgres", "pg_catalog, pg_temp")
        assert [value for _, value in db.run(OPENED)] == [b"x", b"y"]

    def test_code_is_run_at_all(self, owned: Owned, db: Database) -> None:
        """So that the test above says something."""
        for where in WHERE:
            if where != "a policy":
                put(db, owned.owner, where)
        owned("delete from mine.seen")
        db.run("select omni_credentials.use_module('mine', (select name from omni_credentials.crypto_modules))")
        assert len(owned.seen()) >= len(WHERE)

    TRICKS = {
        "take the session's role": "set role postgres",
        "take another session": "set session authorization postgres",
        "reset the role": "reset role",
        "make itself a superuser": "alter role {owner} superuser",
        "read a server's file": "perform pg_catalog.pg_read_file('PG_VERSION')",
        "leave something for later": "create temporary table later (a int)",
        "leave a cursor": "declare c cursor with hold for select 1",
        "listen": "listen x",
    }

    @pytest.mark.parametrize("trick", TRICKS.values(), ids=TRICKS)
    def test_there_is_no_way_back(self, owner: str, old: str, db: Database, trick: str) -> None:
        trick = trick.format(owner=owner)
        run = trick if trick.startswith("perform") else f"execute $s${trick}$s$"
        body = f"begin {run}; outcome := 'done'; exception when others then outcome := sqlstate; end;"
        owned = Owned(db, owner, old, body)
        put(db, owner, "a trigger before")
        put(db, owner, "a trigger of the settings")
        owned("delete from mine.seen")
        with db.connect() as boss:
            boss.execute("select omni_credentials.use_module('mine', (select name from omni_credentials.crypto_modules))")
            assert boss.execute("select current_user::text").fetchone() == ("postgres",)
        outcomes = {outcome for *_, outcome in owned.seen()}
        assert outcomes <= {"42501", "0A000"} or trick == "reset role", outcomes
        assert db.run(f"select rolsuper from pg_roles where rolname = '{owner}'") == [(False,)]

    def test_no_trigger_waits_for_the_commit(self, owned: Owned, db: Database) -> None:
        """Then it would run with the caller's rights."""
        owned(
            "create constraint trigger later after update on mine.encrypted_credentials deferrable initially deferred"
            " for each row execute function mine.spy()"
        )
        owned("delete from mine.seen")
        before = db.run(SEALED)
        with refused("42501", "deferred trigger"):
            db.run("select omni_credentials.rotate_key('mine')")
        assert db.run(SEALED) == before
        assert owned.seen() == []

    def test_everything_is_back_after_an_error(self, owner: str, old: str, db: Database) -> None:
        owned = Owned(db, owner, old, "if session_user <> current_user then raise exception 'no'; end if;")
        put(db, owner, "a trigger before")
        with db.connect(autocommit=False) as boss:
            boss.execute("set search_path = public")
            boss.execute("savepoint s")
            with refused("P0001", "no"):
                boss.execute("select omni_credentials.rotate_key('mine')")
            boss.execute("rollback to s")
            assert boss.execute("select current_user::text, current_setting('search_path')").fetchone() == ("postgres", "public")
            boss.execute(
                "do $$begin perform omni_credentials.rotate_key('mine'); exception when others then null; end$$"
            )
            assert boss.execute("select current_user::text, current_setting('search_path')").fetchone() == ("postgres", "public")
            # Not restricted any more.
            boss.execute("create temporary table t ()")
        assert [value for _, value in owned(OPENED)] == [b"x", b"y"]

    def test_rows_are_counted_for_whoever_may(self, role, owned: Owned, db: Database) -> None:
        """The owner, a member of the owner's role, and a superuser re-seal the same rows: all."""
        member = role("member", f"in role {owned.owner}")
        stranger = role("stranger")
        db.run(f"grant usage on schema omni_credentials to {stranger}, {member}")
        for function in CALLS:
            db.run(f"grant execute on function omni_credentials.{function} to {stranger}")
        db.run("insert into mine.credentials (name, value, principal) values ('c', 'z', 'postgres')")
        for user in (owned.owner, member, "postgres"):
            for change in ("no force", "force"):
                owned(f"alter table mine.encrypted_credentials {change} row level security")
                for call in ("rotate_key", "use_module"):
                    before = dict(db.run(SEALED))
                    assert db.run(f"select omni_credentials.{CALLS[call]}", user=user) == [(3,)]
                    after = dict(db.run(SEALED))
                    assert all(before[name] != after[name] for name in ("a", "b", "c"))
        assert db.run(OPENED) == [("a", b"x"), ("b", b"y"), ("c", b"z")]
        for call in ("rotate_key", "use_module", "rename_principal", "rotate_master_secret", "prune_keyrings"):
            with refused("42501", "must be owner of mine.encrypted_credentials"):
                db.run(f"select omni_credentials.{CALLS[call].format(old=owned.old).replace('_x', '')}", user=stranger)


class TestImport:
    """A file store that a superuser registers or loads: the rows are written as the owner of the instance."""

    PLACES = {
        "triggers for each row": [
            "create trigger a_spy before insert or update on mine.encrypted_credentials for each row execute function mine.spy()",
            "create trigger b_spy after insert or update or delete on mine.encrypted_credentials for each row execute function mine.spy()",
        ],
        "triggers of the statement": [
            "create trigger a_spy before insert or update or delete on mine.encrypted_credentials execute function mine.spy()",
            "create trigger b_spy after insert or update or delete on mine.encrypted_credentials execute function mine.spy()",
        ],
        "a policy": [
            "alter table mine.encrypted_credentials force row level security",
            "create policy spy on mine.encrypted_credentials using (mine.spied(name)) with check (mine.spied(name))",
        ],
        "a constraint": ["alter table mine.encrypted_credentials add check (mine.spied(name))"],
        "a default": ["alter table mine.encrypted_credentials add more boolean; "
                      "alter table mine.encrypted_credentials alter more set default mine.spied('x')"],
        "a domain": ["create domain mine.watched as boolean default mine.spied('x') check (mine.spied('x'))",
                     "alter table mine.encrypted_credentials add more mine.watched default true"],
        "an index": [
            "create function mine.pure(name text) returns boolean language plpgsql immutable as"
            " $$begin return mine.spied(name); end$$",
            "create index on mine.encrypted_credentials (mine.pure(name))",
        ],
        "a rule": ["create rule spy as on delete to mine.encrypted_credentials do also select mine.spied(old.name)"],
    }

    @staticmethod
    def load(db: Database, file: str, call: str, **values: bytes | None) -> list[tuple]:
        """What a superuser's call imports after these edits of the file from outside."""
        edit(db.server, file, **values)
        with db.connect() as boss:
            boss.execute("set search_path = public, pg_catalog")
            done = boss.execute(f"select name, action, reason from omni_credentials.{call}", {"file": file}).fetchall()
            assert boss.execute("select current_user::text, current_setting('search_path')").fetchone() == (
                "postgres", "public, pg_catalog",
            )
        return done

    REGISTER = "instantiate_file_store(%(file)s, 'mine')"
    RELOAD = "file_store_reload('mine', %(file)s, null, false)"

    @pytest.mark.parametrize("where", PLACES)
    def test_code_of_the_owner_runs_as_the_owner(self, owned: Owned, db: Database, where: str) -> None:
        db.run(f"grant pg_read_server_files, pg_write_server_files to {owned.owner}")
        for statement in self.PLACES[where]:
            owned(statement)
        owned("delete from mine.seen")
        file = str(db.server.data / f"{db.name}.import")
        steps = (
            (self.REGISTER, b"1", [("c", "added", None)]), (self.RELOAD, b"2", [("c", "changed", None)]),
            (self.RELOAD, None, [("c", "removed", None)]),
        )
        for call, value, done in steps:
            assert self.load(db, file, call, c=value) == done
        seen = owned.seen()
        assert seen or where == "a policy"
        for current, session, path, _ in seen:
            assert (current, session, path) == (owned.owner, "postgres", "pg_catalog, pg_temp")
        assert [value for _, value in owned(OPENED)] == [b"x", b"y"]

    def test_there_is_no_way_back(self, owner: str, old: str, db: Database) -> None:
        body = (
            f"begin execute 'alter role {owner} superuser'; outcome := 'done';"
            " exception when others then outcome := sqlstate; end;"
        )
        owned = Owned(db, owner, old, body)
        db.run(f"grant pg_read_server_files, pg_write_server_files to {owner}")
        for statement in self.PLACES["triggers for each row"]:
            owned(statement)
        owned("delete from mine.seen")
        file = str(db.server.data / f"{db.name}.import")
        assert self.load(db, file, self.REGISTER, c=b"1") == [("c", "added", None)]
        assert {outcome for *_, outcome in owned.seen()} == {"42501"}
        assert db.run(f"select rolsuper from pg_roles where rolname = '{owner}'") == [(False,)]

    def test_no_trigger_waits_for_the_commit(self, owned: Owned, db: Database) -> None:
        db.run(f"grant pg_read_server_files, pg_write_server_files to {owned.owner}")
        owned(
            "create constraint trigger later after insert on mine.encrypted_credentials deferrable initially deferred"
            " for each row execute function mine.spy()"
        )
        owned("delete from mine.seen")
        file = str(db.server.data / f"{db.name}.import")
        with refused("42501", "deferred trigger"):
            self.load(db, file, self.REGISTER, c=b"1")
        assert owned.seen() == []
        assert db.run("select count(*) from mine.credentials_files") == [(0,)]

    def test_other_roles_write_as_themselves(self, role, owned: Owned, db: Database) -> None:
        """Under their own policies: they are no way to the rights of the owner."""
        helper = role("helper", "in role pg_read_server_files, pg_write_server_files")
        db.run(f"grant pg_read_server_files, pg_write_server_files to {owned.owner}")
        db.run(f"grant usage on schema mine to {helper}")
        db.run(f"grant insert on mine.seen to {helper}")
        db.grant(helper, schema="mine")
        db.run(f"grant execute on function omni_credentials.instantiate_file_store to {helper}")
        for statement in self.PLACES["triggers for each row"]:
            owned(statement)
        owned("delete from mine.seen")
        file = str(db.server.data / f"{db.name}.import")
        edit(db.server, file, c=b"1")
        with refused("42501", "row-level security"):
            db.run(f"select omni_credentials.instantiate_file_store('{file}', 'mine')", user=helper)
        db.run(f"create policy all_rows on mine.encrypted_credentials to {helper} using (true) with check (true)")
        db.run(f"select omni_credentials.instantiate_file_store('{file}', 'mine')", user=helper)
        assert {(current, session) for current, session, *_ in owned.seen()} == {(helper, helper)}


class TestEveryRowOrNone:
    """What is kept as it was is not counted as sealed again."""

    KEEPERS = {
        "a trigger": [
            "create function mine.keep() returns trigger language plpgsql as"
            " $$begin if new.name = 'b' then return null; end if; return new; end$$",
            "create trigger a_keep before update on mine.encrypted_credentials for each row execute function mine.keep()",
        ],
        "a trigger that puts the old value back": [
            "create function mine.keep() returns trigger language plpgsql as"
            " $$begin if new.name = 'b' then new.value := old.value; end if; return new; end$$",
            "create trigger a_keep before update on mine.encrypted_credentials for each row execute function mine.keep()",
        ],
        "a rule": [
            "create rule keep as on update to mine.encrypted_credentials where old.name = 'b' do instead nothing",
        ],
        "a rule in place of the change": [
            "create table mine.other (value bytea); insert into mine.other values ('')",
            "create rule keep as on update to mine.encrypted_credentials do instead update mine.other set value = '' returning"
            " null::text, value, null::mine.credential_kind, null::regrole, null::jsonb, null::timestamptz",
        ],
        "a rule that changes something else": [
            "create table mine.other (a int); insert into mine.other values (1)",
            "create rule keep as on update to mine.encrypted_credentials where old.name = 'b' do instead update mine.other set a = 2",
        ],
    }

    @pytest.mark.parametrize("keeper", KEEPERS.values(), ids=KEEPERS)
    @pytest.mark.parametrize("call", ["rotate_key", "use_module"])
    def test_a_row_that_is_kept(self, owned: Owned, db: Database, call: str, keeper: list[str]) -> None:
        for statement in keeper:
            owned(statement)
        before = db.run(SEALED)
        for user in ("postgres", owned.owner):
            with refused("55000|0A000", 'credential "[ab]" was not changed.*mine.encrypted_credentials|UPDATE RETURNING'):
                db.run(f"select omni_credentials.{CALLS[call]}", user=user)
        assert db.run(SEALED) == before
        assert [value for _, value in owned(OPENED)] == [b"x", b"y"]

    def test_a_principal_that_is_kept(self, role, owned: Owned, db: Database) -> None:
        leaver = role("leaver")
        db.run(f"insert into mine.credentials (name, value, principal) values ('c', 'z', '{leaver}')")
        db.run(f"alter role {leaver} rename to {leaver}_x")
        owned("create function mine.keep() returns trigger language plpgsql as 'begin return null; end'")
        owned("create trigger a_keep before update on mine.encrypted_credentials for each row execute function mine.keep()")
        call = f"select omni_credentials.rename_principal('{leaver}', '{leaver}_x', 'mine')"
        with refused("55000", 'credential "c" was not changed'):
            db.run(call)
        owned("drop trigger a_keep on mine.encrypted_credentials")
        assert db.run(call) == [(1,)]
        assert db.run("select value from mine.credentials where name = 'c'") == [(b"z",)]
        db.run(f"alter role {leaver}_x rename to {leaver}")

    def test_a_setting_that_is_kept(self, owned: Owned, db: Database) -> None:
        """Otherwise the keyring would be under a secret that the settings do not name."""
        owned("create function mine.keep() returns trigger language plpgsql as 'begin return null; end'")
        owned("create trigger a_keep before update on mine.credentials_config for each row execute function mine.keep()")
        for call in (CALLS["rotate_master_secret"], "use_module('mine', (select name from omni_credentials.crypto_modules))"):
            with refused("55000", "setting .* was not changed.*mine.credentials_config"):
                db.run(f"select omni_credentials.{call}")
        assert [value for _, value in owned(OPENED)] == [b"x", b"y"]
