/* SPDX-License-Identifier: Apache-2.0 */
/* The watchdog beside a real QEMU, whose memory moves to another one. An agent that is killed is
 * this program, started once more. */
#include "tests/lib/check.h"

#include "agent/guest/guest.h"
#include "agent/guest/watchdog.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define QEMU     "/usr/bin/qemu-system-x86_64"
#define UUID     "0d4ad1a3-3b4c-4f9e-9d3e-8a2f51d6c001"
#define PATIENCE (20 * USEC_PER_SEC)
#define LONG     (600 * USEC_PER_SEC)

extern char **environ;

struct world {
	char dir[32];
	char *source_dir, *dest_dir, *stream;
	struct guest *source, *dest;
	struct watchdog *watchdog;
	pid_t agent;
	pid_t orphan; /* the agent's watchdog */
	pthread_mutex_t lock;
	pthread_cond_t change;
	char migration[32]; /* as the source's events tell */
	unsigned n_resumed;
	struct fault fault;
};

/* --- Two QEMUs ----------------------------------------------------------------------------------
 */

static void source_event(void *arg, const char *name, const struct value *data)
{
	struct world *w = arg;
	SCOPE_LOCK(&w->lock);

	if (strcmp(name, "MIGRATION") == 0)
		snprintf(w->migration, sizeof(w->migration), "%s",
			value_find_string(data, "status", ""));
	if (strcmp(name, "RESUME") == 0)
		w->n_resumed++;
	pthread_cond_broadcast(&w->change);
}

static struct guest *start_guest(struct world *w, const char *run_dir, bool incoming)
{
	struct guest_callbacks callbacks = {0};
	struct guest *guest = NULL;
	const struct guest_spec spec = {
		.uuid = UUID,
		.name = "watched",
		.run_dir = (char *)run_dir,
		.memory_bytes = 16 << 20,
		.vcpus = 1,
		.incoming = incoming,
	};

	if (!incoming) {
		callbacks.event = source_event;
		callbacks.arg = w;
	}
	check_ok(&w->fault, guest_start(&spec, QEMU, &callbacks, NULL, &guest, &w->fault));
	return guest;
}

static int set_up(void **state)
{
	struct world *w = xcalloc(1, sizeof(*w));

	*state = w;
	log_set_level(LOG_LEVEL_NONE);
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->change, NULL);
	strcpy(w->dir, "/tmp/ferry-dog-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	w->source_dir = xasprintf("%s/a", w->dir);
	w->dest_dir = xasprintf("%s/b", w->dir);
	w->stream = xasprintf("%s/b/stream", w->dir);
	w->source = start_guest(w, w->source_dir, false);
	w->dest = start_guest(w, w->dest_dir, true);
	return 0;
}

static void end_guest(struct world *w, struct guest *guest)
{
	if (guest)
		check_ok(&w->fault, guest_kill(guest, &w->fault));
	guest_free(guest);
}

static int tear_down(void **state)
{
	struct world *w = *state;

	watchdog_stop(w->watchdog);
	if (w->agent > 0) {
		kill(w->agent, SIGKILL);
		waitpid(w->agent, NULL, 0);
	}
	end_guest(w, w->source);
	end_guest(w, w->dest);
	/* Its guest's end is its own, if it is not gone already. */
	if (w->orphan > 0)
		assert_int_equal(waitpid(w->orphan, NULL, 0), w->orphan);
	unlink(w->stream);
	assert_int_equal(guest_forget_run_dir(w->source_dir), 0);
	assert_int_equal(guest_forget_run_dir(w->dest_dir), 0);
	int r = rmdir(w->dir);
	pthread_cond_destroy(&w->change);
	pthread_mutex_destroy(&w->lock);
	fault_clear(&w->fault);
	free(w->source_dir);
	free(w->dest_dir);
	free(w->stream);
	free(w);
	return r;
}

static void command(struct world *w, struct guest *guest, const char *name, struct value *arguments)
{
	struct value *owned CLEANUP_VALUE = arguments;

	check_ok(&w->fault, guest_command(guest, name, owned, NULL, NULL, &w->fault));
}

static void ask_status(
	struct world *w, struct guest *guest, const char *name, char status[static 32])
{
	struct value *answer CLEANUP_VALUE = NULL;

	check_ok(&w->fault, guest_command(guest, name, NULL, NULL, &answer, &w->fault));
	snprintf(status, 32, "%s", value_find_string(answer, "status", ""));
}

static void check_status(
	struct world *w, struct guest *guest, const char *name, const char *expected)
{
	char status[32];

	ask_status(w, guest, name, status);
	assert_string_equal(status, expected);
}

static void enable(struct world *w, struct guest *guest, const char *const *names)
{
	struct value *list = value_new_array();

	for (; *names; names++) {
		struct value *item = value_new_struct();
		value_set_string(item, "capability", *names);
		value_set_bool(item, "state", true);
		value_append(list, item);
	}
	struct value *arguments = value_set(value_new_struct(), "capabilities", list);
	command(w, guest, "migrate-set-capabilities", arguments);
}

static void await_change(struct world *w, struct timespec *until)
{
	assert_int_equal(pthread_cond_timedwait(&w->change, &w->lock, until), 0);
}

static struct timespec patience(void)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += PATIENCE / USEC_PER_SEC;
	return until;
}

static void await_migration(struct world *w, const char *status)
{
	struct timespec until = patience();
	SCOPE_LOCK(&w->lock);

	while (strcmp(w->migration, status) != 0)
		await_change(w, &until);
}

static void await_resume(struct world *w)
{
	struct timespec until = patience();
	SCOPE_LOCK(&w->lock);

	while (w->n_resumed == 0)
		await_change(w, &until);
}

static void move_to_the_switch(struct world *w)
{
	static const char *const to[] = {"return-path", "events", NULL};
	static const char *const from[] = {
		"return-path", "events", "pause-before-switchover", NULL};
	char *uri CLEANUP_FREE = xasprintf("unix:%s", w->stream);
	struct value *incoming = value_new_struct(), *migrate = value_new_struct();

	value_set_string(incoming, "uri", uri);
	value_set_string(migrate, "uri", uri);
	enable(w, w->dest, to);
	command(w, w->dest, "migrate-incoming", incoming);
	enable(w, w->source, from);
	command(w, w->source, "migrate", migrate);
	await_migration(w, "pre-switchover");
	check_status(w, w->source, "query-status", "finish-migrate");
}

static void go_on(struct world *w)
{
	struct value *arguments = value_new_struct();

	value_set_string(arguments, "state", "pre-switchover");
	command(w, w->source, "migrate-continue", arguments);
}

/* --- Watchdogs ----------------------------------------------------------------------------------
 */

static struct watchdog_params params_of(const char *run_dir, uint64_t budget_usec)
{
	return (struct watchdog_params){
		.program = FERRY_WATCHDOG,
		.run_dir = run_dir,
		.vm_uuid = UUID,
		.budget_usec = budget_usec,
	};
}

static void watch(struct world *w, uint64_t budget_usec)
{
	const struct watchdog_params params = params_of(w->source_dir, budget_usec);

	check_ok(&w->fault, watchdog_start(&params, &w->watchdog, &w->fault));
}

/* This program as an agent: starts a watchdog, says which, and stays until it is killed. */
static int be_agent(const char *run_dir)
{
	const struct watchdog_params params = params_of(run_dir, LONG);
	struct watchdog *watchdog = NULL;

	if (watchdog_start(&params, &watchdog, NULL) < 0)
		return 1;
	printf("%d\n", (int)watchdog_pid(watchdog));
	fflush(stdout);
	for (;;)
		pause();
}

static void start_agent(struct world *w)
{
	char *const argv[] = {"test_watchdog", "agent", w->source_dir, NULL};
	posix_spawn_file_actions_t actions;
	int ends[2];

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
	assert_int_equal(
		posix_spawn(&w->agent, "/proc/self/exe", &actions, NULL, argv, environ), 0);
	posix_spawn_file_actions_destroy(&actions);
	close(ends[1]);
	FILE *said CLEANUP_FCLOSE = fdopen(ends[0], "r");
	assert_int_equal(fscanf(said, "%d", &w->orphan), 1);
}

static void kill_agent(struct world *w)
{
	kill(w->agent, SIGKILL);
	assert_int_equal(waitpid(w->agent, NULL, 0), w->agent);
	w->agent = 0;
}

/* It has become this process's child. */
static void await_orphan(struct world *w)
{
	int status;

	assert_int_equal(waitpid(w->orphan, &status, 0), w->orphan);
	assert_true(WIFEXITED(status));
	w->orphan = 0;
}

static void await_end(pid_t pid)
{
	struct pollfd fd = {.fd = pidfd_open(pid, 0), .events = POLLIN};

	assert_true(fd.fd >= 0);
	assert_int_equal(cancel_poll(NULL, &fd, 1, clock_deadline(PATIENCE)), 1);
	close(fd.fd);
}

/* --- The agent dies -----------------------------------------------------------------------------
 */

static void a_guest_whose_agent_is_killed_at_the_switch_runs_on(void **state)
{
	struct world *w = *state;

	start_agent(w);
	move_to_the_switch(w);
	uint64_t killed = clock_now_usec();
	kill_agent(w);
	await_resume(w);
	print_message("resumed after %.1f ms\n", (double)(clock_now_usec() - killed) / 1000);
	await_orphan(w);
	check_status(w, w->source, "query-status", "running");
	check_status(w, w->source, "query-migrate", "cancelled");
}

static void a_guest_that_was_paused_before_the_move_stays_so(void **state)
{
	struct world *w = *state;

	start_agent(w);
	command(w, w->source, "stop", NULL);
	move_to_the_switch(w);
	kill_agent(w);
	await_orphan(w);
	check_status(w, w->source, "query-migrate", "cancelled");
	bool is_running = true;
	check_ok(&w->fault, guest_is_running(w->source, &is_running, &w->fault));
	assert_false(is_running);
	assert_int_equal(w->n_resumed, 0);
}

static void a_move_that_was_handed_over_is_not_touched(void **state)
{
	struct world *w = *state;

	start_agent(w);
	move_to_the_switch(w);
	go_on(w);
	await_migration(w, "completed");
	kill_agent(w);
	await_orphan(w);
	check_status(w, w->source, "query-migrate", "completed");
	check_status(w, w->source, "query-status", "postmigrate");
	assert_int_equal(w->n_resumed, 0);
}

static void an_agent_that_dies_without_a_move_leaves_the_guest_alone(void **state)
{
	struct world *w = *state;

	start_agent(w);
	kill_agent(w);
	await_orphan(w);
	check_status(w, w->source, "query-status", "running");
	assert_int_equal(w->n_resumed, 0);
}

/* --- The agent lives ----------------------------------------------------------------------------
 */

static void a_disarmed_watchdog_does_nothing(void **state)
{
	struct world *w = *state;

	watch(w, LONG);
	move_to_the_switch(w);
	check_ok(&w->fault, watchdog_disarm(w->watchdog, &w->fault));
	check_ok(&w->fault, watchdog_disarm(w->watchdog, &w->fault));
	w->watchdog = watchdog_stop(w->watchdog);
	check_status(w, w->source, "query-status", "finish-migrate");
	go_on(w);
	await_migration(w, "completed");
	assert_int_equal(w->n_resumed, 0);
}

static void a_pause_beyond_the_budget_is_ended(void **state)
{
	struct world *w = *state;

	watch(w, 100 * USEC_PER_MSEC);
	move_to_the_switch(w);
	await_resume(w);
	await_end(watchdog_pid(w->watchdog));
	assert_int_equal(watchdog_disarm(w->watchdog, &w->fault), -ECANCELED);
	check_status(w, w->source, "query-status", "running");
	check_status(w, w->source, "query-migrate", "cancelled");
}

static void a_pause_that_somebody_wants_has_no_budget(void **state)
{
	struct world *w = *state;

	watch(w, 10 * USEC_PER_MSEC);
	command(w, w->source, "stop", NULL);
	cancel_sleep(NULL, 200 * USEC_PER_MSEC);
	check_ok(&w->fault, watchdog_disarm(w->watchdog, &w->fault));
	check_status(w, w->source, "query-status", "paused");
}

static void a_watchdog_that_comes_at_the_switch_knows_it(void **state)
{
	struct world *w = *state;

	move_to_the_switch(w);
	/* As when an agent comes back and finds it there. */
	watch(w, 100 * USEC_PER_MSEC);
	await_resume(w);
	await_end(watchdog_pid(w->watchdog));
	assert_int_equal(watchdog_disarm(w->watchdog, &w->fault), -ECANCELED);
}

static void a_dead_watchdog_is_said(void **state)
{
	struct world *w = *state;

	watch(w, LONG);
	kill(watchdog_pid(w->watchdog), SIGKILL);
	assert_int_equal(watchdog_disarm(w->watchdog, &w->fault), -ECONNRESET);
}

/* Stopped, it would act when it is let go on: it must not be able to. */
static void a_silent_watchdog_is_killed(void **state)
{
	struct world *w = *state;

	watch(w, LONG);
	kill(watchdog_pid(w->watchdog), SIGSTOP);
	assert_int_equal(watchdog_disarm(w->watchdog, &w->fault), -ECONNRESET);
	assert_int_equal(kill(watchdog_pid(w->watchdog), 0), -1);
}

static void a_watchdog_ends_with_its_guest(void **state)
{
	struct world *w = *state;

	watch(w, LONG);
	check_ok(&w->fault, guest_kill(w->source, &w->fault));
	await_end(watchdog_pid(w->watchdog));
	w->source = guest_free(w->source);
}

static void one_that_was_left_is_ended_first(void **state)
{
	struct world *w = *state;

	start_agent(w);
	/* Its agent hangs, so it does not end by itself. */
	watch(w, LONG);
	int status;
	assert_int_equal(kill(w->agent, 0), 0);
	kill_agent(w);
	assert_int_equal(waitpid(w->orphan, &status, 0), w->orphan);
	assert_true(WIFSIGNALED(status));
	w->orphan = 0;
	move_to_the_switch(w);
	check_ok(&w->fault, watchdog_disarm(w->watchdog, &w->fault));
}

static void without_a_monitor_there_is_no_watchdog(void **state)
{
	struct world *w = *state;
	const struct watchdog_params params = params_of(w->dir, LONG);
	char *output CLEANUP_FREE = guest_file(w->dir, GUEST_WATCHDOG_LOG);

	assert_int_equal(watchdog_start(&params, &w->watchdog, &w->fault), -EIO);
	assert_non_null(strstr(w->fault.params[0], GUEST_QMP_SPARE));
	assert_int_equal(unlink(output), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(a_guest_whose_agent_is_killed_at_the_switch_runs_on),
		TEST(a_guest_that_was_paused_before_the_move_stays_so),
		TEST(a_move_that_was_handed_over_is_not_touched),
		TEST(an_agent_that_dies_without_a_move_leaves_the_guest_alone),
		TEST(a_disarmed_watchdog_does_nothing),
		TEST(a_pause_beyond_the_budget_is_ended),
		TEST(a_pause_that_somebody_wants_has_no_budget),
		TEST(a_watchdog_that_comes_at_the_switch_knows_it),
		TEST(a_dead_watchdog_is_said),
		TEST(a_silent_watchdog_is_killed),
		TEST(a_watchdog_ends_with_its_guest),
		TEST(one_that_was_left_is_ended_first),
		TEST(without_a_monitor_there_is_no_watchdog),
	};

	if (argc == 3 && strcmp(argv[1], "agent") == 0)
		return be_agent(argv[2]);
	if (access(QEMU, X_OK) < 0)
		return 77;
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
