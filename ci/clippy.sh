#!/usr/bin/env bash
# Checks that clippy finds nothing in any target: library, tests, examples,
# benchmarks, with all features.
# Needs the component clippy.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Behind `--`, and not in RUSTFLAGS: it is for this crate alone, and the
# dependencies stay the ones that `cargo check` has built.
cargo clippy --all-targets --all-features -- -D warnings
