#!/usr/bin/env bash
# Changes the library in one place after another and lists the changes that no
# test noticed, in target/mutants.out/missed.txt. To try one file only:
# `ci/mutants.sh --file src/task/run.rs`.
# Not in CI: it takes hours.
# Needs cargo-mutants: `cargo install --locked cargo-mutants`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! cargo mutants --version; then
    echo "missing: cargo install --locked cargo-mutants" >&2
    exit 1
fi

# tests/ui is left out: each run of it checks every dependency anew.
mkdir -p target
cargo mutants --output target "$@" -- --lib --test it
