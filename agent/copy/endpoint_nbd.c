/* SPDX-License-Identifier: Apache-2.0 */
/* Requests to an NBD export, many in flight, on one connection of nbd_session.c: how an image that
 * is not raw is read, through a program that knows its format.
 *
 * The library's callbacks only take notes: nothing may be asked of a handle from within them.
 * Requests are ended afterwards. Deadlines are as for iSCSI: requests have the same time-out, so
 * the oldest one expires first, and takes the connection with it. */
#include "agent/copy/endpoint_impl.h"
#include "agent/copy/nbd_session.h"
#include "base/alloc.h"
#include "base/clock.h"

#include <errno.h>
#include <libnbd.h>
#include <string.h>

#define DEFAULT_TIMEOUT (30 * USEC_PER_SEC)
/* The protocol keeps a length in 32 bits. */
#define MAX_ZERO (UINT64_C(1) << 30)
/* What is asked about at once: at first as much as the copier takes at once, then, while nothing is
 * found, more. What was learnt is not kept: a guest may write between two questions. */
#define MAP_FIRST (UINT64_C(4) << 20)
#define MAP_MOST  (UINT64_C(1) << 30)

/* A request on its way. What is too long for one command goes in pieces, one after the other. */
struct nbd_op {
	struct nbd_op *next, *previous;
	struct endpoint_request *request;
	struct extent piece;
	uint64_t deadline_usec;
	bool answered;
	int error; /* negative errno of the answer */
};

struct endpoint_nbd {
	struct endpoint base;
	struct nbd_session session;
	struct cancel *cancel; /* for questions about the map */
	uint64_t timeout_usec;
	uint64_t n_ended;            /* requests, ever */
	struct nbd_op *first, *last; /* in flight, oldest first */
};

static int note_answer(void *arg, int *error)
{
	struct nbd_op *op = arg;

	op->answered = true;
	op->error = -*error;
	return 1; /* the library need not keep it */
}

/* The library has put it where it belongs. */
static int note_part(
	void *arg, const void *data, size_t length, uint64_t offset, unsigned status, int *error)
{
	(void)arg, (void)data, (void)length, (void)offset, (void)status, (void)error;
	return 0;
}

/* In one part, if the server can: of an answer in several, QEMU can say only by hanging up that one
 * cannot be read. */
static int64_t read_whole(struct endpoint_nbd *nbd, struct nbd_op *op, nbd_completion_callback done)
{
	const nbd_chunk_callback part = {.callback = note_part};

	if (!nbd->session.has_df)
		return nbd_aio_pread(nbd->session.handle, op->request->data, op->piece.length,
			op->piece.offset, done, 0);
	return nbd_aio_pread_structured(nbd->session.handle, op->request->data, op->piece.length,
		op->piece.offset, part, done, LIBNBD_CMD_FLAG_DF);
}

static int op_issue(struct endpoint_nbd *nbd, struct nbd_op *op)
{
	struct nbd_handle *handle = nbd->session.handle;
	uint64_t offset = op->piece.offset, length = op->piece.length;
	const nbd_completion_callback done = {.callback = note_answer, .user_data = op};
	int64_t cookie = -1;

	op->answered = false;
	switch (op->request->op) {
	case ENDPOINT_READ:
		cookie = read_whole(nbd, op, done);
		break;
	case ENDPOINT_WRITE:
		cookie = nbd_aio_pwrite(handle, op->request->data, length, offset, done, 0);
		break;
	case ENDPOINT_ZERO:
	case ENDPOINT_DISCARD: /* a trim would not promise zeros */
		cookie = nbd_aio_zero(handle, length, offset, done, 0);
		break;
	case ENDPOINT_FLUSH:
		cookie = nbd_aio_flush(handle, done, 0);
		break;
	}
	/* It may have died in that very call: then it has answered with an error of its own. */
	if (cookie >= 0 && nbd_aio_is_dead(handle) == 0 && nbd_aio_is_closed(handle) == 0)
		return 0;
	const char *text = nbd_get_error();
	return nbd_session_die(&nbd->session, -ECONNRESET, "%s: connection lost: %s",
		nbd->session.name, text ? text : "no reason given");
}

/* Sets up the piece that follows `done` bytes of the request. False: there is none. */
static bool op_next_piece(struct nbd_op *op, uint64_t done)
{
	struct extent whole = op->request->extent;

	if (op->request->op == ENDPOINT_FLUSH)
		return false;
	op->piece = (struct extent){whole.offset + done, MIN(whole.length - done, MAX_ZERO)};
	return op->piece.length != 0;
}

static void op_end(struct endpoint_nbd *nbd, struct nbd_op *op, int error)
{
	struct endpoint_request *request = op->request;

	*(op->previous ? &op->previous->next : &nbd->first) = op->next;
	*(op->next ? &op->next->previous : &nbd->last) = op->previous;
	free(op);
	nbd->base.n_in_flight--;
	nbd->n_ended++;
	request->done(request, error);
}

static int answer_error(struct endpoint_nbd *nbd, const struct nbd_op *op)
{
	int error = op->error == -ENOSPC ? -ENOSPC : op->error == -EPERM ? -EROFS : -EIO;

	return endpoint_fail(&nbd->base, error, "%s: %s of %llu bytes at %llu failed: %s",
		nbd->session.name, endpoint_op_name(op->request->op),
		(unsigned long long)op->piece.length, (unsigned long long)op->piece.offset,
		strerror(-op->error));
}

static void bury(struct endpoint_nbd *nbd)
{
	if (!nbd->session.handle && !nbd->first)
		return;
	endpoint_fail(&nbd->base, nbd->session.dead, "%s", nbd->session.error);
	nbd_session_bury(&nbd->session);
	while (nbd->first)
		op_end(nbd, nbd->first, nbd->session.dead);
}

/* Ends what has been answered; what `done` submits meanwhile stands at the list's end. */
static void reap(struct endpoint_nbd *nbd)
{
	struct nbd_op *next;

	for (struct nbd_op *op = nbd->first; op && !nbd->session.dead; op = next) {
		next = op->next;
		if (!op->answered)
			continue;
		uint64_t done = op->piece.offset + op->piece.length - op->request->extent.offset;
		if (op->error < 0)
			op_end(nbd, op, answer_error(nbd, op));
		else if (op_next_piece(op, done))
			(void)op_issue(nbd, op); /* A failure has killed the connection. */
		else
			op_end(nbd, op, 0);
	}
}

/* One round of waiting; ends what is answered, due or dead. */
static int turn(struct endpoint_nbd *nbd, int wake_fd, uint64_t deadline_usec,
	struct cancel *cancel, bool *ret_woken)
{
	struct nbd_session *session = &nbd->session;
	uint64_t until = nbd->first ? MIN(nbd->first->deadline_usec, deadline_usec) : deadline_usec;
	int r = 1;

	if (!session->dead)
		r = nbd_session_pump(session, wake_fd, until, cancel, ret_woken);
	if (r == 0 && nbd->first && nbd->first->deadline_usec <= clock_now_usec())
		nbd_session_die(session, -ETIMEDOUT, "%s: no answer to a %s within %llu ms",
			session->name, endpoint_op_name(nbd->first->request->op),
			(unsigned long long)(nbd->timeout_usec / USEC_PER_MSEC));
	/* What was answered before the connection was lost is lost with it. */
	reap(nbd);
	if (!session->dead)
		return r;
	bury(nbd);
	return 1;
}

static int nbd_ep_service(struct endpoint *endpoint, uint64_t deadline_usec, struct cancel *cancel)
{
	struct endpoint_nbd *nbd = (struct endpoint_nbd *)endpoint;
	uint64_t before = nbd->n_ended;

	reap(nbd); /* answered while the map was asked for */
	while (nbd->n_ended == before && endpoint->n_in_flight) {
		int r = turn(nbd, -1, deadline_usec, cancel, NULL);
		if (r == -ECANCELED)
			return r;
		if (r == 0 && deadline_usec <= clock_now_usec())
			return -ETIMEDOUT;
	}
	return 0;
}

static int nbd_ep_wait(
	struct endpoint *endpoint, int wake_fd, uint64_t deadline_usec, struct cancel *cancel)
{
	struct endpoint_nbd *nbd = (struct endpoint_nbd *)endpoint;

	for (;;) {
		bool woken = false;
		int r = turn(nbd, wake_fd, deadline_usec, cancel, &woken);
		if (nbd->session.dead)
			return nbd->session.dead;
		if (woken)
			return 0;
		if (r == -ECANCELED)
			return r;
		if (r == 0 && deadline_usec <= clock_now_usec())
			return -ETIMEDOUT;
	}
}

static int nbd_ep_submit(struct endpoint *endpoint, struct endpoint_request *request)
{
	struct endpoint_nbd *nbd = (struct endpoint_nbd *)endpoint;

	if (nbd->session.dead)
		return endpoint_fail(endpoint, nbd->session.dead, "%s", nbd->session.error);
	struct nbd_op *op = xcalloc(1, sizeof(*op));
	op->request = request;
	op->deadline_usec = clock_deadline(nbd->timeout_usec);
	(void)op_next_piece(op, 0);
	int r = op_issue(nbd, op);
	if (r < 0) {
		free(op);
		return endpoint_fail(endpoint, r, "%s", nbd->session.error);
	}
	op->previous = nbd->last;
	*(nbd->last ? &nbd->last->next : &nbd->first) = op;
	nbd->last = op;
	endpoint->n_in_flight++;
	return 0;
}

/* --- The map ------------------------------------------------------------------------------------
 */

/* One question. Owned by the library until it was answered, or the handle closed. */
struct question {
	uint64_t end;        /* of the part answered so far */
	struct extent found; /* first run of data; length 0: none yet */
	bool closed;         /* the run has ended */
	bool is_answered;
	int error;
};

/* Only what is said to read as zeros is no data: a hole alone promises nothing (NBD protocol,
 * "base:allocation"). Entries: pairs of a length and flags, in order. */
static int note_extents(void *arg, const char *context, uint64_t offset, uint32_t *entries,
	size_t n_entries, int *error)
{
	struct question *question = arg;

	(void)error;
	if (strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0 || offset != question->end)
		return 0;
	for (size_t i = 0; i + 1 < n_entries; i += 2) {
		uint64_t length = entries[i];
		bool is_data = !(entries[i + 1] & LIBNBD_STATE_ZERO);
		if (is_data && !question->found.length)
			question->found.offset = question->end;
		if (is_data && !question->closed)
			question->found.length += length;
		if (!is_data && question->found.length)
			question->closed = true;
		question->end += length;
	}
	return 0;
}

static int note_map(void *arg, int *error)
{
	struct question *question = arg;

	question->is_answered = true;
	question->error = -*error;
	return 1;
}

static int await_map(struct endpoint_nbd *nbd, struct question *question)
{
	struct nbd_session *session = &nbd->session;
	uint64_t deadline = clock_deadline(nbd->timeout_usec);

	while (!question->is_answered) {
		int r = nbd_session_pump(session, -1, deadline, nbd->cancel, NULL);
		if (r == 0)
			r = nbd_session_die(session, -ETIMEDOUT,
				"%s: no answer about its map within %llu ms", session->name,
				(unsigned long long)(nbd->timeout_usec / USEC_PER_MSEC));
		/* The question is on the caller's stack: the connection goes with it. */
		if (r == -ECANCELED)
			r = nbd_session_die(session, r, "%s: cancelled: %s", session->name,
				cancel_reason(nbd->cancel));
		if (r < 0) {
			nbd_session_bury(session);
			return r;
		}
	}
	return question->error;
}

static int ask_map(struct endpoint_nbd *nbd, uint64_t offset, uint64_t length,
	struct question *ret_question, struct fault *fault)
{
	struct nbd_session *session = &nbd->session;

	*ret_question = (struct question){.end = offset};
	if (session->dead)
		return fault_text(fault, session->dead, "%s", session->error);
	const nbd_extent_callback extents = {.callback = note_extents, .user_data = ret_question};
	const nbd_completion_callback done = {.callback = note_map, .user_data = ret_question};
	int r = nbd_aio_block_status(session->handle, length, offset, extents, done, 0) < 0
			? nbd_session_die(
				  session, -ECONNRESET, "%s: connection lost", session->name)
			: await_map(nbd, ret_question);
	if (r == 0 && ret_question->end <= offset)
		r = -EBADMSG;
	if (r == 0)
		return 0;
	endpoint_fail(&nbd->base, r, "map of %s at %llu: %s", session->name,
		(unsigned long long)offset, session->dead ? session->error : strerror(-r));
	return fault_text(fault, session->dead ? r : -EIO, "%s", nbd->base.error);
}

static int nbd_next_data(
	struct endpoint *endpoint, uint64_t offset, struct extent *ret_extent, struct fault *fault)
{
	struct endpoint_nbd *nbd = (struct endpoint_nbd *)endpoint;
	uint64_t size = endpoint->size_bytes;
	uint64_t at = offset;
	uint64_t window = MAP_FIRST;

	*ret_extent = (struct extent){
		nbd->session.has_map ? size : offset, nbd->session.has_map ? 0 : size - offset};
	while (nbd->session.has_map && at < size) {
		struct question question;
		int r = ask_map(nbd, at, MIN(window, size - at), &question, fault);
		if (r < 0)
			return r;
		if (question.found.length) {
			uint64_t end = MIN(question.found.offset + question.found.length, size);
			uint64_t block = endpoint->block_bytes;
			uint64_t from = MAX(question.found.offset / block * block, offset);
			uint64_t to = MIN((end + block - 1) / block * block, size);
			*ret_extent = (struct extent){from, to - from};
			return 0;
		}
		at = question.end;
		window = MIN(window * 2, MAP_MOST);
	}
	return 0;
}

/* Asks about the extent only: next_data goes on until it finds something. */
static int nbd_first_data(
	struct endpoint *endpoint, struct extent extent, uint64_t *ret_offset, struct fault *fault)
{
	struct endpoint_nbd *nbd = (struct endpoint_nbd *)endpoint;
	uint64_t end = MIN(extent.offset + extent.length, endpoint->size_bytes);
	uint64_t at = extent.offset;

	while (nbd->session.has_map && at < end) {
		struct question question;
		int r = ask_map(nbd, at, MIN(end - at, MAP_MOST), &question, fault);
		if (r < 0)
			return r;
		at = question.found.length ? question.found.offset : question.end;
		if (question.found.length)
			break;
	}
	*ret_offset = MAX(at / endpoint->block_bytes * endpoint->block_bytes, extent.offset);
	return 0;
}

/* --- Life ---------------------------------------------------------------------------------------
 */

static void nbd_ep_abort(struct endpoint *endpoint)
{
	struct endpoint_nbd *nbd = (struct endpoint_nbd *)endpoint;

	nbd_session_die(&nbd->session, -ECANCELED, "%s: closed", nbd->session.name);
	bury(nbd);
}

static void nbd_ep_close(struct endpoint *endpoint)
{
	struct endpoint_nbd *nbd = (struct endpoint_nbd *)endpoint;

	nbd_session_bye(&nbd->session);
	nbd_ep_abort(endpoint);
	nbd_session_deinit(&nbd->session);
	free(nbd);
}

static const struct endpoint_ops nbd_ops = {
	.close = nbd_ep_close,
	.next_data = nbd_next_data,
	.first_data = nbd_first_data,
	.submit = nbd_ep_submit,
	.service = nbd_ep_service,
	.abort = nbd_ep_abort,
	.wait = nbd_ep_wait,
};

int endpoint_nbd_open(const struct endpoint_spec *spec, struct cancel *cancel,
	struct endpoint **ret_endpoint, struct fault *fault)
{
	struct endpoint_nbd *nbd = xcalloc(1, sizeof(*nbd));
	struct endpoint *endpoint CLEANUP_ENDPOINT = &nbd->base;

	endpoint->ops = &nbd_ops;
	endpoint->writable = spec->writable;
	nbd->cancel = cancel;
	nbd->timeout_usec = spec->timeout_usec ? spec->timeout_usec : DEFAULT_TIMEOUT;
	int r = nbd_session_open(
		&nbd->session, spec, clock_deadline(nbd->timeout_usec), cancel, fault);
	if (r < 0)
		return r;
	endpoint->size_bytes = nbd->session.size_bytes;
	endpoint->block_bytes = nbd->session.block_bytes;
	*ret_endpoint = TAKE_PTR(endpoint);
	return 0;
}
