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
# The tgt package starts its own tgtd on port 3260 when it is installed. We start our own, so for the
# length of this installation alone the package's service is masked; one that was there is not touched.
install_depends()
{
    local list=$1 group package missing=() mask=/run/systemd/system/tgt.service masked=
    shift
    for group in "$@"; do
        while read -r package; do
            has_package "$package" || missing+=("$package")
        done < <(sed -n "s/^$group: *//p" "$list")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    echo "installing: ${missing[*]}"
    if ! has_package tgt && [ ! -e "$mask" ] && [ ! -L "$mask" ]; then
        as_root mkdir -p "${mask%/*}" && as_root ln -s /dev/null "$mask" && masked=1
    fi
    local status=0
    as_root apt-get -qq update &&
        as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l \
            apt-get -qq -y --no-install-recommends install "${missing[@]}" >/dev/null || status=$?
    [ -z "$masked" ] || as_root rm -f "$mask"
    [ "$status" = 0 ] || echo "apt-get could not install: ${missing[*]}" >&2
    return "$status"
}
