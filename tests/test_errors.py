"""docs/errors.md says of every error what the code says, and what a hint names exists.

`pytest tests/test_errors.py --accept` writes the tables anew.
"""

from __future__ import annotations

import re
from pathlib import Path

import psycopg
import pytest
from conftest import Database, refused

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "host-pg" / "src" / "error"
SOURCE = "".join(file.read_text() for file in sorted(FOLDER.glob("*.rs")))
PAGE = ROOT / "docs" / "errors.md"
BEGIN, END = "<!-- begin {} -->\n", "<!-- end {} -->\n"
STRING = r'"((?:[^"\\]|\\.)*)"'
# Cancelling is reported by Postgres in its own words.
NO_HINT = {"Interrupted"}


def unescape(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def variants(enum: str) -> dict[str, str]:
    """Each variant of an enum in error/, with its message."""
    body = SOURCE.split(f"pub(crate) enum {enum} {{", 1)[1].split("\n}\n", 1)[0]
    found = re.findall(rf"#\[error\(\s*{STRING}\s*\)\]\s*(\w+)", body)
    assert len(found) == len(re.findall(r"#\[error\(", body)) > 0
    return {name: unescape(message) for message, name in found}


def arms(function: str, value: str) -> dict[str, str]:
    """Each arm of a match in error/: the variants on its left, and what is on its right."""
    body = SOURCE.split(function, 1)[1]
    body = body.split("\n    }\n", 1)[0]
    found: dict[str, str] = {}
    for names, right in re.findall(rf"\n            ((?:Self::\w+[^=\n]*?)+) => ({value})", body, re.S):
        for name in re.findall(r"Self::(\w+)", names):
            assert name not in found
            found[name] = right
    return found


def sqlstate(constant: str) -> str:
    condition = constant.removeprefix("ERRCODE_").removeprefix("T_R_").lower()
    if constant == "ERRCODE_T_R_INTEGRITY_CONSTRAINT_VIOLATION":
        condition = "transaction_integrity_constraint_violation"
    name = "".join(part.capitalize() for part in condition.split("_"))
    error = getattr(psycopg.errors, "InternalError_" if name == "InternalError" else name)
    return f"`{error.sqlstate}` {condition}"


def cell(text: str) -> str:
    """Text for a table: what is filled in at run time in italics, or dots where it has no name."""
    text = re.sub(r"\{(\w+)(?::\?)?\}", lambda match: "…" if match[1].isdigit() else f"*{match[1]}*", text)
    return text.replace("{}", "…").replace("{:?}", "…").replace("|", "\\|")


def errors() -> list[tuple[str, str, str]]:
    """SQLSTATE, message and hint of each variant of Error."""
    classified = arms("fn classify", r"\([^\n]*\),|\(.*?\n            \),")
    messages = variants("Error")
    assert set(classified) == set(messages), set(classified) ^ set(messages)
    rows = []
    for name, message in messages.items():
        right = classified[name]
        constant = re.search(r"C::(ERRCODE_\w+)", right)
        hint = re.search(STRING, right)
        if name == "Unreadable":
            rows.append(("by reason, below", cell(message), "by reason, below"))
            continue
        assert constant, right
        assert hint or name in NO_HINT, f"{name} has no hint"
        if message in ("{0}",):
            message = "(says what is wrong with an argument)" if name == "InvalidArgument" else "(says what happened)"
        rows.append((sqlstate(constant[1]), cell(message), cell(unescape(hint[1])) if hint else ""))
    return rows


def reasons() -> list[tuple[str, str, str]]:
    """SQLSTATE, message and hint of each variant of Unreadable."""
    states = arms("fn sqlstate(self)", r"(?:\{\s*)?PgSqlErrorCode::\w+")
    remedies = arms("fn remedy(self)", r"(?:\{\s*)?\"(?:[^\"\\]|\\.)*\"")
    rows = []
    for name, message in variants("Unreadable").items():
        constant = re.search(r"ERRCODE_\w+", states[name])
        mend = re.search(STRING, remedies[name])
        assert constant and mend
        rows.append((sqlstate(constant[0]), cell(message.replace("{0}", "*n*")), cell(unescape(mend[1]))))
    return rows


def table(rows: list[tuple[str, str, str]]) -> str:
    lines = ["| SQLSTATE | Message | Hint |", "|---|---|---|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in sorted(rows, key=lambda row: row[0])]) + "\n"


@pytest.mark.parametrize("part,rows", [("errors", errors), ("reasons", reasons)], ids=["errors", "reasons"])
def test_the_page_is_what_the_code_says(request: pytest.FixtureRequest, part: str, rows) -> None:
    page = PAGE.read_text()
    before, rest = page.split(BEGIN.format(part), 1)
    held, after = rest.split(END.format(part), 1)
    if request.config.getoption("--accept"):
        held = table(rows())
        PAGE.write_text(before + BEGIN.format(part) + held + END.format(part) + after)
    assert held == table(rows())


def test_hints_name_what_exists(db: Database) -> None:
    """Functions, tables and settings in hints and messages are real ones."""
    text = " ".join(hint for rows in (errors(), reasons()) for row in rows for hint in row)
    functions = set(re.findall(r"(?:omni_credentials\.)?(\w+)\(", text)) - {"omni"}
    assert {"rotate_master_secret", "rename_principal", "instantiate", "credential_file_store_reload"} <= functions
    known = {name for (name,) in db.run("select proname from pg_proc where pronamespace = 'omni_credentials'::regnamespace")}
    assert functions <= known, functions - known
    with db.connect() as session:
        session.execute("load 'omni_credentials'")
        settings = {name for (name,) in session.execute("select name from pg_settings where name like 'omni_credentials.%'")}
    relations = {name for (name,) in db.run("select relname from pg_class where relnamespace = 'omni_credentials'::regnamespace")}
    for name in re.findall(r"omni_credentials\.(\w+)", text):
        assert name in known | relations or f"omni_credentials.{name}" in settings, name
    for name in re.findall(r"\b(?:credential|crypto|encrypted)\w*_\w+", text):
        assert name in known | relations, name


CANARY = b"canary-in-a-context"
REFUSED = {
    "a type is in the way": ("""select omni_credentials.instantiate('"Taken"')""", "42710"),
    "the schema is closed": ("select omni_credentials.instantiate('closed')", "42501"),
    "in a block": ("do $$ begin perform omni_credentials.instantiate('closed'); end $$", "42501"),
    "a policy": ("insert into {view} (name, value, principal) values ('n', {value}, 'postgres')", "42501"),
    "twice": ("insert into {view} (name, value) values ('a', {value})", "23505"),
    "from a function": ("select omni_credentials.set_credential('', {value})", "54000"),
    "an unknown privilege": ("select omni_credentials.grant_access('postgres', 'ALL')", "22023"),
}


@pytest.mark.parametrize("statement,sqlstate", REFUSED.values(), ids=REFUSED)
def test_contexts_are_short(role, db: Database, statement: str, sqlstate: str) -> None:
    """What the extension runs on its own is no page of SQL in the log, and holds no value."""
    app = role("app")
    db.grant(app)
    for schema in ('"Taken"', "closed"):
        db.run(f"create schema {schema}")
    db.run(f'alter schema "Taken" owner to {app}')
    db.run('create type "Taken".credential_kind as enum ()')
    for function in ("instantiate", "grant_access", "privilege_list"):
        db.run(f"grant execute on function omni_credentials.{function} to {app}")
    db.allow(app)
    view = "omni_credentials.credentials"
    db.run(f"insert into {view} (name, value) values ('a', 'x')", user=app)
    with refused(sqlstate) as met:
        db.run(statement.format(view=view, value=f"'{CANARY.decode()}'"), user=app)
    said = [met.error.diag.context or "", met.error.diag.internal_query or ""]
    assert all(len(part) <= 400 for part in said), said
    assert all(CANARY.decode() not in part and CANARY.hex() not in part for part in said), said
    if "begin perform" in statement:
        # Where it was called is told.
        assert "PL/pgSQL" in said[0]


def test_hints_run_in_any_schema(db: Database) -> None:
    """A copy in a schema whose name needs quotes: the command in the hint runs as it stands."""
    schema, file = '"Our copy"', f"{db.name}.credentials"
    db.run(f"create schema {schema}")
    db.run("select omni_credentials.instantiate(%s::regnamespace)", schema)
    db.run(f"insert into {schema}.credentials (name, value) values ('a', 'x')")
    for attempt, sqlstate in (
        (f"select {schema}.credential_file_store_sync('{file}')", "42704"),
        # Registered now, by the hint of the first.
        (f"select * from omni_credentials.instantiate_file_store('{file}', '{schema}')", "42710"),
    ):
        with refused(sqlstate, hint="select") as met:
            db.run(attempt)
        db.run(re.search(r"select .*(?=\.$)", met.error.diag.message_hint)[0])
    assert db.run(f"select in_step from {schema}.credential_file_stores") == [(True,)]
