#!/usr/bin/env bash
# Model checking without a bound on preemptions: every interleaving there is.
# Not in CI: it can take hours.
# Needs cargo.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

LOOM_MAX_PREEMPTIONS=unbounded exec bash ci/loom.sh
