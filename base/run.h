/* SPDX-License-Identifier: Apache-2.0 */
/* Child processes: started without a shell, confined, not outliving the daemon that started them
 * unless they are to.
 *
 * Children are forked by one long-lived thread of this module (prctl(PR_SET_PDEATHSIG) follows the
 * thread that forked), get SIGKILL when the daemon dies, have only fds 0-2, an environment of
 * exactly what is given, and NoNewPrivileges. One that outlives the daemon gets no SIGKILL, and its
 * output goes to a file, as a pipe would break with the daemon. */
#ifndef FERRY_BASE_RUN_H
#define FERRY_BASE_RUN_H

#include "base/buf.h"
#include "base/cancel.h"
#include "base/fault.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* A Landlock rule: the child may use what is beneath path (a directory) or path itself. When at
 * least one rule is given, everything else in the file system is out of its reach, but for the
 * program and, read-only, what every program needs (/usr, /lib, /lib64, /etc/ld.so.cache,
 * /dev/null), and it may signal only itself and its own children (Landlock ABI 6). Best effort on
 * kernels without Landlock: one warning is logged. */
struct run_path {
	const char *path;
	bool writable;
};

struct run_params {
	const char *const *argv; /* NULL-terminated; argv[0] is an absolute path */
	const char *const *env;  /* NULL-terminated "NAME=value"; NULL: empty */
	const struct run_path *paths;
	size_t n_paths;
	uint64_t max_files;  /* RLIMIT_NOFILE; 0: unchanged */
	uint64_t max_memory; /* RLIMIT_AS; 0: unchanged */
	bool deny_connect;   /* no outgoing TCP connections (with paths; Landlock ABI 4) */
	const char *log_id;  /* id of the log lines made of its stdout and stderr, at most 20 a
			      * second (then one line tells how many were dropped) */
	/* Not NULL: it outlives the daemon, and this file, made anew (0600), gets its output
	 * instead of the log. */
	const char *outlives_with_output;
};

struct child;

/* Starts it, in a session of its own, in "/", without core dumps. stdin is /dev/null. The output is
 * always drained. Everything in params is copied. Blocks until the program is executed: -ENOENT,
 * -EACCES and the like when it cannot be, with a fault that says what failed. */
int run_start(const struct run_params *params, struct child **ret_child, struct fault *fault);
/* One that an earlier daemon started and that outlived it: not our child, but watched, waited for
 * and killed as one (its run_status is -1). -ESRCH: there is no such process. The number is only
 * as good as its source: prove afterwards that the process is the one that was meant. */
int run_adopt(pid_t pid, struct child **ret_child, struct fault *fault);
/* Frees without a signal: it runs on. NULL is fine; returns NULL. */
struct child *run_leave(struct child *child);
pid_t run_pid(const struct child *child);
/* A descriptor that polls readable once it has ended; owned by the child. */
int run_fd(const struct child *child);
/* Whether it still runs; reaps it when it has ended. Does not block. */
bool run_is_alive(struct child *child);
/* Waits for its end: 0 ended, -ETIMEDOUT at the deadline. */
int run_wait(struct child *child, uint64_t deadline_usec);
/* What waitpid said; -1 while it runs. */
int run_status(struct child *child);
void run_kill(struct child *child, int signal);
/* SIGKILL if it runs, reaps (within 10 s: one that hangs in the kernel is logged and left), frees.
 * NULL is fine. Any of the calls above may run in other threads until then. */
struct child *run_free(struct child *child);

DEFINE_CLEANUP(struct child *, run_free)
#define CLEANUP_CHILD CLEANUP(cleanup_run_free)

#endif
