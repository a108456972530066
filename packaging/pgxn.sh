#!/usr/bin/env bash
# Packs the sources for PGXN: <target>/package/omni_credentials-X.Y.Z.zip, with META.json and the Makefile at the top.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=packaging/common.sh
. packaging/common.sh

tree=$work/omni_credentials-$version
archive=$out/omni_credentials-$version.zip
rm -rf "$tree" "$archive"
mkdir -p "$tree"
git ls-files -z | xargs -0 cp --parents -t "$tree"
fill packaging/pgxn/META.json.in VERSION="$version" HOMEPAGE="$homepage" >"$tree/META.json"
"$OMNI_PYTHON" packaging/zip.py "$tree" "$archive"
rm -rf "$tree"
said "$archive"
