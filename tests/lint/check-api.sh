#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# check-api.sh [--write]: docs/api.md is what the class list and the method table say.
# FERRY_BIN: where print_api was built (default build/dev/bin).
set -euo pipefail
cd "$(dirname "$0")/../.."
print=${FERRY_BIN:-build/dev/bin}/print_api
[ -x "$print" ] || { echo "$print is not built"; exit 1; }

if [ "${1:-}" = --write ]; then
    "$print" >docs/api.md
    exit
fi
page=$(mktemp)
trap 'rm -f "$page"' EXIT
"$print" >"$page"
if ! diff -u docs/api.md "$page"; then
    echo "docs/api.md is not up to date: tests/lint/check-api.sh --write"
    exit 1
fi
echo "api: docs/api.md is up to date"
