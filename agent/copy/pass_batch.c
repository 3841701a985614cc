/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/copy/pass_batch.h"

#include "agent/copy/outbox.h"
#include "agent/copy/zero.h"
#include "base/alloc.h"
#include "base/clock.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>

/* Runs in a buffer of the size of a piece, when every second block is zero; and so many pieces. */
#define PIECE_RUNS (PASS_PIECE / ZERO_BLOCK)
#define ALIGNMENT  4096
#define NEW        SIZE_MAX
/* To ask for the holes of less costs more than to read their zeros. */
#define MAP_BYTES ((size_t)64 << 10)

_Static_assert(PASS_PIECE <= PASS_MAX_EXTENT, "a piece is compared as a whole");

/* A read into the buffer that is being filled. */
struct reading {
	struct endpoint_request request;
	struct pass_batch *batch;
	size_t place; /* in the batch; NEW: to be cut into runs and appended */
	int error;    /* of the request; 0: none */
};

struct pass_batch {
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
	size_t n_readings;                   /* into that buffer, not sent yet */
	struct reading readings[PIECE_RUNS]; /* each fills a block of the buffer or more */
	int target_error; /* of the session, met while the source was read; 0: none */
	struct pass_batch_totals totals;
	struct fault *fault; /* of the call */
	size_t n;
	uint64_t bytes; /* read for it */
	struct extent extents[PASS_MAX_EXTENTS];
	unsigned char digests[PASS_MAX_EXTENTS * DIGEST_BYTES];
};

static void count(_Atomic uint64_t *counter, uint64_t bytes)
{
	atomic_fetch_add_explicit(counter, bytes, memory_order_relaxed);
}

static int check_stop(struct pass_batch *batch)
{
	if (!cancel_is_requested(batch->crew.stop))
		return 0;
	return fault_text(batch->fault, -ECANCELED, "pass over disk %u: cancelled: %s",
		batch->params->disk, cancel_reason(batch->crew.stop));
}

static int fail_source(struct pass_batch *batch, int error, const char *text)
{
	if (error == -ECANCELED && cancel_is_requested(batch->crew.stop))
		return check_stop(batch);
	return fault_text(batch->fault, -EIO,
		"pass over disk %u, source: %s; the source was only read, the rest stays in the "
		"extent log",
		batch->params->disk, text);
}

/* --- Sending ---------------------------------------------------------------------------------- */

/* The limiter's waiting is not the link's: it is left out of what predicts. */
static int wait_for_rate(struct pass_batch *batch, uint64_t length)
{
	uint64_t before = 0, again;
	int r = 0;

	while (r == 0 && (again = rate_limit_try(batch->params->rate, length)) != 0) {
		before = before ? before : clock_now_usec();
		r = outbox_idle(batch->outbox, -1, again, batch->fault);
	}
	if (before)
		batch->totals.limited_usec += clock_now_usec() - before;
	return r;
}

/* Sends one extent as the batch's number i: as data, or as zeros when data is NULL. */
static int send_extent(
	struct pass_batch *batch, size_t i, struct extent extent, unsigned char *data)
{
	unsigned char *digest = batch->digests + i * DIGEST_BYTES;

	batch->extents[i] = extent;
	if (!data) {
		memset(digest, 0, DIGEST_BYTES);
		batch->totals.zero_bytes += extent.length;
		return outbox_zero(batch->outbox, batch->job, extent, batch->fault);
	}
	digest_chunk(data, (size_t)extent.length, digest);
	int r = wait_for_rate(batch, extent.length);
	return r < 0 ? r
		     : outbox_write(batch->outbox, batch->job, extent, batch->buffer, data,
			       batch->fault);
}

static int send_runs(struct pass_batch *batch, struct extent extent, unsigned char *data)
{
	int r = 0;

	while (r == 0 && extent.length) {
		bool zero = false;
		size_t n = zero_run(data, (size_t)extent.length, &zero);
		if (zero)
			count(&batch->progress->skipped_zero, n);
		r = send_extent(
			batch, batch->n++, (struct extent){extent.offset, n}, zero ? NULL : data);
		data += n;
		extent.offset += n;
		extent.length -= n;
	}
	return r;
}

static int send_reading(struct pass_batch *batch, const struct reading *reading)
{
	struct extent extent = reading->request.extent;
	unsigned char *data = reading->request.data;

	if (reading->place == NEW)
		return send_runs(batch, extent, data);
	bool zero = zero_is_all(data, (size_t)extent.length);
	return send_extent(batch, reading->place, extent, zero ? NULL : data);
}

static int idle(void *arg, struct fault *fault)
{
	struct pass_batch *batch = arg;

	(void)fault;
	batch->target_error = outbox_idle(batch->outbox, -1, clock_now_usec(), batch->fault);
	return batch->target_error;
}

/* What failed is read in pieces, if that is wanted. Nothing is in flight any more. */
static int end_reading(struct pass_batch *batch, const struct reading *reading)
{
	const struct salvage_source from = {.spec = &batch->params->source,
		.source = batch->source,
		.cancel = batch->crew.stop,
		.sends = true,
		.idle = idle,
		.arg = batch};
	struct fault cause CLEANUP_FAULT = FAULT_INIT;
	struct salvage *salvage = batch->params->salvage;
	struct extent extent = reading->request.extent;

	int r = reading->error ? salvage_again(salvage, &from, extent, reading->request.data,
					 reading->error, &cause)
			       : salvage_is_read(salvage, extent, &cause);
	if (batch->target_error)
		return batch->target_error;
	return r < 0 ? fail_source(batch, r,
			       cause.n_params ? cause.params[0] : endpoint_error(batch->source))
		     : 0;
}

/* Waits for the reads that are under way and sends what they brought. */
static int send_readings(struct pass_batch *batch)
{
	int r = 0;

	while (r == 0 && endpoint_in_flight(batch->source))
		r = endpoint_service(batch->source, USEC_FOREVER, batch->crew.stop);
	if (r < 0)
		return fail_source(batch, r, endpoint_error(batch->source));
	for (size_t i = 0; r == 0 && i < batch->n_readings; i++) {
		r = end_reading(batch, &batch->readings[i]);
		if (r == 0)
			r = send_reading(batch, &batch->readings[i]);
	}
	batch->n_readings = 0;
	batch->buffer = NULL;
	return r;
}

/* --- Reading ---------------------------------------------------------------------------------- */

static void reading_done(struct endpoint_request *request, int error)
{
	struct reading *reading = request->arg;

	reading->error = error;
	if (!error)
		count(&reading->batch->progress->read, request->extent.length);
}

/* Room for so many bytes at the end of the buffer that is being filled, or in another one. */
static int get_room(struct pass_batch *batch, size_t length, unsigned char **ret_data)
{
	int r = 0;

	if (batch->buffer &&
		(length > PASS_PIECE - batch->buffer_used || batch->n_readings == PIECE_RUNS))
		r = send_readings(batch);
	if (r == 0 && !batch->buffer) {
		r = outbox_get_buffer(batch->outbox, &batch->buffer, batch->fault);
		batch->buffer_used = 0;
	}
	if (r < 0)
		return r;
	*ret_data = batch->buffer->data + batch->buffer_used;
	batch->buffer_used += (length + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
	return 0;
}

static int start_reading(struct pass_batch *batch, struct extent extent, size_t place)
{
	unsigned char *data = NULL;
	int r = check_stop(batch);

	if (r == 0)
		r = get_room(batch, (size_t)extent.length, &data);
	if (r < 0)
		return r;
	struct reading *reading = &batch->readings[batch->n_readings++];
	*reading = (struct reading){.request = {.op = ENDPOINT_READ,
					    .extent = extent,
					    .data = data,
					    .done = reading_done,
					    .arg = reading},
		.batch = batch,
		.place = place};
	r = endpoint_submit(batch->source, &reading->request);
	return r < 0 ? fail_source(batch, r, endpoint_error(batch->source)) : 0;
}

/* --- The interface ---------------------------------------------------------------------------- */

bool pass_batch_has_room(const struct pass_batch *batch)
{
	/* Runs that are being read, that another buffer brings, and a hole. */
	return batch->n + 3 * PIECE_RUNS <= PASS_MAX_EXTENTS &&
	       batch->bytes + PASS_PIECE <= PASS_MAX_BYTES;
}

int pass_batch_add(struct pass_batch *batch, struct extent piece, struct fault *fault)
{
	struct fault cause CLEANUP_FAULT = FAULT_INIT;
	uint64_t start = piece.offset;

	batch->fault = fault;
	int r = 0;
	if (piece.length >= MAP_BYTES)
		r = endpoint_first_data(batch->source, piece, &start, &cause);
	if (r < 0)
		return fail_source(batch, r, cause.n_params ? cause.params[0] : "");
	struct extent hole = {piece.offset, start - piece.offset};
	struct extent rest = {start, piece.length - hole.length};
	if (hole.length) {
		count(&batch->progress->skipped_hole, hole.length);
		r = check_stop(batch);
		if (r == 0)
			r = salvage_is_read(batch->params->salvage, hole, fault);
		if (r == 0)
			r = send_extent(batch, batch->n++, hole, NULL);
	}
	if (r < 0 || !rest.length)
		return r;
	batch->bytes += rest.length;
	return start_reading(batch, rest, NEW);
}

int pass_batch_finish(struct pass_batch *batch, struct fault *fault)
{
	batch->fault = fault;
	int r = send_readings(batch);

	return r < 0 ? r : outbox_drain(batch->outbox, fault);
}

size_t pass_batch_count(const struct pass_batch *batch)
{
	return batch->n;
}

const struct extent *pass_batch_extents(const struct pass_batch *batch)
{
	return batch->extents;
}

const unsigned char *pass_batch_digests(const struct pass_batch *batch)
{
	return batch->digests;
}

int pass_batch_send_again(struct pass_batch *batch, const bool *keep, struct fault *fault)
{
	size_t n = batch->n;
	int r = 0;

	batch->fault = fault;
	batch->n = 0;
	for (size_t i = 0; i < n; i++) {
		if (keep[i])
			batch->extents[batch->n++] = batch->extents[i];
	}
	for (size_t i = 0; r == 0 && i < batch->n; i++)
		r = start_reading(batch, batch->extents[i], i);
	return r < 0 ? r : pass_batch_finish(batch, fault);
}

void pass_batch_clear(struct pass_batch *batch)
{
	batch->n = 0;
	batch->bytes = 0;
}

int pass_batch_flush(struct pass_batch *batch, struct fault *fault)
{
	return outbox_flush(batch->outbox, fault);
}

int pass_batch_idle(struct pass_batch *batch, int wake_fd, struct fault *fault)
{
	return outbox_idle(batch->outbox, wake_fd, USEC_FOREVER, fault);
}

uint64_t pass_batch_disk_bytes(const struct pass_batch *batch)
{
	return batch->crew.size_bytes;
}

struct pass_batch_totals pass_batch_totals(const struct pass_batch *batch)
{
	struct pass_batch_totals totals = batch->totals;

	totals.sent_bytes = batch->job->entry.sent_bytes;
	return totals;
}

/* --- Life ------------------------------------------------------------------------------------- */

static int open_both(struct pass_batch *batch)
{
	struct fault cause CLEANUP_FAULT = FAULT_INIT;
	struct copy_crew *crew = &batch->crew;
	int r = endpoint_open(&batch->params->source, crew->stop, &batch->source, &cause);

	if (r < 0)
		return fail_source(batch, r, cause.n_params ? cause.params[0] : "");
	crew->size_bytes = endpoint_size(batch->source);
	r = outbox_open(crew, &batch->outbox, batch->fault);
	if (r < 0)
		return r;
	uint64_t target_bytes = outbox_target_size(batch->outbox);
	if (target_bytes != crew->size_bytes)
		return fault_text(batch->fault, -EINVAL,
			"pass over disk %u: the source has %" PRIu64
			" bytes and the target %" PRIu64,
			batch->params->disk, crew->size_bytes, target_bytes);
	return outbox_begin_job(batch->outbox, &batch->job, batch->fault);
}

int pass_batch_open(const struct pass_params *params, struct cancel *stop,
	struct pass_batch **ret_batch, struct fault *fault)
{
	struct pass_batch *batch CLEANUP_PASS_BATCH = xcalloc(1, sizeof(*batch));
	size_t in_flight =
		params->in_flight_bytes ? params->in_flight_bytes : COPY_DEFAULT_IN_FLIGHT;

	batch->params = params;
	batch->progress = params->progress ? params->progress : &batch->unseen;
	batch->fault = fault;
	batch->copy = (struct copy_params){
		.disk = params->disk, .target = params->target, .progress = batch->progress};
	batch->crew = (struct copy_crew){.params = &batch->copy,
		.request_bytes = PASS_PIECE,
		.n_buffers = (unsigned)MAX(in_flight / PASS_PIECE, (size_t)1),
		.stop = stop};
	int r = open_both(batch);
	if (r < 0)
		return r;
	*ret_batch = TAKE_PTR(batch);
	return 0;
}

struct pass_batch *pass_batch_free(struct pass_batch *batch)
{
	if (!batch)
		return NULL;
	/* First: it may be reading into the outbox's buffers. */
	endpoint_close(batch->source);
	outbox_free(batch->outbox);
	free(batch);
	return NULL;
}
