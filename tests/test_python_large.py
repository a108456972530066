"""The Python host: files of many megabytes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command import Folder
from conftest import PYTHON_HOST
from omni_credentials import ModuleError, Store, _bulk
from omni_credentials._contract import FUNCTIONS, TYPES
from omni_credentials.module import Entry, Module, RawIdentity
from python_files import folder, store  # fixtures

MODULES = Path(os.environ["OMNI_CREDENTIALS_MODULES"])


def large_file(store: Store, folder: Folder) -> int:
    """Fills the file to more than 25 MB: many small values, and some of the largest."""
    contents = store._contents
    with store.module.files() as files:
        document = files.parse(contents.file)
        small, large = (
            contents.keyring.seal(RawIdentity(b"x", b"k", b"p", b"{}"), None, b"x" * size) for size in (40, 1_000_000)
        )
        files.put(document, [
            Entry(RawIdentity(f"{'é' if it % 2 else 'name'} {it}".encode(), b"credential", b"app", b'{"all":true}'), None,
                  large if it < 17 else small, False)
            for it in range(5_017)
        ])
        written = files.write(document, files.unlock(contents.keyring_bytes, contents.kek), 0)
    assert len(written) > 25_000_000
    folder.file.write_bytes(written)
    return len(written)


def test_a_large_file(folder: Folder, store: Store) -> None:
    """README: up to 64 MiB. It is read, changed, merged with what the command did, and written."""
    large_file(store, folder)
    store.reload()
    assert len(store) == 5_017
    store["ours"] = "x" * 900_000
    folder.set("theirs", "y" * 900_000)
    before = folder.file.read_bytes()
    assert store.save() and store["theirs"] == b"y" * 900_000
    after = folder.file.read_bytes()
    # What did not change has its bytes.
    assert len(after) > len(before) and set(before.split(b"\n\n")[1:-1]) <= set(after.split(b"\n\n")[1:-1])
    assert folder.get("ours") == b"x" * 900_000 and folder.get("theirs") == b"y" * 900_000
    assert len(folder.run("list", "--json").json["credentials"]) == 5_019


def test_the_memory_that_a_large_file_takes(folder: Folder, store: Store) -> None:
    """README: some ten times its size. In lists of bytes it would be eighty times, and fail."""
    size = large_file(store, folder)
    code = """
import resource
from omni_credentials import *
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
store = Store.open("credentials.omni")
store["one more"] = "x"
store.save()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder.path, capture_output=True, text=True, check=True,
                          env=folder.environment | {"PYTHONPATH": str(PYTHON_HOST)})
    grown = int(done.stdout) << 10
    assert grown < 16 * size, f"{grown / size:.1f} times"
    assert folder.get("one more") == b"x"


def test_a_module_with_late_imports(store: Store, folder: Folder) -> None:
    """It works, but on small files only: there is nothing that large ones could pass through."""
    carried = (MODULES / "xchacha20poly1305.wasm").read_bytes()
    start, names = _bulk._imports(carried)
    # The module in a component that imports for it, but only after it.
    interfaces = list(dict.fromkeys([*TYPES, *(function.interface for function in FUNCTIONS)]))
    count = len(names)
    late = b"".join((
        _bulk._PREAMBLE,
        _bulk._section(_bulk._COMPONENT, carried),
        start,
        _bulk._section(_bulk._INSTANCE, _bulk._vector([_bulk._instantiate(0, [(name, at) for at, name in enumerate(names)])])),
        _bulk._section(_bulk._ALIAS, _bulk._vector([b"\5\0" + _bulk._leb(count) + _bulk._text(it) for it in interfaces])),
        _bulk._section(_bulk._EXPORT, _bulk._vector([
            b"\0" + _bulk._text(name) + b"\5" + _bulk._leb(count + 1 + at) + b"\0" for at, name in enumerate(interfaces)
        ])),
    ))
    module = Module.load(late, cache=False)
    assert module.imports == store.module.imports
    with module.files() as files:
        keyring = files.unlock(store._contents.keyring_bytes, store._contents.kek)
        assert files.write(files.parse(folder.file.read_bytes()), keyring, 0)
        with pytest.raises(ModuleError, match="whose imports are not at its start") as caught:
            files.parse(b"x" * 21_000_000)
        assert "use the command omni-credentials" in str(caught.value.hint)
