# shellcheck shell=bash disable=SC2154 # variables of common.sh
# Debian packages. Sourced after common.sh.

# deb_documents NAME FOLDER: the documents that every Debian package has.
deb_documents() {
    local folder=$2/usr/share/doc/$1
    mkdir -p "$folder"
    cp packaging/deb/copyright "$folder/copyright"
    {
        printf '%s (%s-%s) unstable; urgency=medium\n\n' "$1" "$version" "$revision"
        printf '  * Version %s. The changes are in changelog.gz.\n\n' "$version"
        printf ' -- %s  %s\n' "$maintainer" "$(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")"
    } | gzip -9n >"$folder/changelog.Debian.gz"
    gzip -9n <CHANGELOG.md >"$folder/changelog.gz"
}

# deb_libraries FILE…: the packages that have the shared libraries of these files, with the versions needed.
deb_libraries() {
    local folder
    folder=$(mktemp -d)
    mkdir "$folder/debian"
    printf 'Source: x\n\nPackage: x\nArchitecture: any\n' >"$folder/debian/control"
    (cd "$folder" && dpkg-shlibdeps -O --ignore-missing-info "$@" 2>/dev/null | sed -n 's/^shlibs:Depends=//p')
    rm -r "$folder"
}

# pack_deb NAME FOLDER TEMPLATE NAME=VALUE…: packs a folder with the control data that a template gives.
pack_deb() {
    local name=$1 folder=$2 template=$3 archive=$out/${1}_$version-${revision}_$deb_arch.deb
    shift 3
    mkdir -p "$folder/DEBIAN"
    (cd "$folder" && find . -type f ! -path './DEBIAN/*' -printf '%P\n' | LC_ALL=C sort \
        | xargs -d '\n' md5sum >DEBIAN/md5sums)
    fill "$template" NAME="$name" VERSION="$version-$revision" ARCHITECTURE="$deb_arch" \
        MAINTAINER="$maintainer" HOMEPAGE="$homepage" \
        INSTALLED_SIZE="$(du -k --apparent-size -s "$folder" | cut -f1)" "$@" \
        >"$folder/DEBIAN/control"
    find "$folder" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
    dpkg-deb --root-owner-group "${deb[@]}" --build "$folder" "$archive" >/dev/null
    said "$archive"
}

# pack_deb_symbols NAME FOLDER DEBUG LINK: packs the symbols of package NAME.
pack_deb_symbols() {
    install -D -m 644 "$3" "$2/usr/lib/debug/$4"
    mkdir -p "$2/usr/share/doc"
    ln -s "$1" "$2/usr/share/doc/$1-dbgsym"
    pack_deb "$1-dbgsym" "$2" packaging/deb/debug.control.in OF="$1"
}
