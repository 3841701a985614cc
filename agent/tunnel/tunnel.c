/* SPDX-License-Identifier: Apache-2.0 */
/* The receiver: one thread accepts, each connection has a thread of its own. Until a visitor has
 * opened a door it is a stranger: few of them are let stand, and when they are too many the one
 * that stands longest goes, so that silent ones keep nobody out. */
#include "agent/tunnel/tunnel.h"

#include "agent/tunnel/preamble.h"
#include "agent/tunnel/relay.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#define MAX_STRANGERS 64
#define STRANGER_USEC (10 * USEC_PER_SEC)
#define LOCAL_USEC    (5 * USEC_PER_SEC)
/* After an accept that failed for want of descriptors or memory, which no event ends. */
#define BREATH_USEC (100 * USEC_PER_MSEC)
/* Lines about refused strangers within a second: anyone can cause them. */
#define MAX_REFUSALS 5

/* Strings of its own. */
struct door {
	struct door *next;
	char *name;
	char *secret;
	char *socket_path; /* NULL: the port */
	uint16_t port;
	unsigned n_links, max_links;
	uint64_t unread_usec;
};

struct visitor {
	struct visitor *next;
	struct tunnel *tunnel;
	int fd; /* until the stream has it */
	char *peer;
	struct cancel *cut;
	pthread_t thread;
	struct door *door; /* tunnel->lock; NULL: a stranger */
	bool is_done;      /* tunnel->lock; the thread can be joined */
};

struct tunnel {
	int listen_fd;
	uint16_t port;
	int bell; /* eventfd: a stranger has become none */
	struct stream_identity *identity;
	struct cancel *stop;
	pthread_t thread;
	bool has_thread;
	bool is_crowded; /* the accepting thread's: it waits for a stranger to go */
	pthread_mutex_t lock;
	pthread_cond_t change; /* a door has lost a visitor */
	/* The rest is protected by the lock. */
	struct door *doors;
	struct visitor *visitors; /* the newest first */
	uint64_t refusals_usec;   /* when the second began in which they are counted */
	unsigned n_refusals;
};

/* --- Doors --------------------------------------------------------------------------------------
 */

/* With the lock held: where the door stands in the list, or the list's end. */
static struct door **find_door(struct tunnel *tunnel, const char *name)
{
	struct door **at = &tunnel->doors;

	while (*at && strcmp((*at)->name, name) != 0)
		at = &(*at)->next;
	return at;
}

static void free_door(struct door *door)
{
	gnutls_memset(door->secret, 0, strlen(door->secret));
	free(door->secret);
	free(door->name);
	free(door->socket_path);
	free(door);
}

int tunnel_open_door(struct tunnel *tunnel, const struct tunnel_door *door, struct fault *fault)
{
	int r = preamble_check(door->name, door->secret, fault);

	if (r < 0)
		return r;
	SCOPE_LOCK(&tunnel->lock);
	struct door **at = find_door(tunnel, door->name);
	if (*at)
		return fault_text(
			fault, -EEXIST, "tunnel: the door %s is open already", door->name);
	*at = xcalloc(1, sizeof(**at));
	**at = (struct door){
		.name = xstrdup(door->name),
		.secret = xstrdup(door->secret),
		.socket_path = xstrdup(door->socket_path),
		.port = door->port,
		.max_links = MAX(door->max_links, 1),
		.unread_usec = door->unread_usec,
	};
	return 0;
}

void tunnel_close_door(struct tunnel *tunnel, const char *name)
{
	SCOPE_LOCK(&tunnel->lock);
	struct door **at = find_door(tunnel, name);
	struct door *door = *at;

	if (!door)
		return;
	*at = door->next;
	for (struct visitor *visitor = tunnel->visitors; visitor; visitor = visitor->next)
		if (visitor->door == door)
			cancel_request(visitor->cut, "the door was closed");
	while (door->n_links)
		pthread_cond_wait(&tunnel->change, &tunnel->lock);
	free_door(door);
}

/* 0: the visitor has a place in the door, which stays as long; -EACCES, -EBUSY. */
static int enter_door(struct visitor *visitor, const struct preamble *preamble)
{
	struct tunnel *tunnel = visitor->tunnel;
	SCOPE_LOCK(&tunnel->lock);
	struct door *door = *find_door(tunnel, preamble->name);

	/* Without a door the same comparison is made, of the same duration. */
	if (!preamble_secret_is(preamble, door ? door->secret : "") || !door)
		return -EACCES;
	if (door->n_links == door->max_links)
		return -EBUSY;
	door->n_links++;
	visitor->door = door;
	return 0;
}

/* --- Visitors -----------------------------------------------------------------------------------
 */

static void ring(struct tunnel *tunnel)
{
	uint64_t one = 1;
	ssize_t ignored = write(tunnel->bell, &one, sizeof(one));

	(void)ignored; /* full: it has rung already */
}

static void log_refusal(struct visitor *visitor, const char *reason)
{
	struct tunnel *tunnel = visitor->tunnel;
	uint64_t now = clock_now_usec();

	pthread_mutex_lock(&tunnel->lock);
	if (now - tunnel->refusals_usec > USEC_PER_SEC) {
		tunnel->refusals_usec = now;
		tunnel->n_refusals = 0;
	}
	bool is_told = tunnel->n_refusals++ < MAX_REFUSALS;
	pthread_mutex_unlock(&tunnel->lock);
	if (is_told)
		log_warn("tunnel.refused", "peer=%s reason=\"%s\"", visitor->peer, reason);
}

/* Handshake and preamble: 0 with a door entered. */
static int admit(struct visitor *visitor, struct stream **ret_stream)
{
	const struct limit limit = {clock_deadline(STRANGER_USEC), visitor->cut};
	struct preamble preamble CLEANUP_PREAMBLE = {0};
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct stream *stream CLEANUP_STREAM = NULL;
	int r = stream_accept(
		TAKE_FD(visitor->fd), visitor->tunnel->identity, &limit, &stream, &fault);

	if (r < 0) {
		log_refusal(visitor, fault.n_params ? fault.params[0] : strerror(-r));
		return r;
	}
	r = preamble_receive(stream, &limit, &preamble);
	if (r == 0)
		r = enter_door(visitor, &preamble);
	if (r < 0)
		log_refusal(visitor, strerror(-r));
	if (r == -EBUSY)
		preamble_answer(stream, PREAMBLE_BUSY, &limit);
	if (r < 0)
		return r;
	*ret_stream = TAKE_PTR(stream);
	return 0;
}

static int connect_behind(
	const struct door *door, const struct cancel *cut, int *ret_fd, struct fault *fault)
{
	const struct limit limit = {clock_deadline(LOCAL_USEC), cut};

	return door->socket_path ? socket_connect_unix(door->socket_path, &limit, ret_fd, fault)
				 : socket_connect_loopback(door->port, &limit, ret_fd, fault);
}

static void serve(struct visitor *visitor)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct stream *stream CLEANUP_STREAM = NULL;
	int local_fd CLEANUP_CLOSE = -1;
	int r = admit(visitor, &stream);

	if (r < 0)
		return;
	ring(visitor->tunnel);
	/* What is read of a door does not change while it has this visitor. */
	const struct door *door = visitor->door;
	const struct limit limit = {clock_deadline(LOCAL_USEC), visitor->cut};
	const char *name = door->name;
	r = connect_behind(door, visitor->cut, &local_fd, &fault);
	if (r < 0) {
		char *text CLEANUP_FREE = fault_describe(&fault);
		log_warn(
			"tunnel.nobody", "door=%s peer=%s error=\"%s\"", name, visitor->peer, text);
		preamble_answer(stream, PREAMBLE_NOBODY, &limit);
		return;
	}
	r = preamble_answer(stream, PREAMBLE_OPEN, &limit);
	log_info("tunnel.opened", "door=%s peer=%s", name, visitor->peer);
	if (r == 0) {
		const struct relay_params params = {
			.side = RELAY_RECEIVER,
			.stream = stream,
			.local_fd = local_fd,
			.cut = visitor->cut,
			.unread_usec = door->unread_usec,
		};
		r = relay_run(&params);
	}
	log_info("tunnel.ended", "door=%s peer=%s how=\"%s\"", name, visitor->peer,
		r == 0 ? "both sides have ended" : strerror(-r));
}

static void *visitor_main(void *arg)
{
	struct visitor *visitor = arg;
	struct tunnel *tunnel = visitor->tunnel;

	serve(visitor);
	SCOPE_LOCK(&tunnel->lock);
	if (visitor->door) {
		visitor->door->n_links--;
		visitor->door = NULL;
		pthread_cond_broadcast(&tunnel->change);
	}
	visitor->is_done = true;
	ring(tunnel);
	return NULL;
}

static struct visitor *free_visitor(struct visitor *visitor)
{
	cleanup_close(&visitor->fd);
	cancel_free(visitor->cut);
	free(visitor->peer);
	free(visitor);
	return NULL;
}

static int start_thread(pthread_t *thread, void *(*function)(void *), void *arg)
{
	sigset_t all, before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int r = pthread_create(thread, NULL, function, arg);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -r;
}

static int start_visitor(struct tunnel *tunnel, int fd)
{
	struct visitor *visitor = xcalloc(1, sizeof(*visitor));

	socket_tune_tcp(fd);
	visitor->tunnel = tunnel;
	visitor->fd = fd;
	visitor->peer = socket_peer_name(fd);
	visitor->cut = cancel_new();
	SCOPE_LOCK(&tunnel->lock);
	int r = start_thread(&visitor->thread, visitor_main, visitor);
	if (r < 0) {
		free_visitor(visitor);
		return r;
	}
	visitor->next = tunnel->visitors;
	tunnel->visitors = visitor;
	return 0;
}

/* --- The accepting thread -----------------------------------------------------------------------
 */

/* Those who have gone. Joining waits for no more than the thread's last steps. */
static void reap(struct tunnel *tunnel)
{
	struct visitor *gone = NULL;

	pthread_mutex_lock(&tunnel->lock);
	for (struct visitor **at = &tunnel->visitors; *at;) {
		struct visitor *visitor = *at;
		if (!visitor->is_done) {
			at = &visitor->next;
			continue;
		}
		*at = visitor->next;
		visitor->next = gone;
		gone = visitor;
	}
	pthread_mutex_unlock(&tunnel->lock);
	while (gone) {
		struct visitor *next = gone->next;
		pthread_join(gone->thread, NULL);
		free_visitor(gone);
		gone = next;
	}
}

/* How many stand there, and the one who stands longest (NULL: none). */
static unsigned count_strangers(struct tunnel *tunnel, struct visitor **ret_oldest)
{
	unsigned n = 0;

	*ret_oldest = NULL;
	for (struct visitor *visitor = tunnel->visitors; visitor; visitor = visitor->next) {
		if (visitor->door || visitor->is_done)
			continue;
		*ret_oldest = visitor;
		n++;
	}
	return n;
}

/* False, and the oldest stranger is sent away, when there is no room for one more. */
static bool make_room(struct tunnel *tunnel)
{
	struct visitor *oldest;
	SCOPE_LOCK(&tunnel->lock);

	if (count_strangers(tunnel, &oldest) < MAX_STRANGERS)
		return true;
	cancel_request(oldest->cut, "others wait");
	return false;
}

static int welcome(struct tunnel *tunnel)
{
	tunnel->is_crowded = !make_room(tunnel);
	if (tunnel->is_crowded)
		return 0;
	int fd = accept4(tunnel->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	int r = fd < 0 ? -errno : start_visitor(tunnel, fd);
	/* Everything else is the end of one connection that was not even accepted. */
	bool is_short =
		r == -EMFILE || r == -ENFILE || r == -ENOBUFS || r == -ENOMEM || (r < 0 && fd >= 0);
	if (!is_short)
		return 0;
	log_error("tunnel.accept", "error=\"%s\"", strerror(-r));
	return cancel_sleep(tunnel->stop, BREATH_USEC);
}

static void *accept_main(void *arg)
{
	struct tunnel *tunnel = arg;
	uint64_t count;

	for (;;) {
		struct pollfd fds[] = {
			{.fd = tunnel->is_crowded ? -1 : tunnel->listen_fd, .events = POLLIN},
			{.fd = tunnel->bell, .events = POLLIN},
		};
		int r = cancel_poll(tunnel->stop, fds, ARRAY_SIZE(fds), USEC_FOREVER);
		if (r > 0 && fds[1].revents && read(tunnel->bell, &count, sizeof(count)) > 0)
			tunnel->is_crowded = false;
		reap(tunnel);
		if (r > 0 && fds[0].revents)
			r = welcome(tunnel);
		if (r < 0)
			return NULL;
	}
}

/* --- Life ---------------------------------------------------------------------------------------
 */

int tunnel_start(
	const struct tunnel_params *params, struct tunnel **ret_tunnel, struct fault *fault)
{
	struct tunnel *tunnel CLEANUP_TUNNEL = xcalloc(1, sizeof(*tunnel));

	tunnel->listen_fd = -1;
	pthread_mutex_init(&tunnel->lock, NULL);
	pthread_cond_init(&tunnel->change, NULL);
	tunnel->stop = cancel_new();
	tunnel->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int r = tunnel->bell < 0 ? fault_errno(fault, -errno, "data port: eventfd") : 0;
	if (r == 0)
		r = stream_identity_load(
			params->certificate_file, params->key_file, &tunnel->identity, fault);
	if (r == 0)
		r = socket_listen_tcp(
			params->address, params->port, &tunnel->listen_fd, &tunnel->port, fault);
	if (r < 0)
		return r;
	r = start_thread(&tunnel->thread, accept_main, tunnel);
	if (r < 0)
		return fault_errno(fault, r, "data port: its thread");
	tunnel->has_thread = true;
	*ret_tunnel = TAKE_PTR(tunnel);
	return 0;
}

static void cut_visitors(struct tunnel *tunnel)
{
	pthread_mutex_lock(&tunnel->lock);
	struct visitor *visitor = TAKE_PTR(tunnel->visitors);
	for (struct visitor *each = visitor; each; each = each->next)
		cancel_request(each->cut, "the agent stops");
	pthread_mutex_unlock(&tunnel->lock);
	while (visitor) {
		struct visitor *next = visitor->next;
		pthread_join(visitor->thread, NULL);
		free_visitor(visitor);
		visitor = next;
	}
}

struct tunnel *tunnel_stop(struct tunnel *tunnel)
{
	if (!tunnel)
		return NULL;
	cancel_request(tunnel->stop, "the agent stops");
	if (tunnel->has_thread)
		pthread_join(tunnel->thread, NULL);
	cut_visitors(tunnel);
	while (tunnel->doors) {
		struct door *door = tunnel->doors;
		tunnel->doors = door->next;
		free_door(door);
	}
	cleanup_close(&tunnel->listen_fd);
	cleanup_close(&tunnel->bell);
	stream_identity_free(tunnel->identity);
	cancel_free(tunnel->stop);
	pthread_cond_destroy(&tunnel->change);
	pthread_mutex_destroy(&tunnel->lock);
	free(tunnel);
	return NULL;
}

uint16_t tunnel_port(const struct tunnel *tunnel)
{
	return tunnel->port;
}
