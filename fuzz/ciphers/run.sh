#!/bin/sh
# The ciphers in third_party/ against the published ones, in WebAssembly: fuzz/ciphers/run.sh [CASES] [SEED].
set -eu
cd "$(dirname "$0")"
cases=${1:-100000}
seed=${2:-1}

target=${CARGO_TARGET_DIR:-../../target}/fuzz
triple=wasm32-unknown-unknown
# As in tools/build-modules.sh.
library=$(rustc --print target-libdir --target $triple)
build_std=
if ! ls "$library"/libcore-*.rlib >/dev/null 2>&1; then
    export RUSTC_BOOTSTRAP=1
    build_std="-Z build-std=std,panic_abort"
fi
# shellcheck disable=SC2086 # words on purpose
RUSTFLAGS="-C target-feature=+simd128" CARGO_TARGET_DIR=$target \
    cargo build --locked --release --target $triple $build_std

# The runtime is the Python package's.
"${OMNI_CREDENTIALS_PYTHON:-python3}" - "$target/$triple/release/ciphers.wasm" "$seed" "$cases" <<'PYTHON'
import sys

from wasmtime import Instance, Module, Store

path, seed, cases = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
store = Store()
run = Instance(store, Module.from_file(store.engine, path), []).exports(store)["run"]
failed = run(store, seed, cases)
if failed:
    sys.exit(f"case {failed} of seed {seed} differs")
print(f"ciphers: {cases} cases of seed {seed} are the same")
PYTHON
