/* SPDX-License-Identifier: Apache-2.0 */
/* The objects that stand for this host and its pool: pool, host, host_metrics, control domain,
 * management network and interface, and the storage manager "file". */
#ifndef FERRY_AGENT_INVENTORY_H
#define FERRY_AGENT_INVENTORY_H

#include "agent/config.h"
#include "base/fault.h"
#include "schema/pool_db.h"

struct inventory {
	char *pool_ref;
	char *host_ref;
};

/* Makes them, in one transaction, in a database without a pool; then, at every start, brings what
 * they say of the machine and of the configuration up to date. member: this host's ref when the
 * pool's coordinator is another host; NULL when it is this one. */
int inventory_ensure(struct pool_db *pool, const struct config *config, const char *member,
	struct inventory *ret_inventory, struct fault *fault);
void inventory_clear(struct inventory *inventory);

/* host_metrics: memory, live, last_updated. Called now and then. */
int inventory_tick(struct pool_db *pool, const char *host_ref, struct fault *fault);

#define CLEANUP_INVENTORY CLEANUP(inventory_clear)

#endif
