"""One table of what was measured, for the terminal and for README.md."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- by ./just bench --readme -->\n", "<!-- end -->\n"
HEAD = ("what", "takes", "compared with", "that takes", "ratio", "target")


@dataclass
class Row:
    what: str
    takes: str
    against: str = ""
    theirs: str = ""
    ratio: str = ""
    target: str = ""
    in_readme: bool = False

    def cells(self) -> tuple[str, ...]:
        return self.what, self.takes, self.against, self.theirs, self.ratio, self.target


@dataclass
class Report:
    rows: list[Row] = field(default_factory=list)

    def ratio(self, what: str, takes: float, against: str, theirs: float, target: float | None = None, *, readme: bool = False) -> None:
        """Two times in seconds of things that do the same; `target` is the ratio to reach."""
        self._add(Row(
            what, duration(takes), against, duration(theirs), f"{takes / theirs:.2f}", f"{target:.2f}" if target else "", readme,
        ))

    def more(self, what: str, takes: float, against: str, theirs: float, target: float | None = None, *, readme: bool = False) -> None:
        """The same where the difference counts; `target` is in seconds."""
        difference = f"+{duration(takes - theirs)}"
        self._add(Row(
            what, duration(takes), against, duration(theirs), difference, f"+{duration(target)}" if target else "", readme,
        ))

    def figure(self, what: str, takes: str, note: str = "") -> None:
        """What is compared with nothing."""
        self._add(Row(what, takes, note))

    def write(self) -> None:
        """Puts the rows for it into README.md."""
        text = README.read_text()
        before, rest = text.split(BEGIN)
        _, after = rest.split(END)
        lines = ["| " + " | ".join(HEAD) + " |", "|---|---|---|---|---|---|"]
        lines += ["| " + " | ".join(row.cells()) + " |" for row in self.rows if row.in_readme]
        README.write_text(before + BEGIN + "\n".join(lines) + "\n" + END + after)

    def show(self) -> None:
        table = [HEAD, *(row.cells() for row in self.rows)]
        widths = [max(len(line[n]) for line in table) for n in range(len(HEAD))]
        for line in table:
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())

    def _add(self, row: Row) -> None:
        self.rows.append(row)
        print(".", end="", flush=True)


def duration(seconds: float) -> str:
    for unit, size in (("s", 1), ("ms", 1e-3), ("µs", 1e-6)):
        if abs(seconds) >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def seconds(text: str) -> float:
    """What `duration` prints, or Rust's Duration."""
    number, unit = re.fullmatch(r"([\d.]+) ?(\w+)", text).groups()
    return float(number) * {"s": 1, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}[unit]
