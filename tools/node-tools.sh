#!/usr/bin/env bash
# Installs the tools of tools/node below the target folder, if their pins changed, and prints where their programs are.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

home=$CARGO_TARGET_DIR/tools/node-tools
pins=$(cat tools/node/*.json | cksum)
if [[ $(cat "$home/.pins" 2>/dev/null) != "$pins" ]]; then
    rm -rf "$home"
    mkdir -p "$home"
    cp tools/node/*.json "$home/"
    # No script of a dependency runs.
    (cd "$home" && npm --no-audit --no-fund --ignore-scripts --no-update-notifier --loglevel=error ci >&2)
    printf '%s\n' "$pins" >"$home/.pins"
fi
echo "$home/node_modules"
