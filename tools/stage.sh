#!/usr/bin/env bash
# Lays out what `cargo build` made the way a server wants it: the stripped library, its control file and its SQL, in
# CARGO_TARGET_DIR/stage/pgNN/{lib,share/extension}. Postgres 18 is pointed there; an older server finds extensions
# only in its own folders, so there the files are copied too (the setup saw to it that these are ours).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

feature=pg$OMNI_PG_MAJOR
stage=$CARGO_TARGET_DIR/stage/$feature
library=$CARGO_TARGET_DIR/release/libomni_credentials.so
version=$(sed -nE '/^\[workspace.package\]/,/^\[/ s/^version = "(.*)"/\1/p' Cargo.toml)

# put FILE FOLDER [NAME]: replaces a file in one step, so that a running server keeps the one it has mapped.
put() {
    mkdir -p "$2"
    local to=$2/${3:-${1##*/}}
    cp "$1" "$to.new" && chmod 755 "$to.new" && mv "$to.new" "$to"
}

if [[ ! $stage/.staged -nt $library || -n $(find host-pg/sql host-pg/upgrade host-pg/*.control -newer "$stage/.staged" 2>/dev/null) ]]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    sed -e '/^@INSTANCE_SQL@$/{' -e 'r host-pg/sql/instance.sql' -e 'd' -e '}' host-pg/sql/functions.sql \
        | cat - host-pg/sql/{modules,rights,guards,policies,default_copy}.sql | sed "s/@CARGO_VERSION@/$version/" >"$work/omni_credentials--$version.sql"
    sed "s/@CARGO_VERSION@/$version/" host-pg/omni_credentials.control >"$work/omni_credentials.control"
    strip --strip-unneeded --remove-section=.comment --remove-section=.pgrxsc -o "$work/omni_credentials.so" "$library"

    put "$work/omni_credentials.so" "$stage/lib"
    put "$work/omni_credentials.control" "$stage/share/extension"
    put "$work/omni_credentials--$version.sql" "$stage/share/extension"
    for upgrade in host-pg/upgrade/*.sql; do
        if [[ -e $upgrade ]]; then put "$upgrade" "$stage/share/extension"; fi
    done
    touch "$stage/.staged"
fi

if ((OMNI_PG_MAJOR < 18)); then
    put "$stage/lib/omni_credentials.so" "$("$OMNI_PG_CONFIG" --pkglibdir)"
    for file in "$stage"/share/extension/*; do put "$file" "$("$OMNI_PG_CONFIG" --sharedir)/extension"; done
fi

size=$(stat -c %s "$stage/lib/omni_credentials.so")
printf 'staged for Postgres %s in %s (library: %s.%s MB)\n' "$OMNI_PG_MAJOR" "$stage" $((size / 1000000)) $((size / 100000 % 10))
