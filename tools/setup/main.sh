# shellcheck shell=bash
# The order of the setup. Sourced by ./just; nothing here runs a second time.
#
# Reads: CARGO_TARGET_DIR, PG_CONFIG, pg_major. Each part names what it found in a variable:
#   rust_bin   folder with rustc and cargo
#   python     a Python with venv
#   pg_config  pg_config of the chosen Postgres, in a folder with its other programs

# shellcheck source=tools/setup/common.sh
. tools/setup/common.sh
# shellcheck source=tools/setup/packages.sh
. tools/setup/packages.sh
# shellcheck source=tools/setup/rust.sh
. tools/setup/rust.sh
# shellcheck source=tools/setup/python.sh
. tools/setup/python.sh
# shellcheck source=tools/setup/node.sh
. tools/setup/node.sh
# shellcheck source=tools/setup/postgres.sh
. tools/setup/postgres.sh

# set_up FILE ID BIN: brings in what is missing and writes the settings into FILE.
set_up() {
    local file=$1 id=$2 bin=$3
    mkdir -p "$tools" "$bin"
    lock_setup

    # System packages first and all at once: afterwards nothing needs rights.
    want_compiler
    want_libclang
    want_python
    want_rust
    install_wanted

    find_rust
    link_into "$bin" "$rust_bin"/{cargo,rustc,rustdoc,rustfmt,cargo-fmt,cargo-clippy,clippy-driver}
    export PATH=$bin:$PATH

    find_python
    set_up_venv
    link_into "$bin" "$tools/venv/bin/just"

    link_node "$bin"

    find_postgres
    link_into "$bin" "$pg_config"

    write_settings "$file" "$id" "$bin"
    unlock_setup
}

write_settings() {
    local file=$1 id=$2 bin=$3 major
    major=$("$pg_config" --version | sed -E 's/^PostgreSQL ([0-9]+).*/\1/')
    {
        printf '# %s\n' "$id"
        # shellcheck disable=SC2016 # $PATH is for the reader of the file
        printf 'export PATH=%q:$PATH\n' "$bin"
        printf 'export OMNI_PG_MAJOR=%q\n' "$major"
        printf 'export OMNI_PG_CONFIG=%q\n' "$pg_config"
        printf 'export PGRX_PG_CONFIG_PATH=%q\n' "$pg_config"
        printf 'export OMNI_PYTHON=%q\n' "$tools/venv/bin/python"
    } >"$file.new"
    mv "$file.new" "$file"
}
