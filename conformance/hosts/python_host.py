#!/usr/bin/env python3
"""The Python host's driver for the matrix of hosts: `python_host.py MODULE.wasm`.

Reads a JSON object a line, answers each with one: {"ok": …} or {"refused": {"class": …, "line": …, "found": …}}. Bytes
are hexadecimal. What the package's `Store` does is done through it, the rest through `omni_credentials.module`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# The Python with the wasmtime package, and the package as its wheel unpacks.
_INTERPRETER = os.environ.get("OMNI_CREDENTIALS_PYTHON", sys.executable)
if __name__ == "__main__" and os.path.abspath(_INTERPRETER) != os.path.abspath(sys.executable):
    os.execv(_INTERPRETER, [_INTERPRETER, *sys.argv])
sys.path.insert(0, str(Path(os.environ["CARGO_TARGET_DIR"]) / "python" / "site"))

from omni_credentials import CredentialNotFound, CredentialsError, ModuleError, Store  # noqa: E402
from omni_credentials._expiry import to_datetime  # noqa: E402
from omni_credentials.module import Costs, Document, Entry, Files, Kek, Keyring, Module, RawIdentity, Side  # noqa: E402

Request = dict[str, Any]


def suite(module: Module, request: Request) -> int:
    return module.describe().suite.id


def aead_open(module: Module, request: Request) -> bytes:
    with module.primitives() as primitives:
        return primitives.aead_open(*(_bytes(request, name) for name in ("key", "nonce", "aad", "sealed")))


def hkdf_sha256(module: Module, request: Request) -> bytes:
    with module.primitives() as primitives:
        return primitives.hkdf_sha256(*(_bytes(request, name) for name in ("ikm", "salt", "info")), request["length"])


def argon2id(module: Module, request: Request) -> bytes:
    costs = Costs(request["memory_kib"], request["passes"], request["lanes"])
    with module.primitives() as primitives:
        return primitives.argon2id(_bytes(request, "password"), _bytes(request, "salt"), costs, request["length"])


def derive_kek(module: Module, request: Request) -> bytes:
    return module.derive_kek(_bytes(request, "secret"), _bytes(request, "keyring")).secret


def unlock(module: Module, request: Request) -> bytes:
    with _keyring(module, request) as keyring:
        return keyring.to_bytes()


def seal(module: Module, request: Request) -> bytes:
    with _keyring(module, request) as keyring:
        return keyring.seal(_identity(request), _expires(request), _bytes(request, "value"))


def open_(module: Module, request: Request) -> bytes:
    with _keyring(module, request) as keyring:
        return keyring.open(_identity(request), _expires(request), _bytes(request, "sealed"))


def canonical_scope(module: Module, request: Request) -> bytes:
    identity = RawIdentity(b"n", b"k", b"p", _bytes(request, "scope"))
    with module.files() as files:
        document = files.create(_bytes(request, "keyring"))
        files.put(document, [Entry(identity, None, b"", True)])
        return files.entries(document)[0].identity.scope


def read_file(module: Module, request: Request) -> dict[str, object]:
    kek = _kek(request)
    with module.files() as files:
        document = files.parse(Path(request["file"]).read_bytes())
        keyring = files.keyring_bytes(document)
        files.verify(document, files.unlock(keyring, kek))
        with module.unlock(keyring, kek) as keys:
            return {"records": _records(files, document, keys), "generation": files.generation(document)}


def reconcile(module: Module, request: Request) -> dict[str, object]:
    keks = [None if request[name] is None else Kek(_bytes(request, name)) for name in ("our_kek", "their_kek")]
    ancestor, prefer = _bytes(request, "ancestor"), request["prefer"]
    with module.files() as files:
        documents = [files.parse(Path(request[name]).read_bytes()) for name in ("ours", "theirs")]
        handles = [
            None if kek is None else files.unlock(files.keyring_bytes(document), kek)
            for document, kek in zip(documents, keks, strict=True)
        ]
        # Where a secret is not at hand, a side comes with the keyring of the other.
        ours = Side(documents[0], handles[0] or handles[1])
        theirs = Side(documents[1], handles[1] or handles[0])
        for side in (ours, theirs):
            files.verify(side.document, side.keyring)
        found = files.reconcile(ancestor, ours, theirs, ours_complete=request["ours_complete"], prefer=prefer)
        agreement = ancestor, ours.document, theirs.document, files.generation(theirs.document)
        agreed, changes = files.agreed(*agreement), files.agreed_changes(*agreement) if ancestor else b""
        ours_leads = found.wrapping in ("same", "ours") or (found.wrapping == "conflict" and prefer == "ours")
        kek = (keks[0] or keks[1]) if ours_leads else (keks[1] or keks[0])
        with module.unlock(files.keyring_bytes(found.document), kek) as keys:
            return {
                "records": _records(files, found.document, keys),
                "to_ours": [entry.identity.name.decode() for entry in found.to_ours],
                "to_theirs": [entry.identity.name.decode() for entry in found.to_theirs],
                "conflicts": [[conflict.identity.name.decode(), conflict.reason] for conflict in found.conflicts],
                "wrapping": found.wrapping,
                "manifest": files.manifest(found.document),
                "agreed": agreed,
                "changes": changes,
            }


def set_(module: Module, request: Request) -> None:
    which = request["identity"]
    narrow = {field: which[field] for field in ("kind", "principal", "scope")}
    with _store(module, request) as store:
        if request["value"] is None:
            store.delete(which["name"], **narrow)
        else:
            expires = to_datetime(_expires(request))
            store.set(which["name"], _bytes(request, "value"), **narrow, expires=expires)
        store.save()


def get(module: Module, request: Request) -> bytes:
    which = request["identity"]
    with _store(module, request) as store:
        return store.credential(
            which["name"], kind=which["kind"], principal=which["principal"], scope=which["scope"]
        ).value


OPERATIONS: dict[str, Callable[[Module, Request], object]] = {
    "suite": suite,
    "aead-open": aead_open,
    "hkdf-sha256": hkdf_sha256,
    "argon2id": argon2id,
    "derive-kek": derive_kek,
    "unlock": unlock,
    "seal": seal,
    "open": open_,
    "canonical-scope": canonical_scope,
    "read-file": read_file,
    "reconcile": reconcile,
    "set": set_,
    "get": get,
}


def answer(module: Module, request: Request) -> dict[str, object]:
    operation = OPERATIONS.get(request["op"])
    if operation is None:
        return {"unsupported": True}
    try:
        return {"ok": _plain(operation(module, request))}
    except CredentialsError as error:
        return {"refused": {"class": _class(error), "line": error.line, "found": error.found}}


def main() -> None:
    module = Module.load(sys.argv[1])
    for line in sys.stdin:
        print(json.dumps(answer(module, json.loads(line))), flush=True)


def _class(error: CredentialsError) -> str:
    """The contract's name, or for what never reached the module, the class."""
    if isinstance(error, ModuleError):
        return "trap"
    if isinstance(error, CredentialNotFound):
        return "not-found"
    return error.code or type(error).__name__


def _bytes(request: Request, name: str) -> bytes:
    return bytes.fromhex(request[name])


def _kek(request: Request) -> Kek:
    return Kek(_bytes(request, "kek"))


def _identity(request: Request) -> RawIdentity:
    which = request["identity"]
    return RawIdentity(*(which[field].encode() for field in RawIdentity._fields))


def _expires(request: Request) -> int | None:
    expires: int | None = request["identity"].get("expires")
    return expires


def _keyring(module: Module, request: Request) -> Keyring:
    return module.unlock(_bytes(request, "keyring"), _kek(request))


@contextmanager
def _store(module: Module, request: Request) -> Iterator[Store]:
    with Store.open(request["file"], _bytes(request, "secret"), module=module, wait=60) as store:
        yield store


def _records(files: Files, document: Document, keys: Keyring) -> list[dict[str, object]]:
    return [
        dict(zip(RawIdentity._fields, (field.decode() for field in entry.identity), strict=True))
        | ({} if entry.expires is None else {"expires": entry.expires})
        | {"value": None if entry.deleted else _value(keys, entry)}
        for entry in files.entries(document)
    ]


def _value(keys: Keyring, entry: Entry) -> bytes | str:
    """The value, or why it does not open."""
    try:
        return keys.open(entry.identity, entry.expires, entry.sealed)
    except CredentialsError as error:
        return _class(error)


def _plain(value: object) -> object:
    """For JSON."""
    match value:
        case bytes():
            return value.hex()
        case dict():
            return {key: _plain(item) for key, item in value.items()}
        case list():
            return [_plain(item) for item in value]
        case _:
            return value


if __name__ == "__main__":
    main()
