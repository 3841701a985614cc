/* SPDX-License-Identifier: Apache-2.0 */
/* ferry-watchdog: see agent/guest/watchdog.h.
 *
 * The one law here: from `device` on the destination may hold the whole guest, and a cancel would
 * let both run. The agent disarms before it lets QEMU go on from `pre-switchover`, so an armed
 * watchdog that finds an earlier state may cancel, and one that finds a later state does nothing,
 * whatever has happened.
 *
 * There it never says `cont`: a move that is cancelled resumes the guest if it ran before, which
 * nobody knows better than QEMU, and leaves one that somebody has paused as it was. Only with
 * --pause it does: nothing moves then, and the agent has seen that the guest ran. */
#include "agent/guest/guest_spec.h"
#include "agent/guest/qmp.h"
#include "agent/guest/watchdog_words.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/parse.h"

#include <errno.h>
#include <getopt.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define START_USEC (4 * USEC_PER_SEC)
/* A QEMU whose main loop hangs does not answer; the end of the connection ends the wait before. */
#define ACT_USEC (60 * USEC_PER_SEC)
/* Events tell of each change; a look in between, should one be missing. */
#define LOOK_USEC (100 * USEC_PER_MSEC)
/* The last word of an agent that is dead may still be on its way to QEMU. */
#define LATE_USEC (300 * USEC_PER_MSEC)

struct options {
	const char *run_dir;
	const char *vm;
	uint64_t budget_usec;
	bool is_pause;
};

struct duty;

/* What is guarded. */
struct guard {
	const char *query; /* command that tells its state */
	const char *held;  /* the state in which the guest stands still */
	/* 0: the guest is as it was before. */
	int (*give_back)(struct duty *duty);
};

struct duty {
	const struct options *options;
	const struct guard *guard;
	int listen_fd;
	int agent_fd;
	struct qmp *qmp;
	struct cancel *lost; /* QEMU is gone */
	int bell;            /* eventfd: the state has changed */
	/* Since when the guest is held; 0: it is not. Written by the monitor's thread. */
	_Atomic uint64_t held_usec;
};

/* --- What the monitor tells ---------------------------------------------------------------------
 */

/* Whether the event tells of the guarded state, and whether the guest is held in it. */
static bool tells(
	const struct duty *duty, const char *name, const struct value *data, bool *ret_is_held)
{
	if (duty->options->is_pause) {
		*ret_is_held = strcmp(name, "STOP") == 0;
		return *ret_is_held || strcmp(name, "RESUME") == 0;
	}
	*ret_is_held = strcmp(value_find_string(data, "status", ""), duty->guard->held) == 0;
	return strcmp(name, "MIGRATION") == 0;
}

static void monitor_event(void *arg, const char *name, const struct value *data)
{
	struct duty *duty = arg;
	uint64_t one = 1;
	bool is_held;

	if (!tells(duty, name, data, &is_held))
		return;
	atomic_store(&duty->held_usec, is_held ? clock_now_usec() : 0);
	ssize_t ignored = write(duty->bell, &one, sizeof(one));
	(void)ignored; /* full: it has rung already */
}

static void monitor_lost(void *arg, const char *reason)
{
	struct duty *duty = arg;

	cancel_request(duty->lost, reason);
}

static void hush(struct duty *duty)
{
	uint64_t count;
	ssize_t ignored = read(duty->bell, &count, sizeof(count));

	(void)ignored;
}

/* --- What QEMU answers --------------------------------------------------------------------------
 */

static int ask(
	struct duty *duty, const char *command, uint64_t deadline_usec, struct value **ret_value)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	int r = qmp_call(duty->qmp, command, NULL, deadline_usec, duty->lost, ret_value, &fault);

	if (r < 0 && !cancel_is_requested(duty->lost)) {
		char *text CLEANUP_FREE = fault_describe(&fault);
		log_error("watchdog.monitor", "vm=%s error=\"%s\"", duty->options->vm, text);
	}
	return r;
}

/* The member `status` of the answer, "" if there is none. */
static int ask_status(
	struct duty *duty, const char *command, uint64_t deadline_usec, char status[static 32])
{
	struct value *answer CLEANUP_VALUE = NULL;
	int r = ask(duty, command, deadline_usec, &answer);

	if (r == 0)
		snprintf(status, 32, "%s", value_find_string(answer, "status", ""));
	return r;
}

static bool is_one_of(const char *status, const char *const *list)
{
	while (*list && strcmp(status, *list) != 0)
		list++;
	return *list;
}

/* May be cancelled: nothing of it can run at the destination. */
static bool can_be_cancelled(const char *migration)
{
	static const char *const list[] = {
		"setup", "wait-unplug", "active", "pre-switchover", NULL};

	return is_one_of(migration, list);
}

/* Has ended without having been handed over, or has never begun. */
static bool is_over(const char *migration)
{
	static const char *const list[] = {"", "none", "cancelled", "failed", NULL};

	return is_one_of(migration, list);
}

/* --- The act ------------------------------------------------------------------------------------
 */

/* Waits for the next change, or a moment. */
static int await_change(struct duty *duty)
{
	struct pollfd fd = {.fd = duty->bell, .events = POLLIN};
	int r = cancel_poll(duty->lost, &fd, 1, clock_deadline(LOOK_USEC));

	if (r >= 0)
		hush(duty);
	return MIN(r, 0);
}

/* Waits until what was cancelled has ended. */
static int await_over(struct duty *duty, uint64_t deadline_usec, char migration[static 32])
{
	for (;;) {
		int r = ask_status(duty, "query-migrate", deadline_usec, migration);
		if (r < 0)
			return r;
		if (strcmp(migration, "cancelling") != 0 && !can_be_cancelled(migration))
			return 0;
		if (clock_now_usec() >= deadline_usec)
			return -ETIMEDOUT;
		r = await_change(duty);
		if (r < 0)
			return r;
	}
}

/* A move that has failed, unlike one that was cancelled, is over a little before the guest runs. */
static int await_resumed(struct duty *duty, uint64_t deadline_usec)
{
	char run_state[32];

	for (;;) {
		int r = ask_status(duty, "query-status", deadline_usec, run_state);
		if (r < 0 || strcmp(run_state, "finish-migrate") != 0)
			return r;
		if (clock_now_usec() >= deadline_usec)
			return -ETIMEDOUT;
		r = cancel_sleep(duty->lost, LOOK_USEC);
		if (r < 0)
			return r;
	}
}

/* 0: the guest is as it was before the move; -EBUSY: it may be at the destination. */
static int cancel_move(struct duty *duty)
{
	uint64_t deadline = clock_deadline(ACT_USEC);
	char migration[32];
	int r = ask_status(duty, "query-migrate", deadline, migration);

	if (r == 0 && can_be_cancelled(migration))
		r = ask(duty, "migrate_cancel", deadline, NULL);
	if (r == 0)
		r = await_over(duty, deadline, migration);
	if (r == 0 && !is_over(migration)) {
		log_warn("watchdog.too_late", "vm=%s migration=%s", duty->options->vm, migration);
		return -EBUSY;
	}
	return r < 0 ? r : await_resumed(duty, deadline);
}

static const struct guard move_guard = {"query-migrate", "pre-switchover", cancel_move};

static int end_pause(struct duty *duty)
{
	uint64_t deadline = clock_deadline(ACT_USEC);
	uint64_t late = clock_deadline(LATE_USEC);
	char run_state[32];

	for (;;) {
		int r = ask_status(duty, "query-status", deadline, run_state);
		if (r == 0 && strcmp(run_state, "paused") == 0)
			return ask(duty, "cont", deadline, NULL);
		if (r == 0 && clock_now_usec() >= late)
			return 0;
		if (r == 0)
			r = await_change(duty);
		if (r < 0)
			return r;
	}
}

static const struct guard pause_guard = {"query-status", "paused", end_pause};

static void say(struct duty *duty, const char *word)
{
	ssize_t ignored = send(duty->agent_fd, word, strlen(word), MSG_NOSIGNAL | MSG_DONTWAIT);

	(void)ignored; /* the agent may be gone, or sees by our end that something is wrong */
}

static int act(struct duty *duty, const char *reason)
{
	log_warn("watchdog.acts", "vm=%s reason=\"%s\"", duty->options->vm, reason);
	int r = duty->guard->give_back(duty);
	if (r < 0)
		log_warn("watchdog.failed", "vm=%s error=\"%s\"", duty->options->vm, strerror(-r));
	else
		log_info("watchdog.done", "vm=%s", duty->options->vm);
	say(duty, r < 0 ? WATCHDOG_FAILED : WATCHDOG_ACTED);
	return r;
}

/* --- Watching -----------------------------------------------------------------------------------
 */

/* When its time is up: an event that is on its way may say that it has been continued. */
static int act_if_held(struct duty *duty, bool *ret_has_acted)
{
	char state[32];
	int r = ask_status(duty, duty->guard->query, clock_deadline(ACT_USEC), state);

	if (r < 0)
		return r;
	if (strcmp(state, duty->guard->held) != 0) {
		atomic_store(&duty->held_usec, 0);
		return 0;
	}
	*ret_has_acted = true;
	return act(duty, "the guest has been paused for longer than its budget");
}

/* The agent's word, or its end. */
static int heed_agent(struct duty *duty)
{
	char word[WATCHDOG_WORD_MAX] = "";
	ssize_t n = recv(duty->agent_fd, word, sizeof(word) - 1, MSG_DONTWAIT);

	if (n > 0 && strcmp(word, WATCHDOG_DISARM) == 0) {
		log_info("watchdog.disarmed", "vm=%s", duty->options->vm);
		say(duty, WATCHDOG_DISARMED);
		return 0;
	}
	return act(duty, "the agent is gone");
}

/* Until it is disarmed, has acted, or QEMU is gone. */
static int watch(struct duty *duty)
{
	for (;;) {
		uint64_t held_usec = atomic_load(&duty->held_usec);
		bool has_acted = false;
		struct pollfd fds[] = {
			{.fd = duty->agent_fd, .events = POLLIN},
			{.fd = duty->bell, .events = POLLIN},
		};
		uint64_t deadline =
			held_usec ? held_usec + duty->options->budget_usec : USEC_FOREVER;
		int r = cancel_poll(duty->lost, fds, ARRAY_SIZE(fds), deadline);
		if (r < 0)
			return r;
		/* First: a DISARM that came in time counts. */
		if (fds[0].revents)
			return heed_agent(duty);
		if (fds[1].revents)
			hush(duty);
		if (r == 0)
			r = act_if_held(duty, &has_acted);
		if (r < 0 || has_acted)
			return r;
	}
}

/* --- Start --------------------------------------------------------------------------------------
 */

static int open_monitor(struct duty *duty, struct fault *fault)
{
	char *path CLEANUP_FREE = guest_file(duty->options->run_dir, GUEST_QMP_SPARE);
	const struct qmp_params params = {
		.path = path,
		.deadline_usec = clock_deadline(START_USEC),
		.event = monitor_event,
		.lost = monitor_lost,
		.arg = duty,
	};
	char state[32];
	int r = qmp_open(&params, &duty->qmp, fault);

	if (r == 0 && ask_status(duty, duty->guard->query, params.deadline_usec, state) < 0)
		r = fault_text(fault, -EIO, "the monitor %s does not answer", path);
	if (r < 0)
		return r;
	/* An event that has come meanwhile knows better. */
	uint64_t none = 0;
	if (strcmp(state, duty->guard->held) == 0)
		atomic_compare_exchange_strong(&duty->held_usec, &none, clock_now_usec());
	return 0;
}

static int open_socket(struct duty *duty, struct fault *fault)
{
	char *path CLEANUP_FREE = guest_file(duty->options->run_dir, GUEST_WATCHDOG);
	struct sockaddr_un name = {.sun_family = AF_UNIX};

	if (strlen(path) >= sizeof(name.sun_path))
		return fault_text(
			fault, -ENAMETOOLONG, "the path %s is too long for a socket", path);
	memcpy(name.sun_path, path, strlen(path) + 1);
	/* One that was there has ended: the agent has seen to that. */
	unlink(path);
	duty->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (duty->listen_fd < 0 || fchmod(duty->listen_fd, 0600) < 0 ||
		bind(duty->listen_fd, (struct sockaddr *)&name, sizeof(name)) < 0 ||
		listen(duty->listen_fd, 4) < 0) {
		int error = -errno;
		return fault_errno(fault, error, "cannot listen on %s", path);
	}
	return 0;
}

/* The socket stays open for others who connect: it tells a later agent that we are still here. */
static int accept_agent(struct duty *duty, struct fault *fault)
{
	struct pollfd fd = {.fd = duty->listen_fd, .events = POLLIN};
	struct ucred peer;
	socklen_t length = sizeof(peer);
	int r = cancel_poll(duty->lost, &fd, 1, clock_deadline(START_USEC));

	if (r <= 0)
		return fault_errno(fault, r < 0 ? r : -ETIMEDOUT, "no agent has connected");
	duty->agent_fd = accept4(duty->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (duty->agent_fd < 0 ||
		getsockopt(duty->agent_fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0) {
		int error = -errno;
		return fault_errno(fault, error, "the agent's connection");
	}
	if (peer.uid != geteuid())
		return fault_text(fault, -EPERM, "process %d of uid %u is not the agent",
			(int)peer.pid, (unsigned)peer.uid);
	say(duty, WATCHDOG_READY);
	log_info("watchdog.armed", "vm=%s agent=%d", duty->options->vm, (int)peer.pid);
	return 0;
}

static int run(const struct options *options, struct fault *fault)
{
	struct duty duty = {
		.options = options,
		.guard = options->is_pause ? &pause_guard : &move_guard,
		.listen_fd = -1,
		.agent_fd = -1,
		.lost = cancel_new(),
		.bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
	};
	int r = duty.bell < 0 ? fault_errno(fault, -errno, "eventfd") : open_monitor(&duty, fault);

	if (r == 0)
		r = open_socket(&duty, fault);
	if (r == 0)
		r = accept_agent(&duty, fault);
	if (r == 0)
		r = watch(&duty);
	/* What ended it stands in the log. A guest that has gone needs no watchdog. */
	if (cancel_is_requested(duty.lost)) {
		log_info("watchdog.guest_gone", "vm=%s reason=\"%s\"", options->vm,
			cancel_reason(duty.lost));
		r = 0;
	}
	qmp_close(duty.qmp);
	cleanup_close(&duty.agent_fd);
	cleanup_close(&duty.listen_fd);
	cleanup_close(&duty.bell);
	cancel_free(duty.lost);
	return r;
}

static bool parse_options(int argc, char **argv, struct options *options)
{
	static const struct option known[] = {
		{"run-dir", required_argument, NULL, 'r'},
		{"vm", required_argument, NULL, 'v'},
		{"budget-usec", required_argument, NULL, 'b'},
		{"pause", no_argument, NULL, 'p'},
		{NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
		if (c == 'r')
			options->run_dir = optarg;
		else if (c == 'v')
			options->vm = optarg;
		else if (c == 'p')
			options->is_pause = true;
		else if (c != 'b' || parse_uint64(optarg, &options->budget_usec) < 0)
			return false;
	}
	return optind == argc && options->run_dir && options->vm && options->budget_usec;
}

int main(int argc, char **argv)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct options options = {0};

	if (!parse_options(argc, argv, &options)) {
		fputs("usage: ferry-watchdog --run-dir DIR --vm UUID --budget-usec NUMBER "
		      "[--pause]\n"
		      "It is started by ferryd; see ferryd(8).\n",
			stderr);
		return 2;
	}
	if (run(&options, &fault) == 0)
		return 0;
	if (fault.code) {
		char *text CLEANUP_FREE = fault_describe(&fault);
		log_error("watchdog.start", "vm=%s error=\"%s\"", options.vm, text);
	}
	return 1;
}
