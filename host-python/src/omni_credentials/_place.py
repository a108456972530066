"""Where a file is: its folder, held open, and its name there. The rules are those of FORMAT.md §7.2."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from types import TracebackType

from . import _file
from .errors import FileError

# Symbolic links that one path may go through.
_MAX_LINKS = 40
# Opens a name without following a link and, where the system can, without any right to its contents.
_LOOK = getattr(os, "O_PATH", os.O_RDONLY | os.O_NONBLOCK) | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = _LOOK | os.O_DIRECTORY
# File systems that one kernel alone has mounted.
_LOCAL = {
    "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "bcachefs", "zfs", "tmpfs", "ramfs", "overlay",
}  # fmt: skip


class Place:
    """A path, resolved once. A symbolic link in it is followed if it belongs to the account of this process or to root:
    any other account could make its link lead to a file that only this process may write. From then on every step names
    a file in the opened folder, and follows no link. The file itself need not exist, its folder must."""

    def __init__(self, path: str) -> None:
        self._given = path
        # The folder without links, and the file's name in it.
        self._folder_path = "/" if path.startswith("/") else os.getcwd()
        self.folder = -1
        try:
            self.folder = os.open("/" if path.startswith("/") else ".", _FOLDER)
            self.name = self._walk(_parts(path))
        except OSError as error:
            self.close()
            raise _file.fault(path, error) from None
        except BaseException:
            self.close()
            raise
        self.path = os.path.join(self._folder_path, self.name)

    def read(self, max_bytes: int) -> bytes:
        """Reads the file, if it is a regular file of at most `max_bytes`."""
        return _file.read(self.name, max_bytes, follow=False, folder=self.folder, called=self.path)

    def existing(self) -> os.stat_result | None:
        """What exists of the file: none if it does not. It must be a regular file."""
        try:
            found = os.stat(self.name, dir_fd=self.folder, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _file.fault(self.path, error) from None
        if not stat.S_ISREG(found.st_mode):
            raise FileError(self.path, "is-directory" if stat.S_ISDIR(found.st_mode) else "not-regular")
        if self._is_mount_point():
            raise FileError(self.path, "mount-point")
        return found

    def has(self, name: str) -> bool:
        """Whether the folder has anything of that name, even a link that leads nowhere."""
        try:
            os.stat(name, dir_fd=self.folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def create(self, name: str, mode: int) -> int:
        """Creates a file in the folder, exclusively, and opens it to write."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, flags, mode, dir_fd=self.folder)

    def open(self, name: str) -> int:
        """Opens a file of the folder to read it. A pipe does not block."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        return os.open(name, flags, dir_fd=self.folder)

    def link(self, name: str, new: str) -> None:
        """Gives a file of the folder a second name."""
        os.link(name, new, src_dir_fd=self.folder, dst_dir_fd=self.folder, follow_symlinks=False)

    def rename(self, name: str, new: str) -> None:
        """Renames a file of the folder, over another one."""
        os.rename(name, new, src_dir_fd=self.folder, dst_dir_fd=self.folder)

    def remove(self, name: str) -> None:
        """Removes a file of the folder, or a link."""
        os.unlink(name, dir_fd=self.folder)

    def names(self) -> list[str]:
        """What is in the folder."""
        descriptor = self._readable()
        try:
            return os.listdir(descriptor)
        finally:
            os.close(descriptor)

    def sync(self) -> None:
        """Makes what was done in the folder survive a crash."""
        descriptor = self._readable()
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def sibling(self, name: str) -> str:
        """The path of another file of the folder, for messages."""
        return os.path.join(self._folder_path, name)

    def folder_exists(self) -> bool:
        """Whether the folder still exists."""
        return os.fstat(self.folder).st_nlink > 0

    def is_local(self) -> bool:
        """Whether no other machine can have the folder mounted, as far as the type of its file system tells."""
        folder = self._folder_path
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

    def close(self) -> None:
        """Closes the folder."""
        if self.folder >= 0:
            descriptor, self.folder = self.folder, -1
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def __enter__(self) -> Place:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "folder", -1) >= 0:
            self.close()

    def _is_mount_point(self) -> bool:
        """Whether the file is on another mount than its folder, so that no other file can take its place. Where the
        system does not tell, the renaming fails."""
        if not hasattr(os, "O_PATH"):
            return False
        try:
            file = os.open(self.name, _LOOK, dir_fd=self.folder)
        except OSError:
            return False
        try:
            mount, of_folder = _mount_of(file), _mount_of(self.folder)
        finally:
            os.close(file)
        return mount is not None and of_folder is not None and mount != of_folder

    def _walk(self, rest: list[str]) -> str:
        """Goes to the folder of the file; gives the file's name."""
        links = 0
        while rest:
            name = rest.pop(0)
            if name == "..":
                self._enter(os.open("..", _FOLDER, dir_fd=self.folder), os.path.dirname(self._folder_path))
                continue
            try:
                found = os.stat(name, dir_fd=self.folder, follow_symlinks=False)
            except FileNotFoundError:
                if rest:
                    raise FileError(self._given, "no-folder") from None
                return name
            if stat.S_ISLNK(found.st_mode):
                target = self._target(name)
                links += 1
                if links > _MAX_LINKS:
                    raise FileError(self._given, "link-loop")
                if target.startswith("/"):
                    self._enter(os.open("/", _FOLDER), "/")
                rest[:0] = _parts(target)
            elif not rest:
                return name
            elif stat.S_ISDIR(found.st_mode):
                # It fails where a link took the folder's place.
                entered = os.open(name, _FOLDER, dir_fd=self.folder)
                self._enter(entered, os.path.join(self._folder_path, name))
            else:
                raise FileError(self._given, "no-folder")
        raise FileError(self._given, "is-directory")

    def _target(self, name: str) -> str:
        """Where a link leads, if its account may say so: of the link that was looked at, whatever has its name now."""
        try:
            link = os.open(name, _LOOK, dir_fd=self.folder)
        except OSError as error:
            # Without O_PATH a link cannot be opened.
            if hasattr(os, "O_PATH") or error.errno not in (errno.ELOOP, errno.EMLINK):
                raise
            self._refuse_foreign(name, os.stat(name, dir_fd=self.folder, follow_symlinks=False))
            return os.readlink(name, dir_fd=self.folder)
        try:
            self._refuse_foreign(name, os.fstat(link))
            return os.readlink("", dir_fd=link)
        finally:
            os.close(link)

    def _refuse_foreign(self, name: str, found: os.stat_result) -> None:
        if found.st_uid not in (0, os.geteuid()):
            detail = f"the symbolic link {self.sibling(name)} belongs to another account"
            raise FileError(self._given, "foreign-link", detail)

    def _enter(self, folder: int, path: str) -> None:
        os.close(self.folder)
        self.folder, self._folder_path = folder, path

    def _readable(self) -> int:
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.folder)


def _mount_of(descriptor: int) -> str | None:
    """The number of the mount that an open file is on."""
    try:
        with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as lines:
            return next((line.split()[1] for line in lines if line.startswith("mnt_id:")), None)
    except (OSError, IndexError):
        return None


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]
