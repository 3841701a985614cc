/* SPDX-License-Identifier: Apache-2.0 */
/* What a daemon stands on: its folders, which are its own, and files enough. */
#ifndef FERRY_AGENT_GROUND_H
#define FERRY_AGENT_GROUND_H

#include "agent/config.h"
#include "base/fault.h"

/* Tries; a failure is logged. */
void ground_raise_file_limit(const struct config *config);
/* key: of the configuration, for the fault. */
int ground_ensure_directory(const char *path, const char *key, struct fault *fault);
/* Another ferryd in it is -EBUSY. The lock ends with the descriptor. */
int ground_lock_directory(const char *dir, const char *key, int *ret_fd, struct fault *fault);

#endif
