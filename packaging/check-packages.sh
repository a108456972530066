#!/usr/bin/env bash
# Checks the Python and Node packages the way their users meet them: what registries refuse, an install into an empty
# environment, a first program, types.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=packaging/common.sh
. packaging/common.sh

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
dist=$CARGO_TARGET_DIR/python/dist
archive=$CARGO_TARGET_DIR/node/omni-credentials-$version.tgz
modules=$(tools/node-tools.sh)
step() { printf '\n-- %s\n' "$1"; }
unset OMNI_CREDENTIALS_MASTER_PASSWORD OMNI_CREDENTIALS_MASTER_PASSWORD_FILE OMNI_CREDENTIALS_FILE PYTHONPATH

step "twine: metadata, and whether the README renders"
"$OMNI_PYTHON" -m twine check --strict "$dist/omni_credentials-$version-py3-none-any.whl" "$dist/omni_credentials-$version.tar.gz"

step "pip install into a fresh environment, from the wheel and from the sdist"
for file in "$dist/omni_credentials-$version-py3-none-any.whl[settings,keyring]" "$dist/omni_credentials-$version.tar.gz"; do
    rm -rf "$folder/venv"
    "$OMNI_PYTHON" -m venv "$folder/venv"
    "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input "$file"
    (cd "$folder" && rm -f ./*.omni && venv/bin/python "$OLDPWD/packaging/check/first.py" "$version")
done

step "npm install in an empty folder"
mkdir "$folder/node"
cp packaging/check/first.mjs packaging/check/first.ts packaging/check/tsconfig.json "$folder/node/"
(
    cd "$folder/node"
    printf '{ "private": true, "type": "module" }\n' >package.json
    npm --no-audit --no-fund --no-update-notifier --loglevel=error install "$archive"
    node first.mjs
)

step "tsc --strict, without skipping the types of libraries"
for resolution in "node16 node16" "bundler esnext"; do
    read -r resolve module <<<"$resolution"
    (cd "$folder/node" && node "$modules/typescript/bin/tsc" -p . --moduleResolution "$resolve" --module "$module")
done

step "publint"
node "$modules/publint/src/cli.js" --strict "$folder/node/node_modules/omni-credentials"

step "are the types wrong? (ES modules only; module.wasm has no types)"
node "$modules/@arethetypeswrong/cli/dist/index.js" "$archive" --profile esm-only --exclude-entrypoints module.wasm --no-color --format ascii
