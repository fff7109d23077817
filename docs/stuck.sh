#!/usr/bin/env bash
# Draws docs/stuck.png: the tree of the example `stuck`, three seconds after its
# start.
# Needs cargo and Graphviz (Debian's package graphviz).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo build --quiet --example stuck --features signal,serde
said=$(mktemp)
target/debug/examples/stuck --dot >"$said" &
stuck=$!
trap 'kill -KILL $stuck; wait $stuck || true; rm -f "$said"' EXIT
# The second look knows for how long nobody has gone on.
for look in 1 2; do
    sleep 1.5
    kill -USR1 $stuck
    while [[ $(grep -c '^end of the dump' "$said") -lt $look ]]; do sleep 0.05; done
done
# The last drawing.
tac "$said" | sed -n '/^}/,/^digraph/p;/^digraph/q' | tac | dot -Tpng -Gdpi=64 -o docs/stuck.png
