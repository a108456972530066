#!/usr/bin/env bash
# Installs valgrind, which counts instructions, from the system's packages where there is none.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck source=tools/setup/common.sh
. tools/setup/common.sh
# shellcheck source=tools/setup/packages.sh
. tools/setup/packages.sh

if command -v valgrind >/dev/null; then exit; fi
mkdir -p "$tools"
want "valgrind, to count instructions" valgrind libc6-dbg
install_wanted
