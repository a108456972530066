"""Reading: what does not open, what is never opened, plans, cursors and prepared statements."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conftest import Database, drop_database, fresh_database, refused
from throwaway import Server

VIEW = "omni_credentials.credentials"
TABLE = "omni_credentials.encrypted_credentials"
ROWS = 100_000


def plant(db: Database, name: str, sealed: bytes = b"\x01") -> None:
    """Puts bytes into the table past its triggers."""
    with db.connect() as session:
        session.execute("set session_replication_role = replica")
        session.execute(f"insert into {TABLE} (name, value) values (%s, %b)", (name, sealed))


class TestUnreadableRows:
    @pytest.fixture
    def app(self, role) -> str:
        return role("app")

    @pytest.fixture
    def damaged(self, app: str, db: Database) -> Database:
        db.grant(app)
        for name in ("bad", "good"):
            db.run(f"insert into {VIEW} (name, value) values (%s, 'v')", name, user=app)
        with db.connect() as session:
            session.execute("set session_replication_role = replica")
            session.execute(f"update {TABLE} set value = '\\x01' where name = 'bad'")
        return db

    def test_error_names_the_credential(self, damaged: Database, app: str) -> None:
        with refused("XX001", '"bad".*not a sealed value', hint="on_unreadable"):
            damaged.run(f"select value from {VIEW}", user=app)
        assert damaged.run(f"select value from {VIEW} where name = 'good'", user=app) == [(b"v",)]

    def test_names_need_no_key(self, damaged: Database, app: str) -> None:
        """Opening the bad row fails, so whatever succeeds has not opened it."""
        for query in (
            "select name from {}", "select count(*) from {}", "select name, kind, principal, scope from {}",
            "select name from {} where kind = 'credential' order by scope", "select distinct principal from {}",
            "select exists (select from {} where name = 'bad')", "select c.name from {} c join {} d using (name)",
            "select name from (select * from {}) s", "with s as (select name from {}) select * from s",
        ):
            assert damaged.run(query.format(VIEW, VIEW), user=app)
        assert damaged.run(f"select value from (select * from {VIEW} where name = 'good' offset 0) s", user=app) == [(b"v",)]

    def test_null_setting(self, damaged: Database, app: str) -> None:
        session = damaged.connect(app)
        session.execute("set omni_credentials.on_unreadable = 'null'")
        assert session.execute(f"select name, value from {VIEW} order by 1").fetchall() == [("bad", None), ("good", b"v")]
        with refused("22023", "on_unreadable", hint="error, null"):
            session.execute("set omni_credentials.on_unreadable = 'whatever'")
        # Renaming it would need its value; setting or deleting it does not.
        with refused("XX001", '"bad"'):
            session.execute(f"update {VIEW} set kind = 'token' where name = 'bad'")
        session.execute(f"update {VIEW} set value = 'mended' where name = 'bad'")
        assert session.execute(f"select value from {VIEW} where name = 'bad'").fetchall() == [(b"mended",)]

    def test_deleting(self, damaged: Database, app: str) -> None:
        damaged.run(f"delete from {VIEW} where name = 'good'", user=app)
        damaged.run(f"delete from {TABLE} where name = 'bad'", user=app)
        assert damaged.run(f"select name from {VIEW}") == []

    def test_mended_by_set_credential(self, damaged: Database, app: str) -> None:
        damaged.run("select omni_credentials.set_credential('bad', 'mended')", user=app)
        assert damaged.run(f"select value from {VIEW} where name = 'bad'", user=app) == [(b"mended",)]

    def test_verify_shows_the_callers_rows(self, damaged: Database, app: str, role) -> None:
        found = damaged.run("select name, kind, principal, scope, reason from omni_credentials.verify()", user=app)
        assert found == [("bad", "credential", app, {"all": True}, "it is not a sealed value")]
        other = role("other")
        damaged.grant(other, "SELECT")
        assert damaged.run("select * from omni_credentials.verify()", user=other) == []
        damaged.run(f"drop owned by {other}")

    def test_rotation_follows_the_setting(self, damaged: Database) -> None:
        before = damaged.run(f"select * from {TABLE} order by name")
        with refused("XX001", '"bad"', hint="on_unreadable"):
            damaged.run("select omni_credentials.rotate_key()")
        assert damaged.run(f"select * from {TABLE} order by name") == before
        with damaged.connect() as session:
            session.execute("set omni_credentials.on_unreadable = 'null'")
            assert session.execute("select omni_credentials.rotate_key()").fetchone() == (1,)
        after = damaged.run(f"select * from {TABLE} order by name")
        assert after[0] == before[0] and after[1] != before[1]


def test_verify_names_each_reason(db: Database) -> None:
    for name in ("altered", "dropped"):
        db.run(f"insert into {VIEW} (name, value) values (%s, 'v')", name)
    db.run("create role gone")
    db.run(f"update {VIEW} set principal = 'gone' where name = 'dropped'")
    ((sealed,),) = db.run(f"select value from {TABLE} where name = 'altered'")
    with db.connect() as session:
        session.execute("set session_replication_role = replica")
        session.execute(f"update {TABLE} set value = %b where name = 'altered'", (sealed[:-1] + bytes([sealed[-1] ^ 1]),))
    db.run("drop role gone")
    plant(db, "junk")
    plant(db, "newer", b"\x09" + sealed[1:])
    plant(db, "suite", sealed[:1] + b"\x63" + sealed[2:])
    plant(db, "unknown key", sealed[:2] + bytes(8) + sealed[10:])
    reasons = dict(db.run("select name, reason from omni_credentials.verify()"))
    assert "altered" in reasons["altered"]
    assert "no longer exists" in reasons["dropped"]
    assert "not a sealed value" in reasons["junk"]
    assert "version 9" in reasons["newer"]
    assert "suite 99" in reasons["suite"]
    assert "key" in reasons["unknown key"]
    assert len(reasons) == 6
    for name, state, hint in (
        ("dropped", "42704", "rename_principal"), ("newer", "0A000", "Update"), ("suite", "42704", "keyring"),
        ("unknown key", "42704", "keyring"), ("altered", "XX001", "rename_principal"),
    ):
        with refused(state, name, hint=hint):
            db.run(f"select value from {VIEW} where name = %s", name)


@pytest.fixture(scope="module")
def large(server: Server) -> Iterator[Database]:
    """A copy with 100,000 credentials."""
    database = fresh_database(server)
    database.run(f"insert into {VIEW} (name, value) select 'n' || i, ('v' || i)::bytea from generate_series(1, %s) i", ROWS)
    database.run(f"analyze {TABLE}")
    yield database
    drop_database(database)


class TestLarge:
    def test_conditions_on_name_use_the_index(self, large: Database) -> None:
        with large.connect() as admin:
            admin.execute("create role reader login")
        try:
            large.grant("reader", "SELECT, UPDATE, DELETE")
            for user in ("postgres", "reader"):
                for statement in (
                    f"select value from {VIEW} where name = 'n77777'",
                    f"select value from {VIEW} where name = 'n77777' and kind = 'credential'",
                    f"update {VIEW} set value = 'x' where name = 'n77777'",
                    f"delete from {VIEW} where name = 'n77777'",
                    f"select value from {VIEW} where name in ('n1', 'n2')",
                ):
                    plan = "\n".join(line for (line,) in large.run("explain " + statement, user=user))
                    assert "encrypted_credentials_uniq" in plan and "Seq Scan" not in plan, plan
            assert large.run(f"select value from {VIEW} where name = 'n77777'") == [(b"v77777",)]
        finally:
            large.run("drop owned by reader")
            large.run("drop role reader")

    def test_parallel_plan(self, large: Database) -> None:
        """Workers, too, find the copy, its keyring and the module by themselves."""
        session = large.connect(parallel_setup_cost="0", parallel_tuple_cost="0", min_parallel_table_scan_size="0")
        query = f"select count(*), sum(octet_length(value)) from {VIEW}"
        plan = session.execute(f"explain (analyze, costs off, timing off) {query}").fetchall()
        text = "\n".join(line for (line,) in plan)
        assert "Workers Launched" in text and "Workers Launched: 0" not in text, text
        total = sum(len(f"v{i}") for i in range(1, ROWS + 1))
        assert session.execute(query).fetchone() == (ROWS, total)
        # The very first use in a session, forced through a worker.
        major = large.server.installation.major
        forced = large.connect(**{"debug_parallel_query" if major >= 16 else "force_parallel_mode": "on"})
        assert forced.execute(f"select value from {VIEW} where name = 'n5'").fetchall() == [(b"v5",)]
        assert forced.execute("select count(*) from omni_credentials.verify()").fetchone() == (0,)

    def test_cursor(self, large: Database) -> None:
        session = large.connect(autocommit=False)
        session.execute(f"declare c scroll cursor for select name, value from {VIEW} order by name")
        assert session.execute("fetch 2 from c").fetchall() == [("n1", b"v1"), ("n10", b"v10")]
        large.run(f"update {VIEW} set value = 'changed' where name = 'n100'")
        # The cursor's snapshot still has the old one.
        assert session.execute("fetch 1 from c").fetchall() == [("n100", b"v100")]
        assert session.execute("fetch prior from c").fetchall() == [("n10", b"v10")]
        session.rollback()
        assert large.run(f"select value from {VIEW} where name = 'n100'") == [(b"changed",)]

    def test_rotation(self, large: Database) -> None:
        """All rows get the new key, with progress, while a reader in the middle of its work goes on."""
        reader = large.connect(autocommit=False)
        reader.execute(f"declare c cursor for select name, value from {VIEW} where name like 'n7777%'")
        first = reader.execute("fetch 1 from c").fetchall()
        rotating = large.connect()
        notices: list[str] = []
        rotating.add_notice_handler(lambda notice: notices.append(notice.message_primary))
        assert rotating.execute("select omni_credentials.rotate_key()").fetchone() == (ROWS,)
        # And what another test has left in the history.
        assert len([notice for notice in notices if notice.endswith("credentials with the new key")]) == ROWS // 10_000
        rest = reader.execute("fetch all from c").fetchall()
        assert {(name, b"v" + name[1:].encode()) for name, _ in first + rest} == set(first + rest)
        assert len(first + rest) == 11
        reader.rollback()
        keys = large.run(f"select count(distinct substring(value from 3 for 8)) from {TABLE}")
        assert keys == [(1,)]
        assert large.run("select count(*) from omni_credentials.verify()") == [(0,)]

    def test_rotation_is_all_or_nothing(self, large: Database) -> None:
        keyrings = large.run("select * from omni_credentials.credentials_keyrings")
        digest = f"select md5(string_agg(md5(value), '' order by name)) from {TABLE}"
        before = large.run(digest)
        session = large.connect(statement_timeout="400")
        with refused("57014"):
            session.execute("select omni_credentials.rotate_key()")
        assert large.run("select * from omni_credentials.credentials_keyrings") == keyrings
        assert large.run(digest) == before
        # The same session knows that there is no such key.
        session.execute("set statement_timeout = 0")
        session.execute(f"update {VIEW} set value = 'v1' where name = 'n1'")
        assert large.run(f"select value from {VIEW} where name in ('n1', 'n2') order by name") == [(b"v1",), (b"v2",)]


class TestPreparedStatements:
    def test_across_rotation_and_new_secret(self, db: Database) -> None:
        session = db.connect()
        session.execute(f"insert into {VIEW} (name, value) values ('n', 'v')")
        session.execute(f"prepare p (text) as select value from {VIEW} where name = $1")
        session.execute(f"prepare u (bytea) as update {VIEW} set value = $1")
        read = "execute p ('n')"
        for _ in range(7):
            # Past five executions the plan is a generic one.
            assert session.execute(read).fetchall() == [(b"v",)]
        db.run("select omni_credentials.rotate_key()")
        assert session.execute(read).fetchall() == [(b"v",)]
        session.execute("execute u ('w')")
        db.run("select omni_credentials.rotate_key()")
        db.run("select omni_credentials.rotate_master_secret('OMNI_CREDENTIALS_MASTER_PASSWORD')")
        assert session.execute(read).fetchall() == [(b"w",)]
        assert db.run(f"select value from {VIEW}") == [(b"w",)]

    def test_across_discard_all(self, db: Database) -> None:
        """What a transaction pooler runs between two clients."""
        session = db.connect()
        for round in range(3):
            session.execute("set omni_credentials.on_unreadable = 'null'")
            session.execute(f"insert into {VIEW} (name, value) values (%s, 'v')", (str(round),))
            session.execute(f"update {VIEW} set value = 'w'")
            session.execute("discard all")
            assert session.execute("show omni_credentials.on_unreadable").fetchone() == ("error",)
        assert session.execute(f"select distinct value from {VIEW}").fetchall() == [(b"w",)]


def test_functions_and_views_over_credentials(role, db: Database) -> None:
    app = role("app")
    db.grant(app)
    db.run("grant create on schema public to public")
    session = db.connect(app)
    session.execute(f"insert into {VIEW} (name, value) values ('stripe', 'sk')")
    session.execute(
        f"create function public.secret(n text) returns text stable language sql"
        f" as $$ select convert_from(value, 'utf8') from {VIEW} where name = n $$"
    )
    session.execute("create view public.secrets as select name, public.secret(name) from omni_credentials.credentials")
    session.execute(f"create materialized view public.names as select name from {VIEW}")
    assert session.execute("select public.secret('stripe')").fetchone() == ("sk",)
    assert session.execute("select * from public.secrets").fetchall() == [("stripe", "sk")]
    assert session.execute("select * from public.names").fetchall() == [("stripe",)]
    session.execute(
        f"do $$ declare r record; begin for r in select * from {VIEW} loop"
        f" update {VIEW} set value = r.value || '!' where name = r.name; end loop; end $$"
    )
    assert session.execute("select public.secret('stripe')").fetchone() == ("sk!",)
