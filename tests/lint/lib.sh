# SPDX-License-Identifier: Apache-2.0
# Shared by the lint tests: which files are ours, and how a tool that is missing is reported.
# shellcheck shell=bash

LAYERS=(base schema xmlrpc target agent cli)

# c_files ROOT [FOLDER...]: the C sources and headers below the folders (default: all layers and tests).
c_files()
{
    local root=$1
    shift
    [ $# -gt 0 ] || set -- "${LAYERS[@]}" tests
    (
        cd "$root" || exit 1
        local folder
        for folder in "$@"; do
            [ -d "$folder" ] && find "$folder" -name node_modules -prune -o \
                -type f \( -name '*.c' -o -name '*.h' \) -print
        done
        true
    ) | sort
}

# shell_files ROOT: every file with a shell's first line, and the sourced ones.
shell_files()
{
    (
        cd "$1" || exit 1
        find . \( -name build -o -name node_modules -o -name .git \) -prune -o -type f -size -200k -print |
            sed 's|^\./||' | sort | while IFS= read -r file; do
            case $file in
            *.sh | packaging/deb/* | packaging/completion/* | cli/*completion*) ;;
            *.*) continue ;;
            esac
            if [[ $file == *.sh ]] || head -n 1 "$file" | grep -qaE '^#!.*\b(ba)?sh\b'; then
                printf '%s\n' "$file"
            fi
        done
    )
}

# need TOOL: skips the test when the tool is missing. ./check installs them all and counts skips as failures.
need()
{
    command -v "$1" >/dev/null 2>&1 && return
    echo "skipped: $1 is not installed (packaging/build-depends.txt)"
    exit 77
}
