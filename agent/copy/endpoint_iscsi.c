/* SPDX-License-Identifier: Apache-2.0 */
/* Requests to a LUN, many in flight, on one session of iscsi_session.c.
 *
 * Deadlines are ours, on the monotonic clock: requests have the same time-out, so the oldest one
 * expires first. An expired or cancelled request cannot be taken back from libiscsi 1.19; it takes
 * the session with it, and all requests end. */
#include "agent/copy/endpoint_impl.h"
#include "agent/copy/iscsi_session.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/inject.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

/* After the headers above: they need the types of stdint.h and the like. */
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#define DEFAULT_TIMEOUT (30 * USEC_PER_SEC)
#define LOGOUT_TIMEOUT  (300 * USEC_PER_MSEC)
#define MAX_RETRIES     8
/* tgtd keeps the length of an UNMAP in 32 bits: 4 GiB and more wrap, and it says GOOD. */
#define MAX_UNMAP (UINT64_C(1) << 30)
/* What goes along with the command (FirstBurstLength and MaxRecvDataSegmentLength of our exports).
 * More would follow in Data-Out PDUs; and when a ping of the target is answered while some of them
 * are queued, libiscsi 1.19 gives the answer the first one's old CmdSN, then finds it too old and
 * drops the session. */
#define MAX_WRITE   ((size_t)256 << 10)
#define ZEROS_BYTES MAX_WRITE

/* After so long without an answer the target is nudged, then less and less often. */
#define NUDGE_FIRST (5 * USEC_PER_MSEC)
#define NUDGE_MOST  USEC_PER_SEC

#define ASCQ_SPACE_EXHAUSTED 0x2707

/* A request on its way. What is too long for one command goes in pieces, one after the other. */
struct iscsi_op {
	struct iscsi_op *next, *previous;
	struct endpoint_iscsi *endpoint;
	struct endpoint_request *request;
	struct scsi_task *task; /* NULL: not queued */
	struct scsi_iovec iov;  /* the library edits it */
	struct extent piece;    /* what the task is about */
	uint64_t deadline_usec;
	unsigned n_retries;
};

struct endpoint_iscsi {
	struct endpoint base;
	struct iscsi_session session;
	uint64_t timeout_usec;
	uint64_t n_ended;              /* requests, ever */
	struct iscsi_op *first, *last; /* in flight, oldest first */
	struct iscsi_op *retired;      /* ended; the library may still look at their tasks */
	uint64_t nudge_usec;           /* when the next one is due */
	uint64_t nudge_delay_usec;
};

static void op_done(
	struct iscsi_context *context, int status, void *command_data, void *private_data);

static void op_free(struct iscsi_op *op)
{
	if (op->task)
		scsi_free_scsi_task(op->task);
	free(op);
}

/* A target that answers a write before it has all of its data leaves Data-Out PDUs in the library's
 * queue that point to the task. So ended ones are kept until that queue is empty. */
static void free_retired(struct endpoint_iscsi *iscsi)
{
	if (!iscsi->retired || !iscsi_session_is_drained(&iscsi->session))
		return;
	while (iscsi->retired) {
		struct iscsi_op *op = iscsi->retired;
		iscsi->retired = op->next;
		op_free(op);
	}
}

/* Parts with the task of a request that goes on. */
static void retire_task(struct iscsi_op *op)
{
	struct iscsi_op *husk = xcalloc(1, sizeof(*husk));

	husk->task = TAKE_PTR(op->task);
	husk->next = op->endpoint->retired;
	op->endpoint->retired = husk;
}

static void put_off_nudge(struct endpoint_iscsi *iscsi)
{
	iscsi->nudge_delay_usec = NUDGE_FIRST;
	iscsi->nudge_usec = clock_deadline(NUDGE_FIRST);
}

static void op_end(struct iscsi_op *op, int error)
{
	struct endpoint_iscsi *iscsi = op->endpoint;
	struct endpoint_request *request = op->request;

	put_off_nudge(iscsi);
	*(op->previous ? &op->previous->next : &iscsi->first) = op->next;
	*(op->next ? &op->next->previous : &iscsi->last) = op->previous;
	op->next = iscsi->retired;
	iscsi->retired = op;
	iscsi->base.n_in_flight--;
	iscsi->n_ended++;
	request->done(request, error);
}

/* What the LUN's thin provisioning cannot do is written out. */
static struct scsi_task *queue_zero(struct iscsi_op *op, uint64_t lba)
{
	static unsigned char zeros[ZEROS_BYTES];
	struct iscsi_session *session = &op->endpoint->session;
	struct unmap_list range = {
		.lba = lba, .num = (uint32_t)(op->piece.length / session->block_bytes)};

	if (session->unmap_zeroes)
		return iscsi_unmap_task(session->context, ISCSI_LUN, 0, 0, &range, 1, op_done, op);
	op->iov = (struct scsi_iovec){zeros, op->piece.length};
	return iscsi_write16_iov_task(session->context, ISCSI_LUN, lba, NULL,
		(uint32_t)op->piece.length, (int)session->block_bytes, 0, 0, 0, 0, 0, op_done, op,
		&op->iov, 1);
}

static int op_queue(struct iscsi_op *op)
{
	struct iscsi_session *session = &op->endpoint->session;
	int block = (int)session->block_bytes;
	uint64_t lba = op->piece.offset / session->block_bytes;

	uint64_t done = op->piece.offset - op->request->extent.offset;
	unsigned char *data = op->request->data ? (unsigned char *)op->request->data + done : NULL;

	op->iov = (struct scsi_iovec){data, op->piece.length};
	switch (op->request->op) {
	case ENDPOINT_READ:
		op->task = iscsi_read16_iov_task(session->context, ISCSI_LUN, lba,
			(uint32_t)op->piece.length, block, 0, 0, 0, 0, 0, op_done, op, &op->iov, 1);
		break;
	case ENDPOINT_WRITE:
		op->task = iscsi_write16_iov_task(session->context, ISCSI_LUN, lba, NULL,
			(uint32_t)op->piece.length, block, 0, 0, 0, 0, 0, op_done, op, &op->iov, 1);
		break;
	case ENDPOINT_ZERO:
	case ENDPOINT_DISCARD:
		op->task = queue_zero(op, lba);
		break;
	case ENDPOINT_FLUSH:
		op->task = iscsi_synchronizecache16_task(
			session->context, ISCSI_LUN, 0, 0, 0, 0, op_done, op);
		break;
	}
	if (op->task)
		return 0;
	return iscsi_session_die(session, -ECONNRESET, "session with %s lost: %s", session->name,
		iscsi_get_error(session->context));
}

/* Sets up the piece that follows `done` bytes of the request. False: there is none (a flush has no
 * pieces at all). */
static bool op_next_piece(struct iscsi_op *op, uint64_t done)
{
	struct extent whole = op->request->extent;
	uint64_t most = MAX_WRITE;

	if (op->request->op == ENDPOINT_FLUSH)
		return false;
	if (op->request->op == ENDPOINT_WRITE)
		most = MAX_WRITE;
	if (op->request->op == ENDPOINT_ZERO || op->request->op == ENDPOINT_DISCARD)
		most = op->endpoint->session.unmap_zeroes ? MAX_UNMAP : ZEROS_BYTES;
	op->piece.offset = whole.offset + done;
	op->piece.length = MIN(whole.length - done, most);
	return op->piece.length != 0;
}

static int sense_error(const struct scsi_task *task)
{
	if (task->sense.key == SCSI_SENSE_DATA_PROTECTION)
		return task->sense.ascq == ASCQ_SPACE_EXHAUSTED ? -ENOSPC : -EROFS;
	return -EIO;
}

static int task_error(struct iscsi_op *op, int status)
{
	struct endpoint_iscsi *iscsi = op->endpoint;
	const struct scsi_task *task = op->task;
	const char *name = endpoint_op_name(op->request->op);
	unsigned long long offset = op->piece.offset, length = op->piece.length;
	int r = INJECT_BYTES(length, "iscsi.%s", name);

	if (r < 0)
		return endpoint_fail(&iscsi->base, r, "%s: %s of %llu bytes at %llu: fault point",
			iscsi->session.name, name, length, offset);
	if (status == SCSI_STATUS_CHECK_CONDITION) {
		const char *key = scsi_sense_key_str(task->sense.key);
		return endpoint_fail(&iscsi->base, sense_error(task),
			"%s: %s of %llu bytes at %llu failed: sense %02x/%02x/%02x %s",
			iscsi->session.name, name, length, offset, (unsigned)task->sense.key,
			(unsigned)task->sense.ascq >> 8 & 0xff, (unsigned)task->sense.ascq & 0xff,
			key ? key : "");
	}
	if (status != SCSI_STATUS_GOOD)
		return endpoint_fail(&iscsi->base, -EIO,
			"%s: %s of %llu bytes at %llu failed: SCSI status 0x%x",
			iscsi->session.name, name, length, offset, (unsigned)status);
	if (op->request->op == ENDPOINT_READ && task->residual_status != SCSI_RESIDUAL_NO_RESIDUAL)
		return endpoint_fail(&iscsi->base, -EIO,
			"%s: %s of %llu bytes at %llu was short by %zu", iscsi->session.name, name,
			length, offset, task->residual);
	return 0;
}

/* Only these may pass by themselves; a medium error is final. */
static bool is_transient(const struct scsi_task *task, int status)
{
	return status == SCSI_STATUS_BUSY || status == SCSI_STATUS_TASK_SET_FULL ||
	       (status == SCSI_STATUS_CHECK_CONDITION &&
		       task->sense.key == SCSI_SENSE_UNIT_ATTENTION);
}

static void op_done(
	struct iscsi_context *context, int status, void *command_data, void *private_data)
{
	struct iscsi_op *op = private_data;
	struct endpoint_iscsi *iscsi = op->endpoint;

	(void)command_data;
	if (iscsi->session.dead)
		return; /* The burial ends all. */
	if (status == SCSI_STATUS_CANCELLED || status == SCSI_STATUS_ERROR ||
		status == SCSI_STATUS_TIMEOUT) {
		iscsi_session_die(&iscsi->session, -ECONNRESET, "session with %s lost: %s",
			iscsi->session.name, iscsi_get_error(context));
		return;
	}
	bool again = is_transient(op->task, status) && op->n_retries++ < MAX_RETRIES;
	int error = again ? 0 : task_error(op, status);
	if (error == 0) {
		uint64_t done = op->piece.offset - op->request->extent.offset;
		if (again || op_next_piece(op, done + op->piece.length)) {
			retire_task(op);
			(void)op_queue(op); /* A failure has killed the session. */
			return;
		}
	}
	op_end(op, error);
}

static void bury(struct endpoint_iscsi *iscsi)
{
	if (!iscsi->session.context && !iscsi->first)
		return;
	endpoint_fail(&iscsi->base, iscsi->session.dead, "%s", iscsi->session.error);
	iscsi_session_bury(&iscsi->session);
	while (iscsi->first)
		op_end(iscsi->first, iscsi->session.dead);
	free_retired(iscsi);
}

/* Its answer stands where the others stand: what it woke comes by itself. */
static void nudge_done(
	struct iscsi_context *context, int status, void *command_data, void *private_data)
{
	(void)context;
	(void)status;
	(void)command_data;
	(void)private_data;
}

/* When tgtd 1.0.85 has taken the answer to a ping of its own from the list of what it is to send,
 * it stops sending (iscsi_task_tx_start), though answers to us may stand behind it in that list:
 * they wait for the next event of this connection, which is the next ping, seconds later. Another
 * command is such an event. The pause of a guest must not depend on that. One nudge may be too few:
 * its own answer stands in that list too when it came just before. */
static void nudge_if_due(struct endpoint_iscsi *iscsi)
{
	struct iscsi_session *session = &iscsi->session;

	if (!iscsi->first || session->dead || clock_now_usec() < iscsi->nudge_usec)
		return;
	iscsi->nudge_delay_usec = MIN(iscsi->nudge_delay_usec * 2, NUDGE_MOST);
	iscsi->nudge_usec = clock_deadline(iscsi->nudge_delay_usec);
	/* While we are still sending, the target has events enough. */
	if (iscsi_session_is_drained(session) &&
		iscsi_nop_out_async(session->context, nudge_done, NULL, 0, NULL) == 0)
		iscsi_session_kick(session);
}

static uint64_t next_deadline(const struct endpoint_iscsi *iscsi, uint64_t deadline_usec)
{
	return iscsi->first
		       ? MIN(MIN(iscsi->first->deadline_usec, iscsi->nudge_usec), deadline_usec)
		       : deadline_usec;
}

/* One round of waiting; ends what is due or dead. */
static int turn(struct endpoint_iscsi *iscsi, int wake_fd, uint64_t deadline_usec,
	struct cancel *cancel, bool *ret_woken)
{
	struct iscsi_session *session = &iscsi->session;
	uint64_t until = next_deadline(iscsi, deadline_usec);
	int r = 1;

	if (!session->dead)
		r = iscsi_session_pump(session, wake_fd, until, cancel, ret_woken);
	if (r == 0 && iscsi->first && iscsi->first->deadline_usec <= clock_now_usec())
		r = iscsi_session_die(session, -ETIMEDOUT, "%s: no answer to a %s within %llu s",
			session->name, endpoint_op_name(iscsi->first->request->op),
			(unsigned long long)(iscsi->timeout_usec / USEC_PER_SEC));
	nudge_if_due(iscsi);
	if (session->dead) {
		bury(iscsi);
		return 1;
	}
	free_retired(iscsi);
	return r;
}

static int iscsi_ep_service(
	struct endpoint *endpoint, uint64_t deadline_usec, struct cancel *cancel)
{
	struct endpoint_iscsi *iscsi = (struct endpoint_iscsi *)endpoint;
	uint64_t before = iscsi->n_ended;

	while (iscsi->n_ended == before && endpoint->n_in_flight) {
		int r = turn(iscsi, -1, deadline_usec, cancel, NULL);
		if (r == -ECANCELED)
			return r;
		if (r == 0 && deadline_usec <= clock_now_usec())
			return -ETIMEDOUT;
	}
	return 0;
}

static int iscsi_ep_wait(
	struct endpoint *endpoint, int wake_fd, uint64_t deadline_usec, struct cancel *cancel)
{
	struct endpoint_iscsi *iscsi = (struct endpoint_iscsi *)endpoint;

	for (;;) {
		bool woken = false;
		int r = turn(iscsi, wake_fd, deadline_usec, cancel, &woken);
		if (iscsi->session.dead)
			return iscsi->session.dead;
		if (woken)
			return 0;
		if (r == -ECANCELED)
			return r;
		if (r == 0 && deadline_usec <= clock_now_usec())
			return -ETIMEDOUT;
	}
}

static int iscsi_ep_submit(struct endpoint *endpoint, struct endpoint_request *request)
{
	struct endpoint_iscsi *iscsi = (struct endpoint_iscsi *)endpoint;

	if (iscsi->session.dead)
		return endpoint_fail(endpoint, iscsi->session.dead, "%s", iscsi->session.error);
	struct iscsi_op *op = xcalloc(1, sizeof(*op));
	op->endpoint = iscsi;
	op->request = request;
	op->deadline_usec = clock_deadline(iscsi->timeout_usec);
	(void)op_next_piece(op, 0);
	if (INJECT_BYTES(request->extent.length, "iscsi.cut") < 0)
		shutdown(iscsi_get_fd(iscsi->session.context), SHUT_RDWR);
	int r = op_queue(op);
	if (r < 0) {
		op_free(op);
		return endpoint_fail(endpoint, r, "%s", iscsi->session.error);
	}
	if (!iscsi->first)
		put_off_nudge(iscsi);
	op->previous = iscsi->last;
	*(iscsi->last ? &iscsi->last->next : &iscsi->first) = op;
	iscsi->last = op;
	endpoint->n_in_flight++;
	/* Written now, the payload is still in the CPU's cache. */
	iscsi_session_kick(&iscsi->session);
	return 0;
}

static void iscsi_ep_abort(struct endpoint *endpoint)
{
	struct endpoint_iscsi *iscsi = (struct endpoint_iscsi *)endpoint;

	iscsi_session_die(&iscsi->session, -ECANCELED, "%s: closed", iscsi->session.name);
	bury(iscsi);
}

static void iscsi_ep_close(struct endpoint *endpoint)
{
	struct endpoint_iscsi *iscsi = (struct endpoint_iscsi *)endpoint;

	if (!endpoint->n_in_flight)
		iscsi_session_logout(&iscsi->session, clock_deadline(LOGOUT_TIMEOUT));
	if (iscsi->session.name)
		iscsi_ep_abort(endpoint);
	iscsi_session_deinit(&iscsi->session);
	free_retired(iscsi);
	free(iscsi);
}

static const struct endpoint_ops iscsi_ops = {
	.close = iscsi_ep_close,
	.submit = iscsi_ep_submit,
	.service = iscsi_ep_service,
	.abort = iscsi_ep_abort,
	.wait = iscsi_ep_wait,
};

int endpoint_iscsi_open(const struct endpoint_spec *spec, struct cancel *cancel,
	struct endpoint **ret_endpoint, struct fault *fault)
{
	struct endpoint_iscsi *iscsi = xcalloc(1, sizeof(*iscsi));
	struct endpoint *endpoint CLEANUP_ENDPOINT = &iscsi->base;

	endpoint->ops = &iscsi_ops;
	endpoint->writable = spec->writable;
	iscsi->timeout_usec = spec->timeout_usec ? spec->timeout_usec : DEFAULT_TIMEOUT;
	int r = iscsi_session_open(
		&iscsi->session, spec, clock_deadline(iscsi->timeout_usec), cancel, fault);
	if (r < 0)
		return r;
	endpoint->size_bytes = iscsi->session.size_bytes;
	endpoint->block_bytes = iscsi->session.block_bytes;
	*ret_endpoint = TAKE_PTR(endpoint);
	return 0;
}
