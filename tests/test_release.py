"""`./just release-check`: the version is in one place, and what keeps a commit from being released is said."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import Database
from releases import ROOT, History, notes, version_problems

VERSION = History.read((ROOT / "CHANGELOG.md").read_text()).current

_spec = importlib.util.spec_from_file_location("release_check", ROOT / "tools" / "release-check.py")
release_check = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(release_check)


def test_one_version() -> None:
    assert list(version_problems(ROOT)) == []
    printed = subprocess.run([ROOT / "tools" / "version.sh"], capture_output=True, text=True, check=True).stdout
    assert printed == f"{VERSION}\n"


def test_what_the_server_says(db: Database) -> None:
    assert db.run("select extversion from pg_extension where extname = 'omni_credentials'") == [(VERSION,)]
    if db.server.installation.major >= 18:
        loaded = "select version from pg_get_loaded_modules() where module_name = 'omni_credentials'"
        with db.connect() as session:
            session.execute("load 'omni_credentials'")
            assert session.execute(loaded).fetchall() == [(VERSION,)]


class TestVersions:
    """The same look at folders where something is wrong."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for name in ("Cargo.toml", "Cargo.lock", "CHANGELOG.md"):
            shutil.copy(ROOT / name, tmp_path)
        assert list(version_problems(tmp_path)) == []
        return tmp_path

    @pytest.mark.parametrize(
        "name, before, after, problem",
        [
            ("CHANGELOG.md", f"## [{VERSION}]", "## [9.9.9]", "the newest version is 9.9.9"),
            ("CHANGELOG.md", "### Added", "### News", "needs entries below headings"),
            ("CHANGELOG.md", f"\n[{VERSION}]:", "\n[9.9.9]:", "has no link"),
            ("Cargo.lock", f'-core"\nversion = "{VERSION}"', '-core"\nversion = "9.9.9"', "omni-credentials-core is 9.9.9"),
        ],
        ids=["changelog", "groups", "link", "lock"],
    )
    def test_that_differ(self, folder: Path, name: str, before: str, after: str, problem: str) -> None:
        text = (folder / name).read_text()
        assert before in text
        (folder / name).write_text(text.replace(before, after))
        assert any(problem in found for found in version_problems(folder))

    def test_in_a_page(self, folder: Path) -> None:
        names = f"omni-credentials-{VERSION}.tgz omni_credentials--0.2.0--{VERSION}.sql"
        (folder / "README.md").write_text(f"{names} postgresql-18-omni-credentials_9.9.9-1_amd64.deb")
        assert list(version_problems(folder)) == [f"README.md: omni-credentials_9.9.9 is not of version {VERSION}"]


def test_notes() -> None:
    changelog = "# Changelog\n\n## [2.0.0] - unreleased\n\n### Added\n\n- b\n\n## [1.0.0] - 2027-01-02\n\n- a\n\n[2.0.0]: x\n"
    assert notes(changelog, "2.0.0") == "### Added\n\n- b\n"
    assert notes(changelog, "1.0.0") == "- a\n"
    assert notes(changelog, "1.0") == ""


class TestGit:
    @pytest.fixture
    def repository(self, tmp_path: Path) -> Path:
        subprocess.run(["git", "init", "-q", tmp_path], check=True)
        self.commit(tmp_path, "one")
        return tmp_path

    @staticmethod
    def commit(repository: Path, name: str) -> None:
        (repository / name).write_text(name)
        release_check.git(repository, "add", name)
        release_check.git(repository, "-c", "user.name=n", "-c", "user.email=e", "commit", "-q", "-m", name)

    def problems(self, repository: Path, *tags: str) -> list[str]:
        return list(release_check.git_problems(repository, "1.2.3", list(tags)))

    def test_clean(self, repository: Path) -> None:
        assert self.problems(repository) == []
        release_check.git(repository, "tag", "v1.2.3")
        assert self.problems(repository, "v1.2.3") == []

    def test_not_committed(self, repository: Path) -> None:
        (repository / "new").write_text("")
        assert self.problems(repository) == ["git: new is not committed"]

    @pytest.mark.parametrize("kind", [[], ["-a", "-m", "text"]], ids=["light", "annotated"])
    def test_tag_of_another_commit(self, repository: Path, kind: list[str]) -> None:
        release_check.git(repository, "-c", "user.name=n", "-c", "user.email=e", "tag", *kind, "v1.2.3")
        assert self.problems(repository) == []
        self.commit(repository, "two")
        assert self.problems(repository) == ["git: v1.2.3 is the tag of another commit"]

    def test_another_tag(self, repository: Path) -> None:
        assert self.problems(repository, "v1.2.4") == ["git: the tag is v1.2.4; for this version it is v1.2.3"]
