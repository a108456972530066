#!/usr/bin/env bash
# Tries the Debian packages for Postgres 15 in a fresh Debian 12 with its own Postgres: what README.md says, install
# over an older package, create the extension, write and read, upgrade, remove, purge; then the same for the command. It
# needs root, because it enters another root folder, and fetches Debian's base system; so ./just test leaves it to the
# release workflow.
#
#   ./just --pg 15 package && ./just --pg 15 --command packaging/test-deb.sh
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=packaging/common.sh
. packaging/common.sh

base=$CARGO_TARGET_DIR/deb-root
root=$base-test
name=postgresql-15-omni-credentials
package=${name}_$version-${revision}_$deb_arch.deb

((EUID == 0)) || { echo "test-deb: run this as root: it enters another root folder" >&2 && exit 1; }
if [[ ! -e $base/.complete ]]; then
    need "debootstrap, which brings Debian's base system" debootstrap debootstrap
    rm -rf "$base"
    debootstrap --variant=minbase --include=postgresql-15,gdb-minimal bookworm "$base"
    touch "$base/.complete"
fi
rm -rf "$root"
cp -a "$base" "$root"
trap 'rm -rf "$root"' EXIT
mkdir "$root/packages"
cp "$out/"{"$name","$name-dbgsym",omni-credentials}"_$version-${revision}_$deb_arch.deb" \
    "$out/omni-credentials-$version-linux-$machine.tar.gz" "$root/packages/"
# readme BEGINNING: the commands of README.md below the paragraph that begins so, for this Postgres and machine.
readme() {
    awk -v beginning="$1" 'index($0, beginning) == 1 { found = 1 } found && /^```/ { n++ } n == 2 { exit } n' \
        README.md | sed -e 1d -e 's/\b18\b/15/g' -e "s/amd64/$deb_arch/g; s/x86_64/$machine/g"
}
readme 'Postgres 15 to 18' >"$root/packages/postgres.sh"
readme 'The command' >"$root/packages/command.sh"

# The package that has omni_credentials 0.2.0 today, among other extensions.
older=$(mktemp -d)
mkdir -p "$older/DEBIAN" "$older/usr/share/postgresql/15/extension"
printf "default_version = '0.2.0'\n" >"$older/usr/share/postgresql/15/extension/omni_credentials.control"
touch "$older/usr/share/postgresql/15/extension/"{omni_credentials--0.2.0.sql,omni_httpd.control}
printf '%s\n' 'Package: postgresql-15-omnigres' 'Version: 0.2.9' 'Architecture: all' 'Maintainer: x <x@x>' \
    'Description: x' >"$older/DEBIAN/control"
dpkg-deb --build "$older" "$root/packages/older.deb" >/dev/null
# The next revision of ours.
rm -rf "$older"
dpkg-deb -R "$root/packages/$package" "$older"
sed -i "s/^Version: .*/Version: $version-99/" "$older/DEBIAN/control"
dpkg-deb --root-owner-group --build "$older" "$root/packages/newer.deb" >/dev/null
rm -rf "$older"

cat >"$root/test.sh" <<'INNER'
set -euo pipefail
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive PGOPTIONS='-c client_min_messages=warning'
name=$1 version=$2
extension=/usr/share/postgresql/15/extension
sql() { runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1 -c "$1" "${2:-postgres}"; }
step() { printf '\n-- %s\n' "$1"; }
expect() { [[ $2 == "$3" ]] || { printf 'test-deb: %s: expected %q, found %q\n' "$1" "$3" "$2" >&2 && exit 1; }; }

# What the README calls as the user of a machine.
sudo() { if [[ $1 == -u ]]; then runuser -u "$2" -- "${@:3}"; else "$@"; fi; }

step "as the README says"
pg_lsclusters -h | grep -q . || pg_createcluster 15 main
cd /packages
. ./postgres.sh
expect version "$(sql "select extversion from pg_extension where extname = 'omni_credentials'")" "$version"
sql "select omni_credentials.set_credential('mail', 'hunter2')"
dpkg -r "$name" omni-credentials

step "over the older package, whose other extensions stay"
dpkg -i /packages/older.deb
dpkg -i "/packages/${name}_"*.deb
expect control "$(grep -c "default_version = '$version'" $extension/omni_credentials.control)" 1
expect 'owner of the control file' "$(dpkg -S $extension/omni_credentials.control | cut -d: -f1)" "$name"
expect 'older package' "$(dpkg-query -W -f '${db:Status-Status}' postgresql-15-omnigres)" installed
test -e $extension/omni_httpd.control && test -e $extension/omni_credentials--0.2.0.sql
expect 'files that differ' "$(dpkg -V "$name")" ''
path="select path from pg_extension_update_paths('omni_credentials') where source = '0.2.0' and target = '$version'"
expect 'update from the older version' "$(sql "$path")" "0.2.0--$version"
expect audit "$(dpkg --audit)" ''

step "write and read, as the postgres user and as another role"
sql "select omni_credentials.set_credential('stripe', 'sk_test', 'api_key')"
sql "create role app login"
sql "select omni_credentials.grant_access('app')"
read_it="select convert_from(value, 'UTF8') from omni_credentials.credentials where name = 'stripe'"
expect value "$(sql "$read_it")" sk_test
expect "rows of another role" "$(sql "set role app; $read_it")" ''
sealed="select count(*) from omni_credentials.encrypted_credentials where position('sk_test'::bytea in value) > 0"
expect 'values in clear' "$(sql "$sealed")" 0
modules=/usr/share/postgresql/15/omni_credentials/modules
digest=$(cut -d' ' -f1 "$modules/aes256gcmsiv.wasm.sha256")
sql "select omni_credentials.install_module('aes', pg_read_binary_file('$modules/aes256gcmsiv.wasm'), '$digest'::text)"

step "symbols"
dpkg -i "/packages/$name-dbgsym_"*.deb
gdb -batch -ex 'info line _PG_init' /usr/lib/postgresql/15/lib/omni_credentials.so 2>&1 \
    | grep -o 'Line .* of "host-pg/src/lib.rs"'
dpkg -r "$name-dbgsym"

step "upgrade the package"
dpkg -i /packages/newer.deb
pg_ctlcluster 15 main restart
expect value "$(sql "$read_it")" sk_test
sql "select omni_credentials.rotate_key('omni_credentials')"
expect value "$(sql "$read_it")" sk_test

step "remove it, and install it again"
dpkg -r "$name"
test ! -e $extension/omni_credentials.control
pg_ctlcluster 15 main restart
if sql "$read_it" 2>/dev/null; then echo 'test-deb: the library is gone, and still something was read' >&2 && exit 1; fi
dpkg -i /packages/newer.deb
expect value "$(sql "$read_it")" sk_test
dpkg --purge "$name"
dpkg -r postgresql-15-omnigres
test ! -e $extension/omni_httpd.control
pg_ctlcluster 15 main stop

step "the command"
dpkg -i /packages/omni-credentials_*.deb
expect version "$(omni-credentials --version)" "omni-credentials $version"
cd "$(mktemp -d)"
cp /packages/*.tar.gz .
HOME=$PWD
. /packages/command.sh
expect 'the same command' "$(sha256sum <.local/bin/omni-credentials)" "$(sha256sum </usr/bin/omni-credentials)"
export OMNI_CREDENTIALS_MASTER_PASSWORD_FILE=$PWD/credentials.key
printf sk_test | omni-credentials set stripe --principal app
expect value "$(omni-credentials get stripe)" sk_test
bash -n /usr/share/bash-completion/completions/omni-credentials
gzip -cd /usr/share/man/man1/omni-credentials-set.1.gz | grep -q 'omni.credentials.set'
expect 'shared libraries' "$(ldd "$(command -v omni-credentials)" | xargs)" 'statically linked'
dpkg --purge omni-credentials
expect 'files left' "$(find /usr /etc /var/lib/dpkg \( -name '*omni[-_]credentials*' -o -name '*omnigres*' \) )" ''
printf '\nall steps passed\n'
INNER
# With the namespace end all its processes, so no server stays.
# shellcheck disable=SC2016 # expanded inside
unshare --mount --pid --fork \
    bash -euc 'mount -t proc proc "$0/proc" && mount --bind /dev "$0/dev" && chroot "$0" bash /test.sh "$@"' \
    "$root" "$name" "$version"
