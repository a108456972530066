#!/usr/bin/env bash
# Checks dependencies against deny.toml. Advisories need their database from the network: they are checked when it can
# be reached, and a line says so when it cannot.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=0.20.2
home=$CARGO_TARGET_DIR/tools/cargo-deny
if [[ ! -e $home/.$version ]]; then
    echo "installing cargo-deny $version into $home (about 5 minutes)"
    CARGO_TARGET_DIR=$home-build cargo install --quiet cargo-deny --version "$version" --locked --debug \
        --no-default-features --root "$home"
    touch "$home/.$version"
    rm -rf "$home-build"
fi
export PATH=$home/bin:$PATH

cargo deny --locked check --hide-inclusion-graph bans licenses sources
if timeout 60 cargo deny --locked fetch db 2>/dev/null; then
    cargo deny --locked check --hide-inclusion-graph --disable-fetch advisories
else
    echo "advisories: not checked, their database cannot be reached"
fi
