"""Text as drivers send it: `set_credential` and `get_credential` with arguments of every type, and typed parameters."""

from __future__ import annotations

import itertools

import psycopg
import pytest
from conftest import Database, refused
from psycopg import sql

SCHEMA = "omni_credentials"
VIEW = f"{SCHEMA}.credentials"
EVERYWHERE = {"all": True}
# What bytea's escapes would turn into something else, or refuse.
TYPED = [r"a\b", r"\x41", r"\\", r"a\\b", r"\001", '{"private_key": "-----BEGIN KEY-----\\nMIIE\\n-----END KEY-----\\n"}', "grün €", ""]


@pytest.fixture
def app(role) -> str:
    return role("app")


@pytest.fixture
def granted(app: str, db: Database) -> Database:
    db.grant(app)
    return db


@pytest.fixture
def session(granted: Database, app: str) -> psycopg.Connection:
    return granted.connect(app)


def stored(session: psycopg.Connection) -> list[tuple]:
    return session.execute(f"select name, value, kind::text, principal::text, scope from {VIEW} order by 1, 3, 4").fetchall()


@pytest.mark.parametrize("value", TYPED, ids=range(len(TYPED)))
def test_text_is_stored_as_typed(session, value: str) -> None:
    """As a literal, as a parameter without a type, and as parameters of the two types of text."""
    calls = [
        sql.SQL("{}").format(sql.Literal(value)),
        sql.SQL("%s"),
        sql.SQL("%s::text"),
        sql.SQL("%s::varchar"),
    ]
    for number, call in enumerate(calls):
        query = sql.SQL("select omni_credentials.set_credential({}, {})").format(sql.Literal(f"n{number}"), call)
        session.execute(query, (value,) if number else None)
        assert session.execute("select omni_credentials.get_credential(%s)", (f"n{number}",)).fetchone() == (value,)
    assert session.execute(f"select distinct value from {VIEW}").fetchall() == [(value.encode(),)]


def test_bytes_are_stored_as_they_are(session) -> None:
    for value in (b"", b"\x00\xff", rb"\x41", b"a\\b"):
        session.execute("select omni_credentials.set_credential('n', %s)", (value,))
        assert session.execute(f"select value from {VIEW}").fetchall() == [(value,)]


# Ways to write each argument, literals and parameters without a type first.
KINDS = ["'token'", "'token'::text", "'token'::varchar", f"'token'::{SCHEMA}.credential_kind", "null"]
PRINCIPALS = ["'{app}'", "'{app}'::text", "'{app}'::regrole", "'{app}'::regrole::oid", "current_user", "null"]
SCOPES = ["'{{\"all\": true}}'", "'{{\"all\": true}}'::jsonb", "null"]
EXPIRIES = ["'2040-01-01Z'", "'2040-01-01Z'::timestamptz"]
VALUES = ["'v'", "'v'::text", "'v'::bytea"]


def mixed(kind: str, principal: str) -> bool:
    """One argument in the type of the table and the other as text: such a call has to cast one of them."""
    kind_is_text = kind.endswith(("::text", "::varchar"))
    principal_is_text = principal.endswith("::text") or principal == "current_user"
    return (kind_is_text and "regrole" in principal) or ("credential_kind" in kind and principal_is_text)


@pytest.mark.parametrize("value", VALUES)
def test_every_way_to_call_set_credential(session, app: str, value: str) -> None:
    for kind, principal, scope in itertools.product([None, *KINDS], [None, *PRINCIPALS], [None, *SCOPES]):
        if kind and principal and mixed(kind, principal):
            continue
        given = {"kind": kind, "principal": principal, "scope": scope}
        named = [f"{name} => {argument.format(app=app)}" for name, argument in given.items() if argument]
        calls = [", ".join(["'n'", value, *named]), ", ".join([*reversed(named), f"value => {value}", "name => 'n'"])]
        if None not in list(given.values())[: len(named)]:
            calls.append(", ".join(["'n'", value, *(a.format(app=app) for a in given.values() if a)]))
        for call in calls:
            session.execute(f"select {SCHEMA}.set_credential({call})")
            expected = ("n", b"v", "token" if kind and kind != "null" else "credential", app, EVERYWHERE)
            assert stored(session) == [expected], call
            session.execute(f"delete from {VIEW}")
        expiry = EXPIRIES[len(named) % 2]
        calls = [", ".join(["'n'", value, *named, f"expires_at => {expiry}"])]
        if None not in given.values():
            calls.append(", ".join(["'n'", value, *(a.format(app=app) for a in given.values() if a), expiry]))
        for call in calls:
            session.execute(f"select {SCHEMA}.set_credential({call})")
            assert session.execute(f"select expires_at = {EXPIRIES[1]} from {VIEW}").fetchall() == [(True,)], call
            session.execute(f"delete from {VIEW}")


def test_every_way_to_call_get_credential(session, app: str) -> None:
    session.execute(f"select {SCHEMA}.set_credential('n', 'v', 'token')")
    for kind, principal, scope in itertools.product([None, *KINDS], [None, *PRINCIPALS], [None, *SCOPES]):
        if kind and principal and mixed(kind, principal):
            continue
        given = {"kind": kind, "principal": principal, "scope": scope}
        named = [f"{name} => {argument.format(app=app)}" for name, argument in given.items() if argument]
        call = ", ".join(["'n'", *named])
        assert session.execute(f"select {SCHEMA}.get_credential({call})").fetchone() == ("v",), call


def test_no_one_and_several(session, granted: Database, app: str) -> None:
    get = f"select {SCHEMA}.get_credential"
    with refused("P0002", "there is no credential \"n\"", hint="select name, kind, principal, scope"):
        session.execute(f"{get}('n')")
    session.execute(f"insert into {VIEW} (name, value, kind) values ('n', 'p', 'password'), ('n', 't', 'token')")
    with refused("P0003", "several credentials \"n\"", hint="kind =>"):
        session.execute(f"{get}('n')")
    assert session.execute(f"{get}('n', 'token')").fetchone() == ("t",)
    with refused("P0002"):
        session.execute(f"{get}('n', 'ssh')")
    granted.run(f"select {SCHEMA}.set_credential('n', 'of the superuser', 'ssh')")
    with refused("P0002"):
        session.execute(f"{get}('n', 'ssh')")
    with refused("23502|22004"):
        session.execute(f"{get}(null)")


@pytest.mark.parametrize("value", [b"\xff", b"a\x00b"])
def test_bytes_that_are_not_text(session, value: bytes) -> None:
    session.execute(f"select {SCHEMA}.set_credential('n', %s)", (value,))
    with refused("22021", 'the value of credential "n" is not text', hint="select value"):
        session.execute(f"select {SCHEMA}.get_credential('n')")


def test_a_role_whose_name_needs_quotes(role, granted: Database) -> None:
    """current_user is the exact name; a literal may also be what regrole takes."""
    name = role("App ü")
    granted.grant(f'"{name}"')
    session = granted.connect(name)
    for principal in ("current_user", f"'{name}'", f"""'"{name}"'""", f"""'"{name}"'::regrole"""):
        session.execute(f"select {SCHEMA}.set_credential('n', 'v', principal => {principal})")
        assert stored(session) == [("n", b"v", "credential", f'"{name}"', EVERYWHERE)]
        assert session.execute(f"select {SCHEMA}.get_credential('n', principal => {principal})").fetchone() == ("v",)
    with refused("42704", 'role "no_such_role" does not exist'):
        session.execute(f"select {SCHEMA}.set_credential('n', 'v', principal => 'no_such_role')")


def test_typed_parameters_for_the_kind(session) -> None:
    """As JDBC, sqlx and Npgsql send them."""
    for kind in ("text", "varchar"):
        session.execute(f"insert into {VIEW} (name, value, kind) values (%s::text, %s, %s::{kind})", ("n", b"v", "token"))
        session.execute(f"update {VIEW} set kind = %s::{kind}", ("password",))
        assert stored(session)[0][2] == "password"
        session.execute(f"delete from {VIEW}")
    with refused("22P02"):
        session.execute(f"insert into {VIEW} (name, value, kind) values ('n', 'v', 'bogus'::text)")


def test_typed_parameters_in_an_instance(role, db: Database) -> None:
    """There the owner makes the cast, which docs/languages.md shows: a cast would be in the way of DROP OWNED."""
    owner = role("owner")
    db.run(f"create schema mine authorization {owner}")
    db.allow(owner)
    db.run(f"grant usage on schema omni_credentials to {owner}")
    db.run(f"grant execute on all functions in schema omni_credentials to {owner}")
    db.run("select omni_credentials.instantiate('mine')", user=owner)
    db.run("create cast (varchar as mine.credential_kind) with inout as assignment", user=owner)
    db.run("insert into mine.credentials (name, value, kind) values ('n', 'v', 'token'::varchar)", user=owner)
    assert db.run("select mine.get_credential('n', 'token'::varchar, current_user)", user=owner) == [("v",)]


def test_rights_on_both(role, db: Database) -> None:
    """SELECT gives get_credential, and INSERT with UPDATE set_credential, each with all its arguments; nothing for others."""
    app, other = role("app"), role("other")
    functions = (
        f"select count(*) filter (where has_function_privilege(%s, p.oid, 'EXECUTE')), count(*)"
        f" from pg_proc p where pronamespace = '{SCHEMA}'::regnamespace and proname = %s"
    )

    def may(name: str, user: str = app) -> str:
        ((some, all_of_them),) = db.run(functions, user, name)
        return {0: "none", all_of_them: "all"}.get(some, "some")

    assert [may(name) for name in ("get_credential", "set_credential", "text_of_one")] == ["none"] * 3
    db.grant(app, "SELECT")
    assert [may(name) for name in ("get_credential", "set_credential", "text_of_one")] == ["all", "none", "all"]
    db.grant(app, "INSERT, UPDATE")
    assert [may(name) for name in ("get_credential", "set_credential")] == ["all", "all"]
    db.run(f"select {SCHEMA}.revoke_access('{app}', 'SELECT')")
    assert [may(name) for name in ("get_credential", "set_credential", "text_of_one")] == ["none", "all", "none"]
    db.run(f"select {SCHEMA}.revoke_access('{app}')")
    assert [may(name) for name in ("get_credential", "set_credential")] == ["none", "none"]
    assert [may(name, other) for name in ("get_credential", "set_credential", "text_of_one", "functions_of")] == ["none"] * 4


def test_functions_of_another_role_are_not_granted(role, db: Database) -> None:
    """One who may create objects in the schema of an instance gives a function the same name."""
    stranger, app = role("stranger"), role("app")
    db.run("create schema mine")
    db.run("select omni_credentials.instantiate('mine')")
    db.run(f"grant create, usage on schema mine to {stranger}")
    db.run("create function mine.set_credential(integer) returns void language sql as ''", user=stranger)
    db.run("revoke all on function mine.set_credential(integer) from public", user=stranger)
    db.grant(app, schema="mine")
    assert db.run("select has_function_privilege(%s, 'mine.set_credential(integer)', 'EXECUTE')", app) == [(False,)]
    db.run("select mine.set_credential('n', 'v')", user=app)


def test_in_another_encoding(server) -> None:
    """The bytes of a text are those of UTF-8, whatever the database has."""
    with psycopg.connect(server.conninfo(), autocommit=True) as admin:
        admin.execute("create database latin encoding 'LATIN1' locale 'C' template template0")
    try:
        database = Database(server, "latin")
        database.run("create extension omni_credentials")
        database.run(f"select {SCHEMA}.set_credential('n', 'grün')")
        assert database.run(f"select value, {SCHEMA}.get_credential('n') from {VIEW}") == [("grün".encode(), "grün")]
        database.run(f"select {SCHEMA}.set_credential('n', %s)", "€".encode())
        with refused("22021"):
            database.run(f"select {SCHEMA}.get_credential('n')")
        database.close()
    finally:
        with psycopg.connect(server.conninfo(), autocommit=True) as admin:
            admin.execute("drop database latin with (force)")


def test_on_a_server_that_only_reads(granted: Database, app: str, session) -> None:
    session.execute(f"select {SCHEMA}.set_credential('n', 'v')")
    session.execute("set default_transaction_read_only = on")
    assert session.execute(f"select {SCHEMA}.get_credential('n')").fetchone() == ("v",)


def test_a_value_that_does_not_open(session, granted: Database) -> None:
    session.execute(f"select {SCHEMA}.set_credential('n', 'v')")
    granted.run("set session_replication_role = replica; update omni_credentials.encrypted_credentials set value = overlay(value placing '\\x00' from 60)")
    with refused("XX001"):
        session.execute(f"select {SCHEMA}.get_credential('n')")
    session.execute("set omni_credentials.on_unreadable = 'null'")
    assert session.execute(f"select {SCHEMA}.get_credential('n')").fetchone() == (None,)
