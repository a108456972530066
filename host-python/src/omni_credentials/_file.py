"""Reading files, and naming what is wrong with them."""

from __future__ import annotations

import errno
import os
import re
import stat

from .errors import FileError

# File systems that one kernel alone has mounted.
_LOCAL = {
    "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "bcachefs", "zfs", "tmpfs", "ramfs", "overlay",
}  # fmt: skip

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


def read(path: str, max_bytes: int, *, follow: bool = True) -> bytes:
    """Reads a regular file of at most `max_bytes`. Symbolic links are followed, unless `follow` is false: then the path
    was resolved before.

    From what is not a regular file nothing is read, and a pipe does not block.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    except OSError as error:
        raise fault(path, error) from None
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise FileError(path, "is-directory" if stat.S_ISDIR(mode) else "not-regular")
        chunks = []
        left = max_bytes + 1
        # It may grow while it is read, so the length that counts is that of what was read.
        while left > 0 and (chunk := os.read(descriptor, min(left, 1 << 20))):
            chunks.append(chunk)
            left -= len(chunk)
    except OSError as error:
        raise fault(path, error) from None
    finally:
        os.close(descriptor)
    if left <= 0:
        raise FileError(path, "too-long", f"is longer than {max_bytes} bytes")
    return b"".join(chunks)


def resolve(path: str) -> str:
    """The file that `path` stands for: links are followed, so that whoever comes by another name locks and replaces the
    same file. The file itself need not exist, its folder must."""
    given = path
    # A link may point at what does not exist yet.
    _refuse_foreign_links(given)
    for _ in range(40):
        try:
            return os.path.realpath(path, strict=True)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise fault(path, error) from None
        try:
            path = os.path.join(os.path.dirname(path), os.readlink(path))
        except OSError:
            folder, name = os.path.split(path)
            if not name:
                raise FileError(given, "is-directory") from None
            try:
                return os.path.join(os.path.realpath(folder or ".", strict=True), name)
            except OSError as error:
                raise fault(path, error) from None
    raise FileError(given, "link-loop")


def _refuse_foreign_links(path: str) -> None:
    """Refuses a path through a symbolic link of another account, which could make it lead to any file that only this
    process may write."""
    folder = "/" if path.startswith("/") else "."
    rest = [part for part in path.split("/") if part not in ("", ".")]
    links = 0
    while rest:
        part = rest.pop(0)
        at = os.path.join(folder, part)
        try:
            found = os.lstat(at)
        except OSError:
            # What is missing, or cannot be looked at, is named by what comes next.
            return
        if not stat.S_ISLNK(found.st_mode):
            folder = at
            continue
        if found.st_uid not in (0, os.geteuid()):
            raise FileError(path, "foreign-link", f"the symbolic link {at} belongs to another account")
        links += 1
        if links > 40:
            raise FileError(path, "link-loop")
        target = os.readlink(at)
        if target.startswith("/"):
            folder = "/"
        rest[:0] = [part for part in target.split("/") if part not in ("", ".")]


def is_local(path: str) -> bool:
    """Whether no other machine can have the folder of `path` mounted, as far as the type of its file system tells."""
    folder = os.path.realpath(folder_of(path))
    found, kind = "", ""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
            for line in mounts:
                fields, _, rest = line.partition(" - ")
                # Blanks in names are written in octal.
                point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields.split(" ")[4])
                inside = point == "/" or folder == point or folder.startswith(f"{point}/")
                # Of two mounts on one folder the later one counts.
                if inside and len(point) >= len(found):
                    found, kind = point, rest.split(" ")[0]
    except (OSError, IndexError):
        return False
    return kind in _LOCAL


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


def sync_folder(path: str) -> None:
    """Makes a rename in the folder of `path` survive a crash."""
    descriptor = os.open(folder_of(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
