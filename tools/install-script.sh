#!/usr/bin/env bash
# Prints the install script of the extension, as the sources in host-pg/sql give it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
sed -e '/^@INSTANCE_SQL@$/{' -e 'r host-pg/sql/instance.sql' -e 'd' -e '}' host-pg/sql/functions.sql \
    | cat - host-pg/sql/{modules,rights,guards,policies,default_copy}.sql | sed "s/@CARGO_VERSION@/$(tools/version.sh)/"
