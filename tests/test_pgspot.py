"""pgspot over the SQL that CREATE EXTENSION and instantiate() run: no name in it is one that another role can put first."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from releases import ROOT, History
from throwaway import Installation

# What pgspot reports and why it stays, by its code and what it names. Nothing else may be reported.
EXCEPTIONS: dict[tuple[str, str], str] = {}


def install_script() -> str:
    version = History.read((ROOT / "CHANGELOG.md").read_text()).current
    stage = Installation.from_environment().stage
    return (stage / "share" / "extension" / f"omni_credentials--{version}.sql").read_text()


def instance_script() -> str:
    """What instantiate() runs, with its own search_path, for a schema `app`."""
    values = {
        "schema": "app", "extension": "omni_credentials", "env_var": "'V'", "costs": "null, null, null", "others": "public",
        "namespace": "'app'", "table": "'app.encrypted_credentials'", "keyrings": "'app.credentials_keyrings'",
        "config": "'app.credentials_config'", "files": "'app.credentials_files'",
        "versions": "'app.encrypted_credential_versions'",
    }
    template = install_script().split("$template$")[1]
    filled = re.sub(r"(?<!:):([a-z_]+)", lambda name: values[name[1]], template)
    return f"set search_path = pg_catalog, pg_temp;\n{filled}"


def readable(script: str) -> str:
    """The script without what pgspot does not read.

    A body in BEGIN ATOMIC is bound when the script runs, with the search_path of the script: the same body as a text,
    with that search_path, is what there is to look at. And OPEN … FOR EXECUTE takes an expression.
    """
    pinned = "set search_path = pg_catalog, pg_temp\nas $atomic${}$atomic$;"
    script = re.sub(r"^begin atomic\n(.*?)^end;$", lambda body: pinned.format(body[1]), script, flags=re.M | re.S)
    return re.sub(r"(open \w+ for) execute ", r"\1 select ", script)


def findings(script: str, tmp_path: Path) -> set[tuple[str, str]]:
    file = tmp_path / "script.sql"
    file.write_text(readable(script))
    done = subprocess.run([sys.executable, "-m", "pgspot", str(file)], capture_output=True, text=True, check=False)
    *lines, summary = done.stdout.strip().splitlines()
    # It ends with the counts; after an exception of its own, with that.
    assert re.fullmatch(r"\s*Errors: \d+ Warnings: \d+ Unknown: 0\s*", summary) and not done.stderr, done.stdout + done.stderr
    found = [re.fullmatch(r"(PS\d+): [^:]*: (.*) at line \d+", line, re.S) for line in lines if line]
    assert all(found), done.stdout
    return {(match[1], match[2]) for match in found if match}


@pytest.mark.parametrize("script", [install_script, instance_script], ids=["install", "instance"])
def test_nothing_is_found(script, tmp_path: Path) -> None:
    unexpected = findings(script(), tmp_path) - EXCEPTIONS.keys()
    assert unexpected == set()


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        ("set local search_path = public;\nselect length('x');", "PS016"),
        ("create or replace function omni_credentials.f() returns int language sql set search_path = pg_catalog, pg_temp as 'select 1';", "PS002"),
        ("create function omni_credentials.f() returns int language plpgsql as $$begin return 1; end$$;", "PS005"),
        ("create table if not exists omni_credentials.t (x int);", "PS012"),
        ("create function omni_credentials.f() returns int language sql security definer as 'select 1';", "PS003"),
    ],
)
def test_it_would_be_found(broken: str, code: str, tmp_path: Path) -> None:
    assert code in {found for found, _ in findings(install_script() + broken, tmp_path)}
