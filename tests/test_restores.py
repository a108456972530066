"""Restores where something is not as it was: another secret or none, settings that are missing, triggers that are off."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MASTER_KEY, PASSWORD, VARIABLE, Database, drop_database, fresh_database, new_server, refused
from throwaway import Server

VIEW = "omni_credentials.credentials"
TABLE = "omni_credentials.encrypted_credentials"
SEALED = f"select name, value, kind::text, principal::text from {TABLE} order by name"


@pytest.fixture(scope="module")
def source() -> Iterator[Database]:
    """With a password: where it is another one, each row would cost Argon2id if nothing were remembered."""
    server = new_server("source")
    server.start({VARIABLE: PASSWORD})
    database = fresh_database(server)
    database.run("create role app login")
    database.grant("app")
    database.run(f"insert into {VIEW} (name, value, principal) select 'n' || i, 'v', 'app' from generate_series(1, 40) i")
    database.run("create schema own")
    database.run("select omni_credentials.instantiate('own')")
    database.run("select own.set_credential('n', 'v')")
    yield database
    server.remove()


def call(server: Server, program: str, *arguments: str, database: str, text: str | None = None) -> str:
    done = subprocess.run(
        server.program(program, *arguments, database=database),
        env=server.client_environment(), input=text, capture_output=True, text=True, check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def restored(server: Server, dump: Path, *options: str) -> Database:
    database = fresh_database(server, extension=False)
    database.run("do $$ begin create role app login; exception when duplicate_object then end $$")
    call(server, "pg_restore", "--exit-on-error", *options, str(dump), database=database.name)
    return database


SECRETS = {
    "missing": ({}, "F0000"),
    "another password": ({VARIABLE: "another password"}, "28P01"),
    "a key": ({VARIABLE: MASTER_KEY}, "28P01"),
    "empty": ({VARIABLE: ""}, "F0000|28000"),
    "no file": ({f"{VARIABLE}_FILE": "/nonexistent/key"}, "58P01"),
    "damaged": ({VARIABLE: MASTER_KEY[:-4]}, "28000"),
}


@pytest.fixture(scope="module")
def dumps(source: Database, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("dumps")
    for name, options in (("copy", []), ("inserts", ["--inserts"])):
        call(source.server, "pg_dump", "-Fc", *options, "-f", str(folder / name), database=source.name)
    return {name: folder / name for name in ("copy", "inserts")}


@pytest.mark.parametrize("secret", SECRETS)
def test_rows_arrive_whatever_the_secret(source: Database, dumps: dict[str, Path], secret: str) -> None:
    environment, state = SECRETS[secret]
    server = new_server("restored")
    try:
        server.start(environment)
        copies = [restored(server, dumps["copy"]), restored(server, dumps["inserts"], "--single-transaction")]
        for copy in copies:
            assert copy.run(SEALED) == source.run(SEALED)
            assert len(copy.run(SEALED)) == 40
            assert copy.run("select count(*) from own.encrypted_credentials") == [(1,)]
            # Reading says what is wrong, and ordinary roles do not write past it.
            for schema, user in (("omni_credentials", "app"), ("own", "postgres")):
                with refused(state, "master secret"):
                    copy.run(f"select value from {schema}.credentials", user=user)
            with refused(f"{state}|23514"):
                copy.run(f"insert into {TABLE} (name, value) values ('garbage', '\\x01')", user="app")
        # With the right secret everything opens.
        server.restart({VARIABLE: PASSWORD})
        for copy in copies:
            assert copy.run("select * from omni_credentials.verify()") == []
            assert copy.run(f"select value, count(*) from {VIEW} group by value") == [(b"v", 40)]
            assert copy.run("select value from own.credentials") == [(b"v",)]
    finally:
        server.remove()


class TestSchemaOnly:
    """As `pg_dump -s | psql` and the structure files of frameworks leave an instance: without its settings."""

    @pytest.fixture
    def bare(self, role, db: Database) -> Database:
        owner = role("owner")
        db.run(f"create schema bare authorization {owner}")
        db.allow(owner)
        db.run(f"grant usage on schema omni_credentials to {owner}")
        db.run(f"grant execute on all functions in schema omni_credentials to {owner}")
        db.run("select omni_credentials.instantiate('bare')", user=owner)
        schema = call(db.server, "pg_dump", "-s", "-n", "bare", database=db.name)
        db.run("drop schema bare cascade")
        call(db.server, "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", text=schema, database=db.name)
        db.owner = owner
        return db

    def test_instantiate_completes_it(self, bare: Database) -> None:
        with refused("55000", "has no settings", hint=r"select omni_credentials.instantiate\('bare', env_var =>"):
            bare.run("insert into bare.credentials (name, value) values ('n', 'v')")
        bare.run("select omni_credentials.instantiate('bare')")
        bare.run("insert into bare.credentials (name, value) values ('n', 'v')")
        assert bare.run("select value from bare.credentials") == [(b"v",)]
        with refused("42710", "already has an instance"):
            bare.run("select omni_credentials.instantiate('bare')")

    def test_the_owner_completes_it(self, bare: Database) -> None:
        with refused("42501", "OTHER"):
            bare.run("select omni_credentials.instantiate('bare', 'OTHER')", user=bare.owner)
        bare.run(f"select omni_credentials.instantiate('bare', '{VARIABLE}', 65536, 3, 4)", user=bare.owner)
        assert bare.run("select environment_variable, kdf_passes from bare.credentials_config") == [(VARIABLE, 3)]

    def test_not_with_a_variable_that_the_owner_may_not_use(self, bare: Database) -> None:
        """Not even a superuser makes it the owner's by accident."""
        with refused("42501", "OTHER"):
            bare.run("select omni_credentials.instantiate('bare', 'OTHER')")

    def test_no_other_role_completes_it(self, role, bare: Database) -> None:
        stranger = role("stranger")
        bare.allow(stranger)
        bare.run(f"grant usage on schema omni_credentials to {stranger}")
        bare.run(f"grant execute on all functions in schema omni_credentials to {stranger}")
        with refused("42501", "must be owner"):
            bare.run("select omni_credentials.instantiate('bare')", user=stranger)

    def test_code_of_the_owner_does_not_run_as_a_superuser(self, bare: Database) -> None:
        bare.run("create table bare.seen (who name)", user=bare.owner)
        bare.run(
            "create function bare.note() returns trigger language plpgsql as"
            " $$ begin insert into bare.seen values (current_user); return new; end $$",
            user=bare.owner,
        )
        bare.run("create trigger note before insert on bare.credentials_config for each row execute function bare.note()", user=bare.owner)
        bare.run("select omni_credentials.instantiate('bare')")
        assert bare.run("select who from bare.seen") == [(bare.owner,)]


class TestRowsThatExist:
    """What CREATE EXTENSION and `instantiate` made gives way to what a dump brings, in whichever way it comes."""

    @pytest.fixture
    def target(self, source: Database) -> Iterator[Database]:
        database = fresh_database(source.server)
        database.run("create schema own")
        database.run("select omni_credentials.instantiate('own')")
        yield database
        drop_database(database)

    @pytest.mark.parametrize("rounds", [1, 2])
    def test_data_only_with_triggers_disabled(self, source: Database, target: Database, tmp_path: Path, rounds: int) -> None:
        """And again after that: the triggers were not left as ordinary ones."""
        dump = tmp_path / "dump"
        call(source.server, "pg_dump", "-Fc", "-f", str(dump), database=source.name)
        for _ in range(rounds):
            target.run(f"truncate {TABLE}, omni_credentials.credentials_keyrings, own.encrypted_credentials, own.credentials_keyrings")
            call(
                target.server, "pg_restore", "--exit-on-error", "--data-only", "--disable-triggers", str(dump), database=target.name
            )
        assert target.run(SEALED) == source.run(SEALED)
        assert target.run("select * from omni_credentials.verify() union all select * from omni_credentials.verify('own')") == []
        assert target.run(
            "select distinct tgname, tgenabled::text from pg_trigger join pg_proc p on p.oid = tgfoid"
            " where proname in ('replace_config', 'skip_known_row', 'restore_policy')"
            " or tgname = 'allowed_variables_changed' order by 1"
        ) == [
            ("allowed_variables_changed", "A"), ("credentials_config_replace", "A"), ("restore_policy", "A"), ("skip_known_module", "A"),
            ("skip_known_variable", "A"),
        ]

    def test_as_a_replica(self, source: Database, target: Database) -> None:
        """As tools that copy all tables do."""
        data = call(source.server, "pg_dump", "--data-only", database=source.name)
        call(
            target.server, "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1",
            text=f"set session_replication_role = replica;\n{data}", database=target.name,
        )
        assert target.run(SEALED) == source.run(SEALED)
        assert target.run("select * from omni_credentials.verify()") == []


class TestDataOnly:
    """Into instances that exist, in every order: the tables of one instance load at the same time with --jobs, or one by one."""

    # The worst order: what the values need comes last.
    ORDER = (
        "encrypted_credentials", "encrypted_credential_versions", "credentials_files", "credentials_keyrings", "credentials_config",
        "allowed_variables", "crypto_modules",
    )
    WAYS = {
        "one by one": [["-a", "-t", table] for table in ORDER],
        "jobs": [["-a", "-j4"]],
        "jobs, triggers disabled": [["-a", "-j4", "--disable-triggers"]],
        "in order": [["-a"]],
        "one transaction": [["-a", "-1"]],
    }
    SCHEMAS = ("omni_credentials", "own", "theirs")
    READ = " union all ".join(f"select '{schema}', name, value from {schema}.credentials" for schema in SCHEMAS) + " order by 1, 2"
    HISTORY = " union all ".join(f"select name, value, version from {schema}.credential_versions" for schema in SCHEMAS) + " order by 1, 2"
    # What the target has: empty instances, instances with a keyring, instances in use, what `pg_dump -s` gave.
    TARGETS = ("empty", "keyring", "in use", "schema only")

    @staticmethod
    def instances(database: Database) -> None:
        """The default instance and two more, one of a role that is no superuser."""
        database.run("do $$ begin create role theirs login; exception when duplicate_object then end $$")
        for schema in ("own", "theirs authorization theirs"):
            database.run(f"create schema {schema}")
        database.run("select omni_credentials.instantiate('own')")
        database.allow("theirs")
        database.run("grant usage on schema omni_credentials to theirs")
        database.run("grant execute on all functions in schema omni_credentials to theirs")
        database.run("select omni_credentials.instantiate('theirs')", user="theirs")

    @pytest.fixture
    def filled(self, source: Database) -> Iterator[Database]:
        database = fresh_database(source.server)
        self.instances(database)
        for schema in self.SCHEMAS:
            database.run(f"insert into {schema}.credentials (name, value) values ('a', 'first'), ('b', '1')")
            # A version, and values under two keyrings.
            database.run(f"select {schema}.set_credential('a', 'second')")
            database.run("select omni_credentials.use_module(%s::regnamespace)", schema)
            database.run(f"insert into {schema}.credentials (name, value) values ('c', '2')")
        database.run("select * from omni_credentials.instantiate_file_store(%s)", f"{database.name}.credentials")
        yield database
        drop_database(database)

    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("before", TARGETS)
    def test_rows_arrive(self, filled: Database, tmp_path: Path, before: str, way: str) -> None:
        dump = tmp_path / "dump"
        call(filled.server, "pg_dump", "-Fc", "-f", str(dump), database=filled.name)
        target = fresh_database(filled.server, extension=before != "schema only")
        if before == "schema only":
            call(target.server, "pg_restore", "--exit-on-error", "-s", str(dump), database=target.name)
        else:
            self.instances(target)
        if before in ("keyring", "in use"):
            for schema in self.SCHEMAS:
                target.run(f"insert into {schema}.credentials (name, value) values ('mine', 'here')")
                if before == "keyring":
                    target.run(f"truncate {schema}.encrypted_credentials, {schema}.encrypted_credential_versions")
        for options in self.WAYS[way]:
            call(target.server, "pg_restore", "--exit-on-error", *options, str(dump), database=target.name)
        mine = [(schema, "mine", b"here") for schema in self.SCHEMAS] if before == "in use" else []
        assert target.run(self.READ) == sorted(filled.run(self.READ) + mine)
        assert target.run(self.HISTORY) == filled.run(self.HISTORY)
        for schema in self.SCHEMAS:
            assert target.run("select * from omni_credentials.verify(%s::regnamespace)", schema) == []
            target.run("select omni_credentials.rotate_key(%s::regnamespace)", schema)
        drop_database(target)

    def test_what_comes_without_its_keyring(self, role, filled: Database, tmp_path: Path) -> None:
        """It is kept, and told when it comes and by verify. Ordinary roles write no such thing, and no value is replaced by one."""
        dump = tmp_path / "dump"
        call(filled.server, "pg_dump", "-Fc", "-f", str(dump), database=filled.name)
        target = fresh_database(filled.server)
        target.run(f"insert into {VIEW} (name, value) values ('mine', 'here')")
        done = subprocess.run(
            target.server.program(
                "pg_restore", "-v", "-a", "-n", "omni_credentials", "-t", "encrypted_credentials", str(dump), database=target.name
            ),
            env=target.server.client_environment(), capture_output=True, text=True, check=True,
        )
        assert done.stderr.count("has no keyring for sealed values") == 1 and "omni_credentials.credentials_keyrings" in done.stderr
        lost = [(name, "it was sealed with a key that this instance's keyring does not hold") for name in "abc"]
        assert target.run("select name, reason from omni_credentials.verify() order by name") == lost
        assert target.run(f"select value from {VIEW} where name = 'mine'") == [(b"here",)]
        with refused("23514", "key that this instance's keyring does not hold"):
            target.run(f"update {TABLE} set value = (select value from {TABLE} where name = 'a') where name = 'mine'")
        target.run("do $$ begin create role app login; exception when duplicate_object then end $$")
        target.grant("app")
        with refused("23514", "key that this instance's keyring does not hold"):
            ((sealed,),) = target.run(f"select value from {TABLE} where name = 'a'")
            target.run(f"insert into {TABLE} (name, value) values ('x', %b)", sealed, user="app")
        call(target.server, "pg_restore", "-a", "-n", "omni_credentials", "-t", "credentials_keyrings", str(dump), database=target.name)
        assert target.run("select * from omni_credentials.verify()") == []
        drop_database(target)


def test_rows_of_another_secret_beside_ones_own(source: Database, tmp_path: Path) -> None:
    """Both are kept, and one's own open. Nothing is sealed until the other's keyrings are gone, as docs/production.md says."""
    dump = tmp_path / "dump"
    call(source.server, "pg_dump", "-Fc", "-a", "-n", "omni_credentials", "-f", str(dump), database=source.name)
    others = [(id_,) for (id_,) in source.run("select id from omni_credentials.credentials_keyrings")]
    server = new_server("beside")
    try:
        server.start({VARIABLE: MASTER_KEY})
        database = fresh_database(server)
        database.run("create role app login")
        database.run(f"insert into {VIEW} (name, value) values ('mine', 'here')")
        call(server, "pg_restore", "--exit-on-error", "-j4", "-a", str(dump), database=database.name)
        assert len(database.run(SEALED)) == 41
        assert database.run(f"select value from {VIEW} where name = 'mine'") == [(b"here",)]
        for statement in (f"select value from {VIEW} where name = 'n1'", "select omni_credentials.set_credential('mine', 'there')"):
            with refused("28P01"):
                database.run(statement)
        remove = "delete from omni_credentials.credentials_keyrings where id = any (%s) returning id"
        # Not while there are values that need them, in the history neither.
        with refused("2BP01", "it does not open here"):
            database.run(remove, [id_ for (id_,) in others])
        database.run(f"delete from {TABLE} where principal = 'app'::regrole")
        with refused("2BP01", "it does not open here"):
            database.run(remove, [id_ for (id_,) in others])
        database.run("select omni_credentials.purge_history(name) from (select distinct name from omni_credentials.verify()) v")
        assert len(database.run(remove, [id_ for (id_,) in others])) == len(others)
        database.run("select omni_credentials.set_credential('mine', 'there')")
        assert database.run("select * from omni_credentials.verify()") == []
        database.close()
    finally:
        server.remove()


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_maintenance_in_another_isolation_level(db: Database, level: str) -> None:
    db.run(f"insert into {VIEW} (name, value) values ('n', 'v')")
    session = db.connect()
    session.execute(f"set default_transaction_isolation = '{level}'")
    for call_of in ("rotate_key()", "use_module()", "prune_keyrings()"):
        with refused("25001", "READ COMMITTED", hint="begin isolation level read committed; select"):
            session.execute(f"select omni_credentials.{call_of}")
        session.execute("begin isolation level read committed")
        session.execute(f"select omni_credentials.{call_of}")
        session.execute("commit")
    assert session.execute(f"select value from {VIEW}").fetchall() == [(b"v",)]


def test_strings_that_do_not_conform(empty_db: Database) -> None:
    session = empty_db.connect()
    session.execute("set standard_conforming_strings = off")
    session.execute("set escape_string_warning = off")
    session.execute("create extension omni_credentials")
    session.execute("create schema own")
    session.execute("select omni_credentials.instantiate('own')")
    for schema in ("omni_credentials", "own"):
        session.execute(f"insert into {schema}.credentials (name, value) values ('n', 'v')")
        session.execute(f"select {schema}.set_credential('n', %s)", (rb"a\b",))
        assert session.execute(f"select value from {schema}.credentials").fetchall() == [(rb"a\b",)]
        session.execute(f"select omni_credentials.rotate_key('{schema}')")
    assert session.execute("select version from omni_credentials.instances where schema = 'own'::regnamespace").fetchone()[0]
