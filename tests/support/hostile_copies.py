"""Copies of the store whose keyring belongs to a module that no test would install: written into the tables directly."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from conftest import Database

MODULES = Path(os.environ["OMNI_CREDENTIALS_MODULES"])
CASES = sorted(path.stem for path in (MODULES / "hostile").glob("*.wasm"))

# What the module `by-length` does with a value of so many bytes.
TRAP, LOOP, MEMORY, RECURSION, LIST = 101, 102, 103, 104, 105
GOOD = 64


def component(case: str) -> bytes:
    return (MODULES / "hostile" / f"{case}.wasm").read_bytes()


def hostile_copy(database: Database, case: str, lengths: tuple[int, ...] = (GOOD,), schema: str = "evil") -> None:
    """Makes the copy `schema` with one row for each of `lengths`, named after it, sealed by the module `case`."""
    wasm = component(case)
    database.run(f"create schema {schema}")
    database.run(f"select omni_credentials.instantiate('{schema}')")
    for length in lengths:
        # Without a keyring, as in the middle of a restore, the bytes are believed.
        database.run(
            f"insert into {schema}.encrypted_credentials (name, value) values ('n{length}', %s)", bytes([1] * length)
        )
    database.run(
        "insert into omni_credentials.crypto_modules (digest, wasm, name, version, contract, suite) "
        "values (%s, %s, %s, '0', '', '')",
        hashlib.sha256(wasm).digest(),
        wasm,
        case,
    )
    database.run(f"insert into {schema}.credentials_keyrings values (1, %s, 'keyring')", hashlib.sha256(wasm).digest())


def read(length: int, schema: str = "evil") -> str:
    """The statement that opens the row of that length."""
    return f"select value from {schema}.credentials where name = 'n{length}'"
