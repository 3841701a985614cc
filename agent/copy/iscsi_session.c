/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/copy/iscsi_session.h"

#include "agent/tunnel/socket.h"
#include "agent/tunnel/tunnel.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/uuid.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

/* After the headers above: they need the types of stdint.h and the like. */
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#define MAX_ATTENTIONS  10
#define PAGE_SERIAL     0x80 /* SPC-4 7.8.15 */
#define MAX_NAME        223  /* RFC 7143 4.2.7.1 */
#define INQUIRY_BYTES   255
#define CAPACITY16_SIZE 16 /* up to the flags of SBC-3 5.16 */

/* libiscsi writes payload with writev(2), so a lost peer raises SIGPIPE; and LIBISCSI_* variables
 * would change credentials, time-outs and interfaces behind our back. */
static void prepare_process(void)
{
	static const char prefix[] = "LIBISCSI_";
	struct sigaction action;

	if (sigaction(SIGPIPE, NULL, &action) == 0 && action.sa_handler == SIG_DFL)
		signal(SIGPIPE, SIG_IGN);
	for (char **variable = environ; *variable;) {
		char *end = strchr(*variable, '=');
		if (!end || strncmp(*variable, prefix, sizeof(prefix) - 1) != 0) {
			variable++;
			continue;
		}
		char *name CLEANUP_FREE = xstrndup(*variable, (size_t)(end - *variable));
		unsetenv(name); /* Moves the rest up: look at this place again. */
	}
}

int iscsi_session_die(struct iscsi_session *session, int error, const char *format, ...)
{
	va_list args;

	if (session->dead)
		return session->dead;
	session->dead = error;
	va_start(args, format);
	vsnprintf(session->error, sizeof(session->error), format, args);
	va_end(args);
	return error;
}

static const char *library_error(struct iscsi_session *session)
{
	const char *text = session->context ? iscsi_get_error(session->context) : NULL;

	return text && *text ? text : "no reason given";
}

static void lose(struct iscsi_session *session)
{
	bool is_broken = session->link && tunnel_link_is_broken(session->link);

	iscsi_session_die(session, -ECONNRESET, "session with %s lost: %s%s", session->name,
		library_error(session),
		is_broken ? " (the link to the peer's data port broke)" : "");
}

int iscsi_session_pump(struct iscsi_session *session, int wake_fd, uint64_t deadline_usec,
	struct cancel *cancel, bool *ret_woken)
{
	struct pollfd fds[2] = {
		{.fd = iscsi_get_fd(session->context),
			.events = (short)iscsi_which_events(session->context)},
		{.fd = wake_fd, .events = POLLIN},
	};

	if (fds[0].fd < 0) {
		iscsi_session_die(
			session, -ECONNRESET, "session with %s lost: not connected", session->name);
		return 1;
	}
	int r = cancel_poll(cancel, fds, 2, deadline_usec);
	if (r <= 0)
		return r == 0 || r == -ECANCELED ? r : iscsi_session_die(session, r, "poll");
	if (ret_woken)
		*ret_woken = fds[1].revents != 0;
	if (!fds[0].revents)
		return 1;
	session->in_library = true;
	r = iscsi_service(session->context, fds[0].revents);
	session->in_library = false;
	if (r < 0)
		lose(session);
	return 1;
}

void iscsi_session_kick(struct iscsi_session *session)
{
	if (session->in_library || session->dead)
		return;
	session->in_library = true;
	int r = iscsi_service(session->context, POLLOUT);
	session->in_library = false;
	if (r < 0)
		lose(session);
}

bool iscsi_session_is_drained(const struct iscsi_session *session)
{
	return !session->context || (!(iscsi_which_events(session->context) & POLLOUT) &&
					    iscsi_out_queue_length(session->context) == 0);
}

/* --- One exchange at a time: opening and closing -------------------------------------------- */

static void step_done(
	struct iscsi_context *context, int status, void *command_data, void *private_data)
{
	struct iscsi_session *session = private_data;

	(void)context;
	(void)command_data;
	session->step.ended = true;
	session->step.status = status;
}

static void step_begin(struct iscsi_session *session)
{
	if (session->step.task)
		scsi_free_scsi_task(session->step.task);
	session->step.task = NULL;
	session->step.ended = false;
}

/* Waits for the step's end. Its status is for the caller. */
static int step_wait(struct iscsi_session *session, const char *what, uint64_t deadline_usec,
	struct cancel *cancel)
{
	while (!session->step.ended && !session->dead) {
		int r = iscsi_session_pump(session, -1, deadline_usec, cancel, NULL);
		if (r == -ECANCELED)
			return iscsi_session_die(session, r, "%s: cancelled: %s", session->name,
				cancel_reason(cancel));
		if (r == 0)
			return iscsi_session_die(session, -ETIMEDOUT,
				"%s: no answer to the %s in time", session->name, what);
	}
	/* A connection that fails ends the step and the session at once: the step tells more. */
	if (session->step.ended && session->step.status != SCSI_STATUS_CANCELLED)
		return 0;
	return session->dead ? session->dead
			     : iscsi_session_die(session, -ECONNRESET, "%s: lost during the %s",
				       session->name, what);
}

static int step_connect(struct iscsi_session *session, const char *address, uint16_t port,
	uint64_t deadline_usec, struct cancel *cancel)
{
	bool is_v6 = strchr(address, ':') != NULL;
	char *portal CLEANUP_FREE = xasprintf(is_v6 ? "[%s]:%u" : "%s:%u", address, (unsigned)port);

	step_begin(session);
	if (iscsi_connect_async(session->context, portal, step_done, session) != 0)
		return iscsi_session_die(session, -ECONNREFUSED, "cannot connect to %s: %s",
			session->name, library_error(session));
	int r = step_wait(session, "connection attempt", deadline_usec, cancel);
	if (r == 0 && session->step.status != SCSI_STATUS_GOOD) {
		session->dead = 0;
		r = iscsi_session_die(session, -ECONNREFUSED, "cannot connect to %s: %s",
			session->name, library_error(session));
	}
	return r;
}

static int open_link(struct iscsi_session *session, const struct endpoint_spec *spec,
	uint64_t deadline_usec, struct cancel *cancel)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	uint64_t now = clock_now_usec();
	int r = tunnel_link_open(
		&(struct tunnel_link_params){
			.address = spec->address,
			.port = spec->port,
			.fingerprint = spec->fingerprint,
			.door = spec->door,
			.secret = spec->door_secret,
			.timeout_usec = deadline_usec > now ? deadline_usec - now : 1,
		},
		cancel, &session->link, &fault);

	if (r == 0)
		return 0;
	/* To the caller it is one: the target cannot be reached now, another export may be. */
	if (r != -ETIMEDOUT && r != -ECANCELED && r != -EKEYREJECTED && r != -EINVAL &&
		r != -EPROTONOSUPPORT)
		r = -ECONNREFUSED;
	return iscsi_session_die(session, r, "cannot connect to %s: %s", session->name,
		fault.n_params ? fault.params[0] : strerror(-r));
}

/* libiscsi speaks through connections that it has made itself, to an address. So it is given a
 * listener of ours to connect to, and then our end of the link in the place of that connection, on
 * which nothing is ever said: it does not matter who else of this host connects there. */
static int step_attach(struct iscsi_session *session, uint64_t deadline_usec, struct cancel *cancel)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	int near_end CLEANUP_CLOSE = tunnel_link_take(session->link);
	int listener CLEANUP_CLOSE = -1;
	uint16_t port = 0;

	int r = socket_listen_tcp("127.0.0.1", 0, &listener, &port, &fault);
	if (r < 0)
		return iscsi_session_die(session, r, "%s: no socket for the session: %s",
			session->name, strerror(-r));
	r = step_connect(session, "127.0.0.1", port, deadline_usec, cancel);
	if (r == 0 && dup3(near_end, iscsi_get_fd(session->context), O_CLOEXEC) < 0)
		r = iscsi_session_die(session, -errno, "%s: no socket for the session: %s",
			session->name, strerror(errno));
	return r;
}

static int step_reach(struct iscsi_session *session, const struct endpoint_spec *spec,
	uint64_t deadline_usec, struct cancel *cancel)
{
	if (!spec->door)
		return step_connect(session, spec->address, spec->port, deadline_usec, cancel);
	int r = open_link(session, spec, deadline_usec, cancel);
	return r < 0 ? r : step_attach(session, deadline_usec, cancel);
}

static int step_login(struct iscsi_session *session, uint64_t deadline_usec, struct cancel *cancel)
{
	step_begin(session);
	if (iscsi_login_async(session->context, step_done, session) != 0)
		return iscsi_session_die(session, -ECONNRESET, "cannot log in to %s: %s",
			session->name, library_error(session));
	int r = step_wait(session, "login", deadline_usec, cancel);
	if (r < 0 || session->step.status == SCSI_STATUS_GOOD)
		return r;
	session->dead = 0;
	/* Following it would lead out of the tunnel, with our credentials. */
	if (session->step.status == SCSI_STATUS_REDIRECT)
		return iscsi_session_die(session, -EACCES,
			"%s wants to redirect the session elsewhere: refused", session->name);
	return iscsi_session_die(session, -EACCES, "%s refused the login: %s", session->name,
		library_error(session));
}

/* The step's task was queued by the caller; NULL: it could not be. */
static int step_command(struct iscsi_session *session, struct scsi_task *task, const char *what,
	uint64_t deadline_usec, struct cancel *cancel)
{
	session->step.task = task;
	if (!task)
		return iscsi_session_die(session, -ECONNRESET, "%s to %s: %s", what, session->name,
			library_error(session));
	return step_wait(session, what, deadline_usec, cancel);
}

/* The first commands of a session are answered with unit attentions (after login: 29h/00h). */
static int eat_attentions(
	struct iscsi_session *session, uint64_t deadline_usec, struct cancel *cancel)
{
	for (int i = 0; i < MAX_ATTENTIONS; i++) {
		step_begin(session);
		int r = step_command(session,
			iscsi_testunitready_task(session->context, ISCSI_LUN, step_done, session),
			"TEST UNIT READY", deadline_usec, cancel);
		if (r < 0 || session->step.status == SCSI_STATUS_GOOD)
			return r;
		if (session->step.status != SCSI_STATUS_CHECK_CONDITION ||
			session->step.task->sense.key != SCSI_SENSE_UNIT_ATTENTION)
			break;
	}
	return iscsi_session_die(session, -ESTALE, "%s has no LUN %d that is ready: %s",
		session->name, ISCSI_LUN, library_error(session));
}

static int check_serial(struct iscsi_session *session, const char *expected, uint64_t deadline_usec,
	struct cancel *cancel)
{
	step_begin(session);
	int r = step_command(session,
		iscsi_inquiry_task(session->context, ISCSI_LUN, 1, PAGE_SERIAL, INQUIRY_BYTES,
			step_done, session),
		"INQUIRY", deadline_usec, cancel);
	if (r < 0)
		return r;
	const unsigned char *data = session->step.task->datain.data;
	int size = session->step.task->datain.size;
	if (session->step.status != SCSI_STATUS_GOOD || !data || size < 4 || data[1] != PAGE_SERIAL)
		return iscsi_session_die(
			session, -ESTALE, "%s tells no serial number", session->name);
	size_t length = MIN((size_t)data[2] << 8 | data[3], (size_t)size - 4);
	const char *serial = (const char *)data + 4;
	while (length && (serial[length - 1] == ' ' || serial[length - 1] == '\0'))
		length--;
	while (length && *serial == ' ') {
		serial++;
		length--;
	}
	if (length == strlen(expected) && memcmp(serial, expected, length) == 0)
		return 0;
	char *shown CLEANUP_FREE = xstrndup(serial, MIN(length, (size_t)64));
	for (char *c = shown; *c; c++)
		*c = isprint((unsigned char)*c) ? *c : '?';
	return iscsi_session_die(session, -ESTALE,
		"%s has serial number \"%s\", not \"%s\": another or a re-made export",
		session->name, shown, expected);
}

static uint64_t big_endian(const unsigned char *bytes, size_t n)
{
	uint64_t value = 0;

	for (size_t i = 0; i < n; i++)
		value = value << 8 | bytes[i];
	return value;
}

static int check_capacity(struct iscsi_session *session, uint64_t expected_bytes,
	uint64_t deadline_usec, struct cancel *cancel)
{
	step_begin(session);
	int r = step_command(session,
		iscsi_readcapacity16_task(session->context, ISCSI_LUN, step_done, session),
		"READ CAPACITY(16)", deadline_usec, cancel);
	if (r < 0)
		return r;
	const unsigned char *data = session->step.task->datain.data;
	int size = session->step.task->datain.size;
	if (session->step.status != SCSI_STATUS_GOOD || !data || size < CAPACITY16_SIZE)
		return iscsi_session_die(session, -ESTALE, "%s tells no capacity: %s",
			session->name, library_error(session));
	uint64_t last_lba = big_endian(data, 8);
	uint64_t block = big_endian(data + 8, 4);
	if ((block != 512 && block != 4096) || expected_bytes % block ||
		expected_bytes / block == 0 || last_lba != expected_bytes / block - 1)
		return iscsi_session_die(session, -ESTALE,
			"%s has last block %llu of %llu bytes, not a capacity of %llu bytes",
			session->name, (unsigned long long)last_lba, (unsigned long long)block,
			(unsigned long long)expected_bytes);
	session->block_bytes = (uint32_t)block;
	session->size_bytes = expected_bytes;
	session->unmap_zeroes = (data[14] & 0xc0) == 0xc0; /* LBPME, LBPRZ */
	return 0;
}

/* --- Life ------------------------------------------------------------------------------------ */

static int check_spec(const struct endpoint_spec *spec, struct fault *fault)
{
	if (!spec->address || !spec->port || !spec->iqn || !spec->initiator || !spec->serial)
		return fault_text(fault, -EINVAL,
			"iSCSI endpoint: address, port, iqn, initiator and serial are needed");
	if (spec->door && (!spec->door_secret || !spec->fingerprint))
		return fault_text(
			fault, -EINVAL, "iSCSI endpoint: a door needs a secret and a fingerprint");
	if (strlen(spec->iqn) > MAX_NAME || strlen(spec->initiator) > MAX_NAME)
		return fault_text(
			fault, -EINVAL, "iSCSI endpoint: a name is longer than %d bytes", MAX_NAME);
	if ((spec->user && strlen(spec->user) > MAX_STRING_SIZE) ||
		(spec->secret && strlen(spec->secret) > MAX_STRING_SIZE))
		return fault_text(fault, -EINVAL,
			"iSCSI endpoint: user or secret is longer than %d bytes", MAX_STRING_SIZE);
	return 0;
}

static struct iscsi_context *new_context(const struct endpoint_spec *spec)
{
	/* Creating a context seeds the C library's generator through an unguarded static. */
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static atomic_uint counter;
	struct iscsi_context *context = NULL;
	uint32_t noise;

	{
		SCOPE_LOCK(&lock);
		context = iscsi_create_context(spec->initiator);
	}
	if (!context)
		return NULL;
	/* Two sessions of one initiator with the same ISID: the second would end the first (RFC
	 * 7143 6.3.5). The library draws it from 32 bits of time and pid. */
	random_bytes(&noise, sizeof(noise));
	int r = iscsi_set_isid_random(
		context, noise & 0xffffff, atomic_fetch_add(&counter, 1) & 0xffff);
	iscsi_set_noautoreconnect(context, 1);
	if (r == 0)
		r = iscsi_set_targetname(context, spec->iqn);
	if (r == 0)
		r = iscsi_set_session_type(context, ISCSI_SESSION_NORMAL);
	if (r == 0)
		r = iscsi_set_header_digest(context, ISCSI_HEADER_DIGEST_NONE);
	if (r == 0)
		r = iscsi_set_immediate_data(context, ISCSI_IMMEDIATE_DATA_YES);
	if (r == 0)
		r = iscsi_set_initial_r2t(context, ISCSI_INITIAL_R2T_NO);
	if (r == 0 && spec->user)
		r = iscsi_set_initiator_username_pwd(
			context, spec->user, spec->secret ? spec->secret : "");
	if (r == 0)
		return context;
	iscsi_destroy_context(context);
	return NULL;
}

int iscsi_session_open(struct iscsi_session *session, const struct endpoint_spec *spec,
	uint64_t deadline_usec, struct cancel *cancel, struct fault *fault)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	int r = check_spec(spec, fault);
	if (r < 0)
		return r;
	pthread_once(&once, prepare_process);
	session->name = xasprintf("iSCSI target %s at %s%s port %u", spec->iqn,
		spec->door ? "data port of " : "", spec->address, (unsigned)spec->port);
	session->context = new_context(spec);
	if (!session->context)
		return fault_errno(fault, -ENOMEM, "%s: cannot make a session", session->name);
	r = step_reach(session, spec, deadline_usec, cancel);
	if (r == 0)
		r = step_login(session, deadline_usec, cancel);
	if (r == 0)
		r = eat_attentions(session, deadline_usec, cancel);
	if (r == 0)
		r = check_serial(session, spec->serial, deadline_usec, cancel);
	if (r == 0)
		r = check_capacity(session, spec->size_bytes, deadline_usec, cancel);
	return r < 0 ? fault_text(fault, r, "%s", session->error) : 0;
}

void iscsi_session_logout(struct iscsi_session *session, uint64_t deadline_usec)
{
	if (session->dead || !session->context || !iscsi_is_logged_in(session->context))
		return;
	step_begin(session);
	if (iscsi_logout_async(session->context, step_done, session) == 0)
		(void)step_wait(session, "logout", deadline_usec, NULL);
}

void iscsi_session_bury(struct iscsi_session *session)
{
	if (!session->context)
		return;
	iscsi_destroy_context(TAKE_PTR(session->context));
	session->link = tunnel_link_close(session->link);
	step_begin(session);
}

void iscsi_session_deinit(struct iscsi_session *session)
{
	iscsi_session_die(session, -ECANCELED, "closed");
	iscsi_session_bury(session);
	free(session->name);
	session->name = NULL;
}
