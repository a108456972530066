"""The history: values that were replaced or deleted, who sees them, how they come back and how they go."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from conftest import MASTER_KEY, VARIABLE, Database, drop_database, fresh_database, new_server, refused
from file_stores import contents, edit, in_step, mirrored, outsider
from standbys import eventually
from throwaway import Server

VIEW = "omni_credentials.credentials"
TABLE = "omni_credentials.encrypted_credentials"
VERSIONS = "omni_credentials.encrypted_credential_versions"
HISTORY = "omni_credentials.credential_versions"
SEEN = (
    "select v.name, v.version from omni_credentials.versions_seen('omni_credentials.encrypted_credentials'::regclass,"
    " null, null::omni_credentials.credential_kind, null, null, null) as v (name text, value bytea,"
    " kind omni_credentials.credential_kind, principal regrole, scope jsonb, expires_at timestamptz, version bigint,"
    " valid_from timestamptz, valid_until timestamptz, changed_by name, deleted boolean)"
)


def put(db: Database | psycopg.Connection, value: str, name: str = "n", user: str | None = None) -> None:
    statement = "select omni_credentials.set_credential(%s, %s::text)"
    if isinstance(db, Database):
        db.run(statement, name, value, **({"user": user} if user else {}))
    else:
        db.execute(statement, (name, value))


def history(db: Database, name: str = "n", **user: str) -> list[tuple[int, bytes]]:
    return db.run(f"select version, value from {HISTORY} where name = %s order by version", name, **user)


@pytest.fixture
def app(role, db: Database) -> str:
    """A role with all rights that grant_access gives."""
    name = role("app")
    db.grant(name)
    return name


class TestKeeping:
    def test_what_is_replaced_and_deleted_is_kept(self, db: Database) -> None:
        put(db, "one")
        assert history(db) == []
        put(db, "two")
        db.run(f"update {VIEW} set value = 'three'")
        assert history(db) == [(1, b"one"), (2, b"two")]
        db.run(f"update {VIEW} set expires_at = '2030-01-01'")
        db.run(f"delete from {VIEW}")
        assert history(db) == [(1, b"one"), (2, b"two"), (3, b"three"), (4, b"three")]
        rows = db.run(
            f"select version, kind::text, principal::text, scope, expires_at is null, valid_from, valid_until, changed_by, deleted"
            f" from {HISTORY} order by version"
        )
        assert [row[1:4] for row in rows] == [("credential", "postgres", {"all": True})] * 4
        assert [row[4] for row in rows] == [True, True, True, False]
        assert rows[0][5] is None
        # One follows the other.
        assert [row[5] for row in rows[1:]] == [row[6] for row in rows[:-1]]
        assert {row[7] for row in rows} == {"postgres"}
        assert [row[8] for row in rows] == [False, False, False, True]

    def test_after_a_deletion_the_next_value_has_no_known_start(self, db: Database) -> None:
        for value in ("one", "two"):
            put(db, value)
            db.run(f"delete from {VIEW}")
        assert db.run(f"select version, valid_from is null from {HISTORY} order by version") == [(1, True), (2, True)]

    def test_what_changes_nothing_makes_none(self, db: Database) -> None:
        put(db, "one")
        db.run(f"update {VIEW} set value = 'one'")
        db.run(f"update {VIEW} set value = value, expires_at = expires_at")
        db.run(f"update {TABLE} set value = value")
        db.run(f"update {VIEW} set value = 'two' where name = 'other'")
        assert history(db) == []

    def test_an_aborted_change_leaves_none(self, db: Database) -> None:
        put(db, "one")
        session = db.connect(autocommit=False)
        put(session, "two")
        session.rollback()
        session.execute("savepoint s")
        put(session, "two")
        session.execute("rollback to s")
        session.commit()
        assert history(db) == []

    def test_a_renamed_credential_keeps_its_past_under_the_old_name(self, db: Database) -> None:
        put(db, "one")
        db.run(f"update {VIEW} set name = 'new'")
        put(db, "two", "new")
        assert history(db) == [(1, b"one")]
        assert history(db, "new") == [(1, b"one")]

    def test_large_values(self, db: Database) -> None:
        large = b"\x01\x02\x03" * 300_000
        db.run(f"insert into {VIEW} (name, value) values ('n', %b)", large)
        db.run(f"update {VIEW} set value = 'small'")
        assert history(db) == [(1, large)]

    def test_long_names_fit_the_index(self, db: Database) -> None:
        name, scope = "n" * 512, '{"k": "' + "s" * 2000 + '"}'
        for value in ("one", "two"):
            db.run("select omni_credentials.set_credential(%s, %s::text, scope => %s::jsonb)", name, value, scope)
        assert history(db, name) == [(1, b"one")]

    def test_two_at_once_make_two_versions(self, db: Database) -> None:
        put(db, "start")
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: put(db, f"value {n}"), range(40)))
        numbers = [version for version, _ in history(db)]
        assert numbers == list(range(31, 41))
        values = {value for _, value in history(db)} | {v for (v,) in db.run(f"select value from {VIEW}")}
        assert len(values) == 11

    def test_many_at_once_in_one_statement(self, db: Database) -> None:
        db.run(f"insert into {VIEW} (name, value) select 'n' || i, 'v' from generate_series(1, 100) i")
        db.run(f"update {VIEW} set value = 'w'")
        db.run(f"delete from {VIEW}")
        assert db.run(f"select count(*), count(distinct name), max(version) from {HISTORY}") == [(200, 100, 2)]

    def test_who_changed_it(self, role, db: Database) -> None:
        """The role of the session, also where a function changes it with the rights of its owner."""
        caller = role("caller")
        put(db, "one")
        db.run(
            "create function public.change() returns void language sql security definer"
            " as $$ select omni_credentials.set_credential('n', 'two'::text) $$"
        )
        db.run("select public.change()", user=caller)
        assert db.run(f"select changed_by from {HISTORY}") == [(caller,)]


class TestLimit:
    def test_the_oldest_go(self, db: Database) -> None:
        for n in range(1, 14):
            put(db, str(n))
        assert history(db) == [(n, str(n).encode()) for n in range(3, 13)]
        db.run("select omni_credentials.set_history_limit(2)")
        put(db, "14")
        assert history(db) == [(12, b"12"), (13, b"13")]
        db.run("select omni_credentials.set_history_limit(1)")
        put(db, "15")
        assert history(db) == [(14, b"14")]

    def test_off(self, db: Database) -> None:
        put(db, "one")
        put(db, "two")
        db.run("select omni_credentials.set_history_limit(0)")
        put(db, "three")
        db.run(f"delete from {VIEW}")
        assert history(db) == [(1, b"one")]

    @pytest.mark.parametrize("versions", ["-1", "1001", "2147483647"])
    def test_out_of_range(self, db: Database, versions: str) -> None:
        with refused("22023", f"a history keeps 0 to 1000 versions of a credential, not {versions}", hint="10 is the default"):
            db.run(f"select omni_credentials.set_history_limit({versions})")
        with refused("23514"):
            db.run(f"update omni_credentials.credentials_config set history_limit = {versions}")
        with refused("22004"):
            db.run("select omni_credentials.set_history_limit(null)")

    def test_only_the_owner(self, app: str, db: Database) -> None:
        for call in ("set_history_limit(0)", "purge_history(everything => true)"):
            with refused("42501"):
                db.run(f"select omni_credentials.{call}", user=app)
        db.run(f"grant execute on all functions in schema omni_credentials to {app}")
        for call in ("set_history_limit(0)", "purge_history(everything => true)"):
            with refused("42501", "must be owner"):
                db.run(f"select omni_credentials.{call}", user=app)


class TestReading:
    def test_by_number_and_from_the_end(self, db: Database) -> None:
        for value in ("one", "two", "three"):
            put(db, value)
        get = "select omni_credentials.get_credential('n', version => %s)"
        assert [db.run(get, version) for version in (1, 2, -1, -2, 0, None)] == [
            [(value,)] for value in ("one", "two", "two", "one", "three", "three")
        ]
        for version in (3, -3, 99, 2**63 - 1, -(2**63)):
            with refused("P0002", f'there is no version {version} of credential "n" in the history', hint="credential_versions"):
                db.run(get, version)
        with refused("P0002", 'no version -1 of credential "other"'):
            db.run("select omni_credentials.get_credential('other', version => -1)")

    def test_all_the_ways_to_ask(self, db: Database) -> None:
        put(db, "one")
        put(db, "two")
        for arguments in (
            "'n', version => -1",
            "'n', kind => 'credential', version => -1",
            "'n', kind => 'credential'::omni_credentials.credential_kind, version => -1",
            "'n', principal => 'postgres', version => -1",
            "'n', principal => 'postgres'::regrole, version => -1",
            "'n', principal => current_user, scope => '{\"all\": true}', version => 1",
            "'n', scope => '{\"all\": true}', version => -1",
        ):
            assert db.run(f"select omni_credentials.get_credential({arguments})") == [("one",)], arguments
            assert db.run(f"select omni_credentials.restore_credential({arguments})") == [(1,)], arguments
            db.run("select omni_credentials.purge_history(everything => true)")
            db.run(f"delete from {VIEW}")
            db.run("select omni_credentials.purge_history(everything => true)")
            put(db, "one")
            put(db, "two")

    def test_several(self, db: Database) -> None:
        for kind in ("token", "password"):
            for value in ("one", "two"):
                db.run(f"select omni_credentials.set_credential('n', '{value}'::text, kind => '{kind}')")
        for function in ("get_credential", "restore_credential"):
            with refused("21000|P0003", "several credentials"):
                db.run(f"select omni_credentials.{function}('n', version => -1)")
        assert db.run("select omni_credentials.get_credential('n', kind => 'token', version => -1)") == [("one",)]

    def test_scopes_that_are_equal_are_one(self, db: Database) -> None:
        """jsonb takes 1 and 1.0 for the same, and so does the index of the credentials."""
        db.run("select omni_credentials.set_credential('n', 'one'::text, scope => '{\"port\": 1}')")
        db.run(f"update {VIEW} set scope = '{{\"port\": 1.0}}', value = 'two'")
        db.run(f"update {VIEW} set value = 'three'")
        assert history(db) == [(1, b"one"), (2, b"two")]
        get = "select omni_credentials.get_credential('n', version => %s)"
        assert [db.run(get, version) for version in (-1, -2, 1)] == [[("two",)], [("one",)], [("one",)]]
        assert db.run("select omni_credentials.restore_credential('n', version => 1)") == [(1,)]
        assert db.run("select omni_credentials.get_credential('n')") == [("one",)]

    def test_names_alone_decrypt_nothing(self, own_db: Database) -> None:
        put(own_db, "one")
        put(own_db, "two")
        own_db.server.restart({})
        assert own_db.run(f"select name, version from {HISTORY}") == [("n", 1)]
        with refused("F0000", "master secret is missing"):
            own_db.run(f"select value from {HISTORY}")


class TestRestoring:
    def test_what_was_deleted(self, db: Database) -> None:
        db.run("select omni_credentials.set_credential('n', 'one'::text, expires_at => '2030-01-01')")
        db.run(f"delete from {VIEW}")
        assert db.run("select omni_credentials.restore_credential('n')") == [(1,)]
        assert db.run(f"select value, expires_at = '2030-01-01' from {VIEW}") == [(b"one", True)]
        assert history(db) == [(1, b"one")]

    def test_an_earlier_value(self, db: Database) -> None:
        for value in ("one", "two", "three"):
            put(db, value)
        assert db.run("select omni_credentials.restore_credential('n', version => 1)") == [(1,)]
        assert db.run("select omni_credentials.get_credential('n')") == [("one",)]
        assert history(db) == [(1, b"one"), (2, b"two"), (3, b"three")]
        # What it is already makes no version.
        db.run("select omni_credentials.restore_credential('n', version => 1)")
        assert len(history(db)) == 3
        db.run("select omni_credentials.restore_credential('n')")
        assert db.run("select omni_credentials.get_credential('n')") == [("three",)]
        assert history(db)[-1] == (4, b"one")

    def test_what_was_deleted_and_set_since(self, db: Database) -> None:
        put(db, "one")
        db.run(f"delete from {VIEW}")
        put(db, "two")
        db.run("select omni_credentials.restore_credential('n')")
        assert db.run("select omni_credentials.get_credential('n')") == [("one",)]
        assert history(db) == [(1, b"one"), (2, b"two")]

    @pytest.mark.parametrize("version", [7, 0, -2])
    def test_unknown(self, db: Database, version: int) -> None:
        put(db, "one")
        put(db, "two")
        with refused("P0002", f"there is no version {version} "):
            db.run("select omni_credentials.restore_credential('n', version => %s)", version)
        assert db.run("select omni_credentials.get_credential('n')") == [("two",)]

    def test_what_was_purged(self, db: Database) -> None:
        put(db, "one")
        put(db, "two")
        assert db.run("select omni_credentials.purge_history('n')") == [(1,)]
        with refused("P0002", "there is no version 1 "):
            db.run("select omni_credentials.restore_credential('n', version => 1)")


class TestPurging:
    def test_what_must_be_said(self, db: Database) -> None:
        for arguments in ("", "everything => false", "'n', everything => true", "older_than => '1 day', everything => true"):
            with refused("22023", "purge_history needs a name, an age or everything => true", hint="Say what"):
                db.run(f"select omni_credentials.purge_history({arguments})")
        with refused("22023", "must not be negative"):
            db.run("select omni_credentials.purge_history(older_than => '-1 second')")

    def test_by_name_age_and_all(self, db: Database) -> None:
        for name in ("a", "b", "c"):
            put(db, "one", name)
            put(db, "two", name)
        purge = "select omni_credentials.purge_history"
        assert db.run(f"{purge}('nothing')") == [(0,)]
        assert db.run(f"{purge}(older_than => '1 hour')") == [(0,)]
        assert db.run(f"{purge}('a', older_than => '1 hour')") == [(0,)]
        assert db.run(f"{purge}('a')") == [(1,)]
        db.run(f"set session_replication_role = replica; update {VERSIONS} set valid_until = now() - interval '2 days'"
               " where name = 'b'")
        assert db.run(f"{purge}('c', older_than => '1 day')") == [(0,)]
        assert db.run(f"{purge}(older_than => '1 day')") == [(1,)]
        assert db.run(f"{purge}(everything => true)") == [(1,)]
        assert db.run(f"select count(*) from {VERSIONS}") == [(0,)]
        assert db.run(f"select count(*) from {VIEW}") == [(3,)]


class TestRights:
    def test_a_value_is_seen_by_those_who_saw_it(self, role, app: str, db: Database) -> None:
        other = role("other")
        db.grant(other)
        put(db, "one", user=app)
        put(db, "two", user=app)
        put(db, "mine", user=other)
        put(db, "mine too", user=other)
        assert history(db, user=app) == [(1, b"one")]
        assert history(db, user=other) == [(1, b"mine")]
        assert len(history(db)) == 2
        assert db.run("select omni_credentials.get_credential('n', version => -1)", user=app) == [("one",)]
        assert db.run("select omni_credentials.restore_credential('n')", user=app) == [(1,)]
        with refused("P0002", "there is no version -1"):
            db.run("select omni_credentials.restore_credential('n', principal => %s)", app, user=other)

    def test_policies_of_the_owner_hold_at_once(self, app: str, db: Database) -> None:
        for name in ("open", "shut"):
            put(db, "one", name, user=app)
            put(db, "two", name, user=app)
        session = db.connect(app)
        seen = f"select name, value from {HISTORY} order by name"
        assert session.execute(seen).fetchall() == [("open", b"one"), ("shut", b"one")]
        db.run(f"create policy not_shut on {TABLE} as restrictive using (name <> 'shut')")
        assert session.execute(seen).fetchall() == [("open", b"one")]
        with refused("P0002", "no version -1"):
            session.execute("select omni_credentials.get_credential('shut', version => -1)")
        db.run(f"alter policy not_shut on {TABLE} using (name <> 'open')")
        assert session.execute(seen).fetchall() == [("shut", b"one")]
        db.run(f"drop policy not_shut on {TABLE}")
        db.run(f"drop policy encrypted_credentials_principal on {TABLE}")
        assert session.execute(seen).fetchall() == []
        db.run(f"alter table {TABLE} disable row level security")
        assert len(session.execute(seen).fetchall()) == 2

    def test_a_policy_may_ask_other_tables(self, role, db: Database) -> None:
        """Also one that names the table itself, whose text would mean something else, or nothing, on another table."""
        db.run("create table public.readers (role name, credential text)")
        db.run("grant select on public.readers to public")
        reader = role("reader")
        db.grant(reader, "SELECT")
        for name in ("a", "b"):
            put(db, "one", name)
            put(db, "two", name)
        db.run(
            f"create policy listed on {TABLE} for select using (exists (select from public.readers r"
            " where r.role = current_user and r.credential = encrypted_credentials.name))"
        )
        assert db.run(f"select count(*) from {HISTORY}", user=reader) == [(0,)]
        db.run("insert into public.readers values (%s, 'b')", reader)
        assert db.run(f"select name, value from {HISTORY}", user=reader) == [("b", b"one")]
        assert db.run(f"select name, value from {VIEW}", user=reader) == [("b", b"two")]
        assert db.run("select omni_credentials.get_credential('b', version => -1)", user=reader) == [("one",)]

    def test_a_policy_that_the_history_cannot_follow(self, app: str, db: Database, role) -> None:
        owner = role("owner")
        db.run(f"grant usage on schema omni_credentials to {owner} with grant option")
        db.run(f"grant execute on all functions in schema omni_credentials to {owner} with grant option")
        db.run(f"create schema mine authorization {owner}")
        db.allow(owner)
        db.run("select omni_credentials.instantiate('mine')", user=owner)
        db.grant(app, schema="mine")
        db.run(f"grant usage on schema mine to {app}")
        for value in ("one", "two"):
            db.run("select mine.set_credential('n', %s::text)", value, user=app)
        assert db.run("select value from mine.credential_versions", user=app) == [(b"one",)]
        for condition in ("more is null", "encrypted_credentials is not null", "tableoid is not null",
                          "exists (select where encrypted_credentials.more is null)"):
            with db.connect(owner) as session:
                session.execute("alter table mine.encrypted_credentials add column if not exists more text")
                session.execute(f"create policy own on mine.encrypted_credentials as restrictive for select using ({condition})")
            for ask in ("select value from mine.credential_versions", "select mine.get_credential('n', version => -1)",
                        "select mine.restore_credential('n')"):
                with refused("55000", r"a policy of mine\.encrypted_credentials uses what the history", hint="columns name"):
                    db.run(ask, user=app)
            db.run("drop policy own on mine.encrypted_credentials", user=owner)

    def test_a_writer_can_do_nothing_with_it(self, role, db: Database) -> None:
        writer = role("writer")
        db.grant(writer, "INSERT, UPDATE, DELETE")
        put(db, "one", user=writer)
        put(db, "two", user=writer)
        db.run(f"update {VIEW} set value = 'three'", user=writer)
        for statement in (
            f"select * from {HISTORY}",
            f"select * from {VERSIONS}",
            SEEN,
            "select omni_credentials.get_credential('n', version => -1)",
            "select omni_credentials.restore_credential('n')",
            f"delete from {VERSIONS}",
            f"update {VERSIONS} set version = 9",
            f"truncate {VERSIONS}",
            f"insert into {VERSIONS} select name, value, kind, principal, scope, expires_at, 9, null, now(), 'x', false from {TABLE}",
        ):
            with refused("42501"):
                db.run(statement, user=writer)
        assert history(db) == [(1, b"one"), (2, b"two")]

    def test_a_reader_cannot_write_it(self, app: str, db: Database) -> None:
        put(db, "one", user=app)
        put(db, "two", user=app)
        for statement in (
            f"select * from {VERSIONS}",
            f"delete from {HISTORY}",
            f"update {HISTORY} set version = 9",
            f"delete from {VERSIONS}",
        ):
            with refused("42501|55000"):
                db.run(statement, user=app)
        # Not even with rights that the owner gave.
        db.run(f"grant select, insert, update, delete on {VERSIONS} to {app}")
        assert db.run(f"select * from {VERSIONS}", user=app) == []
        db.run(f"create policy everyone on {VERSIONS} using (true)")
        for statement in (
            f"delete from {VERSIONS}",
            f"update {VERSIONS} set version = 9",
            f"insert into {VERSIONS} select name, value, kind, principal, scope, expires_at, 9, null, now(), 'x', false from {TABLE}",
        ):
            with refused("42501", "permission denied to write table", hint="restore_credential"):
                db.run(statement, user=app)
        assert history(db, user=app) == [(1, b"one")]

    def test_what_is_taken_back(self, app: str, db: Database) -> None:
        put(db, "one", user=app)
        put(db, "two", user=app)
        db.run("select omni_credentials.revoke_access(%s::regrole, 'UPDATE')", app)
        with refused("42501"):
            db.run("select omni_credentials.restore_credential('n')", user=app)
        assert history(db, user=app) == [(1, b"one")]
        db.run("select omni_credentials.revoke_access(%s::regrole, 'SELECT')", app)
        for statement in (f"select * from {HISTORY}", SEEN, "select omni_credentials.get_credential('n', version => -1)"):
            with refused("42501"):
                db.run(statement, user=app)
        db.run("select omni_credentials.revoke_access(%s::regrole)", app)
        assert db.run(
            "select count(*) from pg_proc p, aclexplode(p.proacl) a where a.grantee = %s::regrole", app
        ) == [(0,)]
        assert db.run(
            "select count(*) from pg_class c, aclexplode(c.relacl) a where a.grantee = %s::regrole", app
        ) == [(0,)]

    def test_a_writer_that_reads_another_instance(self, app: str, db: Database) -> None:
        """It may call the function, for its own instance."""
        db.run("create schema other")
        db.run("select omni_credentials.instantiate('other')")
        db.grant(app, "UPDATE, DELETE", "other")
        db.run(f"grant usage on schema other to {app}")
        for value in ("one", "two"):
            db.run("select other.set_credential('n', %s::text, principal => %s)", value, app)
        assert db.run(f"select name from {HISTORY}", user=app) == []
        with refused("42501", "permission denied for the history of instance other", hint="grant_access.*'SELECT', 'other'"):
            db.run(SEEN.replace("omni_credentials.encrypted_credentials", "other.encrypted_credentials").replace(
                "omni_credentials.credential_kind", "other.credential_kind"), user=app)
        assert db.run("select * from omni_credentials.verify('other')", user=app) == []

    def test_without_row_level_security(self, app: str, db: Database) -> None:
        """`row_security = off` refuses what a policy would filter, and nothing else."""
        put(db, "one", user=app)
        put(db, "two", user=app)
        session = db.connect(app, row_security="off")
        with refused("42501", 'would be affected by row-level security policy for table "encrypted_credentials"'):
            session.execute(f"select * from {HISTORY}")
        db.run(f"alter table {TABLE} disable row level security")
        assert session.execute(f"select value from {HISTORY}").fetchall() == [(b"one",)]
        assert session.execute("select omni_credentials.get_credential('n', version => -1)").fetchall() == [("one",)]
        assert session.execute("select omni_credentials.restore_credential('n')").fetchall() == [(1,)]

    def test_a_policy_that_reads_the_history(self, app: str, db: Database) -> None:
        """It would ask itself."""
        put(db, "one", user=app)
        put(db, "two", user=app)
        for condition in (
            f"exists (select from {HISTORY} h where h.name = encrypted_credentials.name)",
            "omni_credentials.get_credential(name, version => -1) is not null",
        ):
            db.run(f"create policy own on {TABLE} as restrictive for select to {app} using ({condition})")
            with db.connect(app) as session:
                for relation in (VIEW, HISTORY):
                    with refused("54001", "stack depth limit exceeded"):
                        session.execute(f"select value from {relation}")
            db.run(f"drop policy own on {TABLE}")
        db.run(f"create policy own on {TABLE} as restrictive for select to {app}"
               f" using (exists (select from {TABLE} c where c.name = encrypted_credentials.name))")
        with refused("42P17", "infinite recursion"):
            history(db, user=app)

    def test_restoring_asks_the_policies_of_writing(self, role, app: str, db: Database) -> None:
        """Who sees a version may not be who may write the credential."""
        auditor = role("auditor")
        db.grant(auditor, "SELECT, INSERT, UPDATE, DELETE")
        db.run(f"create policy audit on {TABLE} for select to {auditor} using (true)")
        for name in ("there", "gone"):
            put(db, "one", name, user=app)
            put(db, "two", name, user=app)
        db.run(f"delete from {VIEW} where name = 'gone'")
        assert history(db, "gone", user=auditor) == [(1, b"one"), (2, b"two")]
        for name in ("there", "gone"):
            with refused("42501", "violates row-level security policy"):
                db.run("select omni_credentials.restore_credential(%s)", name, user=auditor)
        db.run(f"create policy adding on {TABLE} for insert to {auditor} with check (true)")
        assert db.run("select omni_credentials.restore_credential('gone')", user=auditor) == [(2,)]
        with refused("42501", "violates row-level security policy"):
            db.run("select omni_credentials.restore_credential('there')", user=auditor)
        db.run(f"create policy kept on {TABLE} as restrictive for update to {app} using (name <> 'there')")
        with refused("42501", 'policy "kept"'):
            db.run("select omni_credentials.restore_credential('there')", user=app)
        assert db.run(f"select name, value from {VIEW} order by name") == [("gone", b"two"), ("there", b"two")]

    def test_the_right_to_select_the_table_is_needed(self, app: str, db: Database) -> None:
        put(db, "one", user=app)
        put(db, "two", user=app)
        db.run(f"revoke select on {TABLE} from {app}")
        with refused("42501", "permission denied for table encrypted_credentials"):
            history(db, user=app)

    def test_columns_that_are_not_those(self, app: str, db: Database) -> None:
        """A column definition list says what the caller takes the columns for."""
        put(db, "one", user=app)
        put(db, "two", user=app)
        with refused("42804"):
            db.run(SEEN.replace("name text, value bytea", "name bigint, value bigint").replace("v.name", "1"), user=app)
        with refused("42804"):
            db.run(SEEN.replace(", deleted boolean", ""), user=app)

    def test_what_only_one_row_shows_is_opened(self, role, db: Database) -> None:
        """A reader whose rights come from a policy, and not from the principal."""
        auditor = role("auditor")
        db.grant(auditor, "SELECT")
        put(db, "one")
        put(db, "two")
        db.run(f"create policy audit on {TABLE} for select to {auditor} using (name = 'n')")
        assert history(db, user=auditor) == [(1, b"one")]
        # Sealed bytes of a version that no policy shows stay closed.
        ((sealed, kind, principal, scope),) = db.run(f"select value, kind::text, principal::text, scope::text from {VERSIONS}")
        opened = (
            "select omni_credentials.open_credential(%s::regclass, 'n', %s::omni_credentials.credential_kind, %s::regrole,"
            " %s::jsonb, %b)"
        )
        assert db.run(opened, TABLE, kind, principal, scope, sealed, user=auditor) == [(b"one",)]
        db.run(f"alter policy audit on {TABLE} using (name = 'other')")
        with refused("42501", "permission denied for credential"):
            db.run(opened, TABLE, kind, principal, scope, sealed, user=auditor)


class TestMaintenance:
    @pytest.mark.parametrize("seal", ["rotate_key()", "use_module()"])
    def test_sealed_again(self, db: Database, seal: str) -> None:
        """No version of its own, and every version under the new key."""
        for value in ("one", "two", "three"):
            put(db, value)
        db.run(f"delete from {VIEW}")
        put(db, "four")
        before = db.run(f"select version, valid_from, valid_until, changed_by, deleted from {HISTORY} order by version")
        sealed = {value for (value,) in db.run(f"select value from {VERSIONS}")}
        notices: list[str] = []
        session = db.connect()
        session.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
        assert session.execute(f"select omni_credentials.{seal}").fetchall() == [(1,)]
        assert notices == ["sealed 3 versions in the history with the new key, too"]
        assert not sealed & {value for (value,) in db.run(f"select value from {VERSIONS}")}
        assert history(db) == [(1, b"one"), (2, b"two"), (3, b"three")]
        assert db.run(f"select version, valid_from, valid_until, changed_by, deleted from {HISTORY} order by version") == before
        assert db.run("select count(*) from omni_credentials.verify()") == [(0,)]
        assert db.run("select omni_credentials.prune_keyrings()") == [(1 if seal.startswith("use") else 0,)]
        assert history(db) == [(1, b"one"), (2, b"two"), (3, b"three")]
        assert db.run("select problem from omni_credentials.status()") == [(None,)]

    def test_a_keyring_that_a_version_needs_stays(self, db: Database) -> None:
        put(db, "one")
        db.run(f"delete from {VIEW}")
        keyring = db.run("select * from omni_credentials.credentials_keyrings")
        for statement in ("delete from omni_credentials.credentials_keyrings", "truncate omni_credentials.credentials_keyrings"):
            with refused("2BP01", "cannot remove keyrings", hint="encrypted_credential_versions"):
                db.run(statement)
        # As after the loss of the keyring: no new one hides it.
        db.run("set session_replication_role = replica; truncate omni_credentials.credentials_keyrings")
        with refused("55000", "holds sealed credentials but no keyring"):
            put(db, "two", "other")
        db.run("insert into omni_credentials.credentials_keyrings values (%s, %b, %b, %s)", *keyring[0])
        assert db.run("select omni_credentials.restore_credential('n')") == [(1,)]

    def test_a_table_that_is_somewhere_else(self, role, db: Database) -> None:
        """Without it, no keyring goes that its versions need, and status() says why changes fail."""
        other = role("other")
        db.run("create schema mine")
        db.run("select omni_credentials.instantiate('mine')")
        for value in ("one", "two"):
            db.run("select mine.set_credential('n', %s::text)", value)
        db.run("select omni_credentials.use_module(schema => 'mine')")
        problem = "select problem from omni_credentials.status() where schema = 'mine'"
        for change, back in (
            ("rename to elsewhere", "alter table mine.elsewhere rename to encrypted_credential_versions"),
            (f"owner to {other}", "alter table mine.encrypted_credential_versions owner to postgres"),
        ):
            db.run(f"alter table mine.encrypted_credential_versions {change}")
            for statement in (
                "select mine.set_credential('n', 'three'::text)",
                "select omni_credentials.rotate_key('mine')",
                "select omni_credentials.use_module(schema => 'mine')",
                "select omni_credentials.prune_keyrings('mine')",
                "select omni_credentials.rename_principal('nobody', 'postgres', 'mine')",
                "select omni_credentials.repair_principals('mine')",
            ):
                with refused("55000", "schema mine has no table encrypted_credential_versions", hint="history_limit = 0"):
                    db.run(statement)
            ((told,),) = db.run(problem)
            assert "schema mine has no table encrypted_credential_versions" in told
            db.run(back)
            assert db.run(problem) == [(None,)]
        db.run("select omni_credentials.use_module(schema => 'mine')")
        assert db.run("select omni_credentials.prune_keyrings('mine')") == [(2,)]
        assert db.run("select value from mine.credential_versions") == [(b"one",)]

    def test_what_the_table_may_not_have_is_told(self, db: Database) -> None:
        db.run("create schema mine")
        db.run("select omni_credentials.instantiate('mine')")
        for statement, undo, expected in (
            ("create index extra on mine.encrypted_credential_versions ((version + 1))", "drop index mine.extra", "index extra is not"),
            ("create rule r as on update to mine.encrypted_credential_versions do also nothing", "drop rule r on mine.encrypted_credential_versions",
             "it has rules"),
            ("alter table mine.encrypted_credential_versions replica identity nothing; drop index mine.encrypted_credential_versions_uniq",
             "", "it has lost its unique index"),
        ):
            db.run(statement)
            ((told,),) = db.run("select problem from omni_credentials.status() where schema = 'mine'")
            assert "mine.encrypted_credential_versions" in told and expected in told
            if undo:
                db.run(undo)

    def test_damaged_versions_are_found(self, app: str, db: Database) -> None:
        for value in ("one", "two"):
            put(db, value, user=app)
        for statement in (f"update {VERSIONS} set name = 'm'", f"update {VERSIONS} set value = 'plain'"):
            with refused("23514"):
                db.run(statement)
        db.run(f"set session_replication_role = replica; update {VERSIONS} set value = set_byte(value, 60, get_byte(value, 60) # 1)")
        for user in ("postgres", app):
            ((name, reason),) = db.run("select name, reason from omni_credentials.verify()", user=user)
            assert (name, reason.split(":")[0]) == ("n", "version 1 in the history")
        with refused("XX001", 'credential "n" cannot be read'):
            history(db, user=app)
        with refused("XX001", r'credential "n" \(version 1\) cannot be read'):
            db.run("select omni_credentials.rotate_key()")
        session = db.connect(**{"omni_credentials.on_unreadable": "null"})
        assert session.execute("select omni_credentials.rotate_key()").fetchall() == [(1,)]
        db.run("select omni_credentials.purge_history('n')")
        assert db.run("select count(*) from omni_credentials.verify()") == [(0,)]

    def test_a_renamed_principal(self, app: str, db: Database) -> None:
        put(db, "one", user=app)
        put(db, "two", user=app)
        db.run(f"alter role {app} rename to renamed")
        try:
            with refused("XX001"):
                history(db)
            assert db.run("select omni_credentials.rename_principal(%s, 'renamed')", app) == [(1,)]
            assert history(db, user="renamed") == [(1, b"one")]
            assert db.run(f"select principal::text from {HISTORY}") == [("renamed",)]
        finally:
            db.run(f"alter role renamed rename to {app}")

    def test_a_transaction_of_another_isolation(self, db: Database) -> None:
        for level in ("repeatable read", "serializable"):
            session = db.connect(autocommit=False)
            session.execute(f"set transaction isolation level {level}")
            put(session, f"one {level}", level)
            put(session, f"two {level}", level)
            session.commit()
            assert history(db, level) == [(1, f"one {level}".encode())]


class TestDumps:
    def dump(self, db: Database, *options: str) -> str:
        return subprocess.run(
            db.server.program("pg_dump", *options, "-d", db.name), env=db.server.client_environment(),
            capture_output=True, text=True, check=True,
        ).stdout

    def restore(self, db: Database, script: str) -> None:
        done = subprocess.run(
            db.server.program("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", db.name), input=script,
            env=db.server.client_environment(), capture_output=True, text=True, check=False,
        )
        assert done.returncode == 0, done.stderr

    @pytest.mark.parametrize("how", ["plain", "inserts", "data only", "data only, triggers disabled"])
    def test_they_carry_it(self, db: Database, how: str) -> None:
        db.run("create schema mine")
        db.run("select omni_credentials.instantiate('mine')")
        for schema in ("omni_credentials", "mine"):
            for value in ("one", "two"):
                db.run(f"select {schema}.set_credential('n', %s::text)", value)
            db.run(f"delete from {schema}.credentials")
            db.run(f"select {schema}.set_history_limit(7)")
        options = {"inserts": ["--inserts"]}.get(how, [])
        data_only = how.startswith("data only")
        if data_only:
            options = ["--data-only", *(["--disable-triggers"] if "disabled" in how else [])]
        script = self.dump(db, *options)
        target = fresh_database(db.server, extension=data_only)
        try:
            if data_only:
                target.run("create schema mine")
                target.run("select omni_credentials.instantiate('mine')")
            self.restore(target, script)
            for schema in ("omni_credentials", "mine"):
                read = f"select * from {schema}.credential_versions order by version"
                assert target.run(read) == db.run(read)
                assert target.run(f"select history_limit from {schema}.credentials_config") == [(7,)]
                assert target.run(f"select {schema}.restore_credential('n')") == [(2,)]
                assert target.run(f"select {schema}.get_credential('n')") == [("two",)]
        finally:
            drop_database(target)

    def test_onto_a_server_with_another_secret(self, db: Database, own_server: Server) -> None:
        """What is restored stays, readable or not."""
        put(db, "one")
        put(db, "two")
        script = self.dump(db)
        target = fresh_database(own_server, extension=False)
        self.restore(target, script)
        assert target.run(f"select count(*) from {VERSIONS}") == [(1,)]
        with refused("28P01"):
            target.run(f"select value from {HISTORY}")
        target.close()


class TestFileStores:
    RELOAD = "select name, action from omni_credentials.credential_file_store_reload(%s)"

    def test_what_a_file_brings_makes_versions(self, db: Database) -> None:
        file = mirrored(db, {"n": b"one", "gone": b"value"})
        edit(db.server, file, n=b"two", gone=None)
        assert sorted(db.run(self.RELOAD, str(file))) == [("gone", "removed"), ("n", "changed")]
        assert history(db) == [(1, b"one")]
        assert history(db, "gone") == [(1, b"value")]
        # And what is restored goes to the file.
        db.run("select omni_credentials.restore_credential('gone')")
        db.run("select omni_credentials.restore_credential('n')")
        assert contents(db.server, file) == {"n": b"one", "gone": b"value"}
        assert in_step(db)

    def test_a_file_that_was_only_sealed_again(self, db: Database) -> None:
        file = mirrored(db, {"n": b"one", "m": b"two"})
        before = db.run(f"select value from {TABLE}")
        with outsider(db.server, file) as other:
            other.run("select omni_credentials.rotate_key()")
        db.run(self.RELOAD, str(file))
        assert not set(before) & set(db.run(f"select value from {TABLE}"))
        assert db.run(f"select count(*) from {VERSIONS}") == [(0,)]


def test_a_subscriber_makes_no_versions_of_its_own(server: Server) -> None:
    publisher = new_server("publisher", {"wal_level": "logical", "max_wal_senders": "4", "max_replication_slots": "4"})
    publisher.start({VARIABLE: MASTER_KEY})
    target = fresh_database(server)
    try:
        source = fresh_database(publisher)
        put(source, "one")
        put(source, "two")
        source.run("create publication p for table " + ", ".join(
            f"omni_credentials.{table}" for table in
            ("encrypted_credentials", "encrypted_credential_versions", "credentials_keyrings")))
        target.run(f"create subscription s connection '{publisher.conninfo(source.name)}' publication p")
        read = f"select name, version, value, changed_by from {HISTORY} order by name, version"
        eventually(lambda: target.run(f"select (select count(*) from {VERSIONS}), (select count(*) from {TABLE})") == [(1, 1)])
        for n in range(12):
            put(source, f"value {n}")
        source.run("select omni_credentials.rotate_key()")
        source.run(f"delete from {VIEW}")
        source.run("select omni_credentials.set_credential('last', 'value'::text)")
        eventually(lambda: target.run(f"select name from {TABLE}") == [("last",)])
        assert len(source.run(read)) == 10
        assert target.run(read) == source.run(read)
        source.run("select omni_credentials.purge_history(older_than => '0')")
        eventually(lambda: target.run(f"select count(*) from {VERSIONS}") == [(0,)])
    finally:
        target.run("drop subscription if exists s")
        drop_database(target)
        publisher.remove()
