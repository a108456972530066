#!/usr/bin/env bash
# Last step of what packs, and of a release, where the packages of all machines are together: writes what names their
# digests.
#   SHA256SUMS, install.sh, omni-credentials.rb (a Homebrew formula)
# Usage: packaging/finish.sh [FOLDER]; <target>/package without one.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=packaging/common.sh
. packaging/common.sh

out=${1:-$out}
# digest MACHINE: of the command's archive, or nothing when there is none.
digest() {
    local archive=$out/omni-credentials-$version-linux-$1.tar.gz
    if [[ -e $archive ]]; then sha256sum <"$archive" | cut -d' ' -f1; fi
}

digests=("X86_64=$(digest x86_64)" "AARCH64=$(digest aarch64)")
fill packaging/command/install.sh.in VERSION="$version" HOMEPAGE="$homepage" "${digests[@]}" >"$out/install.sh"
chmod 755 "$out/install.sh"
# Homebrew takes no formula with an empty digest: a machine without an archive has no part in it.
fill packaging/command/omni-credentials.rb.in VERSION="$version" HOMEPAGE="$homepage" "${digests[@]}" \
    | perl -0pe 's/  on_\w+ do\n    url [^\n]*\n    sha256 ""\n  end\n//g' >"$out/omni-credentials.rb"
sums=$(cd "$out" && find . -maxdepth 1 -type f ! -name SHA256SUMS -printf '%P\n' | LC_ALL=C sort \
    | xargs -d '\n' sha256sum)
printf '%s\n' "$sums" >"$out/SHA256SUMS"
said "$out/SHA256SUMS"
