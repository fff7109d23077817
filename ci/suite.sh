#!/usr/bin/env bash
# Checks the benchmark suite of benches/suite: clippy finds nothing, its
# programs build, and the counts of allocations and bytes stay below their
# ceilings.
# Measures no time.
# Needs cargo with the component clippy.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo clippy -p errgroup-bench --all-targets -- -D warnings
cargo test -p errgroup-bench
