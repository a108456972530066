"""Runs tests/sql/NAME.sql through psql and compares with tests/sql/expected/NAME.out.

Each file gets a fresh database without the extension. What differs between server versions goes into
NAME.pgNN.out, which is then used for that version alone. `./just test-sql --accept` writes the files anew.
"""

from __future__ import annotations

import difflib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from conftest import Database, drop_database, fresh_database
from psycopg import sql
from throwaway import Server

HERE = Path(__file__).parent / "sql"
CASES = sorted(path.stem for path in HERE.glob("*.sql"))


def expected_file(case: str, major: int) -> Path:
    own = HERE / "expected" / f"{case}.pg{major}.out"
    return own if own.exists() else HERE / "expected" / f"{case}.out"


@pytest.fixture
def empty(server: Server) -> Iterator[Database]:
    """A database for one case. Roles that the case makes go with it."""
    before = role_names(server)
    database = fresh_database(server, extension=False)
    yield database
    drop_database(database)
    with psycopg.connect(server.conninfo(), autocommit=True) as admin:
        for name in sorted(role_names(server) - before):
            admin.execute(sql.SQL("drop owned by {0}; drop role {0}").format(sql.Identifier(name)))


def role_names(server: Server) -> set[str]:
    with psycopg.connect(server.conninfo()) as admin:
        return {name for (name,) in admin.execute("select rolname from pg_roles")}


@pytest.mark.parametrize("case", CASES)
def test_sql(case: str, empty: Database, request: pytest.FixtureRequest) -> None:
    server = empty.server
    command = server.program("psql", "-X", "-a", "-q", "-f", f"{case}.sql", database=empty.name)
    done = subprocess.run(
        command,
        cwd=HERE,
        env=server.client_environment() | {"LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    actual = done.stdout.decode()
    file = expected_file(case, server.installation.major)
    if request.config.getoption("--accept"):
        file.write_text(actual)
    expected = file.read_text() if file.exists() else ""
    if actual != expected:
        difference = difflib.unified_diff(
            expected.splitlines(), actual.splitlines(), str(file.name), "actual", lineterm=""
        )
        pytest.fail("\n".join(difference), pytrace=False)
    assert done.returncode == 0, f"psql ended with {done.returncode}"


def test_there_are_cases_and_no_orphans() -> None:
    assert CASES
    expected = {path.name.split(".")[0] for path in (HERE / "expected").glob("*.out")}
    assert expected == set(CASES)
