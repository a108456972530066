#!/usr/bin/env python3
"""Writes a CycloneDX bill of materials for each thing that is shipped.

Usage: packaging/sbom.py FOLDER KIND…

KIND is library (for the Postgres in OMNI_PG_MAJOR), command, wheel or npm; FOLDER gets a file *.cdx.json for each. Each
carries the default crypto module, whose crates are listed below it. The same commit gives the same bytes.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
import sys
import uuid
import zipfile
from datetime import UTC, datetime
from email.parser import Parser
from pathlib import Path

from components import ROOT, Crate, Graph, graph
from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType, Pedigree
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

TARGET = Path(os.environ["CARGO_TARGET_DIR"])
MODULE = "omni-credentials-module-xchacha20poly1305"
VERSION = subprocess.run([ROOT / "tools" / "version.sh"], capture_output=True, text=True, check=True).stdout.strip()
HOMEPAGE = "https://github.com/omnigres/omni_credentials"


def main() -> None:
    folder, *kinds = sys.argv[1:]
    makers = {"library": library, "command": command, "wheel": wheel, "npm": npm}
    for kind in kinds:
        name, bom = makers[kind]()
        file = Path(folder) / f"{name}.cdx.json"
        file.write_text(text(bom))
        print(f"{file} ({len(bom.components)} components)")


def library() -> tuple[str, Bom]:
    major = os.environ["OMNI_PG_MAJOR"]
    crates = graph("omni_credentials", features=f"omni_credentials/pg{major}")
    bom = of(own("omni_credentials", ComponentType.LIBRARY, PackageURL("generic", None, "omni_credentials", VERSION)))
    add_crates(bom, bom.metadata.component, crates)
    add_module(bom)
    return f"omni_credentials-{VERSION}-pg{major}-linux-{platform.machine()}", bom


def command() -> tuple[str, Bom]:
    bom = of(own("omni-credentials", ComponentType.APPLICATION, PackageURL("generic", None, "omni-credentials", VERSION)))
    add_crates(bom, bom.metadata.component, graph("omni-credentials-cli"))
    add_module(bom)
    return f"omni-credentials-{VERSION}-linux-{platform.machine()}", bom


def wheel() -> tuple[str, Bom]:
    file = TARGET / "python" / "dist" / f"omni_credentials-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(file) as archive:
        metadata = Parser().parsestr(archive.read(f"omni_credentials-{VERSION}.dist-info/METADATA").decode())
    root = own("omni-credentials", ComponentType.LIBRARY, PackageURL("pypi", None, "omni-credentials", VERSION))
    root.hashes.add(digest(file.read_bytes()))
    bom = of(root)
    for requirement in metadata.get_all("Requires-Dist"):
        if "extra ==" in requirement:
            continue
        # A range: which version comes in is decided where the wheel is installed.
        name, range_ = re.fullmatch(r"([\w-]+)(.*)", requirement).groups()
        needed = Component(
            name=name, type=ComponentType.LIBRARY, purl=PackageURL("pypi", None, name), description=f"versions {range_}",
            bom_ref=f"pkg:pypi/{name}",
        )
        bom.components.add(needed)
        bom.register_dependency(root, [needed])
    add_module(bom)
    return file.name, bom


def npm() -> tuple[str, Bom]:
    file = TARGET / "node" / f"omni-credentials-{VERSION}.tgz"
    root = own("omni-credentials", ComponentType.LIBRARY, PackageURL("npm", None, "omni-credentials", VERSION))
    root.hashes.add(digest(file.read_bytes()))
    bom = of(root)
    add_module(bom)
    return file.name, bom


def own(name: str, kind: ComponentType, purl: PackageURL) -> Component:
    return Component(
        name=name, version=VERSION, type=kind, purl=purl, bom_ref=str(purl), licenses=[licence("Apache-2.0")],
        external_references=[ExternalReference(type=ExternalReferenceType.VCS, url=XsUri(HOMEPAGE))],
    )


def of(root: Component) -> Bom:
    """An empty bill. Its time is that of the commit, and its number comes from its subject."""
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"{HOMEPAGE}#{root.purl}"))
    bom.metadata.component = root
    bom.metadata.timestamp = datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), UTC)
    bom.register_dependency(root)
    return bom


def add_module(bom: Bom) -> None:
    """The crypto module, byte for byte the same in all of them, and what it is made of."""
    content = (TARGET / "modules" / "xchacha20poly1305.wasm").read_bytes()
    module = own("xchacha20poly1305.wasm", ComponentType.LIBRARY, PackageURL("generic", None, "xchacha20poly1305.wasm", VERSION))
    module.hashes.add(digest(content))
    bom.components.add(module)
    bom.register_dependency(bom.metadata.component, [module])
    add_crates(bom, module, graph(MODULE, "module"))


def add_crates(bom: Bom, top: Component, crates: Graph) -> None:
    """The crates below a component, which stands for the crate that is the top of their graph."""
    components = {found: top if found == crates.root else component(found) for found in crates.crates}
    for found, made in components.items():
        if found != crates.root and made not in bom.components:
            bom.components.add(made)
    for found, needed in crates.edges.items():
        bom.register_dependency(components[found], [components[other] for other in needed])


def component(found: Crate) -> Component:
    references = [ExternalReference(type=ExternalReferenceType.VCS, url=XsUri(found.repository))] if found.repository else []
    changed = Pedigree(notes="Changed: third_party/README.md") if found.folder.is_relative_to(ROOT / "third_party") else None
    return Component(
        pedigree=changed,
        name=found.name, version=found.version, type=ComponentType.LIBRARY, description=found.description or None,
        purl=PackageURL("cargo", None, found.name, found.version), bom_ref=found.purl,
        licenses=[licence(found.licence)] if found.licence else [], external_references=references,
    )


def licence(expression: str):
    # The older way to write a choice.
    return LicenseFactory().make_from_string(re.sub(r"\s*/\s*", " OR ", expression))


def digest(content: bytes) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=hashlib.sha256(content).hexdigest())


def text(bom: Bom) -> str:
    output = JsonV1Dot6(bom)
    made = output.output_as_string(indent=2)
    problem = JsonStrictValidator(output.schema_version).validate_str(made)
    if problem:
        sys.exit(f"sbom: {problem}")
    return made + "\n"


if __name__ == "__main__":
    main()
