# shellcheck shell=bash disable=SC2034,SC2154 # variables shared with the other parts
# System packages: collected by the want_… functions, installed in one go, or named in a message.

wanted=()
wanted_for=()

# want REASON PACKAGE…
want() {
    wanted_for+=("$1")
    shift
    wanted+=("$@")
}

is_debian() { command -v apt-get >/dev/null; }

# The words that give a command root's rights, or nothing when it has them; fails when there is no way to get them.
as_root() {
    if ((EUID == 0)); then return 0; fi
    command -v sudo >/dev/null && sudo -n true 2>/dev/null && echo sudo
}

# Whether the package lists know a package.
apt_knows() { [[ -n $(apt-cache show "$1" 2>/dev/null) ]]; }

apt_update() {
    local sudo
    if [[ -z ${apt_updated:-} ]] && sudo=$(as_root); then
        say "updating the package lists (a few seconds)"
        # A list that cannot be had is no reason to stop: the packages may be in another.
        quietly "$tools/apt-update.log" ${sudo:+"$sudo"} apt-get update -qq || true
    fi
    apt_updated=1
}

want_compiler() {
    if ! command -v cc >/dev/null; then want "a C compiler" gcc libc6-dev; fi
    if ! command -v c++ >/dev/null; then want "a C++ compiler, for fuzzing" g++; fi
}

want_libclang() {
    local found
    found=$(compgen -G "${LIBCLANG_PATH:-/nonexistent}/libclang*.so*" \
        || compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' \
        || compgen -G '/usr/lib/*-linux-gnu/libclang*.so*' \
        || compgen -G '/usr/lib64/libclang*.so*' \
        || compgen -G '/usr/lib/libclang*.so*') || true
    # libclang-cpp is another library.
    if ! grep -qv libclang-cpp <<<"$found" || [[ -z $found ]]; then
        want "libclang, which reads Postgres's headers" libclang-dev
    fi
}

# Installs what was wanted, or says how and ends.
install_wanted() {
    if ((${#wanted[@]} == 0)); then return; fi
    local reasons sudo
    reasons=$(printf '%s; ' "${wanted_for[@]}")
    if ! is_debian; then
        fail "this machine lacks: ${reasons%; }. Install them with the system's package manager; on Debian they are: ${wanted[*]}"
    fi
    if ! sudo=$(as_root); then
        fail "this machine lacks: ${reasons%; }. Install with:" \
            "sudo apt-get update && sudo apt-get install --no-install-recommends ${wanted[*]}"
    fi
    apt_update
    say "installing ${wanted[*]} (about a minute)"
    # --no-remove: never trade a package of this machine for one of ours.
    quietly "$tools/apt-install.log" ${sudo:+"$sudo"} env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -q --no-install-recommends --no-remove "${wanted[@]}" \
        || fail "the packages could not be installed. Try:" "apt-get install --no-install-recommends ${wanted[*]}"
}
