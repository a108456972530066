#!/bin/sh
# Fuzzes the targets one after another: fuzz/run.sh [RUNS] [TARGET...]; 100,000 runs of each by default.
# Needs cargo-fuzz. Builds without a sanitizer: there is no unsafe code to look after.
set -eu
cd "$(dirname "$0")"
runs=${1:-100000}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- blob file keyring merge scope

export RUSTC_BOOTSTRAP=1 # coverage counters are flags of the nightly compiler
vectors=../tests/vectors
for target; do
    mkdir -p "corpus/$target" seeds/"$target"
    case $target in
        blob) cp $vectors/hostile/xchacha20poly1305/value_* seeds/blob/ ;;
        file) cp $vectors/hostile/xchacha20poly1305/file_* $vectors/golden/xchacha20poly1305*.credentials seeds/file/ ;;
        keyring) cp $vectors/hostile/xchacha20poly1305/keyring_* seeds/keyring/ ;;
        scope) cp $vectors/hostile/xchacha20poly1305/scope_* seeds/scope/ ;;
    esac
    longest=2048
    [ "$target" != merge ] || longest=49 # 24 records; more only repeat names
    cargo fuzz run --fuzz-dir . --sanitizer none --release "$target" "corpus/$target" "seeds/$target" -- \
        -runs="$runs" -max_len=$longest -print_final_stats=1
done
