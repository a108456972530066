#!/usr/bin/env bash
# Cross-compiles the command and the extension for aarch64 and runs them under qemu's user emulation, on an amd64
# Debian 12: the core's conformance vectors, the command, and, as root, the extension in a Postgres 15 of Debian's arm64
# packages. In the command and the extension, wasmtime compiles the modules for aarch64.
#
#   ./just aarch64
#
# It shows that nothing depends on the machine. Packages for aarch64 are built on such machines
# (.github/workflows/release.yml): emulation is too slow, and hides what a real processor does with memory.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=packaging/common.sh
. packaging/common.sh

triple=aarch64-unknown-linux-gnu
folder=$CARGO_TARGET_DIR/aarch64
root=$folder/root
libc=/usr/aarch64-linux-gnu
emulator=qemu-aarch64-static
# A target folder of its own: RUSTC_BOOTSTRAP, below, has cargo compile crates again that the other builds use as well.
target=$folder/target
built=$target/$triple/release
secret=OMNI_CREDENTIALS_MASTER_PASSWORD

main() {
    if [[ $machine != x86_64 ]]; then
        echo "aarch64: this machine is $machine; ./just test runs everything here" >&2
        exit 1
    fi
    need "a compiler for aarch64" aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu libc6-dev-arm64-cross
    need "the emulator of aarch64" "$emulator" qemu-user-static
    unpack_postgres
    compile
    vectors
    command_line
    extension
    printf '\nall steps passed\n'
}

step() { printf '\n-- %s\n' "$1"; }
expect() { [[ $2 == "$3" ]] || { printf 'aarch64: %s: expected %q, found %q\n' "$1" "$3" "$2" >&2 && exit 1; }; }

# Debian's Postgres for arm64, with the headers of its server. apt has lists of its own here, so this machine does not
# learn of another architecture. Nothing is installed, only unpacked: setting packages up under emulation takes minutes.
unpack_postgres() {
    if [[ -e $root/.complete ]]; then return; fi
    step "unpacking Postgres 15 for arm64"
    local apt=$folder/apt package
    rm -rf "$apt" "$root"
    mkdir -p "$apt/lists" "$root"/{etc,dev,proc,tmp} "$root"/usr/{bin,sbin,lib}
    touch "$apt/status"
    local options=(-q -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State="$apt" -o Dir::Cache="$apt"
        -o Dir::State::status="$apt/status" -o APT::Sandbox::User="$(id -un)")
    apt-get "${options[@]}" update >"$folder/apt.log" 2>&1
    apt-get "${options[@]}" install --download-only -y --no-install-recommends postgresql-15 dash \
        >>"$folder/apt.log" 2>&1
    # Without the compilers that this package depends on.
    (cd "$apt/archives" && apt-get "${options[@]}" download postgresql-server-dev-15 >>"$folder/apt.log" 2>&1)
    local name
    for name in bin sbin lib; do ln -s "usr/$name" "$root/$name"; done
    for package in "$apt"/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink --no-same-owner -C "$root"
    done
    chmod 1777 "$root/tmp"
    printf 'postgres:x:65534:65534::/tmp:/bin/sh\n' >"$root/etc/passwd"
    rm -rf "$apt"
    touch "$root/.complete"
}

# cross COMMAND…: cargo's, for aarch64. In the profile `release`: `dist` takes three times as long, and what it adds is
# the same on every machine.
cross() {
    local include=$root/usr/include/postgresql/15/server std=()
    # As for the modules, a Rust without this target's library builds it from its source.
    if ! compgen -G "$(rustc --print target-libdir --target $triple)/libcore-*.rlib" >/dev/null; then
        export RUSTC_BOOTSTRAP=1
        std=(-Z "build-std=std,panic_unwind,test")
    fi
    # There is no pg_config for arm64 that runs here: pgrx asks these variables in its place.
    env \
        CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
        CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="$emulator -L $libc" \
        BINDGEN_EXTRA_CLANG_ARGS_aarch64_unknown_linux_gnu="-isystem $libc/include" \
        PGRX_PG_CONFIG_AS_ENV=true PGRX_PG_CONFIG_CONFIGURE='' PGRX_PG_CONFIG_CPPFLAGS='' \
        PGRX_PG_CONFIG_LIBDIR="$root/usr/lib/aarch64-linux-gnu" \
        PGRX_PG_CONFIG_VERSION="PostgreSQL $(sed -nE 's/^#define PG_VERSION "(.*)"/\1/p' "$include/pg_config.h")" \
        PGRX_INCLUDEDIR_SERVER="$include" \
        RUSTC_WORKSPACE_WRAPPER="$PWD/packaging/static.sh" \
        cargo "$1" --release --locked --target-dir "$target" --target $triple "${std[@]}" -p omni_credentials \
        -p omni-credentials-host -p omni-credentials-core -p omni-credentials-conformance \
        -p omni-credentials-core-conformance -p omni-credentials-cli --no-default-features \
        --features omni_credentials/pg15 "${@:2}"
}

compile() {
    step "compiling the extension and the command for $triple (20 minutes the first time)"
    cross build --lib --bins
    file_is_aarch64 "$built/libomni_credentials.so"
    file_is_aarch64 "$built/omni-credentials"
}

file_is_aarch64() {
    expect "machine of $1" "$(readelf -h "$1" | sed -nE 's/^ *Machine: *//p')" AArch64
}

# Without the sandbox: under qemu, thousands of calls into it one after the other took more than 20 GB of memory. The steps
# below run the modules in it, call by call.
vectors() {
    step "conformance vectors: the core without a sandbox"
    cross test --test native
}

# The command is one static file, so that the emulator needs nothing else.
command_line() {
    step "the command"
    local work
    work=$(mktemp -d)
    omni() {
        (cd "$work" && env -u ${secret} ${secret}_FILE=credentials.key HOME="$work" \
            "$emulator" "$built/omni-credentials" "$@")
    }
    expect version "$(omni --version)" "omni-credentials $version"
    omni init --generate
    printf sk_test | omni set stripe --principal app --kind api_key
    printf hunter2 | omni set mail --principal app
    expect value "$(omni get stripe)" sk_test
    omni list
    omni rotate-key
    omni verify
    omni module inspect
    rm -r "$work"
}

extension() {
    step "the extension, in Postgres 15"
    if ((EUID)); then
        echo "not run: only root may enter another root folder"
        return
    fi
    if ! "$built/omni-credentials" --version >/dev/null 2>&1; then
        echo "not run: the kernel does not start the emulator. Try: update-binfmts --enable qemu-aarch64"
        return
    fi
    install -m 755 "$built/libomni_credentials.so" "$root/usr/lib/postgresql/15/lib/omni_credentials.so"
    tools/extension-files.sh "$root/usr/share/postgresql/15/extension"
    cp tests/pg_regress/sql/omni_credentials.sql "$CARGO_TARGET_DIR"/modules/aes256gcmsiv.wasm "$root/tmp/"
    # With the namespace end all its processes, so no server stays.
    unshare --mount --pid --fork --kill-child bash "${BASH_SOURCE[0]}" server
}

# server: in namespaces of its own.
server() {
    mount -t proc proc "$root/proc"
    mount --bind /dev "$root/dev"
    rm -rf "$root"/tmp/{data,server.log}
    local bin=/usr/lib/postgresql/15/bin found
    inside() { chroot --userspec=65534:65534 "$root" "$@"; }
    inside "$bin/initdb" -D /tmp/data -U postgres -A trust --no-sync >"$folder/initdb.log"
    export ${secret}="correct horse battery staple" PGUSER=postgres LC_ALL=C.UTF-8
    inside "$bin/pg_ctl" -D /tmp/data -l /tmp/server.log -w -t 120 -s start \
        -o "-c listen_addresses='' -c unix_socket_directories=/tmp -c fsync=off"
    # What `make installcheck` runs, as it runs it.
    found=$folder/omni_credentials.out
    inside "$bin/psql" -X -a -q -h /tmp postgres <"$root/tmp/omni_credentials.sql" >"$found" 2>&1 || true
    diff -u tests/pg_regress/expected/omni_credentials.out "$found"
    # A file that the command reads, and the other module. In one session: each compiles the modules that it uses.
    found=$(inside "$bin/psql" -XAtq -h /tmp -v ON_ERROR_STOP=1 postgres <<'SQL'
create extension omni_credentials;
select from omni_credentials.set_credential('stripe', 'sk_test');
select from omni_credentials.instantiate_file_store('/tmp/data/credentials.omni');
select omni_credentials.install_module('aes', wasm, sha256(wasm))
from pg_read_binary_file('/tmp/aes256gcmsiv.wasm') as wasm;
create schema other;
select from omni_credentials.instantiate('other');
select from other.set_credential('mail', 'hunter2');
select format('%s moved', omni_credentials.use_module('other', 'aes'));
select convert_from(value, 'UTF8') from other.credentials;
SQL
    )
    found=$(tail -n 2 <<<"$found")
    expect 'with the other module' "$found" $'1 moved\nhunter2'
    found=$("$emulator" "$built/omni-credentials" get stripe --file "$root/tmp/data/credentials.omni")
    expect 'value in the file' "$found" sk_test
    inside "$bin/pg_ctl" -D /tmp/data -m fast -s stop
}

if [[ ${1:-} == server ]]; then server; else main; fi
