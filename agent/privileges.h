/* SPDX-License-Identifier: Apache-2.0 */
/* Leaving root behind: the daemon, its children and its files belong to the configured user. */
#ifndef FERRY_AGENT_PRIVILEGES_H
#define FERRY_AGENT_PRIVILEGES_H

#include "agent/config.h"
#include "base/fault.h"

/* Started as root: makes state_dir and run_dir for the user if they are missing, then becomes the
 * user for good. Of root's rights only that of binding a port below 1024 is kept, when `listen` has
 * one, until privileges_forget_bind(). Started as anybody else: does nothing. Called before any
 * thread is started and anything is opened. */
int privileges_drop(const struct config *config, struct fault *fault);

/* Gives up the right to bind low ports, once the socket is bound. Before the first thread. */
void privileges_forget_bind(void);

#endif
