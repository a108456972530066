#!/usr/bin/env bash
# Prints the version of everything here. Cargo.toml is the only place that has it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
sed -nE '/^\[workspace.package\]/,/^\[/ s/^version = "(.*)"$/\1/p' Cargo.toml
