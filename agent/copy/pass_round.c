/* SPDX-License-Identifier: Apache-2.0 */
/* One round: walk the log, copy it in batches, settle each.
 *
 * The log is cut into pieces of the size of a request, and a piece into runs of data and of zeros:
 * these are what is sent, hashed and compared. Runs are not joined over clean bytes, nor data over
 * zeros: on a slow link bytes count, and many requests are in flight on a fast one.
 *
 * Cold pieces go first and hot ones (heat.h) last, so that what stays as it is has been settled
 * when a round is cut short. The log is walked twice for it, unless it fits in the window. */
#include "agent/copy/pass_round.h"

#include "agent/copy/digest.h"
#include "agent/copy/heat.h"
#include "agent/copy/outbox.h"
#include "agent/copy/zero.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>

#define PIECE_BYTES COPY_DEFAULT_REQUEST
/* Runs in a piece, when every second block is zero. */
#define PIECE_RUNS (PIECE_BYTES / ZERO_BLOCK)
#define ALIGNMENT  4096
/* Rows of the log that are read at once. */
#define WINDOW 2048
/* On a slow link a batch is settled after this time, so that a lost session costs little. */
#define BATCH_USEC (2 * USEC_PER_SEC)
/* How often what differs at the receiver is sent again. */
#define MAX_RESENDS 2

_Static_assert(PIECE_BYTES <= PASS_MAX_EXTENT && HEAT_REGION % PIECE_BYTES == 0,
	"a piece lies in one region and is compared as a whole");

/* Sent, and not yet known to be the same at the receiver. */
struct batch {
	size_t n;
	uint64_t bytes; /* of data */
	uint64_t due_usec;
	struct extent extents[PASS_MAX_EXTENTS];
	unsigned char digests[PASS_MAX_EXTENTS * DIGEST_BYTES];
	bool differs[PASS_MAX_EXTENTS];
	struct extent same[PASS_MAX_EXTENTS];
};

struct pass_round {
	const struct pass_params *params;
	struct copy_progress *progress;
	struct copy_progress unseen;
	struct copy_params copy; /* what the outbox wants to know of a copy */
	struct copy_crew crew;
	struct endpoint *source;
	struct outbox *outbox;
	struct outbox_job *job;       /* all that is sent belongs to it */
	struct outbox_buffer *buffer; /* being filled; NULL: none yet */
	size_t buffer_used;
	struct heat heat;
	struct extent window[WINDOW]; /* rows of the log */
	size_t n_window;
	bool window_is_log;  /* the log had no more when the round began */
	uint64_t n_hot;      /* pieces that the first walk left */
	uint64_t aside_usec; /* not spent on reading and sending */
	struct pass_result *result;
	struct fault *fault;
	struct batch batch;
};

static void count(_Atomic uint64_t *counter, uint64_t bytes)
{
	atomic_fetch_add_explicit(counter, bytes, memory_order_relaxed);
}

static int check_stop(struct pass_round *round)
{
	if (!cancel_is_requested(round->crew.stop))
		return 0;
	return fault_text(round->fault, -ECANCELED, "pass over disk %u: cancelled: %s",
		round->params->disk, cancel_reason(round->crew.stop));
}

static int fail_source(struct pass_round *round, int error, const struct fault *cause)
{
	if (error == -ECANCELED)
		return check_stop(round);
	return fault_text(round->fault, -EIO,
		"pass over disk %u, source: %s; the source was only read, the rest stays in the "
		"extent log",
		round->params->disk, cause->n_params ? cause->params[0] : "unknown error");
}

/* --- Reading and sending ---------------------------------------------------------------------- */

/* Room for so many bytes at the end of the buffer that is being filled, or in another one. Small
 * pieces share a buffer, so that many of them are in flight. */
static int get_room(struct pass_round *round, size_t length, unsigned char **ret_data)
{
	if (!round->buffer || length > PIECE_BYTES - round->buffer_used) {
		int r = outbox_get_buffer(round->outbox, &round->buffer, round->fault);
		if (r < 0)
			return r;
		round->buffer_used = 0;
	}
	*ret_data = round->buffer->data + round->buffer_used;
	round->buffer_used += (length + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
	return 0;
}

static int read_source(struct pass_round *round, struct extent extent, unsigned char *data)
{
	struct fault cause CLEANUP_FAULT = FAULT_INIT;
	int r = endpoint_read(round->source, extent, data, round->crew.stop, &cause);

	if (r < 0)
		return fail_source(round, r, &cause);
	count(&round->progress->read, extent.length);
	return 0;
}

/* Where the hole ends with which the extent begins. */
static int find_data(struct pass_round *round, struct extent extent, uint64_t *ret_start)
{
	struct fault cause CLEANUP_FAULT = FAULT_INIT;
	int r = endpoint_first_data(round->source, extent, ret_start, &cause);

	if (r < 0)
		return fail_source(round, r, &cause);
	count(&round->progress->skipped_hole, *ret_start - extent.offset);
	return 0;
}

/* The limiter's waiting is not the link's: it is left out of what predicts. */
static int wait_for_rate(struct pass_round *round, uint64_t length)
{
	uint64_t before = 0, again;
	int r = 0;

	while (r == 0 && (again = rate_limit_try(round->params->rate, length)) != 0) {
		before = before ? before : clock_now_usec();
		r = outbox_idle(round->outbox, -1, again, round->fault);
	}
	if (before)
		round->aside_usec += clock_now_usec() - before;
	return r;
}

/* Sends one extent as the batch's number i: as data, or as zeros when data is NULL. */
static int send_extent(
	struct pass_round *round, size_t i, struct extent extent, unsigned char *data)
{
	unsigned char *digest = round->batch.digests + i * DIGEST_BYTES;

	round->batch.extents[i] = extent;
	if (!data) {
		memset(digest, 0, DIGEST_BYTES);
		round->result->zero_bytes += extent.length;
		return outbox_zero(round->outbox, round->job, extent, round->fault);
	}
	digest_chunk(data, (size_t)extent.length, digest);
	int r = wait_for_rate(round, extent.length);
	return r < 0 ? r
		     : outbox_write(round->outbox, round->job, extent, round->buffer, data,
			       round->fault);
}

static int send_next(struct pass_round *round, struct extent extent, unsigned char *data)
{
	struct batch *batch = &round->batch;

	if (data)
		batch->bytes += extent.length;
	return send_extent(round, batch->n++, extent, data);
}

/* The runs of what was read. */
static int send_runs(struct pass_round *round, struct extent extent, unsigned char *data)
{
	int r = 0;

	while (r == 0 && extent.length) {
		bool zero = false;
		size_t n = zero_run(data, (size_t)extent.length, &zero);
		if (zero)
			count(&round->progress->skipped_zero, n);
		r = send_next(round, (struct extent){extent.offset, n}, zero ? NULL : data);
		data += n;
		extent.offset += n;
		extent.length -= n;
	}
	return r;
}

static int copy_piece(struct pass_round *round, struct extent piece)
{
	unsigned char *data = NULL;
	uint64_t start = 0;
	int r = check_stop(round);

	if (r == 0)
		r = find_data(round, piece, &start);
	if (r < 0)
		return r;
	struct extent hole = {piece.offset, start - piece.offset};
	struct extent rest = {start, piece.length - hole.length};
	if (hole.length)
		r = send_next(round, hole, NULL);
	if (r < 0 || !rest.length)
		return r;
	r = get_room(round, (size_t)rest.length, &data);
	if (r == 0)
		r = read_source(round, rest, data);
	return r < 0 ? r : send_runs(round, rest, data);
}

/* The extent with number i once more, undivided: a batch does not grow by it. A guest that runs may
 * have changed it since; then it is in the next round's log as well. */
static int send_again(struct pass_round *round, size_t i)
{
	struct extent extent = round->batch.extents[i];
	unsigned char *data = NULL;
	uint64_t start = 0;
	int r = check_stop(round);

	if (r == 0)
		r = find_data(round, extent, &start);
	if (r == 0)
		r = get_room(round, (size_t)extent.length, &data);
	if (r < 0)
		return r;
	size_t hole = (size_t)(start - extent.offset);
	struct extent rest = {start, extent.length - hole};
	memset(data, 0, hole);
	if (rest.length)
		r = read_source(round, rest, data + hole);
	if (r < 0)
		return r;
	bool zero = zero_is_all(data, (size_t)extent.length);
	return send_extent(round, i, extent, zero ? NULL : data);
}

/* --- Settling --------------------------------------------------------------------------------- */

static int fail_differs(struct pass_round *round)
{
	const struct batch *batch = &round->batch;

	return fault_text(round->fault, -EIO,
		"pass over disk %u: %zu extents, the first %" PRIu64 " bytes at offset %" PRIu64
		", are not at the receiver what was sent, after %d times; the source is untouched; "
		"check the memory of both hosts and the receiver's storage",
		round->params->disk, batch->n, batch->extents[0].length, batch->extents[0].offset,
		MAX_RESENDS + 1);
}

/* Compares the batch at the receiver; what is the same leaves the log, the rest is the batch. */
static int compare(struct pass_round *round)
{
	const struct pass_params *params = round->params;
	struct batch *batch = &round->batch;
	size_t n_same = 0, n_left = 0;

	memset(batch->differs, 0, batch->n * sizeof(batch->differs[0]));
	int r = params->compare(params->arg, params->disk, batch->extents, batch->n, batch->digests,
		batch->differs, round->fault);
	if (r < 0)
		return r;
	for (size_t i = 0; i < batch->n; i++) {
		if (batch->differs[i])
			batch->extents[n_left++] = batch->extents[i];
		else
			batch->same[n_same++] = batch->extents[i];
	}
	batch->n = n_left;
	round->result->n_extents += n_same;
	if (!n_same)
		return 0;
	return extent_log_remove(
		params->db, params->migration, params->disk, batch->same, n_same, round->fault);
}

/* Law 4: what was acknowledged leaves the log after a flush, and here after a comparison too. */
static int flush_and_compare(struct pass_round *round)
{
	uint64_t before = clock_now_usec();
	int r = outbox_flush(round->outbox, round->fault);

	if (r == 0)
		r = compare(round);
	round->aside_usec += clock_now_usec() - before;
	return r;
}

static int settle(struct pass_round *round)
{
	struct batch *batch = &round->batch;

	for (int n_resends = 0; batch->n; n_resends++) {
		int r = outbox_drain(round->outbox, round->fault);
		if (r == 0)
			r = flush_and_compare(round);
		if (r < 0 || !batch->n)
			return r;
		if (n_resends == MAX_RESENDS)
			return fail_differs(round);
		log_warn("PASS_DIFFERS", "migration=%s disk=%u extents=%zu offset=%" PRIu64,
			round->params->migration, round->params->disk, batch->n,
			batch->extents[0].offset);
		for (size_t i = 0; r == 0 && i < batch->n; i++)
			r = send_again(round, i);
		if (r < 0)
			return r;
	}
	return 0;
}

static bool is_full(const struct batch *batch, uint64_t more_bytes)
{
	return batch->n > PASS_MAX_EXTENTS - PIECE_RUNS ||
	       batch->bytes + more_bytes > PASS_MAX_BYTES ||
	       (batch->n && clock_now_usec() >= batch->due_usec);
}

static int add_piece(struct pass_round *round, struct extent piece)
{
	struct batch *batch = &round->batch;

	if (is_full(batch, piece.length)) {
		int r = settle(round);
		if (r < 0)
			return r;
	}
	if (!batch->n) {
		batch->bytes = 0;
		batch->due_usec = clock_deadline(BATCH_USEC);
	}
	return copy_piece(round, piece);
}

/* --- Walking the log -------------------------------------------------------------------------- */

enum walk { WALK_COLD, WALK_HOT };

static int check_row(struct pass_round *round, struct extent row)
{
	if (row.length && row.offset <= round->crew.size_bytes &&
		row.length <= round->crew.size_bytes - row.offset)
		return 0;
	return fault_text(round->fault, -EINVAL,
		"extent log of disk %u: %" PRIu64 " bytes at %" PRIu64
		" are not within the disk of %" PRIu64 " bytes",
		round->params->disk, row.length, row.offset, round->crew.size_bytes);
}

static int walk_row(struct pass_round *round, enum walk walk, struct extent row)
{
	int r = check_row(round, row);

	while (r == 0 && row.length) {
		uint64_t room = PIECE_BYTES - row.offset % PIECE_BYTES;
		struct extent piece = {row.offset, MIN(row.length, room)};
		bool hot = heat_is_hot(&round->heat, piece.offset);
		heat_touch(&round->heat, piece.offset);
		if (hot == (walk == WALK_HOT))
			r = add_piece(round, piece);
		else if (hot)
			round->n_hot++;
		row.offset += piece.length;
		row.length -= piece.length;
	}
	return r;
}

static int read_window(struct pass_round *round, uint64_t from)
{
	const struct pass_params *params = round->params;
	uint64_t before = clock_now_usec();
	int r = extent_log_read(params->db, params->migration, params->disk, from, round->window,
		WINDOW, &round->n_window, round->fault);

	round->window_is_log = from == 0 && round->n_window < WINDOW;
	round->aside_usec += clock_now_usec() - before;
	return r;
}

static int walk_log(struct pass_round *round, enum walk walk)
{
	uint64_t from = 0;
	bool more = true;

	while (more) {
		int r = 0;
		if (walk == WALK_COLD || !round->window_is_log)
			r = read_window(round, from);
		more = round->n_window == WINDOW;
		for (size_t i = 0; r == 0 && i < round->n_window; i++)
			r = walk_row(round, walk, round->window[i]);
		if (r < 0)
			return r;
		if (more)
			from = round->window[WINDOW - 1].offset + round->window[WINDOW - 1].length;
	}
	return 0;
}

int pass_round_run(struct pass_round *round, struct pass_result *ret_result, struct fault *fault)
{
	uint64_t before = clock_now_usec(), sent = round->job->entry.sent_bytes;

	*ret_result = (struct pass_result){0};
	round->result = ret_result;
	round->fault = fault;
	round->aside_usec = 0;
	round->n_hot = 0;
	int r = walk_log(round, WALK_COLD);
	if (r == 0 && round->n_hot)
		r = walk_log(round, WALK_HOT);
	if (r == 0)
		r = settle(round);
	heat_end_round(&round->heat);
	ret_result->sent_bytes = round->job->entry.sent_bytes - sent;
	ret_result->usec = clock_now_usec() - before;
	ret_result->busy_usec = ret_result->usec - round->aside_usec;
	return r;
}

/* --- Life ------------------------------------------------------------------------------------- */

int pass_round_flush(struct pass_round *round, struct fault *fault)
{
	return outbox_flush(round->outbox, fault);
}

int pass_round_idle(struct pass_round *round, int wake_fd, struct fault *fault)
{
	return outbox_idle(round->outbox, wake_fd, USEC_FOREVER, fault);
}

static int open_both(struct pass_round *round)
{
	struct fault cause CLEANUP_FAULT = FAULT_INIT;
	struct copy_crew *crew = &round->crew;
	int r = endpoint_open(&round->params->source, crew->stop, &round->source, &cause);

	if (r < 0)
		return fail_source(round, r, &cause);
	crew->size_bytes = endpoint_size(round->source);
	r = outbox_open(crew, &round->outbox, round->fault);
	if (r < 0)
		return r;
	uint64_t target_bytes = outbox_target_size(round->outbox);
	if (target_bytes != crew->size_bytes)
		return fault_text(round->fault, -EINVAL,
			"pass over disk %u: the source has %" PRIu64
			" bytes and the target %" PRIu64,
			round->params->disk, crew->size_bytes, target_bytes);
	return outbox_begin_job(round->outbox, &round->job, round->fault);
}

int pass_round_open(const struct pass_params *params, struct cancel *stop,
	struct pass_round **ret_round, struct fault *fault)
{
	struct pass_round *round CLEANUP_PASS_ROUND = xcalloc(1, sizeof(*round));
	size_t in_flight =
		params->in_flight_bytes ? params->in_flight_bytes : COPY_DEFAULT_IN_FLIGHT;

	round->params = params;
	round->progress = params->progress ? params->progress : &round->unseen;
	round->fault = fault;
	round->copy = (struct copy_params){
		.disk = params->disk, .target = params->target, .progress = round->progress};
	round->crew = (struct copy_crew){.params = &round->copy,
		.request_bytes = PIECE_BYTES,
		.n_buffers = (unsigned)MAX(in_flight / PIECE_BYTES, (size_t)1),
		.stop = stop};
	int r = open_both(round);
	if (r < 0)
		return r;
	*ret_round = TAKE_PTR(round);
	return 0;
}

struct pass_round *pass_round_free(struct pass_round *round)
{
	if (!round)
		return NULL;
	outbox_free(round->outbox);
	endpoint_close(round->source);
	free(round);
	return NULL;
}
