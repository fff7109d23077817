#!/usr/bin/env bash
# Measures which lines the tests reach: a summary here, the lines in
# target/coverage/tarpaulin-report.html.
# Not in CI: it rebuilds everything.
# Needs cargo-tarpaulin: `cargo install --locked cargo-tarpaulin`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! cargo tarpaulin --version; then
    echo "missing: cargo install --locked cargo-tarpaulin" >&2
    exit 1
fi

# tests/ui is left out: it runs compilers, and reaches no line of the library.
cargo tarpaulin --engine llvm --all-features --lib --test it \
    --target-dir target/coverage --skip-clean \
    --out stdout --out html --output-dir target/coverage "$@"
