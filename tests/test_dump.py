"""pg_dump and pg_restore into a fresh server: nothing is lost, and everything opens under the same secret."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MASTER_KEY, VARIABLE, Database, drop_database, fresh_database, new_server, refused
from throwaway import Server

READ = "select name, value, kind::text, principal::text, scope from {}.credentials order by name"
PRIVILEGES = {"dumped_app": "SELECT, INSERT, UPDATE, DELETE", "dumped_auditor": "SELECT"}
# What names the default copy to pg_dump.
DEFAULT_COPY = ["-n", "omni_credentials", "-e", "omni_credentials"]


@pytest.fixture(scope="module")
def target() -> Iterator[Server]:
    """Another server, with the same master secret."""
    server = new_server("restore")
    server.start({VARIABLE: MASTER_KEY})
    yield server
    server.remove()


@pytest.fixture
def source(server: Server) -> Iterator[Database]:
    """A database with the default copy, another one, policies and rights."""
    database = fresh_database(server)
    database.run("create role dumped_app login")
    database.run("create role dumped_auditor login")
    database.run('create schema "My App"')
    database.run("""select omni_credentials.instantiate('"My App"')""")
    for schema in ("omni_credentials", '"My App"'):
        for user, privileges in PRIVILEGES.items():
            database.grant(user, privileges, schema)
        database.run(f"insert into {schema}.credentials (name, value) values ('a', %b)", schema.encode())
        database.run(f"""insert into {schema}.credentials values ('b', '\\x00ff', 'token[jwt]', 'dumped_app', '{{"n": 1.0}}')""")
        database.run(f"create policy audit on {schema}.encrypted_credentials for select to dumped_auditor using (name = 'a')")
        # Some rows under an older key.
        database.run("select omni_credentials.rotate_key(%s::regnamespace)", schema)
        database.run(f"insert into {schema}.credentials (name, value) values ('c', 'later')")
    yield database
    database.run("drop owned by dumped_app, dumped_auditor")
    drop_database(database)
    with Database(server, "postgres").connect() as admin:
        admin.execute("drop role dumped_app")
        admin.execute("drop role dumped_auditor")


def run(server: Server, program: str, *arguments: str, database: str) -> None:
    done = attempt(server, program, *arguments, database=database)
    assert done.returncode == 0, done.stderr


def failed(server: Server, program: str, *arguments: str, database: str) -> str:
    """Runs a program that must fail, and gives what it said."""
    done = attempt(server, program, *arguments, database=database)
    assert done.returncode != 0
    return done.stderr


def attempt(server: Server, program: str, *arguments: str, database: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        server.program(program, *arguments, database=database),
        env=server.client_environment(), capture_output=True, text=True, check=False,
    )


def fresh_target(target: Server, *, extension: bool = False) -> Database:
    database = fresh_database(target, extension=extension)
    for name in ("dumped_app", "dumped_auditor"):
        database.run(f"do $$ begin create role {name} login; exception when duplicate_object then end $$")
    return database


def check(source: Database, restored: Database, schemas: tuple[str, ...]) -> None:
    for schema in schemas:
        assert restored.run(READ.format(schema)) == source.run(READ.format(schema))
        # The very same sealed bytes.
        sealed = f"select name, value from {schema}.encrypted_credentials order by name"
        assert restored.run(sealed) == source.run(sealed)
        assert restored.run("select * from omni_credentials.verify(%s::regnamespace)", schema) == []
        # Rights and policies, the default one and an added one.
        assert restored.run(f"select name from {schema}.credentials", user="dumped_app") == [("b",)]
        assert restored.run(f"select name, value from {schema}.credentials", user="dumped_auditor") == source.run(
            f"select name, value from {schema}.credentials", user="dumped_auditor"
        )
        restored.run(f"insert into {schema}.credentials (name, value) values ('new', 'v')", user="dumped_app")
        restored.run(f"update {schema}.credentials set value = 'w'", user="dumped_app")
        with refused("42501", "row-level security"):
            restored.run(f"insert into {schema}.credentials (name, value, principal) values ('x', 'v', 'postgres')", user="dumped_app")
        with refused("42501"):
            restored.run(f"delete from {schema}.credentials", user="dumped_auditor")
        with refused("23514"):
            restored.run(f"update {schema}.encrypted_credentials set name = 'moved' where name = 'a'")
        restored.run("select omni_credentials.rotate_key(%s::regnamespace)", schema)
        assert restored.run("select * from omni_credentials.verify(%s::regnamespace)", schema) == []


@pytest.mark.parametrize("format", ["plain", "plain with inserts", "custom", "directory, two jobs"])
def test_whole_database(source: Database, target: Server, tmp_path: Path, format: str) -> None:
    file = tmp_path / "dump"
    restored = fresh_target(target)
    if format.startswith("plain"):
        run(source.server, "pg_dump", "-f", str(file), *(["--inserts"] if "inserts" in format else []), database=source.name)
        run(target, "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", str(file), database=restored.name)
    elif format == "custom":
        run(source.server, "pg_dump", "-Fc", "-f", str(file), database=source.name)
        run(target, "pg_restore", "--exit-on-error", str(file), database=restored.name)
    else:
        run(source.server, "pg_dump", "-Fd", "-j2", "-f", str(file), database=source.name)
        run(target, "pg_restore", "--exit-on-error", "-j2", str(file), database=restored.name)
    check(source, restored, ("omni_credentials", '"My App"'))
    drop_database(restored)


def test_single_schema(source: Database, target: Server, tmp_path: Path) -> None:
    """One copy moves to a database that has the extension, with a default copy of its own."""
    file = tmp_path / "dump"
    restored = fresh_target(target, extension=True)
    restored.run("insert into omni_credentials.credentials (name, value) values ('own', 'v')")
    run(source.server, "pg_dump", "-Fc", "-n", '"My App"', "-f", str(file), database=source.name)
    run(target, "pg_restore", "--exit-on-error", str(file), database=restored.name)
    # A dump of one schema leaves out what belongs to others: rights on the functions that all copies share.
    for user, privileges in PRIVILEGES.items():
        restored.grant(user, privileges, '"My App"')
    check(source, restored, ('"My App"',))
    assert restored.run("select name, value from omni_credentials.credentials") == [("own", b"v")]
    drop_database(restored)


@pytest.mark.parametrize("format", ["plain", "custom"])
def test_schema_of_the_default_copy(source: Database, target: Server, tmp_path: Path, format: str) -> None:
    """It is named with its extension, which has the tables and the rights."""
    file = tmp_path / "dump"
    restored = fresh_target(target)
    run(source.server, "pg_dump", f"-F{format[0]}", *DEFAULT_COPY, "-f", str(file), database=source.name)
    if format == "plain":
        run(target, "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", str(file), database=restored.name)
    else:
        run(target, "pg_restore", "--exit-on-error", str(file), database=restored.name)
    check(source, restored, ("omni_credentials",))
    assert restored.run("select schema::text from omni_credentials.instances") == [("omni_credentials",)]
    drop_database(restored)


def test_schema_of_the_default_copy_without_its_extension(source: Database, target: Server, tmp_path: Path) -> None:
    """Such a dump has rows only. Where there are no tables it fails; where the extension is, the rows are loaded."""
    file = tmp_path / "dump"
    run(source.server, "pg_dump", "-Fc", *DEFAULT_COPY[:2], "-f", str(file), database=source.name)
    bare = fresh_target(target)
    assert "does not exist" in failed(target, "pg_restore", "--exit-on-error", str(file), database=bare.name)
    drop_database(bare)
    restored = fresh_target(target, extension=True)
    run(target, "pg_restore", "--exit-on-error", "--data-only", str(file), database=restored.name)
    for user, privileges in PRIVILEGES.items():
        restored.grant(user, privileges)
    check(source, restored, ("omni_credentials",))
    drop_database(restored)


def test_clean_stops_before_what_is_in_use(source: Database, target: Server, tmp_path: Path) -> None:
    """pg_restore --clean drops the extension first: not while the default copy holds credentials."""
    file = tmp_path / "dump"
    run(source.server, "pg_dump", "-Fc", "-f", str(file), database=source.name)
    used = fresh_target(target, extension=True)
    used.run("insert into omni_credentials.credentials (name, value) values ('own', 'v')")
    error = failed(target, "pg_restore", "--exit-on-error", "--clean", "--if-exists", str(file), database=used.name)
    assert "cannot drop extension omni_credentials because" in error and "holds credentials" in error
    assert used.run("select name, value from omni_credentials.credentials") == [("own", b"v")]
    drop_database(used)


def test_restore_without_the_secret(source: Database, tmp_path: Path) -> None:
    """A dump is restored where the secret is not known, as a backup's test should be; it opens once it is."""
    file = tmp_path / "dump"
    run(source.server, "pg_dump", "-Fc", "-f", str(file), database=source.name)
    keyless = new_server("keyless")
    try:
        keyless.start({})
        restored = fresh_target(keyless)
        run(keyless, "pg_restore", "--exit-on-error", str(file), database=restored.name)
        with refused("F0000", f"{VARIABLE} is not set"):
            restored.run(READ.format("omni_credentials"))
        restored.close()
        keyless.restart({VARIABLE: MASTER_KEY})
        check(source, restored, ("omni_credentials", '"My App"'))
        restored.close()
    finally:
        keyless.remove()


def test_dump_has_no_plaintext(source: Database, tmp_path: Path) -> None:
    source.run("insert into omni_credentials.credentials (name, value) values ('canary', 'plaintext-canary')")
    file = tmp_path / "dump"
    run(source.server, "pg_dump", "-f", str(file), database=source.name)
    dumped = file.read_bytes()
    assert b"canary" in dumped and b"plaintext-canary" not in dumped
    assert b"plaintext-canary".hex().encode() not in dumped and MASTER_KEY.encode() not in dumped


def test_only_the_roles_are_missing(source: Database, target: Server, tmp_path: Path) -> None:
    """Without the roles, regrole columns cannot be restored: an error, not a row for somebody else."""
    with source.connect() as admin:
        admin.execute("create role only_here")
        admin.execute("insert into omni_credentials.credentials (name, value, principal) values ('z', 'v', 'only_here')")
    file = tmp_path / "dump"
    run(source.server, "pg_dump", "-Fc", "-f", str(file), database=source.name)
    restored = fresh_target(target)
    error = failed(target, "pg_restore", "--exit-on-error", str(file), database=restored.name)
    assert 'role "only_here" does not exist' in error
    drop_database(restored)
    with source.connect() as admin:
        admin.execute("delete from omni_credentials.credentials where name = 'z'")
        admin.execute("drop role only_here")


@pytest.mark.parametrize("format", ["plain", "custom"])
def test_copies_of_a_role_that_is_no_superuser(source: Database, target: Server, tmp_path: Path, format: str) -> None:
    """Who may use which variable comes along, and the rows of the copy may come before that."""
    for function in (
        "instantiate", "encrypted_credentials_check", "encrypted_credentials_keep", "encrypted_credential_versions_check",
        "encrypted_credentials_changed", "credentials_store_changed",
        "replace_config", "credentials_write", "open_credential", "seal_credential", "file_store_reload", "file_store_sync",
        "file_store_status",
    ):
        source.run(f"grant execute on function omni_credentials.{function} to dumped_app")
    source.run("create schema early authorization dumped_app")
    source.run("create role gone")
    source.allow("gone")
    source.run("drop role gone")
    source.allow("dumped_app")
    source.run("select omni_credentials.instantiate('early')", user="dumped_app")
    source.run("insert into early.credentials (name, value) values ('n', 'v')", user="dumped_app")
    file = tmp_path / "dump"
    restored = fresh_target(target)
    run(source.server, "pg_dump", f"-F{format[0]}", "-f", str(file), database=source.name)
    if format == "plain":
        run(target, "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", str(file), database=restored.name)
    else:
        run(target, "pg_restore", "--exit-on-error", str(file), database=restored.name)
    assert restored.run("select role::text, variable from omni_credentials.allowed_variables") == [("dumped_app", VARIABLE)]
    assert restored.run("select name, value from early.credentials", user="dumped_app") == [("n", b"v")]
    restored.run("select early.set_credential('n', 'w')", user="dumped_app")
    # The tables hang together as before.
    with refused("2BP01", "other objects depend on it"):
        restored.run("drop table early.credentials_keyrings", user="dumped_app")
    with refused("2BP01", "holds credentials"):
        restored.run("drop table early.credentials_keyrings cascade", user="dumped_app")
    restored.run("select omni_credentials.disallow_variable('dumped_app', %s)", VARIABLE)
    with refused("42501", "may not use"):
        restored.run("select value from early.credentials", user="dumped_app")
    drop_database(restored)


class TestPoliciesOfTheDefaultCopy:
    """pg_dump leaves out policies on tables of an extension; a lost restrictive one would open too much."""

    POLICIES = (
        "select polname, polpermissive, polcmd, polroles::regrole[]::text, pg_get_expr(polqual, polrelid),"
        " pg_get_expr(polwithcheck, polrelid) from pg_policy order by polname"
    )

    def restored(self, source: Database, target: Server, tmp_path: Path) -> Database:
        file = tmp_path / "dump"
        run(source.server, "pg_dump", "-Fc", "-f", str(file), database=source.name)
        restored = fresh_target(target)
        run(target, "pg_restore", "--exit-on-error", str(file), database=restored.name)
        return restored

    def test_all_sorts(self, source: Database, target: Server, tmp_path: Path) -> None:
        table = "omni_credentials.encrypted_credentials"
        source.run(f"create policy \"No 'tests'\" on {table} as restrictive for insert to dumped_app, postgres with check (name !~ '^test')")
        source.run(f"create policy night on {table} as restrictive using (kind <> 'otp') with check (scope <> '1')")
        source.run(f"create policy passing on {table} for update using (true)")
        source.run(f"alter policy night on {table} rename to day")
        source.run(f"alter policy day on {table} to dumped_auditor using (kind <> 'ssh')")
        source.run(f"drop policy passing on {table}")
        source.run("alter role dumped_auditor rename to renamed_auditor")
        source.run("alter role renamed_auditor rename to dumped_auditor")
        restored = self.restored(source, target, tmp_path)
        assert restored.run(self.POLICIES) == source.run(self.POLICIES)
        assert "No 'tests'" in [name for name, *_ in restored.run(self.POLICIES)]
        # And once more from there.
        again = self.restored(restored, target, tmp_path)
        assert again.run(self.POLICIES) == source.run(self.POLICIES)
        drop_database(again)
        drop_database(restored)

    def test_default_policy_dropped(self, source: Database, target: Server, tmp_path: Path) -> None:
        source.run("drop policy encrypted_credentials_principal on omni_credentials.encrypted_credentials")
        restored = self.restored(source, target, tmp_path)
        assert restored.run(self.POLICIES) == source.run(self.POLICIES)
        assert restored.run("select name from omni_credentials.credentials", user="dumped_app") == []
        drop_database(restored)

    def test_policies_of_others_are_theirs(self, role, db: Database) -> None:
        app = role("app")
        db.run(f"grant create on database {db.name} to {app}")
        with db.connect(app) as session:
            session.execute("create schema mine")
            session.execute("create table mine.encrypted_credentials (x int)")
            session.execute("create policy p on mine.encrypted_credentials using (true)")
            session.execute("alter policy p on mine.encrypted_credentials using (false)")
            session.execute("drop policy p on mine.encrypted_credentials")
            session.execute("drop schema mine cascade")
            session.execute(f"drop owned by {app}")
        assert db.run("select count(*) from omni_credentials.added_policies") == [(0,)]
