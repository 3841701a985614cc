/* SPDX-License-Identifier: Apache-2.0 */
/* Which host coordinates the pool, when there may be two that think they do. Each coordinator has a
 * term (pool.db), one more than that before it; each member stores the term and the coordinator
 * that it follows (membership), and refuses whoever comes with an earlier one, saying which it
 * follows: FERRY_OVERRULED [term, coordinator's ref, url, fingerprint]. So a coordinator that was
 * away learns that another host has taken over, from whichever member it asks. */
#ifndef FERRY_AGENT_POOL_REIGN_H
#define FERRY_AGENT_POOL_REIGN_H

#include "agent/pool/link.h"
#include "agent/pool/membership.h"
#include "base/cancel.h"
#include "base/fault.h"
#include "schema/pool_db.h"

#include <stdbool.h>

/* --- A coordinator that may have been replaced -------------------------------------------------
 */

/* Asks a host whom it follows. True: another coordinator than who asks; *ret_by has its url,
 * fingerprint, ref and term. */
bool reign_ask(
	struct link *link, uint64_t timeout_usec, struct cancel *cancel, struct membership *ret_by);
/* The same of all hosts of the pool, one after the other, for some seconds at most. host: the
 * coordinator's own. */
bool reign_ask_all(struct pool_db *pool, const char *host, struct membership *ret_by);
/* Stores that host is none any more (membership.overruled). *by gets what it lacks. */
int reign_end(const char *state_dir, struct pool_db *pool, const char *host, struct membership *by,
	struct fault *fault);
/* The fault that says so. */
int reign_fault(
	struct fault *fault, const struct rank *rank, const char *url, const char *fingerprint);

/* --- A new one ---------------------------------------------------------------------------------
 */

/* On a member whose coordinator may be lost: 0, and the age of its copy in seconds, when it may
 * take over. NOT_IN_EMERGENCY_MODE [text]: the coordinator answers; OPERATION_NOT_ALLOWED [text]:
 * there is no copy. Blocks for some seconds. */
int reign_check_lost(const char *state_dir, const struct membership *membership,
	int64_t *ret_age_sec, struct fault *fault);
/* Its copy becomes pool.db, and it the coordinator, of the next term. The daemon must start anew.
 * Whole or not at all; may be repeated. */
int reign_take_over(
	const char *state_dir, const struct membership *membership, struct fault *fault);
/* The same with what the coordinator has now, at its own wish: nothing is lost. task: of that wish,
 * which has succeeded then. */
int reign_succeed(const char *state_dir, const struct membership *membership, const char *task,
	struct fault *fault);
/* The new coordinator tells the others to follow it; *ret_hosts: refs of those that do. */
int reign_recover(struct pool_db *pool, const struct rank *rank, const char *url,
	const char *fingerprint, struct value **ret_hosts, struct fault *fault);

/* --- A new database ----------------------------------------------------------------------------
 */

/* pool.db may not know what was done last: the next start asks the processes of this host, and
 * corrects it. Stored before the database changes. */
int reign_doubt(const char *state_dir, struct fault *fault);
bool reign_is_doubtful(const char *state_dir);
void reign_trust(const char *state_dir);

#endif
