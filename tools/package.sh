#!/usr/bin/env bash
# Packs the staged extension. On Postgres 18 the archive can be unpacked anywhere: point extension_control_path at its
# share/ and dynamic_library_path at its lib/. Before, its files go into the folders that pg_config names.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

stage=$CARGO_TARGET_DIR/stage/pg$OMNI_PG_MAJOR
version=$(tools/version.sh)
name=omni_credentials-$version-pg$OMNI_PG_MAJOR-$(uname -s | tr '[:upper:]' '[:lower:]')-$(uname -m)
archive=$CARGO_TARGET_DIR/package/$name.tar.gz

mkdir -p "$CARGO_TARGET_DIR/package/$name/modules"
cp -R "$stage/lib" "$stage/share" LICENSE README.md "$CARGO_TARGET_DIR/package/$name/"
cp "$CARGO_TARGET_DIR"/modules/*.wasm "$CARGO_TARGET_DIR"/modules/*.sha256 "$CARGO_TARGET_DIR/package/$name/modules/"
# The same input gives the same archive.
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -C "$CARGO_TARGET_DIR/package" -cf - "$name" | gzip -n >"$archive"
rm -r "$CARGO_TARGET_DIR/package/${name:?}"
printf '%s (%s bytes)\n' "$archive" "$(stat -c %s "$archive")"
