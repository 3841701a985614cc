/* SPDX-License-Identifier: Apache-2.0 */
/* What users see of a migration: the `migration` object of the pool, the task's progress and
 * other_config ("ferry:..." keys). Written from what the roles know; nothing here decides anything.
 */
#ifndef FERRY_AGENT_MIGRATE_REPORT_H
#define FERRY_AGENT_MIGRATE_REPORT_H

#include "agent/migrate/migration.h"

/* Makes the pool's `migration` object for it unless there is one. */
int report_begin(struct migration *migration, struct fault *fault);
/* Shows the state, and at the end the outcome. */
void report_state(struct migration *migration);
/* Shows what attention.h says. */
void report_attention(struct migration *migration);
/* Sender: bytes, rate, ETA. `previous` carries the last measure from call to call; zero at first.
 */
struct report_measure {
	uint64_t at_usec;
	uint64_t done_bytes;
	double rate_bytes_per_sec; /* smoothed */
};
void report_progress(struct migration *migration, struct report_measure *previous);
/* Sender: what could not be read (migration.unreadable), for a move that goes on then. */
void report_add_unreadable(
	struct migration *migration, struct value *fields, struct value *entries);
/* Removes the oldest finished `migration` objects beyond what is kept as history. */
void report_trim(struct pool_db *pool);

#endif
