# shellcheck shell=bash disable=SC2034,SC2154 # variables shared with the other parts
# A Rust that can build the extension and, from the source of the standard library, the WebAssembly modules.

rust_needed=1.96
rust_private=1.96.0
debian_rust=(rustc-web cargo-web rust-web-src rust-web-llvm lld-22 rust-web-clippy rustfmt-web)

# Folders that may hold a toolchain, best first.
rust_candidates() {
    local home=${RUSTUP_HOME:-$HOME/.rustup}
    compgen -G "$tools/rustup/toolchains/*/bin" || true
    # What rustup puts on PATH is a chooser, not a toolchain: ask it where the chosen one is.
    if command -v rustc >/dev/null; then
        local sysroot
        if sysroot=$(rustc --print sysroot 2>/dev/null) && [[ $sysroot != /usr ]]; then echo "$sysroot/bin"; fi
    fi
    compgen -G "$home/toolchains/*/bin" | sort -rV || true
    echo /usr/bin
}

# is_good_rust BIN: new enough, with the library for WebAssembly or its source, and a linker for it.
is_good_rust() {
    local bin=$1 version sysroot
    [[ -x $bin/rustc && -x $bin/cargo ]] || return 1
    version=$("$bin/rustc" --version 2>/dev/null) || return 1
    # Nightly toolchains may differ from what was tested.
    [[ $version != *-nightly* && $version != *-dev* ]] || return 1
    version=$(cut -d' ' -f2 <<<"$version")
    version_at_least "${version%%-*}" "$rust_needed" || return 1
    sysroot=$("$bin/rustc" --print sysroot)
    [[ -f $sysroot/lib/rustlib/src/rust/library/std/Cargo.toml ]] \
        || compgen -G "$sysroot/lib/rustlib/wasm32-unknown-unknown/lib/libcore-*" >/dev/null || return 1
    compgen -G "$sysroot/lib/rustlib/*/bin/rust-lld" >/dev/null \
        || [[ -x $bin/rust-lld || -x $bin/wasm-ld ]] || compgen -G "$bin/wasm-ld-*" >/dev/null
}

good_rust() {
    local bin
    while read -r bin; do
        if is_good_rust "$bin"; then
            echo "$bin"
            return
        fi
    done < <(rust_candidates)
    return 1
}

# Before packages are installed: ask for Debian's Rust when there is no other and apt can bring it.
want_rust() {
    if good_rust >/dev/null || ! is_debian; then return; fi
    if as_root >/dev/null; then apt_update; fi
    if ! apt_knows rustc-web; then return; fi
    # rustup can do without rights; without it the packages are the way, and a message names them.
    if as_root >/dev/null || ! command -v rustup >/dev/null; then
        want "Rust $rust_needed or newer, with the source of its library" "${debian_rust[@]}"
    fi
}

# Sets rust_bin.
find_rust() {
    if ! rust_bin=$(good_rust); then
        install_private_rust
        rust_bin=$(good_rust) || fail "the toolchain that was installed in $tools/rustup does not work"
    fi
}

# A toolchain of our own, in the target folder: the user's rustup keeps its state.
install_private_rust() {
    local advice="rustup toolchain install $rust_private --profile minimal -c rust-src -c clippy -c rustfmt"
    command -v rustup >/dev/null \
        || fail "Rust $rust_needed or newer is missing. Install rustup (https://rustup.rs), then:" "$advice"
    say "installing Rust $rust_private into $tools/rustup (about a minute)"
    RUSTUP_HOME=$tools/rustup quietly "$tools/rustup.log" rustup toolchain install "$rust_private" \
        --profile minimal -c rust-src -c clippy -c rustfmt --no-self-update \
        || fail "Rust $rust_needed or newer is missing, and rustup could not bring it. Try:" "$advice"
}
