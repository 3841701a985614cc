/* SPDX-License-Identifier: Apache-2.0 */
/* One thread, two directions, "up" from the local socket to the peer, "down" from the peer. In each
 * round both are moved as far as they go; the poll that follows waits only for what they lack. A
 * buffer is filled again when it is empty: small messages pass at once, and under load system calls
 * are large. */
#include "agent/tunnel/relay.h"

#include "agent/tunnel/block.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/inject.h"

#include <errno.h>
#include <sys/socket.h>

#define FLOW_BYTES BLOCK_BYTES
/* How long the peer may take to end its direction when nobody here listens any more. A connection
 * that is closed before could lose the last bytes that we have sent. */
#define LINGER_USEC (2 * USEC_PER_SEC)

struct flow {
	char *data;
	size_t start, end;
	bool at_end;  /* of what its source has */
	bool is_done; /* and all of it, and the end, has been handed on */
};

struct relay {
	const struct relay_params *params;
	struct flow up, down;
	struct packer *packer;     /* the sender's; NULL */
	struct unpacker *unpacker; /* the receiver's; NULL */
	const char *block;         /* what is sent of up: start and end are within it */
	size_t n_unpacked;         /* bytes that are in the block */
	bool has_said_end;
	bool is_deaf; /* the local side takes nothing any more */
	int error;    /* of the way to the peer */
	uint64_t linger_usec;
	uint64_t unread_usec; /* when the peer has to have taken all; 0: it has */
};

static bool is_empty(const struct flow *flow)
{
	return flow->start == flow->end;
}

/* What came before is still handed to the local side. */
static void mark_broken(struct relay *relay, int error)
{
	if (relay->error)
		return;
	relay->error = error;
	relay->up.is_done = true;
	if (relay->params->is_broken)
		atomic_store(relay->params->is_broken, true);
}

static void mark_deaf(struct relay *relay)
{
	relay->is_deaf = true;
	relay->down.start = relay->down.end = 0;
}

/* --- Up -----------------------------------------------------------------------------------------
 */

static bool read_local(struct relay *relay)
{
	struct flow *up = &relay->up;

	if (up->at_end || !is_empty(up))
		return false;
	ssize_t n = recv(relay->params->local_fd, up->data, FLOW_BYTES, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	/* An error says that it is gone without having read all that it was sent. */
	up->at_end = n <= 0;
	up->start = 0;
	up->end = n > 0 ? (size_t)n : 0;
	relay->block = up->data;
	relay->n_unpacked = up->end;
	if (relay->packer && n > 0) {
		packer_watch(relay->packer, clock_now_usec(), stream_sent(relay->params->stream),
			stream_has_unsent(relay->params->stream));
		up->end = packer_make(relay->packer, up->data, (size_t)n, &relay->block);
	}
	return true;
}

static void count_sent(struct relay *relay)
{
	if (relay->params->n_sent)
		atomic_fetch_add(relay->params->n_sent, (uint64_t)relay->n_unpacked);
	if (relay->params->n_wire)
		atomic_store(relay->params->n_wire, stream_sent(relay->params->stream));
}

static bool write_peer(struct relay *relay)
{
	struct flow *up = &relay->up;

	if (is_empty(up))
		return false;
	ssize_t n =
		stream_write(relay->params->stream, relay->block + up->start, up->end - up->start);
	if (n == -EAGAIN)
		return false;
	if (n < 0) {
		mark_broken(relay, (int)n);
		return true;
	}
	up->start += (size_t)n;
	if (INJECT_BYTES(n, "tunnel.cut") < 0)
		shutdown(stream_fd(relay->params->stream), SHUT_RDWR);
	if (is_empty(up))
		count_sent(relay);
	return true;
}

static void end_peer(struct relay *relay)
{
	if (!relay->up.at_end || !is_empty(&relay->up) || relay->has_said_end)
		return;
	int r = stream_end(relay->params->stream);
	if (r == 0)
		relay->has_said_end = true;
	else if (r != -EAGAIN)
		mark_broken(relay, r);
}

static bool move_up(struct relay *relay)
{
	bool has_moved = false;

	if (!relay->up.is_done) {
		has_moved = read_local(relay);
		has_moved |= write_peer(relay);
	}
	if (!relay->up.is_done)
		end_peer(relay);
	if (relay->error)
		return has_moved;
	/* What TLS itself has to say is sent even after our end. */
	bool had_unsent = stream_has_unsent(relay->params->stream);
	int r = stream_flush(relay->params->stream);
	if (r == 0)
		relay->up.is_done |= relay->has_said_end;
	else if (r != -EAGAIN)
		mark_broken(relay, r);
	return has_moved || (had_unsent && r != -EAGAIN);
}

/* --- Down ---------------------------------------------------------------------------------------
 */

static ssize_t read_stream(void *stream, void *data, size_t length)
{
	return stream_read(stream, data, length);
}

static ssize_t read_flow(struct relay *relay, void *data, size_t length)
{
	return relay->unpacker ? unpacker_read(relay->unpacker, data, length)
			       : stream_read(relay->params->stream, data, length);
}

static bool read_peer(struct relay *relay)
{
	struct flow *down = &relay->down;

	if (down->at_end || !is_empty(down))
		return false;
	down->start = down->end = 0;
	while (down->end < FLOW_BYTES) {
		ssize_t n = read_flow(relay, down->data + down->end, FLOW_BYTES - down->end);
		if (n == -EAGAIN)
			break;
		if (n > 0) {
			down->end += (size_t)n;
			continue;
		}
		if (n < 0)
			mark_broken(relay, (int)n);
		down->at_end = true;
		break;
	}
	bool has_moved = !is_empty(down) || down->at_end;
	if (relay->is_deaf)
		down->start = down->end = 0;
	return has_moved;
}

static bool write_local(struct relay *relay)
{
	struct flow *down = &relay->down;

	if (is_empty(down))
		return false;
	ssize_t n = send(relay->params->local_fd, down->data + down->start, down->end - down->start,
		MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n < 0)
		mark_deaf(relay);
	else
		down->start += (size_t)n;
	return true;
}

static bool move_down(struct relay *relay)
{
	struct flow *down = &relay->down;

	if (down->is_done)
		return false;
	bool has_moved = read_peer(relay);
	has_moved |= write_local(relay);
	if (!down->at_end || !is_empty(down))
		return has_moved;
	/* A connection that broke is no end: the local side sees it when its socket is closed. */
	if (!relay->error)
		shutdown(relay->params->local_fd, SHUT_WR);
	down->is_done = true;
	return true;
}

/* --- Waiting ------------------------------------------------------------------------------------
 */

static short peer_events(const struct relay *relay)
{
	bool wants_read = !relay->down.at_end && is_empty(&relay->down);
	bool wants_write = !relay->error && stream_has_unsent(relay->params->stream);

	return (short)((wants_read ? POLLIN : 0) | (wants_write ? POLLOUT : 0));
}

static short local_events(const struct relay *relay)
{
	bool wants_read = !relay->up.is_done && !relay->up.at_end && is_empty(&relay->up);

	return (short)((wants_read ? POLLIN : 0) | (is_empty(&relay->down) ? 0 : POLLOUT));
}

/* Whether the peer has left unread for too long what it is sent. */
static bool is_unread(struct relay *relay)
{
	uint64_t limit = relay->params->unread_usec;

	if (!limit || relay->error || !stream_has_unsent(relay->params->stream)) {
		relay->unread_usec = 0;
		return false;
	}
	if (!relay->unread_usec)
		relay->unread_usec = clock_deadline(limit);
	return relay->unread_usec <= clock_now_usec();
}

static uint64_t next_deadline(struct relay *relay)
{
	if (!relay->up.is_done || !relay->is_deaf)
		return USEC_FOREVER;
	if (!relay->linger_usec)
		relay->linger_usec = clock_deadline(LINGER_USEC);
	return relay->linger_usec;
}

static int await_more(struct relay *relay)
{
	short peer = peer_events(relay), local = local_events(relay);
	/* Even without events poll(2) tells of a connection that broke and of a local side that is
	 * gone; what is known already must not be told again and again. */
	struct pollfd fds[] = {
		{.fd = peer || !relay->error ? stream_fd(relay->params->stream) : -1,
			.events = peer},
		{.fd = local || !(relay->is_deaf || relay->down.is_done) ? relay->params->local_fd
									 : -1,
			.events = local},
	};
	uint64_t linger = next_deadline(relay);
	uint64_t deadline = relay->unread_usec ? MIN(relay->unread_usec, linger) : linger;
	int n = cancel_poll(relay->params->cut, fds, ARRAY_SIZE(fds), deadline);

	if (n < 0)
		return n;
	if (n == 0 && linger <= clock_now_usec())
		relay->down.is_done = true;
	if (fds[0].revents & (POLLERR | POLLHUP) && !(peer & POLLIN))
		mark_broken(relay, -ECONNRESET);
	if (fds[1].revents & (POLLERR | POLLHUP) && !relay->down.is_done)
		mark_deaf(relay);
	return 0;
}

static int carry(struct relay *relay)
{
	while (!relay->up.is_done || !relay->down.is_done) {
		bool has_moved = move_up(relay);
		has_moved |= move_down(relay);
		/* A flow that never waits must see the cut too. */
		if (cancel_is_requested(relay->params->cut))
			return -ECANCELED;
		if (is_unread(relay))
			return -ETIMEDOUT;
		if (has_moved)
			continue;
		int r = await_more(relay);
		if (r < 0)
			return r;
	}
	return relay->error;
}

int relay_run(const struct relay_params *params)
{
	char *up CLEANUP_FREE = xcalloc(1, BLOCK_HEAD_BYTES + FLOW_BYTES);
	char *down CLEANUP_FREE = xcalloc(1, FLOW_BYTES);
	bool is_sender = params->side == RELAY_SENDER;
	struct packer *packer CLEANUP_PACKER = is_sender ? packer_new() : NULL;
	struct unpacker *unpacker CLEANUP_UNPACKER =
		is_sender ? NULL : unpacker_new(read_stream, params->stream);
	struct relay relay = {
		.params = params,
		.up = {.data = up + BLOCK_HEAD_BYTES},
		.down = {.data = down},
		.packer = packer,
		.unpacker = unpacker,
	};

	return carry(&relay);
}
