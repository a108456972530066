"""The archive for PGXN: its META.json, and `make installcheck`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import jsonschema
import pytest
from packages import PACKAGING, TARGET, VERSION, run
from releases import ROOT
from throwaway import Server

# https://pgxn.org/spec/, version 1.0.0, as far as META.json uses it. No other key is allowed.
SEMVER = {"type": "string", "pattern": r"^\d+\.\d+\.\d+(-[0-9A-Za-z-]+)?$"}
TERM = {"type": "string", "minLength": 2, "pattern": r"^[^\s/\\\x00-\x1f\x7f]+$"}
URL = {"type": "string", "pattern": r"^https://"}
PHASE = {
    "type": "object", "additionalProperties": False,
    "properties": {kind: {"type": "object", "additionalProperties": SEMVER} for kind in ("requires", "recommends", "suggests", "conflicts")},
}
META = {
    "type": "object",
    "required": ["name", "version", "abstract", "maintainer", "license", "provides", "meta-spec"],
    "additionalProperties": False,
    "properties": {
        "name": TERM, "version": SEMVER, "abstract": {"type": "string", "minLength": 1},
        "maintainer": {"type": "string", "pattern": r"^.+ <[^@\s]+@[^@\s]+>$"},
        "license": {"enum": ["apache_2_0", "bsd", "mit", "postgresql", "open_source"]},
        "provides": {
            "type": "object", "minProperties": 1, "propertyNames": TERM,
            "additionalProperties": {
                "type": "object", "required": ["file", "version"], "additionalProperties": False,
                "properties": {"file": {"type": "string"}, "version": SEMVER, "abstract": {"type": "string"}, "docfile": {"type": "string"}},
            },
        },
        "meta-spec": {
            "type": "object", "required": ["version"], "additionalProperties": False,
            "properties": {"version": {"const": "1.0.0"}, "url": {"enum": ["https://pgxn.org/meta/spec.txt", "http://pgxn.org/meta/spec.txt"]}},
        },
        "description": {"type": "string", "minLength": 1}, "generated_by": {"type": "string", "minLength": 1},
        "tags": {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1, "maxLength": 255}},
        "release_status": {"enum": ["stable", "testing", "unstable"]},
        "prereqs": {
            "type": "object", "additionalProperties": False,
            "properties": dict.fromkeys(("configure", "runtime", "build", "test", "develop"), PHASE),
        },
        "resources": {
            "type": "object", "additionalProperties": False,
            "properties": {
                "homepage": URL, "bugtracker": {"type": "object", "additionalProperties": False, "properties": {"web": URL}},
                "repository": {
                    "type": "object", "additionalProperties": False,
                    "properties": {"url": URL, "web": URL, "type": {"pattern": "^[a-z]+$"}},
                },
            },
        },
    },
}


class TestPgxn:
    def test_the_archive(self, tmp_path: Path) -> None:
        made = []
        for number in (1, 2):
            folder = tmp_path / str(number)
            done = run(PACKAGING / "pgxn.sh", CARGO_TARGET_DIR=str(folder), SOURCE_DATE_EPOCH="1600000000")
            assert done.returncode == 0, done.stderr
            made.append(folder / "package" / f"omni_credentials-{VERSION}.zip")
        assert made[0].read_bytes() == made[1].read_bytes()
        with zipfile.ZipFile(made[0]) as archive:
            names = set(archive.namelist())
            top = f"omni_credentials-{VERSION}/"
            assert all(name.startswith(top) for name in names)
            meta = json.loads(archive.read(f"{top}META.json"))
            programs = {file.filename for file in archive.infolist() if file.external_attr >> 16 & 0o111}
            assert f"{top}just" in programs
            # PGXN's client makes executable what begins so, and nothing else.
            assert not [name for name in programs if not archive.read(name).startswith(b"#!")]
        jsonschema.validate(meta, META)
        assert meta["version"] == VERSION
        for provided in meta["provides"].values():
            assert provided["version"] == VERSION
            assert {top + provided["file"], top + provided["docfile"]} <= names
        assert {f"{top}Makefile", f"{top}LICENSE", f"{top}Cargo.lock", f"{top}tests/pg_regress/expected/omni_credentials.out"} <= names

    @pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
    def test_install(self, server: Server, tmp_path: Path) -> None:
        """What was built is installed as it is, below DESTDIR, and removed: as root, nothing must be compiled."""
        pg_config = server.installation.pg_config
        environment = {name: value for name, value in os.environ.items() if name != "OMNI_PG_MAJOR"}

        def make(target: str) -> None:
            done = subprocess.run(
                ["make", target, f"PG_CONFIG={pg_config}", f"DESTDIR={tmp_path}"], cwd=ROOT, env=environment,
                stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            assert "building" not in done.stdout

        make("install")
        stage = TARGET / "stage" / f"pg{server.installation.major}"
        installed = {file.name: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
        assert installed == {file.name: file.read_bytes() for file in stage.rglob("[!.]*") if file.is_file()}
        for option, folder in (("--pkglibdir", "."), ("--sharedir", "extension")):
            there = subprocess.run([pg_config, option], capture_output=True, text=True, check=True).stdout.strip()
            assert any(Path(f"{tmp_path}{there}", folder).glob("omni_credentials*"))
        other = next(tmp_path.rglob("omni_credentials.control")).with_name("other.control")
        other.touch()
        make("uninstall")
        assert [file for file in tmp_path.rglob("*") if file.is_file()] == [other]

    @pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
    def test_installcheck(self, server: Server, tmp_path: Path) -> None:
        pg_config = server.installation.pg_config
        environment = server.client_environment() | {"TMPDIR": str(tmp_path)}
        where = dict(pair.split("=", 1) for pair in server.conninfo().split())
        environment |= {"PGHOST": where["host"], "PGUSER": where["user"]}
        done = subprocess.run(
            ["make", "installcheck", f"PG_CONFIG={pg_config}"], cwd=ROOT, env=environment,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )
        differences = "".join(file.read_text() for file in tmp_path.rglob("regression.diffs"))
        assert done.returncode == 0, done.stdout + done.stderr + differences
        assert not list(tmp_path.iterdir())
