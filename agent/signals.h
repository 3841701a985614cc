/* SPDX-License-Identifier: Apache-2.0 */
/* The signals of the daemon, as a file that can be waited for. */
#ifndef FERRY_AGENT_SIGNALS_H
#define FERRY_AGENT_SIGNALS_H

#include "base/fault.h"

#include <stdbool.h>

/* SIGTERM, SIGINT and SIGHUP come by *ret_fd from here on; before there are threads. */
int signals_open(int *ret_fd, struct fault *fault);
/* One of them: whether the daemon is to stop. SIGHUP reads the log level from the configuration. */
bool signals_take(int fd, const char *config_path);

#endif
