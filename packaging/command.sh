#!/usr/bin/env bash
# Packs the command, with its completions and manual pages, into <target>/package:
#   omni-credentials-X.Y.Z-linux-MACHINE.tar.gz
#   omni-credentials_X.Y.Z-1_ARCH.deb        and …-dbgsym_…, its symbols
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=packaging/common.sh
. packaging/common.sh
# shellcheck source=packaging/deb.sh
. packaging/deb.sh

rm -rf "$work/command"
mkdir -p "$work/command"
tree=$work/command/omni-credentials-$version-linux-$machine
debug=$work/command/omni-credentials.debug
command=$tree/omni-credentials
split_symbols "$release/omni-credentials" "$command" "$debug"
chmod 755 "$command"

# The command prints them itself, so they are those of its real options.
mkdir -p "$tree/completions" "$tree/man"
"$command" completions bash >"$tree/completions/omni-credentials.bash"
"$command" completions zsh >"$tree/completions/_omni-credentials"
"$command" completions fish >"$tree/completions/omni-credentials.fish"
"$command" man "$tree/man"
cp LICENSE CHANGELOG.md "$tree/"
cp docs/cli.md "$tree/README.md"
packaging/third-party.py omni-credentials-cli >"$tree/THIRD-PARTY"
pack_tar "$tree" "$out/${tree##*/}.tar.gz"

name=omni-credentials
root=$work/command/deb
install -D -m 755 "$command" "$root/usr/bin/omni-credentials"
install -D -m 644 "$tree/completions/omni-credentials.bash" \
    "$root/usr/share/bash-completion/completions/omni-credentials"
install -D -m 644 "$tree/completions/_omni-credentials" "$root/usr/share/zsh/vendor-completions/_omni-credentials"
install -D -m 644 "$tree/completions/omni-credentials.fish" \
    "$root/usr/share/fish/vendor_completions.d/omni-credentials.fish"
install -D -m 644 -t "$root/usr/share/man/man1" "$tree"/man/*.1
gzip -9n "$root"/usr/share/man/man1/*.1
deb_documents "$name" "$root"
gzip -9n <"$tree/THIRD-PARTY" >"$root/usr/share/doc/$name/THIRD-PARTY.gz"
pack_deb "$name" "$root" packaging/deb/command.control.in

pack_deb_symbols "$name" "$root-dbgsym" "$debug" "$(debug_path "$command")"
rm -rf "$work/command"
