#!/usr/bin/env bash
# Runs the tests under AddressSanitizer, with its leak detector. The crate has no
# unsafe code: this watches what it does with its dependencies, and leaks.
# Not in CI: it needs a nightly toolchain, and rebuilds everything.
# Needs `rustup toolchain install nightly`, on x86_64 Linux.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export CARGO_TARGET_DIR=target/asan
# Named, so that the flag stays off build scripts and procedural macros; in the
# environment, so that it holds for the example that a test builds, too.
export CARGO_BUILD_TARGET=x86_64-unknown-linux-gnu

# tests/ui is left out: its messages are those of the stable compiler.
RUSTFLAGS="-Zsanitizer=address" cargo +nightly test --lib --test it "$@"
