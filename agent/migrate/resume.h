/* SPDX-License-Identifier: Apache-2.0 */
/* A move that goes on after something was lost: what the destination may hold already is compared
 * by digest, and only what differs is sent.
 *
 * Two degrees. An interrupted copy (the agent died, a session was lost) is in doubt about what it
 * sent and did not flush: the beginning of the log. When it is not known what changed at the source
 * (the guest's bitmaps are gone, its host was rebooted, a file was written to while no agent
 * looked) everything is in doubt: that is stored ("distrust" in the document: "lost" until the log
 * holds all of every disk, then "compare" to the end of the move), and the destination's disks
 * count as used from then on. */
#ifndef FERRY_AGENT_MIGRATE_RESUME_H
#define FERRY_AGENT_MIGRATE_RESUME_H

#include "agent/migrate/peer.h"

/* All of every disk goes into the log. */
int resume_fill_log(struct migration *migration, struct fault *fault);

/* Everything is in doubt, for the reason given; stored when this returns 0. resume_refill has to
 * follow, once what changes from now on is known. */
int resume_distrust(struct migration *migration, const char *why, struct fault *fault);
int resume_refill(struct migration *migration, struct fault *fault);
bool resume_is_distrusted(struct migration *migration);

/* A halted VM, re-entering COPYING: files that were changed while no agent looked are taken as they
 * are now, and everything is in doubt. Otherwise nothing happens. */
int resume_check_sources(struct migration *migration, struct fault *fault);
/* The guest ended while no agent looked, as after a reboot of this host: the move goes on as that
 * of a halted VM. -ESRCH, with the fault left as it is: the VM is not halted. */
int resume_as_halted(struct migration *migration, struct fault *fault);

/* Compares what is in doubt of a disk. Errors as copy_run's. */
int resume_compare(struct migration *migration, struct peer *peer, unsigned disk,
	const struct endpoint_spec *source, struct fault *fault);
/* A guest that runs: compares all disks, through lost sessions. What differs stays in the log, for
 * the passes. Nothing when nothing is in doubt, or when this agent has done it already. */
int resume_settle(struct migration *migration, struct peer *peer, struct fault *fault);

#endif
