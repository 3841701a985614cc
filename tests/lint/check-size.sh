#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# No C file over 600 lines, no function over 80: what is longer is more than one idea.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/lint/lib.sh
. "$here/lib.sh"
need ctags

readonly MAX_FILE=600
readonly MAX_FUNCTION=80

# Exceptions, each with its reason: "path" for a file, "path:function" for a function.
ALLOWED=(
)

allowed()
{
    local name
    for name in ${ALLOWED[@]+"${ALLOWED[@]}"}; do
        [ "$name" != "$1" ] || return 0
    done
    return 1
}

cd "$here/../.."
found=0
while read -r lines file; do
    if [ "$lines" -gt "$MAX_FILE" ] && ! allowed "$file"; then
        echo "$file: $lines lines (limit $MAX_FILE)"
        found=1
    fi
done < <(c_files . | xargs -r wc -l | awk '$2 != "total"')

while IFS=$'\t' read -r lines name file; do
    if ! allowed "$file:$name"; then
        echo "$file: $name() has $lines lines (limit $MAX_FUNCTION)"
        found=1
    fi
done < <(c_files . | ctags -L - --languages=C --langmap=C:.c.h --kinds-C=f --fields=+ne -o - |
    awk -F'\t' -v max="$MAX_FUNCTION" '!/^!_/ {
        from = to = 0
        for (i = 4; i <= NF; i++) {
            if ($i ~ /^line:/) from = substr($i, 6)
            if ($i ~ /^end:/) to = substr($i, 5)
        }
        if (to - from + 1 > max) printf "%d\t%s\t%s\n", to - from + 1, $1, $2
    }')
[ "$found" = 0 ] && echo "size: files and functions within their limits"
exit "$found"
