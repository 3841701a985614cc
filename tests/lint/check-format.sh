#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The format is what clang-format says. To mend: clang-format -i FILE.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/lint/lib.sh
. "$here/lib.sh"
need clang-format

cd "$here/../.."
c_files . | xargs -r clang-format --dry-run -Werror
echo "format: all files as .clang-format wants them"
