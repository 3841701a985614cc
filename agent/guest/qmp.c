/* SPDX-License-Identifier: Apache-2.0 */
/* One thread per connection does all I/O: callers put their command into the queue, ring, and wait
 * for their slot. So no lock is held while the socket is slow. */
#include "agent/guest/qmp.h"

#include "agent/guest/qmp_reader.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/inject.h"
#include "base/json.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define RETRY_USEC (5 * USEC_PER_MSEC)
#define READ_BYTES 65536
/* Commands that QEMU does not read: more than that is a peer that hangs. */
#define MAX_QUEUE ((size_t)16 << 20)

/* QEMU takes up to eight commands in advance and then reads no more (QMP_REQ_QUEUE_LEN_MAX), not
 * even what is out of band: with so many unanswered, later ones wait here instead. */
#define MAX_UNANSWERED 6

/* Where one call waits for its reply; on the caller's stack. */
struct slot {
	struct slot *next;
	uint64_t id;
	bool is_oob;
	char *line; /* not yet sent; NULL: it is in the queue, or was sent */
	int fd;     /* to go along with the line, until it is in the queue; -1: none */
	int ready;  /* eventfd */
	bool answered;
	struct qmp_message reply;
};

struct qmp {
	int fd;
	int bell; /* eventfd: there is something to send */
	bool has_oob;
	pid_t peer;
	struct qmp_reader reader; /* the thread's own, after the handshake */
	void (*event)(void *arg, const char *name, const struct value *data);
	void (*lost)(void *arg, const char *reason);
	void *arg;
	struct cancel *closing;
	pthread_t thread;
	bool has_thread;
	pthread_mutex_t lock; /* protects the rest */
	struct slot *slots;
	uint64_t last_id;
	unsigned n_unanswered; /* in-band commands */
	struct buf queue;
	int passed_fd; /* goes with the byte of the queue at passed_at; -1: none */
	size_t passed_at;
	char *dead; /* why; NULL while it lives */
};

static void ring(int fd)
{
	uint64_t one = 1;
	ssize_t ignored = write(fd, &one, sizeof(one));

	(void)ignored; /* full: it has rung already */
}

static void hush(int fd)
{
	uint64_t count;
	ssize_t ignored = read(fd, &count, sizeof(count));

	(void)ignored;
}

/* --- The thread ---------------------------------------------------------------------------------
 */

/* Fails everybody who waits. False when it was dead before. */
static bool mark_dead(struct qmp *qmp, const char *reason)
{
	SCOPE_LOCK(&qmp->lock);
	if (qmp->dead)
		return false;
	qmp->dead = xstrdup(reason);
	for (struct slot *slot = qmp->slots; slot; slot = slot->next)
		ring(slot->ready);
	return true;
}

/* Out of band is marked by a letter, as a reply may come when its slot is gone. */
static void format_id(const struct slot *slot, char text[static 32])
{
	snprintf(text, 32, "%s%" PRIu64, slot->is_oob ? "o" : "", slot->id);
}

static void send_line(struct qmp *qmp, struct slot *slot)
{
	char *line CLEANUP_FREE = TAKE_PTR(slot->line);

	if (slot->fd >= 0) {
		qmp->passed_fd = TAKE_FD(slot->fd);
		qmp->passed_at = qmp->queue.length;
	}
	buf_append_string(&qmp->queue, line);
	if (!slot->is_oob)
		qmp->n_unanswered++;
}

/* The oldest that waits may go. */
static void send_held(struct qmp *qmp)
{
	struct slot *oldest = NULL;

	for (struct slot *slot = qmp->slots; slot; slot = slot->next)
		if (slot->line)
			oldest = slot; /* new ones are in front */
	if (oldest)
		send_line(qmp, oldest);
}

/* A reply without a slot is one that its caller no longer waited for. */
static void give_reply(struct qmp *qmp, struct qmp_message *message)
{
	SCOPE_LOCK(&qmp->lock);
	if (*message->id != 'o' && qmp->n_unanswered > 0) {
		qmp->n_unanswered--;
		send_held(qmp);
	}
	for (struct slot *slot = qmp->slots; slot; slot = slot->next) {
		char id[32];
		format_id(slot, id);
		if (slot->answered || strcmp(id, message->id) != 0)
			continue;
		slot->reply = *message;
		*message = (struct qmp_message)QMP_MESSAGE_INIT;
		slot->answered = true;
		ring(slot->ready);
		return;
	}
}

static int take_messages(struct qmp *qmp, struct fault *fault)
{
	for (;;) {
		struct qmp_message message CLEANUP_QMP_MESSAGE = QMP_MESSAGE_INIT;
		int r = qmp_reader_next(&qmp->reader, &message, fault);
		if (r <= 0)
			return r;
		if (message.kind == QMP_EVENT && qmp->event)
			qmp->event(qmp->arg, message.name, message.body);
		/* An error without an id answers a line that QEMU could not read: nobody's, and a
		 * sign that both ends no longer agree. */
		if (message.kind == QMP_ERROR && !*message.id)
			return fault_text(fault, -EBADMSG, "QMP: QEMU could not read a command: %s",
				message.text);
		if (message.kind == QMP_RETURN || message.kind == QMP_ERROR)
			give_reply(qmp, &message);
	}
}

/* Reads what is there. */
static int receive(struct qmp *qmp, struct fault *fault)
{
	char data[READ_BYTES];
	ssize_t n = recv(qmp->fd, data, sizeof(data), MSG_DONTWAIT);

	if (n == 0)
		return fault_text(fault, -ECONNRESET, "QMP: QEMU closed the connection");
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n < 0) {
		int error = -errno;
		return fault_errno(fault, error, "QMP: the connection");
	}
	return qmp_reader_feed(&qmp->reader, data, (size_t)n, fault);
}

static ssize_t send_with_fd(int socket, const void *data, size_t length, int fd)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr header; /* for its alignment */
	} control = {0};
	struct iovec piece = {.iov_base = (void *)data, .iov_len = length};
	struct msghdr message = {
		.msg_iov = &piece,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes),
	};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(header), &fd, sizeof(int));
	return sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* A descriptor goes with the first byte of its command, so that no other one takes it. */
static ssize_t send_piece(struct qmp *qmp)
{
	bool passes = qmp->passed_fd >= 0;
	size_t length = passes && qmp->passed_at > 0 ? qmp->passed_at : qmp->queue.length;
	ssize_t n;

	if (passes && qmp->passed_at == 0)
		n = send_with_fd(qmp->fd, qmp->queue.data, length, qmp->passed_fd);
	else
		n = send(qmp->fd, qmp->queue.data, length, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n <= 0 || !passes)
		return n;
	if (qmp->passed_at == 0)
		close(TAKE_FD(qmp->passed_fd));
	else
		qmp->passed_at -= (size_t)n;
	return n;
}

/* Sends what is queued as far as the socket takes it, without blocking. */
static int send_queue(struct qmp *qmp, struct fault *fault)
{
	SCOPE_LOCK(&qmp->lock);
	while (qmp->queue.length) {
		ssize_t n = send_piece(qmp);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return 0;
		if (n < 0) {
			int error = -errno;
			return fault_errno(fault, error, "QMP: the connection");
		}
		memmove(qmp->queue.data, qmp->queue.data + n, qmp->queue.length - (size_t)n);
		qmp->queue.length -= (size_t)n;
	}
	return 0;
}

static bool has_queue(struct qmp *qmp)
{
	SCOPE_LOCK(&qmp->lock);
	return qmp->queue.length > 0;
}

static int serve(struct qmp *qmp, struct fault *fault)
{
	/* The handshake may have read more than its own lines. */
	int r = take_messages(qmp, fault);

	while (r >= 0) {
		struct pollfd fds[] = {
			{.fd = qmp->fd, .events = POLLIN},
			{.fd = qmp->bell, .events = POLLIN},
		};
		if (has_queue(qmp))
			fds[0].events |= POLLOUT;
		r = cancel_poll(qmp->closing, fds, ARRAY_SIZE(fds), USEC_FOREVER);
		if (r < 0)
			return r;
		if (fds[1].revents)
			hush(qmp->bell);
		r = send_queue(qmp, fault);
		if (r == 0 && fds[0].revents & ~POLLOUT)
			r = receive(qmp, fault);
		if (r == 0)
			r = take_messages(qmp, fault);
	}
	return r;
}

static void *thread_main(void *arg)
{
	struct qmp *qmp = arg;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	int r = serve(qmp, &fault);

	if (r == -ECANCELED) {
		mark_dead(qmp, "QMP: the connection was closed");
		return NULL;
	}
	const char *reason = fault.n_params ? fault.params[0] : "QMP: the connection failed";
	if (mark_dead(qmp, reason) && qmp->lost)
		qmp->lost(qmp->arg, reason);
	return NULL;
}

static int start_thread(struct qmp *qmp, struct fault *fault)
{
	sigset_t all, before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int r = pthread_create(&qmp->thread, NULL, thread_main, qmp);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r != 0)
		return fault_errno(fault, -r, "QMP: its thread");
	qmp->has_thread = true;
	return 0;
}

/* --- Handshake ----------------------------------------------------------------------------------
 */

static int connect_socket(struct qmp *qmp, const struct qmp_params *params, struct fault *fault)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct ucred peer;
	socklen_t length = sizeof(peer);

	if (strlen(params->path) >= sizeof(address.sun_path))
		return fault_text(fault, -ENAMETOOLONG, "QMP: the path %s is too long for a socket",
			params->path);
	strcpy(address.sun_path, params->path);
	qmp->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (qmp->fd < 0) {
		int error = -errno;
		return fault_errno(fault, error, "QMP: socket");
	}
	/* EAGAIN: others wait to be accepted and there is no room; no event tells when there is. */
	while (connect(qmp->fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
		int error = -errno;
		if (error != -EAGAIN || clock_now_usec() >= params->deadline_usec)
			return fault_errno(fault, error, "QMP: cannot connect to %s", params->path);
		if (cancel_sleep(params->cancel, RETRY_USEC) < 0)
			return fault_text(fault, -ECANCELED, "QMP: cancelled");
	}
	if (getsockopt(qmp->fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0) {
		int error = -errno;
		return fault_errno(fault, error, "QMP: SO_PEERCRED of %s", params->path);
	}
	qmp->peer = peer.pid;
	return 0;
}

/* The next message, waited for. */
static int await_message(struct qmp *qmp, const struct qmp_params *params,
	struct qmp_message *ret_message, struct fault *fault)
{
	for (;;) {
		int r = qmp_reader_next(&qmp->reader, ret_message, fault);
		if (r != 0)
			return r;
		struct pollfd fd = {.fd = qmp->fd, .events = POLLIN};
		r = cancel_poll(params->cancel, &fd, 1, params->deadline_usec);
		if (r == 0)
			return fault_text(fault, -ETIMEDOUT,
				"QMP: no answer on %s in time; QEMU hangs, or another client holds "
				"its monitor",
				params->path);
		if (r < 0)
			return fault_errno(fault, r, "QMP: waiting for %s", params->path);
		r = receive(qmp, fault);
		if (r < 0)
			return r;
	}
}

static int await_greeting(struct qmp *qmp, const struct qmp_params *params, struct fault *fault)
{
	for (;;) {
		struct qmp_message message CLEANUP_QMP_MESSAGE = QMP_MESSAGE_INIT;
		int r = await_message(qmp, params, &message, fault);
		if (r < 0)
			return r;
		if (message.kind != QMP_GREETING)
			continue;
		qmp->has_oob =
			value_contains_string(value_find(message.body, "capabilities"), "oob");
		return 0;
	}
}

static int negotiate(struct qmp *qmp, const struct qmp_params *params, struct fault *fault)
{
	const char *line =
		qmp->has_oob
			? "{\"execute\":\"qmp_capabilities\",\"arguments\":{\"enable\":[\"oob\"]},"
			  "\"id\":\"0\"}\n"
			: "{\"execute\":\"qmp_capabilities\",\"id\":\"0\"}\n";

	/* A socket that was just connected takes these bytes. */
	if (send(qmp->fd, line, strlen(line), MSG_NOSIGNAL) != (ssize_t)strlen(line)) {
		int error = errno ? -errno : -EIO;
		return fault_errno(fault, error, "QMP: qmp_capabilities on %s", params->path);
	}
	for (;;) {
		struct qmp_message message CLEANUP_QMP_MESSAGE = QMP_MESSAGE_INIT;
		int r = await_message(qmp, params, &message, fault);
		if (r < 0)
			return r;
		if (message.kind == QMP_RETURN && strcmp(message.id, "0") == 0)
			return 0;
		if (message.kind == QMP_ERROR)
			return fault_text(fault, -EREMOTEIO, "QMP: qmp_capabilities on %s: %s",
				params->path, message.text);
	}
}

int qmp_open(const struct qmp_params *params, struct qmp **ret_qmp, struct fault *fault)
{
	struct qmp *qmp CLEANUP_QMP = xcalloc(1, sizeof(*qmp));

	pthread_mutex_init(&qmp->lock, NULL);
	qmp->fd = -1;
	qmp->passed_fd = -1;
	qmp->event = params->event;
	qmp->lost = params->lost;
	qmp->arg = params->arg;
	qmp->closing = cancel_new();
	qmp->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int r = qmp->bell < 0 ? fault_errno(fault, -errno, "QMP: eventfd")
			      : connect_socket(qmp, params, fault);
	if (r == 0)
		r = await_greeting(qmp, params, fault);
	if (r == 0)
		r = negotiate(qmp, params, fault);
	if (r == 0)
		r = start_thread(qmp, fault);
	if (r < 0)
		return r;
	*ret_qmp = TAKE_PTR(qmp);
	return 0;
}

struct qmp *qmp_close(struct qmp *qmp)
{
	if (!qmp)
		return NULL;
	cancel_request(qmp->closing, "closed");
	if (qmp->has_thread)
		pthread_join(qmp->thread, NULL);
	cleanup_close(&qmp->fd);
	cleanup_close(&qmp->bell);
	qmp_reader_clear(&qmp->reader);
	buf_free(&qmp->queue);
	cleanup_close(&qmp->passed_fd);
	cancel_free(qmp->closing);
	pthread_mutex_destroy(&qmp->lock);
	free(qmp->dead);
	free(qmp);
	return NULL;
}

pid_t qmp_peer(const struct qmp *qmp)
{
	return qmp->peer;
}

/* --- Calls --------------------------------------------------------------------------------------
 */

static char *new_line(const struct slot *slot, const char *command, const struct value *arguments)
{
	struct value *line CLEANUP_VALUE = value_new_struct();
	struct buf text CLEANUP_BUF = BUF_INIT;
	char id[32];

	format_id(slot, id);
	value_set_string(line, slot->is_oob ? "exec-oob" : "execute", command);
	if (arguments)
		value_set(line, "arguments", value_copy(arguments));
	value_set_string(line, "id", id);
	json_encode(line, &text);
	buf_append_char(&text, '\n');
	return buf_take_string(&text);
}

/* Under the lock. The descriptor is ours until it is sent, whatever the caller does. */
static int take_fd(struct qmp *qmp, struct slot *slot, int fd, struct fault *fault)
{
	bool is_busy = qmp->passed_fd >= 0;

	for (const struct slot *other = qmp->slots; other; other = other->next)
		is_busy = is_busy || other->fd >= 0;
	if (is_busy)
		return fault_text(fault, -EBUSY, "QMP: another file is being handed to QEMU");
	slot->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	return slot->fd < 0 ? fault_errno(fault, -errno, "QMP: descriptor %d", fd) : 0;
}

static int enter(struct qmp *qmp, struct slot *slot, int fd, const char *command,
	const struct value *arguments, struct fault *fault)
{
	SCOPE_LOCK(&qmp->lock);
	if (qmp->dead)
		return fault_text(fault, -ECONNRESET, "%s: %s", command, qmp->dead);
	if (qmp->queue.length > MAX_QUEUE)
		return fault_text(fault, -ECONNRESET,
			"%s: QEMU does not read its monitor's commands", command);
	if (fd >= 0) {
		int r = take_fd(qmp, slot, fd, fault);
		if (r < 0)
			return r;
	}
	slot->id = ++qmp->last_id;
	slot->line = new_line(slot, command, arguments);
	slot->next = qmp->slots;
	qmp->slots = slot;
	if (slot->is_oob || qmp->n_unanswered < MAX_UNANSWERED)
		send_line(qmp, slot);
	return 0;
}

static void leave(struct qmp *qmp, struct slot *slot)
{
	SCOPE_LOCK(&qmp->lock);
	struct slot **at = &qmp->slots;

	while (*at != slot)
		at = &(*at)->next;
	*at = slot->next;
	free(slot->line);
	cleanup_close(&slot->fd);
}

/* After leave(): the slot is the caller's alone. */
static int read_reply(struct qmp *qmp, struct slot *slot, const char *command,
	struct value **ret_value, struct fault *fault)
{
	if (!slot->answered) {
		SCOPE_LOCK(&qmp->lock);
		return fault_text(fault, -ECONNRESET, "%s: %s", command,
			qmp->dead ? qmp->dead : "QMP: the connection was closed");
	}
	if (slot->reply.kind == QMP_ERROR)
		return fault_text(fault, -EREMOTEIO, "QEMU refused %s: %s (%s)", command,
			slot->reply.text, slot->reply.name);
	if (ret_value)
		*ret_value = TAKE_PTR(slot->reply.body);
	return 0;
}

static int call(struct qmp *qmp, bool is_oob, int fd_along, const char *command,
	const struct value *arguments, uint64_t deadline_usec, const struct cancel *cancel,
	struct value **ret_value, struct fault *fault)
{
	int ready CLEANUP_CLOSE = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	struct slot slot = {.is_oob = is_oob, .fd = -1, .ready = ready};

	if (ready < 0)
		return fault_errno(fault, -errno, "%s: eventfd", command);
	int r = INJECT_FAULT(fault, "qmp.%s.before", command);
	if (r == 0)
		r = enter(qmp, &slot, fd_along, command, arguments, fault);
	if (r < 0)
		return r;
	ring(qmp->bell);
	struct pollfd fd = {.fd = ready, .events = POLLIN};
	int polled = cancel_poll(cancel, &fd, 1, deadline_usec);
	leave(qmp, &slot);
	/* An answer that came together with the deadline counts. */
	if (slot.answered || polled > 0)
		r = read_reply(qmp, &slot, command, ret_value, fault);
	else if (polled == 0)
		r = fault_text(fault, -ETIMEDOUT, "%s: QEMU did not answer in time", command);
	else
		r = fault_errno(fault, polled, "%s: waiting for QEMU", command);
	qmp_message_clear(&slot.reply);
	return r < 0 ? r : INJECT_FAULT(fault, "qmp.%s.after", command);
}

int qmp_call(struct qmp *qmp, const char *command, const struct value *arguments,
	uint64_t deadline_usec, const struct cancel *cancel, struct value **ret_value,
	struct fault *fault)
{
	return call(qmp, false, -1, command, arguments, deadline_usec, cancel, ret_value, fault);
}

int qmp_call_fd(struct qmp *qmp, const char *command, const struct value *arguments, int fd,
	uint64_t deadline_usec, const struct cancel *cancel, struct value **ret_value,
	struct fault *fault)
{
	return call(qmp, false, fd, command, arguments, deadline_usec, cancel, ret_value, fault);
}

int qmp_call_oob(struct qmp *qmp, const char *command, const struct value *arguments,
	uint64_t deadline_usec, const struct cancel *cancel, struct value **ret_value,
	struct fault *fault)
{
	if (!qmp->has_oob)
		return fault_text(
			fault, -EOPNOTSUPP, "%s: this QEMU takes no out-of-band commands", command);
	return call(qmp, true, -1, command, arguments, deadline_usec, cancel, ret_value, fault);
}
