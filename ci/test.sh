#!/usr/bin/env bash
# Runs the tests with the very command that README.md gives under
# `## Quick start`, its second one, so that the two cannot drift apart.
# Needs what that command needs: cargo.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

source ci/readme.sh

command=$(quick_start_command 2)
printf '%s\n' "$command"
bash -euo pipefail -c "$command"
