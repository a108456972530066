"""A credentials file, opened: a mapping from names to values."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from os import PathLike
from types import TracebackType
from typing import Literal

from . import _file, secret as _secret
from ._aside import aside
from ._contents import (
    Contents,
    close_replaced,
    read,
    reconcile,
    refusals_of_argument,
    refusals_of_file,
    rekeyed,
    reseal_value,
)
from ._credentials import Credentials
from ._lock import Lock
from ._staged import Staged
from .errors import FileError, OlderFile
from .module import Costs, Entry, Module

# The longest credentials file, in bytes: the format's limit.
_MAX_FILE = 64 << 20
# Where the code of this package is.
_PACKAGE = os.path.join(os.path.dirname(__file__), "")


class Store(Credentials):
    """The credentials of a file. Values are opened one at a time, when they are asked for; changes reach the file with
    `save`. Threads may share a store: their calls take turns.

        store = Store.open("credentials.omni")
        store["stripe"]                             # the value, bytes
        store.set("smtp", "hunter2", kind="password")
        store.save()

    As a mapping it goes from names to values. If several credentials share a name, `kind`, `principal` and `scope`
    select one in `get`, `set` and `delete`; with the name alone they raise `AmbiguousCredential`.
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
        super().__init__(module, contents, principal)
        self._path = path
        self._find_secret = find_secret
        self._wait = wait
        # The highest generation that the file had: it never goes back by what is saved here.
        self._newest = contents.generation

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
        SHA-256, no other is accepted. With `principal`, names stand only for credentials of that role,
        and new credentials belong to it. `wait` is how many seconds `save` waits for another process that
        holds the file's lock.

        Raises `MissingInput`, `WrongMasterSecret`, `FileError`, `DamagedFile`, `NeedsNewer`, `ModuleError`.
        """
        path, find = _resolved(path, secret, env_var)
        loaded = _load_module(module, module_digest)
        file = _read(path)
        contents = read(loaded, path, file, None, find)
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
        """Makes a file without credentials and opens it. `costs` are those of Argon2id if the secret is a password;
        `generate_master_key` makes a secret that needs none. The rest is as for `open`.

        Raises `FileError` if the file already exists, and what `open` raises.
        """
        path, find = _resolved(path, secret, env_var)
        _refuse_existing(path)
        loaded = _load_module(module, module_digest)
        with refusals_of_argument("the master secret"):
            made = loaded.create_keyring(find(), costs)
        with loaded.files() as files:
            file = files.write(files.create(made.keyring), files.unlock(made.keyring, made.kek), 0)
        with Lock(path, wait) as lock:
            if lock.exists():
                raise FileError(path, "exists")
            with lock.stage(file) as staged:
                staged.publish()
        contents = read(loaded, path, file, made.kek, None)
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

    def __repr__(self) -> str:
        with self._lock:
            if self._closed:
                return f"<Store {self._path!r}: closed>"
            return f"<Store {self._path!r}: {len(self._live)} credentials, {len(self._pending)} unsaved>"

    def save(self, *, prefer: Literal["ours", "theirs"] | None = None) -> bool:
        """Writes the changes into the file, under the lock that all hosts share. What others wrote meanwhile stays: the
        changes of both are merged. If both changed the same credential in different ways, `prefer` says which change
        counts. Records that did not change keep their bytes. Returns whether the file was written.

        Whatever goes wrong, the file is the old one or the new one, and unsaved changes stay unsaved. Raises
        `MergeConflict`, `FileLocked`, and what `open` raises.
        """
        with self._in_use():
            if not self._pending:
                return False
            with self._locked(prefer) as lock:
                if not self._pending:
                    return False
                self._write(lock, list(self._pending.values()))
            return True

    def reload(self, *, prefer: Literal["ours", "theirs"] | None = None) -> bool:
        """Reads the file again. Unsaved changes stay unsaved, merged as by `save`. Returns whether the file changed.

        Raises what `save` raises, but for `FileLocked`: reading takes no lock.
        """
        with self._in_use():
            return self._catch_up(_read(self._path), prefer)

    def rotate_key(self, *, prefer: Literal["ours", "theirs"] | None = None) -> int:
        """Adds a data key and encrypts every value with it; saves changes as well. Every value stays the version that it
        was, so that a change made elsewhere does not conflict with it. Keys that no value uses any more are removed;
        the file's versions in git keep those that they need. Returns the number of values.

        Raises `UnreadableValue` for a value that does not open, and what `save` raises; then nothing was changed.
        """
        with self._in_use(), self._locked(prefer) as lock:
            contents = self._contents
            with self._module.unlock(contents.keyring_bytes, contents.kek) as keyring:
                with refusals_of_file(self._path):
                    keyring.add_key()
                entries = [entry for entry in self._pending.values() if entry.deleted]
                for identity, entry in self._live.items():
                    entries.append(reseal_value(keyring, identity, entry))
                self._write(lock, entries, keyring.to_bytes(), retire=True)
            return len(self._live)

    def rotate_master_secret(
        self,
        new_secret: str | bytes,
        *,
        costs: Costs | None = None,
        prefer: Literal["ours", "theirs"] | None = None,
    ) -> None:
        """Replaces the master secret; saves changes as well. No value is encrypted again, and older versions of the
        file still open with the old secret: if it has leaked, replace the credentials themselves.

        Raises `WrongMasterSecret` for what cannot be a secret, `MasterSecretConflict` if another process has replaced
        the master secret since this store last read the file, and what `save` raises; then nothing was changed.
        """
        with self._in_use():
            contents, pending = self._contents, self._pending
            with refusals_of_argument("the new master secret"):
                made = self._module.rewrap(
                    contents.keyring_bytes, contents.kek, _secret.encode(new_secret), costs
                )
            known = None
            try:
                # A change that the file lacks, like any other; but it is not kept for a later attempt.
                self._adopt(rekeyed(self._module, contents, made), pending)
                with self._locked(prefer) as lock:
                    known = self._contents
                    # Unless the file's own master secret is preferred.
                    if self._pending or known.rekeyed:
                        self._write(lock, list(self._pending.values()))
            except BaseException:
                # What was published stays, even if an exception came after it.
                if known is None or self._contents is known:
                    close_replaced(self._contents, contents)
                    self._adopt(contents, pending)
                raise

    def close(self) -> None:
        """Returns the memory of the crypto module, keys included, to the system. Unsaved changes are lost, and whatever
        is asked of the store afterwards raises `InvalidInput`."""
        with self._lock:
            self._closed = True
            self._contents.keyring.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def _locked(self, prefer: Literal["ours", "theirs"] | None) -> Iterator[Lock]:
        """The lock, and what the file holds under it."""
        # A new master secret is derived from before the lock is taken: others need not wait for that.
        self._catch_up(_read(self._path), prefer)
        with Lock(self._path, self._wait) as lock:
            self._catch_up(lock.read(_MAX_FILE), prefer)
            yield lock

    def _catch_up(self, file: bytes, prefer: Literal["ours", "theirs"] | None) -> bool:
        """Takes over what the file has become, and makes the unsaved changes those that it lacks."""
        before = self._contents
        if file == before.file:
            return False
        contents = read(self._module, self._path, file, before.file_kek, self._find_secret, before)
        try:
            if self._pending or before.rekeyed:
                reconciled, pending = reconcile(
                    self._module, self._path, before, self._pending, contents, prefer
                )
            else:
                reconciled, pending = contents, {}
        except BaseException:
            close_replaced(contents, before)
            raise
        if reconciled is not contents:
            close_replaced(contents, reconciled)
        self._newest = max(self._newest, contents.generation)
        close_replaced(before, reconciled)
        self._adopt(reconciled, pending)
        if contents.generation < before.generation:
            warnings.warn(
                f"{self._path}: went back from generation {before.generation} to {contents.generation}: "
                "an older version of the file was put in place",
                OlderFile,
                stacklevel=_outside(),
            )
        return True

    def _write(
        self, lock: Lock, entries: list[Entry], keyring_bytes: bytes | None = None, *, retire: bool = False
    ) -> None:
        """Replaces the file that was read under the lock. With `retire`, keys that no value uses are removed."""
        before = self._contents
        with self._module.files() as files, refusals_of_argument(self._path):
            document = files.parse(before.file)
            files.put(document, entries)
            handle = files.unlock(keyring_bytes or before.keyring_bytes, before.kek)
            if retire:
                files.retire_keys(document, handle)
            files.set_keyring(document, files.to_bytes(handle))
            file = files.write(document, handle, self._newest)
        # What cannot be read back is not put in place.
        contents = read(self._module, self._path, file, before.kek, None, before)
        try:
            with lock.stage(file) as staged:
                # As one step: what is in the file and still a change here would be a conflict with itself.
                aside.run(lambda: self._publish(staged, contents), lambda: None)
        except BaseException:
            if self._contents is not contents:
                close_replaced(contents, before)
            raise
        close_replaced(before, contents)

    def _publish(self, staged: Staged, contents: Contents) -> None:
        staged.publish()
        self._adopt(contents, {})
        self._newest = contents.generation


def _load_module(module: Module | str | PathLike[str] | bytes | None, digest: str | None) -> Module:
    if module is None and digest is None:
        return _default_module()
    if isinstance(module, Module):
        return module.pinned(digest)
    return Module.load(module, digest=digest)


@functools.cache
def _default_module() -> Module:
    return Module.load()


def _resolved(
    path: str | PathLike[str], secret: str | bytes | None, env_var: str
) -> tuple[str, Callable[[], bytes]]:
    """A path and a way to the secret that stay the same when the process goes to another folder."""
    path = os.fspath(path)
    try:
        folder = os.getcwd()
    except FileNotFoundError:
        # It was removed; then only what is absolute can be found.
        folder = ""
    return os.path.join(folder, path), functools.partial(_secret.find, secret, env_var, folder)


def _read(path: str) -> bytes:
    return _file.read(path, _MAX_FILE)


def _outside() -> int:
    """How many frames up the code is that called this package: what a warning is about."""
    depth, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith((_PACKAGE, contextlib.__file__)):
        depth, frame = depth + 1, frame.f_back
    return depth


def _refuse_existing(path: str) -> None:
    if os.path.lexists(path):
        raise FileError(path, "exists")
