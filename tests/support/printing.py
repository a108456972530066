"""Programs that print a master secret, as a variable with `_COMMAND` names them."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

# Ends of what goes wrong with a program, and what every host says of it.
FAILURES: dict[str, tuple[str, str]] = {
    "status": ("echo denied >&2; exit 3", "the program ended with status 3: {program}, which said: denied"),
    "lines": (
        r"printf 'a\r\n\033[31mb\n' >&2; exit 1",
        "the program ended with status 1: {program}, which said: a [31mb",
    ),
    "unseen characters": (
        # A right-to-left override, a C1 control, an isolate and a zero-width space.
        r"printf 'a\342\200\256b\302\233c\342\201\246d\342\200\213e' >&2; exit 1",
        "the program ended with status 1: {program}, which said: a b c d e",
    ),
    "a lot of errors": (
        "head -c 3000000 /dev/zero | tr '\\0' x >&2; exit 1",
        "the program ended with status 1: {program}, which said: " + "x" * 1000,
    ),
    "silent": ("echo nothing to say >&2", "the program printed nothing: {program}, which said: nothing to say"),
    "a line end": ("echo", "the program printed nothing: {program}"),
    "100 MB": ("head -c 100000000 /dev/zero", "the program printed more than 4098 bytes: {program}"),
    "one byte too long": ("head -c 4099 /dev/zero", "the program printed more than 4098 bytes: {program}"),
    "a signal": ("echo secret; kill -TERM $$", "the program was ended by signal 15: {program}"),
    "input": ("cat; echo no input >&2; exit 1", "the program ended with status 1: {program}, which said: no input"),
    "a terminal": (
        "(: </dev/tty) 2>/dev/null || { echo no terminal >&2; exit 1; }",
        "the program ended with status 1: {program}, which said: no terminal",
    ),
}


def script(path: Path, text: str, mode: int = 0o755) -> Path:
    """A program of the shell's. What has a `{program}` in a message of a host is its path."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(mode)
    return path


def recorder(folder: Path, secret: str) -> Path:
    """Writes its arguments, its environment, the files it has and how often it ran into a folder, and prints the secret."""
    records = folder / "records"
    records.mkdir(exist_ok=True)
    records.chmod(stat.S_IRWXU | stat.S_IRWXG | stat.S_IRWXO)
    lines = (
        f"cd {shlex.quote(str(records))}",
        ": > arguments",
        "for it; do printf '%s\\0' \"$it\" >> arguments; done",
        "tr '\\0' '\\n' < /proc/$$/environ | sed -n 's/^\\([A-Za-z_0-9]*\\)=.*/\\1/p' > environment",
        "ls /proc/$$/fd > files",
        "echo run >> runs",
        "umask 0; chmod a+rw * 2>/dev/null",
        f"echo {shlex.quote(secret)}",
    )
    return script(folder / "recorder", "\n".join(lines))


def arguments(folder: Path) -> list[str]:
    return (folder / "records" / "arguments").read_bytes().decode().split("\0")[:-1]


def environment(folder: Path) -> set[str]:
    return set((folder / "records" / "environment").read_text().split())


def files(folder: Path) -> set[str]:
    """The numbers of the files that the program had."""
    return set((folder / "records" / "files").read_text().split())


def runs(folder: Path) -> int:
    path = folder / "records" / "runs"
    return len(path.read_text().split()) if path.exists() else 0


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


TARGET = Path(os.environ["CARGO_TARGET_DIR"])
