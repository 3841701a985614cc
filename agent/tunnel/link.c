/* SPDX-License-Identifier: Apache-2.0 */
/* The sender's end of a link: let in at the peer first, then a local socket for the one who is to
 * speak through it (a listener, or one half of a pair), and a thread that carries. */
#include "agent/tunnel/preamble.h"
#include "agent/tunnel/relay.h"
#include "agent/tunnel/tunnel.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>

#define TIMEOUT_USEC (10 * USEC_PER_SEC)

struct tunnel_link {
	char *door;
	char *socket_path;
	int listen_fd;
	int pair[2]; /* without socket_path: the caller's until it has taken it, and the thread's */
	struct stream *stream;
	struct cancel *cut;
	struct cancel *ended;
	pthread_t thread;
	bool has_thread;
	_Atomic uint64_t n_sent, n_wire;
	atomic_bool is_broken;
};

/* The first who connects. The peer may break or end the connection before. */
static int await_local(struct tunnel_link *link, int *ret_fd)
{
	struct pollfd fds[] = {
		{.fd = link->listen_fd, .events = POLLIN},
		{.fd = stream_fd(link->stream), .events = POLLRDHUP},
	};

	for (;;) {
		int r = cancel_poll(link->cut, fds, ARRAY_SIZE(fds), USEC_FOREVER);
		if (r < 0)
			return r;
		if (fds[1].revents) {
			atomic_store(&link->is_broken, true);
			return -ECONNRESET;
		}
		*ret_fd = accept4(link->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (*ret_fd >= 0)
			return 0;
		if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)
			return -errno;
	}
}

static int carry(struct tunnel_link *link)
{
	int local_fd CLEANUP_CLOSE = TAKE_FD(link->pair[1]);
	int r = local_fd < 0 ? await_local(link, &local_fd) : 0;

	/* There is one, and whoever else tries is to see that nobody listens. */
	cleanup_close(&link->listen_fd);
	link->listen_fd = -1;
	if (r < 0)
		return r;
	const struct relay_params params = {
		.side = RELAY_SENDER,
		.stream = link->stream,
		.local_fd = local_fd,
		.cut = link->cut,
		.n_sent = &link->n_sent,
		.n_wire = &link->n_wire,
		.is_broken = &link->is_broken,
	};
	return relay_run(&params);
}

static void *link_main(void *arg)
{
	struct tunnel_link *link = arg;
	int r = carry(link);

	/* Here, and not when the link is freed: the peer is to learn now. */
	link->stream = stream_free(link->stream);
	log_info("tunnel.link_ended", "door=%s sent=%llu wire=%llu how=\"%s\"", link->door,
		(unsigned long long)tunnel_link_sent(link),
		(unsigned long long)tunnel_link_wire(link),
		r == 0 ? "both sides have ended" : strerror(-r));
	cancel_request(link->ended, "ended");
	return NULL;
}

static int start(struct tunnel_link *link, struct fault *fault)
{
	sigset_t all, before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int r = pthread_create(&link->thread, NULL, link_main, link);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r != 0)
		return fault_errno(fault, -r, "door %s: the link's thread", link->door);
	link->has_thread = true;
	return 0;
}

/* A secure connection that is let in. */
static int reach(struct tunnel_link *link, const struct tunnel_link_params *params,
	const struct cancel *cancel, struct fault *fault)
{
	uint64_t timeout_usec = params->timeout_usec ? params->timeout_usec : TIMEOUT_USEC;
	const struct limit limit = {clock_deadline(timeout_usec), cancel};
	int fd CLEANUP_CLOSE = -1;
	int r = socket_connect_tcp(params->address, params->port, &limit, &fd, fault);

	if (r < 0)
		return r;
	socket_tune_tcp(fd);
	r = stream_connect(TAKE_FD(fd), params->fingerprint, &limit, &link->stream, fault);
	if (r < 0)
		return r;
	return preamble_send(link->stream, params->door, params->secret, &limit, fault);
}

static int make_near_end(
	struct tunnel_link *link, const struct tunnel_link_params *params, struct fault *fault)
{
	const int type = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;

	if (!params->socket_path) {
		int r = socketpair(AF_UNIX, type, 0, link->pair) < 0 ? -errno : 0;
		return r < 0 ? fault_errno(fault, r, "door %s: a pair of sockets", link->door) : 0;
	}
	int r = socket_listen_unix(params->socket_path, &link->listen_fd, fault);
	if (r == 0)
		link->socket_path = xstrdup(params->socket_path);
	return r;
}

int tunnel_link_open(const struct tunnel_link_params *params, struct cancel *cancel,
	struct tunnel_link **ret_link, struct fault *fault)
{
	struct tunnel_link *link CLEANUP_TUNNEL_LINK = xcalloc(1, sizeof(*link));

	link->listen_fd = link->pair[0] = link->pair[1] = -1;
	link->door = xstrdup(params->door);
	link->cut = cancel_new();
	link->ended = cancel_new();
	int r = reach(link, params, cancel, fault);
	if (r == 0)
		r = make_near_end(link, params, fault);
	if (r == 0)
		r = start(link, fault);
	if (r < 0)
		return r;
	*ret_link = TAKE_PTR(link);
	return 0;
}

struct tunnel_link *tunnel_link_close(struct tunnel_link *link)
{
	if (!link)
		return NULL;
	cancel_request(link->cut, "closed");
	if (link->has_thread)
		pthread_join(link->thread, NULL);
	if (link->socket_path)
		unlink(link->socket_path);
	cleanup_close(&link->listen_fd);
	cleanup_close(&link->pair[0]);
	cleanup_close(&link->pair[1]);
	stream_free(link->stream);
	cancel_free(link->ended);
	cancel_free(link->cut);
	free(link->socket_path);
	free(link->door);
	free(link);
	return NULL;
}

int tunnel_link_take(struct tunnel_link *link)
{
	return TAKE_FD(link->pair[0]);
}

uint64_t tunnel_link_sent(const struct tunnel_link *link)
{
	return atomic_load(&link->n_sent);
}

uint64_t tunnel_link_wire(const struct tunnel_link *link)
{
	return atomic_load(&link->n_wire);
}

bool tunnel_link_is_broken(struct tunnel_link *link)
{
	return atomic_load(&link->is_broken);
}

int tunnel_link_fd(const struct tunnel_link *link)
{
	return cancel_fd(link->ended);
}
