/* SPDX-License-Identifier: Apache-2.0 */
/* The migrations of a host of the pool that has fallen silent: what became of them is not known
 * until it is back, and nothing is decided about them; that is shown in their objects, with events,
 * and in the log. */
#ifndef FERRY_AGENT_POOL_HOST_MOVES_H
#define FERRY_AGENT_POOL_HOST_MOVES_H

#include "schema/pool_db.h"

/* Those that have not ended, as the database has them. What cannot be stored is logged. */
void host_moves_doubt(struct pool_db *pool, const char *host);
/* The host is back, and tells of them itself. */
void host_moves_trust(struct pool_db *pool, const char *host);

#endif
