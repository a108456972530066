"""What was released, and whether its scripts are as they must be: host-pg/upgrade/README.md."""

from __future__ import annotations

import hashlib
import itertools
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "host-pg" / "upgrade"
# The groups that https://keepachangelog.com knows.
GROUPS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
# A version in the name of something that is built here.
NAMED = re.compile(r"omni[-_]credentials(?:--|[-_])(\d+\.\d+\.\d+)(?!\d|--)")


@dataclass(frozen=True)
class History:
    """The versions in CHANGELOG.md, oldest first. `next` is the one without a date yet, if there is one."""

    released: list[str]
    next: str | None

    @classmethod
    def read(cls, changelog: str) -> History:
        headings = re.findall(r"^## \[(\d+\.\d+\.\d+\S*)\] - (\S+)$", changelog, re.M)[::-1]
        assert len(headings) == len(re.findall(r"^## ", changelog, re.M)), "CHANGELOG.md: ## [X.Y.Z] - DATE"
        dated = [version for version, date in headings if re.fullmatch(r"\d{4}-\d\d-\d\d", date)]
        open_ = [version for version, date in headings if date == "unreleased"]
        assert len(dated) + len(open_) == len(headings) and open_ == [version for version, _ in headings[len(dated) :]]
        assert headings and len(open_) <= 1, "CHANGELOG.md: released versions below at most one that is not"
        return cls(dated, open_[0] if open_ else None)

    @property
    def current(self) -> str:
        return self.next or self.released[-1]

    @property
    def steps(self) -> list[tuple[str, str]]:
        versions = [*self.released, *([self.next] if self.next else [])]
        return list(itertools.pairwise(versions))


def problems(history: History, scripts: Path, made: str) -> list[str]:
    """What is wrong with a folder of scripts. `made` is the install script that the sources give today."""
    sums = dict(line.split()[::-1] for line in (scripts / "SHA256SUMS").read_text().splitlines())
    frozen = [f"omni_credentials--{version}.sql" for version in history.released]
    frozen += [f"omni_credentials--{a}--{b}.sql" for a, b in history.steps if b != history.next]
    found = [f"{name} was released and is not in SHA256SUMS" for name in frozen if name not in sums]
    for name, digest in sums.items():
        if not (scripts / name).exists():
            found.append(f"{name} was released and is gone")
        elif hashlib.sha256((scripts / name).read_bytes()).hexdigest() != digest:
            found.append(f"{name} was released and has changed")
    if history.next and history.released and not (scripts / "omni_credentials--{}--{}.sql".format(*history.steps[-1])).exists():
        found.append(f"there is no update from {history.released[-1]} to {history.next}")
    current = scripts / f"omni_credentials--{history.current}.sql"
    if history.next is None and current.exists() and current.read_text() != made:
        found.append(f"host-pg/sql has changed since {history.current} was released: it needs the next version")
    return found


def older_problems(history: History, scripts: Path, made: str) -> list[str]:
    """What is wrong with the update from the older extension, 0.2.0, to our first version. `made` is the one that the
    sources give today."""
    if not history.released:
        return []
    first = history.released[0]
    script = scripts / f"omni_credentials--0.2.0--{first}.sql"
    if script.name not in (scripts / "SHA256SUMS").read_text().split():
        return [f"{script.name} was released and is not in SHA256SUMS"]
    if history.current == first and script.exists() and script.read_text() != made:
        return [f"{script.name} is not what host-pg/sql gives: run ./just freeze again"]
    return []


def notes(changelog: str, version: str) -> str:
    """The section of a version, for the page of its release."""
    found = re.search(rf"^## \[{re.escape(version)}\] - \S+\n(.*?)(?=^## |^\[|\Z)", changelog, re.M | re.S)
    return found[1].strip() + "\n" if found else ""


def version_problems(root: Path) -> Iterator[str]:
    """Where a file of the repository gives another version than Cargo.toml, which is the only place to change."""
    manifest = tomllib.loads((root / "Cargo.toml").read_text())
    workspace, version = manifest["workspace"]["package"], manifest["workspace"]["package"]["version"]
    changelog = (root / "CHANGELOG.md").read_text()
    if History.read(changelog).current != version:
        yield f"CHANGELOG.md: the newest version is {History.read(changelog).current}, in Cargo.toml it is {version}"
    if not re.search(rf"^\[{re.escape(version)}\]: {re.escape(workspace['repository'])}/\S+$", changelog, re.M):
        yield f"CHANGELOG.md: [{version}] has no link at the end of the file"
    section = notes(changelog, version)
    groups = re.findall(r"^### (.*)$", section, re.M)
    if not groups or not set(groups) <= set(GROUPS) or not re.search(r"^- ", section, re.M):
        yield f"CHANGELOG.md: version {version} needs entries below headings such as {', '.join(GROUPS)}"
    others = manifest.get("patch", {}).get("crates-io", {})
    for package in tomllib.loads((root / "Cargo.lock").read_text())["package"]:
        # What has no source is a member of this workspace, or a changed crate of others.
        if "source" not in package and package["name"] not in others and package["version"] != version:
            yield f"Cargo.lock: {package['name']} is {package['version']}, in Cargo.toml it is {version}"
    for page in sorted([*root.glob("*.md"), *root.glob("docs/*.md"), *root.glob("host-*/README.md")]):
        if page.name != "CHANGELOG.md":
            for found in NAMED.finditer(page.read_text()):
                if found[1] != version:
                    yield f"{page.relative_to(root)}: {found[0]} is not of version {version}"
