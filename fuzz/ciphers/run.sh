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

from wasmtime import Engine, Instance, Module, Store

path, seed, cases = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
engine = Engine()
module = Module.from_file(engine, path)


def start():
    store = Store(engine)
    return store, Instance(store, module, []).exports(store)


store, exports = start()
failed = exports["run"](store, seed, cases)
if failed:
    sys.exit(f"case {failed} of seed {seed} differs")
print(f"ciphers: {cases} cases of seed {seed} are the same")

# What is left in memory of the keystream, and of r of Poly1305 in limbs of 26 bits: searched for in pieces of 8 bytes.
store, exports = start()
address = exports["key_stream"](store, seed, 1088)
blocks = bytes(exports["memory"].read(store, address, address + 1088))
r = int.from_bytes(blocks[:16], "little") & 0x0FFFFFFC_0FFFFFFC_0FFFFFFC_0FFFFFFF
limbs = b"".join((r >> bits & 0x3FFFFFF).to_bytes(4, "little") for bits in range(0, 130, 26))
pieces = {what[at : at + 8] for what in (blocks, limbs) for at in range(0, len(what) - 7, 4)}
for length in (0, 40, 64, 100, 200, 1000):
    for altered in (0, 1):
        store, exports = start()
        if exports["use_once"](store, seed, length, altered) == altered:
            sys.exit(f"a message of {length} bytes was {'not ' if altered else ''}refused")
        memory = exports["memory"].read(store, 0, exports["memory"].data_len(store))
        left = sum(piece in memory for piece in pieces)
        if left:
            sys.exit(f"after a message of {length} bytes, {left} pieces of its keys are left in memory")
print("ciphers: no keys of a message are left in memory")
PYTHON
