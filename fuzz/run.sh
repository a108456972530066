#!/bin/sh
# Fuzzes the targets one after another: fuzz/run.sh [RUNS] [TARGET...]; 100,000 runs of each by default.
# Every target starts with the hostile and the golden vectors, and keeps what it finds on the way in
# ${CARGO_TARGET_DIR:-target}/fuzz/corpus. What makes one fail is left beside it.
#
# libFuzzer alone, by the compiler's own flags: no cargo-fuzz and no nightly. No sanitizer either, for there is no unsafe
# code to look after; overflow and debug assertions are on.
set -eu
cd "$(dirname "$0")"
runs=${1:-100000}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- blob file keyring reconcile scope

here=$PWD
target=${CARGO_TARGET_DIR:-../target}/fuzz
mkdir -p "$target"
target=$(cd "$target" && pwd)
triple=$(rustc -vV | sed -n 's/^host: //p')

RUSTFLAGS="-C passes=sancov-module -C codegen-units=1 -C debug-assertions -C overflow-checks --cfg fuzzing"
for option in level=4 inline-8bit-counters pc-table trace-compares; do
    RUSTFLAGS="$RUSTFLAGS -C llvm-args=-sanitizer-coverage-$option"
done
# The triple is named so that build scripts get no counters, which only libFuzzer reads.
RUSTFLAGS=$RUSTFLAGS CARGO_TARGET_DIR=$target cargo build --locked --release --target "$triple" --bins

vectors=$here/../conformance/vectors
for name; do
    corpus=$target/corpus/$name
    seeds=$target/seeds/$name
    rm -rf "$seeds"
    mkdir -p "$corpus" "$seeds"
    case $name in
        blob) cp "$vectors"/hostile/xchacha20poly1305/value_* "$seeds" ;;
        file) cp "$vectors"/hostile/xchacha20poly1305/file_* "$vectors"/golden/xchacha20poly1305*.credentials "$seeds" ;;
        keyring) cp "$vectors"/hostile/xchacha20poly1305/keyring_* "$seeds" ;;
        scope) cp "$vectors"/hostile/xchacha20poly1305/scope_* "$seeds" ;;
    esac
    longest=2048
    [ "$name" != reconcile ] || longest=49 # 24 records; more only repeat names
    echo "fuzzing $name: $runs runs"
    (cd "$target" && "$target/$triple/release/$name" -runs="$runs" -max_len=$longest -timeout=30 -print_final_stats=1 \
        -artifact_prefix="$target/failed-$name-" "$corpus" "$seeds")
done
