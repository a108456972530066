"""A module written from wit/ and docs/modules.md alone: built outside the repository, verified, used by the command and Postgres."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from command import Folder
from conftest import Database, refused
from template_module import ROOT, build, copy

DOCUMENT = (ROOT / "docs" / "modules.md").read_text()


@pytest.fixture(scope="module")
def wasm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(copy(tmp_path_factory.mktemp("module") / "my-module"))


def test_it_passes(tmp_path: Path, wasm: Path) -> None:
    found = Folder(tmp_path).run("--json", "module", "verify", str(wasm)).json
    assert found["suite"] == {"id": 128, "name": "example"}
    assert found["imports"] == ["wasi:random/random@0.2.3#get-random-bytes"]
    assert found["passed"] == {"wycheproof-hkdf": 86, "standard-kdf": 11}


def test_the_command_uses_it(tmp_path: Path, wasm: Path) -> None:
    folder = Folder(tmp_path)
    module = ("--module", str(wasm))
    folder.run(*module, "init")
    folder.run(*module, "set", "stripe", stdin=b"sk_live")
    folder.run(*module, "set", "smtp", stdin=b"relay")
    folder.run(*module, "rotate-key")
    folder.run(*module, "rm", "smtp")
    assert folder.run(*module, "get", "stripe").out == b"sk_live"
    folder.run(*module, "verify")
    text = folder.file.read_text()
    assert "stripe" in text and "sk_live" not in text
    # Another module leaves the file alone, and an altered one is refused.
    folder.run("get", "stripe", status=5)
    folder.file.write_text(text.replace('"stripe"', '"stripf"'))
    folder.run(*module, "get", "stripf", status=5)


def test_postgres_uses_it(db: Database, wasm: Path) -> None:
    (statements,) = re.findall(r"```sql\n(.*?)```", DOCUMENT, re.S)
    path = db.server.data / "my-module.wasm"
    path.write_bytes(wasm.read_bytes())
    path.chmod(0o644)
    db.run("insert into omni_credentials.credentials (name, value) values ('stripe', 'sk_live'), ('smtp', 'relay')")
    file = db.server.data / f"{db.name}.omni"
    db.run("select omni_credentials.instantiate_file_store(%s)", str(file))
    for statement in statements.replace("/srv/my-module.wasm", str(path)).split(";\n"):
        if statement.strip():
            db.run(statement)
    digest = hashlib.sha256(wasm.read_bytes()).digest()
    assert db.run("select suite, digest from omni_credentials.crypto_modules where name = 'example'") == [("example", digest)]
    assert db.run("select name, convert_from(value, 'UTF8') from omni_credentials.credentials order by 1") == [
        ("smtp", "relay"), ("stripe", "sk_live"),
    ]
    assert db.run("select distinct get_byte(value, 1) from omni_credentials.encrypted_credentials") == [(128,)]
    with refused("23514", "stripe"):
        db.run(
            "update omni_credentials.encrypted_credentials set value ="
            " (select value from omni_credentials.encrypted_credentials where name = 'smtp') where name = 'stripe'"
        )
    assert "example credentials 1" in file.read_text()
    # And back.
    db.run("select omni_credentials.use_module('omni_credentials', 'xchacha20poly1305')")
    assert db.run("select convert_from(value, 'UTF8') from omni_credentials.credentials where name = 'stripe'") == [("sk_live",)]


def test_a_file_of_other_formats_keeps_its_keyring(db: Database, wasm: Path) -> None:
    """As after a crash between a move and the file; to the module of today that file is of no format at all."""
    db.run("select omni_credentials.install_module('example', %s, sha256(%s))", wasm.read_bytes(), wasm.read_bytes())
    db.run("insert into omni_credentials.credentials (name, value) values ('stripe', 'sk_live')")
    db.run("select omni_credentials.instantiate_file_store('team.omni')")
    file = db.server.data / "team.omni"
    for module in ("example", "xchacha20poly1305"):
        before = file.read_bytes()
        db.run("select omni_credentials.use_module(module => %s)", module)
        file.write_bytes(before)
        with refused("2BP01", "team.omni", "credential_file_store_sync"):
            db.run("select omni_credentials.prune_keyrings()")
        db.run("select omni_credentials.credential_file_store_sync('team.omni')")
        assert db.run("select omni_credentials.prune_keyrings()") == [(1,)]
    assert db.run("select value from omni_credentials.credentials") == [(b"sk_live",)]
    file.unlink()
