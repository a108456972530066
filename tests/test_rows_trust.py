"""Nothing that another role can shape is believed: who gets plaintext, who seals, and who may write what does not open."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest
from conftest import Database, refused
from owners import instance_of

VIEW = "omni_credentials.credentials"
TABLE = "omni_credentials.encrypted_credentials"
OPEN = "omni_credentials.open_credential"
OPENED = f"select {OPEN}(c.tableoid, c.name, c.kind, c.principal, c.scope, c.value) from {TABLE} c"
SEAL = "select omni_credentials.seal_credential('{}'::regclass, 'n', 'credential'::{}.credential_kind, '{}', '{{}}', 'v')"
GARBAGE = "insert into {}.encrypted_credentials (name, value) values ('junk', 'garbage')"


class TestSnapshotOfTheQuery:
    """A role that a policy lets see a row reads it as its query sees it, whatever else goes on."""

    @pytest.fixture
    def auditor(self, role, db: Database) -> Iterator[str]:
        auditor = role("auditor")
        db.grant(auditor, "SELECT, UPDATE")
        db.run(f"insert into {VIEW} (name, value) values ('a', 'before'), ('b', 'before')")
        db.run(f"create policy p on {TABLE} to {auditor} using (true)")
        yield auditor
        db.run(f"drop policy p on {TABLE}")

    @pytest.fixture
    def db(self, role, db: Database) -> Database:
        return db

    @pytest.mark.parametrize("level", ["read committed", "repeatable read"])
    def test_a_cursor_after_a_change(self, auditor: str, db: Database, level: str) -> None:
        reader = db.connect(auditor, autocommit=False)
        db.run(f"grant temporary on database {db.name} to {auditor}")
        reader.execute(f"set transaction isolation level {level}")
        # The transaction has an id from here on.
        reader.execute("create temporary table t ()")
        reader.execute(f"declare c cursor for select name, value from {VIEW} order by name")
        db.run(f"update {VIEW} set value = 'after'")
        db.run(f"delete from {VIEW} where name = 'b'")
        assert reader.execute("fetch all from c").fetchall() == [("a", b"before"), ("b", b"before")]
        after = [("a", b"after")] if level == "read committed" else [("a", b"before"), ("b", b"before")]
        assert reader.execute(f"select name, value from {VIEW} order by name").fetchall() == after
        reader.rollback()

    def test_a_row_that_is_locked_after_a_change(self, auditor: str, db: Database) -> None:
        """FOR UPDATE waits, and then gets the row as it is now."""
        writer, reader = db.connect(autocommit=False), db.connect(auditor)
        writer.execute(f"update {VIEW} set value = 'after' where name = 'a'")
        with waiting(db, reader, f"select value from {VIEW} where name = 'a' for update") as found:
            writer.commit()
        assert found == [(b"after",)]

    def test_in_parallel(self, auditor: str, db: Database) -> None:
        with db.connect(auditor) as session:
            session.execute(f"set {'debug_parallel_query' if db.server.installation.major >= 16 else 'force_parallel_mode'} = on")
            session.execute("set parallel_setup_cost = 0; set parallel_tuple_cost = 0; set min_parallel_table_scan_size = 0")
            assert session.execute(f"select value from {VIEW}").fetchall() == [(b"before",)] * 2

    def test_what_the_policy_hides_stays_hidden(self, auditor: str, db: Database) -> None:
        """Bytes that the role saw once do not open after the policy is gone, or for another row."""
        ((stolen,),) = db.run(f"select value from {TABLE} where name = 'a'", user=auditor)
        opened = f"select {OPEN}('{TABLE}'::regclass, 'a', 'credential'::omni_credentials.credential_kind, 'postgres'," \
                 """ '{"all": true}', %b)"""
        assert db.run(opened, stolen, user=auditor) == [(b"before",)]
        db.run(f"update {VIEW} set value = 'after'")
        # As long as it is in the history, the policies show it there.
        assert db.run(opened, stolen, user=auditor) == [(b"before",)]
        db.run("select omni_credentials.purge_history(everything => true)")
        with refused("42501", "permission denied for credential"):
            db.run(opened, stolen, user=auditor)


@contextlib.contextmanager
def waiting(db: Database, session, statement: str) -> Iterator[list]:
    """Runs a statement that waits for a lock until the block has ended, and gives its rows."""
    import threading

    found: list = []
    thread = threading.Thread(target=lambda: found.extend(session.execute(statement).fetchall()))
    thread.start()
    deadline = time.monotonic() + 30
    while db.run("select wait_event_type from pg_stat_activity where pid = %s", session.info.backend_pid) != [("Lock",)]:
        assert thread.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)
    yield found
    thread.join(30)
    assert not thread.is_alive()


def test_a_member_without_the_rights_is_no_reader(role, db: Database) -> None:
    """On Postgres 16 and later, the creator of a role is such a member."""
    victim = role("victim")
    creator = role("creator", f"noinherit in role {victim}")
    db.grant(creator)
    db.run(f"insert into {VIEW} (name, value, principal) values ('n', 'secret', '{victim}')")
    ((stolen,),) = db.run(f"select value from {TABLE}")
    db.run(f"delete from {TABLE}")
    opened = f"select {OPEN}('{TABLE}'::regclass, 'n', 'credential'::omni_credentials.credential_kind, '{victim}'," \
             """ '{"all": true}', %b)"""
    assert db.run(opened, stolen) == [(b"secret",)]
    with refused("42501", "permission denied for credential"):
        db.run(opened, stolen, user=creator)
    with refused("42501", "permission denied to seal"):
        db.run(SEAL.format(TABLE, "omni_credentials", victim), user=creator)


class TestSealing:
    def test_only_for_principals_whose_rights_one_has(self, role, db: Database) -> None:
        team, stranger = role("team"), role("stranger")
        app = role("app", f"in role {team}")
        db.grant(app)
        for principal in (app, team):
            db.run(SEAL.format(TABLE, "omni_credentials", principal), user=app)
        for principal in (stranger, "postgres"):
            with refused("42501", "permission denied to seal", hint="credentials view"):
                db.run(SEAL.format(TABLE, "omni_credentials", principal), user=app)
        # Past row-level security, for anyone.
        db.run(SEAL.format(TABLE, "omni_credentials", stranger))

    def test_not_without_the_right_to_write(self, role, db: Database) -> None:
        reader = role("reader")
        db.grant(reader, "SELECT")
        db.run(f"grant execute on function omni_credentials.seal_credential to {reader}")
        with refused("42501", "permission denied for credential"):
            db.run(SEAL.format(TABLE, "omni_credentials", reader), user=reader)


class TestWithoutAView:
    """SELECT on the table alone, which roles have that change credentials, shows no value."""

    BREAK = {
        "dropped": "drop view mine.credentials",
        "a table in its place": "drop view mine.credentials; create table mine.credentials (name text, value bytea);"
                                " grant select on mine.credentials to {clerk}",
        "another's": "drop view mine.credentials; grant create on schema mine to {clerk}",
    }

    @pytest.mark.parametrize("change", BREAK.values(), ids=BREAK)
    def test_no_plaintext(self, role, db: Database, change: str) -> None:
        owner, clerk = role("owner"), role("clerk")
        instance_of(db, owner)
        db.run(f"insert into mine.credentials (name, value, principal) values ('n', 'secret', '{clerk}')", user=owner)
        db.grant(clerk, "UPDATE", "mine")
        opened = OPENED.replace(TABLE, "mine.encrypted_credentials")
        assert b"secret" not in db.run(opened, user=clerk)[0][0]
        db.run(change.format(clerk=clerk), user=owner)
        if "create on schema" in change:
            # Even where its owner could have instances of its own.
            db.run(f"grant execute on function omni_credentials.instantiate to {clerk}")
            db.run("create view mine.credentials as select 1 as name, 2 as value", user=clerk)
        assert b"secret" not in db.run(opened, user=clerk)[0][0]
        for user in (owner, "postgres"):
            assert db.run(opened, user=user) == [(b"secret",)]


def test_taking_the_right_back_closes_running_sessions(role, db: Database) -> None:
    owner, group = role("owner"), role("group")
    instance_of(db, owner)
    session = db.connect(owner)
    session.execute("insert into mine.credentials (name, value) values ('n', 'v')")
    read = "select value from mine.credentials"
    closed = {"sqlstate": "3F000", "message": "not part of an instance"}
    right = "execute on function omni_credentials.instantiate"

    def opens() -> None:
        assert session.execute(read, prepare=True).fetchall() == [(b"v",)]

    opens()
    db.run(f"revoke {right} from {owner}")
    with refused(**closed):
        session.execute(read, prepare=True)
    # By way of a group, and by being a superuser: each is noticed.
    db.run(f"grant {right} to {group}")
    db.run(f"grant {group} to {owner}")
    opens()
    db.run(f"revoke {group} from {owner}")
    with refused(**closed):
        session.execute(read, prepare=True)
    db.run(f"alter role {owner} superuser")
    opens()
    db.run(f"alter role {owner} nosuperuser")
    with refused(**closed):
        session.execute(read, prepare=True)
    db.run(f"grant {right} to {owner}")
    opens()


class TestBeforeTheFirstKeyring:
    """What is not sealed by this instance could keep everyone from writing: only who may restore a dump writes it."""

    LOOSE = {
        "with policies": "select",
        "without row-level security": "alter table mine.encrypted_credentials disable row level security",
        "a policy lets everything pass": "create policy p on mine.encrypted_credentials using (true) with check (true)",
    }

    @pytest.mark.parametrize("loose", LOOSE.values(), ids=LOOSE)
    def test_no_garbage(self, role, db: Database, loose: str) -> None:
        owner, writer = role("owner"), role("writer")
        instance_of(db, owner)
        db.run(loose, user=owner)
        db.grant(writer, "INSERT, UPDATE", "mine")
        with refused("23514", "the sealed value for credential"):
            db.run(GARBAGE.format("mine"), user=writer)
        # COPY does not work at all where policies hold.
        with refused("23514|0A000", "the sealed value for credential|row-level security"), db.connect(writer) as session:
            with session.cursor().copy("copy mine.encrypted_credentials (name, value) from stdin") as copy:
                copy.write("junk\tgarbage\n")
        with refused("42501"):
            db.run("set session_replication_role = replica", user=writer)
        db.run("insert into mine.credentials (name, value) values ('n', 'v')", user=writer)
        assert db.run("select name, value from mine.credentials") == [("n", b"v")]

    def test_a_restore(self, role, db: Database) -> None:
        """The owner, who is past row-level security or has no superuser to help, a member, and a role that bypasses it."""
        owner = role("owner")
        member, bypassing = role("member", f"in role {owner}"), role("bypassing", "bypassrls")
        instance_of(db, owner)
        db.run("alter table mine.encrypted_credentials force row level security", user=owner)
        for user in (owner, member, bypassing, "postgres"):
            db.grant(user, "SELECT, INSERT, DELETE", "mine")
            db.run(GARBAGE.format("mine"), user=user)
            db.run("delete from mine.encrypted_credentials")


def test_a_trigger_after_the_check(role, db: Database) -> None:
    """It could change what was checked into a row that never opens."""
    owner = role("owner")
    instance_of(db, owner)
    db.run("insert into mine.credentials (name, value) values ('n', 'v')", user=owner)
    db.run("create function mine.f() returns trigger language plpgsql as $$begin new.name := 'x'; return new; end$$", user=owner)
    create = "create trigger {} {} on mine.encrypted_credentials for each row execute function mine.f()"
    insert = "insert into mine.credentials (name, value) values ('m', 'v')"
    update = "update mine.credentials set value = 'w'"
    for name, event, statement in (("zz", "before insert or update", insert), ("f", "before update of name", update)):
        db.run(create.format(name, event), user=owner)
        with refused("55000", f'trigger "{name}" of table mine.encrypted_credentials', hint=f"alter trigger {name} on") as met:
            db.run(statement, user=owner)
        # The hint runs as it stands. Before the check, the row is refused for what it is.
        db.run(met.error.diag.message_hint.split(": ", 1)[1], user=owner)
        with refused("23514", 'credential "x"'):
            db.run(statement, user=owner)
        db.run(f"drop trigger a_{name} on mine.encrypted_credentials", user=owner)
    # What cannot change such a row is let be.
    for name, event in (("zz", "after insert or update"), ("zy", "before delete"), ("zx", "before update")):
        db.run(create.format(name, event), user=owner)
    db.run("alter table mine.encrypted_credentials disable trigger zx", user=owner)
    db.run(insert, user=owner)
    db.run(update, user=owner)
    assert db.run("select name, value from mine.credentials order by name") == [("m", b"w"), ("n", b"w")]
