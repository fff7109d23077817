#!/usr/bin/env bash
# Model checking: runs every interleaving of the library's loom models in which
# a thread is preempted at most LOOM_MAX_PREEMPTIONS times (2 unless set;
# `unbounded` for no limit, see ci/loom-full.sh).
# The models live in the library, under `cfg(all(test, errgroup_loom))`, in
# modules named `loom`.
# Needs cargo. Keeps its own target directory: the flag rebuilds everything.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export RUSTFLAGS="--cfg errgroup_loom"
export CARGO_TARGET_DIR=target/loom
export LOOM_MAX_PREEMPTIONS=${LOOM_MAX_PREEMPTIONS:-2}
if [[ $LOOM_MAX_PREEMPTIONS == unbounded ]]; then
    unset LOOM_MAX_PREEMPTIONS
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
cargo test --release --lib loom | tee "$log"

# A filter that matches nothing passes, too.
if ! grep -Eq '^test result: ok\. [1-9][0-9]* passed' "$log"; then
    echo "no model ran: no test of the library has \`loom\` in its path" >&2
    exit 1
fi
