"""The crates that end up in what is shipped, from `cargo metadata`."""

from __future__ import annotations

import json
import platform
import subprocess
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Files of a crate that say under which conditions it may be shipped.
LEGAL = ("licen", "copying", "notice", "unlicense")
TARGETS = {"module": "wasm32-unknown-unknown", "host": f"{platform.machine()}-unknown-linux-gnu"}


@dataclass(frozen=True)
class Crate:
    name: str
    version: str
    licence: str
    repository: str
    description: str
    folder: Path
    # A member of this workspace.
    own: bool

    @property
    def purl(self) -> str:
        return f"pkg:cargo/{self.name}@{self.version}"


@dataclass(frozen=True)
class Graph:
    """What a package of this workspace is linked with: not what only its build or its tests need."""

    root: Crate
    crates: list[Crate]
    edges: dict[Crate, list[Crate]]


def graph(package: str, target: str = "host", features: str | None = None) -> Graph:
    select = ["--locked", *(["--no-default-features", "--features", features] if features else [])]
    # The tree has the features that building this package alone has; the metadata, those of the whole workspace.
    edge_kinds = "normal,no-proc-macro"
    tree = cargo("tree", *select, "-p", package, "--target", TARGETS[target], "-e", edge_kinds, "--prefix", "none", "-f", "{p}")
    linked = {tuple(line.split()[:2]) for line in tree.splitlines() if line}
    metadata = json.loads(cargo("metadata", *select, "--format-version", "1", "--filter-platform", TARGETS[target]))
    members = set(metadata["workspace_members"])
    crates = {found["id"]: crate(found, found["id"] in members) for found in metadata["packages"]}
    chosen = {key: found for key, found in crates.items() if (found.name, f"v{found.version}") in linked}
    edges = {
        chosen[node["id"]]: sorted({chosen[other] for other in node["dependencies"] if other in chosen}, key=order)
        for node in metadata["resolve"]["nodes"]
        if node["id"] in chosen
    }
    (root,) = (found for found in edges if found.own and found.name == package)
    return Graph(root, sorted(edges, key=order), edges)


def cargo(*arguments: str) -> str:
    return subprocess.run(["cargo", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def crate(found: dict[str, object], own: bool) -> Crate:
    return Crate(
        found["name"], found["version"], found["license"] or "", found["repository"] or "",
        " ".join((found["description"] or "").split()), Path(found["manifest_path"]).parent, own,
    )


def order(found: Crate) -> tuple[str, str]:
    return found.name, found.version


def third_party(crates: list[Crate]) -> str:
    """The list of other authors' crates, and the text of each licence once, with the crates that have it."""
    others = sorted({found for found in crates if not found.own}, key=order)
    lines = ["Crates of other authors that these binaries contain, with their licences. The texts follow.", ""]
    lines += [f"{found.name} {found.version}: {found.licence}  {found.repository}".rstrip() for found in others]
    texts: dict[str, list[str]] = defaultdict(list)
    for found in others:
        for file in sorted(found.folder.iterdir()):
            if file.is_file() and file.name.lower().startswith(LEGAL):
                text = "\n".join(line.rstrip() for line in file.read_text(errors="replace").strip().splitlines())
                texts[text].append(f"{found.name} {found.version} ({file.name})")
    for text, names in texts.items():
        lines += ["", "=" * 100, *sorted(names), "-" * 100, text]
    return "\n".join(lines) + "\n"
