#!/usr/bin/env bash
# Lays out what `cargo build` made the way a server wants it: the stripped library, its control file and its SQL, in
# CARGO_TARGET_DIR/stage/pgNN/{lib,share/extension}. Postgres 18 is pointed there; an older server finds extensions
# only in its own folders, so there the files are copied too (the setup saw to it that these are ours).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

feature=pg$OMNI_PG_MAJOR
stage=$CARGO_TARGET_DIR/stage/$feature
profile=${OMNI_PROFILE:-release}
library=$CARGO_TARGET_DIR/$profile/libomni_credentials.so
version=$(tools/version.sh)

# put FILE FOLDER [NAME]: replaces a file in one step, so that a running server keeps the one it has mapped.
put() {
    mkdir -p "$2"
    local to=$2/${3:-${1##*/}}
    cp "$1" "$to.new" && chmod 755 "$to.new" && mv "$to.new" "$to"
}

# prune FOLDER: removes install and update scripts of versions that are no more.
prune() {
    local script
    for script in "$1"/omni_credentials--*.sql; do
        case ${script##*/} in
            omni_credentials--"$version".sql | omni_credentials--0.2.0--"$version".sql) ;;
            *) if [[ ! -e host-pg/upgrade/${script##*/} ]]; then rm -f "$script"; fi ;;
        esac
    done
}

if [[ ! $stage/.staged -nt $library || $(cat "$stage/.staged") != "$profile" || -n $(find host-pg/sql host-pg/upgrade host-pg/*.control Cargo.toml tools/{stage,extension-files,install-script}.sh -newer "$stage/.staged" 2>/dev/null) ]]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    mkdir "$work/extension"
    tools/extension-files.sh "$work/extension"
    # No section that is loaded may be removed: strip would drop the segment (RELRO) that makes tables read-only.
    strip --strip-unneeded --remove-section=.comment -o "$work/omni_credentials.so" "$library"

    put "$work/omni_credentials.so" "$stage/lib"
    for file in "$work/extension"/*; do put "$file" "$stage/share/extension"; done
    prune "$stage/share/extension"
    echo "$profile" >"$stage/.staged"
fi

if ((OMNI_PG_MAJOR < 18)); then
    put "$stage/lib/omni_credentials.so" "$("$OMNI_PG_CONFIG" --pkglibdir)"
    for file in "$stage"/share/extension/*; do put "$file" "$("$OMNI_PG_CONFIG" --sharedir)/extension"; done
    prune "$("$OMNI_PG_CONFIG" --sharedir)/extension"
fi

size=$(stat -c %s "$stage/lib/omni_credentials.so")
printf 'staged for Postgres %s in %s (library: %s.%s MB)\n' "$OMNI_PG_MAJOR" "$stage" $((size / 1000000)) $((size / 100000 % 10))
