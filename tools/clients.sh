#!/usr/bin/env bash
# Installs the drivers that tests/clients needs, into <target>/clients. Java and pgbouncer are the system's, where it has them.
set -euo pipefail
cd "$(dirname "$0")/.."

clients=$CARGO_TARGET_DIR/clients
mkdir -p "$clients/node"
if [[ ! -e $clients/venv/ready ]] || ! cmp -s tests/clients/requirements.txt "$clients/venv/ready"; then
    echo "installing the Python drivers"
    "$OMNI_CREDENTIALS_PYTHON" -m venv --clear "$clients/venv"
    "$clients/venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement tests/clients/requirements.txt
    cp tests/clients/requirements.txt "$clients/venv/ready"
fi
if ! cmp -s tests/clients/package.json "$clients/node/package.json" || [[ ! -e $clients/node/node_modules ]]; then
    echo "installing the Node drivers"
    cp tests/clients/package.json "$clients/node/package.json"
    (cd "$clients/node" && npm install --silent --no-audit --no-fund --no-package-lock)
fi
