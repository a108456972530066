#!/usr/bin/env python3
"""Fails if a source file of the extension imports a layer that comes after its own.

Usage: tools/check-layers.py [FOLDER]; host-pg/src without one.

Every file and folder of that folder is a layer. `error` may be imported by all layers and imports none of them; `lib.rs`
only starts them. ARCHITECTURE.md says what each layer is for.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

LAYERS = ["postgres", "settings", "keys", "instance", "rows", "file_store", "admin"]
FOR_ALL = "error"
# Comments and string literals, which import nothing. A lifetime is not the start of a character.
IGNORED = re.compile(
    r"""//[^\n]* | /\*.*?\*/ | r(\#*)".*?"\1 | "(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.[^']*)'""", re.DOTALL | re.VERBOSE
)
PATH = re.compile(r"\b(?P<start>crate|super(?:\s*::\s*super)*)\s*::\s*(?:(?P<name>\w+)|(?P<group>\{))")


def main() -> int:
    default = Path(__file__).resolve().parents[1] / "host-pg" / "src"
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    files = sorted(source.rglob("*.rs"))
    if not files:
        sys.exit(f"no source files in {source}")
    names = {*LAYERS, *(file.relative_to(source).parts[0].removesuffix(".rs") for file in files)}
    problems = [problem for file in files for problem in check(file, source, names)]
    print("\n".join(problems), end="\n" if problems else "")
    return 1 if problems else 0


def check(file: Path, source: Path, names: set[str]) -> Iterator[str]:
    """What is wrong with the imports of a file."""
    place = file.relative_to(source)
    layer = place.parts[0].removesuffix(".rs")
    if layer == "lib":
        return
    if layer not in (*LAYERS, FOR_ALL):
        yield f"{place}:1: {layer} is no layer: name it in tools/check-layers.py"
        return
    # How many `super` lead from this file to the crate.
    depth = len(place.parts) - (1 if place.name == "mod.rs" else 0)
    for line, name in imports(file.read_text(), depth):
        if name in (layer, FOR_ALL) or name not in names:
            continue
        if layer == FOR_ALL:
            yield f"{place}:{line}: {layer} imports {name}, but imports no layer"
        elif name in LAYERS and LAYERS.index(name) > LAYERS.index(layer):
            yield f"{place}:{line}: {layer} imports {name}, a later layer"


def imports(text: str, depth: int) -> Iterator[tuple[int, str]]:
    """Each module of the crate that a file names, with its line."""
    text = IGNORED.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
    for path in PATH.finditer(text):
        start = path["start"]
        # More `super` than the depth lead from a module inside the file.
        if start != "crate" and start.count("super") < depth:
            continue
        for at, name in [(path.start("name"), path["name"])] if path["name"] else group(text, path.end()):
            yield text.count("\n", 0, at) + 1, name


def group(text: str, start: int) -> Iterator[tuple[int, str]]:
    """The first names of the paths between the braces that open before `start`."""
    level, first = 0, True
    for token in re.compile(r"\w+|[{},]").finditer(text, start):
        match token[0]:
            case "{":
                level += 1
            case "}" if level == 0:
                return
            case "}":
                level -= 1
            case ",":
                first = first or level == 0
            case name if first and level == 0:
                yield token.start(), name
                first = False


if __name__ == "__main__":
    sys.exit(main())
