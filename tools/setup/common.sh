# shellcheck shell=bash
# Small helpers of the setup.

tools=$CARGO_TARGET_DIR/tools

say() { printf 'just: %s\n' "$*" >&2; }

# fail MESSAGE [COMMAND]: ends the setup; COMMAND is what mends it.
fail() {
    say "$1"
    if [[ -n ${2:-} ]]; then printf '\n    %s\n\n' "$2" >&2; fi
    exit 1
}

# Two setups at once in one target folder would tread on each other.
lock_setup() {
    exec 9>"$tools/.lock"
    flock -n 9 || { say "waiting for another setup in $tools"; flock 9; }
}

# Closing the file releases the lock; what runs after the setup must not inherit it.
unlock_setup() { exec 9>&-; }

# link_into FOLDER FILE…: symlinks to those of the files that exist.
link_into() {
    local folder=$1 file
    shift
    for file in "$@"; do
        if [[ -x $file ]]; then ln -sfn "$file" "$folder/${file##*/}"; fi
    done
}

# version_at_least HAVE WANT
version_at_least() {
    [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]
}

# quietly LOG COMMAND…: output goes to LOG, which is shown when the command fails.
quietly() {
    local log=$1
    shift
    if ! "$@" >"$log" 2>&1 </dev/null; then
        tail -n 40 "$log" >&2
        say "this failed: $*"
        return 1
    fi
}
