#!/usr/bin/env bash
# Checks that the documentation builds without a warning (a dead link is one)
# and that its examples run, with all features.
# Needs cargo and rustdoc.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --all-features
cargo test --doc --all-features
