/* SPDX-License-Identifier: Apache-2.0 */
/* The socket of the API: bound first, so that a busy port is said before anything is started and
 * the URL is known before migrations are recovered; served last. */
#ifndef FERRY_AGENT_LISTENER_H
#define FERRY_AGENT_LISTENER_H

#include "agent/config.h"
#include "base/fault.h"

/* A listening socket; the caller owns *ret_fd. *ret_url: "https://address:port" for peers, with the
 * port that was bound; the caller frees it. */
int listener_open(const struct config *config, int *ret_fd, char **ret_url, struct fault *fault);

#endif
