"""A module written from wit/ and docs/modules.md alone: built outside the repository, verified, used by the command and Postgres."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from command import Folder
from conftest import Database, refused

ROOT = Path(__file__).parents[1]
TARGET = Path(os.environ["CARGO_TARGET_DIR"])
DOCUMENT = (ROOT / "docs" / "modules.md").read_text()


@pytest.fixture(scope="module")
def wasm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template with wit/ beside it, built in a folder where nothing else of the repository is."""
    folder = tmp_path_factory.mktemp("module") / "my-module"
    shutil.copytree(ROOT / "modules" / "template", folder)
    shutil.copytree(ROOT / "wit", folder / "wit")
    environment = os.environ | {"CARGO_TARGET_DIR": str(TARGET / "template")}
    more = []
    libraries = subprocess.run(
        ["rustc", "--print", "target-libdir", "--target", "wasm32-unknown-unknown"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not list(Path(libraries).glob("libcore-*.rlib")):
        # A Rust without the target's standard library builds it, as tools/build-modules.sh does.
        environment["RUSTC_BOOTSTRAP"] = "1"
        more = ["-Z", "build-std=std,panic_abort"]
    command = ["cargo", "build", "--release", "--locked", "--target", "wasm32-unknown-unknown", *more]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    built = TARGET / "template" / "wasm32-unknown-unknown" / "release" / "example_crypto_module.wasm"
    # What `wasm-tools component new` does.
    subprocess.run([TARGET / "tools" / "release" / "componentize", built, folder / "my-module.wasm"], check=True)
    return folder / "my-module.wasm"


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
    folder.run(*module, "rotate")
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
