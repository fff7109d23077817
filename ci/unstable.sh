#!/usr/bin/env bash
# Checks that the library builds, and that clippy finds nothing in it, under
# `--cfg tokio_unstable`, where tokio is told the names of tasks. With the
# argument `test` tests run, too: it takes minutes more, since the
# flag rebuilds all that tests need.
# Needs cargo with the component clippy. Keeps its own target directory: the
# flag rebuilds everything.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export RUSTFLAGS="--cfg tokio_unstable"
export CARGO_TARGET_DIR=target/unstable

cargo clippy --lib --all-features -- -D warnings
if [[ ${1:-} == test ]]; then
    cargo test --all-features --test unstable
    cargo test --all-features --test it group_
fi
