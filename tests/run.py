#!/usr/bin/env python3
"""Runs the Rust tests, those of the Node package, then those of pytest, and ends with one line that counts all. Part of
`./just test`.

Usage: run.py [--also-on MAJOR]... CARGO-TEST-COMMAND -- PYTEST-ARGUMENT...
pytest runs a file of tests on each processor. With --also-on, what uses Postgres runs once more on another version.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree


@dataclass
class Result:
    """What a test runner said. `succeeded` is its exit status: it counts even when no test failed."""

    succeeded: bool
    passed: int
    failed: int
    skipped: int

    def __str__(self) -> str:
        text = f"{self.passed} passed, {self.failed} failed"
        if self.skipped:
            text += f", {self.skipped} skipped"
        return text if self.succeeded or self.failed else f"{text}, and the run itself failed"


def rust(command: list[str]) -> Result:
    """Runs `cargo test`, shows its output as it comes, and adds up its test binaries."""
    # Tests that run themselves in another process print such lines too, with the rest filtered out: they count once.
    line_of_result = re.compile(r"test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored; .* 0 filtered out")
    passed = failed = ignored = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as process:
        for line in process.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            if found := line_of_result.match(line):
                passed += int(found[1])
                failed += int(found[2])
                ignored += int(found[3])
    return Result(process.returncode == 0 and passed > 0, passed, failed, ignored)


def python(command: list[str]) -> Result:
    """Runs pytest and counts with the report that it writes."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        done = subprocess.run([*command, f"--junitxml={report}"], check=False)
        suite = ElementTree.parse(report).getroot().find("testsuite") if report.exists() else None
    count = {key: int(suite.get(key, 0)) if suite is not None else 0 for key in ("tests", "failures", "errors", "skipped")}
    failed = count["failures"] + count["errors"]
    passed = count["tests"] - failed - count["skipped"]
    return Result(done.returncode == 0 and passed > 0, passed, failed, count["skipped"])


def node() -> Result:
    """Runs the tests of the Node package beside the package as it is installed, and counts with their report."""
    tests = Path(os.environ["CARGO_TARGET_DIR"]) / "node" / "installed" / "test"
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        reporters = {"spec": "stdout", "junit": report}
        options = [f"--test-reporter{it}" for to in reporters.items() for it in (f"={to[0]}", f"-destination={to[1]}")]
        done = subprocess.run(["node", "--test", *options, *sorted(tests.glob("*.test.mjs"))], check=False)
        cases = list(ElementTree.parse(report).iter("testcase")) if report.exists() else []
    failed = sum(case.find("failure") is not None for case in cases)
    skipped = sum(case.find("skipped") is not None for case in cases)
    passed = len(cases) - failed - skipped
    return Result(done.returncode == 0 and passed > 0, passed, failed, skipped)


def main(separator: str = "--") -> None:
    arguments = sys.argv[1:]
    versions = []
    while arguments[0] == "--also-on":
        versions.append(arguments[1])
        del arguments[:2]
    split = arguments.index(separator)
    started = time.monotonic()
    results = {"Rust": rust(arguments[:split])}
    print(flush=True)
    results["Node"] = node()
    print(flush=True)
    # A file stays with one process: its tests share what the file prepares. What the caller says comes last and wins.
    options = ["--numprocesses=auto", "--dist=loadfile", *arguments[split + 1 :]]
    results["pytest"] = python([sys.executable, "-m", "pytest", *options])
    for version in versions:
        print(flush=True)
        others = python(["./just", "--pg", version, "test-sql", "--on-a-server", *options])
        results[f"pytest, Postgres {version}"] = others
    print()
    for name, result in results.items():
        print(f"{name + ':':7} {result}")
    total = Result(
        all(result.succeeded for result in results.values()),
        sum(result.passed for result in results.values()),
        sum(result.failed for result in results.values()),
        sum(result.skipped for result in results.values()),
    )
    print(f"{total} in {time.monotonic() - started:.0f} s")
    sys.exit(0 if total.succeeded else 1)


if __name__ == "__main__":
    main()
