/* SPDX-License-Identifier: Apache-2.0 */
/* The watchdog beside a real QEMU, whose memory moves to another one. */
#include "tests/lib/watchdog_fixture.h"

#include "agent/guest/guest.h"
#include "agent/guest/memory.h"

#include <sys/stat.h>

#define QEMU "/usr/bin/qemu-system-x86_64"

struct world {
	char dir[32];
	char *source_dir, *dest_dir, *stream;
	struct guest *source, *dest;
	struct watchdog *watchdog;
	struct agent agent;
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
	if (w->agent.pid > 0)
		agent_kill(&w->agent);
	end_guest(w, w->source);
	end_guest(w, w->dest);
	/* Its guest's end is its own, if it is not gone already. */
	if (w->agent.watchdog > 0)
		agent_await_watchdog(&w->agent);
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
	char *uri CLEANUP_FREE = xasprintf("unix:%s", w->stream);
	const struct memory_params params = {
		.uri = uri, .max_bytes_per_sec = 1 << 30, .downtime_limit_usec = USEC_PER_SEC};

	check_ok(&w->fault, memory_listen(w->dest, uri, &w->fault));
	check_ok(&w->fault, memory_start(w->source, &params, &w->fault));
	await_migration(w, "pre-switchover");
	check_status(w, w->source, "query-status", "finish-migrate");
}

static void watch(struct world *w, uint64_t budget_usec)
{
	const struct watchdog_params params = watchdog_params_of(w->source_dir, budget_usec);

	check_ok(&w->fault, watchdog_start(&params, &w->watchdog, &w->fault));
}

static void start_agent(struct world *w)
{
	agent_start(&w->agent, "agent", w->source_dir);
}

static void kill_agent(struct world *w)
{
	agent_kill(&w->agent);
}

static void await_watchdog(struct world *w)
{
	assert_true(WIFEXITED(agent_await_watchdog(&w->agent)));
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
	await_watchdog(w);
	check_status(w, w->source, "query-status", "running");
	check_status(w, w->source, "query-migrate", "cancelled");
}

static void a_guest_that_was_paused_before_the_move_stays_so(void **state)
{
	struct world *w = *state;

	start_agent(w);
	check_ok(&w->fault, guest_pause(w->source, &w->fault));
	move_to_the_switch(w);
	kill_agent(w);
	await_watchdog(w);
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
	check_ok(&w->fault, memory_continue(w->source, &w->fault));
	await_migration(w, "completed");
	kill_agent(w);
	await_watchdog(w);
	check_status(w, w->source, "query-migrate", "completed");
	check_status(w, w->source, "query-status", "postmigrate");
	assert_int_equal(w->n_resumed, 0);
}

static void an_agent_that_dies_without_a_move_leaves_the_guest_alone(void **state)
{
	struct world *w = *state;

	start_agent(w);
	kill_agent(w);
	await_watchdog(w);
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
	check_ok(&w->fault, memory_continue(w->source, &w->fault));
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
	check_ok(&w->fault, guest_pause(w->source, &w->fault));
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

/* --- The agent itself has stopped the guest -----------------------------------------------------
 */

static void a_guest_whose_agent_is_killed_in_its_pause_runs_on(void **state)
{
	struct world *w = *state;

	agent_start(&w->agent, "pausing", w->source_dir);
	check_ok(&w->fault, guest_pause(w->source, &w->fault));
	kill_agent(w);
	await_resume(w);
	await_watchdog(w);
	check_status(w, w->source, "query-status", "running");
}

static void watch_pause(struct world *w, uint64_t budget_usec)
{
	struct watchdog_params params = watchdog_params_of(w->source_dir, budget_usec);

	params.guards_pause = true;
	check_ok(&w->fault, watchdog_start(&params, &w->watchdog, &w->fault));
	check_ok(&w->fault, guest_pause(w->source, &w->fault));
}

static void a_pause_beyond_its_budget_ends(void **state)
{
	struct world *w = *state;

	watch_pause(w, 100 * USEC_PER_MSEC);
	await_resume(w);
	await_end(watchdog_pid(w->watchdog));
	assert_int_equal(watchdog_disarm(w->watchdog, &w->fault), -ECANCELED);
	assert_non_null(strstr(w->fault.params[0], "ended the pause"));
}

static void a_disarmed_watchdog_leaves_the_pause_alone(void **state)
{
	struct world *w = *state;

	watch_pause(w, 200 * USEC_PER_MSEC);
	check_ok(&w->fault, watchdog_disarm(w->watchdog, &w->fault));
	w->watchdog = watchdog_stop(w->watchdog);
	check_status(w, w->source, "query-status", "paused");
}

static void an_abandoned_watchdog_does_its_duty(void **state)
{
	struct world *w = *state;

	watch_pause(w, LONG);
	w->watchdog = watchdog_abandon(w->watchdog);
	check_status(w, w->source, "query-status", "running");
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
	assert_int_equal(kill(w->agent.pid, 0), 0);
	kill_agent(w);
	assert_true(WIFSIGNALED(agent_await_watchdog(&w->agent)));
	move_to_the_switch(w);
	check_ok(&w->fault, watchdog_disarm(w->watchdog, &w->fault));
}

static void without_a_monitor_there_is_no_watchdog(void **state)
{
	struct world *w = *state;
	const struct watchdog_params params = watchdog_params_of(w->dir, LONG);
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
		TEST(a_guest_whose_agent_is_killed_in_its_pause_runs_on),
		TEST(a_pause_beyond_its_budget_ends),
		TEST(a_disarmed_watchdog_leaves_the_pause_alone),
		TEST(an_abandoned_watchdog_does_its_duty),
		TEST(a_dead_watchdog_is_said),
		TEST(a_silent_watchdog_is_killed),
		TEST(a_watchdog_ends_with_its_guest),
		TEST(one_that_was_left_is_ended_first),
		TEST(without_a_monitor_there_is_no_watchdog),
	};

	if (argc == 3)
		return agent_main(argv[1], argv[2]);
	if (access(QEMU, X_OK) < 0)
		return 77;
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
