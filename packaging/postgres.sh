#!/usr/bin/env bash
# Packs the extension for the Postgres it was built for, into <target>/package or OMNI_PACKAGE_FOLDER:
#   omni_credentials-X.Y.Z-pgNN-linux-MACHINE.tar.gz      lib/, share/extension/, modules/, licences
#   postgresql-NN-omni-credentials_X.Y.Z-1_ARCH.deb       and …-dbgsym_…, its symbols
#   omni_credentials_NN-X.Y.Z-1.MACHINE.rpm               and …-debuginfo-…
#   image-pgNN-ARCH/                                      an extension image of CloudNativePG, with its Dockerfile
#   omni_credentials-image-X.Y.Z-pgNN-ARCH.tar.gz         that folder
# Usage: packaging/postgres.sh [archive|debian|redhat|image]…; without an argument all that this Postgres can use.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=packaging/common.sh
. packaging/common.sh
# shellcheck source=packaging/deb.sh
. packaging/deb.sh

main() {
    major=$OMNI_PG_MAJOR
    if ((!$#)); then
        set -- archive debian redhat
        # Postgres finds extensions in other folders than its own since 18.
        if ((major >= 18)); then set -- "$@" image; fi
    fi
    rm -rf "$work/pg$major"
    mkdir -p "$work/pg$major"
    lay_out
    local kind
    for kind; do "$kind"; done
    rm -rf "$work/pg$major"
}

# What all packages have.
lay_out() {
    tree=$work/pg$major/omni_credentials-$version-pg$major-linux-$machine
    debug=$work/pg$major/omni_credentials.so.debug
    extension=$tree/share/extension
    mkdir -p "$extension" "$tree/modules"
    split_symbols "$release/libomni_credentials.so" "$tree/lib/omni_credentials.so" "$debug"
    chmod 755 "$tree/lib/omni_credentials.so"
    tools/extension-files.sh "$extension"
    cp "$CARGO_TARGET_DIR"/modules/*.wasm "$CARGO_TARGET_DIR"/modules/*.sha256 "$tree/modules/"
    cp LICENSE README.md CHANGELOG.md "$tree/"
    packaging/third-party.py "omni_credentials:omni_credentials/pg$major" >"$tree/THIRD-PARTY"
    link=$(debug_path "$tree/lib/omni_credentials.so")
}

archive() { pack_tar "$tree" "$out/${tree##*/}.tar.gz"; }

debian() {
    need "dpkg-shlibdeps, which finds what a library needs" dpkg-shlibdeps dpkg-dev
    local name=postgresql-$major-omni-credentials root=$work/pg$major/deb
    install -D -m 644 -t "$root/usr/lib/postgresql/$major/lib" "$tree/lib/omni_credentials.so"
    install -D -m 644 -t "$root/usr/share/postgresql/$major/extension" "$extension"/*
    install -D -m 644 -t "$root/usr/share/postgresql/$major/omni_credentials/modules" "$tree"/modules/*
    deb_documents "$name" "$root"
    gzip -9n <"$tree/THIRD-PARTY" >"$root/usr/share/doc/$name/THIRD-PARTY.gz"
    # It replaces the files that postgresql-NN-omnigres has of omni_credentials 0.2.0. With Conflicts, that package would
    # be removed, and with it the other extensions in it.
    pack_deb "$name" "$root" packaging/deb/postgres.control.in MAJOR="$major" \
        "LIBRARIES=$(deb_libraries "$tree/lib/omni_credentials.so")"
    pack_deb_symbols "$name" "$root-dbgsym" "$debug" "$link"
}

redhat() {
    need "rpmbuild, which makes .rpm files" rpmbuild rpm
    rpmbuild -bb --quiet --target "$machine" \
        --define "_topdir $work/pg$major/rpm" --define "_rpmdir $out" \
        --define "_build_name_fmt %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm" \
        --define "_binary_payload $rpm" --define "_buildhost localhost" \
        --define "use_source_date_epoch_as_buildtime 1" \
        --define "clamp_mtime_to_source_date_epoch 1" \
        --define "pgmajor $major" --define "upstream $version" --define "revision $revision" \
        --define "homepage $homepage" --define "tree $tree" --define "debug $debug" --define "debugpath $link" \
        packaging/rpm/omni_credentials.spec
    said "$out/omni_credentials_$major-$version-$revision.$machine.rpm"
}

image() {
    local folder=$out/image-pg$major-$oci_arch
    rm -rf "$folder"
    mkdir -p "$folder/licenses"
    cp -R "$tree/lib" "$tree/share" "$folder/"
    cp "$tree/LICENSE" "$tree/THIRD-PARTY" "$folder/licenses/"
    fill packaging/image/Dockerfile VERSION="$version" MAJOR="$major" HOMEPAGE="$homepage" >"$folder/Dockerfile"
    find "$folder" -exec touch --date="@$SOURCE_DATE_EPOCH" {} +
    printf '%s (for docker build)\n' "$folder"
    pack_tar "$folder" "$out/omni_credentials-image-$version-pg$major-$oci_arch.tar.gz"
}

main "$@"
