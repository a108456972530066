"""dblink_connect_with: a connection of dblink whose password is a credential, which nothing shows."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from conftest import MASTER_KEY, VARIABLE, Database, drop_database, fresh_database, new_server, refused
from psycopg import sql
from throwaway import Server

# All that libpq's rules for quotes are about.
PASSWORD = "it's \\ a \"pass word\" = 'x' \\' ü $1 %s"
PAGE = Path(__file__).parents[1] / "docs" / "languages.md"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server that logs all that it can, and that asks one role for its password."""
    server = new_server("dblink", {
        "session_preload_libraries": "auto_explain", "auto_explain.log_min_duration": "0", "auto_explain.log_nested_statements": "on",
        "auto_explain.log_analyze": "on", "auto_explain.log_verbose": "on", "log_statement": "all", "log_min_error_statement": "debug5",
        "log_error_verbosity": "verbose",
    })
    try:
        if not (Path(server.installation.ask("sharedir")) / "extension" / "dblink.control").exists():
            pytest.skip("this Postgres comes without dblink")
        rules = server.data / "pg_hba.conf"
        rules.write_text("local all remote scram-sha-256\n" + rules.read_text())
        server.start({VARIABLE: MASTER_KEY})
        with psycopg.connect(server.conninfo(), autocommit=True) as admin:
            admin.execute(sql.SQL("create role remote login password {}").format(PASSWORD))
            admin.execute("create role app login; create role stranger login")
        server.log.write_text("")
        yield server
    finally:
        server.remove()


@pytest.fixture
def db(server: Server) -> Iterator[Database]:
    database = fresh_database(server)
    database.run("create schema links; create extension dblink schema links; grant usage on schema links to app, stranger")
    for role in ("app", "stranger"):
        database.grant(role)
        database.run(f"grant execute on function omni_credentials.dblink_connect_with to {role}")
    yield database
    drop_database(database)


@pytest.fixture
def app(db: Database) -> psycopg.Connection:
    """A session of the role that has the password."""
    session = db.connect("app")
    session.execute("select omni_credentials.set_credential('remote', %s, 'password')", (PASSWORD,))
    return session


def conninfo(db: Database) -> str:
    return f"host={db.server.socket} dbname={db.name} user=remote"


CONNECT = "select omni_credentials.dblink_connect_with(%s, %s, %s)"


def test_it_connects(db: Database, app: psycopg.Connection) -> None:
    assert app.execute(CONNECT, ("c", conninfo(db), "remote")).fetchall() == [("OK",)]
    assert app.execute("select * from links.dblink('c', 'select current_user::text') as t (it text)").fetchall() == [("remote",)]
    assert app.execute("select links.dblink_get_connections()").fetchall() == [(["c"],)]
    with refused("42710"):
        app.execute(CONNECT, ("c", conninfo(db), "remote"))
    # As a superuser, whose passwords dblink does not ask for.
    assert db.run("select omni_credentials.dblink_connect_with('c', %s, 'remote', 'password', 'app', '{\"all\": true}')",
                  conninfo(db)) == [("OK",)]


def test_nothing_shows_it(db: Database, app: psycopg.Connection) -> None:
    """Not an error, whatever is wrong; not what others see of the session; not the log."""
    app.execute("select omni_credentials.set_credential('wrong', 'not-the-pass-word', 'password')")
    before = len(db.server.log.read_text())
    app.execute(CONNECT, ("c", conninfo(db), "remote"))
    ((shown,),) = db.run("select string_agg(query, '') from pg_stat_activity where usename = 'app'")
    told = [shown]
    for rest, name in (
        (conninfo(db), "wrong"),
        ("host='" + str(db.server.socket), "remote"),
        ("nonsense", "remote"),
        ("nonsense=1", "remote"),
        ("'", "remote"),
        ("host=x\\", "remote"),
        ("postgresql://remote@localhost/x", "remote"),
        ("host=/nowhere", "remote"),
        (conninfo(db) + " sslpassword=x port=never", "remote"),
    ):
        # As a superuser, too: for others, dblink reads the string itself, and says less of it.
        for user in ("app", "postgres"):
            with refused("08001|2F003") as caught:
                db.run(CONNECT.replace("%s)", "%s, principal => 'app')"), "d", rest, name, user=user)
            found = caught.error.diag
            told += [str(caught.error), found.message_detail or "", found.message_hint or "", found.context or ""]
    told.append(db.server.log.read_text()[before:])
    for text in told:
        assert not any(part in text for part in (PASSWORD, "pass word", "not-the-pass-word")), text


def test_it_is_for_those_who_read_it(db: Database, app: psycopg.Connection) -> None:
    with refused("P0002", 'there is no credential "remote"'):
        db.run(CONNECT, "c", conninfo(db), "remote", user="stranger")
    db.run("select omni_credentials.revoke_access('stranger', 'SELECT')")
    with refused("42501"):
        db.run(CONNECT, "c", conninfo(db), "remote", user="stranger")
    db.run("revoke execute on function omni_credentials.dblink_connect_with from app")
    with refused("42501", "dblink_connect_with"):
        app.execute(CONNECT, ("c", conninfo(db), "remote"))
    assert db.run("select has_function_privilege('public', oid, 'EXECUTE') from pg_proc where proname = 'dblink_connect_with'") == [(False,)]


def test_what_is_refused(db: Database, app: psycopg.Connection) -> None:
    app.execute("select omni_credentials.set_credential('binary', '\\xff'::bytea, null, null)")
    app.execute("select omni_credentials.set_credential('empty', '')")
    app.execute("select omni_credentials.set_credential('remote', 'x', 'token')")
    for arguments, sqlstate, message in (
        ((None, "host=x", "remote"), "22004", "is NULL"),
        (("c", None, "remote"), "22004", "is NULL"),
        (("c", "host=x Password = y", "remote"), "22023", "conninfo has a password of its own"),
        (("c", "host=x", "binary"), "22021|22P05|22000", "is not text"),
        (("c", "host=x", "empty"), "28P01", "credential empty is no password"),
        (("c", "host=x", "remote"), "P0003", "several credentials"),
    ):
        with refused(sqlstate, message):
            app.execute(CONNECT, arguments)
    # Where the server does not ask for the password, dblink refuses: it would be the server's own right.
    with refused("2F003"):
        app.execute("select omni_credentials.dblink_connect_with('c', %s, 'remote', 'password')",
                    (conninfo(db).replace("user=remote", "user=stranger"),))


def test_only_dblink_gets_it(db: Database, app: psycopg.Connection) -> None:
    """And no function that another role calls so."""
    db.run("grant create on schema public, links to stranger")
    for schema in ("public", "links"):
        for arguments in ("text, text" if schema == "public" else "text, varchar", "anyelement, text"):
            db.run(f"create function {schema}.dblink_connect({arguments}) returns text language plpgsql as"
                   " $$ begin raise 'trap %', $2; end $$", user="stranger")
    app.execute("set search_path = public")
    assert app.execute(CONNECT, ("c", conninfo(db), "remote")).fetchall() == [("OK",)]
    db.run("drop extension dblink")
    with refused("42883", "extension dblink is not installed", hint="create extension dblink"):
        app.execute(CONNECT, ("d", conninfo(db), "remote"))


def test_the_page(db: Database) -> None:
    """What docs/languages.md says of it: the helper, and the function for a role that cannot read the credential."""
    (section,) = re.findall(r"^## SQL: dblink.*?(?=^## )", PAGE.read_text(), re.M | re.S)
    first, second, third = re.findall(r"```sql\n(.*?)```", section, re.S)
    place = f"host={db.server.socket} dbname={db.name} user=remote"

    def psql(text: str, user: str) -> str:
        text = text.replace("'hunter2'", "'" + PASSWORD.replace("'", "''") + "'")
        text = re.sub(r"host=\S+ dbname=\S+ user=\S+( sslmode=\S+)?'", place + "'", text)
        done = subprocess.run(
            db.server.program("psql", "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-d", db.name, "-U", user),
            input=text, env=db.server.client_environment(), capture_output=True, text=True, check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    db.run("drop extension dblink; revoke execute on function omni_credentials.dblink_connect_with from app, stranger")
    db.run("select omni_credentials.revoke_access('stranger'); grant create on schema public to app")
    db.run("create table sales (a int); insert into sales values (1), (2); grant select on sales to remote")
    psql(first, "postgres")
    assert psql(second, "app").split() == ["OK", "2", "OK"]
    psql(third.replace("mailer", "stranger"), "app")
    with db.connect("stranger") as session:
        session.execute("select connect_to_reports()")
        assert session.execute("select * from dblink('reports', 'select count(*) from sales') as t (it bigint)").fetchall() == [(2,)]
        with refused("42501"):
            session.execute("select omni_credentials.get_credential('reports')")
