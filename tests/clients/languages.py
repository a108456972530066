"""The examples of docs/languages.md with the real drivers: `./just test-clients`.

Not collected by an ordinary run: the name of the file does not begin with test_.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from conftest import MASTER_KEY, VARIABLE, Database, drop_database, fresh_database, new_server
from throwaway import Server

PAGE = (Path(__file__).parents[2] / "docs" / "languages.md").read_text()
CLIENTS = Path(os.environ["CARGO_TARGET_DIR"]) / "clients"
VIEW = "omni_credentials.credentials"
# What each example sets, which bytea's escapes would change.
PRINTED = r"sk_\x41"


def examples(language: str) -> dict[str, str]:
    """The examples in a language, by the heading of their section."""
    sections = re.findall(r"^## ([^\n]*)\n(.*?)(?=^## |\Z)", PAGE, re.S | re.M)
    found = {title: re.findall(rf"```{language}\n(.*?)```", text, re.S) for title, text in sections}
    return {title: blocks[0] for title, blocks in found.items() if blocks}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = new_server("clients")
    server.start({VARIABLE: MASTER_KEY, "APP_SECRETS_MASTER_PASSWORD": MASTER_KEY})
    with psycopg.connect(server.conninfo(), autocommit=True) as admin:
        admin.execute("create role app login")
    yield server
    server.remove()


@pytest.fixture
def app_db(server: Server) -> Iterator[Database]:
    database = fresh_database(server)
    database.grant("app")
    yield database
    drop_database(database)


def environment(database: Database) -> dict[str, str]:
    """What libpq, and those that follow it, take a connection from."""
    given = psycopg.conninfo.conninfo_to_dict(database.server.conninfo(database.name))
    return os.environ | {"PGHOST": str(given["host"]), "PGPORT": str(given["port"]), "PGDATABASE": database.name, "PGUSER": "app"}


def run(command: list[str], database: Database, folder: Path) -> str:
    done = subprocess.run(
        command, env=environment(database), cwd=folder, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextlib.contextmanager
def forwarded(server: Server) -> Iterator[int]:
    """A port of this machine that leads to the server's socket, for drivers that know no other way."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.socket(socket.AF_UNIX) as other:
                other.connect(str(server.socket / ".s.PGSQL.5432"))
                back = threading.Thread(target=copy, args=(other, self.request))
                back.start()
                copy(self.request, other)
                back.join()

    def copy(source: socket.socket, target: socket.socket) -> None:
        while data := source.recv(65536):
            target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as forwarder:
        threading.Thread(target=forwarder.serve_forever).start()
        try:
            yield forwarder.server_address[1]
        finally:
            forwarder.shutdown()


@pytest.mark.parametrize("title", examples("python"))
def test_python(app_db: Database, tmp_path: Path, title: str) -> None:
    (tmp_path / "example.py").write_text(examples("python")[title])
    assert run([str(CLIENTS / "venv" / "bin" / "python"), "example.py"], app_db, tmp_path) == PRINTED + "\n"
    assert app_db.run("select * from omni_credentials.verify()") == []


@pytest.mark.parametrize("title", examples("js"))
def test_node(app_db: Database, title: str) -> None:
    example = CLIENTS / "node" / "example.mjs"
    example.write_text(examples("js")[title])
    assert run(["node", example.name], app_db, example.parent) == PRINTED + "\n"
    assert app_db.run("select * from omni_credentials.verify()") == []


# Makes PostGraphile's schema of a Postgres schema, with the preset in the file that is named, and prints its kinds.
POSTGRAPHILE = """
import { makePgService } from "@dataplan/pg/adaptors/pg";
import { defaultPreset, makeSchema } from "graphile-build";
import { defaultPreset as postgres } from "graphile-build-pg";

const extra = process.argv[3] ? [(await import(process.argv[3])).default] : [];
const pgServices = [makePgService({ connectionString: process.argv[2], schemas: ["app_secrets"] })];
const { schema } = await makeSchema({ extends: [defaultPreset, postgres, ...extra], pgServices });
const kinds = schema.getType("CredentialKind")?.getValues() ?? [];
console.log(JSON.stringify(Object.fromEntries(kinds.map((kind) => [kind.name, kind.value]))));
process.exit();
"""


def test_postgraphile(app_db: Database) -> None:
    """The plugin of the page gives every kind a name in GraphQL, and is still needed."""
    (plugin,) = examples("mjs").values()
    app_db.run("create schema app_secrets")
    app_db.run("select omni_credentials.instantiate('app_secrets')")
    folder = CLIENTS / "node"
    (folder / "credential-kinds.mjs").write_text(plugin)
    (folder / "postgraphile.mjs").write_text(POSTGRAPHILE)
    address = f"postgres://postgres@/{app_db.name}?host={app_db.server.socket}"
    labels = {label for (label,) in app_db.run("select unnest(enum_range(null::app_secrets.credential_kind))::text")}
    printed = run(["node", "postgraphile.mjs", address, "./credential-kinds.mjs"], app_db, folder)
    assert json.loads(printed.splitlines()[-1]) == {re.sub(r"\W+", "_", label).rstrip("_"): label for label in labels}
    with pytest.raises(AssertionError, match="invalid name"):
        run(["node", "postgraphile.mjs", address], app_db, folder)


@pytest.mark.parametrize("title", examples("java"))
def test_java(app_db: Database, tmp_path: Path, title: str) -> None:
    driver = Path("/usr/share/java/postgresql.jar")
    if not (shutil.which("java") and driver.exists()):
        pytest.skip("needs default-jdk-headless and libpostgresql-jdbc-java")
    (tmp_path / "Main.java").write_text(examples("java")[title])
    with forwarded(app_db.server) as port:
        url = f"jdbc:postgresql://127.0.0.1:{port}/{app_db.name}?user=app"
        assert run(["java", "-cp", str(driver), "Main.java", url], app_db, tmp_path) == PRINTED + "\n"
    assert app_db.run(f"select value from {VIEW} where name = 'token'") == [(b"\x00\xff",)]


def test_the_sql_of_the_page(app_db: Database) -> None:
    """As a role that may create objects, with an instance of its own."""
    app_db.run("create schema app_secrets")
    app_db.run("select omni_credentials.instantiate('app_secrets', 'APP_SECRETS_MASTER_PASSWORD')")
    app_db.run("create role mailer")
    # What connects to another server is run by tests/test_dblink.py.
    script = "\n".join(block for block in re.findall(r"```sql\n(.*?)```", PAGE, re.S) if "db.example.com" not in block)
    done = subprocess.run(
        app_db.server.program("psql", "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", database=app_db.name),
        input=script + "set role mailer; select smtp_password();", env=app_db.server.client_environment(),
        capture_output=True, text=True, check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "sk_test_1" in done.stdout and done.stdout.splitlines()[-1] == "relay"
    app_db.run("drop owned by mailer")
    app_db.run("drop role mailer")


def test_pgbouncer(app_db: Database) -> None:
    """In transaction mode, with prepared statements of the server's own and a setting for one transaction."""
    program = shutil.which("pgbouncer") or ("/usr/sbin/pgbouncer" if Path("/usr/sbin/pgbouncer").exists() else None)
    if program is None:
        pytest.skip("needs pgbouncer")
    server = app_db.server
    users, configuration = server.folder / "pgbouncer.users", server.folder / "pgbouncer.ini"
    users.write_text('"app" ""\n')
    configuration.write_text(
        f"[databases]\n* = host={server.socket} port=5432\n[pgbouncer]\nlisten_addr =\nunix_socket_dir = {server.socket}\n"
        f"listen_port = 6432\npool_mode = transaction\ndefault_pool_size = 1\nauth_type = trust\nauth_file = {users}\n"
    )
    # As the account of the server: pgbouncer does not run as root either.
    as_account = ["-u", server.data.owner()] if os.geteuid() == 0 else []
    pooler = subprocess.Popen([program, "-q", *as_account, str(configuration)])
    try:
        def connect() -> psycopg.Connection:
            for _ in range(100):
                try:
                    return psycopg.connect(
                        host=str(server.socket), port=6432, user="app", dbname=app_db.name, autocommit=True, prepare_threshold=None
                    )
                except psycopg.OperationalError:
                    subprocess.run(["sleep", "0.1"], check=True)
            raise AssertionError("pgbouncer does not answer")

        one, two = connect(), connect()
        for number, session in enumerate((one, two, one, two)):
            session.execute("select omni_credentials.set_credential(%s, %s)", ("n", f"v{number}"))
            assert session.execute("select omni_credentials.get_credential('n')").fetchone() == (f"v{number}",)
        with one.transaction():
            one.execute("set local omni_credentials.on_unreadable = 'null'")
        assert two.execute("show omni_credentials.on_unreadable").fetchone() == ("error",)
        one.close()
        two.close()
    finally:
        pooler.terminate()
        pooler.wait()
