#!/usr/bin/env bash
# Keeps the scripts of this version for good, on release day: host-pg/upgrade/README.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=$(sed -nE '/^\[workspace.package\]/,/^\[/ s/^version = "(.*)"/\1/p' Cargo.toml)
cp "$CARGO_TARGET_DIR/stage/pg$OMNI_PG_MAJOR/share/extension/omni_credentials--$version.sql" host-pg/upgrade/
cd host-pg/upgrade
sha256sum ./*.sql | sed 's, \./, ,' >SHA256SUMS
cat SHA256SUMS
