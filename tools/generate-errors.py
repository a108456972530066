#!/usr/bin/env python3
"""Writes the tables of refusals and hints from conformance/errors.toml: for Python, Node, the command, the Rust host and the
glue of the modules.

Usage: tools/generate-errors.py [--check]; with --check it writes nothing and fails if a table is not up to date.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = "conformance/errors.toml"
NOTICE = f"Generated from {SOURCE} by tools/generate-errors.py. Do not edit."
# What a hint may name that is known only when it is shown.
AT_RUN_TIME = {"file", "lock"}


@dataclass(frozen=True)
class Refusal:
    """A case of the contract."""

    code: str
    means: str
    found: str | None = None
    file: str | None = None

    @property
    def variant(self) -> str:
        """Its name in Rust."""
        return "".join(part.capitalize() for part in self.code.split("-"))


@dataclass(frozen=True)
class Tables:
    """What a host says: the refusals, and the hints in its own terms."""

    refusals: list[Refusal]
    hints: dict[str, str]
    file_hints: dict[str, str]
    conflicts: dict[str, str]


def main() -> int:
    data = tomllib.loads((ROOT / SOURCE).read_text())
    stale = []
    for place, (terms, generate) in GENERATED.items():
        path = ROOT / place
        before = path.read_text() if path.exists() else ""
        after = generate(tables(data, terms), before)
        if after == before:
            continue
        stale.append(place)
        if "--check" not in sys.argv:
            path.write_text(after)
    for place in stale:
        print(f"{place}: not up to date: run tools/generate-errors.py" if "--check" in sys.argv else f"wrote {place}")
    return 1 if stale and "--check" in sys.argv else 0


def tables(data: dict, terms: str | None) -> Tables:
    """The tables with the terms of a host; without them the hints are of no use."""
    refusals = [Refusal(**error) for error in data["error"]]
    words = data["terms"][terms] if terms else {}

    def worded(hint: str) -> str:
        text = re.sub(r"\{(\w+)\}", lambda name: words.get(name[1], name[0]), hint)
        left = set(re.findall(r"\{(\w+)\}", text)) - AT_RUN_TIME
        assert not terms or not left, f"{terms} has no term for {left}"
        return text

    file_hints = {refusal.code: worded(refusal.file) for refusal in refusals if refusal.file}
    hints = {name: worded(hint) for name, hint in data["hints"].items()}
    conflicts = {conflict["reason"]: conflict["means"] for conflict in data["conflict"]}
    return Tables(refusals, hints, file_hints, conflicts)


def python(tables: Tables, _: str) -> str:
    lines = [f'"""Refusals and hints. {NOTICE}"""', "", "from __future__ import annotations", ""]
    lines += ["# Each case of the contract's `types.error`: its meaning, and what stands before `found` where that has one."]
    lines += ["EXPLANATIONS: dict[str, tuple[str, str | None]] = {"]
    for refusal in tables.refusals:
        found = json.dumps(refusal.found) if refusal.found else "None"
        lines.append(f"    {json.dumps(refusal.code)}: ({json.dumps(refusal.means)}, {found}),")
    lines += ["}", "", "# What to do, by occasion."]
    lines += ["HINTS: dict[str, str] = {", *(f"    {json.dumps(k)}: {json.dumps(v)}," for k, v in tables.hints.items()), "}"]
    lines += ["", "# What to do about a refused file; for the other cases, HINTS[\"file\"]."]
    lines += ["FILE_HINTS: dict[str, str] = {"]
    lines += [f"    {json.dumps(code)}: {json.dumps(hint)}," for code, hint in tables.file_hints.items()]
    lines += ["}", "", "# Why a credential is in conflict, by the contract's `file-store.reason`."]
    lines += ["CONFLICTS: dict[str, str] = {"]
    lines += [f"    {json.dumps(reason)}: {json.dumps(means)}," for reason, means in tables.conflicts.items()]
    return "\n".join([*lines, "}", ""])


def node(tables: Tables, _: str) -> str:
    def quoted(text: str) -> str:
        # As prettier does: the quotes that need fewer backslashes.
        return f"'{text}'" if text.count('"') > text.count("'") == 0 else json.dumps(text)

    def entry(name: str, value: str) -> str:
        key = name if name.isidentifier() else quoted(name)
        line = f"    {key}: {value},"
        return line if len(line) <= 120 else f"    {key}:\n        {value},"

    lines = [f"// {NOTICE}", "", "/** The contract's `types.error`, each with what it means and what stands before `found`. */"]
    lines.append("export const CODES = {")
    for refusal in tables.refusals:
        parts = [quoted(refusal.means), *([quoted(refusal.found)] if refusal.found else [])]
        lines.append(entry(refusal.code, f"[{', '.join(parts)}]"))
    lines += ["} as const;", "", "/** What to do, by occasion. */", "export const HINTS = {"]
    lines += [entry(name, quoted(hint)) for name, hint in tables.hints.items()]
    lines += ["} as const;", "", "/** What to do about a refused file; for the other cases, `HINTS.file`. */"]
    lines.append("export const FILE_HINTS: Readonly<Record<string, string>> = {")
    lines += [entry(code, quoted(hint)) for code, hint in tables.file_hints.items()]
    lines += ["};", "", "/** Why a credential is in conflict, by the contract's `file-store.reason`. */"]
    lines.append("export const CONFLICTS = {")
    lines += [entry(reason, quoted(means)) for reason, means in tables.conflicts.items()]
    return "\n".join([*lines, "} as const;", ""])


def command(tables: Tables, _: str) -> str:
    variants = {refusal.code: refusal.variant for refusal in tables.refusals}
    lines = [f"//! What to do about a failure. {NOTICE}", "", "use omni_credentials_host::{ErrorCode, Reason};"]
    for name, hint in tables.hints.items():
        if name != "file":
            line = f"pub(crate) const {name.upper()}: &str = {rust(hint)};"
            lines += ["", f"/// The hint `{name}`.", line if len(line) <= 110 else line.replace(" = ", " =\n    ", 1)]
    lines += ["", "/// What to do about a refused file. `{file}` stands for its name."]
    lines += ["pub(crate) const fn file(code: ErrorCode) -> &'static str {", "    match code {"]
    arms = [(f"ErrorCode::{variants[code]}", hint) for code, hint in tables.file_hints.items()]
    for pattern, hint in [*arms, ("_", tables.hints["file"])]:
        line = f"        {pattern} => {rust(hint)},"
        lines += [line] if len(line) <= 110 else [f"        {pattern} => {{", f"            {rust(hint)}", "        }"]
    lines += ["    }", "}", "", "/// Why a credential is in conflict."]
    lines += ["pub(crate) const fn conflict(reason: Reason) -> &'static str {", "    match reason {"]
    for reason, means in tables.conflicts.items():
        variant = "".join(part.capitalize() for part in reason.split("-"))
        lines.append(f"        Reason::{variant} => {rust(means)},")
    return "\n".join([*lines, "    }", "}", ""])


def glue(tables: Tables, _: str) -> str:
    lines = [f"//! The core's refusals as those of the contract. {NOTICE}", ""]
    lines += ["use omni_credentials_core::Error;", "", "use crate::bindings::exports::omni::credentials::types;", ""]
    lines += ["/// The case of the contract for a refusal of the core."]
    lines += ["pub(crate) fn error(error: Error) -> types::Error {", "    match error {"]
    names = [refusal.variant for refusal in tables.refusals]
    assert names[-1] == "Other"
    lines += [f"        Error::{name} => types::Error::{name}," for name in names[:-1]]
    lines += ["        // A case that the contract does not have yet, too.", "        _ => types::Error::Other,"]
    return "\n".join([*lines, "    }", "}", ""])


def host(tables: Tables, before: str) -> str:
    """The table in the middle of a file: what stands in the braces of `error_codes!`."""
    start = before.index("\nerror_codes! {\n") + len("\nerror_codes! {\n")
    lines = []
    for refusal in tables.refusals:
        found = f" found {rust(refusal.found)}" if refusal.found else ""
        lines.append(f"    {refusal.variant} {rust(refusal.code)} {rust(refusal.means)}{found},\n")
    return before[:start] + "".join(lines) + before[before.index("}\n", start) :]


def rust(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


# Each file that is written, with the terms of its hints and its form.
GENERATED: dict[str, tuple[str | None, Callable[[Tables, str], str]]] = {
    "host-python/src/omni_credentials/_error_table.py": ("python", python),
    "host-node/src/error-table.ts": ("node", node),
    "host-cli/src/hints.rs": ("command", command),
    "host/src/error.rs": (None, host),
    "modules/glue/src/error_table.rs": (None, glue),
}

if __name__ == "__main__":
    sys.exit(main())
