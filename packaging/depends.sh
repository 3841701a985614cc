# SPDX-License-Identifier: Apache-2.0
# Sourced by ./check and ./demo: installs what build-depends.txt lists and the machine lacks.
# shellcheck shell=bash

# has_package NAME: installed, or its one program is there from another source (nodejs of another
# vendor brings npm along).
has_package()
{
    case $1 in
    npm | nodejs) command -v "${1/nodejs/node}" >/dev/null 2>&1 && return ;;
    esac
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# as_root COMMAND...
as_root()
{
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo "$@"
    else
        echo "this needs root or sudo: $*" >&2
        return 1
    fi
}

# install_depends LIST GROUP...: apt-get runs only when something is missing.
#
# The tgt package starts a tgtd on port 3260 when it is installed. Ferry starts its own, so for the
# length of this installation a policy-rc.d (invoke-rc.d(8)) keeps that one from starting, unless the
# machine has a policy of its own. A service that is there already is not touched.
install_depends()
{
    local list=$1 group package missing=() policy=/usr/sbin/policy-rc.d made='' status=0
    shift
    for group in "$@"; do
        while read -r package; do
            has_package "$package" || missing+=("$package")
        done < <(sed -n "s/^$group: *//p" "$list")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    echo "installing: ${missing[*]}"
    if [ ! -e "$policy" ]; then
        # shellcheck disable=SC2016 # $1 is the policy's own
        printf '#!/bin/sh\ncase $1 in tgt*) exit 101 ;; esac\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
        made=1
    fi
    as_root apt-get -qq update &&
        as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l \
            apt-get -qq -y --no-install-recommends install "${missing[@]}" >/dev/null || status=$?
    [ -z "$made" ] || as_root rm -f "$policy"
    [ "$status" = 0 ] || echo "apt-get could not install: ${missing[*]}" >&2
    return "$status"
}
