#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# mandoc's own check of every man page.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/lint/lib.sh
. "$here/lib.sh"
need mandoc

cd "$here/../.."
mapfile -t pages < <(find docs -name '*.[1-8]' | sort)
[ "${#pages[@]}" -gt 0 ] || { echo "no man page found below docs/"; exit 1; }
mandoc -Tlint -Wwarning "${pages[@]}"
echo "man: ${#pages[@]} pages are clean"
