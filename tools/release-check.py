#!/usr/bin/env python3
"""Says what keeps this commit from being released; RELEASING.md has the steps.

Usage: tools/release-check.py [--notes | TAG]

With a TAG, which a release workflow runs for, the tag must be the one of this version. --notes prints the section of
CHANGELOG.md instead.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from releases import ROOT, SCRIPTS, History, notes, older_problems, problems, version_problems


def main() -> int:
    arguments = sys.argv[1:]
    history = History.read((ROOT / "CHANGELOG.md").read_text())
    if arguments == ["--notes"]:
        print(notes((ROOT / "CHANGELOG.md").read_text(), history.current), end="")
        return 0
    found = [*version_problems(ROOT), *script_problems(history), *git_problems(ROOT, history.current, arguments)]
    print("".join(f"{problem}\n" for problem in found), end="")
    print(f"{history.current} cannot be released yet" if found else f"{history.current} can be released")
    return 1 if found else 0


def script_problems(history: History) -> Iterator[str]:
    """What is wrong with the scripts that ALTER EXTENSION UPDATE goes by."""
    if history.next:
        yield f"CHANGELOG.md: {history.next} has no date: write it in place of “unreleased”"
    yield from problems(history, SCRIPTS, made())
    yield from older_problems(history, SCRIPTS, made("--from-0.2.0"))


def made(*arguments: str) -> str:
    """The script that the sources give."""
    command = [ROOT / "tools" / "install-script.sh", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def git_problems(root: Path, version: str, tags: list[str]) -> Iterator[str]:
    """What is wrong with the work tree and the tag."""
    for line in git(root, "status", "--porcelain").splitlines():
        yield f"git: {line[3:]} is not committed"
    tag = f"v{version}"
    for name in tags:
        if name != tag:
            yield f"git: the tag is {name}; for this version it is {tag}"
    tagged = git(root, "tag", "--list", tag, "--format=%(objectname) %(*objectname)").split()
    if tagged and git(root, "rev-parse", "HEAD").strip() not in tagged:
        yield f"git: {tag} is the tag of another commit"


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
