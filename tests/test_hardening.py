"""What the linker gives a library against memory errors, and whether the copy that is shipped still has it."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from command import PROGRAM
from throwaway import Installation

PT_DYNAMIC, PT_GNU_STACK, PT_GNU_RELRO = 2, 0x6474E551, 0x6474E552
DT_FLAGS_1, DF_1_NOW = 0x6FFFFFFB, 1
EXECUTABLE = 1


def segments(file: bytes) -> dict[int, tuple[int, int, int]]:
    """The segments of a 64-bit ELF file: flags, offset and size, by type."""
    assert file[:5] == b"\x7fELF\x02"
    (start,) = struct.unpack_from("<Q", file, 32)
    size, count = struct.unpack_from("<HH", file, 54)
    found = {}
    for number in range(count):
        kind, flags, offset, _, _, length = struct.unpack_from("<IIQQQQ", file, start + number * size)
        found[kind] = flags, offset, length
    return found


@pytest.mark.parametrize(
    "path", [Installation.from_environment().stage / "lib" / "omni_credentials.so", PROGRAM], ids=["library", "command"]
)
def test_read_only_after_linking(path: Path) -> None:
    file = path.read_bytes()
    found = segments(file)
    assert PT_GNU_RELRO in found, "tables of addresses stay writable"
    assert not found[PT_GNU_STACK][0] & EXECUTABLE
    _, offset, length = found[PT_DYNAMIC]
    entries = dict(struct.iter_unpack("<QQ", file[offset : offset + length]))
    assert entries[DT_FLAGS_1] & DF_1_NOW, "functions are bound one by one, into a table that is writable"
