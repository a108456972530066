"""Changes through the view behave as on a table: RETURNING, several rows, COPY, defaults, NULL, identity changes."""

from __future__ import annotations

import pytest
from conftest import Database, refused
from psycopg import errors

VIEW = "omni_credentials.credentials"
TABLE = "omni_credentials.encrypted_credentials"
ALL = f"select name, value, kind::text, principal::text, scope from {VIEW} order by name, kind, scope::text"
EVERYWHERE = {"all": True}


@pytest.fixture
def app(role) -> str:
    return role("app")


@pytest.fixture
def granted(app: str, db: Database) -> Database:
    db.grant(app)
    return db


@pytest.fixture
def session(granted: Database, app: str):
    """A session of a role without any privilege but those of grant_access."""
    return granted.connect(app)


def test_defaults(session, app: str) -> None:
    returned = session.execute(
        f"insert into {VIEW} (name, value) values ('a', 'v') returning name, value, kind::text, principal::text, scope"
    ).fetchall()
    assert returned == [("a", b"v", "credential", app, EVERYWHERE)]
    session.execute(f"insert into {VIEW} values ('b', 'v', default, default, default)")
    session.execute(f"insert into {VIEW} (name, value, scope) values ('c', 'v', '{{\"host\": \"x\"}}')")
    session.execute(f"insert into {TABLE} (name, value) select 'd', omni_credentials.seal_credential('{TABLE}'::regclass,"
                    " 'd', 'credential'::omni_credentials.credential_kind, current_user::regrole, '{\"all\": true}', 'v')")
    assert session.execute(ALL).fetchall() == [
        ("a", b"v", "credential", app, EVERYWHERE),
        ("b", b"v", "credential", app, EVERYWHERE),
        ("c", b"v", "credential", app, {"host": "x"}),
        ("d", b"v", "credential", app, EVERYWHERE),
    ]


def test_several_rows_and_returning(session) -> None:
    names = session.execute(
        f"insert into {VIEW} (name, value) values ('a', '1'), ('b', '2'), ('c', '3') returning name, value"
    ).fetchall()
    assert names == [("a", b"1"), ("b", b"2"), ("c", b"3")]
    changed = session.execute(f"update {VIEW} set value = value || '!' where name <> 'b' returning name, value")
    assert changed.rowcount == 2
    assert sorted(changed.fetchall()) == [("a", b"1!"), ("c", b"3!")]
    deleted = session.execute(f"delete from {VIEW} where name = 'a' returning name, value").fetchall()
    assert deleted == [("a", b"1!")]
    assert session.execute(f"select name, value from {VIEW} order by 1").fetchall() == [("b", b"2"), ("c", b"3!")]


def test_one_bad_row_undoes_the_statement(session) -> None:
    with refused("23505", "encrypted_credentials_uniq", hint="select omni_credentials.set_credential") as twice:
        session.execute(f"insert into {VIEW} (name, value) values ('a', '1'), ('a', '2')")
    assert twice.error.diag.constraint_name == "encrypted_credentials_uniq"
    assert session.execute(ALL).fetchall() == []


def test_insert_select(session) -> None:
    session.execute(f"insert into {VIEW} (name, value) select 'n' || i, i::text::bytea from generate_series(1, 50) i")
    session.execute(f"insert into {VIEW} (name, value, kind) select name, value, 'token' from {VIEW}")
    rows = session.execute(f"select name, value, kind::text from {VIEW} where name = 'n7' order by kind").fetchall()
    assert rows == [("n7", b"7", "credential"), ("n7", b"7", "token")]
    assert session.execute(f"select count(*) from {VIEW}").fetchone() == (100,)


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
def test_copy_into_the_view(session, app: str, binary: bool) -> None:
    with session.cursor() as cursor:
        with cursor.copy(f"copy {VIEW} (name, value) from stdin (format {'binary' if binary else 'text'})") as copy:
            if binary:
                copy.set_types(["text", "bytea"])
            copy.write_row(("a", b"\x00\xff"))
            copy.write_row(("b", b""))
    assert session.execute(ALL).fetchall() == [
        ("a", b"\x00\xff", "credential", app, EVERYWHERE),
        ("b", b"", "credential", app, EVERYWHERE),
    ]
    with session.cursor() as cursor, cursor.copy(f"copy (select name, value from {VIEW}) to stdout") as copy:
        copy.set_types(["text", "bytea"])
        assert sorted(copy.rows()) == [("a", b"\x00\xff"), ("b", b"")]


@pytest.mark.parametrize("column", ["name", "value"])
def test_null_is_refused(session, column: str) -> None:
    fields = {"name": "'n'", "value": "'v'"} | {column: "null"}
    with refused("23502", f'"{column}"', hint="DEFAULT"):
        session.execute(f"insert into {VIEW} ({', '.join(fields)}) values ({', '.join(fields.values())})")
    with refused("23502", f'"{column}"'):
        session.execute(f"select omni_credentials.set_credential({', '.join(f'{k} => {v}' for k, v in fields.items())})")
    assert session.execute(ALL).fetchall() == []


@pytest.mark.parametrize("column", ["name", "value", "kind", "principal", "scope"])
def test_null_is_refused_in_an_update(session, column: str) -> None:
    session.execute(f"insert into {VIEW} (name, value) values ('a', 'v')")
    with refused("23502", f'"{column}"', hint="DEFAULT"):
        session.execute(f"update {VIEW} set {column} = null")
    assert session.execute(f"select name, value from {VIEW}").fetchall() == [("a", b"v")]


def test_null_in_an_insert_is_the_default(session, granted: Database, app: str) -> None:
    """As Sequelize, TypeORM and foreign tables write columns that a program left out."""
    expected = ("a", b"v", "credential", app, EVERYWHERE)
    returned = session.execute(
        f"insert into {VIEW} (name, value, kind, principal, scope) values ('a', 'v', null, null, null)"
        " returning name, value, kind::text, principal::text, scope"
    ).fetchall()
    assert returned == [expected] == session.execute(ALL).fetchall()
    with session.cursor() as cursor, cursor.copy(f"copy {VIEW} (name, value, kind, principal, scope) from stdin") as copy:
        copy.write_row(("b", "v", None, None, None))
    session.execute("select omni_credentials.set_credential('c', 'v', null, null, null)")
    assert session.execute(ALL).fetchall() == [expected, ("b", *expected[1:]), ("c", *expected[1:])]
    # The defaults are those of the view, which its owner may have changed.
    granted.run(f"alter view {VIEW} alter column kind set default 'token', alter column scope drop default")
    session.execute(f"insert into {VIEW} (name, value, kind) values ('d', 'v', null)".replace("kind)", "kind, scope)").replace("null)", "null, '1')"))
    assert session.execute(f"select kind::text, scope from {VIEW} where name = 'd'").fetchall() == [("token", 1)]
    with refused("23502", '"scope"'):
        session.execute(f"insert into {VIEW} (name, value) values ('e', 'v')")


def test_value_or_name_left_out(session) -> None:
    with refused("23502", '"value"'):
        session.execute(f"insert into {VIEW} (name) values ('a')")
    with refused("23502", '"name"'):
        session.execute(f"insert into {VIEW} (value) values ('a')")


def test_identity_changes(role, granted: Database, app: str) -> None:
    team = role("team", f"role {app}")
    session = granted.connect(app)
    session.execute(f"insert into {VIEW} (name, value) values ('a', 'v')")
    for change in ("name = 'b'", "kind = 'password'", f"principal = '{team}'", """scope = '{"host": "x"}'"""):
        assert session.execute(f"update {VIEW} set {change} returning value").fetchall() == [(b"v",)]
        assert granted.run(f"select value from {VIEW}") == [(b"v",)]
    session.execute(f"update {VIEW} set name = 'c', value = 'w', kind = default, principal = default, scope = default")
    assert session.execute(ALL).fetchall() == [("c", b"w", "credential", app, EVERYWHERE)]
    session.execute(f"insert into {VIEW} (name, value) values ('d', 'x')")
    with refused("23505", "encrypted_credentials_uniq", hint="select omni_credentials.set_credential"):
        session.execute(f"update {VIEW} set name = 'd' where name = 'c'")
    assert granted.run("select * from omni_credentials.verify()") == []


def test_scope_in_another_spelling_is_the_same_credential(session) -> None:
    session.execute(f"""insert into {VIEW} (name, value, scope) values ('a', 'v', '{{"b": 1.0, "a": [1e2]}}')""")
    session.execute(f"""update {VIEW} set scope = '{{"a": [100], "b": 1.00}}'""")
    assert session.execute(f"""select value from {VIEW} where scope = '{{"b": 1, "a": [100.0]}}'""").fetchall() == [(b"v",)]
    session.execute("""select omni_credentials.set_credential('a', 'w', scope => '{"a": [100], "b": 1}')""")
    assert session.execute(f"select value from {VIEW}").fetchall() == [(b"w",)]


def test_set_credential(session, granted: Database) -> None:
    for value in (b"one", b"two"):
        session.execute("select omni_credentials.set_credential('a', %b)", (value,))
        assert session.execute(f"select value from {VIEW}").fetchall() == [(value,)]
    session.execute("select omni_credentials.set_credential(name => 'a', value => 'other', kind => 'token')")
    session.execute("""select omni_credentials.set_credential('a', 'scoped', scope => '{"host": "x"}')""")
    assert session.execute(f"select value from {VIEW} order by kind, value").fetchall() == [(b"scoped",), (b"two",), (b"other",)]
    granted.run("create schema other")
    granted.run("select omni_credentials.instantiate('other')")
    granted.run("select other.set_credential('a', 'there')")
    assert granted.run("select value from other.credentials") == [(b"there",)]
    assert session.execute(f"select count(*) from {VIEW} where value = 'there'").fetchone() == (0,)


def test_rows_counted(session) -> None:
    insert = session.execute(f"insert into {VIEW} (name, value) values ('a', '1'), ('b', '2')")
    assert insert.rowcount == 2
    assert session.execute(f"update {VIEW} set value = value").rowcount == 2
    assert session.execute(f"update {VIEW} set value = 'x' where name = 'none'").rowcount == 0
    assert session.execute(f"delete from {VIEW}").rowcount == 2


def test_merge(session, granted: Database) -> None:
    session.execute(f"insert into {VIEW} (name, value) values ('a', '1'), ('b', '2')")
    merge = f"""merge into {VIEW} c using (values ('a', 'one'::bytea), ('c', 'three')) s (name, value) on c.name = s.name
                when matched then update set value = s.value
                when not matched then insert (name, value) values (s.name, s.value)"""
    if granted.server.installation.major < 17:
        with refused("42809|0A000"):
            session.execute(merge)
        return
    session.execute(merge)
    assert session.execute(f"select name, value from {VIEW} order by 1").fetchall() == [("a", b"one"), ("b", b"2"), ("c", b"three")]
    session.execute(f"merge into {VIEW} c using (values ('a')) s (name) on c.name = s.name when matched then delete")
    assert session.execute(f"select name from {VIEW} order by 1").fetchall() == [("b",), ("c",)]


def test_on_conflict_is_what_postgres_says(session) -> None:
    """A view with such triggers has no ON CONFLICT; set_credential is the way."""
    with pytest.raises(errors.Error):
        session.execute(f"insert into {VIEW} (name, value) values ('a', 'v') on conflict (name, kind, principal, scope) do nothing")


def test_truncate_and_delete_of_the_table(session, granted: Database) -> None:
    session.execute(f"insert into {VIEW} (name, value) values ('a', '1'), ('b', '2')")
    session.execute(f"delete from {TABLE} where name = 'a'")
    assert session.execute(f"select name from {VIEW}").fetchall() == [("b",)]
    granted.run(f"truncate {TABLE}")
    assert session.execute(ALL).fetchall() == []
    session.execute(f"insert into {VIEW} (name, value) values ('a', '3')")
    assert session.execute(f"select value from {VIEW}").fetchall() == [(b"3",)]


def test_savepoints(session) -> None:
    """The first keyring of a copy is undone with the row that needed it, and made again."""
    with session.transaction():
        with pytest.raises(ZeroDivisionError), session.transaction():
            session.execute(f"insert into {VIEW} (name, value) values ('a', '1')")
            raise ZeroDivisionError
        session.execute(f"insert into {VIEW} (name, value) values ('b', '2')")
    assert session.execute(f"select name, value from {VIEW}").fetchall() == [("b", b"2")]


def test_a_copy_dropped_and_made_again_in_one_session(db: Database) -> None:
    session = db.connect()
    for value in (b"first", b"second"):
        session.execute("create schema again")
        session.execute("select omni_credentials.instantiate('again')")
        session.execute("insert into again.credentials (name, value) values ('n', 'x')")
        session.execute("update again.credentials set value = %b", (value,))
        assert session.execute("select value from again.credentials").fetchall() == [(value,)]
        session.execute("drop schema again cascade")


def test_updating_a_row_twice_in_one_statement(session) -> None:
    session.execute(f"insert into {VIEW} (name, value) values ('a', '1')")
    with refused("40001", "twice by this statement"):
        session.execute(f"update {VIEW} c set value = c.value || s.x from (values ('2'::bytea), ('3')) s (x)")
    assert session.execute(f"select value from {VIEW}").fetchall() == [(b"1",)]


def test_a_unique_index_of_the_owners_own_gets_no_hint(session, granted: Database) -> None:
    """The hint is for the credential that exists, not for what a trigger does elsewhere."""
    granted.run("create table seen (name text primary key)")
    granted.run("insert into seen values ('a')")
    granted.run("grant insert on seen to public")
    granted.run("create function note() returns trigger language plpgsql as $$ begin insert into public.seen values (new.name); return null; end $$")
    granted.run(f"create trigger note after insert on {TABLE} for each row execute function note()")
    with refused("23505", "seen_pkey") as other:
        session.execute(f"insert into {VIEW} (name, value) values ('a', '1')")
    assert other.error.diag.message_hint is None
    session.execute(f"insert into {VIEW} (name, value) values ('b', '1')")
    # An error of something else afterwards has nothing of it either.
    with refused("23505", "seen_pkey") as other:
        granted.run("insert into seen values ('b')")
    assert other.error.diag.message_hint is None


def test_rights_on_the_view_alone(role, db: Database) -> None:
    """What a plain GRANT gives: the error says how rights are given."""
    app = role("plain")
    db.run(f"grant usage on schema omni_credentials to {app}")
    db.run(f"grant all on {VIEW} to {app}")
    with refused("42501", "encrypted_credentials", hint=f"grant_access\\('{app}', 'INSERT', 'omni_credentials'\\)"):
        db.run(f"insert into {VIEW} (name, value) values ('n', 'v')", user=app)
    db.run(f"grant select on {TABLE} to {app}")
    db.run(f"insert into {VIEW} (name, value, principal) values ('n', 'v', '{app}')")
    db.run(f"grant execute on function omni_credentials.open_credential to {app}")
    for statement, privilege in ((f"update {VIEW} set value = 'w'", "UPDATE"), (f"delete from {VIEW}", "DELETE")):
        with refused("42501", "encrypted_credentials", hint=f"grant_access\\('{app}', '{privilege}'"):
            db.run(statement, user=app)
    assert db.run(f"select value from {VIEW}") == [(b"v",)]


@pytest.mark.parametrize("plain", [b"hunter2", b"\\x01", b"", b"\x01\x01plain", b"\x02"])
def test_plain_bytes_written_to_the_table(session, plain: bytes) -> None:
    """Their first byte says nothing about versions of the format."""
    for statement in (f"insert into {TABLE} (name, value) values ('n', %b)",):
        with refused("23514", "refused: it is not a sealed value|refused: it was sealed", hint="Write through the credentials view") as error:
            session.execute(statement, (plain,))
        assert "version 104" not in error.error.diag.message_primary
        assert "Update omni_credentials" not in error.error.diag.message_hint
