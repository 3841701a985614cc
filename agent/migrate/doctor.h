/* SPDX-License-Identifier: Apache-2.0 */
/* Looks at this host for what nobody accounts for: files, processes, what is in guests' QEMUs and
 * in tgtd, rows of both databases. What a migration that lives has journalled is accounted for.
 *
 * It looks twice, so that what comes or goes just now is not taken for what was left. What it
 * removes belongs to dead migrations, by their journal; before, it is decided durably that they are
 * aborted, if nothing was decided, so that none of them can begin anew. What is not proven to be
 * ours and dead is only told. */
#ifndef FERRY_AGENT_MIGRATE_DOCTOR_H
#define FERRY_AGENT_MIGRATE_DOCTOR_H

#include "agent/migrate/supervisor.h"

/* *ret_findings: an array of structs {kind, what, where, why, fixable (bool), fixed (bool), error},
 * some of them with more. Blocks for seconds, more if a QEMU does not answer. */
int doctor_examine(
	struct supervisor *supervisor, bool fix, struct value **ret_findings, struct fault *fault);

/* Decisions about migrations that nobody will ask about any more are forgotten after 30 days; on
 * the pool's coordinator. A committed one stays as long as its sender may still ask. */
void doctor_prune_commits(struct supervisor *supervisor);

#endif
