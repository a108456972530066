#!/usr/bin/env bash
# Prints the install script of the extension, as the sources in host-pg/sql give it. With --from-0.2.0, the update from an
# older extension of the same name: what that one has made is set aside, and adopted when all of this one is there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cd host-pg/sql

functions() {
    cat instance/{tables,credentials,history,file_stores,rights}.sql |
        sed -e '/^@INSTANCE_SQL@$/{' -e 'r /dev/stdin' -e 'd' -e '}' functions.sql
}

{
    if [[ ${1-} == --from-0.2.0 ]]; then
        printf '%s\n' '\echo Use "ALTER EXTENSION omni_credentials UPDATE" to load this file. \quit'
        cat adopt.sql
        echo "select omni_credentials.adopt_prepare('omni_credentials');"
        functions | sed 1d
        cat {modules,rights,vault,dblink,guards,policies,default_copy}.sql
        echo "select omni_credentials.adopt_finish('omni_credentials');"
    else
        functions
        cat {modules,rights,adopt,vault,dblink,guards,policies,default_copy}.sql
    fi
} | sed "s/@CARGO_VERSION@/$(../../tools/version.sh)/"
