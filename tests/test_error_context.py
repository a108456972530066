"""A value does not get into errors, their context, or the server's log by way of the extension."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import psycopg
import pytest
from conftest import MASTER_KEY, VARIABLE, Database, Server, fresh_database, new_server, refused

VIEW = "omni_credentials.credentials"
CANARY = "sk_live_canary"
HEX = CANARY.encode().hex()
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def logging() -> Iterator[Server]:
    """A server that logs all it can, but for the statements and parameters of clients, which are theirs to keep out."""
    server = new_server(
        "context",
        {
            "log_min_messages": "debug1", "log_error_verbosity": "verbose", "log_min_error_statement": "panic",
            "log_parameter_max_length_on_error": "-1", "log_parameter_max_length": "0",
            "session_preload_libraries": "auto_explain", "auto_explain.log_min_duration": "0",
            "auto_explain.log_nested_statements": "on", "auto_explain.log_analyze": "on", "auto_explain.log_verbose": "on",
        },
    )
    server.start({VARIABLE: MASTER_KEY})
    yield server
    server.remove()


@pytest.fixture
def db(logging: Server) -> Iterator[Database]:
    database = fresh_database(logging)
    database.run(f"insert into {VIEW} (name, value) values ('taken', 'x')")
    yield database
    database.close()


@pytest.fixture
def said(logging: Server):
    """What the server logs from here on."""
    start = logging.log.stat().st_size

    def read() -> str:
        return logging.log.read_bytes()[start:].decode("utf-8", "replace")

    return read


LINES = {
    "a duplicate": ("taken\t{value}\t{kind}\t{role}\t{scope}\n", "23505"),
    "a name that is too long": ("n" * 600 + "\t{value}\t{kind}\t{role}\t{scope}\n", "54000"),
    "no name": ("\t{value}\t{kind}\t{role}\t{scope}\n", "54000"),
    "a null": ("\\N\t{value}\t{kind}\t{role}\t{scope}\n", "23502"),
    "an unknown role": ("n\t{value}\t{kind}\t4294967000\t{scope}\n", "42704"),
    "a scope too deep": ("n\t{value}\t{kind}\t{role}\t" + "[" * 40 + "]" * 40 + "\n", "54000"),
    "a policy": ("n\t{value}\t{kind}\tpostgres\t{scope}\n", "42501"),
}


@pytest.mark.parametrize("line,sqlstate", LINES.values(), ids=LINES)
@pytest.mark.parametrize("value", [CANARY, f"\\\\x{HEX}"], ids=["text", "hex"])
def test_copy_into_the_view(logging: Server, db: Database, said, line: str, sqlstate: str, value: str) -> None:
    """COPY adds the line that it is at to every error that comes up in it."""
    app = f"app_{next(_numbers)}"
    db.run(f"create role {app} login")
    db.grant(app)
    user = app if sqlstate == "42501" else "postgres"
    data = line.format(value=value, kind="credential", role=user, scope='{"all": true}')
    with db.connect(user) as session:
        with refused(sqlstate) as met, session.cursor().copy(f"copy {VIEW} (name, value, kind, principal, scope) from stdin") as copy:
            copy.write("ok\tharmless\tcredential\t" + user + "\t{}\n" + data)
        clean(met.error)
        # What the session had before is back: the context of its own errors is told.
        with refused("22012") as met:
            session.execute("do $$begin perform 1/0; end$$")
        assert "PL/pgSQL function inline_code_block" in met.error.diag.context
        # And that of COPY, where it is not ours.
        session.execute("create temporary table t (a int)")
        with refused("22P02") as met, session.cursor().copy("copy t from stdin") as copy:
            copy.write("x\n")
        assert "COPY t, line 1" in met.error.diag.context
        assert session.execute(f"select count(*) from {VIEW}").fetchone() == (0 if user == app else 1,)
    clean(said())
    db.run(f"drop owned by {app}")
    db.run(f"drop role {app}")


def test_rows_before_and_after_one(db: Database, said) -> None:
    """A row that is stored leaves nothing changed for COPY's own errors."""
    with db.connect() as session:
        with refused("22P02") as met, session.cursor().copy(f"copy {VIEW} (name, value, kind) from stdin") as copy:
            copy.write(f"a\t{CANARY}\ttoken\nb\tx\tno such kind\n")
        assert "line 2, column kind" in met.error.diag.context
        clean(met.error)
    clean(said())


STATEMENTS = {
    "insert": (f"insert into {VIEW} (name, value) values ('taken', %b)", "23505"),
    "update": (f"update {VIEW} set name = '', value = %b", "54000"),
    "set_credential": ("select omni_credentials.set_credential('', %b)", "54000"),
    "seal_credential": (
        "select omni_credentials.seal_credential('omni_credentials.encrypted_credentials'::regclass, '',"
        " 'credential'::omni_credentials.credential_kind, 'postgres', '{}', %b)",
        "54000",
    ),
}


@pytest.mark.parametrize("statement,sqlstate", STATEMENTS.values(), ids=STATEMENTS)
def test_bound_parameters(db: Database, said, statement: str, sqlstate: str) -> None:
    """log_parameter_max_length_on_error adds the parameters of a statement to its errors: not to those of ours."""
    with db.connect() as session:
        with refused(sqlstate) as met:
            session.execute(statement, (CANARY.encode(),))
        clean(met.error)
    log = said().splitlines()
    shown = [line for line in log if CANARY in line or HEX in line.lower()]
    # auto_explain shows the client's own parameters, as docs/production.md says; errors do not.
    assert all("Query Parameters" in line for line in shown), shown


def test_literals_in_dynamic_sql(db: Database, said) -> None:
    with refused("23505") as met:
        db.run(
            "do $do$begin execute format('insert into omni_credentials.credentials (name, value) values (%L, %L)',"
            f" 'taken', '{CANARY[:7]}' || '{CANARY[7:]}'); end$do$"
        )
    clean(met.error)
    log = [line for line in said().splitlines() if CANARY in line]
    assert log == [], log


def test_what_our_own_statements_show(db: Database, said) -> None:
    """auto_explain with nested statements: sealed values only, in reading, writing and maintenance."""
    with db.connect() as session:
        if db.server.installation.major >= 16:
            session.execute("set auto_explain.log_parameter_max_length = -1")
        # The statement of the client has no value in it: it is read from a table.
        session.execute("create temporary table source as select 'n' as name, convert_to(%s || 'canary', 'utf8') as value", ("sk_live_",))
        before = said()
        session.execute(f"insert into {VIEW} (name, value) select * from source")
        session.execute(f"update {VIEW} set name = 'm' where name = 'n'")
        session.execute(f"select length(value) from {VIEW}")
        session.execute("select omni_credentials.rotate_key()")
        session.execute("select omni_credentials.use_module()")
        session.execute(f"delete from {VIEW}")
        log = said()[len(before):]
    assert "insert into omni_credentials.encrypted_credentials" in log
    clean(log)


def clean(text: psycopg.Error | str) -> None:
    if isinstance(text, psycopg.Error):
        found = text.diag
        text = "\n".join(
            part or "" for part in (
                found.message_primary, found.message_detail, found.message_hint, found.context, found.internal_query,
            )
        )
    assert CANARY not in text and HEX not in text.lower(), text
