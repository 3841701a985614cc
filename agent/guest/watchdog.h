/* SPDX-License-Identifier: Apache-2.0 */
/* A process of its own that gives a guest back to its host when the agent dies while the guest is
 * paused for a move of its memory: QEMU itself would wait for ever. It holds the guest's spare
 * monitor, sees the agent's death as the end of a connection, and then cancels the move, unless it
 * was disarmed before. It also does so when the guest stays paused at the switch for longer than
 * the budget. It ends by itself with the guest, or when it was disarmed or has done its work.
 *
 * Only for moves with the capabilities pause-before-switchover and events. One that has been
 * continued is never touched, so it must be disarmed before that.
 *
 * The same for a guest that the agent itself stops for a moment (guards_pause). */
#ifndef FERRY_AGENT_GUEST_WATCHDOG_H
#define FERRY_AGENT_GUEST_WATCHDOG_H

#include "base/cleanup.h"
#include "base/fault.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct watchdog;

struct watchdog_params {
	const char *program;  /* ferry-watchdog */
	const char *run_dir;  /* of the guest */
	const char *vm_uuid;  /* for the log */
	uint64_t budget_usec; /* longest pause before it is disarmed */
	/* It guards a guest that the agent is about to stop for a moment, and not one that moves:
	 * instead of cancelling a move it lets one that is stopped run again. */
	bool guards_pause;
};

/* Starts it, after ending one that an earlier agent left for that guest; when it returns 0 the
 * watchdog is connected to the monitor and armed. For one thread at a time, like the calls below.
 * Blocks up to 8 s. */
int watchdog_start(
	const struct watchdog_params *params, struct watchdog **ret_watchdog, struct fault *fault);
/* From when it returns 0 the watchdog will do nothing: only then may the move be continued.
 * -ECANCELED: too late, it has cancelled the move: the guest runs again here, if it ran before.
 * -EREMOTEIO: it tried to, and failed. -ECONNRESET: it is dead (one that does not answer is
 * killed); what it had done before must be looked at. Blocks up to 4 s. */
int watchdog_disarm(struct watchdog *watchdog, struct fault *fault);
/* Disarms and ends it. NULL is fine. */
struct watchdog *watchdog_stop(struct watchdog *watchdog);
/* It does its duty as if the agent had died, and ends; waited for up to 2 s. NULL is fine. */
struct watchdog *watchdog_abandon(struct watchdog *watchdog);
pid_t watchdog_pid(const struct watchdog *watchdog);

DEFINE_CLEANUP(struct watchdog *, watchdog_stop)
#define CLEANUP_WATCHDOG CLEANUP(cleanup_watchdog_stop)

#endif
