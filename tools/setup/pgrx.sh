# shellcheck shell=bash disable=SC2034,SC2154 # variables shared with the other parts
# cargo-pgrx, which writes the extension's SQL from the built library. Its version is the one pgrx is pinned to.

set_up_cargo_pgrx() {
    local version
    version=$(sed -nE 's/^pgrx = .*version = "=([0-9.]+)".*/\1/p' Cargo.toml)
    if [[ -x $tools/cargo-pgrx/bin/cargo-pgrx && -e $tools/cargo-pgrx/.$version ]]; then return; fi
    say "installing cargo-pgrx $version into $tools/cargo-pgrx (about 2 minutes)"
    # Unoptimised: compiling it faster is worth more than the second that it runs. Without its features it has no
    # TLS, which only its downloads of Postgres would need, and with it go OpenSSL's headers.
    CARGO_TARGET_DIR=$tools/cargo-pgrx-build quietly "$tools/cargo-pgrx.log" \
        cargo install cargo-pgrx --version "$version" --locked --debug --no-default-features --force \
        --root "$tools/cargo-pgrx" || exit 1
    touch "$tools/cargo-pgrx/.$version"
    rm -rf "$tools/cargo-pgrx-build"
}
