/* SPDX-License-Identifier: Apache-2.0 */
/* One disk's copy: starts the threads (worker.c), which claim chunks (cursor.c) and enter what was
 * acknowledged (ledger.c), and waits for them. Why it is shaped so: docs/performance.md. */
#include "agent/copy/copier.h"

#include "agent/copy/holes.h"
#include "agent/copy/worker.h"
#include "base/alloc.h"
#include "base/clock.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <sys/eventfd.h>

#define REQUEST_UNIT 4096

static int check_params(const struct copy_params *params, struct fault *fault)
{
	if (params->n_sessions > COPY_MAX_SESSIONS)
		return fault_text(fault, -EINVAL, "copy of disk %u: %u sessions, at most %d",
			params->disk, params->n_sessions, COPY_MAX_SESSIONS);
	if (params->request_bytes % REQUEST_UNIT || params->request_bytes > ENDPOINT_MAX_BYTES)
		return fault_text(fault, -EINVAL,
			"copy of disk %u: requests of %zu bytes: a multiple of %d, at most %zu",
			params->disk, params->request_bytes, REQUEST_UNIT, ENDPOINT_MAX_BYTES);
	return 0;
}

/* Not more sessions than there are pieces of work. */
static unsigned count_sessions(const struct copy_params *params, uint64_t bytes, uint64_t rows)
{
	unsigned n = params->n_sessions ? params->n_sessions : COPY_DEFAULT_SESSIONS;
	uint64_t pieces = MAX(rows, bytes / DIGEST_CHUNK);

	return (unsigned)MIN(n, MAX(pieces, 1));
}

/* The size is the source's: the threads compare it with their own sources and targets. */
static int look_at_source(const struct copy_params *params, uint64_t *ret_size, struct fault *fault)
{
	struct fault cause CLEANUP_FAULT = FAULT_INIT;
	struct endpoint *source CLEANUP_ENDPOINT = NULL;
	int r = endpoint_open(&params->source, params->cancel, &source, &cause);

	if (r < 0)
		return fault_text(fault, -EIO, "copy of disk %u, source: %s", params->disk,
			cause.n_params ? cause.params[0] : "");
	*ret_size = endpoint_size(source);
	return params->target_fresh ? holes_settle(params, source, fault) : 0;
}

static void start_threads(struct copy_crew *crew, struct copy_worker *workers, unsigned n)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	for (unsigned i = 0; i < n; i++) {
		workers[i] = (struct copy_worker){.crew = crew, .index = i};
		int error = pthread_create(&workers[i].thread, NULL, copy_worker_main, &workers[i]);
		if (!error)
			continue;
		workers[i].crew = NULL;
		fault_errno(&fault, -error, "copy of disk %u: cannot start a thread",
			crew->params->disk);
		copy_crew_fail(crew, -error, &fault);
		SCOPE_LOCK(&crew->lock);
		if (--crew->n_alive == 0)
			eventfd_write(crew->ended_fd, 1);
	}
}

/* Waits for the threads' end, handing on a cancel. */
static void wait_threads(struct copy_crew *crew, struct copy_worker *workers, unsigned n)
{
	struct pollfd ended = {.fd = crew->ended_fd, .events = POLLIN};

	if (cancel_poll(crew->params->cancel, &ended, 1, USEC_FOREVER) < 0)
		cancel_request(crew->stop, cancel_is_requested(crew->params->cancel)
						   ? cancel_reason(crew->params->cancel)
						   : "the copy cannot wait for its threads");
	for (unsigned i = 0; i < n; i++) {
		if (workers[i].crew)
			pthread_join(workers[i].thread, NULL);
	}
}

static int run_crew(struct copy_crew *crew, unsigned n, struct fault *fault)
{
	struct copy_worker workers[COPY_MAX_SESSIONS];

	crew->n_alive = crew->n_copying = n;
	crew->ended_fd = eventfd(0, EFD_CLOEXEC);
	if (crew->ended_fd < 0)
		return fault_errno(fault, -errno, "copy of disk %u", crew->params->disk);
	pthread_mutex_init(&crew->lock, NULL);
	start_threads(crew, workers, n);
	wait_threads(crew, workers, n);
	pthread_mutex_destroy(&crew->lock);
	close(crew->ended_fd);
	if (crew->error && fault)
		fault_move(fault, &crew->fault);
	fault_clear(&crew->fault);
	return crew->error;
}

/* One walk over the log. */
static int run_pass(const struct copy_params *params, uint64_t size_bytes, unsigned n_sessions,
	struct fault *fault)
{
	struct cursor *cursor CLEANUP_CURSOR =
		cursor_new(params->db, params->migration, params->disk, size_bytes);
	struct ledger *ledger CLEANUP_LEDGER = ledger_new(params, size_bytes, n_sessions);
	struct cancel *stop CLEANUP_CANCEL = cancel_new();
	size_t request = params->request_bytes ? params->request_bytes : COPY_DEFAULT_REQUEST;
	size_t in_flight =
		params->in_flight_bytes ? params->in_flight_bytes : COPY_DEFAULT_IN_FLIGHT;
	struct copy_crew crew = {
		.params = params,
		.size_bytes = size_bytes,
		.request_bytes = request,
		.n_buffers = (unsigned)MAX(in_flight / request / n_sessions, (size_t)1),
		.cursor = cursor,
		.ledger = ledger,
		.stop = stop,
	};

	return run_crew(&crew, n_sessions, fault);
}

static int log_total(const struct copy_params *params, uint64_t *ret_bytes, uint64_t *ret_rows,
	struct fault *fault)
{
	return extent_log_total(
		params->db, params->migration, params->disk, ret_bytes, ret_rows, fault);
}

int copy_run(const struct copy_params *given, struct fault *fault)
{
	struct copy_progress unseen = {0};
	struct copy_params params = *given;
	uint64_t bytes = 0, rows = 0, size_bytes = 0, none = 0;

	params.progress = params.progress ? params.progress : &unseen;
	int r = check_params(&params, fault);
	if (r == 0)
		r = log_total(&params, &bytes, &rows, fault);
	if (r < 0)
		return r;
	atomic_compare_exchange_strong(&params.progress->log_initial, &none, bytes);
	r = look_at_source(&params, &size_bytes, fault);
	if (r == 0)
		r = log_total(&params, &bytes, &rows, fault);
	if (r < 0)
		return r;
	while (bytes) {
		uint64_t before = bytes;
		if (cancel_is_requested(params.cancel))
			return fault_text(fault, -ECANCELED, "copy of disk %u: cancelled: %s",
				params.disk, cancel_reason(params.cancel));
		r = run_pass(&params, size_bytes, count_sessions(&params, bytes, rows), fault);
		if (r == 0)
			r = log_total(&params, &bytes, &rows, fault);
		if (r < 0)
			return r;
		if (bytes >= before)
			return fault_text(fault, -EIO,
				"copy of disk %u: the extent log does not shrink: somebody else "
				"adds to it",
				params.disk);
	}
	return 0;
}
