#!/usr/bin/env bash
# Installs the staged extension into the Postgres that PG_CONFIG names, of the version it was built for.
set -euo pipefail
: "${PG_CONFIG:?name the Postgres to install into: PG_CONFIG=/path/to/pg_config ./just install}"

stage=$CARGO_TARGET_DIR/stage/pg$OMNI_PG_MAJOR
libraries=$("$PG_CONFIG" --pkglibdir)
extensions=$("$PG_CONFIG" --sharedir)/extension
for folder in "$libraries" "$extensions"; do
    if [[ ! -w $folder ]]; then
        printf 'install: %s is not writable for you. The files are in %s; as root:\n\n' "$folder" "$stage" >&2
        printf '    install -m 755 %q %q && install -m 644 %q/* %q\n\n' \
            "$stage/lib/omni_credentials.so" "$libraries" "$stage/share/extension" "$extensions" >&2
        exit 1
    fi
done
# `install` makes a new file, so a running server keeps the library that it has mapped.
install -m 755 "$stage/lib/omni_credentials.so" "$libraries"
install -m 644 "$stage"/share/extension/* "$extensions"
printf 'installed into %s and %s\n' "$libraries" "$extensions"
