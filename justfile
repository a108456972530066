# Every task of the project. Run it as ./just, which first brings in what is missing.

set shell := ["bash", "-euo", "pipefail", "-c"]
set positional-arguments

target := env("CARGO_TARGET_DIR", justfile_directory() / "target")
python := env("OMNI_PYTHON", "run-this-as-./just")
pg := "pg" + env("OMNI_PG_MAJOR", "18")
# `dist` is how packages are built: all crates as one unit, which takes longer (Cargo.toml).
profile := env("OMNI_PROFILE", "release")
prettier := target / "node/package/node_modules/prettier/bin/prettier.cjs"
javascript := "--log-level warn --config host-node/package.json host-node/{build.mjs,page.mjs,src,test} conformance/hosts/node_host.mjs tools/lint-workflows.mjs packaging/check/first.{mjs,ts}"
throwaway := python + " tools/throwaway.py"
# Programs that came with the pinned Python packages.
venv := parent_directory(python)
scripts := "just .ci/run fuzz/run.sh fuzz/ciphers/run.sh tools/*.sh tools/setup/*.sh packaging/*.sh"

# What is built and tested together, always in one selection: with another, cargo would choose other features for shared
# dependencies and compile wasmtime a second time. What makes modules has target folders of its own.
packages := "-p omni_credentials -p omni-credentials-host -p omni-credentials-core -p omni-credentials-conformance" \
    + " -p omni-credentials-core-conformance -p omni-credentials-cli --no-default-features --features omni_credentials/" + pg

export OMNI_CREDENTIALS_MODULES := target / "modules"
export OMNI_CREDENTIALS_PYTHON := python
export OMNI_REPOSITORY := justfile_directory()

# Lists the recipes.
[private]
default:
    @just --list --unsorted

# ---- See it work

# Builds everything and tells the story with real SQL on a throw-away server.
[group('see it work')]
demo: build
    @{{ python }} demo/run.py

# Opens psql on the demo's server; arguments go to psql.
[group('see it work')]
psql *arguments:
    @{{ throwaway }} psql demo -- "$@"

# Starts the demo's server again, with these variables if any are given (NAME=VALUE).
[group('see it work')]
start *variables:
    @{{ throwaway }} restart demo "$@"

# Stops the demo's server and removes its data.
[group('see it work')]
stop:
    @{{ throwaway }} stop demo

# ---- Build

# Builds the crypto modules, WebAssembly components, into <target>/modules.
[group('build')]
modules:
    @echo "building the crypto modules (1 minute the first time)"
    @tools/build-modules.sh

# Builds the extension and lays it out for the chosen Postgres.
[group('build')]
build: modules
    @echo "building the extension for {{ pg }} (8 minutes the first time, most of it wasmtime)"
    @cargo build --profile {{ profile }} --locked {{ packages }} --lib --bins
    @tools/stage.sh

# Installs the extension into the Postgres that PG_CONFIG names (needs rights to write there).
[group('build')]
install: build
    @tools/install.sh

# Packs the extension and the command into <target>/package: .deb, .rpm, tar, extension image.
[group('build')]
package: modules
    @echo "building the extension for {{ pg }} as one unit (20 minutes the first time)"
    @cargo build --profile dist --locked {{ packages }} --lib
    @OMNI_PROFILE=dist packaging/postgres.sh
    @echo "building the command, without shared libraries (5 minutes the first time)"
    @RUSTC_WORKSPACE_WRAPPER={{ justfile_directory() / "packaging/static.sh" }} cargo build --profile dist --locked {{ packages }} \
        --bin omni-credentials
    @OMNI_PROFILE=dist packaging/command.sh
    @packaging/sbom.sh library command
    @packaging/finish.sh

# Builds the Python package, wheel and sdist, into <target>/python/dist.
[group('build')]
wheel: modules
    @tools/wheel.sh

# Builds the Node package, with the crypto module inside, into <target>/node.
[group('build')]
npm: modules
    @tools/npm.sh

# Removes what was built; tools, toolchain and Postgres stay.
[group('build')]
clean:
    rm -rf {{ target / "release" }} {{ target / "stage" }} {{ target / "modules" }} {{ target / "guest" }} {{ target / "python" }} \
        {{ target / "node" }} {{ target / "fuzz" }} {{ target / "dist" }}

# ---- Test

# All tests: Rust, the Node package, then SQL against a real server. Arguments go to pytest.
[group('test')]
test *arguments: build wheel npm
    @echo "running the Rust tests, those of the Node package, then the SQL tests against {{ pg }} (6 minutes the first time)"
    @{{ python }} tests/run.py cargo test --release --locked {{ packages }} --no-fail-fast -- "$@"

# Unit, vector, sandbox and conformance tests.
[group('test')]
test-rust: modules
    @cargo test --release --locked {{ packages }} --no-fail-fast

# Tests of the Node package, as it is packed and installed.
[group('test')]
test-node *arguments: build npm
    @node --test "$@" {{ target / "node/installed/test/*.test.mjs" }}

# Tests the page of the Node package in Chromium, which it installs (300 MB); the other tests use one that is there.
[group('test')]
test-browser *arguments: npm
    @tools/browser.sh
    @node --test "$@" {{ target / "node/installed/test/page.test.mjs" }}

# SQL tests against a throw-away server; `--accept` writes the expected output again.
[group('test')]
test-sql *arguments: build wheel npm
    @{{ python }} -m pytest "$@"

# The examples of docs/languages.md and docs/production.md with real drivers and launchers; it installs what pip and npm have.
[group('test')]
test-clients *arguments: build
    @tools/clients.sh
    @{{ python }} -m pytest tests/clients/*.py "$@"

# Exactly what CI runs: `lint` and `deny`, all tests, the browser's too, and those that use Postgres on the oldest one too. Arguments go to pytest.
[group('test')]
ci *arguments: lint deny build-oldest build wheel npm
    @tools/browser.sh --if-possible
    @{{ python }} tests/run.py --also-on 15 cargo test --release --locked {{ packages }} --no-fail-fast -- "$@"

# Counts the instructions of the core's hot paths and compares them with bench/instructions.toml; `--accept` renews it.
[group('test')]
instructions *arguments:
    @tools/valgrind.sh
    @cargo build --release --locked -p omni-credentials-bench-instructions
    @{{ python }} bench/instructions.py {{ target / "release/instructions" }} "$@"

[private]
build-oldest:
    @./just --pg 15 build

# Cross-compiles the command and the extension for aarch64 on an amd64 Debian 12, and runs them emulated (as root, in a Postgres 15 too).
[group('test')]
aarch64: modules
    @packaging/aarch64.sh

# Fuzzes the core, 100,000 executions a target, and compares the ciphers that we changed; arguments go to fuzz/run.sh.
[group('test')]
fuzz *arguments:
    @fuzz/run.sh "$@"
    @fuzz/ciphers/run.sh

# Measures what users wait for beside what they would use otherwise, as one table; `--rows N`, `--vault FOLDER`, `--readme`; `--scale N` alone: what takes long.
[group('test')]
bench *arguments: build bench-programs
    @{{ python }} bench/run.py "$@"

# The same with the library as packages have it; README's table is of it.
[group('test')]
bench-packaged *arguments: modules bench-programs
    @echo "building the extension for {{ pg }} as one unit (20 minutes the first time)"
    @cargo build --profile dist --locked {{ packages }} --lib
    @OMNI_PROFILE=dist tools/stage.sh
    @{{ python }} bench/run.py "$@"

[private]
bench-programs:
    @cargo build --profile {{ profile }} --locked {{ packages }} -p omni-credentials-bench-native-vs-component --bins

# ---- Keep it clean

# Formats the code; JavaScript once the Node package was built.
[group('keep it clean')]
fmt:
    @cargo fmt --all
    @{{ venv }}/ruff check --quiet --no-cache --select I --fix .
    @if [[ -e {{ prettier }} ]]; then node {{ prettier }} --write {{ javascript }}; fi

# Formatting, layers, generated tables, spelling, clippy, documentation, Python and shell scripts; warnings are errors.
[group('keep it clean')]
lint: modules npm
    @cargo fmt --all --check
    @node {{ prettier }} --check {{ javascript }}
    @{{ python }} tools/check-layers.py
    @{{ python }} tools/generate-errors.py --check
    @{{ venv }}/ruff check --quiet --no-cache .
    @{{ venv }}/shellcheck -x {{ scripts }}
    @{{ venv }}/typos
    @node tools/lint-workflows.mjs "$(tools/node-tools.sh)" .github/workflows/*.yml
    @{{ venv }}/zizmor --quiet --offline --config .github/zizmor.yml .github/workflows .github/dependabot.yml action.yml
    @CARGO_TARGET_DIR={{ target / "lint" }} cargo clippy --workspace --all-targets --locked --no-default-features \
        --features omni_credentials/{{ pg }} -- --deny warnings
    @CARGO_TARGET_DIR={{ target / "lint" }} RUSTDOCFLAGS="--deny warnings --allow rustdoc::private_intra_doc_links" cargo doc --workspace --no-deps --quiet --locked \
        --document-private-items --no-default-features --features omni_credentials/{{ pg }}

# Licences, sources and duplicate versions of dependencies; advisories where their database can be reached.
[group('keep it clean')]
deny:
    @tools/deny.sh

# ---- Release

# Packs the sources for PGXN, and the lists of components of the Python and Node packages, into <target>/package.
[group('release')]
package-sources: wheel npm
    @packaging/pgxn.sh
    @packaging/sbom.sh wheel npm
    @packaging/finish.sh

# Checks the Python and Node packages as registries and their users do: twine, publint, types, a fresh install.
[group('release')]
check-packages: wheel npm
    @packaging/check-packages.sh

# Builds the crypto modules twice in clean folders, as two users where it may, and compares their digests.
[group('release')]
reproduce: modules
    @packaging/reproduce.sh

# On release day: keeps this version's install script permanently, in host-pg/upgrade.
[group('release')]
freeze:
    @tools/freeze.sh

# Says what keeps this commit from being released: versions, changelog, scripts, work tree, tag.
[group('release')]
release-check *arguments:
    @{{ python }} tools/release-check.py "$@"
