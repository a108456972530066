#!/usr/bin/env bash
# Writes lists of components (CycloneDX) into <target>/package. Usage: packaging/sbom.sh KIND…, as sbom.py has them.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=packaging/common.sh
. packaging/common.sh
mkdir -p "$out"
"$OMNI_PYTHON" packaging/sbom.py "$out" "$@"
