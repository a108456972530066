"""The table of the benchmarks, in the terminal and in README.md. What it says is for `./just bench` to find out."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent / "bench"))

import report


@pytest.mark.parametrize(
    ("text", "seconds"), [("1.5s", 1.5), ("175 ms", 0.175), ("75.81µs", 75.81e-6), ("2.2 µs", 2.2e-6), ("640ns", 640e-9)]
)
def test_durations_are_read_as_they_are_printed(text: str, seconds: float) -> None:
    assert report.seconds(text) == pytest.approx(seconds)
    assert report.seconds(report.duration(seconds)) == pytest.approx(seconds, rel=0.01)


def test_the_table_of_the_readme(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    copy = tmp_path / "README.md"
    before = report.README.read_text()
    copy.write_text(before)
    monkeypatch.setattr(report, "README", copy)
    table = report.Report()
    table.ratio("one", 1e-6, "another", 2e-6, 0.7, readme=True)
    table.more("first", 3e-3, "nothing", 1e-3, 0.9e-3, readme=True)
    table.ratio("not in README", 1, "another", 2)
    table.write()
    written = copy.read_text()
    head, rest = written.split(report.BEGIN)
    lines, tail = rest.split(report.END)
    assert before.startswith(head) and before.endswith(tail)
    assert lines.splitlines()[2:] == [
        "| one | 1 µs | another | 2 µs | 0.50 | 0.70 |",
        "| first | 3 ms | nothing | 1 ms | +2 ms | +900 µs |",
    ]
