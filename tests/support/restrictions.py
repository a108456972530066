"""What an administrator takes away from a process: address space, code made at run time, system calls.

Each is a function to run in a child before the program (`preexec_fn`).
"""

from __future__ import annotations

import ctypes
import errno
import platform
import resource
import struct
from collections.abc import Callable

# <linux/prctl.h>
SET_SECCOMP, SET_NO_NEW_PRIVS, SET_MDWE = 22, 38, 65
# Numbers of mprotect and memfd_create.
CALLS = {"x86_64": (10, 319), "aarch64": (226, 279)}

_libc = ctypes.CDLL(None, use_errno=True)


def address_space(mib: int) -> Callable[[], None]:
    """`LimitAS=`, `ulimit -v`."""
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (mib << 20, mib << 20))


def data_segment(mib: int) -> Callable[[], None]:
    """`LimitDATA=`, `ulimit -d`: all private memory that can be written."""
    return lambda: resource.setrlimit(resource.RLIMIT_DATA, (mib << 20, mib << 20))


def no_executable_memory() -> None:
    """`MemoryDenyWriteExecute=yes`, as systemd does it where the kernel knows it."""
    _prctl(SET_MDWE, 1)


def no_such_calls() -> None:
    """`MemoryDenyWriteExecute=yes` on older kernels, and a `SystemCallFilter=` without memfd_create: both fail with EPERM."""
    protect, memfd = CALLS[platform.machine()]
    refuse, allow = 0x00050000 | errno.EPERM, 0x7FFF0000
    load, jump_equal, jump_set, give = 0x20, 0x15, 0x45, 0x06
    # Offsets in struct seccomp_data: the number of the call, and its third argument. PROT_EXEC is 4.
    program = [
        (load, 0, 0, 0),
        (jump_equal, 4, 0, memfd),
        (jump_equal, 0, 2, protect),
        (load, 0, 0, 32),
        (jump_set, 1, 0, 4),
        (give, 0, 0, allow),
        (give, 0, 0, refuse),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
    filter = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
    _prctl(SET_NO_NEW_PRIVS, 1)
    _prctl(SET_SECCOMP, 2, ctypes.addressof(filter))


def _prctl(option: int, *arguments: int) -> None:
    padded = [ctypes.c_ulong(number) for number in (*arguments, 0, 0, 0, 0)[:4]]
    if _libc.prctl(option, *padded) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
