"""The contract's calls, one by one: what `Store` is built on, for tests and other hosts.

A `Module` is a loaded crypto module; a `Keyring` an unlocked keyring that seals and opens; `Files` parses, reconciles and
writes credentials files. Everything here may raise `Refusal`, whose `code` is the contract's name for what is wrong,
and `ModuleError`. Fields are bytes, as the contract has them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike, fspath
from types import TracebackType
from typing import Any, Literal, TypeAlias

from wasmtime import component as wit

from . import _contract, _file, _load
from ._contract import CONTRACT, Conflict, Costs, Description, Entry, Limits, Suite
from ._engine import the_engine
from ._fork import Guarded, Level
from ._sandbox import Kind, Loaded, Sandbox
from .errors import FileError, InvalidInput, ModuleError
from .identity import RawIdentity

__all__ = [
    "CONTRACT",
    "Conflict",
    "Costs",
    "Description",
    "Document",
    "Entry",
    "Files",
    "Kek",
    "Key",
    "Keyring",
    "KeyringHandle",
    "Limits",
    "Module",
    "Preference",
    "Primitives",
    "ProtectedKeyring",
    "RawIdentity",
    "Reconciled",
    "Side",
    "Suite",
    "Wrapping",
]

Key: TypeAlias = Literal["current", "known", "unknown"]
Preference: TypeAlias = Literal["neither", "ours", "theirs"]
Wrapping: TypeAlias = Literal["same", "ours", "theirs", "conflict"]

# The module that this package carries.
_CARRIED = os.path.join(os.path.dirname(__file__), "modules", "xchacha20poly1305.wasm")
# The longest module that is read, in bytes.
_MAX_MODULE = 64 << 20
# Values longer than this, in bytes, are sealed and opened in a sandbox of their own: the small one would keep the
# memory.
_LARGE = 64 << 10


@dataclass(frozen=True, slots=True, repr=False)
class Kek:
    """The key that wraps a keyring's keys: 32 bytes, never shown. Python cannot promise to overwrite it."""

    secret: bytes

    def __repr__(self) -> str:
        return "Kek(redacted)"


@dataclass(frozen=True, slots=True)
class ProtectedKeyring:
    """A keyring, to be stored, and the KEK that opens it, to be kept in memory only."""

    keyring: bytes
    kek: Kek


class Module:
    """A loaded crypto module. Threads may share it."""

    def __init__(self, loaded: Loaded, digest: str) -> None:
        """Use `load`."""
        self._loaded = loaded
        self._digest = digest

    @classmethod
    def load(
        cls,
        source: str | PathLike[str] | bytes | None = None,
        *,
        digest: str | None = None,
        cache: bool = True,
        timeout: float = 120.0,
    ) -> Module:
        """Loads a module from a file, from its bytes, or the one that this package carries.

        With a `digest`, the SHA-256 in hexadecimal, no other bytes are accepted. `cache` keeps the compiled module for
        the next process, in the command's folder for caches. A call that takes longer than `timeout` seconds is ended.

        Raises `ModuleError` for bytes of another digest, for what is not a component, for one that imports anything but
        entropy, and for one that does not keep to the contract; `FileError` for a file that cannot be read.
        """
        wasm = _bytes_of(source)
        found = hashlib.sha256(wasm).hexdigest()
        _check_digest(found, digest)
        return cls(the_engine.work(lambda: _load.loaded(wasm, found, cache, timeout)), found)

    @property
    def digest(self) -> str:
        """The SHA-256 of the module's bytes, in hexadecimal: what it is pinned by."""
        return self._digest

    def pinned(self, digest: str | None) -> Module:
        """This module, if it has this digest; `ModuleError` otherwise."""
        _check_digest(self._digest, digest)
        return self

    @property
    def imports(self) -> list[str]:
        """The functions that the module imports, such as `wasi:random/random@0.2.3#get-random-bytes`."""
        return list(self._loaded.imports)

    def describe(self) -> Description:
        """What the module says of itself."""
        description: Description = self._once(_contract.DESCRIBE, kind=Kind.ROW)
        return description

    def create_keyring(self, secret: bytes, costs: Costs | None = None) -> ProtectedKeyring:
        """A new keyring with one key, under a master secret of 1 to 4,096 bytes. A generated master key is expanded and
        `costs` is not looked at; any other secret goes through Argon2id with `costs`, or with the module's default.

        Refused: `invalid-master-secret`, `kdf-out-of-bounds`.
        """
        return _protected(self._once(_contract.CREATE_KEYRING, secret, costs))

    def derive_kek(self, secret: bytes, keyring: bytes) -> Kek:
        """The KEK of a keyring.

        Refused: `wrong-master-secret`, `invalid-master-secret`, `kdf-out-of-bounds`, and as a damaged keyring is.
        """
        return _kek(self._once(_contract.DERIVE_KEK, secret, keyring))

    def rewrap(self, keyring: bytes, kek: Kek, new_secret: bytes, costs: Costs | None = None) -> ProtectedKeyring:
        """The same keys under another master secret. What was sealed stays as it is.

        Refused as `create_keyring` and `unlock` are.
        """
        return _protected(self._once(_contract.REWRAP, keyring, kek.secret, new_secret, costs))

    def canonical(self, identity: RawIdentity) -> RawIdentity:
        """An identity as it is compared: its scope in canonical form. Refused as an identity is."""
        canonical: RawIdentity = self._once(_contract.CANONICAL, identity, kind=Kind.ROW)
        return canonical

    def generate_master_key(self) -> bytes:
        """A fresh generated master key, ASCII."""
        key: bytes = self._once(_contract.GENERATE_MASTER_KEY, kind=Kind.ROW)
        return key

    def unlock(self, keyring: bytes, kek: Kek) -> Keyring:
        """Unlocks a keyring for sealing and opening.

        Refused: `wrong-master-secret`, `keyring-tampered`, `malformed`, `unknown-version`, `unknown-suite`.
        """
        return Keyring(self, keyring, kek)

    def files(self) -> Files:
        """A sandbox for documents. Close it after use: its memory is not returned before."""
        return Files(self._sandbox(Kind.WORK))

    def primitives(self) -> Primitives:
        """The published constructions that the module is made of."""
        return Primitives(self._sandbox(Kind.WORK))

    def _sandbox(self, kind: Kind) -> Sandbox:
        return Sandbox(self._loaded, kind)

    def _once(self, function: _contract.Function, *arguments: Any, kind: Kind = Kind.WORK) -> Any:
        """A call in a sandbox of its own, which is dropped at once: linear memory never shrinks."""
        with self._sandbox(kind) as sandbox:
            return sandbox.call(function, *arguments)


class Keyring(Guarded):
    """An unlocked keyring in a small sandbox of its own. Threads may share it.

    When a call fails its sandbox is dropped; the next call makes a new one from the keyring and the KEK, which are
    remembered here.
    """

    def __init__(self, module: Module, keyring: bytes, kek: Kek) -> None:
        """Use `Module.unlock`."""
        super().__init__(Level.KEYRING)
        self._module = module
        self._bytes = keyring
        self._kek = kek
        self._sandbox: Sandbox | None = None
        self._handle: wit.ResourceAny | None = None
        self._closed = False
        self._row()

    def seal(self, identity: RawIdentity, expires: int | None, value: bytes) -> bytes:
        """Seals a value of 0 to 1 MiB under the current key with a fresh nonce. `expires` is in seconds since 1970.

        Refused: `invalid-name`, `invalid-kind`, `invalid-principal`, `invalid-scope`, `scope-too-large`,
        `invalid-expiry`, `value-too-large`.
        """
        sealed: bytes = self._call(_contract.SEAL, identity.packed(), expires, value, size=len(value))
        return sealed

    def open(self, identity: RawIdentity, expires: int | None, sealed: bytes) -> bytes:
        """Opens a sealed value. Anything but what was sealed for this very identity and expiry is refused.

        Refused: `not-authentic`, `malformed`, `unknown-version`, `unknown-suite`, `unknown-key`, `invalid-expiry`, and
        as an identity is.
        """
        value: bytes = self._call(_contract.OPEN, identity.packed(), expires, sealed, size=len(sealed))
        return value

    def reseal(self, identity: RawIdentity, expires: int | None, sealed: bytes) -> bytes:
        """Seals again, under the current key, what was sealed for this very identity and expiry. It stays the same
        version of the credential, so that nothing counts as changed; a value of the current key comes back as it is.

        Refused as by `open`.
        """
        resealed: bytes = self._call(_contract.RESEAL, identity.packed(), expires, sealed, size=len(sealed))
        return resealed

    def key_of(self, sealed: bytes) -> Key:
        """What the key of a sealed value is to this keyring: the `current` one, a `known` older one, or `unknown`.
        Authenticates nothing.

        Refused: `malformed`, `unknown-version`, `unknown-suite`.
        """
        key: Key = self._call(_contract.KEY_OF, sealed, size=len(sealed))
        return key

    def to_bytes(self) -> bytes:
        """The keyring, to be stored."""
        keyring: bytes = self._call(_contract.TO_BYTES)
        return keyring

    def add_key(self) -> None:
        """Adds a fresh key and makes it current. Older keys stay, for opening. Refused: `too-many-keys`."""
        with self._lock:
            self._call(_contract.ADD_KEY)
            self._bytes = self.to_bytes()

    def unite(self, keyring: bytes, kek: Kek) -> int:
        """Takes over the keys of another keyring. The newest key of both becomes the current one, and the master secret
        stays. Returns how many keys were new.

        Refused: `too-many-keys`, `invalid-argument`, and as `Module.unlock` is.
        """
        with self._lock:
            sandbox, handle = self._row()
            other = sandbox.call(_contract.UNLOCK, keyring, kek.secret)
            try:
                added: int = sandbox.call(_contract.UNITE, handle, other)
            finally:
                sandbox.drop(other)
            self._bytes = self.to_bytes()
            return added

    def close(self) -> None:
        """Returns the sandbox's memory, keys included, to the system. Every later call is refused."""
        with self._lock:
            self._closed = True
            if self._sandbox is not None:
                self._sandbox.close()

    def __enter__(self) -> Keyring:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _row(self) -> tuple[Sandbox, wit.ResourceAny]:
        with self._lock:
            self._refuse_closed()
            sandbox, handle = self._sandbox, self._handle
            if sandbox is None or handle is None or not sandbox.usable:
                sandbox = self._module._sandbox(Kind.ROW)
                try:
                    handle = sandbox.call(_contract.UNLOCK, self._bytes, self._kek.secret)
                except BaseException:
                    sandbox.close()
                    raise
                self._sandbox, self._handle = sandbox, handle
            return sandbox, handle

    def _call(self, function: _contract.Function, *arguments: Any, size: int = 0) -> Any:
        if size <= _LARGE:
            sandbox, handle = self._row()
            return sandbox.call(function, handle, *arguments)
        self._refuse_closed()
        with self._module._sandbox(Kind.WORK) as sandbox:
            handle = sandbox.call(_contract.UNLOCK, self._bytes, self._kek.secret)
            return sandbox.call(function, handle, *arguments)

    def _refuse_closed(self) -> None:
        if self._closed:
            raise InvalidInput("the keyring is closed", code="closed")


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed or new document, good in the `Files` it came from."""

    handle: wit.ResourceAny = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyringHandle:
    """An unlocked keyring, good in the `Files` it came from."""

    handle: wit.ResourceAny = field(repr=False)


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two sides that are reconciled: what it holds, and the keyring of its header, unlocked. If the secret of
    this side is not at hand, the keyring is the other side's."""

    document: Document
    keyring: KeyringHandle


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What both sides are to hold."""

    # With the keyring of both in its header. It has no seal yet.
    document: Document
    keyring: KeyringHandle
    # Whose master secret the keyring of both has.
    wrapping: Wrapping
    # What ours must take over to hold what the document holds, and what theirs must.
    to_ours: list[Entry]
    to_theirs: list[Entry]
    # With a preference, the preferred side won; with `neither` the document is not to be used.
    conflicts: list[Conflict]


class Files:
    """A sandbox in which credentials files are parsed, reconciled and written. After a failure every further call
    fails: make another."""

    def __init__(self, sandbox: Sandbox) -> None:
        """Use `Module.files`."""
        self._sandbox = sandbox

    def create(self, keyring: bytes) -> Document:
        """An empty document of generation 0 carrying this keyring. Refused for what is not a keyring."""
        return Document(self._sandbox.call(_contract.CREATE, keyring))

    def parse(self, file: bytes) -> Document:
        """Parses a file: syntax, limits and canonical form, but no cryptography, so it needs no key. Refused with the
        line and what is wrong with it."""
        return Document(self._sandbox.call(_contract.PARSE, file))

    def parse_unsealed(self, file: bytes) -> Document:
        """Parses a file as far as its records are whole, whatever its trailer says."""
        return Document(self._sandbox.call(_contract.PARSE_UNSEALED, file))

    def unlock(self, keyring: bytes, kek: Kek) -> KeyringHandle:
        """Unlocks a keyring for use with these documents. Refused as `Module.unlock` is."""
        return KeyringHandle(self._sandbox.call(_contract.UNLOCK, keyring, kek.secret))

    def to_bytes(self, keyring: KeyringHandle) -> bytes:
        """An unlocked keyring, to be stored."""
        stored: bytes = self._sandbox.call(_contract.TO_BYTES, keyring.handle)
        return stored

    def keyring_bytes(self, document: Document) -> bytes:
        """The keyring in the header."""
        keyring: bytes = self._sandbox.call(_contract.KEYRING_BYTES, document.handle)
        return keyring

    def set_keyring(self, document: Document, keyring: bytes) -> None:
        """Replaces the keyring in the header. Refused for what is not a keyring."""
        self._sandbox.call(_contract.SET_KEYRING, document.handle, keyring)

    def verify(self, document: Document, keyring: KeyringHandle) -> None:
        """Checks the trailer's seal. To be called before a parsed document is believed.

        Refused: `seal-mismatch`, `unknown-key`.
        """
        self._sandbox.call(_contract.VERIFY, document.handle, keyring.handle)

    def generation(self, document: Document) -> int:
        """How often the file was written."""
        generation: int = self._sandbox.call(_contract.GENERATION, document.handle)
        return generation

    def entries(self, document: Document) -> list[Entry]:
        """All records, sorted by identity; scopes in canonical form."""
        entries: list[Entry] = self._sandbox.call(_contract.ENTRIES, document.handle)
        return entries

    def put(self, document: Document, entries: Sequence[Entry]) -> None:
        """Adds or replaces records, tombstones included. All or none.

        Refused: as an identity is, `malformed`, `too-many-records`.
        """
        self._sandbox.call(_contract.PUT, document.handle, entries)

    def table(self, document: Document, rows: bytes) -> Document:
        """The rows of a table as a document, to be reconciled with `document`. wit/file-store.wit says how rows are
        encoded.

        Refused as by `put`, and `invalid-argument` if `rows` ends in the middle of a row.
        """
        return Document(self._sandbox.call(_contract.TABLE, document.handle, rows))

    def table_changes(self, document: Document, gone: bytes, rows: bytes) -> Document:
        """As `table`, for a table that holds the live records of `document`, except that it lacks those of the identities
        in `gone` and has `rows` in addition.

        Refused as by `table`, and `invalid-argument` if `document` has no live record of an identity in `gone`.
        """
        return Document(self._sandbox.call(_contract.TABLE_CHANGES, document.handle, gone, rows))

    def forget_deletions(self, document: Document) -> None:
        """Forgets all deletions that the file lists. A side that last agreed with an older version of it can then no
        longer tell what was deleted, and `reconcile` reports a conflict instead of a resurrection."""
        self._sandbox.call(_contract.FORGET_DELETIONS, document.handle)

    def retire_keys(self, document: Document, keyring: KeyringHandle) -> int:
        """Drops the keys that no record of the document uses from a keyring, except for the current one. Returns how
        many."""
        count: int = self._sandbox.call(_contract.RETIRE_KEYS, document.handle, keyring.handle)
        return count

    def manifest(self, document: Document) -> bytes:
        """What the document holds: an ancestor for a later `reconcile`."""
        manifest: bytes = self._sandbox.call(_contract.MANIFEST, document.handle)
        return manifest

    def matches(self, document: Document, manifest: bytes) -> bool:
        """Whether the document holds the versions of a manifest, and no others. Refused: `malformed`."""
        same: bool = self._sandbox.call(_contract.MATCHES, document.handle, manifest)
        return same

    def write(self, document: Document, keyring: KeyringHandle, at_least: int) -> bytes:
        """The file's bytes, with the generation one above the higher of the document's own and `at_least`, sealed with
        the current key. Untouched records keep their bytes.

        Refused: `file-too-large`, `too-many-records`, `invalid-argument` for another keyring.
        """
        file: bytes = self._sandbox.call(_contract.WRITE, document.handle, keyring.handle, at_least)
        return file

    def rewrite(self, document: Document, keyring: KeyringHandle, at_least: int) -> bytes:
        """As `write`, and the document becomes what the bytes say, as `parse` would make it."""
        file: bytes = self._sandbox.call(_contract.REWRITE, document.handle, keyring.handle, at_least)
        return file

    def reconcile(
        self,
        ancestor: bytes,
        ours: Side,
        theirs: Side,
        *,
        ours_complete: bool = False,
        prefer: Preference = "neither",
    ) -> Reconciled:
        """Makes two sides one. `ancestor` is the manifest of what both last agreed on, or empty if that is not known;
        with `ours_complete` a record that ours lacks was deleted by ours.

        Refused: `malformed` for an ancestor that is no manifest; `wrong-master-secret` and `unknown-key` if a side came
        with the other's keyring and that is not enough; `too-many-keys`, `too-many-records`, `invalid-argument`.
        """
        found = self._sandbox.call(
            _contract.RECONCILE,
            ancestor,
            ours.document.handle,
            ours.keyring.handle,
            theirs.document.handle,
            theirs.keyring.handle,
            ours_complete,
            prefer,
        )
        document, keyring = Document(found.document), KeyringHandle(found.keyring)
        return Reconciled(document, keyring, found.wrapping, found.to_ours, found.to_theirs, found.conflicts)

    def agreed(self, ancestor: bytes, ours: Document, theirs: Document, generation: int) -> bytes:
        """The manifest that both sides now agree on; ours is complete, and `generation` is that of the file of theirs.
        Refused: `malformed` for an ancestor that is no manifest."""
        manifest: bytes = self._sandbox.call(_contract.AGREED, ancestor, ours.handle, theirs.handle, generation)
        return manifest

    def agreed_changes(self, ancestor: bytes, ours: Document, theirs: Document, generation: int) -> bytes:
        """The changes that make `ancestor` what `agreed` returns. They go before its manifest, after the changes that
        stand there already. Refused: `malformed` for an ancestor that is no manifest, as an empty one."""
        changes: bytes = self._sandbox.call(
            _contract.AGREED_CHANGES, ancestor, ours.handle, theirs.handle, generation
        )
        return changes

    def fold(self, manifest: bytes) -> bytes:
        """One manifest of a manifest and the changes before it. Refused: `malformed`."""
        folded: bytes = self._sandbox.call(_contract.FOLD, manifest)
        return folded

    def settled(self, confirmed: bytes, pending: bytes, file: Document) -> bytes:
        """What both sides last agreed on if it is not known whether a file that holds `pending` came into place after
        `confirmed`, given the file as it is now. Refused: `malformed`."""
        manifest: bytes = self._sandbox.call(_contract.SETTLED, confirmed, pending, file.handle)
        return manifest

    def drop(self, document: Document) -> None:
        """Forgets a document before the sandbox is closed."""
        self._sandbox.drop(document.handle)

    def close(self) -> None:
        """Returns the sandbox's memory to the system; every document is gone."""
        self._sandbox.close()

    def __enter__(self) -> Files:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Primitives:
    """The published constructions that a module is made of, for known-answer tests."""

    def __init__(self, sandbox: Sandbox) -> None:
        """Use `Module.primitives`."""
        self._sandbox = sandbox

    def aead_open(self, key: bytes, nonce: bytes, aad: bytes, sealed: bytes) -> bytes:
        """The suite's AEAD, opened with explicit key (32 bytes), nonce (the suite's length) and associated data.

        Refused: `not-authentic`, `invalid-argument`.
        """
        value: bytes = self._sandbox.call(_contract.AEAD_OPEN, key, nonce, aad, sealed)
        return value

    def hkdf_sha256(self, ikm: bytes, salt: bytes, info: bytes, length: int) -> bytes:
        """HKDF-SHA-256 (RFC 5869), extract and expand; `length` at most 8,160 bytes. Refused: `invalid-argument`."""
        key: bytes = self._sandbox.call(_contract.HKDF_SHA256, ikm, salt, info, length)
        return key

    def argon2id(self, password: bytes, salt: bytes, costs: Costs, length: int) -> bytes:
        """Argon2id version 0x13 (RFC 9106) without secret and associated data; a tag of `length` bytes, 4 to 1,024.

        Refused: `kdf-out-of-bounds`, `invalid-argument`.
        """
        tag: bytes = self._sandbox.call(_contract.ARGON2ID, password, salt, *costs, length)
        return tag

    def close(self) -> None:
        """Returns the sandbox's memory to the system."""
        self._sandbox.close()

    def __enter__(self) -> Primitives:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _bytes_of(source: str | PathLike[str] | bytes | None) -> bytes:
    if source is None:
        try:
            return _file.read(_CARRIED, _MAX_MODULE)
        except FileError:
            raise ModuleError("this package carries no crypto module: it was not built by ./just wheel") from None
    return source if isinstance(source, bytes) else _file.read(fspath(source), _MAX_MODULE)


def _check_digest(found: str, expected: str | None) -> None:
    if expected is not None and found != expected.lower():
        raise ModuleError(f"the crypto module has digest {found}, but {expected} is expected")


def _protected(made: _contract.RawProtectedKeyring) -> ProtectedKeyring:
    return ProtectedKeyring(made.keyring, _kek(made.kek))


def _kek(secret: bytes) -> Kek:
    if len(secret) != 32:
        raise ModuleError(f"the crypto module does not keep to the contract {CONTRACT}: a KEK of {len(secret)} bytes")
    return Kek(secret)
