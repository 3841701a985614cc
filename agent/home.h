/* SPDX-License-Identifier: Apache-2.0 */
/* The pool that this host belongs to, and its database: its own, in pool.db, or another host's,
 * over the network. Finishes what a crash has left between the two. */
#ifndef FERRY_AGENT_HOME_H
#define FERRY_AGENT_HOME_H

#include "agent/config.h"
#include "agent/pool/link.h"
#include "agent/pool/membership.h"
#include "base/fault.h"
#include "schema/pool_db.h"

#include <stdbool.h>
#include <stdint.h>

struct home {
	struct pool_db *pool;
	/* Of a member; empty and NULL in a pool of its own. */
	struct membership membership;
	struct link *link;         /* to the coordinator */
	char *coordinator_address; /* as clients are told: without the port when it is ours too */
};

struct home_params {
	const struct config *config;
	const char *url; /* how other hosts reach this one */
	const char *fingerprint;
	/* Sleeps; false when the daemon is to stop. Told for what, and why. */
	bool (*wait)(void *arg, uint64_t duration_usec, const struct membership *membership,
		const char *why);
	void *arg;
};

/* Blocks until the coordinator of a member answers. -ECANCELED: the daemon is to stop. */
int home_open(const struct home_params *params, struct home *ret_home, struct fault *fault);
void home_close(struct home *home);
/* "10.0.0.1" of "https://10.0.0.1:443" when our port is that too, else "10.0.0.1:443": clients put
 * it in the place of the host name that they have. The caller frees it. */
char *home_address(const char *coordinator, const char *own);

#endif
