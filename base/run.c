/* SPDX-License-Identifier: Apache-2.0 */
#include "base/run.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/run_confine.h"
#include "base/run_output.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#define EXEC_WAIT_USEC (10 * USEC_PER_SEC)
#define REAP_WAIT_USEC (10 * USEC_PER_SEC)

struct child {
	pid_t pid;
	int pidfd;
	bool is_adopted; /* not ours to reap: only its pidfd tells of its end */
	struct drain *drain;
	pthread_mutex_t lock; /* protects the rest */
	bool ended;
	int status; /* of waitpid; -1 while it runs, or when somebody else reaped it */
};

/* What the child could not do, written to its error pipe. */
struct failure {
	int step;
	int error;
};

enum {
	STEP_PARENT,
	STEP_FILES,
	STEP_LIMITS,
	STEP_PRIVILEGES,
	STEP_LANDLOCK,
	STEP_EXEC,
};

static const char *const step_names[] = {
	[STEP_PARENT] = "binding its life to the daemon's",
	[STEP_FILES] = "its descriptors",
	[STEP_LIMITS] = "its resource limits",
	[STEP_PRIVILEGES] = "dropping privileges",
	[STEP_LANDLOCK] = "entering Landlock",
	[STEP_EXEC] = "execve",
};

/* One start on its way from the caller to the spawner thread and back. */
struct order {
	const struct run_params *params;
	pid_t parent;
	int null_fd, output_fd, error_fd, ruleset_fd;
	pid_t pid; /* answer: the child or a negative errno */
	bool done;
	struct order *next;
};

static struct {
	pthread_mutex_t lock; /* protects the rest */
	pthread_cond_t change;
	struct order *first;
	bool started;
} spawner = {.lock = PTHREAD_MUTEX_INITIALIZER, .change = PTHREAD_COND_INITIALIZER};

static const char *const empty_env[] = {NULL};

/* From here to child_main: between fork and exec of a threaded program, only async-signal-safe
 * calls. */
static int child_limit(int resource, uint64_t value)
{
	struct rlimit limit;

	if (getrlimit(resource, &limit) < 0)
		return -errno;
	limit.rlim_max = MIN(limit.rlim_max, (rlim_t)value);
	limit.rlim_cur = limit.rlim_max;
	return setrlimit(resource, &limit) < 0 ? -errno : 0;
}

static int child_limits(const struct run_params *params)
{
	int r = child_limit(RLIMIT_CORE, 0);

	if (r == 0 && params->max_files)
		r = child_limit(RLIMIT_NOFILE, params->max_files);
	if (r == 0 && params->max_memory)
		r = child_limit(RLIMIT_AS, params->max_memory);
	return r;
}

static int child_files(const struct order *order)
{
	if (dup2(order->null_fd, 0) < 0 || dup2(order->output_fd, 1) < 0 ||
		dup2(order->output_fd, 2) < 0)
		return -errno;
	/* The error pipe must live until exec, so the rest is closed by exec. */
	if (close_range(3, UINT_MAX, CLOSE_RANGE_CLOEXEC) < 0)
		return -errno;
	return chdir("/") < 0 ? -errno : 0;
}

static void child_signals(void)
{
	struct sigaction standard = {.sa_handler = SIG_DFL};
	sigset_t none;

	/* Ignored signals and the mask would survive exec. */
	for (int i = 1; i < NSIG; i++)
		sigaction(i, &standard, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static int child_bind(pid_t parent)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		return -errno;
	/* The daemon may have died before prctl. */
	return getppid() == parent ? 0 : -ESRCH;
}

static struct failure child_main(const struct order *order)
{
	int r = order->params->outlives_with_output ? 0 : child_bind(order->parent);

	if (r < 0)
		return (struct failure){STEP_PARENT, r};
	child_signals();
	setsid();
	r = child_files(order);
	if (r < 0)
		return (struct failure){STEP_FILES, r};
	r = child_limits(order->params);
	if (r < 0)
		return (struct failure){STEP_LIMITS, r};
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return (struct failure){STEP_PRIVILEGES, -errno};
	r = order->ruleset_fd >= 0 ? confine_enter(order->ruleset_fd) : 0;
	if (r < 0)
		return (struct failure){STEP_LANDLOCK, r};
	const char *const *env = order->params->env ? order->params->env : empty_env;
	/* execve does not write to them; its type is older than const. */
	execve(order->params->argv[0], (char *const *)order->params->argv, (char *const *)env);
	return (struct failure){STEP_EXEC, -errno};
}

static pid_t spawn(const struct order *order)
{
	pid_t pid = fork();

	if (pid < 0)
		return -errno;
	if (pid > 0)
		return pid;
	struct failure failure = child_main(order);
	ssize_t ignored = write(order->error_fd, &failure, sizeof(failure));
	(void)ignored;
	_exit(127);
}

/* The thread that forks, as long as the process lives: PR_SET_PDEATHSIG fires when the thread that
 * forked ends, not the process. */
static void *spawner_run(void *arg)
{
	(void)arg;
	pthread_mutex_lock(&spawner.lock);
	for (;;) {
		struct order *order = spawner.first;
		if (!order) {
			pthread_cond_wait(&spawner.change, &spawner.lock);
			continue;
		}
		spawner.first = order->next;
		pthread_mutex_unlock(&spawner.lock);
		pid_t pid = spawn(order);
		pthread_mutex_lock(&spawner.lock);
		order->pid = pid;
		order->done = true;
		pthread_cond_broadcast(&spawner.change);
	}
	return NULL;
}

/* With the lock held. */
static int ensure_spawner(void)
{
	pthread_t thread;
	sigset_t all, before;

	if (spawner.started)
		return 0;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int r = pthread_create(&thread, NULL, spawner_run, NULL);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r != 0)
		return -r;
	pthread_detach(thread);
	spawner.started = true;
	return 0;
}

static pid_t spawner_ask(struct order *order)
{
	SCOPE_LOCK(&spawner.lock);
	int r = ensure_spawner();

	if (r < 0)
		return r;
	order->next = spawner.first;
	spawner.first = order;
	pthread_cond_broadcast(&spawner.change);
	while (!order->done)
		pthread_cond_wait(&spawner.change, &spawner.lock);
	return order->pid;
}

/* 0 when the pipe was closed by exec. */
static int await_exec(int error_fd, const struct run_params *params, struct fault *fault)
{
	struct failure failure;
	struct pollfd fd = {.fd = error_fd, .events = POLLIN};
	int r = cancel_poll(NULL, &fd, 1, clock_deadline(EXEC_WAIT_USEC));

	if (r == 0)
		r = -ETIMEDOUT;
	if (r < 0)
		return fault_errno(fault, r, "start of %s: waiting for execve", params->argv[0]);
	ssize_t n = read(error_fd, &failure, sizeof(failure));
	if (n == 0)
		return 0;
	if (n != sizeof(failure))
		return fault_errno(fault, -EIO, "start of %s: its error pipe", params->argv[0]);
	return fault_errno(
		fault, failure.error, "start of %s: %s", params->argv[0], step_names[failure.step]);
}

static int check_params(const struct run_params *params, struct fault *fault)
{
	if (!params->argv || !params->argv[0] || params->argv[0][0] != '/')
		return fault_text(fault, -EINVAL,
			"start of a process: the program \"%s\" must be an absolute path",
			params->argv && params->argv[0] ? params->argv[0] : "");
	return 0;
}

static struct child *child_new(pid_t pid)
{
	struct child *child = xcalloc(1, sizeof(*child));

	child->pid = pid;
	child->pidfd = pidfd_open(pid, 0);
	child->status = -1;
	pthread_mutex_init(&child->lock, NULL);
	return child;
}

/* Where its output is read (-1: nowhere) and where it writes it. */
static int open_output(const struct run_params *params, int output[2])
{
	if (!params->outlives_with_output)
		return pipe2(output, O_CLOEXEC) < 0 ? -errno : 0;
	output[1] = open(params->outlives_with_output,
		O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
	return output[1] < 0 ? -errno : 0;
}

int run_start(const struct run_params *params, struct child **ret_child, struct fault *fault)
{
	int output[2] = {-1, -1};
	int error[2] = {-1, -1};
	int ruleset_fd CLEANUP_CLOSE = -1;
	int r = check_params(params, fault);

	if (r == 0)
		r = confine_prepare(params, &ruleset_fd, fault);
	if (r < 0)
		return r;
	int null_fd CLEANUP_CLOSE = open("/dev/null", O_RDONLY | O_CLOEXEC);
	r = null_fd < 0 ? -errno : open_output(params, output);
	int output_in CLEANUP_CLOSE = output[0];
	int output_out CLEANUP_CLOSE = output[1];
	if (r == 0 && pipe2(error, O_CLOEXEC) < 0)
		r = -errno;
	int error_in CLEANUP_CLOSE = error[0];
	int error_out CLEANUP_CLOSE = error[1];
	if (r < 0)
		return fault_errno(fault, r, "start of %s: descriptors", params->argv[0]);

	struct order order = {
		.params = params,
		.parent = getpid(),
		.null_fd = null_fd,
		.output_fd = output_out,
		.error_fd = error_out,
		.ruleset_fd = ruleset_fd,
	};
	pid_t pid = spawner_ask(&order);
	if (pid < 0)
		return fault_errno(fault, pid, "start of %s: fork", params->argv[0]);
	struct child *child CLEANUP_CHILD = child_new(pid);
	close(TAKE_FD(error_out));
	close(TAKE_FD(output_out));
	if (child->pidfd < 0)
		return fault_errno(fault, -EMFILE, "start of %s: pidfd", params->argv[0]);
	r = await_exec(error_in, params, fault);
	if (r < 0)
		return r;
	if (output_in >= 0)
		r = drain_start(TAKE_FD(output_in), pid, params->log_id, &child->drain);
	if (r < 0)
		return fault_errno(fault, r, "start of %s: output thread", params->argv[0]);
	*ret_child = TAKE_PTR(child);
	return 0;
}

int run_adopt(pid_t pid, struct child **ret_child, struct fault *fault)
{
	struct child *child = child_new(pid);

	child->is_adopted = true;
	if (child->pidfd < 0) {
		int error = -errno;
		run_leave(child);
		return fault_errno(fault, error, "process %d", (int)pid);
	}
	*ret_child = child;
	return 0;
}

pid_t run_pid(const struct child *child)
{
	return child->pid;
}

int run_fd(const struct child *child)
{
	return child->pidfd;
}

static bool pidfd_is_alive(const struct child *child)
{
	struct pollfd fd = {.fd = child->pidfd, .events = POLLIN};

	return poll(&fd, 1, 0) == 0;
}

bool run_is_alive(struct child *child)
{
	SCOPE_LOCK(&child->lock);
	if (child->ended)
		return false;
	if (child->is_adopted) {
		child->ended = !pidfd_is_alive(child);
		return !child->ended;
	}
	int status;
	pid_t pid = waitpid(child->pid, &status, WNOHANG);
	if (pid == 0)
		return true;
	/* ECHILD: SIGCHLD is ignored in this process, and the kernel reaped it. */
	child->ended = true;
	child->status = pid > 0 ? status : -1;
	return false;
}

int run_wait(struct child *child, uint64_t deadline_usec)
{
	struct pollfd fd = {.fd = child->pidfd, .events = POLLIN};
	int r = cancel_poll(NULL, &fd, 1, deadline_usec);

	if (r < 0)
		return r;
	return run_is_alive(child) ? -ETIMEDOUT : 0;
}

int run_status(struct child *child)
{
	if (run_is_alive(child))
		return -1;
	SCOPE_LOCK(&child->lock);
	return child->status;
}

void run_kill(struct child *child, int signal)
{
	/* By pidfd: the number may belong to another process once it was reaped. */
	if (child->pidfd >= 0)
		pidfd_send_signal(child->pidfd, signal, NULL, 0);
	else if (run_is_alive(child))
		kill(child->pid, signal);
}

struct child *run_free(struct child *child)
{
	if (!child)
		return NULL;
	if (run_is_alive(child)) {
		run_kill(child, SIGKILL);
		if (run_wait(child, clock_deadline(REAP_WAIT_USEC)) < 0)
			log_error("run.unkillable", "pid=%d hangs in the kernel after SIGKILL",
				(int)child->pid);
	}
	return run_leave(child);
}

struct child *run_leave(struct child *child)
{
	if (!child)
		return NULL;
	drain_stop(child->drain);
	if (child->pidfd >= 0)
		close(child->pidfd);
	pthread_mutex_destroy(&child->lock);
	free(child);
	return NULL;
}
