/* SPDX-License-Identifier: Apache-2.0 */
/* An agent that has a watchdog, and can be killed: the test program itself, started once more with
 * the arguments "agent RUN_DIR" or "pausing RUN_DIR". */
#ifndef FERRY_TESTS_LIB_WATCHDOG_FIXTURE_H
#define FERRY_TESTS_LIB_WATCHDOG_FIXTURE_H

#include "tests/lib/check.h"

#include "agent/guest/guest_spec.h"
#include "agent/guest/watchdog.h"
#include "base/alloc.h"
#include "base/cancel.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define UUID     "0d4ad1a3-3b4c-4f9e-9d3e-8a2f51d6c001"
#define PATIENCE (20 * USEC_PER_SEC)
#define LONG     (600 * USEC_PER_SEC)

extern char **environ;

struct agent {
	pid_t pid;
	pid_t watchdog; /* this process's child when the agent is dead */
};

static inline struct watchdog_params watchdog_params_of(const char *run_dir, uint64_t budget_usec)
{
	return (struct watchdog_params){
		.program = FERRY_WATCHDOG,
		.run_dir = run_dir,
		.vm_uuid = UUID,
		.budget_usec = budget_usec,
	};
}

/* Starts a watchdog, says which, and stays until it is killed. */
static inline int agent_main(const char *mode, const char *run_dir)
{
	struct watchdog_params params = watchdog_params_of(run_dir, LONG);
	struct watchdog *watchdog = NULL;

	log_set_level(LOG_LEVEL_NONE);
	params.guards_pause = strcmp(mode, "pausing") == 0;
	if (watchdog_start(&params, &watchdog, NULL) < 0)
		return 1;
	printf("%d\n", (int)watchdog_pid(watchdog));
	fflush(stdout);
	for (;;)
		pause();
}

static inline void agent_start(struct agent *agent, char *mode, char *run_dir)
{
	char *const argv[] = {"test", mode, run_dir, NULL};
	posix_spawn_file_actions_t actions;
	int ends[2];

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
	assert_int_equal(
		posix_spawn(&agent->pid, "/proc/self/exe", &actions, NULL, argv, environ), 0);
	posix_spawn_file_actions_destroy(&actions);
	close(ends[1]);
	FILE *said CLEANUP_FCLOSE = fdopen(ends[0], "r");
	assert_int_equal(fscanf(said, "%d", &agent->watchdog), 1);
}

static inline void agent_kill(struct agent *agent)
{
	kill(agent->pid, SIGKILL);
	assert_int_equal(waitpid(agent->pid, NULL, 0), agent->pid);
	agent->pid = 0;
}

/* Waits for its watchdog's end; how it ended, as waitpid says. */
static inline int agent_await_watchdog(struct agent *agent)
{
	int status;

	assert_int_equal(waitpid(agent->watchdog, &status, 0), agent->watchdog);
	agent->watchdog = 0;
	return status;
}

static inline void await_end(pid_t pid)
{
	struct pollfd fd = {.fd = pidfd_open(pid, 0), .events = POLLIN};

	assert_true(fd.fd >= 0);
	assert_int_equal(cancel_poll(NULL, &fd, 1, clock_deadline(PATIENCE)), 1);
	close(fd.fd);
}

#endif
