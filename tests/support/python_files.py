"""Fixtures of the Python host's tests: a folder that the command and the Python host share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import KEY, Folder
from conftest import VARIABLE
from omni_credentials import Costs, Store

# Argon2id for tests of other things.
CHEAP = Costs(memory_kib=64, passes=1, lanes=1)
# Compiled modules of all these tests, the command's and Python's.
CACHE = Path(os.environ["CARGO_TARGET_DIR"]) / "python" / "cache"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """A folder with a file that the command made; this process has the same user and the same secret."""
    (path := tmp_path / "work").mkdir()
    folder = Folder(path, {"XDG_CACHE_HOME": str(CACHE)})
    for name in ("PGUSER", "LOGNAME", f"{VARIABLE}_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"USER": "app", VARIABLE: KEY, "XDG_CACHE_HOME": str(CACHE)}.items():
        monkeypatch.setenv(name, value)
    folder.run("init")
    return folder


@pytest.fixture
def store(folder: Folder) -> Iterator[Store]:
    """The folder's file, opened."""
    with Store.open(folder.file) as store:
        yield store
