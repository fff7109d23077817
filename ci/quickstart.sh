#!/usr/bin/env bash
# Runs the first command that README.md gives under `## Quick start` and checks
# that its output is one that `sha256sum -c` accepts.
# Needs cargo, and sha256sum of coreutils.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

source ci/readme.sh

command=$(quick_start_command 1)
printf '%s\n' "$command"

sums=$(mktemp)
trap 'rm -f "$sums"' EXIT
bash -euo pipefail -c "$command" >"$sums"

if [[ ! -s $sums ]]; then
    echo "the command wrote nothing to its standard output" >&2
    exit 1
fi
sha256sum --check --strict --quiet "$sums"
printf 'sha256sum accepts all %d lines\n' "$(wc -l <"$sums")"
