"""New contents of a file: written and synced beside it, then made visible in one step."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import stat
from types import TracebackType

from . import _file
from .errors import FileError

# What follows the prefix in the name of a staged file.
_RANDOM = re.compile(rb"[0-9a-f]{16}\.tmp")


class Staged:
    """New contents of the file at `path`, which are not visible before `publish`. Left without it, they are discarded.

    Where `path` is a symbolic link, the file that it points at is the one that will be replaced.
    """

    def __init__(self, path: str, contents: bytes) -> None:
        self.path = _file.resolve(path)
        replaced = _existing(self.path)
        self._temporary: str | None = temporary(self.path)
        try:
            _write(self._temporary, contents, replaced)
        except BaseException as error:
            self.discard()
            if isinstance(error, OSError):
                raise _file.fault(self.path, error) from None
            raise

    def publish(self) -> None:
        """Replaces the file, in a step that survives a crash once this returns. Where the rename fails, the file is as
        it was."""
        if self._temporary is None:
            return
        try:
            os.rename(self._temporary, self.path)
            self._temporary = None
            _file.sync_folder(self.path)
        except OSError as error:
            raise _file.fault(self.path, error) from None

    def discard(self) -> None:
        """Removes what was written and not published."""
        if self._temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._temporary)
            self._temporary = None

    def __enter__(self) -> Staged:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()


def _existing(path: str) -> os.stat_result | None:
    """What there is of the file: none where there is none. It must be a regular file."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _file.fault(path, error) from None
    if not stat.S_ISREG(found.st_mode):
        raise FileError(path, "is-directory" if stat.S_ISDIR(found.st_mode) else "not-regular")
    return found


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


def temporary(path: str) -> str:
    """A new name beside `path`, of the sort that `sweep` removes."""
    folder, name = os.path.split(os.fsencode(path))
    return os.fsdecode(os.path.join(folder, _prefix(name) + secrets.token_hex(8).encode() + b".tmp"))


def sweep(path: str) -> None:
    """Removes what was staged for `path` and neither published nor discarded, because its writer died. Only for who
    holds the lock of `path`: nobody else stages anything then."""
    folder, name = os.path.split(os.fsencode(path))
    prefix = _prefix(name)
    with contextlib.suppress(OSError), os.scandir(folder or b".") as files:
        for file in files:
            middle = file.name.removeprefix(prefix)
            if middle != file.name and _RANDOM.fullmatch(middle):
                with contextlib.suppress(OSError):
                    os.unlink(file.path)


def _prefix(name: bytes) -> bytes:
    """What the names of all files staged for a file start with: FORMAT.md §7.2. Names have at most 255 bytes."""
    if len(name) > 200:
        name = name[:150] + b"~" + hashlib.sha256(name).hexdigest().encode()
    return b"." + name + b"."


def _write(path: str, contents: bytes, replaced: os.stat_result | None) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(path, flags, 0o600), "wb") as file:
        if replaced is not None:
            _keep_rights(file.fileno(), replaced)
        file.write(contents)
        file.flush()
        os.fsync(file.fileno())
