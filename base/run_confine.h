/* SPDX-License-Identifier: Apache-2.0 */
/* Landlock for base/run.c: a ruleset made by the parent, entered by the child between fork and
 * exec. */
#ifndef FERRY_BASE_RUN_CONFINE_H
#define FERRY_BASE_RUN_CONFINE_H

#include "base/fault.h"
#include "base/run.h"

/* A ruleset that allows what params asks for, the program itself, and what every dynamically
 * linked program reads. ret_fd is -1 when nothing is to be confined or the kernel has no Landlock
 * (logged once). Blocks on the file system. */
int confine_prepare(const struct run_params *params, int *ret_fd, struct fault *fault);

/* Enters the ruleset; async-signal-safe, so that a forked child may call it. A negative errno. */
int confine_enter(int ruleset_fd);

#endif
