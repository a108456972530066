"""Databases in other encodings: names are converted exactly or refused, and one never stands for another."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from conftest import Database, Server, fresh_database
from psycopg import sql

VIEW = "omni_credentials.credentials"
TABLE = "omni_credentials.encrypted_credentials"
ROLES = ("Zoë", "Zoé")


@pytest.fixture(params=["LATIN1", "SQL_ASCII", "UTF8"])
def other(server: Server, request: pytest.FixtureRequest) -> Iterator[Database]:
    """A database in another encoding, with roles that differ in one character beyond ASCII. A client that speaks the
    encoding of the database; for SQL_ASCII, in which any bytes may stand, that of LATIN1."""
    name = f"encoded_{request.param.lower()}"
    with psycopg.connect(server.conninfo(), autocommit=True) as admin:
        admin.execute(
            sql.SQL("create database {} template template0 encoding {} locale 'C'").format(
                sql.Identifier(name), sql.Literal(request.param)
            )
        )
    database = Database(server, name)
    database.encoding = request.param
    database.run("create extension omni_credentials")
    yield database
    with session(database) as admin:
        for role in ROLES:
            execute(admin, f'drop owned by "{role}"')
            execute(admin, f'drop role "{role}"')
    database.close()
    with psycopg.connect(server.conninfo(), autocommit=True) as admin:
        admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def session(database: Database) -> psycopg.Connection:
    connection = psycopg.connect(database.server.conninfo(database.name), user="postgres", autocommit=True)
    connection.execute("select 1")
    return connection


def execute(connection: psycopg.Connection, statement: str, codec: str = "", client: str = "") -> list[tuple]:
    """Runs a statement whose bytes are LATIN1 where the database is not UTF-8, or in another encoding of the client's, and
    gives its rows as text."""
    database = connection.info.parameter_status("server_encoding")
    codec = codec or ("utf-8" if database == "UTF8" else "latin-1")
    connection.pgconn.exec_(f"set client_encoding = '{client or database}'".encode())
    result = connection.pgconn.exec_(statement.encode(codec))
    if result.error_message:
        state = result.error_field(psycopg.pq.DiagnosticField.SQLSTATE).decode()
        raise AssertionError(f"{state}: {result.error_message.decode(codec)}")
    return [
        tuple((value := result.get_value(row, column)) and value.decode(codec) for column in range(result.nfields))
        for row in range(result.ntuples)
    ]


def test_two_roles_are_two(other: Database) -> None:
    """A value for one role does not open for the other, and each reads its own."""
    zoe, other_zoe = ROLES
    with session(other) as admin:
        for role in ROLES:
            execute(admin, f'create role "{role}" login')
            execute(admin, f"""select omni_credentials.grant_access('"{role}"', 'SELECT, INSERT, UPDATE')""")
        insert = f"""insert into {VIEW} (name, value, principal) values ('n', 'v', '"{zoe}"')"""
        if other.encoding == "SQL_ASCII":
            # Bytes that are no UTF-8 have no name in a file or on another server: refused, never replaced.
            with pytest.raises(AssertionError, match=r"54000.*principal"):
                execute(admin, insert)
            return
        execute(admin, insert)
        moved = f"""update {TABLE} set principal = '"{other_zoe}"'"""
        with pytest.raises(AssertionError, match=r"23514.*altered, or sealed for another"):
            execute(admin, moved)
        execute(admin, "set session_replication_role = replica")
        execute(admin, moved)
        execute(admin, "reset session_replication_role")
        with pytest.raises(AssertionError, match=r"XX001.*altered, or sealed for another"):
            execute(admin, f"select value from {VIEW}")
        assert execute(admin, "select name, principal from omni_credentials.verify()") == [("n", other_zoe)]
        # By the name it was sealed for, which is given in the encoding of the database.
        assert execute(admin, f"""select omni_credentials.rename_principal('{zoe}', '"{other_zoe}"')""") == [("1",)]
        assert execute(admin, f"select value from {VIEW}") == [("\\x76",)]
        execute(admin, f'set session authorization "{other_zoe}"')
        assert execute(admin, f"select name, principal from {VIEW}") == [("n", f'"{other_zoe}"')]
        execute(admin, f'set session authorization "{zoe}"')
        assert execute(admin, f"select name from {VIEW}") == []


def test_names_kinds_and_scopes(other: Database) -> None:
    """Text beyond ASCII in every field, through the view, the table and a file."""
    file = other.server.data / f"{other.name}.credentials"
    with session(other) as admin:
        for role in ROLES:
            execute(admin, f'create role "{role}" login')
        execute(admin, "alter event trigger omni_credentials_guard_default disable")
        execute(admin, "alter type omni_credentials.credential_kind add value 'clé'")
        insert = f"""insert into {VIEW} (name, value, kind, principal, scope) values ('{{}}', 'v', '{{}}', '"{{}}"', '{{}}')"""
        plain = ("n", "credential", "postgres", "{}")
        if other.encoding == "SQL_ASCII":
            for field, text in enumerate(("naïve", "clé", "Zoë", '{"où": 1}')):
                values = [*plain]
                values[field] = text
                with pytest.raises(AssertionError, match=r"54000|22021"):
                    execute(admin, insert.format(*values))
            execute(admin, insert.format(*plain))
            # As UTF-8 the same text is good.
            admin.pgconn.exec_(insert.format("naïve", "credential", "postgres", '{"où": 1}').encode())
            assert len(execute(admin, f"select value from {VIEW}")) == 2
            return
        execute(admin, insert.format("naïve", "clé", "Zoë", '{"où": "là"}'))
        assert execute(admin, f"select name, value, kind, principal from {VIEW}") == [("naïve", "\\x76", "clé", '"Zoë"')]
        execute(admin, f"update {VIEW} set name = 'ça'")
        with pytest.raises(AssertionError, match="23514"):
            execute(admin, f"update {TABLE} set name = 'ca'")
        execute(admin, f"select * from omni_credentials.instantiate_file_store('{file}')")
        text = file.read_text("utf-8")
        assert "ça" in text and "clé" in text and "Zoë" in text and "là" in text
        # And back. What this encoding has no character for stays in the file.
        execute(admin, f"select omni_credentials.detach_file_store('{file}')")
        execute(admin, f"delete from {VIEW}")
        loaded = execute(admin, f"select name, kind, principal, scope, action from omni_credentials.instantiate_file_store('{file}')")
        assert loaded == [("ça", "clé", "Zoë", '{"où": "là"}', "added")]
        assert execute(admin, f"select name, value from {VIEW}") == [("ça", "\\x76")]
        assert execute(admin, "select * from omni_credentials.verify()") == []
    file.unlink()


def test_a_character_that_the_database_lacks(server: Server, other: Database) -> None:
    """A file from a database in UTF-8: what has no place here is skipped with the reason, and stays in the file."""
    file = other.server.data / f"{other.name}.credentials"
    origin = fresh_database(server)
    with session(other) as admin:
        for role in ROLES:
            execute(admin, f'create role "{role}" login')
    origin.run(f"insert into {VIEW} (name, value) values ('€', 'v'), ('plain', 'v')")
    origin.run(f"""insert into {VIEW} (name, value, scope) values ('s', 'v', '{{"c": "€"}}')""")
    origin.run("select omni_credentials.instantiate_file_store(%s)", str(file))
    origin.run("select omni_credentials.detach_file_store(%s)", str(file))
    with session(other) as admin:
        loaded = execute(admin, f"select action, reason from omni_credentials.instantiate_file_store('{file}') order by 1, 2")
        if other.encoding == "LATIN1":
            lacks = "the {} has a character that this database's encoding lacks"
            assert loaded == [
                ("added", None), ("skipped", lacks.format("name")), ("skipped", lacks.format("scope")),
            ]
        else:
            assert [action for action, _ in loaded] == ["added"] * 3
        execute(admin, f"update {VIEW} set value = 'w'")
    assert "€" in file.read_text("utf-8")
    file.unlink()
    with psycopg.connect(server.conninfo(), autocommit=True) as admin:
        origin.close()
        admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(origin.name)))


def test_a_schema_that_sql_text_cannot_name(other: Database) -> None:
    """Refused with what is wrong, and never another schema of a similar name."""
    with session(other) as admin:
        for role in ROLES:
            execute(admin, f'create role "{role}" login')
        for schema in ("mé", "më"):
            execute(admin, f'create schema "{schema}"')
        if other.encoding == "UTF8":
            execute(admin, """select omni_credentials.instantiate('"mé"')""")
            execute(admin, """insert into "mé".credentials (name, value) values ('n', 'v')""")
            assert execute(admin, """select omni_credentials.rotate_key('"mé"')""") == [("1",)]
            return
        with pytest.raises(AssertionError, match=r"0A000.*not supported in this database's encoding"):
            execute(admin, """select omni_credentials.instantiate('"mé"')""")
        execute(admin, "create schema me")
        execute(admin, "select omni_credentials.instantiate('me')")
        execute(admin, "insert into me.credentials (name, value) values ('n', 'v')")
        execute(admin, 'alter schema me rename to "mê"')
        with pytest.raises(AssertionError, match=r"0A000.*not supported in this database's encoding"):
            execute(admin, """insert into "mê".credentials (name, value) values ('m', 'v')""")
        assert execute(admin, """select value from "mê".credentials""") == [("\\x76",)]



@pytest.mark.parametrize(
    ("encoding", "codec", "word"),
    [
        ("UTF8", "utf-8", "日本€"), ("LATIN1", "latin-1", "naïf"), ("WIN1252", "cp1252", "€uro–"), ("EUC_JP", "euc_jp", "日本語"),
        ("WIN1251", "cp1251", "ключ"), ("EUC_KR", "euc_kr", "한국어"),
    ],
)
def test_messages(server: Server, encoding: str, codec: str, word: str) -> None:
    """The extension can be made, and its messages name a credential exactly, whatever the client's encoding is."""
    name = f"messages_{encoding.lower()}"
    with psycopg.connect(server.conninfo(), autocommit=True) as admin:
        admin.execute(f"create database {name} template template0 encoding '{encoding}' locale 'C'")
    database = Database(server, name)
    database.run("create extension omni_credentials")
    shown = word if encoding == "UTF8" else "".join(letter if letter.isascii() else rf"\u{{{ord(letter):x}}}" for letter in word)
    with session(database) as admin:
        execute(admin, f"select omni_credentials.set_credential('{word}', '{word}')", codec)
        for client, read in ((encoding, codec), ("UTF8", "utf-8")):
            assert execute(admin, f"select omni_credentials.get_credential('{word}')", read, client) == [(word,)]
            assert execute(admin, f"select name, value from {VIEW}", read, client) == [(word, "\\x" + word.encode().hex())]
            for statement in (f"select omni_credentials.get_credential('{word}', kind => 'otp')", f"update {TABLE} set kind = 'otp'"):
                with pytest.raises(AssertionError, match=re.escape(f'credential "{shown}"')):
                    execute(admin, statement, read, client)
        if encoding != "UTF8":
            # Names of files, modules and variables are ASCII there.
            with pytest.raises(AssertionError, match=r"XX000.*should be valid UTF-8"):
                execute(admin, f"select omni_credentials.instantiate_file_store('{word}')", codec)
            with session(database) as other:
                execute(other, "insert into omni_credentials.credentials (name, value) values ('n', '\\xe29880')")
                with pytest.raises(AssertionError, match=r"22021.*is not text that this database's encoding can hold"):
                    execute(other, "select omni_credentials.get_credential('n')")
    database.close()
    with psycopg.connect(server.conninfo(), autocommit=True) as admin:
        admin.execute(f"drop database {name} with (force)")


def test_the_script_is_ascii() -> None:
    """Postgres reads it in the encoding of the database, and pg_dump converts what it has."""
    for file in (Path(__file__).parents[1] / "host-pg" / "sql").rglob("*.sql"):
        assert file.read_bytes().isascii(), file
