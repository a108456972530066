"""The cache of compiled modules: native code, one file for each module and engine.

Loading a compiled artifact is running it, so the question is who can write one. The folder has mode 0700 and artifacts
have mode 0600; both must belong to the effective user and must not be writable by anyone else, or they are not looked
at. A file is opened once, checked and read through that one descriptor, and only that copy is used. What is left is an
attacker with our own user id, who could as well read the master secret from this process. The digest at the head of a
file guards against accidents: a torn write, a full disk, an artifact under the name of another. Whatever does not match
is compiled again and replaced. The engine itself refuses artifacts of another version, of other settings or for another
processor.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import secrets
import stat

from wasmtime import WasmtimeError, _ffi as ffi, component as wit

from ._engine import engine

# The first bytes of an artifact file: what it is, and the version of this layout.
_MAGIC = b"omni-native-python\0\x01"
# Longer files are not read. A module of a megabyte compiles to a few.
_MAX_ARTIFACT = 128 << 20


def load(digest: str) -> wit.Component | None:
    """The compiled module, if an undamaged artifact exists."""
    path = _path(digest)
    contents = None
    if path is not None:
        with contextlib.suppress(OSError):
            contents = _read_private(path)
    head = len(_MAGIC) + 32
    if contents is None or contents[:head] != _MAGIC + _sum(digest, contents[head:]):
        return None
    try:
        return wit.Component.deserialize(engine(), contents[head:])
    except WasmtimeError:
        return None


def keep(component: wit.Component, digest: str) -> None:
    """Keeps a compiled module for the next process. If that fails, every process compiles it again."""
    path = _path(digest)
    if path is None:
        return
    with contextlib.suppress(OSError, WasmtimeError):
        artifact = bytes(component.serialize())
        folder = os.path.dirname(path)
        os.makedirs(os.path.dirname(folder), exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        _check_private(os.lstat(folder))
        # Readers see the old file or the new one, whole.
        temporary = f"{path}.{secrets.token_hex(8)}.tmp"
        try:
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(_MAGIC + _sum(digest, artifact) + artifact)
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _path(digest: str) -> str | None:
    """The command's folder; none if the user has no folder for caches."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        home = os.environ.get("HOME", "")
        if not os.path.isabs(home):
            return None
        base = os.path.join(home, ".cache")
    return os.path.join(base, "omni-credentials", f"{digest}-{_ENGINE}.python")


def _read_private(path: str) -> bytes | None:
    """Reads a file that only this user can have written."""
    _check_private(os.lstat(os.path.dirname(path)))
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        _check_private(status)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_ARTIFACT:
            return None
        return file.read(_MAX_ARTIFACT)


def _check_private(status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise PermissionError


def _sum(digest: str, artifact: bytes) -> bytes:
    total = hashlib.blake2b(_MAGIC + _ENGINE.encode() + digest.encode(), digest_size=32)
    total.update(artifact)
    return total.digest()


# Part of the name, so that two versions of wasmtime do not replace each other's files again and again: one version
# has one size, and its version is slow to ask for.
_ENGINE = f"{platform.machine()}-{os.stat(ffi.filename).st_size:x}"
