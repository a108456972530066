#!/usr/bin/env bash
# What the GitHub action (action.yml) runs in the checkout of a user.
set -euo pipefail

repository=omnigres/omni_credentials

# Sets command: the runner's own, or that of a release, whose provenance is checked before it runs.
find_command() {
    if command=$(command -v omni-credentials); then return; fi
    local name archive
    name=omni-credentials-$INPUT_VERSION-linux-$(uname -m)
    archive=$RUNNER_TEMP/$name.tar.gz
    gh release download "v$INPUT_VERSION" --repo "$repository" --pattern "$name.tar.gz" --dir "$RUNNER_TEMP" --clobber
    gh attestation verify "$archive" --repo "$repository"
    tar -xzf "$archive" -C "$RUNNER_TEMP" "$name/omni-credentials"
    command=$RUNNER_TEMP/$name/omni-credentials
}

# problem FILE MESSAGE: to be shown beside the file. A name may have any character.
problem() {
    local name=$1
    name=${name//'%'/%25} name=${name//$'\r'/%0D} name=${name//$'\n'/%0A} name=${name//:/%3A} name=${name//,/%2C}
    problems+=("::error file=$name::$2")
}

problems=()
find_command
mapfile -t patterns < <(grep -v '^[[:space:]]*$' <<<"$INPUT_FILES")
mapfile -d '' -t files < <(git -c safe.directory="$PWD" ls-files -z -- "${patterns[@]}")
if ((${#files[@]} == 0)); then
    echo "::error::no file that git has is called as files says"
    exit 1
fi
# What the command prints has names of files in it: no line of it may be a command to the runner.
resume=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
echo "::stop-commands::$resume"
for file in "${files[@]}"; do
    if [[ -n $OMNI_CREDENTIALS_MASTER_PASSWORD ]]; then
        "$command" verify --file "$file" 2>&1 || problem "$file" "it does not verify: status $?"
    else
        { "$command" list --file "$file" >/dev/null; } 2>&1 || problem "$file" "it is not a sound credentials file: status $?"
    fi
    if [[ -n $INPUT_EXPIRING ]]; then
        "$command" list --file "$file" --expiring "$INPUT_EXPIRING" 2>&1 || problem "$file" "credentials are due: status $?"
    fi
done
echo "::$resume::"
if ((${#problems[@]} == 0)); then exit; fi
printf '%s\n' "${problems[@]}"
exit 1
