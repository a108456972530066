#!/usr/bin/env bash
# Builds the crypto modules from this work tree in two clean folders, and compares their digests with each other and
# with those of <target>/modules. As root, the second build runs as another user, with a home and a copy of everything
# that cargo fetches of its own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [[ -n $(git status --porcelain) ]]; then
    echo "reproduce: this work tree has changes that are not committed, which are built as well" >&2
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"

# sources PLACE: the files of the work tree, and nothing that was built.
sources() {
    mkdir -p "$1/sources"
    git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$1/sources"
}

first=$folder/first second=$folder/a/longer/path/for/the/second
sources "$first"
sources "$second"
echo "building in $first"
(cd "$first/sources" && CARGO_TARGET_DIR=$first/target tools/build-modules.sh >"$first/log" 2>&1) || { tail "$first/log" && exit 1; }

who=()
if ((EUID == 0)); then
    account=$(getent passwd nobody)
    user=$(cut -d: -f3 <<<"$account") group=$(cut -d: -f4 <<<"$account")
    mkdir "$second/home"
    chown -R "$user:$group" "$second"
    who=(setpriv "--reuid=$user" "--regid=$group" --clear-groups env "HOME=$second/home" "CARGO_HOME=$second/home/cargo")
fi
echo "building in $second${user:+ as user $user}"
(cd "$second/sources" && "${who[@]}" env CARGO_TARGET_DIR="$second/target" tools/build-modules.sh >"$second/log" 2>&1) \
    || { tail "$second/log" && exit 1; }

# With another compiler, they are other bytes.
echo "built by $(rustc --version), $(rustc -vV | sed -n 's/^LLVM version: /LLVM /p')"
different=0
for module in "$first"/target/modules/*.wasm; do
    name=${module##*/}
    digests=$(sha256sum "$module" "$second/target/modules/$name" "$CARGO_TARGET_DIR/modules/$name" | cut -d' ' -f1 | sort -u)
    if [[ $(wc -l <<<"$digests") == 1 ]]; then
        printf '%s  %s\n' "$digests" "$name"
    else
        printf 'reproduce: %s is not the same in all of them\n' "$name" >&2
        sha256sum "$module" "$second/target/modules/$name" "$CARGO_TARGET_DIR/modules/$name" >&2
        different=1
    fi
done
exit "$different"
