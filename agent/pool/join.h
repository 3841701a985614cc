/* SPDX-License-Identifier: Apache-2.0 */
/* A host of its own pool becomes a member of another's. The coordinator's transaction decides; this
 * host writes down that it asked before it asks, so that after any crash it is in the old pool or
 *in the new one.
 *
 *	invite   the coordinator makes a secret and stores that the host may join with it
 *	(this host stores membership.joining)
 *	adopt    one transaction: the invitation is used up, the host's objects and its link are
 *there (membership.joining becomes membership, the daemon starts anew) resolve  after a lost
 *answer: was it adopted? If not, the invitation ends with the answer. */
#ifndef FERRY_AGENT_POOL_JOIN_H
#define FERRY_AGENT_POOL_JOIN_H

#include "agent/pool/membership.h"
#include "base/cancel.h"
#include "base/fault.h"
#include "schema/pool_db.h"

#include <stdbool.h>

/* --- The host that joins -----------------------------------------------------------------------
 */

/* All borrowed. */
struct join_params {
	struct pool_db *pool;
	const char *state_dir;
	const char *host;        /* this host */
	const char *url;         /* how the pool is to reach it */
	const char *fingerprint; /* of its certificate */
	const char *address;     /* of the coordinator: host, host:port or https://host:port */
	const char *username;
	const char *password;
	const char *
		pin; /* fingerprint of the coordinator's certificate; "": the first that it shows */
};

/* Whether this host may: JOINING_HOST_CANNOT_BE_MASTER_OF_OTHER_HOSTS,
 * JOINING_HOST_CANNOT_HAVE_RUNNING_VMS, OTHER_OPERATION_IN_PROGRESS. */
int join_check(struct pool_db *pool, const char *host, struct fault *fault);
/* Blocks. 0: joined, and the daemon must start anew. -EINPROGRESS: the coordinator fell silent in
 * the middle, and the new start finds out. Else nothing has changed. HOST_IS_SLAVE [address of the
 * coordinator], SESSION_AUTHENTICATION_FAILED, CANNOT_CONTACT_HOST,
 * POOL_JOINING_HOST_MUST_HAVE_SAME_PRODUCT_VERSION, DB_UNIQUENESS_CONSTRAINT_VIOLATION [class,
 * field, value], OPERATION_NOT_ALLOWED. */
int join_run(const struct join_params *params, struct cancel *cancel, struct fault *fault);
/* At the start of a host that was joining: 0 when it is known what became of it, and stored. */
int join_settle(const char *state_dir, const struct membership *membership, struct fault *fault);

/* --- The coordinator ---------------------------------------------------------------------------
 */

/* The caller frees *ret_secret. */
int join_invite(struct pool_db *pool, const char *host, char **ret_secret, struct fault *fault);
/* request: JSON, as join_run makes it. *ret_link: how the new member is reached. */
int join_adopt(struct pool_db *pool, const char *coordinator, const char *request,
	struct host_link *ret_link, struct fault *fault);
int join_resolve(struct pool_db *pool, const char *host, const char *secret, bool *ret_joined,
	struct fault *fault);

#endif
