/* SPDX-License-Identifier: Apache-2.0 */
/* Whether the copy catches up with the guest, and how long the pause would be: arithmetic on what
 * was measured, no I/O. Bytes, microseconds, bytes a second. */
#ifndef FERRY_AGENT_MIGRATE_PREDICT_H
#define FERRY_AGENT_MIGRATE_PREDICT_H

#include <stdbool.h>
#include <stdint.h>

/* What the pause costs besides the last bytes: stop, harvest, seal, hand over, commit. What earlier
 * moves of this host needed is better, if known. */
#define PREDICT_FIXED_USEC UINT64_C(40000)
/* Rounds without getting nearer to the goal after which a copy counts as stalled. */
#define PREDICT_STALLED_ROUNDS 3

struct predict_round {
	uint64_t sent_bytes;
	uint64_t busy_usec;  /* of sending */
	uint64_t usec;       /* from its freeze to the next look */
	uint64_t left_bytes; /* dirty at that look */
};

struct predict {
	uint64_t fixed_usec;
	uint64_t max_pause_usec;
	double rate;          /* of sending; 0: unknown */
	double dirty_rate;    /* of the guest, in bytes to be sent */
	uint64_t small_usec;  /* what a round of few bytes takes, at least: the guest, which is
			       * stopped  during the last one, disturbs the others */
	uint64_t least_bytes; /* left after any round so far */
	unsigned n_rounds;
	unsigned n_stalled; /* in a row */
};

/* rate: what the bulk copy measured; 0: unknown. */
void predict_init(
	struct predict *predict, uint64_t fixed_usec, uint64_t max_pause_usec, double rate);
void predict_add(struct predict *predict, const struct predict_round *round);
/* The pause if the guest were stopped with so much left. */
uint64_t predict_pause_usec(const struct predict *predict, uint64_t left_bytes);
/* Whether what is left can be sent within the longest pause. What the pause costs besides counts
 * for half of it at most: no further round makes that less, and a host that was busy during earlier
 * moves is not one that cannot move a guest. */
bool predict_fits(const struct predict *predict, uint64_t left_bytes);
bool predict_is_stalled(const struct predict *predict);
/* After something was changed that makes earlier rounds no measure (a throttle). */
void predict_forgive(struct predict *predict);
/* A limit for the guest's writes, in bytes a second that it writes, with which the copy should get
 * nearer: half of what the link takes, less with each step. */
uint64_t predict_throttle(const struct predict *predict, unsigned step);

#endif
