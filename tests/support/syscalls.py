"""The system calls of a process that touch files, in order, as `strace` would show them: without it, for it is not everywhere.

By ptrace, which needs no right where a process traces its own child. Only the first thread is followed.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

# <sys/ptrace.h> and <linux/ptrace.h>
TRACEME, PEEKDATA, SYSCALL, SETOPTIONS, GET_SYSCALL_INFO = 0, 2, 24, 0x4200, 0x420E
TRACE_SYSGOOD, EXIT_KILL = 1, 1 << 20
ENTRY, EXIT = 1, 2
WORD = ctypes.sizeof(ctypes.c_long)

# Name, and the places of the arguments that are paths (a folder before each, if it takes one) or a descriptor.
NUMBERS = {
    "x86_64": {1: "write", 3: "close", 18: "write", 20: "write", 74: "fsync", 75: "fdatasync", 82: "rename", 87: "unlink",
               257: "openat", 263: "unlinkat", 264: "renameat", 316: "renameat2", 2: "open"},
    "aarch64": {64: "write", 57: "close", 66: "write", 68: "write", 82: "fsync", 83: "fdatasync", 35: "unlinkat",
                56: "openat", 38: "renameat", 276: "renameat2"},
}
PATHS = {"open": [0], "openat": [1], "unlink": [0], "unlinkat": [1], "rename": [0, 1], "renameat": [1, 3], "renameat2": [1, 3]}
# What a call is called here, however the C library makes it.
PLAIN = {"openat": "open", "unlinkat": "unlink", "renameat": "rename", "renameat2": "rename", "fdatasync": "fsync"}


class _Info(ctypes.Structure):
    """struct ptrace_syscall_info"""

    _fields_ = [("op", ctypes.c_uint8), ("arch", ctypes.c_uint32), ("ip", ctypes.c_uint64), ("sp", ctypes.c_uint64),
                ("number", ctypes.c_uint64), ("arguments", ctypes.c_uint64 * 6), ("more", ctypes.c_uint64 * 2)]


@dataclass(frozen=True)
class Call:
    """A call that succeeded: open, write, fsync, rename or unlink, and its paths."""

    name: str
    paths: tuple[Path, ...]


_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def _ptrace(request: int, pid: int, address: int = 0, data: int = 0) -> int:
    ctypes.set_errno(0)
    result = _libc.ptrace(request, pid, address, data)
    if result == -1 and ctypes.get_errno():
        raise OSError(ctypes.get_errno(), f"ptrace {request:#x}: {os.strerror(ctypes.get_errno())}")
    return result


def trace(command: list[str | Path], folder: Path, **popen) -> list[Call]:
    """Runs a program in `folder` to its end; it must succeed."""
    process = subprocess.Popen(command, cwd=folder, preexec_fn=lambda: _ptrace(TRACEME, 0), **popen)
    try:
        calls, status = _follow(process.pid, folder)
    except BaseException:
        os.kill(process.pid, signal.SIGKILL)
        os.waitpid(process.pid, 0)
        raise
    process.returncode = status
    assert status == 0, f"{command[0]} ended with {status}"
    return calls


def _follow(pid: int, folder: Path) -> tuple[list[Call], int]:
    names = NUMBERS[platform.machine()]
    calls: list[Call] = []
    opened: dict[int, Path] = {}
    entered: tuple[str, list[int], list[Path]] | None = None
    os.waitpid(pid, 0)
    _ptrace(SETOPTIONS, pid, 0, TRACE_SYSGOOD | EXIT_KILL)
    passed_on = 0
    while True:
        _ptrace(SYSCALL, pid, 0, passed_on)
        _, status = os.waitpid(pid, 0)
        if not os.WIFSTOPPED(status):
            return calls, os.waitstatus_to_exitcode(status)
        stopped, passed_on = os.WSTOPSIG(status), 0
        if stopped != signal.SIGTRAP | 0x80:
            # What execve stops with is for the tracer alone.
            passed_on = 0 if stopped == signal.SIGTRAP else stopped
            continue
        info = _Info()
        _ptrace(GET_SYSCALL_INFO, pid, ctypes.sizeof(info), ctypes.addressof(info))
        if info.op == ENTRY:
            name, arguments = names.get(info.number), list(info.arguments)
            entered = name and (name, arguments, [folder / _text(pid, arguments[at]) for at in PATHS.get(name, [])])
        elif info.op == EXIT and entered:
            name, arguments, paths = entered
            entered = None
            result = ctypes.c_int64(info.number).value
            descriptor = arguments[0]
            if result < 0:
                continue
            if name == "close":
                opened.pop(descriptor, None)
                continue
            if not paths:
                paths = [opened[descriptor]] if descriptor in opened else []
            elif name in ("open", "openat"):
                opened[result] = paths[0]
            if paths:
                calls.append(Call(PLAIN.get(name, name), tuple(paths)))


def _text(pid: int, address: int) -> str:
    found = b""
    while b"\0" not in found:
        word = _ptrace(PEEKDATA, pid, address + len(found))
        found += (word & (1 << 8 * WORD) - 1).to_bytes(WORD, "little")
    return os.fsdecode(found.split(b"\0", 1)[0])
