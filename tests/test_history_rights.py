"""The history: who sees it, and who may change what of it."""

from __future__ import annotations

from conftest import Database, refused
from histories import HISTORY, SEEN, TABLE, VERSIONS, VIEW, history, put


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
