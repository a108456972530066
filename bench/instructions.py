"""Counts the instructions of the core's hot paths with callgrind and compares them with bench/instructions.toml.

Instructions do not depend on what else the machine does. They depend on the compiler and on the processor's vector
instructions, so figures are compared only where both are those of the file. Usage: instructions.py BINARY [--accept]
"""

from __future__ import annotations

import platform
import re
import subprocess
import sys
import tomllib
from pathlib import Path

FIGURES = Path(__file__).with_name("instructions.toml")
# How far a figure may be off before it counts as another one.
MOST = 0.05
TIMES = 5
HEAD = "# Instructions of the core's hot paths, as ./just instructions counts them; --accept writes them again.\n\n"


def total(binary: str, path: str, times: int) -> int:
    """Instructions of a run that takes the path so many times."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", binary, path, str(times)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{path}: {done.stderr.strip()}")
    return int(re.search(r"Collected : (\d+)", done.stderr)[1])


def count(binary: str, path: str) -> int:
    """Of one more time: without what is done once."""
    return round((total(binary, path, 1 + TIMES) - total(binary, path, 1)) / TIMES)


def conditions() -> dict[str, str]:
    rustc = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    # valgrind knows no wider vectors.
    vectors = "avx2" if re.search(r"^flags.*\bavx2\b", flags, re.MULTILINE) else "no avx2"
    return {"rustc": rustc, "processor": f"{platform.machine()}, {vectors}"}


def main() -> int:
    binary, *options = sys.argv[1:]
    paths = subprocess.run([binary], capture_output=True, text=True, check=True).stdout.splitlines()
    now, found = conditions(), {path: count(binary, path) for path in paths}
    if options == ["--accept"]:
        lines = [f'{name} = "{value}"' for name, value in now.items()]
        lines += ["", "[instructions]", *(f'"{path}" = {number}' for path, number in found.items())]
        FIGURES.write_text(HEAD + "\n".join(lines) + "\n")
        print(f"{len(found)} figures written to {FIGURES.name}")
        return 0
    figures = tomllib.loads(FIGURES.read_text())
    known = figures.pop("instructions")
    comparable = figures == now
    off = known.keys() != found.keys()
    for path, number in found.items():
        before = known.get(path)
        change = number / before - 1 if before else float("inf")
        is_off = abs(change) > MOST
        off = off or is_off
        print(f"{path:42} {number:>12,} {before or 0:>12,} {change:>+8.1%}{'  OFF' if is_off else ''}")
    if not comparable:
        print(f"not compared: the figures are of {figures}, and this is {now}")
        return 0
    if off:
        print("more or fewer instructions than committed; if that is meant: ./just instructions --accept")
    return int(off)


if __name__ == "__main__":
    sys.exit(main())
