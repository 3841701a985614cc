/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/copy/outbox.h"

#include "base/alloc.h"
#include "base/clock.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>

/* Requests in flight per thread: small ones come many to a buffer. */
#define N_TRANSFERS 64
#define N_JOBS      16
#define ALIGNMENT   4096

struct transfer {
	struct endpoint_request request;
	struct outbox *outbox; /* NULL: free */
	struct outbox_job *job;
	struct outbox_buffer *buffer; /* NULL: zeroes */
};

struct outbox {
	struct copy_crew *crew;
	struct endpoint *target;
	int error; /* of the first request that failed */
	char error_text[512];
	struct outbox_buffer *buffers; /* crew->n_buffers */
	struct transfer transfers[N_TRANSFERS];
	struct outbox_job jobs[N_JOBS];
};

/* The target's errors as copy_run promises them: what another session may cure stays as it is. */
static int target_error(int error)
{
	switch (error) {
	case -ECONNRESET:
	case -ETIMEDOUT:
	case -ESTALE:
	case -EACCES:
	case -ECONNREFUSED:
	case -ECANCELED:
	case -EINVAL: /* the parameters */
	case -ENOMEM:
		return error;
	default:
		return -EREMOTEIO;
	}
}

static int fail(const struct outbox *outbox, int error, const char *text, struct fault *fault)
{
	if (error == -ECANCELED)
		return fault_text(fault, error, "copy of disk %u: cancelled: %s",
			outbox->crew->params->disk, cancel_reason(outbox->crew->stop));
	return fault_text(fault, target_error(error),
		"copy of disk %u, target: %s; what was flushed before is kept, the rest stays in "
		"the extent log",
		outbox->crew->params->disk, text);
}

/* What requests that ended have left behind. */
static int check_error(const struct outbox *outbox, struct fault *fault)
{
	return outbox->error ? fail(outbox, outbox->error, outbox->error_text, fault) : 0;
}

/* --- Life ------------------------------------------------------------------------------------- */

static int make_buffers(struct outbox *outbox, struct fault *fault)
{
	const struct copy_crew *crew = outbox->crew;

	outbox->buffers = xcalloc(crew->n_buffers, sizeof(*outbox->buffers));
	for (unsigned i = 0; i < crew->n_buffers; i++) {
		outbox->buffers[i].data = aligned_alloc(ALIGNMENT, crew->request_bytes);
		if (!outbox->buffers[i].data)
			return fault_errno(
				fault, -ENOMEM, "copy of disk %u: buffers", crew->params->disk);
	}
	return 0;
}

int outbox_open(struct copy_crew *crew, struct outbox **ret_outbox, struct fault *fault)
{
	struct outbox *outbox CLEANUP_OUTBOX = xcalloc(1, sizeof(*outbox));
	struct fault cause CLEANUP_FAULT = FAULT_INIT;

	outbox->crew = crew;
	int r = make_buffers(outbox, fault);
	if (r < 0)
		return r;
	r = endpoint_open(&crew->params->target, crew->stop, &outbox->target, &cause);
	if (r < 0)
		return fail(outbox, r, cause.params[0], fault);
	*ret_outbox = TAKE_PTR(outbox);
	return 0;
}

struct outbox *outbox_free(struct outbox *outbox)
{
	if (!outbox)
		return NULL;
	/* First: until it is closed it may look at the buffers. */
	endpoint_close(outbox->target);
	for (unsigned i = 0; outbox->buffers && i < outbox->crew->n_buffers; i++)
		free(outbox->buffers[i].data);
	free(outbox->buffers);
	free(outbox);
	return NULL;
}

uint64_t outbox_target_size(const struct outbox *outbox)
{
	return endpoint_size(outbox->target);
}

/* --- Ends of requests, and waiting for them --------------------------------------------------- */

static void finish_job(struct outbox *outbox, struct outbox_job *job)
{
	if (!job->complete || job->n_pending)
		return;
	job->used = false;
	if (!outbox->error)
		ledger_enter(outbox->crew->ledger, &job->entry);
}

static void transfer_done(struct endpoint_request *request, int error)
{
	struct transfer *transfer = request->arg;
	struct outbox *outbox = TAKE_PTR(transfer->outbox);
	uint64_t length = request->extent.length;

	if (transfer->buffer)
		transfer->buffer->n_pending--;
	transfer->job->n_pending--;
	if (error && !outbox->error) {
		outbox->error = error;
		snprintf(outbox->error_text, sizeof(outbox->error_text), "%s",
			endpoint_error(outbox->target));
	}
	if (!error && request->op == ENDPOINT_WRITE) {
		atomic_fetch_add_explicit(
			&outbox->crew->params->progress->sent, length, memory_order_relaxed);
		transfer->job->entry.sent_bytes += length;
	}
	finish_job(outbox, transfer->job);
}

static int wait_some(struct outbox *outbox, struct fault *fault)
{
	int r = endpoint_service(outbox->target, USEC_FOREVER, outbox->crew->stop);

	return r < 0 ? fail(outbox, r, endpoint_error(outbox->target), fault)
		     : check_error(outbox, fault);
}

int outbox_drain(struct outbox *outbox, struct fault *fault)
{
	int r = check_error(outbox, fault);

	while (r == 0 && endpoint_in_flight(outbox->target))
		r = wait_some(outbox, fault);
	return r;
}

int outbox_flush(struct outbox *outbox, struct fault *fault)
{
	struct fault cause CLEANUP_FAULT = FAULT_INIT;
	int r = outbox_drain(outbox, fault);

	if (r < 0)
		return r;
	r = endpoint_flush(outbox->target, outbox->crew->stop, &cause);
	return r < 0 ? fail(outbox, r, cause.params[0], fault) : 0;
}

int outbox_idle(struct outbox *outbox, int wake_fd, uint64_t until_usec, struct fault *fault)
{
	int r = endpoint_wait(outbox->target, wake_fd, until_usec, outbox->crew->stop);

	if (r < 0 && r != -ETIMEDOUT)
		return fail(outbox, r, endpoint_error(outbox->target), fault);
	if (r == -ETIMEDOUT && clock_now_usec() < until_usec) /* The session's, not ours. */
		return fail(outbox, r, endpoint_error(outbox->target), fault);
	return check_error(outbox, fault);
}

/* --- Sending ---------------------------------------------------------------------------------- */

int outbox_get_buffer(struct outbox *outbox, struct outbox_buffer **ret_buffer, struct fault *fault)
{
	for (;;) {
		for (unsigned i = 0; i < outbox->crew->n_buffers; i++) {
			if (outbox->buffers[i].n_pending)
				continue;
			*ret_buffer = &outbox->buffers[i];
			return 0;
		}
		int r = wait_some(outbox, fault);
		if (r < 0)
			return r;
	}
}

int outbox_begin_job(struct outbox *outbox, struct outbox_job **ret_job, struct fault *fault)
{
	for (;;) {
		for (size_t i = 0; i < N_JOBS; i++) {
			if (outbox->jobs[i].used)
				continue;
			outbox->jobs[i] = (struct outbox_job){.used = true};
			*ret_job = &outbox->jobs[i];
			return 0;
		}
		int r = wait_some(outbox, fault);
		if (r < 0)
			return r;
	}
}

void outbox_complete_job(struct outbox *outbox, struct outbox_job *job)
{
	job->complete = true;
	finish_job(outbox, job);
}

static int get_transfer(struct outbox *outbox, struct transfer **ret_transfer, struct fault *fault)
{
	for (;;) {
		for (size_t i = 0; i < N_TRANSFERS; i++) {
			if (outbox->transfers[i].outbox)
				continue;
			*ret_transfer = &outbox->transfers[i];
			return 0;
		}
		int r = wait_some(outbox, fault);
		if (r < 0)
			return r;
	}
}

/* Submits what is filled in but for the bookkeeping. */
static int submit(struct outbox *outbox, const struct transfer *filled, struct fault *fault)
{
	struct transfer *transfer = NULL;
	int r = get_transfer(outbox, &transfer, fault);

	if (r < 0)
		return r;
	*transfer = *filled;
	transfer->outbox = outbox;
	transfer->request.done = transfer_done;
	transfer->request.arg = transfer;
	transfer->job->n_pending++;
	if (transfer->buffer)
		transfer->buffer->n_pending++;
	r = endpoint_submit(outbox->target, &transfer->request);
	if (r < 0) {
		transfer->outbox = NULL;
		return fail(outbox, r, endpoint_error(outbox->target), fault);
	}
	return check_error(outbox, fault);
}

int outbox_write(struct outbox *outbox, struct outbox_job *job, struct extent extent,
	struct outbox_buffer *buffer, unsigned char *data, struct fault *fault)
{
	const struct transfer filled = {
		.request = {.op = ENDPOINT_WRITE, .extent = extent, .data = data},
		.job = job,
		.buffer = buffer,
	};
	uint64_t again;

	while ((again = rate_limit_try(outbox->crew->params->rate, extent.length)) != 0) {
		int r = outbox_idle(outbox, -1, again, fault);
		if (r < 0)
			return r;
	}
	return submit(outbox, &filled, fault);
}

int outbox_zero(
	struct outbox *outbox, struct outbox_job *job, struct extent extent, struct fault *fault)
{
	const struct transfer filled = {
		.request = {.op = ENDPOINT_ZERO, .extent = extent}, .job = job};

	return submit(outbox, &filled, fault);
}
