#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# check-layers.sh [ROOT] | --self-test: holds every #include to the layers of docs/architecture.md.
#
# A file includes headers of its own layer and of the layers that stand left of it, each named from
# the root. Headers of a foreign library are included in .c files only, and only in the layer that
# wraps that library.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/lint/lib.sh
. "$here/lib.sh"

# What each layer may include. The longest prefix of a file's path names its layer.
declare -A MAY=(
    [base]="base"
    [schema]="base schema"
    [target]="base schema target"
    [xmlrpc]="base xmlrpc"
    [agent/copy]="base schema target agent/tunnel agent/copy"
    [agent/storage]="base schema target agent/storage"
    [agent/tunnel]="base agent/tunnel"
    [agent/guest]="base schema target agent/guest"
    [agent/vm]="base schema target agent/storage agent/guest agent/vm"
    [agent/migrate]="base schema target xmlrpc agent/copy agent/storage agent/guest agent/tunnel agent/vm agent/migrate"
    [agent/pool]="base schema xmlrpc agent/pool"
    [agent/api]="base schema target xmlrpc agent/copy agent/storage agent/guest agent/tunnel agent/vm agent/migrate agent/pool agent/api"
    [agent]="base schema target xmlrpc agent/copy agent/storage agent/guest agent/tunnel agent/vm agent/migrate agent/pool agent/api agent"
    [cli]="base xmlrpc cli"
    [tests]="base schema target xmlrpc agent/copy agent/storage agent/guest agent/tunnel agent/vm agent/migrate agent/pool agent/api agent cli tests"
)

# Header of a foreign library (as a pattern) and the layers that wrap it.
FOREIGN=(
    'sqlite3.h=schema'
    'libxml/*=xmlrpc'
    'curl/*=xmlrpc'
    'microhttpd.h=xmlrpc'
    'gnutls/*=xmlrpc agent/tunnel'
    'zstd.h=agent/tunnel'
    'jansson.h=base'
    'iscsi/*=agent/copy'
    'libnbd.h=agent/copy agent/guest'
    'xxhash.h=agent/copy'
    'ini.h=agent cli'
    'crypt.h=agent/api'
    'security/*=agent/api'
    'systemd/*=base agent'
)

# layer_of PATH: sets `layer` to that of a source or an included header, empty if none. No subshell:
# it is asked thousands of times.
layer_of()
{
    local folder=${1%/*}
    layer=
    while [ -z "${MAY[$folder]:-}" ]; do
        [[ $folder == */* ]] || return 0
        folder=${folder%/*}
    done
    layer=$folder
}

# one_of WORD LIST
one_of()
{
    [[ " $2 " == *" $1 "* ]]
}

# check_own FILE LINE HEADER: an include in quotes.
check_own()
{
    local file=$1 line=$2 header=$3 layer own
    layer_of "$file"
    own=$layer
    if [[ $header != */* ]]; then
        echo "$file:$line: \"$header\" does not name its folder from the root"
        return
    fi
    layer_of "$header"
    if [ -z "$layer" ]; then
        echo "$file:$line: \"$header\" is in no layer"
    elif ! one_of "$layer" "${MAY[$own]}"; then
        echo "$file:$line: $own includes \"$header\"; it may include only: ${MAY[$own]}"
    fi
}

# check_foreign FILE LINE HEADER: an include in angle brackets.
check_foreign()
{
    local file=$1 line=$2 header=$3 layer row
    layer_of "$file"
    [ "$layer" != tests ] || return 0
    for row in "${FOREIGN[@]}"; do
        # shellcheck disable=SC2053 # the left side of the row is a pattern
        [[ $header == ${row%%=*} ]] || continue
        if ! one_of "$layer" "${row#*=}"; then
            echo "$file:$line: <$header> is seen only in: ${row#*=}"
        elif [[ $file == *.h ]]; then
            echo "$file:$line: <$header> in a header; foreign headers stand in .c files only"
        fi
    done
}

# check_tree ROOT: prints what is wrong; 1 when there is something.
check_tree()
{
    local root=$1 found
    found=$(
        cd "$root"
        c_files . | xargs -r grep -nHE '^[[:space:]]*#[[:space:]]*include' |
            sed -E 's|^(\./)?([^:]*):([0-9]+):[^"<]*(["<])([^">]*).*|\2 \3 \4 \5|' |
            while read -r file line kind header; do
                if [ "$kind" = '"' ]; then
                    check_own "$file" "$line" "$header"
                else
                    check_foreign "$file" "$line" "$header"
                fi
            done || true
    )
    [ -n "$found" ] || return 0
    printf '%s\n' "$found"
    return 1
}

# Plants one forbidden include at a time into a small tree; the check must pass before and fail after.
self_test()
{
    local root
    root=$(mktemp -d)
    # shellcheck disable=SC2064 # root is known now
    trap "rm -rf '$root'" EXIT
    mkdir -p "$root"/{base,schema,xmlrpc,agent/copy,agent/migrate,cli}
    echo '#include "base/log.h"' >"$root/schema/db.c"
    echo '#include <stdint.h>' >"$root/base/log.h"
    check_tree "$root" || { echo "self-test: a clean tree was refused"; exit 1; }

    local planted=0 file include
    while read -r file include; do
        echo "#include $include" >"$root/$file"
        if check_tree "$root" >/dev/null; then
            echo "self-test: #include $include in $file was not noticed"
            exit 1
        fi
        rm "$root/$file"
        planted=$((planted + 1))
    done <<'PLANTED'
base/io.c "schema/types.h"
schema/store.c "agent/copy/copier.h"
xmlrpc/codec.c "schema/types.h"
schema/classes.c "xmlrpc/codec.h"
agent/copy/copier.c "agent/migrate/supervisor.h"
agent/copy/rate.c "xmlrpc/client.h"
cli/main.c "agent/migrate/supervisor.h"
base/clock.c "clock.h"
base/buf.c "util/x.h"
agent/migrate/sender.c <sqlite3.h>
cli/vm.c <curl/curl.h>
schema/db.h <sqlite3.h>
PLANTED
    check_tree "$root" || { echo "self-test: the tree did not come back clean"; exit 1; }
    echo "self-test: $planted planted includes were all refused"
}

if [ "${1:-}" = --self-test ]; then
    self_test
else
    check_tree "${1:-$here/../..}" && echo "layers: every include is allowed"
fi
