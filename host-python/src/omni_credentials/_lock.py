"""The lock of a file, by the protocol that all hosts share: FORMAT.md §7.2."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from types import TracebackType

from . import _file, _staged
from ._holder import Holder
from ._place import Place
from .errors import FileError, FileLocked

# How long to wait before looking again at a lock that another process holds, in seconds.
_PAUSE = 0.01
# How many deaths in the middle of a takeover, one after another, do not need a person.
_TAKEOVERS = 3
# How many takeovers there can be in one wait without a pause between them.
_MAX_TAKEOVERS = 2 * _TAKEOVERS + 2
# A lock file is shorter than this.
_MAX_LOCK_FILE = 4096


class Lock:
    """The right to replace a file: `NAME.lock` beside it, created exclusively, removed at the end. It names the holder
    of the lock.

    A lock whose holder died is taken over when the holder certainly ran on this machine and is certainly gone. Without
    care two processes could both find it stale, one remove it and take the lock, and the other then remove the new
    lock. So a stale lock may be removed only by a process that created `NAME.lock.takeover` exclusively and then, with
    that in hand, found the lock stale: as the holder is gone, no other process can remove the lock in between, and none
    can create it while it exists. A process that dies in the few system calls of a takeover leaves
    `NAME.lock.takeover` behind, which is then taken over in the same way, and so on for a few levels.

    A lock file appears with its text in it (it is linked into place), so that a process that dies while it makes one
    leaves nothing that stands in the way.
    """

    def __init__(self, path: str, timeout: float) -> None:
        """Takes the lock of `path`, waiting up to `timeout` seconds for its holder. Also removes what writers that died
        had staged and not published.

        Raises `FileLocked` when the time is up, and `FileError` for whatever keeps a file from being created.
        """
        self._place = Place(path)
        self._lock = f"{self._place.name}.lock"
        self._holder = Holder.current()
        try:
            self._wait(timeout)
            # No other process may stage now: what exists is from the dead, or the lock of a process that waits, and
            # that then makes another.
            _staged.sweep(self._place)
        except BaseException:
            self.release()
            raise

    def read(self, max_bytes: int) -> bytes:
        """Reads the file that is locked."""
        return self._place.read(max_bytes)

    def exists(self) -> bool:
        """Whether the file that is locked exists."""
        return self._place.has(self._place.name)

    def stage(self, contents: bytes) -> _staged.Staged:
        """Writes new contents beside the file that is locked."""
        return _staged.Staged(self._place, contents)

    def release(self) -> None:
        """Frees the lock. A forked child does not free its parent's, and a lock that a person removed may by now
        belong to another process."""
        place = self._place
        if place.folder >= 0:
            with contextlib.suppress(OSError):
                if self._holder.is_this_process() and _read_holder(place, self._lock) == self._holder:
                    place.remove(self._lock)
            place.close()

    def __del__(self) -> None:
        # An exception of a signal handler may come before `with` does.
        if hasattr(self, "_holder"):
            self.release()

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _wait(self, timeout: float) -> None:
        # Whatever other processes do, every round but a takeover ends the wait, or checks the clock and pauses.
        deadline = time.monotonic() + timeout
        takeovers = _MAX_TAKEOVERS
        place = self._place
        while True:
            found, stale = None, False
            try:
                if _create(place, self._lock, self._holder):
                    return
                found = _read_holder(place, self._lock)
                stale = found is not None and found.is_gone(place.is_local())
                # Each takeover removes one file that a dead process left.
                if stale and takeovers > 0 and _take_over(place, self._lock, self._holder, _TAKEOVERS):
                    takeovers -= 1
                    continue
            except FileNotFoundError:
                # Otherwise it was freed in between.
                if not place.folder_exists():
                    raise FileError(place.path, "no-folder") from None
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise _file.fault(place.sibling(self._lock), error) from None
            if time.monotonic() >= deadline:
                # A takeover that a process died in is what stands in the way of a stale lock.
                lock = place.sibling(f"{self._lock}.takeover" if stale else self._lock)
                raise FileLocked(place.path, "an unknown process" if found is None else found.name(), lock)
            time.sleep(_PAUSE)


def _create(place: Place, lock: str, holder: Holder) -> bool:
    """Creates a lock file; false if it exists."""
    if place.has(lock):
        return False
    temporary = _staged.temporary(place)
    try:
        _write_new(place, temporary, holder)
        place.link(temporary, lock)
    except FileExistsError:
        return False
    except FileNotFoundError:
        # Swept by the process that took the lock in between: look again. A folder that is missing is another matter.
        if not place.folder_exists():
            raise
        return False
    except OSError as error:
        if not _has_no_links(error):
            raise
        try:
            _write_new(place, lock, holder)
        except FileExistsError:
            return False
    finally:
        with contextlib.suppress(OSError):
            place.remove(temporary)
    return True


def _write_new(place: Place, name: str, holder: Holder) -> None:
    descriptor = place.create(name, 0o644)
    try:
        os.write(descriptor, str(holder).encode())
    except OSError:
        # Of no use to any process: there is no space for its few bytes.
        with contextlib.suppress(OSError):
            place.remove(name)
        raise
    finally:
        os.close(descriptor)


def _has_no_links(error: OSError) -> bool:
    """Whether the file system has no hard links. A link to the account's own file is refused for no other reason."""
    return error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def _take_over(place: Place, lock: str, holder: Holder, levels: int) -> bool:
    """Removes a stale lock, by the protocol described at `Lock`; false when another process does."""
    takeover = f"{lock}.takeover"
    if not _create(place, takeover, holder):
        try:
            found = _read_holder(place, takeover)
        except OSError:
            return False
        stale = levels > 0 and found is not None and found.is_gone(place.is_local())
        return stale and _take_over(place, takeover, holder, levels - 1)
    try:
        found = _read_holder(place, lock)
        if found is not None and found.is_gone(place.is_local()):
            place.remove(lock)
    except FileNotFoundError:
        pass
    finally:
        place.remove(takeover)
    return True


def _read_holder(place: Place, lock: str) -> Holder | None:
    """The holder of the lock; none while it is still writing (without hard links), or if this is not a lock file."""
    descriptor = place.open(lock)
    try:
        text = os.read(descriptor, _MAX_LOCK_FILE)
    finally:
        os.close(descriptor)
    try:
        return Holder.parse(text.decode())
    except UnicodeDecodeError:
        return None
