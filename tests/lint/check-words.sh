#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Words that mark unfinished work are not landed, and each source names its licence.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/lint/lib.sh
. "$here/lib.sh"

cd "$here/../.."
sources()
{
    c_files .
    shell_files .
    find "${LAYERS[@]}" tests cmake packaging \( -name node_modules -o -name build \) -prune -o -type f \
        \( -name '*.py' -o -name '*.js' -o -name '*.sql' -o -name '*.cmake' \) -print 2>/dev/null || true
}

found=0
words='\b(TODO|FIXME|XXX|HACK)\b|\b(stub|placeholder|not implemented|for now)\b'
mapfile -t files < <(sources | sort -u | grep -v '^tests/lint/check-words\.sh$')
# mktemp's XXX... are templates, which \b already keeps apart.
if grep -nEi "$words" "${files[@]}"; then
    echo "words: the lines above mark unfinished work; finish it, or leave it out"
    found=1
fi
for file in "${files[@]}"; do
    case $file in
    *.cmake | *CMakeLists.txt) continue ;;
    esac
    if ! head -n 3 "$file" | grep -q 'SPDX-License-Identifier: Apache-2\.0'; then
        echo "$file: no line 'SPDX-License-Identifier: Apache-2.0' at its top"
        found=1
    fi
done
[ "$found" = 0 ] && echo "words: nothing unfinished, every source names its licence"
exit "$found"
