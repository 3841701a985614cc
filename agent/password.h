/* SPDX-License-Identifier: Apache-2.0 */
/* ferryd --set-password: users of the API. */
#ifndef FERRY_AGENT_PASSWORD_H
#define FERRY_AGENT_PASSWORD_H

#include "agent/config.h"
#include "base/fault.h"

/* One line of standard input, or, on a terminal, what is typed twice without being shown. At most
 * 511 bytes of UTF-8, not empty. The caller wipes and frees it. */
int password_read(char **ret_password, struct fault *fault);

/* Reads a password and stores it for the user in the pool's database, whether the daemon runs or
 * not. */
int password_set(const struct config *config, const char *user, struct fault *fault);

#endif
