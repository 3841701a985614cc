/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's side: starts the program, holds a connection to it, and hears how it ended. */
#include "agent/guest/watchdog.h"

#include "agent/guest/guest_spec.h"
#include "agent/guest/watchdog_words.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "base/run.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define START_USEC  (5 * USEC_PER_SEC)
#define ANSWER_USEC (2 * USEC_PER_SEC)
#define END_USEC    (2 * USEC_PER_SEC)
/* For one that an earlier agent left, and that may be about its duty just now. */
#define GRACE_USEC USEC_PER_SEC
#define RETRY_USEC (5 * USEC_PER_MSEC)
#define OUTPUT_MAX 65536
#define MAX_FILES  64

struct watchdog {
	char *vm_uuid;
	char *run_dir;
	struct child *child;
	int fd;
	bool guards_pause;
	bool is_disarmed;
};

/* Whether somebody listens there: the process is who listened, as the kernel says. */
static int connect_to(const char *run_dir, int *ret_fd, struct ucred *ret_peer)
{
	char *path CLEANUP_FREE = guest_file(run_dir, GUEST_WATCHDOG);
	int fd CLEANUP_CLOSE = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un name = {.sun_family = AF_UNIX};
	socklen_t length = sizeof(*ret_peer);

	if (strlen(path) >= sizeof(name.sun_path))
		return -ENAMETOOLONG;
	memcpy(name.sun_path, path, strlen(path) + 1);
	if (fd < 0 || connect(fd, (struct sockaddr *)&name, sizeof(name)) < 0 ||
		getsockopt(fd, SOL_SOCKET, SO_PEERCRED, ret_peer, &length) < 0)
		return -errno;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* --- One that was left --------------------------------------------------------------------------
 */

static bool is_connected(int fd)
{
	struct pollfd pollfd = {.fd = fd};

	return poll(&pollfd, 1, 0) == 0;
}

/* The process is held before the connection is seen to stand: so it is the one who listens, and not
 * another that has got its number since. */
static int end_left(const struct watchdog *watchdog, struct fault *fault)
{
	struct child *left = NULL;
	struct ucred peer = {0};
	int fd CLEANUP_CLOSE = -1;
	int r = connect_to(watchdog->run_dir, &fd, &peer);

	if (r == -ENOENT || r == -ECONNREFUSED)
		return 0;
	if (r < 0)
		return fault_errno(
			fault, r, "VM %s: looking for a watchdog that was left", watchdog->vm_uuid);
	if (peer.uid != geteuid())
		return fault_text(fault, -EPERM,
			"VM %s: process %d of uid %u is at the watchdog's "
			"socket",
			watchdog->vm_uuid, (int)peer.pid, (unsigned)peer.uid);
	if (run_adopt(peer.pid, &left, NULL) < 0)
		return 0;
	if (is_connected(fd) && run_wait(left, clock_deadline(GRACE_USEC)) < 0) {
		log_warn("watchdog.left", "vm=%s pid=%d: killed", watchdog->vm_uuid, (int)peer.pid);
		run_kill(left, SIGKILL);
		r = run_wait(left, clock_deadline(END_USEC));
	}
	run_leave(left);
	return r < 0 ? fault_errno(fault, r, "VM %s: the watchdog %d does not end",
			       watchdog->vm_uuid, (int)peer.pid)
		     : 0;
}

/* --- Start --------------------------------------------------------------------------------------
 */

static int start_process(
	struct watchdog *watchdog, const struct watchdog_params *params, struct fault *fault)
{
	char *budget CLEANUP_FREE = xasprintf("%" PRIu64, params->budget_usec);
	char *output CLEANUP_FREE = guest_file(params->run_dir, GUEST_WATCHDOG_LOG);
	const char *const argv[] = {params->program, "--run-dir", params->run_dir, "--vm",
		params->vm_uuid, "--budget-usec", budget, params->guards_pause ? "--pause" : NULL,
		NULL};
	const struct run_path path = {.path = params->run_dir, .writable = true};
	const struct run_params run_params = {
		.argv = argv,
		.paths = &path,
		.n_paths = 1,
		.max_files = MAX_FILES,
		.deny_connect = true,
		.outlives_with_output = output,
	};

	return run_start(&run_params, &watchdog->child, fault);
}

static int report_end(const struct watchdog *watchdog, struct fault *fault)
{
	char *path CLEANUP_FREE = guest_file(watchdog->run_dir, GUEST_WATCHDOG_LOG);
	struct buf text CLEANUP_BUF = BUF_INIT;

	/* The first line is the cause; it has written nothing when it is not there. */
	io_read_file(path, OUTPUT_MAX, &text);
	buf_append_string(&text, "\n");
	*strchr(text.data, '\n') = '\0';
	return fault_text(fault, -EIO, "VM %s: its watchdog did not start: %s", watchdog->vm_uuid,
		*text.data ? text.data : "(it wrote nothing)");
}

/* The socket appears in two steps (bind, listen) of which only the first is an event to wait for;
 * the wait is for the end of the process meanwhile. */
static int connect_started(struct watchdog *watchdog, uint64_t deadline_usec, struct fault *fault)
{
	struct ucred peer = {0};

	for (;;) {
		int r = connect_to(watchdog->run_dir, &watchdog->fd, &peer);
		if (r == 0 && peer.pid != run_pid(watchdog->child))
			return fault_text(fault, -ESRCH,
				"VM %s: process %d is at the watchdog's socket, not %d",
				watchdog->vm_uuid, (int)peer.pid, (int)run_pid(watchdog->child));
		if (r == 0)
			return 0;
		bool is_early = r == -ENOENT || r == -ECONNREFUSED;
		if (run_wait(watchdog->child, clock_deadline(RETRY_USEC)) == 0)
			return report_end(watchdog, fault);
		if (!is_early || clock_now_usec() >= deadline_usec)
			return fault_errno(
				fault, r, "VM %s: its watchdog's socket", watchdog->vm_uuid);
	}
}

/* One word. -ETIMEDOUT; -ECONNRESET: it has ended. */
static int hear(const struct watchdog *watchdog, uint64_t deadline_usec,
	char word[static WATCHDOG_WORD_MAX])
{
	struct pollfd pollfd = {.fd = watchdog->fd, .events = POLLIN};
	int r = cancel_poll(NULL, &pollfd, 1, deadline_usec);

	if (r <= 0)
		return r < 0 ? r : -ETIMEDOUT;
	ssize_t n = recv(watchdog->fd, word, WATCHDOG_WORD_MAX - 1, MSG_DONTWAIT);
	if (n <= 0)
		return -ECONNRESET;
	word[n] = '\0';
	return 0;
}

static int await_ready(struct watchdog *watchdog, struct fault *fault)
{
	uint64_t deadline = clock_deadline(START_USEC);
	char word[WATCHDOG_WORD_MAX];
	int r = connect_started(watchdog, deadline, fault);

	if (r < 0)
		return r;
	r = hear(watchdog, deadline, word);
	if (r == -ECONNRESET)
		return report_end(watchdog, fault);
	if (r < 0)
		return fault_errno(fault, r, "VM %s: waiting for its watchdog", watchdog->vm_uuid);
	if (strcmp(word, WATCHDOG_READY) != 0)
		return fault_text(fault, -EPROTO, "VM %s: its watchdog began with \"%s\"",
			watchdog->vm_uuid, word);
	return 0;
}

int watchdog_start(
	const struct watchdog_params *params, struct watchdog **ret_watchdog, struct fault *fault)
{
	struct watchdog *watchdog CLEANUP_WATCHDOG = xcalloc(1, sizeof(*watchdog));

	watchdog->fd = -1;
	watchdog->vm_uuid = xstrdup(params->vm_uuid);
	watchdog->run_dir = xstrdup(params->run_dir);
	watchdog->guards_pause = params->guards_pause;
	int r = end_left(watchdog, fault);
	if (r == 0)
		r = start_process(watchdog, params, fault);
	if (r == 0)
		r = await_ready(watchdog, fault);
	if (r < 0)
		return r;
	log_info(
		"watchdog.started", "vm=%s pid=%d", params->vm_uuid, (int)run_pid(watchdog->child));
	*ret_watchdog = TAKE_PTR(watchdog);
	return 0;
}

/* --- End ----------------------------------------------------------------------------------------
 */

/* Whatever it was about, it does nothing more after this. */
static void kill_silent(struct watchdog *watchdog)
{
	log_warn("watchdog.silent", "vm=%s pid=%d: killed", watchdog->vm_uuid,
		(int)run_pid(watchdog->child));
	run_kill(watchdog->child, SIGKILL);
	run_wait(watchdog->child, clock_deadline(END_USEC));
}

int watchdog_disarm(struct watchdog *watchdog, struct fault *fault)
{
	const char *vm = watchdog->vm_uuid;
	char word[WATCHDOG_WORD_MAX];

	if (watchdog->is_disarmed)
		return 0;
	/* When it has ended before, its last word waits to be read. */
	send(watchdog->fd, WATCHDOG_DISARM, strlen(WATCHDOG_DISARM), MSG_NOSIGNAL | MSG_DONTWAIT);
	int r = hear(watchdog, clock_deadline(ANSWER_USEC), word);
	if (r == -ETIMEDOUT)
		kill_silent(watchdog);
	if (r < 0)
		return fault_text(fault, -ECONNRESET,
			"VM %s: its watchdog is dead (%s); whether the guest runs must be looked "
			"at",
			vm, strerror(-r));
	if (strcmp(word, WATCHDOG_ACTED) == 0)
		return fault_text(fault, -ECANCELED,
			"VM %s: it was paused for longer than its budget, so its watchdog has %s; "
			"the guest runs on here",
			vm,
			watchdog->guards_pause ? "ended the pause"
					       : "cancelled the move of its memory");
	if (strcmp(word, WATCHDOG_DISARMED) != 0)
		return fault_text(fault, -EREMOTEIO,
			"VM %s: its watchdog tried to %s and failed; see %s/%s", vm,
			watchdog->guards_pause ? "end its pause" : "cancel the move of its memory",
			watchdog->run_dir, GUEST_WATCHDOG_LOG);
	watchdog->is_disarmed = true;
	return 0;
}

/* One that was never reached, or does not go by itself, is killed by run_free. */
static struct watchdog *end(struct watchdog *watchdog)
{
	if (watchdog->child && watchdog->fd >= 0)
		run_wait(watchdog->child, clock_deadline(END_USEC));
	run_free(watchdog->child);
	cleanup_close(&watchdog->fd);
	free(watchdog->vm_uuid);
	free(watchdog->run_dir);
	free(watchdog);
	return NULL;
}

struct watchdog *watchdog_stop(struct watchdog *watchdog)
{
	if (!watchdog)
		return NULL;
	if (watchdog->fd >= 0)
		watchdog_disarm(watchdog, NULL);
	return end(watchdog);
}

struct watchdog *watchdog_abandon(struct watchdog *watchdog)
{
	if (!watchdog)
		return NULL;
	shutdown(watchdog->fd, SHUT_RDWR);
	return end(watchdog);
}

pid_t watchdog_pid(const struct watchdog *watchdog)
{
	return run_pid(watchdog->child);
}
