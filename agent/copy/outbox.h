/* SPDX-License-Identifier: Apache-2.0 */
/* What one copy thread has on its way to the target: the session, the buffers, the requests that
 * read from them, and the chunks that wait for the requests' ends. Belongs to that thread.
 *
 * Functions return 0 or a negative errno as copy_run promises it, with the fault written. After a
 * failure only outbox_free is of use. All may block until the target answers; all see the crew's
 * stop. */
#ifndef FERRY_AGENT_COPY_OUTBOX_H
#define FERRY_AGENT_COPY_OUTBOX_H

#include "agent/copy/worker.h"
#include "base/cleanup.h"

#include <stdint.h>

struct outbox;

/* Fixed memory of the size of a request. */
struct outbox_buffer {
	unsigned char *data;
	unsigned n_pending; /* requests that read from it */
};

/* A chunk under way. */
struct outbox_job {
	bool used;
	bool complete; /* all of it was submitted */
	unsigned n_pending;
	struct ledger_entry entry;
};

int outbox_open(struct copy_crew *crew, struct outbox **ret_outbox, struct fault *fault);
struct outbox *outbox_free(struct outbox *outbox);
uint64_t outbox_target_size(const struct outbox *outbox);

/* A buffer that no request reads from; the caller's until the first outbox_write from it. */
int outbox_get_buffer(
	struct outbox *outbox, struct outbox_buffer **ret_buffer, struct fault *fault);

int outbox_begin_job(struct outbox *outbox, struct outbox_job **ret_job, struct fault *fault);
/* Sends `extent` from `data`, which lies within the buffer; within the rate limit. */
int outbox_write(struct outbox *outbox, struct outbox_job *job, struct extent extent,
	struct outbox_buffer *buffer, unsigned char *data, struct fault *fault);
int outbox_zero(
	struct outbox *outbox, struct outbox_job *job, struct extent extent, struct fault *fault);
/* All of it was submitted, and the entry is filled in: the job is entered in the ledger with its
 * last acknowledgement. */
void outbox_complete_job(struct outbox *outbox, struct outbox_job *job);

/* Waits until nothing is in flight. */
int outbox_drain(struct outbox *outbox, struct fault *fault);
/* Drains, then flushes the target. */
int outbox_flush(struct outbox *outbox, struct fault *fault);
/* Waits for wake_fd (-1: none) or the time; the session is kept alive meanwhile. */
int outbox_idle(struct outbox *outbox, int wake_fd, uint64_t until_usec, struct fault *fault);

DEFINE_CLEANUP(struct outbox *, outbox_free)
#define CLEANUP_OUTBOX CLEANUP(cleanup_outbox_free)

#endif
