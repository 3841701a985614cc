/* SPDX-License-Identifier: Apache-2.0 */
/* Copies what a running guest changed: exactly the extents that the log has, again and again, to a
 * target that holds older content. A pass has a thread, a source and one session of its own, which
 * stay open between rounds, so that the last round costs no login.
 *
 * A round takes the log in batches: read, hash, send, flush, have the batch compared at the
 * receiver, and only then remove it from the log. Holes and zeros of the source become zeros there
 * without data (UNMAP), so a guest's discards are the receiver's too. What differs
 * is sent again twice, then it is an error. Within a round, what the guest writes again and again
 * goes last (heat.h), so that the rest is settled if the round is cut short; what a round copies is
 * not less for it. The digests of the bulk copy (digest.h) are neither used nor kept up to date:
 * they are compared before the first round. */
#ifndef FERRY_AGENT_COPY_PASS_H
#define FERRY_AGENT_COPY_PASS_H

#include "agent/copy/copier.h"
#include "base/cleanup.h"

struct pass;

/* Compares a batch at the receiver: digests are those of what was sent, DIGEST_BYTES each, 16 zero
 * bytes for an extent of zeros. Sets ret_differs[i] (all false before). Called from the pass's
 * thread, after the flush; until it returns nobody answers the target's pings, so it should take
 * less than 10 s, and see what params.cancel says. An error ends the pass and is handed on. */
typedef int (*pass_compare)(void *arg, unsigned disk, const struct extent *extents, size_t n,
	const unsigned char *digests, bool *ret_differs, struct fault *fault);

/* An extent that is compared has at most that many bytes, a batch at most so many extents. */
#define PASS_MAX_EXTENT  ENDPOINT_MAX_BYTES
#define PASS_MAX_EXTENTS 4096
#define PASS_MAX_BYTES   (UINT64_C(64) << 20)

struct pass_params {
	struct agent_db *db;
	const char *migration;
	unsigned disk;
	struct endpoint_spec source; /* .direct where the guest's cache mode has it */
	struct endpoint_spec target;
	size_t in_flight_bytes; /* 0: default */
	struct rate_limit *rate;
	struct copy_progress *progress; /* sent, read and skipped grow; may be NULL */
	struct salvage *salvage;        /* as copy_params' */
	pass_compare compare;
	void *arg;
	struct cancel *cancel;
};

struct pass_result {
	uint64_t sent_bytes; /* with what was sent again */
	uint64_t zero_bytes; /* made zeros there, without data; again: counted again */
	uint64_t n_extents;  /* compared and found the same: pieces of the log's extents */
	uint64_t busy_usec;  /* reading and sending, without waiting for the rate limit */
	uint64_t usec;       /* in all */
};

/* Starts the thread and logs in. Everything params point to is copied but db, rate, progress,
 * salvage, arg and cancel. Errors as copy_run's. */
int pass_open(const struct pass_params *params, struct pass **ret_pass, struct fault *fault);
/* Begins a round: what the log has now is copied. Does not block. Nobody may change the log of that
 * disk until the round is awaited. */
void pass_begin(struct pass *pass);
/* Waits for the end of the round: 0, or an error as copy_run's; -EIO also when content stays
 * different. After an error only pass_close is of use; what was not compared is in the log. The
 * result (which may be NULL) is set then, too. */
int pass_await(struct pass *pass, struct pass_result *ret_result, struct fault *fault);
/* The same, no longer than to the deadline: -ETIMEDOUT, and the round is stopped behind it. */
int pass_await_until(struct pass *pass, uint64_t deadline_usec, struct pass_result *ret_result,
	struct fault *fault);
/* A flush of the target, so that the next one is short. Awaited like a round. */
void pass_begin_flush(struct pass *pass);
/* Ends a round that nobody awaited, logs out and ends the thread. Takes up to a second. NULL is
 * fine. */
struct pass *pass_close(struct pass *pass);

DEFINE_CLEANUP(struct pass *, pass_close)
#define CLEANUP_PASS CLEANUP(cleanup_pass_close)

#endif
