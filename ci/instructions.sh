#!/usr/bin/env bash
# Counts the instructions of single operations under callgrind, errgroup's and
# its peers', and prints them: two run lengths, their difference divided by the
# operations between them. They do not depend on the machine's speed or load.
# Not in CI: there is nothing to fail.
# Needs cargo and valgrind.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo bench --quiet -p errgroup-bench -- instructions
