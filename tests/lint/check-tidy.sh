#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# check-tidy.sh BUILD [FILE...]: clang-tidy over the sources, with the compile commands of a build.
# Takes minutes; ./check --long runs it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/lint/lib.sh
. "$here/lib.sh"
need clang-tidy

build=$1
shift
cd "$here/../.."
[ -f "$build/compile_commands.json" ] || { echo "$build has no compile_commands.json"; exit 1; }
files=("$@")
[ $# -gt 0 ] || mapfile -t files < <(c_files . "${LAYERS[@]}" | grep '\.c$')
printf '%s\0' "${files[@]}" | xargs -0 -P "$(nproc)" -n 4 clang-tidy --quiet -p "$build"
echo "tidy: ${#files[@]} sources are clean"
