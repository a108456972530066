"""A short run of every fuzz target; `./just fuzz` runs them for longer."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
TARGETS = sorted(path.stem for path in (REPOSITORY / "fuzz" / "fuzz_targets").glob("*.rs"))
RUNS = 20_000


@pytest.mark.parametrize("target", TARGETS)
def test_fuzz(target: str) -> None:
    done = subprocess.run(
        [REPOSITORY / "fuzz" / "run.sh", str(RUNS), target], capture_output=True, text=True, errors="replace", check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert int(re.search(r"number_of_executed_units: (\d+)", done.stderr)[1]) >= RUNS
    # Without coverage it would only try the seeds and noise.
    first, last = (int(re.search(rf"{state} +cov: (\d+)", done.stderr)[1]) for state in ("INITED", "DONE"))
    assert last >= first > 100, done.stderr[-4000:]


def test_ciphers() -> None:
    """What third_party/ changed, against what was published."""
    script = REPOSITORY / "fuzz" / "ciphers" / "run.sh"
    done = subprocess.run([script, str(RUNS)], capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"{RUNS} cases of seed 1 are the same" in done.stdout
    assert "no keys of a message are left in memory" in done.stdout


def test_ciphers_wipe_the_same() -> None:
    """fuzz/ciphers/aead has the features of the crate that it stands for."""
    folders = [REPOSITORY / "fuzz" / "ciphers" / "aead", REPOSITORY / "third_party" / "chacha20poly1305"]
    compared, shipped = (tomllib.loads((folder / "Cargo.toml").read_text())["features"]["zeroize"] for folder in folders)
    assert compared == shipped


def test_all_targets_are_fuzzed() -> None:
    script = (REPOSITORY / "fuzz" / "run.sh").read_text()
    assert sorted(re.search(r"set -- (.+)", script)[1].split()) == TARGETS
