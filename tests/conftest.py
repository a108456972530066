"""Fixtures of the SQL tests: a server with the extension, a fresh database for each test, roles."""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from throwaway import SUPERUSER, Server

# What the default copy reads its master secret from.
VARIABLE = "OMNI_CREDENTIALS_MASTER_PASSWORD"
# A password: every session that opens a value pays for Argon2id.
PASSWORD = "tests: correct horse battery staple"


def master_key(seed: bytes) -> str:
    """A generated master key (FORMAT.md, section 3.1), made from a seed so that it is the same every time."""
    key = hashlib.sha256(seed).digest()
    check = hashlib.sha256(b"omck1_" + key).digest()[:4]
    return "omck1_" + base64.urlsafe_b64encode(key + check).decode()


# What the shared server has: its sessions pay nothing.
MASTER_KEY = master_key(b"tests")

# The Python host as its wheel unpacks: what is tested is what is shipped.
PYTHON_HOST = Path(os.environ["CARGO_TARGET_DIR"]) / "python" / "site"
sys.path.append(str(PYTHON_HOST))

_numbers = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--accept", action="store_true", help="write the expected output of tests/sql again")
    parser.addoption("--on-a-server", action="store_true", help="only the tests that use Postgres, for another version of it")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("on_a_server"):
        others = [item for item in items if not uses_a_server(item)]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if uses_a_server(item)]


def uses_a_server(test: pytest.Item) -> bool:
    """Whether a test asks for a server, or its module makes servers itself."""
    if not isinstance(test, pytest.Function):
        return False
    return not {"server", "own_server", "servers"}.isdisjoint(test.fixturenames) or not {"new_server", "Server", "throwaway"}.isdisjoint(
        vars(test.module)
    )


def new_server(name: str, settings: dict[str, str] | None = None) -> Server:
    """A cluster of this test run's own; the caller starts and removes it."""
    return Server.create(f"test-{os.getpid()}-{name}", settings)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The server that most tests share, with a generated master key in its environment."""
    server = new_server("main")
    server.start({VARIABLE: MASTER_KEY})
    yield server
    server.remove()


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server for one test, with a password: it may be stopped, crashed and started with another environment."""
    server = new_server(f"own-{next(_numbers)}")
    server.start({VARIABLE: PASSWORD})
    yield server
    server.remove()


class Database:
    """A database, and connections to it as any role. Connections are closed with the database."""

    def __init__(self, server: Server, name: str) -> None:
        self.server = server
        self.name = name
        self._connections: list[psycopg.Connection] = []

    def connect(self, user: str = SUPERUSER, *, autocommit: bool = True, **options: str) -> psycopg.Connection:
        """A new session. `options` are settings it starts with."""
        switches = " ".join(f"-c {name}={value}" for name, value in options.items())
        connection = psycopg.connect(
            self.server.conninfo(self.name), user=user, autocommit=autocommit, options=switches or None
        )
        self._connections.append(connection)
        return connection

    def run(self, statement: str, *parameters: object, user: str = SUPERUSER) -> list[tuple]:
        """Runs one statement in a session of its own and gives its rows."""
        with psycopg.connect(self.server.conninfo(self.name), user=user, autocommit=True) as connection:
            return rows(connection.execute(statement, parameters or None))

    def grant(self, user: str, privileges: str = "SELECT, INSERT, UPDATE, DELETE", schema: str = "omni_credentials") -> None:
        """What an administrator does for an application's role."""
        self.run("select omni_credentials.grant_access(%s::regrole, %s, %s::regnamespace)", user, privileges, schema)

    def allow(self, user: str, variable: str = VARIABLE) -> None:
        """What a superuser does for a role that is to own instances."""
        self.run("select omni_credentials.allow_variable(%s::regrole, %s)", user, variable)

    def close(self) -> None:
        for connection in self._connections:
            connection.close()
        self._connections.clear()


def rows(cursor: psycopg.Cursor) -> list[tuple]:
    """The rows of a result; none for a statement that has no result."""
    return cursor.fetchall() if cursor.description else []


def fresh_database(server: Server, *, extension: bool = True) -> Database:
    name = f"t{next(_numbers)}"
    with psycopg.connect(server.conninfo(), autocommit=True) as admin:
        admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    database = Database(server, name)
    if extension:
        database.run("create extension omni_credentials")
    return database


def drop_database(database: Database) -> None:
    database.close()
    if database.server.running():
        with psycopg.connect(database.server.conninfo(), autocommit=True) as admin:
            admin.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(database.name)))


@pytest.fixture
def db(server: Server) -> Iterator[Database]:
    """A fresh database with the extension in it."""
    database = fresh_database(server)
    yield database
    drop_database(database)


@pytest.fixture
def empty_db(server: Server) -> Iterator[Database]:
    """A fresh database without the extension."""
    database = fresh_database(server, extension=False)
    yield database
    drop_database(database)


@pytest.fixture
def own_db(own_server: Server) -> Iterator[Database]:
    """A fresh database with the extension, on a server of its own."""
    yield (database := fresh_database(own_server))
    database.close()


@pytest.fixture
def role(server: Server, request: pytest.FixtureRequest) -> Iterator[Callable[..., str]]:
    """Makes roles that can log in: `role("app", "in role readers")`. They are dropped after the test.

    Ask for it before `db`, so that the database goes first and takes along what the roles own in it.
    """
    made: list[str] = []

    def make(prefix: str = "role", clauses: str = "") -> str:
        name = f"{prefix}_{next(_numbers)}"
        with psycopg.connect(server.conninfo(), autocommit=True) as admin:
            admin.execute(sql.SQL("create role {} login " + clauses).format(sql.Identifier(name)))
        made.append(name)
        return name

    yield make
    with psycopg.connect(server.conninfo(), autocommit=True) as admin:
        for name in reversed(made):
            admin.execute(sql.SQL("drop owned by {0}").format(sql.Identifier(name)))
            admin.execute(sql.SQL("drop role {0}").format(sql.Identifier(name)))


@pytest.fixture
def app(role, db: Database) -> str:
    """A role with all rights that grant_access gives."""
    name = role("app")
    db.grant(name)
    return name


def refused(sqlstate: str, message: str = "", hint: str | None = None):
    """Expects an error of the server: patterns for its SQLSTATE, and for what its message and hint hold."""
    return _Refused(sqlstate, message, hint)


class _Refused:
    def __init__(self, sqlstate: str, message: str, hint: str | None) -> None:
        self.sqlstate, self.message, self.hint = sqlstate, message, hint
        self.error: psycopg.Error | None = None

    def __enter__(self) -> _Refused:
        return self

    def __exit__(self, kind, error, trace) -> bool:
        if error is None:
            pytest.fail(f"expected SQLSTATE {self.sqlstate}, but the statement succeeded")
        if not isinstance(error, psycopg.Error):
            return False
        found = error.diag
        described = f"{error.sqlstate}: {found.message_primary} (hint: {found.message_hint})"
        assert re.fullmatch(self.sqlstate, error.sqlstate or ""), described
        assert re.search(self.message, found.message_primary or ""), described
        if self.hint is not None:
            assert found.message_hint and re.search(self.hint, found.message_hint), described
        self.error = error
        return True
