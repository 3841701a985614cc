/* SPDX-License-Identifier: Apache-2.0 */
/* The watchdog beside a scripted monitor: what it does in each state that QEMU can have when the
 * agent dies. A cancel at the wrong time lets a guest run twice. */
#include "tests/lib/watchdog_fixture.h"

#include "base/io.h"

#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>

#define GREETING "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\n"

struct monitor {
	char dir[32];
	char *path;
	int listener;
	pthread_t thread;
	const char *migration;         /* its state at first */
	const char *after_cancel;      /* and then, or NULL: it refuses to */
	const char *const *run_states; /* what is answered, one after the other; the last stays */
	bool refuses_cont;
	unsigned n_cancelled, n_cont; /* the thread's until it has ended */
	struct agent agent;
};

static const char *const running[] = {"running", NULL};

static int set_up(void **state)
{
	struct monitor *monitor = xcalloc(1, sizeof(*monitor));
	struct sockaddr_un name = {.sun_family = AF_UNIX};

	*state = monitor;
	log_set_level(LOG_LEVEL_NONE);
	monitor->run_states = running;
	strcpy(monitor->dir, "/tmp/ferry-law-XXXXXX");
	assert_non_null(mkdtemp(monitor->dir));
	monitor->path = guest_file(monitor->dir, GUEST_QMP_SPARE);
	strcpy(name.sun_path, monitor->path);
	monitor->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(monitor->listener, (struct sockaddr *)&name, sizeof(name)), 0);
	return listen(monitor->listener, 1);
}

static int tear_down(void **state)
{
	struct monitor *monitor = *state;
	char *socket_path CLEANUP_FREE = guest_file(monitor->dir, GUEST_WATCHDOG);
	char *output CLEANUP_FREE = guest_file(monitor->dir, GUEST_WATCHDOG_LOG);

	close(monitor->listener);
	unlink(monitor->path);
	unlink(socket_path);
	unlink(output);
	int r = rmdir(monitor->dir);
	free(monitor->path);
	free(monitor);
	return r;
}

static char *answer_status(struct monitor *monitor)
{
	const char *state = monitor->run_states[0];

	if (monitor->run_states[1])
		monitor->run_states++;
	return xasprintf("{\"status\": \"%s\"}", state);
}

/* The answer's inner part; NULL: an error. */
static char *answer_to(struct monitor *monitor, const char *line)
{
	if (strstr(line, "\"query-migrate\""))
		return xasprintf("{\"status\": \"%s\"}", monitor->migration);
	if (strstr(line, "\"query-status\""))
		return answer_status(monitor);
	if (strstr(line, "\"cont\"")) {
		monitor->n_cont++;
		return monitor->refuses_cont ? NULL : xstrdup("{}");
	}
	if (!strstr(line, "\"migrate_cancel\""))
		return xstrdup("{}");
	monitor->n_cancelled++;
	if (!monitor->after_cancel)
		return NULL;
	monitor->migration = monitor->after_cancel;
	return xstrdup("{}");
}

static void *monitor_main(void *arg)
{
	struct monitor *monitor = arg;
	int fd = accept4(monitor->listener, NULL, NULL, SOCK_CLOEXEC);
	FILE *stream CLEANUP_FCLOSE = fdopen(fd, "r+");
	char line[4096], id[32];

	(void)send(fd, GREETING, strlen(GREETING), MSG_NOSIGNAL);
	while (fgets(line, sizeof(line), stream)) {
		const char *at = strstr(line, "\"id\":");
		if (!at || sscanf(at, "\"id\":\"%31[0-9]", id) != 1)
			break;
		char *answer CLEANUP_FREE = answer_to(monitor, line);
		char *reply CLEANUP_FREE =
			answer ? xasprintf("{\"return\": %s, \"id\": \"%s\"}\n", answer, id)
			       : xasprintf("{\"error\": {\"class\": \"GenericError\", \"desc\": "
					   "\"no\"}, \"id\": \"%s\"}\n",
					 id);
		if (send(fd, reply, strlen(reply), MSG_NOSIGNAL) < 0)
			break;
	}
	return NULL;
}

static bool has_logged(struct monitor *monitor, const char *id)
{
	char *path CLEANUP_FREE = guest_file(monitor->dir, GUEST_WATCHDOG_LOG);
	struct buf text CLEANUP_BUF = BUF_INIT;

	assert_int_equal(io_read_file(path, 1 << 16, &text), 0);
	return strstr(text.data, id);
}

/* The agent dies while the move is in that state: whether the guest is as it was before, as its
 * watchdog says. (Not by its exit status, which is a sanitizer's where there is one.) */
static bool die_as(struct monitor *monitor, char *mode)
{
	assert_int_equal(pthread_create(&monitor->thread, NULL, monitor_main, monitor), 0);
	agent_start(&monitor->agent, mode, monitor->dir);
	agent_kill(&monitor->agent);
	assert_true(WIFEXITED(agent_await_watchdog(&monitor->agent)));
	pthread_join(monitor->thread, NULL);
	bool is_done = has_logged(monitor, "watchdog.done");
	assert_int_equal(is_done, !has_logged(monitor, "watchdog.failed"));
	return is_done;
}

static bool die_in(struct monitor *monitor, const char *migration)
{
	monitor->migration = migration;
	bool is_done = die_as(monitor, "agent");
	assert_int_equal(monitor->n_cont, 0);
	return is_done;
}

static bool die_pausing(struct monitor *monitor, const char *const *run_states)
{
	monitor->run_states = run_states;
	monitor->n_cont = 0;
	bool is_done = die_as(monitor, "pausing");
	assert_int_equal(monitor->n_cancelled, 0);
	return is_done;
}

static void before_the_switch_it_cancels(void **state)
{
	static const char *const states[] = {"setup", "wait-unplug", "active", "pre-switchover"};
	struct monitor *monitor = *state;

	for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
		monitor->n_cancelled = 0;
		monitor->after_cancel = i % 2 ? "cancelled" : "failed";
		assert_true(die_in(monitor, states[i]));
		assert_int_equal(monitor->n_cancelled, 1);
	}
}

static void after_the_switch_it_never_cancels(void **state)
{
	static const char *const states[] = {
		"device", "completed", "postcopy-active", "colo", "something-new"};
	struct monitor *monitor = *state;

	for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
		assert_false(die_in(monitor, states[i]));
		assert_int_equal(monitor->n_cancelled, 0);
	}
}

static void where_nothing_moves_it_does_nothing(void **state)
{
	static const char *const states[] = {"", "none", "cancelled", "failed"};
	struct monitor *monitor = *state;

	for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
		assert_true(die_in(monitor, states[i]));
		assert_int_equal(monitor->n_cancelled, 0);
	}
}

static void a_cancel_that_is_refused_is_no_success(void **state)
{
	struct monitor *monitor = *state;

	assert_false(die_in(monitor, "pre-switchover"));
	assert_int_equal(monitor->n_cancelled, 1);
}

/* As when QEMU was just told to go on. */
static void a_cancel_that_came_too_late_is_no_success(void **state)
{
	struct monitor *monitor = *state;

	monitor->after_cancel = "completed";
	assert_false(die_in(monitor, "pre-switchover"));
}

/* --- A pause ------------------------------------------------------------------------------------
 */

/* The first answer is the one at its start. */
static void a_guest_that_is_paused_is_let_run(void **state)
{
	static const char *const paused[] = {"running", "paused", NULL};
	static const char *const late[] = {"running", "running", "running", "paused", NULL};
	struct monitor *monitor = *state;

	assert_true(die_pausing(monitor, paused));
	assert_int_equal(monitor->n_cont, 1);
	assert_true(die_pausing(monitor, late));
	assert_int_equal(monitor->n_cont, 1);
}

static void one_that_is_not_is_left_alone(void **state)
{
	static const char *const states[][3] = {{"running", NULL}, {"running", "shutdown", NULL},
		{"running", "io-error", NULL}, {"running", "internal-error", NULL},
		{"running", "postmigrate", NULL}};
	struct monitor *monitor = *state;

	for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
		assert_true(die_pausing(monitor, states[i]));
		assert_int_equal(monitor->n_cont, 0);
	}
}

static void a_cont_that_is_refused_is_no_success(void **state)
{
	static const char *const paused[] = {"running", "paused", NULL};
	struct monitor *monitor = *state;

	monitor->refuses_cont = true;
	assert_false(die_pausing(monitor, paused));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(before_the_switch_it_cancels),
		TEST(after_the_switch_it_never_cancels),
		TEST(where_nothing_moves_it_does_nothing),
		TEST(a_cancel_that_is_refused_is_no_success),
		TEST(a_cancel_that_came_too_late_is_no_success),
		TEST(a_guest_that_is_paused_is_let_run),
		TEST(one_that_is_not_is_left_alone),
		TEST(a_cont_that_is_refused_is_no_success),
	};

	if (argc == 3)
		return agent_main(argv[1], argv[2]);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
