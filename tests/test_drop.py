"""DROP EXTENSION never destroys sealed data in silence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MASTER_KEY, VARIABLE, Database, fresh_database, new_server, refused
from installed import with_extension

VIEW = "omni_credentials.credentials"
TABLE = "omni_credentials.encrypted_credentials"


WAYS = ["drop extension omni_credentials", "drop extension omni_credentials cascade", "drop schema omni_credentials cascade"]


@pytest.mark.parametrize("drop", WAYS)
def test_with_credentials_in_it(db: Database, drop: str) -> None:
    db.run(f"insert into {VIEW} (name, value) values ('n', 'v')")
    with refused("2BP01", "holds credentials", hint=f"truncate {TABLE}"):
        db.run(drop)
    assert db.run(f"select value from {VIEW}") == [(b"v",)]
    # What the hint says works.
    db.run(f"truncate {TABLE}")
    db.run(drop)
    assert db.run(f"select to_regclass('{TABLE}')::text") == [(None,)]
    db.run("create extension omni_credentials")
    db.run(f"insert into {VIEW} (name, value) values ('n', 'v')")


def test_in_a_transaction_with_the_delete(db: Database) -> None:
    db.run(f"insert into {VIEW} (name, value) values ('n', 'v')")
    session = db.connect(autocommit=False)
    session.execute(f"delete from {VIEW}")
    session.execute("savepoint deleted")
    # What was deleted is in the history.
    with refused("2BP01", "encrypted_credential_versions holds credentials", hint=f"truncate {TABLE}, {TABLE[:-1]}_versions"):
        session.execute("drop extension omni_credentials")
    session.execute("rollback to deleted")
    session.execute("select omni_credentials.purge_history(everything => true)")
    session.execute("drop extension omni_credentials")
    session.rollback()
    assert db.run(f"select value from {VIEW}") == [(b"v",)]


@pytest.mark.parametrize("statement", [f"drop table {TABLE} cascade", f"drop view {VIEW}"])
def test_parts_of_the_extension(db: Database, statement: str) -> None:
    db.run(f"insert into {VIEW} (name, value) values ('n', 'v')")
    with refused("2BP01", "because extension omni_credentials requires it"):
        db.run(statement)


def test_by_drop_owned(db: Database) -> None:
    """The extension goes with its owner's things, unless it holds credentials."""
    db.run("create role installer superuser")
    try:
        db.run("drop extension omni_credentials")
        with db.connect() as session:
            session.execute("set role installer")
            session.execute("create extension omni_credentials")
            session.execute(f"insert into {VIEW} (name, value) values ('n', 'v')")
        with refused("2BP01", "holds credentials"):
            db.run("drop owned by installer cascade")
        assert db.run(f"select count(*) from {TABLE}") == [(1,)]
        db.run(f"truncate {TABLE}")
        db.run("drop owned by installer cascade")
        assert db.run(f"select to_regclass('{TABLE}')::text") == [(None,)]
    finally:
        db.run("drop owned by installer cascade")
        db.run("drop role installer")


def test_with_a_copy(db: Database) -> None:
    db.run("create schema app")
    db.run("select omni_credentials.instantiate('app')")
    db.run("insert into app.credentials (name, value) values ('n', 'v')")
    with refused("2BP01", "other objects depend on it", hint="CASCADE"):
        db.run("drop extension omni_credentials")
    sealed = db.run("select * from app.encrypted_credentials"), db.run("select * from app.credentials_keyrings")
    # The copy's tables belong to the database: CASCADE takes what needs the library, and leaves what is sealed.
    db.run("drop extension omni_credentials cascade")
    assert (db.run("select * from app.encrypted_credentials"), db.run("select * from app.credentials_keyrings")) == sealed
    # With the extension back, a fresh copy takes over rows and keyring.
    db.run("create extension omni_credentials")
    db.run("alter schema app rename to old")
    db.run("create schema app")
    db.run("select omni_credentials.instantiate('app')")
    db.run("insert into app.credentials_keyrings select * from old.credentials_keyrings")
    db.run(
        "insert into app.encrypted_credentials (name, value, kind, principal, scope)"
        " select name, value, kind::text::app.credential_kind, principal, scope from old.encrypted_credentials"
    )
    assert db.run("select name, value from app.credentials") == [("n", b"v")]


def test_other_extensions_are_not_kept(db: Database) -> None:
    db.run(f"insert into {VIEW} (name, value) values ('n', 'v')")
    db.run("create extension pageinspect")
    db.run("drop extension pageinspect")


def test_a_copy_is_dropped_like_any_schema(db: Database) -> None:
    db.run("create schema app")
    db.run("select omni_credentials.instantiate('app')")
    db.run("insert into app.credentials (name, value) values ('n', 'v')")
    session = db.connect()
    session.execute("select value from app.credentials")
    session.execute("drop schema app cascade")
    assert session.execute(f"select count(*) from {VIEW}").fetchone() == (0,)


class TestOneByOne:
    """Migration tools drop the tables of a copy that they do not know. While it holds credentials, they go together or not."""

    TABLES = (
        "credentials_keyrings", "credentials_config", "credentials_files", "encrypted_credential_versions", "encrypted_credentials",
    )

    @pytest.fixture
    def owner(self, role) -> str:
        return role("owner")

    @pytest.fixture
    def copy(self, owner: str, db: Database) -> Database:
        """The copy `app`, owned by a role that is no superuser, with a credential in it."""
        db.run("create schema app")
        db.run("select omni_credentials.instantiate('app')")
        db.run("insert into app.credentials (name, value) values ('n', 'v')")
        db.allow(owner)
        db.run(f"grant usage on schema omni_credentials to {owner}")
        db.run(f"grant execute on function omni_credentials.instantiate, omni_credentials.open_credential to {owner}")
        db.run(f"alter schema app owner to {owner}")
        for table in self.TABLES:
            db.run(f"alter table app.{table} owner to {owner}")
        for view in ("credentials", "credential_file_stores"):
            db.run(f"alter view app.{view} owner to {owner}")
        return db

    @pytest.mark.parametrize("table", TABLES)
    def test_without_cascade(self, copy: Database, owner: str, table: str) -> None:
        """What depends on what says so, whatever the settings."""
        for user in ("postgres", owner):
            with refused("2BP01", f"cannot drop table app.{table} because other objects depend on it"):
                copy.run(f"drop table app.{table}", user=user)
        with copy.connect() as session, refused("2BP01", "other objects depend on it"):
            session.execute("set session_replication_role = replica")
            session.execute(f"drop table app.{table}")
        assert copy.run("select value from app.credentials") == [(b"v",)]

    @pytest.mark.parametrize("table", TABLES)
    @pytest.mark.parametrize("view", ["with the view", "the view dropped before"])
    def test_with_cascade(self, copy: Database, owner: str, table: str, view: str) -> None:
        with copy.connect(owner) as session:
            if view != "with the view":
                session.execute("drop view app.credentials")
            for switch in ("set role postgres", f"set role {owner}"):
                if switch.endswith("postgres"):
                    session = copy.connect()
                message = "keep the keyring" if table == "encrypted_credentials" else "app.encrypted_credentials holds credentials"
                with refused("2BP01", f"cannot drop table app.{table} .*{message}", hint="drop schema app cascade"):
                    session.execute(f"drop table app.{table} cascade")
                with refused("2BP01", message):
                    session.execute(f"drop table if exists app.{table} cascade")
        # Nothing is lost.
        assert copy.run("select count(*) from app.encrypted_credentials, app.credentials_keyrings, app.credentials_config") == [(1,)]

    def test_one_after_another(self, copy: Database, owner: str) -> None:
        """In any order, in one transaction, as a tool does it."""
        for tables in (self.TABLES, self.TABLES[::-1]):
            with copy.connect(owner, autocommit=False) as session, refused("2BP01", "cannot drop table app."):
                for table in tables:
                    session.execute(f"drop table app.{table} cascade")
        assert copy.run("select value from app.credentials") == [(b"v",)]

    COLUMNS = {
        "encrypted_credentials": ("name", "value", "kind", "principal", "scope"),
        "credentials_keyrings": ("number", "module", "keyring", "id"),
        "credentials_config": ("environment_variable", "module", "kdf_lanes", "history_limit"),
        "encrypted_credential_versions": ("name", "value", "scope", "version", "deleted"),
        "credentials_files": ("filename", "base", "written_as"),
    }

    @pytest.mark.parametrize("table", COLUMNS)
    def test_a_column(self, copy: Database, owner: str, table: str) -> None:
        for user in ("postgres", owner):
            with copy.connect(user) as session:
                for column in self.COLUMNS[table]:
                    # It may have been renamed before.
                    for rename in (None, f"alter table app.{table} rename {column} to other"):
                        session.execute("begin")
                        if rename:
                            session.execute(rename)
                        name = "other" if rename else column
                        with refused("2BP01", f"cannot drop column {name} of table app.{table}", hint="truncate app.encrypted_cred"):
                            session.execute(f"alter table app.{table} drop {name} cascade")
                        session.execute("rollback")
                # A column of one's own.
                session.execute(f"alter table app.{table} add more text")
                session.execute(f"alter table app.{table} drop more")
        assert copy.run("select value from app.credentials") == [(b"v",)]

    def test_the_type_of_a_column(self, copy: Database, owner: str) -> None:
        copy.run(f"alter type app.credential_kind owner to {owner}")
        for user in ("postgres", owner):
            with refused("2BP01", "cannot drop column kind of table app.encrypted_credentials because .* holds credentials"):
                copy.run("drop type app.credential_kind cascade", user=user)
        copy.run("truncate app.encrypted_credentials")
        copy.run("drop type app.credential_kind cascade", user=owner)

    @pytest.mark.parametrize("table", ["credentials_keyrings", "credentials_config", "encrypted_credentials"])
    def test_a_table_that_was_renamed(self, copy: Database, owner: str, table: str) -> None:
        with copy.connect(owner, autocommit=False) as session:
            session.execute(f"alter table app.{table} rename to old")
            session.execute("savepoint renamed")
            with refused("2BP01", "cannot drop table app.old"):
                session.execute("drop table app.old cascade")
            session.execute("rollback to renamed")
            # The values under another name count as well.
            if table != "encrypted_credentials":
                session.execute("alter table app.encrypted_credentials rename to sealed")
                with refused("2BP01", "cannot drop table app.old because app.sealed holds credentials"):
                    session.execute("drop table app.old cascade")
            session.rollback()
        assert copy.run("select value from app.credentials") == [(b"v",)]

    @pytest.mark.parametrize("where", ["", " where number = 1"])
    def test_rows_of_the_keyring(self, copy: Database, owner: str, where: str) -> None:
        """A tool that empties tables, one by one."""
        before = copy.run("select * from app.credentials_keyrings")
        for user in ("postgres", owner):
            for statement in (f"delete from app.credentials_keyrings{where}", "truncate app.credentials_keyrings"):
                what = "delete keyring .* of schema app: values here" if "delete" in statement else "remove keyrings of schema app while"
                with refused("2BP01", f"cannot {what}", hint="prune_keyrings.*truncate app.encr"):
                    copy.run(statement, user=user)
            copy.run("delete from app.credentials_keyrings where number > 100", user=user)
        assert copy.run("select * from app.credentials_keyrings") == before
        assert copy.run("select value from app.credentials") == [(b"v",)]
        # A keyring from a backup takes its place.
        copy.run(
            "insert into app.credentials_keyrings values (%s, %b, %b, %s) on conflict (id) do update"
            " set (module, keyring) = (excluded.module, excluded.keyring)", *before[0], user=owner,
        )
        assert copy.run("select value from app.credentials") == [(b"v",)]
        copy.run("truncate app.encrypted_credentials, app.credentials_keyrings", user=owner)
        assert copy.run("select * from app.credentials_keyrings") == []
        copy.run("insert into app.credentials (name, value) values ('n', 'w')")

    @pytest.mark.parametrize(
        "statements",
        [
            ["drop schema app cascade"],
            ["drop owned by {owner} cascade"],
            ["drop table app.encrypted_credentials, app.credentials_keyrings cascade"],
            ["drop table {all} cascade"],
            # What the hint says.
            ["truncate app.encrypted_credentials", *(f"drop table app.{table} cascade" for table in TABLES)],
            ["delete from app.encrypted_credentials", "truncate app.encrypted_credential_versions",
             "drop table app.credentials_keyrings cascade"],
        ],
    )
    def test_together(self, copy: Database, owner: str, statements: list[str]) -> None:
        with copy.connect(owner) as session:
            for statement in statements:
                session.execute(statement.format(owner=owner, all=", ".join(f"app.{table}" for table in self.TABLES)))
        assert copy.run("select to_regclass('app.credentials_keyrings')::text") == [(None,)]

    def test_a_part_that_someone_else_owns(self, copy: Database, owner: str) -> None:
        """DROP OWNED takes what the role owns, and must not take half of a copy."""
        copy.run("alter schema app owner to postgres")
        copy.run("alter table app.encrypted_credentials owner to postgres")
        with refused("2BP01", "holds credentials"):
            copy.run(f"drop owned by {owner} cascade")

    def test_an_owner_who_cannot_see_the_rows(self, role, copy: Database) -> None:
        """A table that another role was given: whether there are rows does not depend on who looks."""
        thief = role("thief")
        copy.run("create policy nobody on app.encrypted_credentials as restrictive using (false)")
        copy.run(f"alter table app.credentials_keyrings owner to {thief}")
        copy.run(f"grant usage on schema app to {thief}")
        for right in (None, "select"):
            if right:
                copy.run(f"grant {right} on app.encrypted_credentials to {thief}")
            with refused("2BP01", "holds credentials"):
                copy.run("drop table app.credentials_keyrings cascade", user=thief)
        copy.run("alter table app.credentials_keyrings owner to postgres")

    def test_tables_of_others_are_theirs(self, role, db: Database) -> None:
        app = role("app")
        db.run(f"grant create on database {db.name} to {app}")
        with db.connect(app) as session:
            session.execute("create schema mine")
            for table in self.TABLES:
                session.execute(f"create table mine.{table} (name text)")
                session.execute(f"insert into mine.{table} values ('x')")
            for table in self.TABLES:
                session.execute(f"drop table mine.{table}")
            session.execute("create temporary table credentials_keyrings (x int)")
            session.execute("drop table credentials_keyrings")
            session.execute("drop schema mine cascade")


class TestWithoutTheLibrary:
    """The package is gone, or a newer one is half installed: what does not concern the extension works as ever."""

    @pytest.fixture
    def bare(self) -> Iterator[Database]:
        server = new_server("bare")
        with_extension(server)
        server.start({VARIABLE: MASTER_KEY})
        database = fresh_database(server)
        database.run(f"insert into {VIEW} (name, value) values ('n', 'v')")
        database.run("create schema app")
        database.run("select omni_credentials.instantiate('app')")
        database.run("insert into app.credentials (name, value) values ('n', 'v')")
        database.run("create role someone login")
        database.run(f"grant create on database {database.name} to someone")
        yield database
        database.close()
        server.remove()

    def test_ddl_works_and_nothing_is_lost(self, bare: Database) -> None:
        library = Path(bare.server.installation.ask("pkglibdir")) / "omni_credentials.so"
        away = library.rename(library.with_suffix(".away"))
        with refused("58P01", "could not access file"):
            bare.run(f"select value from {VIEW}")
        for user in ("someone", "postgres"):
            with bare.connect(user, autocommit=False) as session:
                session.execute("create schema junk")
                session.execute("create table junk.t (x int)")
                session.execute("create policy p on junk.t using (true)")
                session.execute("alter policy p on junk.t using (false)")
                session.execute("drop policy p on junk.t")
                session.execute("create type junk.e as enum ('x')")
                session.execute("drop type junk.e")
                session.execute("drop table junk.t")
                session.execute("drop schema junk cascade")
                session.execute("create schema junk")
                session.execute("drop schema junk")
                session.execute("drop owned by someone")
        bare.run("create extension pageinspect")
        bare.run("drop extension pageinspect")
        with refused("2BP01", "holds credentials"):
            bare.run("drop table app.credentials_keyrings cascade")
        bare.run("drop schema app cascade")
        for drop in (*WAYS, "drop owned by postgres cascade"):
            # Its own words where the library is missing; the last one is refused by Postgres itself.
            with refused("55006|2BP01", "being used by active queries in this session|required by the database system"):
                bare.run(drop)
        away.rename(library)
        assert bare.run(f"select value from {VIEW}") == [(b"v",)]
        # What is empty is dropped without the library as well.
        bare.run(f"truncate {TABLE}")
        library.rename(away)
        bare.run("drop extension omni_credentials")
