#!/usr/bin/env bash
# Keeps the scripts of this version permanently, on release day: host-pg/upgrade/README.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tools/install-script.sh >"host-pg/upgrade/omni_credentials--$(tools/version.sh).sql"
if ! compgen -G "host-pg/upgrade/omni_credentials--0.2.0--*.sql" >/dev/null; then
    tools/install-script.sh --from-0.2.0 >"host-pg/upgrade/omni_credentials--0.2.0--$(tools/version.sh).sql"
fi
cd host-pg/upgrade
sha256sum ./*.sql | sed 's, \./, ,' >SHA256SUMS
cat SHA256SUMS
