#!/usr/bin/env bash
# Checks that the first ```rust example of README.md, pasted into the main.rs of
# an empty crate, builds and runs with no more than errgroup and the tokio
# features below. Nothing the repository has for its own tests helps it.
# Needs cargo.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

source ci/readme.sh

root=$PWD
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

mkdir "$scratch/src"
first_rust_example >"$scratch/src/main.rs"
cat >"$scratch/Cargo.toml" <<EOF
[package]
name = "scratch"
version = "0.0.0"
edition = "2024"
publish = false

[dependencies]
errgroup = { path = "$root" }
tokio = { version = "1", features = ["rt-multi-thread", "macros", "time"] }
EOF

cd "$scratch"
CARGO_TARGET_DIR=$root/target/scratch cargo run
