#!/usr/bin/env bash
# Checks that what a new user writes builds and runs in an empty crate, with
# nothing of what the repository has for its own tests: the first ```rust example
# of README.md, with no more than errgroup and the tokio features below, and the
# programs of ci/scratch/, each with the error crate it is named for.
# Needs cargo.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

source ci/readme.sh

root=$PWD
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Runs the program on standard input as crate $1, with the dependencies $2...
run() {
    mkdir -p "$scratch/$1/src"
    cat >"$scratch/$1/src/main.rs"
    cat >"$scratch/$1/Cargo.toml" <<EOF
[package]
name = "scratch-$1"
version = "0.0.0"
edition = "2024"
publish = false

[dependencies]
errgroup = { path = "$root" }
tokio = { version = "1", features = ["rt-multi-thread", "macros", "time"] }
EOF
    (($# == 1)) || printf '%s\n' "${@:2}" >>"$scratch/$1/Cargo.toml"
    (cd "$scratch/$1" && RUSTFLAGS="-D warnings" CARGO_TARGET_DIR=$root/target/scratch cargo run)
}

first_rust_example | run readme
run thiserror 'thiserror = "2"' <ci/scratch/thiserror.rs
run anyhow 'anyhow = "1"' <ci/scratch/anyhow.rs
run abort 'futures-executor = "0.3"' '[profile.dev]' 'panic = "abort"' <ci/scratch/abort.rs
