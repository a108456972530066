# shellcheck shell=bash disable=SC2034,SC2154 # variables shared with the other parts
# Python: a virtual environment with `just`, pytest, the driver and wasmtime's package, from pinned wheels.

is_good_python() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

want_python() {
    if ! is_good_python python3 && ! is_good_python /usr/bin/python3; then
        want "Python 3.11 or newer with venv" python3 python3-venv
    fi
}

# Sets python.
find_python() {
    for python in python3 /usr/bin/python3; do
        if is_good_python "$python"; then return; fi
    done
    fail "Python 3.11 or newer with venv is missing"
}

set_up_venv() {
    local pins
    pins=$(cat {tools,tests,conformance/independent}/requirements.txt | cksum)
    if [[ $(cat "$tools/venv/.pins" 2>/dev/null) == "$pins" ]]; then return; fi
    say "installing just and pytest into $tools/venv (about 30 seconds)"
    # One that works is kept: somebody may be using it.
    if ! "$tools/venv/bin/python" -m pip --version >/dev/null 2>&1; then
        rm -rf "$tools/venv"
        quietly "$tools/venv.log" "$python" -m venv "$tools/venv" || exit 1
    fi
    pip_install -r tools/requirements.txt -r tests/requirements.txt || exit 1
    printf '%s\n' "$pins" >"$tools/venv/.pins"
}

# pip_install ARGUMENT…: with the pip of our environment, wheels only.
pip_install() {
    quietly "$tools/pip.log" "$tools/venv/bin/python" -m pip install --disable-pip-version-check --no-input \
        --only-binary :all: "$@"
}
