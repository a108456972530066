"""Builds modules/template outside the repository, as somebody who writes a module of their own would."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
TARGET = Path(os.environ["CARGO_TARGET_DIR"])
TRIPLE = "wasm32-unknown-unknown"


def copy(folder: Path) -> Path:
    """The template with wit/ beside it, in a new folder where nothing else of the repository is."""
    shutil.copytree(ROOT / "modules" / "template", folder)
    shutil.copytree(ROOT / "wit", folder / "wit")
    return folder


# Builds in a fraction of the time; the module is larger and slower.
QUICK = {
    "CARGO_PROFILE_RELEASE_LTO": "off",
    "CARGO_PROFILE_RELEASE_OPT_LEVEL": "1",
    "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "16",
}


def build(folder: Path, *, profile: dict[str, str] | None = None) -> Path:
    """The component that the crate in `folder` is built into."""
    environment = os.environ | {"CARGO_TARGET_DIR": str(TARGET / "template")} | (profile or {})
    more = []
    ask = ["rustc", "--print", "target-libdir", "--target", TRIPLE]
    libraries = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
    if not list(Path(libraries).glob("libcore-*.rlib")):
        # A Rust without the target's standard library builds it, as tools/build-modules.sh does.
        environment["RUSTC_BOOTSTRAP"] = "1"
        more = ["-Z", "build-std=std,panic_abort"]
    command = ["cargo", "build", "--release", "--locked", "--target", TRIPLE, *more]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    built = TARGET / "template" / TRIPLE / "release" / "example_crypto_module.wasm"
    # What `wasm-tools component new` does.
    subprocess.run([TARGET / "tools" / "debug" / "componentize", built, folder / "my-module.wasm"], check=True)
    return folder / "my-module.wasm"
