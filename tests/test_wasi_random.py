"""Modules that ask WASI 0.3 for entropy, in the hosts; host/tests and host-node/test have the others."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from command import KEY, Folder
from conftest import Database
from omni_credentials import Store
from omni_credentials.module import Module
from python_files import CHEAP, folder, store  # noqa: F401 # fixtures

XCHACHA = (Path(os.environ["OMNI_CREDENTIALS_MODULES"]) / "xchacha20poly1305.wasm").read_bytes()
IMPORT = "wasi:random/random@0.3.0#get-random-bytes"


@pytest.fixture(scope="session")
def wasm() -> bytes:
    """The default module, with an import of the later version in place of its own."""
    of_0_3 = XCHACHA.replace(b"wasi:random/random@0.2.3", b"wasi:random/random@0.3.0")
    assert of_0_3 != XCHACHA
    return of_0_3


def test_the_command(folder: Folder, wasm: bytes, tmp_path: Path) -> None:
    (module := tmp_path / "module.wasm").write_bytes(wasm)
    assert folder.run("module", "inspect", str(module), "--json").json["imports"] == [IMPORT]
    folder.set("a", "1", "--module", str(module))
    assert folder.get("a") == b"1", "the module with the other import reads it as well"


def test_python(folder: Folder, store: Store, wasm: bytes) -> None:
    module = Module.load(wasm, cache=False)
    assert module.imports == [IMPORT]
    with Store.create(folder.path / "other.omni", KEY, costs=CHEAP, module=module) as other:
        other["a"] = "1"
        assert other.save()


def test_postgres(db: Database, wasm: bytes) -> None:
    db.run("insert into omni_credentials.credentials (name, value) values ('a', '1')")
    digest = hashlib.sha256(wasm).digest()
    db.run("select omni_credentials.install_module('later', %s, %s::bytea)", wasm, digest)
    db.run("select omni_credentials.use_module(module => 'later')")
    db.run("insert into omni_credentials.credentials (name, value) values ('b', '2')")
    assert db.run("select name, value from omni_credentials.credentials order by 1") == [("a", b"1"), ("b", b"2")]
