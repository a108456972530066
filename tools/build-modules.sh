#!/bin/sh
# Builds the crypto modules into ${CARGO_TARGET_DIR:-target}/modules/NAME.wasm, each with NAME.wasm.sha256.
# Usage: tools/build-modules.sh [NAME...]; all modules without a name.
set -eu
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
[ $# -gt 0 ] || set -- xchacha20poly1305 aes256gcmsiv
triple=wasm32-unknown-unknown

# A Rust without the target's standard library builds it from its own source.
library=$(rustc --print target-libdir --target $triple)
build_std=
if ! ls "$library"/libcore-*.rlib >/dev/null 2>&1; then
    export RUSTC_BOOTSTRAP=1
    build_std="-Z build-std=std,panic_abort"
fi

# The bytes must not depend on where they are built: panic messages hold paths.
sysroot=$(rustc --print sysroot)
cargo_home=${CARGO_HOME:-$HOME/.cargo}
unset CARGO_ENCODED_RUSTFLAGS
RUSTFLAGS="-C target-feature=+simd128"
RUSTFLAGS="$RUSTFLAGS --remap-path-prefix=$PWD=. --remap-path-prefix=$cargo_home=cargo --remap-path-prefix=$sysroot=rust"
export RUSTFLAGS

# What follows concerns the whole program, which is optimised at once at the end (lto): loops over blocks are unrolled
# further than is usual for WebAssembly, where the sandbox's checks make a short loop dear (Argon2id takes 7 % less).
flags="-C llvm-args=-unroll-partial-threshold=100"
for name; do
    # A folder of its own, so that the modules never wait for another build's lock.
    # shellcheck disable=SC2086 # words on purpose
    CARGO_TARGET_DIR=$target/guest cargo rustc --locked --profile module --target $triple $build_std \
        -p "omni-credentials-module-$name" -- $flags
done

# What runs once for a second or two is not worth optimising: that takes minutes.
unset RUSTFLAGS
export CARGO_PROFILE_DEV_DEBUG=0
CARGO_TARGET_DIR=$target/tools cargo build --locked -p componentize
mkdir -p "$target/modules"
for name; do
    "$target/tools/debug/componentize" \
        "$target/guest/$triple/module/omni_credentials_module_$name.wasm" "$target/modules/$name.wasm"
done

# Modules that do one evil thing each, for the tests of every host.
CARGO_TARGET_DIR=$target/tools cargo run --locked -p hostile-modules -- "$target/modules/hostile"
