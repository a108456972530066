"""The matrix: every host runs every vector with the same module, and all of them work on one file.

A set of vectors that a host skips is a failure unless it is listed here with its reason; a set that is listed must really
be out of the host's reach. Postgres has no driver for the vectors, since it cannot be handed a keyring or a file with another
master secret: test_file_store_hostile.py runs every hostile file through SQL, and `install_module` runs the known-answer
tests. It takes part in what is written across hosts.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Folder, beside, own
from conftest import MASTER_KEY, SUPERUSER, VARIABLE, Database

TARGET = Path(os.environ["CARGO_TARGET_DIR"])
HOSTS = Path(__file__).parents[1] / "conformance" / "hosts"
MODULES = ("xchacha20poly1305", "aes256gcmsiv")
DRIVERS = {
    "python": [sys.executable, str(HOSTS / "python_host.py")],
    "node": ["node", str(HOSTS / "node_host.mjs")],
    "command": [sys.executable, str(HOSTS / "command_host.py")],
}
NO_PRIMITIVES = "the command seals and opens whole values; `module verify` runs these on the same module"
UNSUPPORTED = {
    "command": {
        "wycheproof-aead": NO_PRIMITIVES,
        "wycheproof-hkdf": NO_PRIMITIVES,
        "standard-aead": NO_PRIMITIVES,
        "standard-kdf": NO_PRIMITIVES,
        "golden-keyrings": "a KEK never leaves the command",
        "golden-values": "some have kinds that the database's type does not have, which the command refuses to write",
        "golden-reconciliations": "the command merges three files, and the ancestor of a vector is a manifest",
        "golden-scopes": "an argument of a program cannot hold every scope",
        "hostile-keyrings": "the command is given a secret, not a KEK: with altered costs or salt that secret is a wrong one",
        "hostile-scopes": "an argument of a program cannot hold every scope",
    },
}
SETS = 14


def module(name: str) -> Path:
    return TARGET / "modules" / f"{name}.wasm"


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("host", DRIVERS)
def test_every_vector(host: str, name: str) -> None:
    skips = [word for skipped in UNSUPPORTED.get(host, ()) for word in ("--unsupported", skipped)]
    done = subprocess.run(
        [TARGET / "release" / "drive", *skips, "--", *DRIVERS[host], module(name)],
        capture_output=True, text=True, check=False,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    found = dict(line.split() for line in done.stdout.splitlines())
    assert len(found) == SETS
    assert {it for it, count in found.items() if count == "unsupported"} == set(UNSUPPORTED.get(host, ()))


@pytest.mark.parametrize("name", MODULES)
def test_the_command_verifies_a_module(tmp_path: Path, name: str) -> None:
    found = Folder(tmp_path).run("--json", "module", "verify", str(module(name))).json
    assert found["imports"] == ["wasi:random/random@0.2.3#get-random-bytes"]
    assert len(found["passed"]) == SETS


def test_one_module(tmp_path: Path) -> None:
    """All hosts carry the same bytes."""
    digest = hashlib.sha256(module(MODULES[0]).read_bytes()).hexdigest()
    assert Folder(tmp_path).run("--json", "module", "inspect").json["digest"] == digest
    (python,) = (TARGET / "python" / "site").rglob("*.wasm")
    (node,) = (TARGET / "node" / "installed" / "node_modules" / "omni-credentials").rglob("module.wasm")
    assert {hashlib.sha256(path.read_bytes()).hexdigest() for path in (python, node)} == {digest}


def test_one_module_in_postgres(db) -> None:
    digest = hashlib.sha256(module(MODULES[0]).read_bytes()).digest()
    assert db.run("select digest from omni_credentials.crypto_modules") == [(digest,)]


class Host:
    """A running driver."""

    def __init__(self, name: str):
        self.name = name
        self.process = subprocess.Popen(
            [*DRIVERS[name], module(MODULES[0])], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, operation: str, file: Path, name: str, **more: object) -> object:
        identity = {"name": name, "kind": "password", "principal": SUPERUSER, "scope": '{"all":true}'}
        request = {"op": operation, "file": str(file), "secret": MASTER_KEY.encode().hex(), "identity": identity} | more
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        assert "ok" in answer, f"{self.name}: {answer}"
        return answer["ok"]

    def close(self) -> None:
        self.process.stdin.close()
        assert self.process.wait(60) == 0


class Postgres:
    """A database with the file as its file store."""

    name = "postgres"

    def __init__(self, database: Database, folder: Folder):
        self.database, self.folder = database, folder
        own(database, folder)
        database.run("select omni_credentials.instantiate_file_store(%s)", str(folder.file))

    def ask(self, operation: str, file: Path, name: str, value: str | None = None) -> str | None:
        # As after a git pull; the other hosts' files belong to whoever runs the tests.
        own(self.database, self.folder)
        self.database.run("select omni_credentials.credential_file_store_reload(%s)", str(file))
        if operation == "get":
            ((found,),) = self.database.run("select value from omni_credentials.credentials where name = %s", name)
            return found.hex()
        if value is None:
            self.database.run("delete from omni_credentials.credentials where name = %s", name)
        else:
            self.database.run(
                "select omni_credentials.set_credential(%s, %s, 'password')", name, bytes.fromhex(value)
            )
        return None


@pytest.fixture
def hosts() -> Iterator[dict[str, Host]]:
    running = {name: Host(name) for name in DRIVERS}
    yield running
    for host in running.values():
        host.close()


def records(file: Path) -> dict[str, str]:
    """The blocks of a file by their first line."""
    blocks = file.read_text().split("\n\n")[1:-1]
    return {block.split("\n")[0]: block for block in blocks}


def test_each_reads_and_changes_what_the_others_wrote(db: Database, hosts: dict[str, Host]) -> None:
    folder = beside(db)
    folder.run("init")
    everyone = [*hosts.values(), Postgres(db, folder)]
    choice = random.Random(7)
    expected: dict[str, bytes] = {}
    written_by = {host.name: 0 for host in everyone}
    for turn in range(40):
        host = everyone[turn % len(everyone)]
        before = records(folder.file) if turn else {}
        deletable = sorted(expected)
        if turn > 6 and choice.random() < 0.3:
            name = choice.choice(deletable)
            del expected[name]
            host.ask("set", folder.file, name, value=None)
        else:
            name = f"credential {choice.randrange(8)}"
            value = choice.randbytes(choice.choice((1, 40, 3000)))
            expected[name] = value
            host.ask("set", folder.file, name, value=value.hex())
        written_by[host.name] += 1
        after = records(folder.file)
        changed = {line for line in before.keys() & after.keys() if before[line] != after[line]}
        assert changed <= {f'credential "{name}"'}, "records that were not changed keep their bytes"
        for reader in everyone:
            for name, value in expected.items():
                assert bytes.fromhex(reader.ask("get", folder.file, name)) == value, f"{host.name} → {reader.name}"
    assert all(written_by.values())
    folder.run("verify")


def test_all_write_at_once(tmp_path: Path, hosts: dict[str, Host]) -> None:
    folder = Folder(tmp_path, {VARIABLE: MASTER_KEY})
    folder.run("init")

    def write(host: Host) -> None:
        for number in range(8):
            host.ask("set", folder.file, f"{host.name} {number}", value=host.name.encode().hex())

    threads = [threading.Thread(target=write, args=(host,)) for host in hosts.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for reader in hosts.values():
        for writer in hosts:
            for number in range(8):
                assert bytes.fromhex(reader.ask("get", folder.file, f"{writer} {number}")) == writer.encode()
    assert [path.name for path in tmp_path.iterdir()] == ["credentials.omni"], "no lock and no temporary file is left"
