/* SPDX-License-Identifier: Apache-2.0 */
/* What a pass has read, hashed and sent, and does not yet know to be the same at the receiver; with
 * the source and the session that it goes through. Belongs to the pass's thread.
 *
 * Pieces of the log are cut into runs of data and of zeros: these are what is sent, hashed and
 * compared. Runs are not joined over clean bytes, nor data over zeros: on a slow link bytes count,
 * and on a fast one many requests are in flight. Small pieces are read together, so that a source
 * that can do many reads at once does.
 *
 * Functions return 0 or a negative errno as copy_run promises it, with the fault written. After a
 * failure only pass_batch_free is of use. All may block; all see stop. */
#ifndef FERRY_AGENT_COPY_PASS_BATCH_H
#define FERRY_AGENT_COPY_PASS_BATCH_H

#include "agent/copy/digest.h"
#include "agent/copy/pass.h"

/* Longest piece; none crosses a multiple of it. */
#define PASS_PIECE COPY_DEFAULT_REQUEST

struct pass_batch;

struct pass_batch_totals {
	uint64_t sent_bytes;
	uint64_t zero_bytes;
	uint64_t limited_usec; /* spent waiting for the rate limit */
};

/* Opens the source and logs in. params and stop are borrowed. */
int pass_batch_open(const struct pass_params *params, struct cancel *stop,
	struct pass_batch **ret_batch, struct fault *fault);
/* Logs out. NULL is fine. */
struct pass_batch *pass_batch_free(struct pass_batch *batch);
uint64_t pass_batch_disk_bytes(const struct pass_batch *batch);
/* Of all that went through it. */
struct pass_batch_totals pass_batch_totals(const struct pass_batch *batch);

/* Whether there is room for another piece, and the bounds of PASS_MAX_* hold with it. */
bool pass_batch_has_room(const struct pass_batch *batch);
/* Reads a piece and sends it; some of that may be left to pass_batch_finish. */
int pass_batch_add(struct pass_batch *batch, struct extent piece, struct fault *fault);
/* Everything added was sent and acknowledged. */
int pass_batch_finish(struct pass_batch *batch, struct fault *fault);
/* What was sent, and the digests of what was sent, DIGEST_BYTES each; after pass_batch_finish. */
size_t pass_batch_count(const struct pass_batch *batch);
const struct extent *pass_batch_extents(const struct pass_batch *batch);
const unsigned char *pass_batch_digests(const struct pass_batch *batch);
/* Keeps those with keep[i] and sends them again, undivided. A guest that runs may have changed them
 * since; then they are in the next round's log as well. */
int pass_batch_send_again(struct pass_batch *batch, const bool *keep, struct fault *fault);
/* Empties it. */
void pass_batch_clear(struct pass_batch *batch);

int pass_batch_flush(struct pass_batch *batch, struct fault *fault);
/* Keeps the session alive until wake_fd is readable. */
int pass_batch_idle(struct pass_batch *batch, int wake_fd, struct fault *fault);

DEFINE_CLEANUP(struct pass_batch *, pass_batch_free)
#define CLEANUP_PASS_BATCH CLEANUP(cleanup_pass_batch_free)

#endif
