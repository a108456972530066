"""The holder of a lock: a process, identified so that it is never confused with another, even after a restart."""

from __future__ import annotations

import os
from dataclasses import dataclass

# The first line of a lock file: what it is, and the version of its layout.
_HEADER = "omni-credentials lock 1"
# Stands for what this system does not tell.
UNKNOWN = "-"
_FIELDS = ("pid", "start", "boot", "namespace", "machine", "host")


@dataclass(frozen=True, slots=True)
class Holder:
    """What a lock file says: FORMAT.md §7.2."""

    pid: int
    # Of the process, in clock ticks since the machine started.
    start: str
    # The id of that start.
    boot: str
    # Of process ids: containers have their own.
    namespace: str
    machine: str
    host: str

    @classmethod
    def current(cls) -> Holder:
        """This process."""
        pid = os.getpid()
        return cls(
            pid=pid,
            start=_start_of(pid) or UNKNOWN,
            boot=_first_word("/proc/sys/kernel/random/boot_id"),
            namespace=_link("/proc/self/ns/pid"),
            machine=_first_word("/etc/machine-id"),
            host=_word(os.uname().nodename),
        )

    @classmethod
    def parse(cls, text: str) -> Holder | None:
        """The holder that a lock file names; none for any other file."""
        lines = text.removesuffix("\n").split("\n")
        if not text.endswith("\n") or len(lines) != 1 + len(_FIELDS) or lines[0] != _HEADER:
            return None
        values = []
        for name, line in zip(_FIELDS, lines[1:], strict=True):
            value = line.removeprefix(f"{name} ")
            if value == line or not value:
                return None
            values.append(value)
        if not (values[0].isascii() and values[0].isdigit() and int(values[0]) < 1 << 32):
            return None
        return cls(int(values[0]), *values[1:])

    def is_gone(self, is_local: bool) -> bool:
        """Whether this holder has certainly ended. `is_local` says that no other machine can have the lock's folder
        mounted. For a process that cannot be seen from here, on another machine or in another container, the answer
        is no.

        Machines made from one image can share host name and machine id. They differ in `boot`, as this machine does
        after a restart, so another `boot` proves nothing where the folder may be shared between machines.
        """
        here = Holder.current()
        if self.machine != here.machine or self.host != here.host:
            return False
        if self.boot != here.boot:
            return is_local and UNKNOWN not in (self.machine, self.boot, here.boot)
        if self.boot == UNKNOWN and not is_local:
            return False
        # Unknown ones may be of two containers.
        if self.namespace == UNKNOWN or self.namespace != here.namespace:
            return False
        # /proc may hide the processes of others, the signal 0 does not.
        if not _exists(self.pid):
            return True
        start = _start_of(self.pid)
        return start is not None and self.start not in (UNKNOWN, start)

    def is_this_process(self) -> bool:
        """Whether it is this very process, and not a parent it was forked from."""
        return self.pid == os.getpid()

    def name(self) -> str:
        """For a message, with why this process cannot see whether the holder is still running."""
        here = Holder.current()
        place = ""
        if self.host == here.host and (self.machine, self.boot) != (here.machine, here.boot):
            place = ", another machine of the same name or before a restart"
        elif self.host == here.host and self.namespace != here.namespace:
            place = f", in another container (pid namespace {self.namespace})"
        return f"process {self.pid} on host {self.host}{place}"

    def __str__(self) -> str:
        lines = (f"{name} {getattr(self, name)}" for name in _FIELDS)
        return "\n".join((_HEADER, *lines, ""))


def _start_of(pid: int) -> str | None:
    """Field 22 of /proc/PID/stat. The name in field 2 may hold spaces and parentheses."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[19] if len(fields) > 19 else None


def _exists(pid: int) -> bool:
    # Others are groups of processes.
    if not 0 < pid < 1 << 31:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return UNKNOWN


def _first_word(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return _word(file.read())
    except (OSError, UnicodeDecodeError):
        return UNKNOWN


def _word(text: str) -> str:
    words = text.split()
    return words[0] if words else UNKNOWN
