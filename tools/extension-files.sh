#!/usr/bin/env bash
# Writes what CREATE EXTENSION and ALTER EXTENSION UPDATE read into a folder, for a server and for every package: the
# control file, the install script, the released scripts, and the update from 0.2.0, which is made until it is released.
# Usage: tools/extension-files.sh FOLDER
set -euo pipefail
to=$(cd "${1:?name a folder}" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=$(tools/version.sh)
sed "s/@CARGO_VERSION@/$version/" host-pg/omni_credentials.control >"$to/omni_credentials.control"
find host-pg/upgrade -name '*.sql' -exec cp {} "$to/" \;
# That of this version is what the sources give; `./just release-check` compares it with the released one.
tools/install-script.sh >"$to/omni_credentials--$version.sql"
if ! compgen -G "$to/omni_credentials--0.2.0--*.sql" >/dev/null; then
    tools/install-script.sh --from-0.2.0 >"$to/omni_credentials--0.2.0--$version.sql"
fi
