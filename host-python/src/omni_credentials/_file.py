"""Reading files, and naming what is wrong with them."""

from __future__ import annotations

import errno
import os
import stat

from .errors import FileError

_FAULTS = {
    errno.EISDIR: "is-directory",
    errno.ENOTDIR: "no-folder",
    errno.EACCES: "no-permission",
    errno.EPERM: "no-permission",
    errno.EROFS: "read-only",
    errno.ENOSPC: "no-space",
    errno.EDQUOT: "no-space",
    errno.ELOOP: "link-loop",
    errno.ENXIO: "not-regular",
}


def read(
    path: str, max_bytes: int, *, follow: bool = True, folder: int | None = None, called: str | None = None
) -> bytes:
    """Reads a regular file of at most `max_bytes`. Symbolic links are followed, unless `follow` is false. A relative
    path starts in the opened `folder`, where there is one; errors name the file as it is `called`.

    From what is not a regular file nothing is read, and a pipe does not block.
    """
    called = called or path
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags, dir_fd=folder)
    except OSError as error:
        raise fault(called, error) from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise FileError(called, "is-directory" if stat.S_ISDIR(found.st_mode) else "not-regular")
        chunks = []
        left = max_bytes + 1
        if found.st_size >= left:
            raise _too_long(called, max_bytes)
        # It may grow while it is read, so the length that counts is that of what was read.
        while left > 0 and (chunk := os.read(descriptor, min(left, 1 << 20))):
            chunks.append(chunk)
            left -= len(chunk)
    except OSError as error:
        raise fault(called, error) from None
    finally:
        os.close(descriptor)
    if left <= 0:
        raise _too_long(called, max_bytes)
    return b"".join(chunks)


def fault(path: str, error: OSError) -> FileError:
    """The system's error about a file."""
    number = error.errno or 0
    if number == errno.ENOENT:
        return FileError(path, "not-found" if os.path.isdir(folder_of(path)) else "no-folder")
    if (name := _FAULTS.get(number)) is not None:
        return FileError(path, name)
    return FileError(path, "other", error.strerror or str(error))


def folder_of(path: str) -> str:
    """The folder that a file is in."""
    return os.path.dirname(path) or "."


def _too_long(path: str, max_bytes: int) -> FileError:
    return FileError(path, "too-long", f"is longer than {max_bytes} bytes")
