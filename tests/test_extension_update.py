"""ALTER EXTENSION UPDATE: from every released version, and to a next one that is made up here.

The rules are in host-pg/upgrade/README.md.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MASTER_KEY, VARIABLE, Database, fresh_database, new_server, refused
from installed import with_extension
from releases import ROOT, SCRIPTS, History, older_problems, problems
from throwaway import Installation, Server

HISTORY = History.read((ROOT / "CHANGELOG.md").read_text())
NEXT = f"{HISTORY.current}-next"
SCHEMAS = ("omni_credentials", "copy")
ROWS = "select name, value, kind::text, principal::text, scope from {}.credentials order by name"


def made_today(version: str = HISTORY.current) -> str:
    """The install script that the sources give."""
    stage = Installation.from_environment().stage
    return (stage / "share" / "extension" / f"omni_credentials--{version}.sql").read_text()


def function(script: str, name: str) -> str:
    """The statement that creates a function, for an update."""
    (found,) = re.findall(rf"^create (function omni_credentials\.{name}\(.*?;)\ncomment on function omni_credentials\.{name}\(", script, re.M | re.S)
    return f"create or replace {found}"


def next_script() -> str:
    """What somebody would write who adds a column to settings and keyrings, changes a function, and adds one."""
    script = made_today()
    template = function(script, "instance_template")
    setting = "    history_limit integer not null default 10 check (history_limit between 0 and 1000),\n"
    keyring = "    id uuid primary key default pg_catalog.gen_random_uuid()\n"
    for column in (setting, keyring):
        assert template.count(column) == 1
    template = template.replace(setting, f"{setting}    added text,\n")
    template = template.replace(keyring, f"{keyring.rstrip()},\n    added text\n")
    trigger = "instead of insert or update or delete on {}.credentials for each row execute function"
    return "\n".join(
        [
            template.replace(f"credentials_write('{HISTORY.current}')", f"credentials_write('{NEXT}')"),
            function(script, "verify"),
            "comment on function omni_credentials.verify(regnamespace) is 'From the next version.';",
            "alter table omni_credentials.credentials_config add column added text;",
            "alter table omni_credentials.credentials_keyrings add column added text;",
            f"create or replace trigger credentials_write {trigger.format('omni_credentials')}"
            f" omni_credentials.credentials_write('{NEXT}');",
            "create function omni_credentials.added() returns integer language sql begin atomic select 1; end;",
            "select omni_credentials.only_for_owner('pg_catalog.pg_proc'::pg_catalog.regclass,"
            " 'omni_credentials.added()'::pg_catalog.regprocedure);",
        ]
    )


@pytest.fixture(scope="module")
def updated_server() -> Iterator[Server]:
    """A server whose extension folder has a next version, beside what the build made."""
    server = new_server("update")
    with_extension(server)
    folder = Path(server.installation.ask("sharedir")) / "extension"
    (folder / f"omni_credentials--{HISTORY.current}--{NEXT}.sql").write_text(next_script())
    server.start({VARIABLE: MASTER_KEY, "OTHER": "another secret"})
    yield server
    server.remove()


@pytest.fixture
def filled(updated_server: Server) -> Iterator[Database]:
    """A database of the current version, with credentials in the default copy and in another."""
    database = fresh_database(updated_server)
    fill(database)
    for schema in SCHEMAS:
        # Some rows under an older key.
        database.run("select omni_credentials.rotate_key(%s::regnamespace)", schema)
    database.run("create policy p on omni_credentials.encrypted_credentials as restrictive using (kind <> 'otp')")
    yield database
    database.close()


def fill(database: Database) -> None:
    database.run("create schema copy")
    database.run("select omni_credentials.instantiate('copy', 'OTHER', 64, 1, 1)")
    database.run("do $$ begin create role app login; exception when duplicate_object then end $$")
    for schema in SCHEMAS:
        database.grant("app", schema=schema)
        database.run(f"insert into {schema}.credentials (name, value) values ('own', %b)", schema.encode(), user="app")
        database.run(f"insert into {schema}.credentials (name, value, kind) values ('boss', 'v', 'token[jwt]')")


def update(database: Database, version: str = NEXT) -> None:
    database.run(f"alter extension omni_credentials update to '{version}'")


def check_use(database: Database) -> None:
    """Everything that callers and owners of both copies do."""
    for schema in SCHEMAS:
        assert database.run(f"select name, value from {schema}.credentials", user="app") == [("own", schema.encode())]
        database.run(f"update {schema}.credentials set value = value || '!'", user="app")
        database.run(f"insert into {schema}.credentials (name, value) values ('new', 'n')", user="app")
        database.run(f"select {schema}.set_credential('new', 'm')", user="app")
        assert database.run(f"delete from {schema}.credentials where name = 'new' returning value", user="app") == [(b"m",)]
        with refused("42501"):
            database.run(f"insert into {schema}.credentials (name, value, principal) values ('x', '', 'postgres')", user="app")
        with refused("23514"):
            database.run(f"update {schema}.encrypted_credentials set name = 'moved' where name = 'own'")
        for operation in ("rotate_key(%s::regnamespace)", "use_module(%s::regnamespace)"):
            assert database.run(f"select omni_credentials.{operation}", schema) == [(2,)]
        assert database.run("select * from omni_credentials.verify(%s::regnamespace)", schema) == []
        assert database.run(f"select * from {schema}.credential_file_stores") == []
    database.run("select omni_credentials.rotate_master_secret('OTHER')")
    assert database.run("select name, value from omni_credentials.credentials", user="app") == [("own", b"omni_credentials!")]


class TestToTheNextVersion:
    def test_data_rights_and_policies_stay(self, filled: Database) -> None:
        before = {schema: filled.run(ROWS.format(schema)) for schema in SCHEMAS}
        running = filled.connect("app")
        assert running.execute("select value from copy.credentials").fetchall() == [(b"copy",)]
        update(filled)
        assert filled.run("select extversion from pg_extension where extname = 'omni_credentials'") == [(NEXT,)]
        # In a session that was there before, and in new ones.
        assert running.execute("select value from copy.credentials").fetchall() == [(b"copy",)]
        assert running.execute("select value from omni_credentials.credentials").fetchall() == [(b"omni_credentials",)]
        assert {schema: filled.run(ROWS.format(schema)) for schema in SCHEMAS} == before
        assert ("p",) in filled.run("select polname from pg_policy")
        check_use(filled)

    def test_default_privileges_do_not_reach_what_it_adds(self, filled: Database) -> None:
        filled.run("alter default privileges grant all on functions to app")
        filled.run("alter default privileges revoke all on functions from postgres")
        update(filled)
        assert filled.run("select proacl::text from pg_proc where proname = 'added'") == [("{postgres=X/postgres}",)]
        # What was given before stays given, also on a function that the update replaced.
        verify = "select has_function_privilege('app', 'omni_credentials.verify(regnamespace)', 'execute')"
        assert filled.run(verify) == [(True,)]
        check_use(filled)

    def test_each_copy_says_its_version(self, filled: Database) -> None:
        copies = "select schema::text, version from omni_credentials.instances order by 1"
        assert filled.run(copies) == [("copy", HISTORY.current), ("omni_credentials", HISTORY.current)]
        update(filled)
        filled.run("create schema newer")
        filled.run("select omni_credentials.instantiate('newer')")
        assert filled.run(copies) == [("copy", HISTORY.current), ("newer", NEXT), ("omni_credentials", NEXT)]
        # Each has the tables of its version, and they work side by side.
        columns = (
            "select c.relnamespace::regnamespace::text from pg_attribute join pg_class c on c.oid = attrelid"
            " where relname = 'credentials_keyrings' and attname = 'added' order by 1"
        )
        assert filled.run(columns) == [("newer",), ("omni_credentials",)]
        # What a later version keeps in its column, this library leaves as it is. A keyring that it changes is another row.
        for table in ("credentials_config", "credentials_keyrings"):
            filled.run(f"update omni_credentials.{table} set added = 'kept'")
        for schema in ("copy", "newer", "omni_credentials"):
            filled.run(f"insert into {schema}.credentials (name, value) values ('side by side', 'v')")
            filled.run("select omni_credentials.rotate_key(%s::regnamespace)", schema)
            assert filled.run(f"select value from {schema}.credentials where name = 'side by side'") == [(b"v",)]
        filled.run("select omni_credentials.set_history_limit(3)")
        assert filled.run("select added, history_limit from omni_credentials.credentials_config") == [("kept", 3)]
        assert filled.run("select added from omni_credentials.credentials_keyrings") == [(None,)]

    def test_before_the_update_the_older_version_is_whole(self, filled: Database) -> None:
        """The library is newer than the database knows: a copy made then is one of the database's version."""
        filled.run("create schema older")
        filled.run("select omni_credentials.instantiate('older')")
        filled.run("insert into older.credentials (name, value) values ('n', 'v')")
        update(filled)
        assert ("older", HISTORY.current) in filled.run("select schema::text, version from omni_credentials.instances")
        assert filled.run("select value from older.credentials") == [(b"v",)]

    def test_all_or_nothing(self, filled: Database) -> None:
        with filled.connect(autocommit=False) as session:
            session.execute(f"alter extension omni_credentials update to '{NEXT}'")
            session.rollback()
        assert filled.run("select count(*) from pg_proc where proname = 'added'") == [(0,)]
        check_use(filled)

    def test_what_copies_call_cannot_be_dropped(self, filled: Database) -> None:
        folder = Path(filled.server.installation.ask("sharedir")) / "extension"
        careless = folder / f"omni_credentials--{HISTORY.current}--careless.sql"
        try:
            careless.write_text(
                "alter extension omni_credentials drop function"
                " omni_credentials.open_credential(oid, text, anyenum, regrole, jsonb, bytea, timestamptz);\n"
                "drop function omni_credentials.open_credential(oid, text, anyenum, regrole, jsonb, bytea, timestamptz);"
            )
            with refused("2BP01", "cannot drop function.* other objects depend on it"):
                update(filled, "careless")
        finally:
            careless.unlink()
        check_use(filled)

    def test_a_dump_of_an_older_copy_goes_into_the_newer_version(self, filled: Database, tmp_path: Path) -> None:
        server = filled.server
        file = tmp_path / "dump"
        dump = server.program("pg_dump", "-Fc", "-f", str(file), database=filled.name)
        subprocess.run(dump, env=server.client_environment(), check=True)
        restored = fresh_database(server, extension=False)
        control = Path(server.installation.ask("sharedir")) / "extension" / "omni_credentials.control"
        before = control.read_text()
        try:
            control.write_text(before.replace(f"'{HISTORY.current}'", f"'{NEXT}'"))
            restore = server.program("pg_restore", "--exit-on-error", str(file), database=restored.name)
            subprocess.run(restore, env=server.client_environment(), check=True)
        finally:
            control.write_text(before)
        assert restored.run("select schema::text, version from omni_credentials.instances order by 1") == [
            ("copy", HISTORY.current), ("omni_credentials", NEXT),
        ]
        check_use(restored)
        restored.close()


@pytest.mark.parametrize("version", HISTORY.released or [HISTORY.current])
def test_from_each_release(version: str, updated_server: Server) -> None:
    """Installs a released version with today's library, and updates it. Before the first release, only installs."""
    database = fresh_database(updated_server, extension=False)
    database.run(f"create extension omni_credentials version '{version}'")
    fill(database)
    before = {schema: database.run(ROWS.format(schema)) for schema in SCHEMAS}
    update(database, HISTORY.current)
    assert {schema: database.run(ROWS.format(schema)) for schema in SCHEMAS} == before
    check_use(database)
    database.close()


class TestScriptsOfReleases:
    def test_as_they_must_be(self) -> None:
        assert problems(HISTORY, SCRIPTS, made_today()) == []
        assert older_problems(HISTORY, SCRIPTS, made_today(f"0.2.0--{(HISTORY.released or [HISTORY.current])[0]}")) == []

    # The same look at folders where something is wrong.

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        sums = []
        for name in ("0.1.0", "0.1.0--0.2.0", "0.2.0"):
            (file := tmp_path / f"omni_credentials--{name}.sql").write_text(f"-- {name}")
            sums.append(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n")
        (tmp_path / "SHA256SUMS").write_text("".join(sums))
        return tmp_path

    RELEASED = "# Changelog\n\n## [0.2.0] - 2027-02-03\n\n- b\n\n## [0.1.0] - 2027-01-02\n\n- a\n"
    OPEN = RELEASED.replace("## [0.2.0]", "## [0.3.0] - unreleased\n\n- c\n\n## [0.2.0]")

    def test_a_good_folder(self, folder: Path) -> None:
        history = History.read(self.RELEASED)
        assert history == History(["0.1.0", "0.2.0"], None)
        assert problems(history, folder, "-- 0.2.0") == []
        (folder / "omni_credentials--0.2.0--0.3.0.sql").write_text("")
        assert problems(History.read(self.OPEN), folder, "anything") == []

    def test_released_and_not_frozen(self, folder: Path) -> None:
        history = History.read(self.OPEN.replace("unreleased", "2027-03-04"))
        assert problems(history, folder, "") == [
            "omni_credentials--0.3.0.sql was released and is not in SHA256SUMS",
            "omni_credentials--0.2.0--0.3.0.sql was released and is not in SHA256SUMS",
        ]

    @pytest.mark.parametrize("name", ["0.1.0", "0.1.0--0.2.0"])
    def test_changed_or_gone(self, folder: Path, name: str) -> None:
        file = folder / f"omni_credentials--{name}.sql"
        file.write_text("changed")
        assert problems(History.read(self.RELEASED), folder, "-- 0.2.0") == [f"{file.name} was released and has changed"]
        file.unlink()
        assert problems(History.read(self.RELEASED), folder, "-- 0.2.0") == [f"{file.name} was released and is gone"]

    def test_no_update(self, folder: Path) -> None:
        assert problems(History.read(self.OPEN), folder, "") == ["there is no update from 0.2.0 to 0.3.0"]

    FIRST = "# Changelog\n\n## [1.0.0] - 2027-01-02\n\n- a\n"

    def test_the_update_from_the_older_extension(self, folder: Path) -> None:
        first, later = History.read(self.FIRST), History(["1.0.0"], "1.1.0")
        assert older_problems(History([], "1.0.0"), folder, "") == []
        name = "omni_credentials--0.2.0--1.0.0.sql"
        assert older_problems(first, folder, "") == [f"{name} was released and is not in SHA256SUMS"]
        (folder / name).write_text("-- made")
        (folder / "SHA256SUMS").write_text(f"x  {name}\n")
        assert older_problems(first, folder, "-- made") == []
        (problem,) = older_problems(first, folder, "-- made, and more")
        assert problem.endswith("run ./just freeze again")
        # Released, it stays as it is.
        assert older_problems(later, folder, "-- made, and more") == []

    def test_freeze_again(self, tmp_path: Path) -> None:
        """Until the tag, a change of the sources reaches both scripts."""
        for folder in ("tools", "host-pg/sql", "host-pg/upgrade"):
            shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("omni_credentials--*"))
        shutil.copy(ROOT / "Cargo.toml", tmp_path)
        frozen = {f"omni_credentials--{name}.sql" for name in (HISTORY.current, f"0.2.0--{HISTORY.current}")}
        for added in ("", "-- added\n"):
            with (tmp_path / "host-pg" / "sql" / "rights.sql").open("a") as source:
                source.write(added)
            subprocess.run([tmp_path / "tools" / "freeze.sh"], capture_output=True, check=True)
            scripts = {file.name: file.read_text() for file in (tmp_path / "host-pg" / "upgrade").glob("*.sql")}
            assert set(scripts) == frozen
            assert all(("-- added" in script) == bool(added) for script in scripts.values())

    def test_changed_under_the_same_version(self, folder: Path) -> None:
        (problem,) = problems(History.read(self.RELEASED), folder, "-- 0.2.0, and more")
        assert "needs the next version" in problem

    @pytest.mark.parametrize(
        "changelog",
        [
            "",
            "## [0.2.0] - unreleased\n\n## [0.1.0] - unreleased\n",
            "## [0.2.0] - 2027-01-02\n\n## [0.1.0] - unreleased\n",
            "## [0.2.0] - unreleased\n\n## 0.1.0, 2027-01-02\n",
        ],
    )
    def test_a_history_that_makes_no_sense(self, changelog: str) -> None:
        with pytest.raises(AssertionError):
            History.read(changelog)
