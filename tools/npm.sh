#!/usr/bin/env bash
# Builds the Node package: <target>/node/omni-credentials-VERSION.tgz, with the crypto module inside. Then installs it
# into <target>/node/installed, for the tests, which so try what is shipped. The sources are copied first: nothing is
# written into the checkout.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

work=$CARGO_TARGET_DIR/node
package=$work/package
installed=$work/installed
module=$CARGO_TARGET_DIR/modules/xchacha20poly1305.wasm
version=$(tools/version.sh)
# No script of a dependency runs, and npm reports nothing.
npm=(npm --no-audit --no-fund --ignore-scripts --no-update-notifier --loglevel=error)

mkdir -p "$package" "$installed"
rm -rf "$installed/test"
cp -R host-node/test "$installed/"
inputs=$(find host-node tools/npm.sh Cargo.toml -type f ! -path 'host-node/test/*' | LC_ALL=C sort)
# shellcheck disable=SC2086 # names of ours, without spaces
stamp=$(cat $inputs "$module" | cksum)
if [[ $(cat "$work/.built" 2>/dev/null) == "$stamp" ]]; then exit; fi
rm -f "$work/.built"

# The dependencies are fetched again when their pins change.
pins=$(cksum <host-node/package-lock.json)
if [[ $(cat "$work/.pins" 2>/dev/null) != "$pins" ]]; then
    rm -rf "$package" "$work/.pins"
    mkdir -p "$package"
    cp host-node/package.json host-node/package-lock.json "$package/"
    (cd "$package" && "${npm[@]}" ci)
    printf '%s\n' "$pins" >"$work/.pins"
fi

find "$package" -mindepth 1 -maxdepth 1 ! -name node_modules -exec rm -rf {} +
cp -R host-node/. LICENSE "$package/"
rm -r "$package/test"
(cd "$package" && "${npm[@]}" pkg set "version=$version")
(cd "$package" && node build.mjs "$module")
rm -f "$work"/*.tgz
(cd "$package" && "${npm[@]}" pack --silent --pack-destination "$work") >/dev/null

rm -rf "$installed/node_modules"
printf '{ "private": true, "type": "module" }\n' >"$installed/package.json"
(cd "$installed" && "${npm[@]}" install --offline --no-package-lock --no-save "$work"/omni-credentials-*.tgz)
printf '%s\n' "$stamp" >"$work/.built"
