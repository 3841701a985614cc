#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs shellcheck over every shell script of the tree.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/lint/lib.sh
. "$here/lib.sh"
need shellcheck

cd "$here/../.."
mapfile -t files < <(shell_files .)
shellcheck -x "${files[@]}"
echo "shell: ${#files[@]} scripts are clean"
