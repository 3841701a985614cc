/* SPDX-License-Identifier: Apache-2.0 */
/* What a sender holds of a guest that it moves while it runs: the guest itself, the tracking of its
 * writes, and, from CONVERGING on, a pass per disk and the memory stream. Belongs to the
 * migration's thread. What must survive the agent is in QEMU (bitmaps) and in agent.db, not here.
 */
#ifndef FERRY_AGENT_MIGRATE_LIVE_H
#define FERRY_AGENT_MIGRATE_LIVE_H

#include "agent/copy/pass.h"
#include "agent/guest/dirty.h"
#include "agent/guest/memory.h"
#include "agent/guest/watchdog.h"
#include "agent/migrate/image_source.h"
#include "agent/migrate/migration.h"
#include "agent/migrate/peer.h"
#include "agent/migrate/predict.h"
#include "agent/migrate/pulse.h"

/* When the parts of the pause began or ended, monotonic; 0: not yet. */
struct live_times {
	uint64_t stopped;   /* the guest's processors */
	uint64_t noticed;   /* QEMU waits at the switch */
	uint64_t harvested; /* the last of the guest's writes are in the log */
	uint64_t copied;    /* the last round is flushed and compared */
	uint64_t sealed;    /* the destination has answered */
	uint64_t handed_over;
	uint64_t asked; /* for the commit */
};

struct live_comparer {
	struct migration *migration;
	struct peer *peer;
};

struct live {
	struct migration *migration;
	struct resident *resident;
	struct guest *guest;
	struct guest_watch *watch;
	struct guest_watch *stops; /* read for the time of STOP only */
	struct dirty *dirty;
	struct predict predict;
	double bulk_rate;     /* bytes a second; 0: unknown */
	struct pass **passes; /* one per disk of the guest; NULL: not open */
	struct image_source **images;
	struct live_comparer *comparers;
	size_t n_disks;
	struct tunnel_link *link;
	struct watchdog *watchdog;
	struct pulse *pulse; /* from CONVERGING on */
	bool at_switch;      /* by this run of the agent */
	unsigned n_switches; /* that came to nothing */
	struct live_times times;
	struct cancel *end; /* of the sentinel */
	pthread_t sentinel;
	bool has_sentinel;
};

/* Whether the plan is for a guest that runs. */
bool live_is_wanted(struct migration *migration);

/* Holds the guest: migration->live. From here on its end cancels the migration, with the cause as
 * its error. -ESRCH with a fault: it does not run. Fine when it is held. */
int live_open(struct migration *migration, struct fault *fault);
/* Lets go of everything here; what is in QEMU stays as it is. Fine when nothing is held. */
void live_close(struct migration *migration);

/* Starts tracking, or goes on with it. The bitmaps are journalled first. */
int live_track(struct live *live, struct fault *fault);
/* Ends tracking, throttle and memory stream for good, as far as the guest is there. */
int live_forget(struct live *live, struct fault *fault);
/* There is no guest any more, and so nothing of the migration in it. */
int live_forget_gone(struct migration *migration, struct fault *fault);

/* Opens the passes that are not open; each logs in once. */
int live_open_passes(struct live *live, struct fault *fault);
void live_close_passes(struct live *live);

/* What was dirtied so far goes into the log, then the log is copied empty. What a lost session
 * leaves is in the log. *ret_round: without left_bytes. -ETIMEDOUT also when it is not done by the
 * deadline. */
int live_harvest(struct live *live, struct fault *fault);
/* The same for a guest that is paused: whether tracking can be trusted is looked at, and the bitmap
 * forgotten, beside live_copy. *ret_bytes: what was dirty. */
int live_collect(struct live *live, uint64_t *ret_bytes, struct fault *fault);
int live_copy(struct live *live, uint64_t deadline_usec, struct predict_round *ret_round,
	struct fault *fault);
/* Dirty bytes of all disks. */
int live_left(struct live *live, uint64_t *ret_bytes, struct fault *fault);

/* Ends the memory stream, its tunnel and its watchdog; the guest runs if it can. */
int live_cancel_memory(struct live *live, struct fault *fault);

#endif
