/* SPDX-License-Identifier: Apache-2.0 */
/* The life of one copy thread. For each chunk: find data and holes, read the data into a buffer of
 * the size of a request, hash it, find its zeros and send the rest, all while that buffer is in the
 * CPU's cache; then go on reading while the target works. */
#include "agent/copy/worker.h"

#include "agent/copy/outbox.h"
#include "agent/copy/zero.h"
#include "base/alloc.h"
#include "base/clock.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/eventfd.h>

/* Zeros between data that are cheaper to send than another request is. They are allocated at the
 * source too, so the target does not grow beyond it. */
#define MERGE_BYTES ((size_t)32 << 10)

struct task {
	struct copy_crew *crew;
	unsigned index;
	struct endpoint *source;
	struct outbox *outbox;
	struct digest_stream *digest;
	struct extent map; /* the source's run of data at or after map_from */
	uint64_t map_from;
	bool map_valid;
	struct fault *fault;
	struct cursor_chunk chunk; /* being copied */
	int target_error;          /* of the session, met while the source was read; 0: none */
};

void copy_crew_fail(struct copy_crew *crew, int error, struct fault *fault)
{
	{
		SCOPE_LOCK(&crew->lock);
		if (!crew->error) {
			crew->error = error;
			fault_move(&crew->fault, fault);
		}
	}
	cancel_request(crew->stop, "another thread of the copy failed");
}

static void count(_Atomic uint64_t *counter, uint64_t bytes)
{
	atomic_fetch_add_explicit(counter, bytes, memory_order_relaxed);
}

static int source_fail(struct task *task, const struct fault *cause)
{
	return fault_text(task->fault, -EIO,
		"copy of disk %u, source: %s; the source was only read, the target is incomplete",
		task->crew->params->disk, cause->n_params ? cause->params[0] : "unknown error");
}

static int check_stop(struct task *task)
{
	if (!cancel_is_requested(task->crew->stop))
		return 0;
	return fault_text(task->fault, -ECANCELED, "copy of disk %u: cancelled: %s",
		task->crew->params->disk, cancel_reason(task->crew->stop));
}

/* The run of data at or after `at`, asked for once. Its length is never 0: a hole up to the end is
 * followed by data beyond it. */
static int map_at(struct task *task, uint64_t at)
{
	struct fault cause CLEANUP_FAULT = FAULT_INIT;

	if (task->map_valid && at >= task->map_from && at < task->map.offset + task->map.length)
		return 0;
	int r = endpoint_next_data(task->source, at, &task->map, &cause);
	if (r == -ECANCELED)
		return check_stop(task);
	if (r < 0)
		return source_fail(task, &cause);
	if (task->map.length == 0)
		task->map = (struct extent){task->crew->size_bytes, 1};
	task->map_from = at;
	task->map_valid = true;
	return 0;
}

/* The part of extent that lies within [from, to); empty when there is none. */
static struct extent clip(struct extent extent, uint64_t from, uint64_t to)
{
	uint64_t start = MAX(extent.offset, from);
	uint64_t end = MIN(extent.offset + extent.length, to);

	return (struct extent){start, end > start ? end - start : 0};
}

static int copy_hole(struct task *task, struct outbox_job *job, uint64_t from, uint64_t to)
{
	const struct cursor_chunk *chunk = &task->chunk;

	digest_stream_add_zeros(task->digest, to - from);
	for (size_t i = 0; i < chunk->n_extents; i++) {
		struct extent part = clip(chunk->extents[i], from, to);
		if (!part.length)
			continue;
		count(&task->crew->params->progress->skipped_hole, part.length);
		int r = salvage_is_read(task->crew->params->salvage, part, task->fault);
		if (r == 0 && !task->crew->params->target_fresh)
			r = outbox_zero(task->outbox, job, part, task->fault);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Length of the data at the start: runs with something in them and the short zeros between. */
static size_t data_length(const unsigned char *data, size_t length)
{
	size_t at = 0, sure = 0;

	while (at < length) {
		bool zero = false;
		size_t run = zero_run(data + at, length - at, &zero);
		if (zero && run > MERGE_BYTES)
			break;
		at += run;
		if (!zero)
			sure = at;
	}
	return sure;
}

/* Sends what the buffer holds for one extent of the log; `place` lies within the buffer. */
static int copy_extent(struct task *task, struct outbox_job *job, struct outbox_buffer *buffer,
	uint64_t buffer_offset, struct extent place)
{
	unsigned char *data = buffer->data + (place.offset - buffer_offset);

	while (place.length) {
		bool zero = false;
		size_t n = zero_run(data, place.length, &zero);
		struct extent part = {place.offset, n};
		int r = 0;
		if (!zero) {
			part.length = n = data_length(data, place.length);
			r = outbox_write(task->outbox, job, part, buffer, data, task->fault);
		} else {
			count(&task->crew->params->progress->skipped_zero, n);
			if (!task->crew->params->target_fresh)
				r = outbox_zero(task->outbox, job, part, task->fault);
		}
		if (r < 0)
			return r;
		data += n;
		place.offset += n;
		place.length -= n;
	}
	return 0;
}

static int idle(void *arg, struct fault *fault)
{
	struct task *task = arg;

	(void)fault;
	task->target_error = outbox_idle(task->outbox, -1, clock_now_usec(), task->fault);
	return task->target_error;
}

static int read_piece(struct task *task, struct extent piece, unsigned char *data)
{
	struct fault cause CLEANUP_FAULT = FAULT_INIT;
	const struct salvage_source from = {.spec = &task->crew->params->source,
		.source = task->source,
		.cancel = task->crew->stop,
		.sends = true,
		.idle = idle,
		.arg = task};
	int r = salvage_read(task->crew->params->salvage, &from, piece, data, &cause);

	if (task->target_error)
		return task->target_error;
	if (r == -ECANCELED)
		return check_stop(task);
	return r < 0 ? source_fail(task, &cause) : 0;
}

/* first: the first extent that may reach into the piece; moved on. */
static int copy_piece(struct task *task, struct outbox_job *job, struct extent piece, size_t *first)
{
	const struct cursor_chunk *chunk = &task->chunk;
	uint64_t end = piece.offset + piece.length;
	struct outbox_buffer *buffer = NULL;

	int r = check_stop(task);
	if (r == 0)
		r = outbox_get_buffer(task->outbox, &buffer, task->fault);
	if (r == 0)
		r = read_piece(task, piece, buffer->data);
	if (r < 0)
		return r;
	count(&task->crew->params->progress->read, piece.length);
	digest_stream_add(task->digest, buffer->data, piece.length);
	for (size_t i = *first; i < chunk->n_extents && chunk->extents[i].offset < end; i++) {
		struct extent place = clip(chunk->extents[i], piece.offset, end);
		*first = i;
		if (place.length)
			r = copy_extent(task, job, buffer, piece.offset, place);
		if (r < 0)
			return r;
	}
	return 0;
}

static int copy_data(struct task *task, struct outbox_job *job)
{
	uint64_t at = task->chunk.whole.offset;
	uint64_t end = at + task->chunk.whole.length;
	size_t first = 0;

	while (at < end) {
		int r = map_at(task, at);
		if (r < 0)
			return r;
		uint64_t start = MIN(MAX(task->map.offset, at), end);
		uint64_t stop = MIN(task->map.offset + task->map.length, end);
		if (start > at)
			r = copy_hole(task, job, at, start);
		for (at = start; r == 0 && at < stop;) {
			struct extent piece = {at, MIN(stop - at, task->crew->request_bytes)};
			r = copy_piece(task, job, piece, &first);
			at += piece.length;
		}
		if (r < 0)
			return r;
	}
	return 0;
}

static int copy_chunk(struct task *task)
{
	struct outbox_job *job = NULL;
	int r = outbox_begin_job(task->outbox, &job, task->fault);

	if (r == 0)
		r = copy_data(task, job);
	if (r < 0)
		return r;
	job->entry.number = task->chunk.number;
	job->entry.log_bytes = task->chunk.log_bytes;
	digest_stream_finish(task->digest, job->entry.digest);
	outbox_complete_job(task->outbox, job);
	return 0;
}

static int checkpoint(struct task *task)
{
	int r = outbox_flush(task->outbox, task->fault);

	return r < 0 ? r : ledger_commit(task->crew->ledger, task->fault);
}

/* Waits for room in the ledger: another thread is in the middle of a checkpoint. */
static int wait_for_room(struct task *task)
{
	int wake_fd = ledger_wake_fd(task->crew->ledger, task->index);

	return outbox_idle(task->outbox, wake_fd, clock_deadline(LEDGER_DUE_USEC), task->fault);
}

/* Copies the next chunk, does a checkpoint, or waits for room in the ledger. 1, or 0 when the
 * cursor is at its end. */
static int step(struct task *task)
{
	struct copy_crew *crew = task->crew;
	eventfd_t ignored;
	int r = check_stop(task);

	if (r < 0)
		return r;
	if (ledger_begin_checkpoint(crew->ledger, LEDGER_IF_DUE)) {
		r = checkpoint(task);
		return r < 0 ? r : 1;
	}
	(void)eventfd_read(ledger_wake_fd(crew->ledger, task->index), &ignored);
	if (!ledger_reserve(crew->ledger)) {
		r = wait_for_room(task);
		return r < 0 ? r : 1;
	}
	r = cursor_claim(crew->cursor, &task->chunk, task->fault);
	if (r <= 0) {
		ledger_unreserve(crew->ledger);
		return r;
	}
	r = copy_chunk(task);
	return r < 0 ? r : 1;
}

static bool is_last_copying(struct copy_crew *crew)
{
	SCOPE_LOCK(&crew->lock);
	return --crew->n_copying == 0;
}

static int copy_all(struct task *task)
{
	int r;

	do
		r = step(task);
	while (r > 0);
	if (r == 0)
		r = outbox_drain(task->outbox, task->fault);
	if (r < 0 || !is_last_copying(task->crew))
		return r;
	r = check_stop(task);
	if (r < 0 || !ledger_begin_checkpoint(task->crew->ledger, LEDGER_AT_END))
		return r;
	return checkpoint(task);
}

static int open_both(struct task *task)
{
	struct copy_crew *crew = task->crew;
	struct fault cause CLEANUP_FAULT = FAULT_INIT;
	int r = endpoint_open(&crew->params->source, crew->stop, &task->source, &cause);

	if (r < 0)
		return source_fail(task, &cause);
	r = outbox_open(crew, &task->outbox, task->fault);
	if (r < 0)
		return r;
	uint64_t target_bytes = outbox_target_size(task->outbox);
	if (endpoint_size(task->source) == crew->size_bytes && target_bytes == crew->size_bytes)
		return 0;
	return fault_text(task->fault, -EINVAL,
		"copy of disk %u: the source has %llu bytes and the target %llu",
		crew->params->disk, (unsigned long long)endpoint_size(task->source),
		(unsigned long long)target_bytes);
}

static int run_task(struct copy_crew *crew, unsigned index, struct fault *fault)
{
	struct task *task CLEANUP_FREE = xcalloc(1, sizeof(*task));
	struct digest_stream *digest CLEANUP_DIGEST_STREAM = digest_stream_new();

	task->crew = crew;
	task->index = index;
	task->fault = fault;
	task->digest = digest;
	int r = open_both(task);
	if (r == 0)
		r = copy_all(task);
	outbox_free(task->outbox);
	endpoint_close(task->source);
	return r;
}

void *copy_worker_main(void *arg)
{
	const struct copy_worker *worker = arg;
	struct copy_crew *crew = worker->crew;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	int r = run_task(crew, worker->index, &fault);

	if (r < 0)
		copy_crew_fail(crew, r, &fault);
	SCOPE_LOCK(&crew->lock);
	if (--crew->n_alive == 0)
		eventfd_write(crew->ended_fd, 1);
	return NULL;
}
