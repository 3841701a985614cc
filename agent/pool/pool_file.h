/* SPDX-License-Identifier: Apache-2.0 */
/* A database file takes the place of another; neither is open. */
#ifndef FERRY_AGENT_POOL_POOL_FILE_H
#define FERRY_AGENT_POOL_POOL_FILE_H

#include "base/fault.h"

/* With its journals; one that is not there is fine. */
void pool_file_remove(const char *path);
/* Durable when it returns. */
int pool_file_put(const char *fresh, const char *path, struct fault *fault);
/* The content as a new file (0600) in the place of what is there. */
int pool_file_copy(const char *from, const char *to, struct fault *fault);

#endif
