# shellcheck shell=bash disable=SC2034 # variables for the scripts that read this
# What the scripts in this folder share. They run in the top folder, started by ./just package.
set -euo pipefail
umask 022

version=$(tools/version.sh)
revision=1
release=$CARGO_TARGET_DIR/${OMNI_PROFILE:-release}
out=${OMNI_PACKAGE_FOLDER:-$CARGO_TARGET_DIR/package}
work=$out/work
# The tests look at packages that were packed sooner and are larger.
gzip=9 deb=(-Zxz) rpm=w19.zstdio
if [[ -n ${OMNI_PACKAGE_QUICK:-} ]]; then gzip=1 deb=(-Zgzip -z1) rpm=w1.gzdio; fi
homepage=https://github.com/omnigres/omni_credentials
maintainer='omnigres <omnigres@users.noreply.github.com>'
# The same input gives the same packages: every date in them is that of the newest commit.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 1577836800)}
export SOURCE_DATE_EPOCH
machine=$(uname -m)
case $machine in
    x86_64) deb_arch=amd64 oci_arch=amd64 ;;
    aarch64 | arm64) machine=aarch64 deb_arch=arm64 oci_arch=arm64 ;;
    *) echo "package: no packages are made for $machine" >&2 && exit 1 ;;
esac

# need REASON PROGRAM PACKAGE…: installs Debian packages if a program is missing, or names them.
need() {
    if command -v "$2" >/dev/null; then return; fi
    # shellcheck source=tools/setup/common.sh
    . tools/setup/common.sh
    # shellcheck source=tools/setup/packages.sh
    . tools/setup/packages.sh
    want "$1" "${@:3}"
    install_wanted
}

# split_symbols FILE TO DEBUG: a stripped copy of a library or program, and its symbols in a file of its own.
split_symbols() {
    mkdir -p "$(dirname "$2")" "$(dirname "$3")"
    objcopy --only-keep-debug --compress-debug-sections=zlib --remove-section=.comment "$1" "$3"
    # No section that is loaded may be removed: strip would drop the segment (RELRO) that makes tables read-only.
    strip --strip-unneeded --remove-section=.comment -o "$2" "$1"
    chmod 644 "$3"
}

# debug_path FILE: where debuggers look for the symbols of a file, below /usr/lib/debug.
debug_path() {
    local id
    id=$(readelf -n "$1" | sed -nE 's/^ *Build ID: ([0-9a-f]+)$/\1/p')
    [[ -n $id ]] || { echo "package: $1 has no build id" >&2 && return 1; }
    echo ".build-id/${id:0:2}/${id:2}.debug"
}

# pack_tar FOLDER ARCHIVE: FOLDER as the only folder in the archive.
pack_tar() {
    tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" \
        -C "$(dirname "$1")" -cf - "$(basename "$1")" \
        | gzip "-${gzip}n" >"$2"
    said "$2"
}

# fill TEMPLATE NAME=VALUE…: the template with every @NAME@ replaced.
fill() {
    local file=$1 pair text
    shift
    text=$(cat "$file"; echo .)
    for pair; do text=${text//"@${pair%%=*}@"/"${pair#*=}"}; done
    printf %s "${text%.}"
}

# said FILE: tells what was made.
said() { printf '%s (%s bytes)\n' "$1" "$(stat -c %s "$1")"; }
