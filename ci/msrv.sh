#!/usr/bin/env bash
# Looks for syntax that is younger than `rust-version` (1.85) in what a user
# compiles. Clippy's `incompatible_msrv` sees the standard library only, and no
# toolchain that old is at hand. Let chains (1.88) are what edition 2024 and
# clippy's suggestions invite.
# Needs grep.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if grep -rnE '(&&|^ *(if|while)) .*&& *let |^ *&& let ' src; then
    echo "let chains need Rust 1.88: nest the conditions" >&2
    exit 1
fi
