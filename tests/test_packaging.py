"""What can be tried of the packages without root: install.sh, the formula, the digests.

packaging/test-deb.sh tries the Debian packages in a system of their own, as root.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from packages import PACKAGING, TARGET, VERSION, run


class TestInstallScript:
    """install.sh fetches the command's archive, and trusts nothing but the digest that it carries."""

    NAME = f"omni-credentials-{VERSION}-linux-{platform.machine()}"

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """What a release has: an archive like that of ./just package, and the script that names its digest."""
        tree = tmp_path / "tree" / self.NAME
        (tree / "completions").mkdir(parents=True)
        (tree / "man").mkdir()
        shutil.copy(TARGET / "release" / "omni-credentials", tree)
        for name in ("omni-credentials.bash", "_omni-credentials", "omni-credentials.fish"):
            (tree / "completions" / name).write_text("# completions\n")
        (tree / "man" / "omni-credentials.1").write_text(".TH\n")
        release = tmp_path / "release"
        release.mkdir()
        with tarfile.open(release / f"{self.NAME}.tar.gz", "w:gz", compresslevel=1) as archive:
            archive.add(tree, self.NAME)
        done = run(PACKAGING / "finish.sh", str(release))
        assert done.returncode == 0, done.stderr
        return release

    def install(self, release: Path, home: Path) -> subprocess.CompletedProcess[str]:
        return run("sh", str(release / "install.sh"), HOME=str(home), OMNI_CREDENTIALS_RELEASE=release.as_uri())

    @pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
    def test_installs(self, folder: Path, tmp_path: Path) -> None:
        for _ in range(2):
            done = self.install(folder, tmp_path / "home")
            assert done.returncode == 0, done.stderr
        program = tmp_path / "home" / ".local" / "bin" / "omni-credentials"
        assert run(program, "--version").stdout == f"omni-credentials {VERSION}\n"
        assert (tmp_path / "home/.local/share/man/man1/omni-credentials.1").exists()
        assert "add it there" in done.stdout

    @pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
    def test_refuses_another_file(self, folder: Path, tmp_path: Path) -> None:
        archive = folder / f"{self.NAME}.tar.gz"
        archive.write_bytes(archive.read_bytes() + b"\0")
        done = self.install(folder, tmp_path / "home")
        assert done.returncode == 1
        assert "is not the file that was released" in done.stderr
        assert not (tmp_path / "home").exists()

    @pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
    def test_nothing_to_fetch(self, folder: Path, tmp_path: Path) -> None:
        (folder / f"{self.NAME}.tar.gz").unlink()
        done = self.install(folder, tmp_path / "home")
        assert (done.returncode, done.stderr.count("cannot be fetched")) == (1, 1)
        assert not (tmp_path / "home").exists()

    def test_another_machine(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "bin").mkdir()
        (uname := tmp_path / "bin" / "uname").write_text("#!/bin/sh\necho Plan9\n")
        uname.chmod(0o755)
        done = run("sh", str(folder / "install.sh"), HOME=str(tmp_path), PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}")
        assert done.returncode == 1
        assert done.stderr == f"install: there is no build of version {VERSION} for Plan9 on Plan9\n"

    def test_digests(self, folder: Path) -> None:
        """SHA256SUMS and the Homebrew formula name the same file."""
        digest = hashlib.sha256((folder / f"{self.NAME}.tar.gz").read_bytes()).hexdigest()
        done = subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=folder, check=False)
        assert done.returncode == 0
        formula = (folder / "omni-credentials.rb").read_text()
        assert f'sha256 "{digest}"' in formula and not re.search(r"@[A-Z0-9_]+@", formula + (folder / "install.sh").read_text())
