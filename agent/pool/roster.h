/* SPDX-License-Identifier: Apache-2.0 */
/* The hosts of the pool as its coordinator knows them: how each is reached, and whether it was
 * heard of lately. Members tick every ROSTER_TICK_USEC; one that is silent for ROSTER_SILENT_USEC
 * is stored as not live, with an event and a line in the log, and comes back by ticking. */
#ifndef FERRY_AGENT_POOL_ROSTER_H
#define FERRY_AGENT_POOL_ROSTER_H

#include "agent/pool/link.h"
#include "schema/pool_db.h"

#include <stdbool.h>

#define ROSTER_TICK_USEC   (UINT64_C(2) * 1000000)
#define ROSTER_SILENT_USEC (UINT64_C(15) * 1000000)

#define ROSTER_DOUBT_USEC (UINT64_C(5) * 1000000)

struct roster;
struct membership;

struct roster_params {
	struct pool_db *pool; /* borrowed */
	struct rank rank;     /* of this host, the coordinator */
	/* A host that is silent for ROSTER_DOUBT_USEC is asked why: it follows that coordinator.
	 * From the roster's thread. */
	void (*overruled)(void *arg, struct membership *by);
	void *arg;
};

/* Reads the hosts, starts the thread that watches them. */
int roster_new(const struct roster_params *params, struct roster **ret_roster, struct fault *fault);
/* NULL is fine; returns NULL. */
struct roster *roster_free(struct roster *roster);

/* No member but the coordinator. Costs no database access. */
bool roster_is_alone(struct roster *roster);
/* A host that joined, and one that left. The link of the latter stays valid. */
void roster_add(struct roster *roster, const struct host_link *link);
void roster_remove(struct roster *roster, const char *host);

/* Valid as long as the roster. HOST_OFFLINE [host] when it is silent, or unknown. */
int roster_link(
	struct roster *roster, const char *host, struct link **ret_link, struct fault *fault);
/* The links of those that are not silent; *ret_links is the caller's to free, they are valid as
 * long as the roster. Their number. */
size_t roster_live(struct roster *roster, struct link ***ret_links);
/* Whether its messages carry that secret. */
bool roster_knows(struct roster *roster, const char *host, const char *secret);
/* A tick of the host. memory: total and free bytes. */
void roster_heard(
	struct roster *roster, const char *host, int64_t memory_total, int64_t memory_free);

#endif
