/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/guest/guest.h"

#include "agent/guest/guest_find.h"
#include "agent/guest/guest_watch.h"
#include "agent/guest/qmp.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "base/run.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define START_USEC   (20 * USEC_PER_SEC)
#define FIND_USEC    (3 * USEC_PER_SEC)
#define COMMAND_USEC (5 * USEC_PER_SEC)
#define QUIT_USEC    (2 * USEC_PER_SEC)
#define KILL_USEC    (10 * USEC_PER_SEC)
#define RETRY_USEC   (10 * USEC_PER_MSEC)
#define WATCH_USEC   USEC_PER_SEC
/* A guest writes to its console as it likes; the log begins anew when it is that long. */
#define LOG_MAX_BYTES  (4 << 20)
#define OUTPUT_MAX     65536
#define MAX_OPEN_FILES 4096

struct guest {
	char *uuid;
	char *run_dir;
	struct guest_callbacks callbacks;
	struct guest_events *events;
	struct child *child;
	struct cancel *stop; /* the watcher is to end */
	struct cancel *lost; /* the monitor broke: requested by its thread */
	pthread_t watcher;
	bool has_watcher;
	pthread_mutex_t lock; /* protects the rest */
	struct qmp *qmp;      /* set once, and closed by guest_free */
	char *reason;         /* what SHUTDOWN said of its end */
	bool is_killed;
};

/* --- What the monitor tells ---------------------------------------------------------------------
 */

static void note_shutdown(struct guest *guest, const struct value *data)
{
	bool by_guest = value_find_bool(data, "guest", false);
	SCOPE_LOCK(&guest->lock);

	free(guest->reason);
	guest->reason = xasprintf("%s (%s)", by_guest ? "the guest shut down" : "it was shut down",
		value_find_string(data, "reason", "unknown"));
}

static void monitor_event(void *arg, const char *name, const struct value *data)
{
	struct guest *guest = arg;

	if (strcmp(name, "SHUTDOWN") == 0)
		note_shutdown(guest, data);
	guest_events_tell(guest->events, name, data);
	if (guest->callbacks.event)
		guest->callbacks.event(guest->callbacks.arg, name, data);
}

static void monitor_lost(void *arg, const char *reason)
{
	struct guest *guest = arg;

	cancel_request(guest->lost, reason);
}

static struct qmp *monitor_of(struct guest *guest)
{
	SCOPE_LOCK(&guest->lock);
	return guest->qmp;
}

/* Connects, and proves that the one who answers is that process, for that VM. */
static int open_monitor(struct guest *guest, uint64_t deadline_usec, const struct cancel *cancel,
	struct fault *fault)
{
	char *path CLEANUP_FREE = guest_file(guest->run_dir, GUEST_QMP);
	struct qmp *qmp CLEANUP_QMP = NULL;
	struct value *answer CLEANUP_VALUE = NULL;
	const struct qmp_params params = {
		.path = path,
		.deadline_usec = deadline_usec,
		.cancel = cancel,
		.event = monitor_event,
		.lost = monitor_lost,
		.arg = guest,
	};
	int r = qmp_open(&params, &qmp, fault);

	if (r < 0)
		return r;
	if (qmp_peer(qmp) != run_pid(guest->child))
		return fault_text(fault, -ESRCH, "The monitor %s is process %d's, not %d's", path,
			(int)qmp_peer(qmp), (int)run_pid(guest->child));
	r = qmp_call(qmp, "query-uuid", NULL, deadline_usec, cancel, &answer, fault);
	if (r < 0)
		return r;
	const char *uuid = value_find_string(answer, "UUID", "");
	if (strcmp(uuid, guest->uuid) != 0)
		return fault_text(fault, -ESRCH, "The monitor %s is of the VM %s, not of %s", path,
			uuid, guest->uuid);
	SCOPE_LOCK(&guest->lock);
	guest->qmp = TAKE_PTR(qmp);
	return 0;
}

/* --- The watcher --------------------------------------------------------------------------------
 */

static void bound_log(const struct guest *guest)
{
	char *path CLEANUP_FREE = guest_file(guest->run_dir, GUEST_LOG);
	struct stat st;

	if (lstat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > LOG_MAX_BYTES &&
		truncate(path, 0) < 0)
		log_warn("guest.log", "file=%s error=\"%s\"", path, strerror(errno));
}

/* The last two lines that QEMU wrote, as one ("load of migration failed" stands below its cause);
 * "" if none. The caller frees it. */
static char *last_output(const struct guest *guest)
{
	char *path CLEANUP_FREE = guest_file(guest->run_dir, GUEST_OUTPUT);
	struct buf text CLEANUP_BUF = BUF_INIT;

	if (io_read_file(path, OUTPUT_MAX, &text) < 0)
		return xstrdup("");
	while (text.length && strchr("\r\n ", text.data[text.length - 1]))
		text.data[--text.length] = '\0';
	if (!text.length)
		return xstrdup("");
	char *last = strrchr(text.data, '\n');
	if (!last)
		return xstrdup(text.data);
	*last = '\0';
	const char *before = strrchr(text.data, '\n');
	return xasprintf("%s; %s", before ? before + 1 : text.data, last + 1);
}

static char *describe_end(struct guest *guest)
{
	int status = run_status(guest->child);
	char *output CLEANUP_FREE = last_output(guest);
	SCOPE_LOCK(&guest->lock);

	if (cancel_is_requested(guest->lost) && guest->is_killed)
		return xasprintf("it was killed: %s", cancel_reason(guest->lost));
	if (guest->is_killed)
		return xstrdup("it was ended by force");
	if (status >= 0 && WIFSIGNALED(status))
		return xasprintf("QEMU was killed by signal %d", WTERMSIG(status));
	if (guest->reason)
		return xstrdup(guest->reason);
	if (status >= 0 && WIFEXITED(status) && WEXITSTATUS(status))
		return xasprintf("QEMU ended with status %d: %s", WEXITSTATUS(status), output);
	return xstrdup("QEMU ended");
}

static void kill_lost(struct guest *guest)
{
	log_error("guest.monitor_lost", "vm=%s pid=%d reason=\"%s\": killed", guest->uuid,
		(int)run_pid(guest->child), cancel_reason(guest->lost));
	pthread_mutex_lock(&guest->lock);
	guest->is_killed = true;
	pthread_mutex_unlock(&guest->lock);
	run_kill(guest->child, SIGKILL);
}

/* At its end QEMU closes the monitor a little before it is gone: a second is given for that. */
static void end_lost(struct guest *guest)
{
	struct pollfd fd = {.fd = run_fd(guest->child), .events = POLLIN};

	if (cancel_poll(guest->stop, &fd, 1, clock_deadline(WATCH_USEC)) == 0)
		kill_lost(guest);
}

static void *watcher_main(void *arg)
{
	struct guest *guest = arg;

	for (;;) {
		struct pollfd fds[] = {
			{.fd = run_fd(guest->child), .events = POLLIN},
			{.fd = cancel_fd(guest->lost), .events = POLLIN},
		};
		bool is_lost = cancel_is_requested(guest->lost);
		int r = cancel_poll(guest->stop, fds, is_lost ? 1 : 2, clock_deadline(WATCH_USEC));
		if (r < 0)
			return NULL;
		if (!run_is_alive(guest->child))
			break;
		if (!is_lost && fds[1].revents)
			end_lost(guest);
		if (!monitor_of(guest) && r == 0)
			open_monitor(guest, clock_deadline(WATCH_USEC), guest->stop, NULL);
		bound_log(guest);
	}
	char *reason CLEANUP_FREE = describe_end(guest);
	log_info("guest.ended", "vm=%s pid=%d reason=\"%s\"", guest->uuid,
		(int)run_pid(guest->child), reason);
	guest_events_end(guest->events);
	if (guest->callbacks.ended)
		guest->callbacks.ended(guest->callbacks.arg, reason);
	return NULL;
}

static int start_watcher(struct guest *guest, struct fault *fault)
{
	sigset_t all, before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int r = pthread_create(&guest->watcher, NULL, watcher_main, guest);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r != 0)
		return fault_errno(fault, -r, "VM %s: its watcher", guest->uuid);
	guest->has_watcher = true;
	return 0;
}

/* --- Start --------------------------------------------------------------------------------------
 */

static struct guest *guest_new(
	const char *uuid, const char *run_dir, const struct guest_callbacks *callbacks)
{
	struct guest *guest = xcalloc(1, sizeof(*guest));

	pthread_mutex_init(&guest->lock, NULL);
	guest->uuid = xstrdup(uuid);
	guest->run_dir = xstrdup(run_dir);
	guest->stop = cancel_new();
	guest->lost = cancel_new();
	guest->events = guest_events_new();
	guest->callbacks = *callbacks;
	return guest;
}

static bool can_use_kvm(void)
{
	return access("/dev/kvm", R_OK | W_OK) == 0;
}

const char *guest_accelerator(void)
{
	return can_use_kvm() ? "kvm" : "tcg";
}

int guest_ask_accelerator(struct guest *guest, const struct cancel *cancel,
	const char **ret_accelerator, struct fault *fault)
{
	struct value *answer CLEANUP_VALUE = NULL;
	int r = guest_command(guest, "query-kvm", NULL, cancel, &answer, fault);

	if (r == 0)
		*ret_accelerator = value_find_bool(answer, "enabled", false) ? "kvm" : "tcg";
	return r;
}

static struct run_path *new_paths(const struct guest_spec *spec, size_t *ret_n)
{
	struct run_path *paths = xcalloc(spec->n_disks + spec->n_drives + 4, sizeof(*paths));
	size_t n = 0;

	paths[n++] = (struct run_path){.path = spec->run_dir, .writable = true};
	if (can_use_kvm())
		paths[n++] = (struct run_path){.path = "/dev/kvm", .writable = true};
	if (spec->kernel)
		paths[n++] = (struct run_path){.path = spec->kernel};
	if (spec->ramdisk)
		paths[n++] = (struct run_path){.path = spec->ramdisk};
	for (size_t i = 0; i < spec->n_disks; i++)
		paths[n++] = (struct run_path){
			.path = spec->disks[i].path, .writable = !spec->disks[i].read_only};
	for (size_t i = 0; i < spec->n_drives; i++)
		if (spec->drives[i].path)
			paths[n++] = (struct run_path){.path = spec->drives[i].path};
	*ret_n = n;
	return paths;
}

static int start_process(struct guest *guest, const struct guest_spec *spec, const char *program,
	struct fault *fault)
{
	/* Where the device is there but does not work, QEMU falls back by itself. */
	char **argv = guest_argv_new(spec, program, can_use_kvm() ? "kvm:tcg" : "tcg");
	char *output CLEANUP_FREE = guest_file(spec->run_dir, GUEST_OUTPUT);
	size_t n_paths;
	struct run_path *paths CLEANUP_FREE = new_paths(spec, &n_paths);
	const struct run_params params = {
		.argv = (const char *const *)argv,
		.paths = paths,
		.n_paths = n_paths,
		.max_files = MAX_OPEN_FILES,
		.deny_connect = true,
		.outlives_with_output = output,
	};
	int r = run_start(&params, &guest->child, fault);

	guest_argv_free(argv);
	return r;
}

/* The process ended while it started: its own words are the best there are. */
static int report_early_end(struct guest *guest, struct fault *fault)
{
	char *output CLEANUP_FREE = last_output(guest);
	int status = run_status(guest->child);

	if (status >= 0 && WIFSIGNALED(status))
		return fault_text(fault, -EIO, "QEMU was killed by signal %d while it started: %s",
			WTERMSIG(status), *output ? output : "(it wrote nothing)");
	return fault_text(
		fault, -EIO, "QEMU did not start: %s", *output ? output : "(it wrote nothing)");
}

/* The socket appears in two steps (bind, listen) of which only the first is an event to wait for.
 */
static int await_monitor(struct guest *guest, const struct cancel *cancel, struct fault *fault)
{
	uint64_t deadline = clock_deadline(START_USEC);

	for (;;) {
		int r = open_monitor(guest, deadline, cancel, fault);
		if (r == 0 || r == -ECANCELED)
			return r;
		bool is_early = r == -ENOENT || r == -ECONNREFUSED;
		/* One that dies closes the connection a little before it is gone. */
		uint64_t pause = is_early ? RETRY_USEC : USEC_PER_SEC;
		if (run_wait(guest->child, clock_deadline(pause)) == 0)
			return report_early_end(guest, fault);
		if (!is_early || clock_now_usec() >= deadline)
			return r;
		if (cancel_is_requested(cancel))
			return fault_text(fault, -ECANCELED, "QEMU's start was cancelled");
	}
}

int guest_start(const struct guest_spec *spec, const char *program,
	const struct guest_callbacks *callbacks, const struct cancel *cancel,
	struct guest **ret_guest, struct fault *fault)
{
	int r = guest_spec_check(spec, fault);

	if (r < 0)
		return r;
	if (mkdir(spec->run_dir, 0700) < 0) {
		r = -errno;
		return fault_errno(fault, r, "VM %s: run folder %s", spec->uuid, spec->run_dir);
	}
	struct guest *guest CLEANUP_GUEST = guest_new(spec->uuid, spec->run_dir, callbacks);
	r = start_process(guest, spec, program, fault);
	if (r == 0)
		r = await_monitor(guest, cancel, fault);
	if (r == 0)
		r = start_watcher(guest, fault);
	if (r < 0) {
		guest->child = run_free(guest->child);
		return r;
	}
	log_info("guest.started", "vm=%s pid=%d", spec->uuid, (int)run_pid(guest->child));
	*ret_guest = TAKE_PTR(guest);
	return 0;
}

int guest_find(const char *uuid, const char *run_dir, const struct guest_callbacks *callbacks,
	struct guest **ret_guest, struct fault *fault)
{
	struct fault unanswered CLEANUP_FAULT = FAULT_INIT;
	struct guest *guest CLEANUP_GUEST = guest_new(uuid, run_dir, callbacks);
	int r = guest_find_process(uuid, run_dir, &guest->child, fault);

	if (r <= 0)
		return r;
	if (open_monitor(guest, clock_deadline(FIND_USEC), NULL, &unanswered) < 0) {
		char *text CLEANUP_FREE = fault_describe(&unanswered);
		log_warn("guest.no_answer", "vm=%s pid=%d error=\"%s\"", uuid,
			(int)run_pid(guest->child), text);
	}
	r = start_watcher(guest, fault);
	if (r < 0)
		return r;
	log_info("guest.found", "vm=%s pid=%d", uuid, (int)run_pid(guest->child));
	*ret_guest = TAKE_PTR(guest);
	return 1;
}

struct guest *guest_free(struct guest *guest)
{
	if (!guest)
		return NULL;
	cancel_request(guest->stop, "no longer watched");
	if (guest->has_watcher)
		pthread_join(guest->watcher, NULL);
	qmp_close(guest->qmp);
	if (guest->child && run_is_alive(guest->child))
		run_leave(guest->child);
	else
		run_free(guest->child);
	guest_events_free(guest->events);
	cancel_free(guest->lost);
	cancel_free(guest->stop);
	pthread_mutex_destroy(&guest->lock);
	free(guest->reason);
	free(guest->run_dir);
	free(guest->uuid);
	free(guest);
	return NULL;
}

int guest_forget_run_dir(const char *run_dir)
{
	static const char *const names[] = {GUEST_QMP, GUEST_QMP_SPARE, GUEST_CONSOLE, GUEST_LOG,
		GUEST_PIDFILE, GUEST_OUTPUT, GUEST_MEMORY, GUEST_NBD, GUEST_WATCHDOG,
		GUEST_WATCHDOG_LOG};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		char *path CLEANUP_FREE = guest_file(run_dir, names[i]);
		if (unlink(path) < 0 && errno != ENOENT)
			return -errno;
	}
	return rmdir(run_dir) < 0 && errno != ENOENT ? -errno : 0;
}

/* --- Operations ---------------------------------------------------------------------------------
 */

pid_t guest_pid(const struct guest *guest)
{
	return run_pid(guest->child);
}

const char *guest_run_dir(const struct guest *guest)
{
	return guest->run_dir;
}

struct guest_watch *guest_watch_new(struct guest *guest)
{
	return guest_events_watch(guest->events);
}

bool guest_is_alive(struct guest *guest)
{
	return run_is_alive(guest->child);
}

uint64_t guest_resident_bytes(const struct guest *guest)
{
	return guest_process_resident(run_pid(guest->child));
}

typedef int (*qmp_caller)(struct qmp *qmp, const char *command, const struct value *arguments,
	uint64_t deadline_usec, const struct cancel *cancel, struct value **ret_value,
	struct fault *fault);

static int no_monitor(const struct guest *guest, const char *command, struct fault *fault)
{
	return fault_text(fault, -ETIMEDOUT,
		"%s: the monitor of the VM's QEMU (process %d) has not answered yet", command,
		(int)run_pid(guest->child));
}

static int call(struct guest *guest, qmp_caller caller, const char *command,
	const struct value *arguments, uint64_t deadline_usec, const struct cancel *cancel,
	struct value **ret_value, struct fault *fault)
{
	struct qmp *qmp = monitor_of(guest);

	if (!qmp)
		return no_monitor(guest, command, fault);
	return caller(qmp, command, arguments, deadline_usec, cancel, ret_value, fault);
}

int guest_command(struct guest *guest, const char *command, const struct value *arguments,
	const struct cancel *cancel, struct value **ret_value, struct fault *fault)
{
	return call(guest, qmp_call, command, arguments, clock_deadline(COMMAND_USEC), cancel,
		ret_value, fault);
}

int guest_command_until(struct guest *guest, const char *command, const struct value *arguments,
	uint64_t deadline_usec, const struct cancel *cancel, struct value **ret_value,
	struct fault *fault)
{
	return call(guest, qmp_call, command, arguments, deadline_usec, cancel, ret_value, fault);
}

int guest_command_fd(struct guest *guest, const char *command, const struct value *arguments,
	int fd, struct value **ret_value, struct fault *fault)
{
	struct qmp *qmp = monitor_of(guest);

	if (!qmp)
		return no_monitor(guest, command, fault);
	return qmp_call_fd(
		qmp, command, arguments, fd, clock_deadline(COMMAND_USEC), NULL, ret_value, fault);
}

int guest_command_oob(struct guest *guest, const char *command, const struct value *arguments,
	struct value **ret_value, struct fault *fault)
{
	return call(guest, qmp_call_oob, command, arguments, clock_deadline(COMMAND_USEC), NULL,
		ret_value, fault);
}

int guest_is_running(struct guest *guest, bool *ret_is_running, struct fault *fault)
{
	struct value *status CLEANUP_VALUE = NULL;
	int r = guest_command(guest, "query-status", NULL, NULL, &status, fault);

	if (r == 0)
		*ret_is_running = value_find_bool(status, "running", false);
	return r;
}

int guest_pause(struct guest *guest, struct fault *fault)
{
	return guest_command(guest, "stop", NULL, NULL, NULL, fault);
}

int guest_unpause(struct guest *guest, struct fault *fault)
{
	return guest_command(guest, "cont", NULL, NULL, NULL, fault);
}

int guest_let_run(struct guest *guest, struct fault *fault)
{
	bool is_running = true;
	int r = guest_is_running(guest, &is_running, fault);

	return r < 0 || is_running ? r : guest_unpause(guest, fault);
}

int guest_reset(struct guest *guest, struct fault *fault)
{
	return guest_command(guest, "system_reset", NULL, NULL, NULL, fault);
}

int guest_powerdown(struct guest *guest, struct fault *fault)
{
	return guest_command(guest, "system_powerdown", NULL, NULL, NULL, fault);
}

int guest_kill(struct guest *guest, struct fault *fault)
{
	struct qmp *qmp = monitor_of(guest);
	uint64_t deadline = clock_deadline(QUIT_USEC);

	pthread_mutex_lock(&guest->lock);
	guest->is_killed = true;
	pthread_mutex_unlock(&guest->lock);
	/* Its answer may come or not: what counts is the process's end. */
	if (qmp)
		qmp_call(qmp, "quit", NULL, deadline, NULL, NULL, NULL);
	if (qmp && run_wait(guest->child, deadline) == 0)
		return 0;
	run_kill(guest->child, SIGKILL);
	int r = run_wait(guest->child, clock_deadline(KILL_USEC));
	return r == 0 ? 0
		      : fault_errno(fault, r, "QEMU (process %d) does not end after SIGKILL",
				run_pid(guest->child));
}
