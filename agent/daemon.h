/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon: every part of the agent, started in order, stopped in the reverse one. */
#ifndef FERRY_AGENT_DAEMON_H
#define FERRY_AGENT_DAEMON_H

#include "agent/config.h"
#include "base/fault.h"

/* Runs until SIGTERM or SIGINT: 0, or a negative errno when it could not start or go on. Blocks
 * these signals and SIGHUP in the calling thread, which must be the only one, and ignores SIGPIPE.
 * config_path: read again at SIGHUP. */
int daemon_run(const struct config *config, const char *config_path, struct fault *fault);

#endif
