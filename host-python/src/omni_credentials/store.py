"""A credentials file, opened: a mapping from names to values."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass
from os import PathLike
from types import TracebackType
from typing import Literal, TypeVar, overload

from . import _file, secret as _secret
from ._lock import Lock
from ._merge import rebase
from ._staged import Staged
from .errors import (
    AmbiguousCredential,
    CredentialNotFound,
    CredentialsError,
    FileError,
    InvalidInput,
    MissingInput,
    Refusal,
    UnreadableValue,
    of_argument,
    of_file,
)
from .identity import DEFAULT_KIND, DEFAULT_SCOPE, Credential, Identity, Scope, scope_text
from .module import Costs, Entry, Kek, Keyring, Module, RawIdentity

T = TypeVar("T")

# The longest credentials file, in bytes: the format's limit.
_MAX_FILE = 64 << 20
# How many scopes are remembered in their canonical form.
_MAX_SCOPES = 256


@dataclass(frozen=True, slots=True, repr=False)
class Contents:
    """What a file held when it was read. Its keyring is unlocked, and its seal was right."""

    file: bytes
    generation: int
    entries: dict[Identity, Entry]
    keyring_bytes: bytes
    kek: Kek
    keyring: Keyring


class Store(MutableMapping[str, bytes]):
    """The credentials of a file. Values are opened one at a time, when they are asked for; changes reach the file with
    `save`. Threads may share a store: their calls take turns.

        store = Store.open("credentials.omni")
        store["stripe"]                             # the value, bytes
        store.set("smtp", "hunter2", kind="password")
        store.save()

    As a mapping it goes from names to values. Where several credentials share a name, `kind`, `principal` and `scope`
    narrow the choice in `get`, `set` and `delete`; without them the name alone raises `AmbiguousCredential`.
    """

    def __init__(
        self,
        path: str,
        module: Module,
        contents: Contents,
        *,
        find_secret: Callable[[], bytes] | None,
        principal: str | None,
        wait: float,
    ) -> None:
        """Use `open` or `create`."""
        self._path = path
        self._module = module
        self._find_secret = find_secret
        self._principal = principal
        self._wait = wait
        self._mutex = threading.RLock()
        self._scopes: dict[str, str] = {}
        self._adopt(contents, {})

    @classmethod
    def open(
        cls,
        path: str | PathLike[str],
        secret: str | bytes | None = None,
        *,
        env_var: str = _secret.DEFAULT_VARIABLE,
        module: Module | str | PathLike[str] | bytes | None = None,
        module_digest: str | None = None,
        principal: str | None = None,
        wait: float = 10.0,
    ) -> Store:
        """Reads a file, unlocks its keyring and checks its seal.

        `secret` is the master secret. Without it, it is the value of the environment variable `env_var`, or is in the
        file that the variable of that name with `_FILE` at its end names. `module` is the crypto module: a loaded one,
        the file it is in, or its bytes; without it, the one that this package carries. With `module_digest`, its
        SHA-256, no other is accepted. `principal` is whose credentials this store is about: names stand for those
        credentials only, and what is set is theirs. `wait` is how many seconds `save` waits for another process that
        holds the file's lock.

        Raises `MissingInput`, `WrongMasterSecret`, `FileError`, `DamagedFile`, `NeedsNewer`, `ModuleError`.
        """
        path = os.fspath(path)
        loaded = _load_module(module, module_digest)
        file = _file.read(path, _MAX_FILE)
        find = functools.partial(_secret.find, secret, env_var)
        contents = _read(loaded, path, file, None, find)
        # What the environment has may change under a running program; what was given is not kept.
        return cls(
            path, loaded, contents, find_secret=find if secret is None else None, principal=principal, wait=wait
        )

    @classmethod
    def create(
        cls,
        path: str | PathLike[str],
        secret: str | bytes | None = None,
        *,
        env_var: str = _secret.DEFAULT_VARIABLE,
        module: Module | str | PathLike[str] | bytes | None = None,
        module_digest: str | None = None,
        principal: str | None = None,
        wait: float = 10.0,
        costs: Costs | None = None,
    ) -> Store:
        """Makes a file without credentials and opens it. `costs` are those of Argon2id where the secret is a password;
        `generate_master_key` makes a secret that needs none. The rest is as for `open`.

        Raises `FileError` where the file exists already, and what `open` raises.
        """
        path = os.fspath(path)
        _refuse_existing(path)
        loaded = _load_module(module, module_digest)
        find = functools.partial(_secret.find, secret, env_var)
        with _arguments("the master secret"):
            made = loaded.create_keyring(find(), costs)
        with loaded.files() as files:
            file = files.write(files.create(made.keyring), files.unlock(made.keyring, made.kek), 0)
        with Lock(path, wait) as lock:
            _refuse_existing(path)
            with Staged(lock.path, file) as staged:
                staged.publish()
        contents = _read(loaded, path, file, made.kek, None)
        return cls(
            path, loaded, contents, find_secret=find if secret is None else None, principal=principal, wait=wait
        )

    @property
    def path(self) -> str:
        """The file."""
        return self._path

    @property
    def module(self) -> Module:
        """The crypto module; its `digest` says which."""
        return self._module

    @property
    def generation(self) -> int:
        """How often the file was written, when it was last read or saved."""
        return self._contents.generation

    @property
    def changed(self) -> list[Identity]:
        """The credentials that were set or deleted and not saved yet."""
        with self._mutex:
            return sorted(self._pending)

    def credentials(
        self,
        name: str | None = None,
        *,
        kind: str | None = None,
        principal: str | None = None,
        scope: Scope | None = None,
    ) -> list[Identity]:
        """All credentials, or those that match, sorted. No value is opened, and the store's own `principal` does not
        narrow the choice."""
        with self._mutex:
            return self._matching(name, kind, principal, scope)

    def __getitem__(self, name: str) -> bytes:
        """The value of the credential of this name."""
        return self.credential(name).value

    @overload
    def get(
        self,
        name: str,
        /,
        default: None = None,
        *,
        kind: str | None = None,
        principal: str | None = None,
        scope: Scope | None = None,
    ) -> bytes | None: ...

    @overload
    def get(
        self,
        name: str,
        /,
        default: bytes | T,
        *,
        kind: str | None = None,
        principal: str | None = None,
        scope: Scope | None = None,
    ) -> bytes | T: ...

    def get(
        self,
        name: str,
        /,
        default: object = None,
        *,
        kind: str | None = None,
        principal: str | None = None,
        scope: Scope | None = None,
    ) -> object:
        """The value of the one credential that matches, or `default` where there is none."""
        try:
            return self.credential(name, kind=kind, principal=principal, scope=scope).value
        except CredentialNotFound:
            return default

    def credential(
        self,
        name: str,
        *,
        kind: str | None = None,
        principal: str | None = None,
        scope: Scope | None = None,
    ) -> Credential:
        """The one credential that matches, with its value.

        Raises `CredentialNotFound`, `AmbiguousCredential`, and `UnreadableValue` for a value that does not open.
        """
        with self._mutex:
            identity = self._the_one(name, kind, self._whose(principal), scope)
            return Credential(identity, _open(self._contents.keyring, identity, self._live[identity]))

    def __setitem__(self, name: str, value: str | bytes) -> None:
        """As `set`."""
        self.set(name, value)

    def set(
        self,
        name: str,
        value: str | bytes,
        *,
        kind: str | None = None,
        principal: str | None = None,
        scope: Scope | None = None,
    ) -> Identity:
        """Adds a credential or changes it; `save` writes it. Text is kept as UTF-8.

        What is not given is that of the one credential that matches; for a new one the kind is `credential`, the scope
        `{"all":true}`, and the principal that of the store or else `$PGUSER`, `$USER` or `$LOGNAME`. A value that is
        the same already is no change. Gives the identity.

        Raises `AmbiguousCredential` where several match, `InvalidInput`, and `MissingInput` without a principal.
        """
        value = _bytes(value)
        with self._mutex:
            found = self._matching(name, kind, self._whose(principal), scope)
            if len(found) > 1:
                raise _ambiguous(name, found)
            identity = found[0] if found else self._new_identity(name, kind, principal, scope)
            sealed = self._live.get(identity)
            if sealed is None or self._differs(identity, sealed, value):
                with _arguments(str(identity)):
                    sealed = self._contents.keyring.seal(identity.raw(), value)
                self._change(Entry(identity.raw(), sealed, False), identity)
            return identity

    def __delitem__(self, name: str) -> None:
        """As `delete`."""
        self.delete(name)

    def delete(
        self,
        name: str,
        *,
        kind: str | None = None,
        principal: str | None = None,
        scope: Scope | None = None,
    ) -> Identity:
        """Deletes the one credential that matches; `save` writes it. The file remembers the deletion, so that it
        reaches databases and branches. Gives the identity.

        Raises `CredentialNotFound` and `AmbiguousCredential`.
        """
        with self._mutex:
            identity = self._the_one(name, kind, self._whose(principal), scope)
            known = self._contents.entries.get(identity)
            self._change(Entry(identity.raw(), b"", True), identity)
            if known is None or known.deleted:
                # It was never saved.
                del self._pending[identity]
            return identity

    def __contains__(self, name: object) -> bool:
        """Whether there is a credential of this name."""
        with self._mutex:
            return isinstance(name, str) and bool(self._matching(name, None, self._principal, None))

    def __iter__(self) -> Iterator[str]:
        """The names, each once, sorted."""
        with self._mutex:
            return iter(dict.fromkeys(it.name for it in self._matching(None, None, self._principal, None)))

    def __len__(self) -> int:
        """The number of names."""
        return sum(1 for _ in self)

    def __eq__(self, other: object) -> bool:
        """A store is equal to itself only: to compare two would be to open all values."""
        return self is other

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        with self._mutex:
            return f"<Store {self._path!r}: {len(self._live)} credentials, {len(self._pending)} unsaved>"

    def save(self, *, prefer: Literal["ours", "theirs"] | None = None) -> bool:
        """Writes the changes into the file, under the lock that all hosts share. What others wrote meanwhile stays: the
        changes of both are merged. Where both changed the same credential in different ways, `prefer` says whose change
        counts. Untouched records keep their bytes. Gives whether the file was written.

        Whatever ends it, the file is the old one or the new one, and unsaved changes stay unsaved. Raises
        `MergeConflict`, `FileLocked`, and what `open` raises.
        """
        with self._mutex:
            if not self._pending:
                return False
            with self._locked(prefer) as lock:
                if not self._pending:
                    return False
                self._write(lock, list(self._pending.values()))
            return True

    def reload(self, *, prefer: Literal["ours", "theirs"] | None = None) -> bool:
        """Reads the file again. Unsaved changes stay unsaved, merged as by `save`. Gives whether the file had changed.

        Raises what `save` raises, but for `FileLocked`: reading takes no lock.
        """
        with self._mutex:
            return self._catch_up(self._path, prefer)

    def rotate_key(self, *, prefer: Literal["ours", "theirs"] | None = None) -> int:
        """Adds a data key and encrypts all values anew with it; saves changes as well. Older keys stay in the file, for
        its versions in git. Gives the number of values.

        Raises `UnreadableValue` for a value that does not open, and what `save` raises; then nothing was changed.
        """
        with self._mutex, self._locked(prefer) as lock:
            contents = self._contents
            with self._module.unlock(contents.keyring_bytes, contents.kek) as keyring:
                with _file_of(self._path):
                    keyring.add_key()
                entries = [entry for entry in self._pending.values() if entry.deleted]
                for identity, sealed in self._live.items():
                    value = _open(contents.keyring, identity, sealed)
                    entries.append(Entry(identity.raw(), keyring.seal(identity.raw(), value), False))
                self._write(lock, entries, keyring.to_bytes(), contents.kek)
            return len(self._live)

    def rewrap(
        self,
        new_secret: str | bytes,
        *,
        costs: Costs | None = None,
        prefer: Literal["ours", "theirs"] | None = None,
    ) -> None:
        """Changes the master secret; saves changes as well. No value is encrypted anew, and older versions of the file
        still open with the old secret: where it has leaked, change the credentials themselves.

        Raises `WrongMasterSecret` for what cannot be a secret, and what `save` raises; then nothing was changed.
        """
        with self._mutex, self._locked(prefer) as lock:
            contents = self._contents
            with _arguments("the new master secret"):
                made = self._module.rewrap(
                    contents.keyring_bytes, contents.kek, _secret.encode(new_secret), costs
                )
            self._write(lock, list(self._pending.values()), made.keyring, made.kek)

    def close(self) -> None:
        """Returns the memory of the crypto module, keys included, to the system. Unsaved changes are lost."""
        with self._mutex:
            self._contents.keyring.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _adopt(self, contents: Contents, pending: dict[Identity, Entry]) -> None:
        """Takes over what a file holds, and what is to be changed in it."""
        self._contents = contents
        self._pending: dict[Identity, Entry] = {}
        self._live = {identity: entry.sealed for identity, entry in contents.entries.items() if not entry.deleted}
        self._names: dict[str, set[Identity]] = {}
        for identity in self._live:
            self._names.setdefault(identity.name, set()).add(identity)
        for identity, entry in pending.items():
            self._change(entry, identity)

    def _change(self, entry: Entry, identity: Identity) -> None:
        self._pending[identity] = entry
        if entry.deleted:
            self._live.pop(identity, None)
            self._names.get(identity.name, set()).discard(identity)
        else:
            self._live[identity] = entry.sealed
            self._names.setdefault(identity.name, set()).add(identity)

    def _matching(
        self, name: str | None, kind: str | None, principal: str | None, scope: Scope | None
    ) -> list[Identity]:
        canonical = None if scope is None else self._canonical(scope)
        candidates = self._live if name is None else self._names.get(name, set())
        return sorted(
            identity
            for identity in candidates
            if kind in (None, identity.kind)
            and principal in (None, identity.principal)
            and canonical in (None, identity.scope)
        )

    def _the_one(self, name: str, kind: str | None, principal: str | None, scope: Scope | None) -> Identity:
        found = self._matching(name, kind, principal, scope)
        if not found:
            raise CredentialNotFound(f"there is no credential {name}", hint="what there is: store.credentials()")
        if len(found) > 1:
            raise _ambiguous(name, found)
        return found[0]

    def _new_identity(
        self, name: str, kind: str | None, principal: str | None, scope: Scope | None
    ) -> Identity:
        whose = self._whose(principal)
        return Identity(
            name,
            DEFAULT_KIND if kind is None else kind,
            _default_principal() if whose is None else whose,
            DEFAULT_SCOPE if scope is None else self._canonical(scope),
        )

    def _whose(self, principal: str | None) -> str | None:
        return self._principal if principal is None else principal

    def _canonical(self, scope: Scope) -> str:
        """The canonical form of a scope; the module knows it."""
        text = scope_text(scope)
        canonical = self._scopes.get(text)
        if canonical is None:
            raw = RawIdentity(b"n", b"k", b"p", text.encode("utf-8", "surrogatepass"))
            with self._module.files() as files, _arguments("the scope"):
                document = files.create(self._contents.keyring_bytes)
                files.put(document, [Entry(raw, b"", True)])
                canonical = files.entries(document)[0].identity.scope.decode()
            if len(self._scopes) >= _MAX_SCOPES:
                self._scopes.clear()
            self._scopes[text] = canonical
        return canonical

    def _differs(self, identity: Identity, sealed: bytes, value: bytes) -> bool:
        try:
            return _open(self._contents.keyring, identity, sealed) != value
        except UnreadableValue:
            return True

    @contextlib.contextmanager
    def _locked(self, prefer: Literal["ours", "theirs"] | None) -> Iterator[Lock]:
        """The lock, and what the file holds under it."""
        # A new master secret is derived from before the lock is taken: others need not wait for that.
        self._catch_up(self._path, prefer)
        with Lock(self._path, self._wait) as lock:
            self._catch_up(lock.path, prefer)
            yield lock

    def _catch_up(self, path: str, prefer: Literal["ours", "theirs"] | None) -> bool:
        """Reads what the file has become, and makes the unsaved changes those that it lacks."""
        file = _file.read(path, _MAX_FILE)
        before = self._contents
        if file == before.file:
            return False
        contents = _read(self._module, self._path, file, before.kek, self._find_secret, before)
        try:
            with _file_of(self._path):
                pending = rebase(self._module, before, contents, self._pending, prefer) if self._pending else {}
        except BaseException:
            _close_replaced(contents, before)
            raise
        _close_replaced(before, contents)
        self._adopt(contents, pending)
        return True

    def _write(
        self, lock: Lock, entries: list[Entry], keyring_bytes: bytes | None = None, kek: Kek | None = None
    ) -> None:
        """Replaces the file that was read under the lock. Another keyring comes with the KEK that unlocks it."""
        before = self._contents
        with self._module.files() as files, _arguments(self._path):
            document = files.parse(before.file)
            files.put(document, entries)
            if keyring_bytes is not None:
                files.set_keyring(document, keyring_bytes)
            kek = kek or before.kek
            handle = files.unlock(keyring_bytes or before.keyring_bytes, kek)
            file = files.write(document, handle, before.generation)
        # What cannot be read back is not put in place.
        contents = _read(self._module, self._path, file, kek, None, before)
        try:
            with Staged(lock.path, file) as staged:
                staged.publish()
        except BaseException:
            _close_replaced(contents, before)
            raise
        _close_replaced(before, contents)
        self._adopt(contents, {})


class _Meaning:
    """Gives a refusal in a block its meaning."""

    def __init__(self, meaning: Callable[[str, Refusal], CredentialsError], subject: str) -> None:
        self._meaning = meaning
        self._subject = subject

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Refusal):
            raise self._meaning(self._subject, error) from None


def _file_of(path: str) -> _Meaning:
    return _Meaning(of_file, path)


def _arguments(subject: str) -> _Meaning:
    return _Meaning(of_argument, subject)


def _read(
    module: Module,
    path: str,
    file: bytes,
    kek: Kek | None,
    find_secret: Callable[[], bytes] | None,
    before: Contents | None = None,
) -> Contents:
    """Parses and unlocks a file, with a KEK if there is one and it is right, otherwise with the master secret. The
    keyring of `before` is used again if it is the same."""
    with module.files() as files, _file_of(path):
        document = files.parse(file)
        keyring_bytes = files.keyring_bytes(document)
        if before is not None and before.keyring_bytes == keyring_bytes:
            kek, keyring = before.kek, before.keyring
        else:
            kek, keyring = _unlock(module, keyring_bytes, kek, find_secret)
        try:
            files.verify(document, files.unlock(keyring_bytes, kek))
            entries = {Identity.from_raw(entry.identity): entry for entry in files.entries(document)}
            generation = files.generation(document)
        except BaseException:
            if before is None or keyring is not before.keyring:
                keyring.close()
            raise
    return Contents(file, generation, entries, keyring_bytes, kek, keyring)


def _unlock(
    module: Module, keyring: bytes, kek: Kek | None, find_secret: Callable[[], bytes] | None
) -> tuple[Kek, Keyring]:
    if kek is not None:
        try:
            return kek, module.unlock(keyring, kek)
        except Refusal as refusal:
            # Somebody changed the master secret.
            if refusal.code != "wrong-master-secret" or find_secret is None:
                raise
    assert find_secret is not None, "without a KEK there is a way to a secret"
    kek = module.derive_kek(find_secret(), keyring)
    return kek, module.unlock(keyring, kek)


def _close_replaced(contents: Contents, by: Contents) -> None:
    """Returns the memory of a keyring, unless it is used on."""
    if contents.keyring is not by.keyring:
        contents.keyring.close()


def _open(keyring: Keyring, identity: Identity, sealed: bytes) -> bytes:
    try:
        return keyring.open(identity.raw(), sealed)
    except Refusal as refusal:
        raise UnreadableValue(f"{identity}: {refusal}", identity, refusal) from None


def _load_module(module: Module | str | PathLike[str] | bytes | None, digest: str | None) -> Module:
    if module is None and digest is None:
        return _default_module()
    if isinstance(module, Module):
        return module.pinned(digest)
    return Module.load(module, digest=digest)


@functools.cache
def _default_module() -> Module:
    return Module.load()


def _refuse_existing(path: str) -> None:
    if os.path.lexists(path):
        raise FileError(path, "exists")


def _default_principal() -> str:
    """Whose credential is meant when nobody says so: as libpq, the role of the session."""
    for variable in ("PGUSER", "USER", "LOGNAME"):
        if principal := os.environ.get(variable):
            return principal
    raise MissingInput(
        "whose credential it is must be said: neither PGUSER nor USER is set", hint="add principal=ROLE"
    )


def _ambiguous(name: str, found: list[Identity]) -> AmbiguousCredential:
    listed = "; ".join(str(identity) for identity in found)
    return AmbiguousCredential(
        f"there are {len(found)} credentials {name}: {listed}",
        found,
        hint="say which one with kind=, principal= or scope=",
    )


def _bytes(value: str | bytes) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise InvalidInput(f"a value is bytes or text, not {type(value).__name__}")
