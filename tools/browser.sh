#!/usr/bin/env bash
# Installs Chromium, in which the page of the Node package is tested, from the system's packages where there is none.
# It takes some 300 MB, so `./just test` does without it. With --if-possible, a machine that cannot have it is no error.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck source=tools/setup/common.sh
. tools/setup/common.sh
# shellcheck source=tools/setup/packages.sh
. tools/setup/packages.sh

# The names that the test looks for (host-node/test/page.test.mjs).
for program in chromium chromium-browser google-chrome google-chrome-stable; do
    if command -v "$program" >/dev/null; then exit; fi
done
mkdir -p "$tools"
want "Chromium, to test the page of the Node package" chromium
if [[ ${1:-} == --if-possible ]]; then
    # In a subshell: a failure there ends it, and not the caller.
    (install_wanted) || say "so the page of the Node package is not tested in a browser"
else
    install_wanted
fi
