"""Running the scripts of packaging/."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from releases import ROOT, History

VERSION = History.read((ROOT / "CHANGELOG.md").read_text()).current
PACKAGING = ROOT / "packaging"
TARGET = Path(os.environ["CARGO_TARGET_DIR"])


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | {"OMNI_PYTHON": sys.executable} | environment,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )
