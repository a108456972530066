#!/usr/bin/env bash
# Builds the Python package, wheel and sdist, into <target>/python, with the default crypto module in it, and unpacks
# the wheel into <target>/python/site for the tests: what is tested is what is shipped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${OMNI_PYTHON:?"run this as ./just wheel"}
out=$CARGO_TARGET_DIR/python
source=$out/source

rm -rf "$source" "$out/dist" "$out/site"
mkdir -p "$source"
cp -R host-python/pyproject.toml host-python/README.md host-python/src LICENSE "$source/"
find "$source" -name __pycache__ -prune -exec rm -r {} +
tools/version.sh >"$source/VERSION"
mkdir "$source/src/omni_credentials/modules"
cp "$CARGO_TARGET_DIR/modules/xchacha20poly1305.wasm" "$source/src/omni_credentials/modules/"

# The same input gives the same archives.
export SOURCE_DATE_EPOCH=1577836800
(cd "$source" && "$python" -m hatchling build --directory "$out/dist" >"$out/build.log" 2>&1) \
    || { cat "$out/build.log" >&2; exit 1; }
"$python" -m pip install --quiet --disable-pip-version-check --no-input --no-index --no-deps --target "$out/site" \
    "$out"/dist/*.whl
printf '%s\n' "$out"/dist/*
