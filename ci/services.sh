#!/usr/bin/env bash
# Checks the services of examples/services: clippy finds nothing, their tests
# pass, and the one against PostgreSQL is not skipped.
# Needs cargo with the component clippy, and Debian's package postgresql, which
# it installs if it is missing and it may (as root, with apt-get).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

have_postgres() {
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null
}

if ! have_postgres; then
    if [[ $EUID != 0 ]] || ! command -v apt-get >/dev/null; then
        echo "missing: the package postgresql (apt-get install postgresql), and this is no root to install it" >&2
        exit 1
    fi
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends postgresql
fi

cargo clippy -p errgroup-services --all-targets -- -D warnings
REQUIRE_POSTGRES=1 cargo test -p errgroup-services
