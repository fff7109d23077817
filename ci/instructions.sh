#!/usr/bin/env bash
# Counts what does not depend on the machine's speed or load, errgroup's and its
# peers': instructions (under callgrind), allocations, bytes, code; and prints
# it beside its budgets. Two run lengths, their difference divided by the
# operations between them. Arguments: the numbers of the rows, else all.
# Not in CI: it takes minutes, and what it counts is decided in review.
# Needs cargo, valgrind and size (binutils).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo bench --quiet -p errgroup-bench -- counts "$@"
