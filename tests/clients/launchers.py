"""The recipes of docs/production.md for Debian's launcher, with a cluster that it makes and removes: root only.

Part of `./just test-clients`; not collected by an ordinary run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "production.md").read_text()
NAME = "omni_credentials_test"

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("pg_createcluster"), reason="needs root and postgresql-common"
)


def call(*command: str, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def cluster() -> Iterator[str]:
    """A version for which a cluster was made."""
    version = max(path.name for path in Path("/usr/lib/postgresql").iterdir() if (path / "bin" / "initdb").exists())
    call("pg_createcluster", version, NAME, "--start-conf", "manual")
    yield version
    subprocess.run(["pg_dropcluster", "--stop", version, NAME], check=True, capture_output=True)


def environment_of(version: str) -> dict[str, str]:
    pid = Path(f"/var/lib/postgresql/{version}/{NAME}/postmaster.pid").read_text().split()[0]
    entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return dict(entry.decode().split("=", 1) for entry in entries if b"=" in entry)


def test_the_file_of_the_cluster_reaches_the_server(cluster: str) -> None:
    """What the page says to write, word for word, for this cluster."""
    (block,) = re.findall(r"```sh\n(# Debian and Ubuntu.*?)```", PAGE, re.S)
    script = block.replace("/18/main", f"/{cluster}/{NAME}").replace("18 main", f"{cluster} {NAME}")
    script = script.replace("omni-credentials keygen", "echo omck1_for_a_test")
    try:
        call("sh", "-eu", "-c", script)
        key = Path(f"/etc/postgresql/{cluster}/{NAME}/omni.key")
        assert environment_of(cluster)["OMNI_CREDENTIALS_MASTER_PASSWORD_FILE"] == str(key)
        assert key.owner() == "postgres" and key.stat().st_mode & 0o777 == 0o400
        assert call("runuser", "-u", "postgres", "--", "cat", str(key)) == "omck1_for_a_test\n"
    finally:
        Path(f"/etc/postgresql/{cluster}/{NAME}/omni.key").unlink(missing_ok=True)


def test_a_variable_of_the_launcher_does_not(cluster: str) -> None:
    """Why the page says so: pg_ctlcluster empties the environment."""
    call(
        "pg_ctlcluster", "--skip-systemctl-redirect", cluster, NAME, "start",
        environment=os.environ | {"OMNI_CREDENTIALS_MASTER_PASSWORD": "x"},
    )
    assert "OMNI_CREDENTIALS_MASTER_PASSWORD" not in environment_of(cluster)
