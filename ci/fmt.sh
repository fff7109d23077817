#!/usr/bin/env bash
# Checks that every source file is formatted as rustfmt would.
# Needs the component rustfmt.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo fmt --all --check
