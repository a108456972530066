#!/usr/bin/env bash
# Installs the extension into the Postgres that PG_CONFIG names, below DESTDIR if that is set. What was built for this
# version of Postgres is installed as it is, so that `sudo make install` compiles nothing as root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
: "${PG_CONFIG:?name the Postgres to install into: PG_CONFIG=/path/to/pg_config ./just install}"

major=$("$PG_CONFIG" --version | sed -E 's/^PostgreSQL ([0-9]+).*/\1/')
stage=${CARGO_TARGET_DIR:-$PWD/target}/stage/pg$major
if [[ ! -e $stage/.staged ]]; then ./just build; fi
libraries=${DESTDIR:-}$("$PG_CONFIG" --pkglibdir)
extensions=${DESTDIR:-}$("$PG_CONFIG" --sharedir)/extension
if [[ -n ${DESTDIR:-} ]]; then mkdir -p "$libraries" "$extensions"; fi
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
