"""New contents of a file: written and synced beside it, then made visible in one step."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
from types import TracebackType

from . import _file
from ._place import Place

# What follows the prefix in the name of a staged file.
_RANDOM = re.compile(rb"[0-9a-f]{16}\.tmp")


class Staged:
    """New contents of the file at a place, which are not visible before `publish`. Left without it, they are
    discarded."""

    def __init__(self, place: Place, contents: bytes) -> None:
        self._place = place
        replaced = place.existing()
        self._temporary: str | None = temporary(place)
        try:
            _write(place, self._temporary, contents, replaced)
        except BaseException as error:
            self.discard()
            if isinstance(error, OSError):
                raise _file.fault(place.path, error) from None
            raise

    def publish(self) -> None:
        """Replaces the file, in a step that survives a crash once this returns. If the rename fails, the file is as it
        was."""
        if self._temporary is None:
            return
        try:
            self._place.rename(self._temporary, self._place.name)
            self._temporary = None
            self._place.sync()
        except OSError as error:
            raise _file.fault(self._place.path, error) from None

    def discard(self) -> None:
        """Removes what was written and not published."""
        if self._temporary is not None:
            with contextlib.suppress(OSError):
                self._place.remove(self._temporary)
            self._temporary = None

    def __enter__(self) -> Staged:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()


def _keep_rights(descriptor: int, replaced: os.stat_result) -> None:
    """Gives a new file the mode and, where this process may give it away, the group of the one that it replaces."""
    mode = replaced.st_mode & 0o777
    try:
        if os.fstat(descriptor).st_gid != replaced.st_gid:
            os.fchown(descriptor, -1, replaced.st_gid)
    except OSError:
        # What the group may do is not given to another one, beyond what all may.
        mode &= 0o707 | (mode & 0o007) << 3
    os.fchmod(descriptor, mode)


def temporary(place: Place) -> str:
    """A new name beside the file, of the sort that `sweep` removes."""
    return os.fsdecode(_prefix(os.fsencode(place.name)) + secrets.token_hex(8).encode() + b".tmp")


def sweep(place: Place) -> None:
    """Removes what was staged for a file and neither published nor discarded, because its writer died. Only for the
    process that holds the lock of the file: no other one stages anything then."""
    prefix = _prefix(os.fsencode(place.name))
    with contextlib.suppress(OSError):
        for name in place.names():
            middle = os.fsencode(name).removeprefix(prefix)
            if middle != os.fsencode(name) and _RANDOM.fullmatch(middle):
                with contextlib.suppress(OSError):
                    place.remove(name)


def _prefix(name: bytes) -> bytes:
    """What the names of all files staged for a file start with: FORMAT.md §7.2. Names have at most 255 bytes."""
    if len(name) > 200:
        name = name[:150] + b"~" + hashlib.sha256(name).hexdigest().encode()
    return b"." + name + b"."


def _write(place: Place, name: str, contents: bytes, replaced: os.stat_result | None) -> None:
    with open(place.create(name, 0o600), "wb") as file:
        if replaced is not None:
            _keep_rights(file.fileno(), replaced)
        file.write(contents)
        file.flush()
        os.fsync(file.fileno())
