#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# check-points.sh absent|present PROGRAM...: whether each program has fault points (base/inject.h). What is
# packaged has none; that this would be seen is proven with a program that has them.
set -euo pipefail

wanted=$1
shift
for program in "$@"; do
    [ -x "$program" ] || { echo "$program is no program"; exit 1; }
    # What the log says of a point, and names of points.
    found=$(grep -caE 'FAULT-POINT|inject_at|state\.%s\.%s\.%s\.before' "$program" || true)
    case $wanted in
    absent)
        [ "$found" = 0 ] || { echo "$program has fault points: it was built with FERRY_INJECT"; exit 1; }
        ;;
    present)
        [ "$found" != 0 ] || { echo "$program has no fault points, or they cannot be seen"; exit 1; }
        ;;
    esac
done
echo "points: $wanted in $*"
