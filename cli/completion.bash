# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Completion of ferry(1) for bash. The words come from the program itself.

_ferry()
{
    local candidate
    COMPREPLY=()
    while IFS= read -r candidate; do
        # Names of objects may hold anything: they are put on the line as one word.
        COMPREPLY+=("$(printf '%q' "$candidate")")
    done < <("$1" __complete "$COMP_CWORD" "${COMP_WORDS[@]:1}" 2>/dev/null)
}

# Where nothing is offered, bash offers files.
complete -o bashdefault -o default -F _ferry ferry
