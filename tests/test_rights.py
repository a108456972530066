"""Who may do what: everything as the caller, limited by privileges and policies, and nothing for PUBLIC."""

from __future__ import annotations

import itertools

import psycopg
import pytest
from conftest import Database, drop_database, refused
from owners import CALLED, MAINTENANCE, instance_of

PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE")
SUBSETS = [subset for n in range(1, 5) for subset in itertools.combinations(PRIVILEGES, n)]
VIEW = "omni_credentials.credentials"
TABLE = "omni_credentials.encrypted_credentials"


def can(db: Database, user: str, statement: str) -> bool:
    """Whether a statement works; a refusal must be one for missing rights."""
    with db.connect(user) as session:
        try:
            session.execute(statement)
        except Exception as error:
            assert getattr(error, "sqlstate", None) == "42501", error
            return False
    return True


def attempts(name: str) -> dict[str, str]:
    """One statement for each privilege that needs no other."""
    return {
        "SELECT": f"select value from {VIEW} where name = 'own'",
        "INSERT": f"insert into {VIEW} (name, value) values ('{name}', 'x')",
        "UPDATE": f"update {VIEW} set value = 'y'",
        "DELETE": f"delete from {VIEW}",
    }


@pytest.mark.parametrize("subset", SUBSETS, ids="+".join)
def test_each_subset_of_privileges(role, db: Database, subset: tuple[str, ...]) -> None:
    app = role("app")
    db.run(f"insert into {VIEW} (name, value, principal) values ('own', 'secret', %s::regrole)", app)
    for privilege, statement in attempts("before").items():
        assert not can(db, app, statement), privilege
    db.grant(app, ", ".join(subset))
    for privilege, statement in attempts("granted").items():
        assert can(db, app, statement) == (privilege in subset), privilege
    set_credential = "select omni_credentials.set_credential('s', 'x')"
    assert can(db, app, set_credential) == ({"INSERT", "UPDATE"} <= set(subset))
    db.run("select omni_credentials.revoke_access(%s::regrole)", app)
    for privilege, statement in attempts("after").items():
        assert not can(db, app, statement), privilege
    assert not can(db, app, set_credential)
    # Nothing is left behind in any catalog.
    left = db.run("select classid::regclass::text, objid from pg_shdepend where refobjid = %s::regrole and deptype = 'a'", app)
    assert left == []


@pytest.mark.parametrize("subset", [s for s in SUBSETS if "SELECT" not in s], ids="+".join)
def test_changing_is_not_reading(role, db: Database, subset: tuple[str, ...]) -> None:
    """Without SELECT, no way through the functions shows a value, though changes still work."""
    app = role("app")
    db.run(f"insert into {VIEW} (name, value, principal) values ('own', 'secret', %s::regrole)", app)
    db.grant(app, ", ".join(subset))
    with db.connect(app) as session:
        for statement in (
            f"select omni_credentials.open_credential(tableoid, name, kind, principal, scope, value) from {TABLE}",
            f"select value from {VIEW}",
            f"delete from {VIEW} returning value",
            f"update {VIEW} set name = 'n' returning value",
        ):
            try:
                shown = session.execute(statement).fetchall()
            except Exception as error:
                assert getattr(error, "sqlstate", None) == "42501", error
                continue
            assert all(b"secret" not in bytes(value) for (value,) in shown)
    if "UPDATE" in subset:
        # A new name for a value that the role cannot see: sealed again, and still the same.
        db.run(f"update {VIEW} set name = 'renamed'", user=app)
        assert db.run(f"select name, value from {VIEW}") == [("renamed", b"secret")]
        with refused("23502"):
            db.run(f"update {VIEW} set value = null", user=app)


def test_access_to_one_copy_survives_losing_another(role, db: Database) -> None:
    app = role("app")
    db.run("create schema other")
    db.run("select omni_credentials.instantiate('other')")
    db.grant(app, "SELECT")
    db.grant(app, "SELECT, INSERT", "other")
    db.run("select omni_credentials.revoke_access(%s::regrole)", app)
    db.run("insert into other.credentials (name, value) values ('n', 'v')", user=app)
    assert db.run("select value from other.credentials", user=app) == [(b"v",)]
    with refused("42501"):
        db.run(f"select value from {VIEW}", user=app)


def test_quoted_names(role, db: Database) -> None:
    app = role('An "odd" role')
    schema = 'My "own" Schema'
    db.run('create schema "My ""own"" Schema"')
    db.run("select omni_credentials.instantiate(%s::regnamespace)", '"My ""own"" Schema"')
    db.run(
        "select omni_credentials.grant_access(quote_ident(%s)::regrole, 'select, insert', quote_ident(%s)::regnamespace)",
        app,
        schema,
    )
    db.run('insert into "My ""own"" Schema".credentials (name, value) values (\'n\', \'v\')', user=app)
    read = db.run('select value, principal::text from "My ""own"" Schema".credentials', user=app)
    assert read == [(b"v", '"' + app.replace('"', '""') + '"')]
    db.run(
        "select omni_credentials.revoke_access(quote_ident(%s)::regrole, schema => quote_ident(%s)::regnamespace)",
        app,
        schema,
    )
    with refused("42501"):
        db.run('select value from "My ""own"" Schema".credentials', user=app)


@pytest.mark.parametrize("privileges", ["", "ALL", "SELECT; drop table x", "TRUNCATE", "SELECT,,INSERT"])
def test_unknown_privileges_are_refused(role, db: Database, privileges: str) -> None:
    app = role("app")
    for function in ("grant_access", "revoke_access"):
        with refused("22023", "unknown privilege", hint="SELECT, INSERT, UPDATE and DELETE"):
            db.run(f"select omni_credentials.{function}(%s::regrole, %s::text)", app, privileges)
    assert not can(db, app, f"select name from {VIEW}")


def test_members_share_their_group(role, db: Database) -> None:
    team = role("team")
    one, other = role("one", f"in role {team}"), role("other")
    db.grant(team)
    db.grant(other)
    db.run(f"insert into {VIEW} (name, value, principal) values ('shared', 'v', %s::regrole)", team, user=one)
    db.run(f"insert into {VIEW} (name, value) values ('private', 'v')", user=one)
    assert db.run(f"select name from {VIEW} order by name", user=one) == [("private",), ("shared",)]
    assert db.run(f"select name from {VIEW}", user=team) == [("shared",)]
    assert db.run(f"select name from {VIEW}", user=other) == []
    assert db.run(f"update {VIEW} set value = 'taken' returning name", user=other) == []
    assert db.run(f"delete from {VIEW} returning name", user=other) == []
    assert db.run(f"select distinct value from {VIEW}") == [(b"v",)]


class TestMembership:
    """Whose credentials a role reads and writes: those of the roles whose rights it has, not of those it administers."""

    def check(self, db: Database, app: str, team: str, *, has_rights: bool) -> None:
        names = [("shared",)] if has_rights else []
        for user in (app, team):
            db.grant(user)
        db.run(f"insert into {VIEW} (name, value, principal) values ('shared', 'v', %s::regrole)", team)
        ((sealed,),) = db.run(f"select value from {TABLE} where name = 'shared'")
        assert db.run(f"select name from {VIEW} where value = 'v'", user=app) == names
        assert db.run(f"select name from {TABLE}", user=app) == names
        assert db.run(f"update {VIEW} set value = 'v' returning name", user=app) == names
        opening = (
            f"select omni_credentials.open_credential('{TABLE}'::regclass, 'shared', 'credential'::omni_credentials.credential_kind,"
            f""" '{team}', '{{"all": true}}', %b)"""
        )
        writing = f"insert into {VIEW} (name, value, principal) values ('new', 'v', '{team}')"
        if has_rights:
            assert db.run(opening, sealed, user=app) == [(b"v",)]
            db.run(writing, user=app)
        else:
            with refused("42501", "permission denied for credential"):
                db.run(opening, sealed, user=app)
            with refused("42501", "row-level security"):
                db.run(writing, user=app)
        assert db.run(f"delete from {VIEW} where name = 'shared' returning name", user=app) == names

    def test_with_inherit(self, role, db: Database) -> None:
        team = role("team")
        self.check(db, role("app", f"in role {team}"), team, has_rights=True)

    def test_noinherit(self, role, db: Database) -> None:
        """On every version: a role that inherits nothing reads after SET ROLE only."""
        team = role("team")
        app = role("app", f"noinherit in role {team}")
        self.check(db, app, team, has_rights=False)
        with db.connect(app) as session:
            session.execute(f"set role {team}")
            assert session.execute(f"select name from {VIEW}").fetchall() == [("shared",)]

    def test_the_creator_of_a_role(self, role, db: Database) -> None:
        """From Postgres 16 on a member WITH ADMIN, without INHERIT and SET; before that none at all."""
        boss = role("boss", "createrole")
        team = f"made_by_{boss}"
        db.run(f"create role {team} login", user=boss)
        try:
            self.check(db, boss, team, has_rights=False)
        finally:
            drop_database(db)
            with Database(db.server, "postgres").connect() as admin:
                admin.execute(f"drop role {team}")

    @pytest.mark.parametrize("options", ["inherit false, set false", "inherit false, set true", "inherit true, set false"])
    def test_options_of_a_membership(self, role, db: Database, options: str) -> None:
        if db.server.installation.major < 16:
            pytest.skip("memberships have no such options before Postgres 16")
        team, app = role("team"), role("app")
        db.run(f"grant {team} to {app} with {options}")
        self.check(db, app, team, has_rights="inherit true" in options)


def test_writing_for_another_principal(role, db: Database) -> None:
    app, victim = role("app"), role("victim")
    db.grant(app)
    for statement in (
        f"insert into {VIEW} (name, value, principal) values ('n', 'v', '{victim}')",
        f"insert into {VIEW} (name, value, principal) select 'n', 'v', '{victim}'::regrole",
    ):
        with refused("42501", "row-level security"):
            db.run(statement, user=app)
    with refused("42501", 'permission denied to seal credential "n"', hint="credentials view"):
        db.run(f"select omni_credentials.set_credential('n', 'v', principal => '{victim}')", user=app)
    db.run(f"insert into {VIEW} (name, value) values ('own', 'v')", user=app)
    with refused("42501", "row-level security"):
        db.run(f"update {VIEW} set principal = '{victim}'", user=app)
    assert db.run(f"select name, principal::text from {VIEW}") == [("own", app)]


class TestAddedPolicies:
    """Policies that users add apply through the view as well."""

    @pytest.fixture
    def app(self, role, db: Database) -> str:
        app = role("app")
        db.grant(app)
        for name in ("a", "b"):
            db.run(f"insert into {VIEW} (name, value) values (%s, 'v')", name, user=app)
        return app

    @pytest.fixture
    def db(self, role, db: Database) -> Database:
        # After the roles, so that the database goes first.
        return db

    def test_restrictive_for_select(self, app: str, db: Database) -> None:
        db.run(f"create policy p on {TABLE} as restrictive for select to {app} using (name = 'a')")
        assert db.run(f"select name from {VIEW}", user=app) == [("a",)]
        db.run(f"delete from {VIEW}", user=app)
        assert db.run(f"select name from {VIEW}") == [("b",)]

    def test_restrictive_for_insert(self, app: str, db: Database) -> None:
        db.run(f"create policy p on {TABLE} as restrictive for insert with check (name <> 'c')")
        with refused("42501", "row-level security policy"):
            db.run(f"insert into {VIEW} (name, value) values ('c', 'v')", user=app)
        db.run(f"insert into {VIEW} (name, value) values ('d', 'v')", user=app)

    def test_restrictive_for_update(self, app: str, db: Database) -> None:
        db.run(f"create policy p on {TABLE} as restrictive for update using (name = 'a') with check (kind = 'credential')")
        assert db.run(f"update {VIEW} set value = 'w' returning name", user=app) == [("a",)]
        with refused("42501", "row-level security policy"):
            db.run(f"update {VIEW} set kind = 'token' where name = 'a'", user=app)
        assert db.run(f"select name, value from {VIEW} order by name") == [("a", b"w"), ("b", b"v")]

    def test_restrictive_for_delete(self, app: str, db: Database) -> None:
        db.run(f"create policy p on {TABLE} as restrictive for delete using (name = 'a')")
        assert db.run(f"delete from {VIEW} returning name", user=app) == [("a",)]
        assert db.run(f"select name from {VIEW}") == [("b",)]

    def test_permissive_for_an_auditor(self, app: str, role, db: Database) -> None:
        """A policy may show rows to a role that is not a member of their principal, and they open for it."""
        auditor, other = role("auditor"), role("other")
        for user in (auditor, other):
            db.grant(user, "SELECT")
        db.run(f"create policy p on {TABLE} for select to {auditor} using (name = 'a')")
        assert db.run(f"select name, value from {VIEW}", user=auditor) == [("a", b"v")]
        assert db.run(f"select name, value from {VIEW}", user=other) == []
        db.run(f"drop policy p on {TABLE}")
        db.run(f"drop owned by {auditor}, {other}")


    def test_permissive_for_writing(self, app: str, role, db: Database) -> None:
        """A policy may let a role write for principals that it is not a member of: each command by its own policy."""
        clerk = role("clerk")
        db.grant(clerk)
        insert = f"insert into {VIEW} (name, value, principal) values ('new', 'n', '{app}')"
        with refused("42501", "row-level security"):
            db.run(insert, user=clerk)
        db.run(f"create policy i on {TABLE} for insert to {clerk} with check (name = 'new')")
        db.run(insert, user=clerk)
        with refused("42501", "row-level security"):
            db.run(insert.replace("new", "other"), user=clerk)
        # What it may not see, it neither changes nor deletes, whatever the policy of that command says.
        db.run(f"create policy u on {TABLE} for update to {clerk} using (name <> 'b') with check (name <> 'b')")
        db.run(f"create policy d on {TABLE} for delete to {clerk} using (name = 'a')")
        for statement in (f"update {VIEW} set value = 'w' returning name", f"delete from {VIEW} returning name"):
            assert db.run(statement, user=clerk) == []
        db.run(f"create policy s on {TABLE} for select to {clerk} using (true)")
        assert sorted(db.run(f"update {VIEW} set value = 'w' returning name", user=clerk)) == [("a",), ("new",)]
        with refused("42501", "row-level security"):
            db.run(f"update {VIEW} set name = 'b' where name = 'new'", user=clerk)
        assert db.run(f"delete from {VIEW} returning name", user=clerk) == [("a",)]
        assert db.run(f"select name, value from {VIEW} order by name", user=app) == [("b", b"v"), ("new", b"w")]
        # Another role has none of it.
        other = role("other")
        db.grant(other)
        assert db.run(f"select name from {VIEW}", user=other) == []
        with refused("42501", "row-level security"):
            db.run(insert, user=other)
        db.run("".join(f"drop policy {policy} on {TABLE};" for policy in "iuds"))


def test_set_role_and_session_authorization(role, db: Database) -> None:
    """Nothing that was unlocked, planned or looked up for one role serves another in the same session."""
    one, two = role("one"), role("two")
    for user in (one, two):
        db.grant(user)
        db.run(f"insert into {VIEW} (name, value) values ('n', %b)", user.encode(), user=user)
    session = db.connect()
    for switch, back in (("set role", "reset role"), ("set session authorization", "reset session authorization")):
        for user, other in ((one, two), (two, one), (one, two)):
            session.execute(f"{switch} {user}")
            read = session.execute(f"select value from {VIEW}", prepare=True).fetchall()
            assert read == [(user.encode(),)]
            session.execute(f"update {VIEW} set value = value || '!'", prepare=True)
            with refused("42501"):
                session.execute(f"insert into {VIEW} (name, value, principal) values ('x', 'y', '{other}')", prepare=True)
            session.execute(f"update {VIEW} set value = '{user}'", prepare=True)
            session.execute(back)
        assert len(session.execute(f"select value from {VIEW}", prepare=True).fetchall()) == 2
    # Rights that were taken back are gone for sessions that used them.
    session.execute(f"set role {one}")
    db.run("select omni_credentials.revoke_access(%s::regrole)", one)
    with refused("42501"):
        session.execute(f"select value from {VIEW}", prepare=True)


def test_leaving_a_group_ends_access_in_running_sessions(role, db: Database) -> None:
    team = role("team")
    app = role("app", f"in role {team}")
    db.grant(app)
    db.run(f"insert into {VIEW} (name, value, principal) values ('n', 'v', %s::regrole)", team)
    session = db.connect(app)
    assert session.execute(f"select value from {VIEW}").fetchall() == [(b"v",)]
    db.run(f"revoke {team} from {app}")
    assert session.execute(f"select value from {VIEW}").fetchall() == []


def test_keys_and_settings_are_out_of_reach(role, db: Database) -> None:
    app = role("app")
    db.grant(app)
    db.run(f"insert into {VIEW} (name, value) values ('n', 'v')", user=app)
    for relation in ("encrypted_credential_versions", "credentials_keyrings", "credentials_config", "credentials_files",
                     "crypto_modules", "added_policies"):
        for statement in (
            "select * from {}", "select count(*) from {}", "delete from {}", "truncate {}", "create table stolen as table {}",
        ):
            with refused("42501"):
                db.run(statement.format(f"omni_credentials.{relation}"), user=app)
    for call in (
        "instantiate()", "rotate_key()", "rotate_master_secret('PATH')", f"rename_principal('x', '{app}')",
        "instantiate_file_store('f')", "credential_file_store_reload('f')", "generate_master_key()",
        f"grant_access('{app}')", f"revoke_access('{app}')", "register_builtin_module()",
        "file_store_reload('omni_credentials', 'f', null, false)", f"privileges_held('{app}', null)",
    ):
        with refused("42501", "permission denied"):
            db.run(f"select omni_credentials.{call}", user=app)


def test_nothing_is_granted_to_public(role, db: Database) -> None:
    """Over every object of the extension and of a copy, by the catalogs, defaults included."""
    db.run("create schema other")
    db.run("select omni_credentials.instantiate('other')")
    open_to_public = db.run(
        """
        with ours as (select oid from pg_namespace where nspname in ('omni_credentials', 'other'))
        select 'function', p.oid::regprocedure::text from pg_proc p,
            aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
            where pronamespace in (select oid from ours) and a.grantee = 0
        union all
        select 'relation', c.oid::regclass::text from pg_class c,
            aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a
            where relnamespace in (select oid from ours) and a.grantee = 0
        union all
        select 'column', attrelid::regclass::text from pg_attribute, aclexplode(attacl) a
            where attrelid in (select oid from pg_class where relnamespace in (select oid from ours)) and a.grantee = 0
        union all
        select 'schema', nspname from pg_namespace n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
            where n.oid in (select oid from ours) and a.grantee = 0
        union all
        select 'type', t.oid::regtype::text from pg_type t, aclexplode(coalesce(t.typacl, acldefault('T', t.typowner))) a
            where typnamespace in (select oid from ours) and typelem = 0 and typrelid = 0 and a.grantee = 0
        """
    )
    assert open_to_public == []
    # The query above can find something.
    db.run("grant execute on function omni_credentials.verify to public")
    assert db.run("select has_function_privilege('public', 'omni_credentials.verify(regnamespace)', 'execute')") == [(True,)]


def test_definer_rights_are_pinned(db: Database) -> None:
    """No function of ours runs as somebody else, and those in SQL or PL/pgSQL fix their search_path."""
    definers = db.run(
        "select p.oid::regprocedure::text from pg_proc p join pg_namespace n on n.oid = pronamespace "
        "where nspname = 'omni_credentials' and prosecdef"
    )
    assert definers == []
    loose = db.run(
        "select p.oid::regprocedure::text from pg_proc p join pg_namespace n on n.oid = pronamespace "
        "join pg_language l on l.oid = prolang where nspname = 'omni_credentials' and lanname in ('sql', 'plpgsql') "
        "and prosqlbody is null and not coalesce(proconfig @> array['search_path=pg_catalog, pg_temp'], false)"
    )
    assert loose == []



TAKEN = {
    "SELECT on the view": f"revoke select on {VIEW} from {{app}}",
    "membership in the principal": "revoke {owner} from {app}",
    "bypassing policies": "alter role {app} nobypassrls",
}


@pytest.mark.parametrize("what", TAKEN)
def test_a_right_that_ends_between_two_reads(role, db: Database, what: str) -> None:
    """The same role asks for the same bytes in one transaction, and what it may do changes."""
    owner = role("owner")
    app = role("app", "bypassrls" if what == "bypassing policies" else f"in role {owner}")
    db.run(f"insert into {VIEW} (name, value, principal) values ('own', 'secret', %s::regrole)", owner)
    db.grant(app)
    with db.connect(autocommit=False) as session:
        row = session.execute(f"select tableoid, name, kind::text, principal::text, scope::text, value from {TABLE}").fetchone()

        def opened() -> bytes | None:
            session.execute("savepoint before")
            session.execute(f"set local role {app}")
            try:
                (value,) = session.execute(
                    "select omni_credentials.open_credential"
                    "(%s, %s, %s::omni_credentials.credential_kind, %s::regrole, %s::jsonb, %s)",
                    row,
                ).fetchone()
                session.execute("reset role")
            except psycopg.errors.InsufficientPrivilege:
                session.execute("rollback to before")
                return None
            return bytes(value)

        for _ in range(2):
            assert opened() == opened() == b"secret"
            session.execute(TAKEN[what].format(app=app, owner=owner))
            # Without the view, the sealed value.
            assert opened() == (bytes(row[5]) if what == "SELECT on the view" else None)
            session.execute("rollback")


def test_select_on_the_view_alone(role, db: Database) -> None:
    """The server looks at the rights on the table first, and no function of the extension is called."""
    app = role("app")
    db.run(f"grant usage on schema omni_credentials to {app}; grant select on {VIEW} to {app}")
    for library in ("select 1", "load 'omni_credentials'"):
        with db.connect() as session:
            session.execute(library)
            session.execute(f"set role {app}")
            with refused("42501", "permission denied for table encrypted_credentials"):
                session.execute(f"select name from {VIEW}")
    db.grant(app, "SELECT")
    assert db.run(f"select name from {VIEW}", user=app) == []


def test_reassign_owned(role, db: Database) -> None:
    """An instance goes to another owner as a whole, with its values, rights, history and keys."""
    old, new, app = role("old"), role("new"), role("app")
    instance_of(db, old)
    db.grant(app, schema="mine")
    db.run("insert into mine.credentials (name, value) values ('n', 'v')", user=app)
    db.run("insert into mine.credentials (name, value) values ('m', 'w')", user=old)
    assert db.run("select omni_credentials.rotate_key('mine')", user=old) == [(2,)]
    db.run(f"reassign owned by {old} to {new}")
    # Until the new owner may have an instance and use its variable.
    with refused("3F000|42501"):
        db.run("select value from mine.credentials", user=app)
    db.run(f"grant usage on schema omni_credentials to {new}")
    for function in CALLED + MAINTENANCE:
        db.run(f"grant execute on function omni_credentials.{function} to {new}")
    with refused("42501", "may not use", hint="allow_variable"):
        db.run("select value from mine.credentials", user=app)
    db.allow(new)
    assert db.run("select value from mine.credentials", user=app) == [(b"v",)]
    db.run("update mine.credentials set value = 'v2'", user=app)
    assert db.run("select mine.get_credential('n', version => -1)", user=app) == [("v",)]
    for operation in ("rotate_key('mine')", "use_module('mine')"):
        assert db.run(f"select omni_credentials.{operation}", user=new) == [(2,)]
    assert db.run("select omni_credentials.prune_keyrings('mine')", user=new) == [(1,)]
    assert db.run("select count(*) from omni_credentials.verify('mine')", user=new) == [(0,)]
    with refused("42501"):
        db.run("select omni_credentials.rotate_key('mine')", user=old)
    # The values of the old owner stay that role's, which has lost its rights with the tables.
    with refused("42501"):
        db.run("select value from mine.credentials", user=old)
    assert db.run("select name, value from mine.credentials order by name") == [("m", b"w"), ("n", b"v2")]
    db.grant(old, schema="mine")
    assert db.run("select name, value from mine.credentials", user=old) == [("m", b"w")]
