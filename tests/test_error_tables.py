"""The tables of refusals in all hosts are those of conformance/errors.toml, and it has the cases of the contract."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
GENERATOR = Path("tools/generate-errors.py")
SOURCE = Path("conformance/errors.toml")
TABLES = [
    "host-python/src/omni_credentials/_error_table.py",
    "host-node/src/error-table.ts",
    "host-cli/src/hints.rs",
    "host/src/error.rs",
    "modules/glue/src/error_table.rs",
]


def generate(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, root / GENERATOR, *arguments], capture_output=True, text=True, check=False)


def test_the_tables_are_up_to_date() -> None:
    done = generate(ROOT, "--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_source_has_the_cases_of_the_contract() -> None:
    """In the contract's order: the number of a case is what passes through the sandbox."""
    cases = (ROOT / "wit/types.wit").read_text().split("enum error {")[1].split("}")[0]
    contract = re.findall(r"^ *([a-z-]+),$", cases, re.MULTILINE)
    assert len(contract) > 30
    assert [error["code"] for error in tomllib.loads((ROOT / SOURCE).read_text())["error"]] == contract


def test_a_changed_text_changes_every_host(tmp_path: Path) -> None:
    for place in [*TABLES, str(GENERATOR), str(SOURCE)]:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / place, tmp_path / place)
    text = (tmp_path / SOURCE).read_text()
    (tmp_path / SOURCE).write_text(text.replace("the records are out of order", "the records are mixed up"))
    done = generate(tmp_path, "--check")
    assert done.returncode == 1
    hosts = [place for place in TABLES if (ROOT / place).name not in ("hints.rs", "error_table.rs")]
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == hosts
    assert generate(tmp_path).returncode == 0 == generate(tmp_path, "--check").returncode
    for place in hosts:
        assert "the records are mixed up" in (tmp_path / place).read_text()
