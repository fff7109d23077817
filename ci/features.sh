#!/usr/bin/env bash
# Checks that the library builds without a warning with no feature, and with
# each feature alone. Works with a manifest that has none.
# Needs cargo and python3.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

features=$(cargo metadata --no-deps --format-version 1 | python3 -c '
import json, sys

packages = {package["name"]: package for package in json.load(sys.stdin)["packages"]}
package = packages["errgroup"]
print("\n".join(sorted(package["features"])))
')

check() {
    echo "features: ${1:-none}"
    # `cargo rustc` hands the flag to this crate alone. In RUSTFLAGS it would
    # build every dependency anew.
    cargo rustc --lib --profile check --no-default-features --features "$1" -- -D warnings
}

check ""
for feature in $features; do
    check "$feature"
done
