"""What a dump of the extension would lose is refused on the default instance, or told, and is free on others."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from conftest import Database, drop_database, fresh_database, refused

VIEW = "omni_credentials.credentials"
TABLE = "omni_credentials.encrypted_credentials"


@pytest.mark.parametrize(
    "change",
    [
        "alter type {}.credential_kind add value 'webhook'",
        "alter type {}.credential_kind rename value 'ssh' to 'ssh key'",
        "alter table {}.encrypted_credentials add column note text",
        "alter table {}.encrypted_credentials force row level security",
        "alter table {}.credentials_config add column note text",
    ],
)
def test_refused_on_the_default_one(db: Database, change: str) -> None:
    with refused("0A000", "belongs to the extension", hint="instantiate"):
        db.run(change.format("omni_credentials"))
    db.run("create schema own")
    db.run("select omni_credentials.instantiate('own')")
    db.run(change.format("own"))
    db.run("insert into own.credentials (name, value) values ('n', 'v')")
    assert db.run("select value from own.credentials") == [(b"v",)]
    db.run(f"insert into {VIEW} (name, value) values ('n', 'v')")


@pytest.mark.parametrize(
    "change",
    [
        "alter table {} disable trigger encrypted_credentials_check",
        "alter table {} replica identity full",
        "alter type omni_credentials.credential_kind owner to current_user",
        "create table other (name text); alter table other add column more text; create index on other (name)",
    ],
)
def test_other_changes_are_as_before(db: Database, change: str) -> None:
    db.run(change.format(TABLE))


@pytest.mark.parametrize(
    "change",
    [
        "create index mine on {} (principal)",
        "create function f() returns trigger language plpgsql as 'begin return new; end';"
        " create trigger a before insert on {} for each row execute function f()",
        "alter table {} disable row level security",
        "alter table {} replica identity full",
        "alter table {} add check (name <> '')",
        "create rule mine as on delete to {} do also select 1",
        "comment on table {} is 'mine'",
        "comment on column {}.name is 'mine'",
    ],
    ids=["index", "trigger", "policies off", "replica identity", "check", "rule", "comment", "comment on a column"],
)
def test_told(db: Database, change: str) -> None:
    said = []
    session = db.connect()
    session.add_notice_handler(lambda notice: said.append((notice.severity, notice.message_primary, notice.message_hint)))
    session.execute(change.format(TABLE))
    ((severity, message, hint),) = said
    assert severity == "WARNING" and "pg_dump does not carry" in message and "instantiate" in hint


def test_what_an_instance_adds_is_in_its_dump(role, db: Database, tmp_path: Path) -> None:
    db.run("create schema own")
    db.run("select omni_credentials.instantiate('own')")
    db.run("alter type own.credential_kind add value 'webhook'")
    db.run("alter table own.encrypted_credentials add column note text, force row level security")
    db.run("select own.set_credential('n', 'v', 'webhook')")
    copy = fresh_database(db.server, extension=False)
    try:
        for program, *arguments in (
            ("pg_dump", "-Fc", "-f", str(tmp_path / "dump"), db.name), ("pg_restore", "--exit-on-error", str(tmp_path / "dump"), copy.name),
        ):
            done = subprocess.run(
                db.server.program(program, *arguments[:-1], database=arguments[-1]),
                env=db.server.client_environment(), capture_output=True, text=True, check=False,
            )
            assert done.returncode == 0, done.stderr
        assert copy.run("select own.get_credential('n', 'webhook')") == [("v",)]
        assert copy.run("select relforcerowsecurity from pg_class where oid = 'own.encrypted_credentials'::regclass") == [(True,)]
    finally:
        drop_database(copy)


def test_a_renamed_kind_and_its_hint(db: Database) -> None:
    """It is bound into the values. The hint does not speak of principals alone."""
    db.run("create schema own")
    db.run("select omni_credentials.instantiate('own')")
    db.run("select own.set_credential('n', 'v', 'ssh')")
    db.run("alter type own.credential_kind rename value 'ssh' to 'key'")
    with refused("XX001", hint="label of the kind was renamed"):
        db.run("select value from own.credentials")
    db.run("alter type own.credential_kind rename value 'key' to 'ssh'")
    assert db.run("select value from own.credentials") == [(b"v",)]


class TestOwnerWithoutGrantOptions:
    """`grant_access` works or fails; what it says is missing is enough."""

    @pytest.fixture
    def owned(self, role, db: Database) -> Database:
        owner, app = role("owner"), role("app")
        db.allow(owner)
        db.run(f"create schema mine authorization {owner}")
        db.run(f"grant usage on schema omni_credentials to {owner}")
        db.run(f"grant execute on all functions in schema omni_credentials to {owner}")
        db.run("select omni_credentials.instantiate('mine')", user=owner)
        db.owner, db.app = owner, app
        return db

    @pytest.mark.parametrize("privileges", ["SELECT", "INSERT, UPDATE", "DELETE", "SELECT, INSERT, UPDATE, DELETE"])
    def test_it_fails_and_then_works(self, owned: Database, privileges: str) -> None:
        call = f"select omni_credentials.grant_access('{owned.app}', '{privileges}', 'mine')"
        with refused("42501", f"cannot give role {owned.app} access", hint="A superuser runs: grant usage on schema") as failed:
            owned.run(call, user=owned.owner)
        # Nothing is half done.
        assert owned.run(f"select has_schema_privilege('{owned.app}', 'mine', 'USAGE')") == [(False,)]
        for statement in failed.error.diag.message_hint.removeprefix("A superuser runs: ").removesuffix(".").split("; "):
            owned.run(statement)
        owned.run(call, user=owned.owner)
        owned.run(f"insert into mine.credentials (name, value, principal) values ('n', 'v', '{owned.app}')")
        if "SELECT" in privileges:
            assert owned.run("select value from mine.credentials", user=owned.app) == [(b"v",)]
            assert owned.run("select mine.get_credential('n')", user=owned.app) == [("v",)]
        if "UPDATE" in privileges:
            owned.run("update mine.credentials set value = 'w'", user=owned.app)
            owned.run("select mine.set_credential('m', 'w')", user=owned.app)
        if "DELETE" in privileges:
            owned.run("delete from mine.credentials", user=owned.app)

    def test_as_production_md_says(self, owned: Database) -> None:
        owned.run(f"grant usage on schema omni_credentials to {owned.owner} with grant option")
        owned.run(f"grant execute on all functions in schema omni_credentials to {owned.owner} with grant option")
        for privileges in ("SELECT", "SELECT, INSERT, UPDATE, DELETE"):
            owned.run(f"select omni_credentials.grant_access('{owned.app}', '{privileges}', 'mine')", user=owned.owner)
        owned.run("select mine.set_credential('n', 'v')", user=owned.app)
        # What is for superusers stays so.
        with refused("42501"):
            owned.run(f"select omni_credentials.allow_variable('{owned.owner}', 'PATH')", user=owned.owner)


def test_a_role_that_backs_up(role, db: Database, tmp_path: Path) -> None:
    db.run(f"insert into {VIEW} (name, value) values ('n', 'v')")
    backup, reader = role("backup", "bypassrls in role pg_read_all_data"), role("reader", "in role pg_read_all_data")

    def dump(user: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            db.server.program("pg_dump", "-f", str(tmp_path / user), database=db.name, user=user),
            env=db.server.client_environment(), capture_output=True, text=True, check=False,
        )

    done = dump(backup)
    assert done.returncode == 0, done.stderr
    assert "COPY omni_credentials.encrypted_credentials" in (tmp_path / backup).read_text()
    assert "row-level security" in dump(reader).stderr
