#!/usr/bin/env bash
# Keeps the scripts of this version permanently, on release day: host-pg/upgrade/README.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=$(tools/version.sh)
tools/install-script.sh >"host-pg/upgrade/omni_credentials--$version.sql"
# The update from the older extension is to our first version, and stays; both are made again until that is tagged.
older=$(compgen -G "host-pg/upgrade/omni_credentials--0.2.0--*.sql") || true
if [[ -z $older || $older == */omni_credentials--0.2.0--$version.sql ]]; then
    tools/install-script.sh --from-0.2.0 >"host-pg/upgrade/omni_credentials--0.2.0--$version.sql"
fi
cd host-pg/upgrade
sha256sum ./*.sql | sed 's, \./, ,' >SHA256SUMS
cat SHA256SUMS
