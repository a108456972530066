"""What is in the things that are shipped: licences, and lists of components (CycloneDX)."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from packages import PACKAGING, TARGET, VERSION, run

sys.path.append(str(PACKAGING))
from components import graph, third_party


class TestComponents:
    def test_what_is_linked(self) -> None:
        names = {found.name for found in graph("omni-credentials-cli").crates}
        assert {"omni-credentials-host", "wasmtime", "clap"} <= names
        # Of the build, of tests, of other systems.
        assert not names & {"clap_derive", "proptest", "windows-sys", "pgrx"}

    def test_each_crate_has_its_licence(self) -> None:
        found = graph("omni-credentials-module-xchacha20poly1305", "module").crates
        text = third_party(found)
        others = [crate for crate in found if not crate.own]
        assert others and "omni-credentials" not in text
        for crate in others:
            assert re.search(rf"^{re.escape(crate.name)} {re.escape(crate.version)}: \S+", text, re.M), crate

    def test_bills_of_materials(self, tmp_path: Path) -> None:
        done = run(sys.executable, PACKAGING / "sbom.py", tmp_path, "wheel", "npm", SOURCE_DATE_EPOCH="1600000000")
        assert done.returncode == 0, done.stderr
        digest = (TARGET / "modules" / "xchacha20poly1305.wasm.sha256").read_text().split()[0]
        for file in tmp_path.iterdir():
            bill = json.loads(file.read_text())
            assert bill["bomFormat"] == "CycloneDX"
            assert bill["metadata"]["timestamp"] == "2020-09-13T12:26:40+00:00"
            (module,) = (part for part in bill["components"] if part["name"] == "xchacha20poly1305.wasm")
            assert module["hashes"] == [{"alg": "SHA-256", "content": digest}]
            (cipher,) = (part for part in bill["components"] if part["name"] == "chacha20poly1305")
            assert cipher["purl"] == f"pkg:cargo/chacha20poly1305@{cipher['version']}"
            changed = {part["name"]: part["pedigree"] for part in bill["components"] if "pedigree" in part}
            notes = {"notes": "Changed: third_party/README.md"}
            assert changed == {"chacha20": notes, "chacha20poly1305": notes, "poly1305": notes}
        assert {file.name for file in tmp_path.iterdir()} == {
            f"omni_credentials-{VERSION}-py3-none-any.whl.cdx.json", f"omni-credentials-{VERSION}.tgz.cdx.json",
        }
