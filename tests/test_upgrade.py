"""pg_upgrade from another major version that the extension was built for, with regrole columns and all.

Needs `./just build` for both: run `./just build --pg 15` first. Without an older one the test is skipped.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from conftest import MASTER_KEY, VARIABLE, Database, fresh_database, new_server, refused
from file_stores import live, mirror
from installed import with_extension
from throwaway import Installation, Server


def older_installation() -> Path | None:
    """pg_config of the oldest staged version below the one under test."""
    here = Installation.from_environment()
    for major in range(15, here.major):
        ready = here.target / "tools" / f"ready-pg{major}.sh"
        if (here.target / "stage" / f"pg{major}" / "lib").exists() and ready.exists():
            found = re.search(r"^export OMNI_PG_CONFIG=(.*)$", ready.read_text(), re.M)
            if found and Path(found[1]).exists():
                return Path(found[1])
    return None


def old_server(pg_config: Path) -> Server:
    before = os.environ["OMNI_PG_CONFIG"]
    os.environ["OMNI_PG_CONFIG"] = str(pg_config)
    try:
        return new_server("old")
    finally:
        os.environ["OMNI_PG_CONFIG"] = before


def run(server: Server, program: str, *arguments: str, libraries: str) -> None:
    work = server.folder / "work"
    work.mkdir(exist_ok=True)
    server.account.own(work)
    done = subprocess.run(
        [str(server.installation.bin / program), *arguments],
        cwd=work, env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "LD_LIBRARY_PATH": libraries, VARIABLE: MASTER_KEY},
        capture_output=True, text=True, check=False, **server.account.popen,
    )
    logs = "" if done.returncode == 0 else "\n".join(
        file.read_text(errors="replace")[-3000:] for file in server.data.glob("pg_upgrade_output.d/**/*.log")
    )
    assert done.returncode == 0, done.stdout + done.stderr + logs


def drop_foreign_column_options(old: Server, db: Database) -> None:
    """Some builds of older versions put an option of their own on every column, which no other build knows: there not
    even a database with one plain table can be upgraded. The options say nothing about what is tested here."""
    db.run("create table public.plain (x int)")
    if db.run("select 1 from pg_attribute where attrelid = 'public.plain'::regclass and attoptions is not null"):
        for name in (db.name, "postgres", "template1"):
            Database(old, name).run("update pg_attribute set attoptions = null where attoptions is not null")


def test_pg_upgrade() -> None:
    pg_config = older_installation()
    if pg_config is None:
        pytest.skip("the extension was built for one version only")
    old = old_server(pg_config)
    new = Server.create(f"test-{os.getpid()}-new", initdb=False)
    try:
        with_extension(new)
        old.start({VARIABLE: MASTER_KEY})
        db = fresh_database(old)
        db.run("create role app login")
        db.run("create schema copy")
        db.run("select omni_credentials.instantiate('copy')")
        for schema in ("omni_credentials", "copy"):
            db.grant("app", schema=schema)
            db.run(f"insert into {schema}.credentials (name, value) values ('own', %b)", schema.encode(), user="app")
            db.run(f"insert into {schema}.credentials (name, value, kind) values ('boss', 'v', 'token[jwt]')")
            db.run("select omni_credentials.rotate_key(%s::regnamespace)", schema)
            mirror(db, old.folder / f"{schema}.credentials", schema)
        db.run("create policy p on omni_credentials.encrypted_credentials as restrictive using (kind <> 'otp')")
        rows = "select name, value, kind::text, principal::text, scope from {}.encrypted_credentials order by name"
        before = {schema: db.run(rows.format(schema)) for schema in ("omni_credentials", "copy")}
        drop_foreign_column_options(old, db)
        db.close()
        old.stop()

        checksums = ["--no-data-checksums"] if new.installation.major >= 18 else []
        run(new, "initdb", "-D", str(new.data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync",
            *checksums, libraries=new.installation.libraries)
        run(new, "pg_upgrade", "-b", str(old.installation.bin), "-B", str(new.installation.bin), "-d", str(old.data),
            "-D", str(new.data), "-U", "postgres", "-s", str(new.socket), libraries=new.installation.libraries)
        new.start({VARIABLE: MASTER_KEY})
        upgraded = Database(new, db.name)
        for schema in ("omni_credentials", "copy"):
            assert upgraded.run(rows.format(schema)) == before[schema]
            assert upgraded.run(f"select name, value from {schema}.credentials", user="app") == [("own", schema.encode())]
            assert upgraded.run("select * from omni_credentials.verify(%s::regnamespace)", schema) == []
            # The files are kept up to date as before.
            assert upgraded.run(f"select in_step from {schema}.credential_file_stores") == [(True,)]
            upgraded.run(f"delete from {schema}.credentials where name = 'boss'")
            assert live(old.folder / f"{schema}.credentials") == ["own"]
            upgraded.run(f"insert into {schema}.credentials (name, value, kind) values ('boss', 'v', 'token[jwt]')")
            upgraded.run(f"update {schema}.credentials set value = 'changed'", user="app")
            assert upgraded.run("select omni_credentials.rotate_key(%s::regnamespace)", schema) == [(2,)]
            with refused("23514"):
                upgraded.run(f"update {schema}.encrypted_credentials set name = 'moved' where name = 'own'")
        assert upgraded.run("select polname from pg_policy order by 1") == [
            ("encrypted_credentials_principal",), ("encrypted_credentials_principal",), ("p",),
        ]
        assert upgraded.run("select name from omni_credentials.added_policies order by 1") == [
            ("encrypted_credentials_principal",), ("p",),
        ]
        with refused("2BP01", "holds credentials"):
            upgraded.run("drop extension omni_credentials cascade")
        upgraded.close()
    finally:
        old.remove()
        new.remove()
