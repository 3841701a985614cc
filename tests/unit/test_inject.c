/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/check.h"
#include "tests/lib/points.h"

#include "base/clock.h"
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

static int setup(void **state)
{
	static struct points points;

	points_open(&points);
	*state = &points;
	return 0;
}

static int teardown(void **state)
{
	points_close(*state);
	return 0;
}

static void a_point_that_is_not_armed_does_nothing(void **state)
{
	assert_int_equal(INJECT("some.point"), 0);
	points_arm(*state, "another.point", "error EIO");
	assert_int_equal(INJECT("some.%s", "point"), 0);
	assert_int_equal(points_passed(*state, "another.point"), 0);
	points_close(*state);
	assert_int_equal(INJECT("another.point"), 0);
	points_open(*state);
}

static void an_error_comes_once_and_is_counted(void **state)
{
	points_arm(*state, "a.point", "error ENOSPC");
	assert_int_equal(INJECT("a.%s", "point"), -ENOSPC);
	assert_int_equal(INJECT("a.point"), 0);
	assert_int_equal(points_passed(*state, "a.point"), 1);
}

static void the_nth_pass_is_the_one_that_fails(void **state)
{
	points_arm(*state, "a.point", "error EIO after=2");
	assert_int_equal(INJECT("a.point"), 0);
	assert_int_equal(INJECT("a.point"), 0);
	assert_int_equal(INJECT("a.point"), -EIO);
	assert_int_equal(INJECT("a.point"), 0);
	assert_int_equal(points_passed(*state, "a.point"), 3);
}

static void bytes_are_counted_as_such(void **state)
{
	points_arm(*state, "a.point", "error ECONNRESET after=1000");
	assert_int_equal(INJECT_BYTES(600, "a.point"), 0);
	assert_int_equal(INJECT_BYTES(400, "a.point"), 0);
	assert_int_equal(INJECT_BYTES(1, "a.point"), -ECONNRESET);
	assert_int_equal(points_passed(*state, "a.point"), 1001);
}

static void an_error_that_stays_comes_until_it_is_disarmed(void **state)
{
	points_arm(*state, "a.point", "error EROFS always");
	for (int i = 0; i < 3; i++)
		assert_int_equal(INJECT("a.point"), -EROFS);
	points_disarm(*state, "a.point");
	assert_int_equal(INJECT("a.point"), 0);
}

static void a_rule_may_be_of_some_bytes_only(void **state)
{
	points_arm(*state, "a.point", "error EIO from=1024 to=2048 always");
	assert_int_equal(INJECT_RANGE(0, 1024, "a.point"), 0);
	assert_int_equal(INJECT_RANGE(2048, 512, "a.point"), 0);
	assert_int_equal(points_passed(*state, "a.point"), 0);
	assert_int_equal(INJECT_RANGE(512, 1024, "a.point"), -EIO);
	assert_int_equal(INJECT_RANGE(1536, 4096, "a.point"), -EIO);
	assert_int_equal(INJECT_RANGE(0, 8192, "a.point"), -EIO);
	assert_int_equal(points_passed(*state, "a.point"), 1024 + 4096 + 8192);
}

static void the_fault_names_the_point(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	points_arm(*state, "a.point", "error EIO");
	assert_int_equal(INJECT_FAULT(&fault, "a.point"), -EIO);
	assert_string_equal(fault.params[0], "fault point a.point: Input/output error");
}

static void a_delay_passes(void **state)
{
	uint64_t begin = clock_now_usec();

	points_arm(*state, "a.point", "delay 30");
	assert_int_equal(INJECT("a.point"), 0);
	assert_true(clock_now_usec() - begin >= 30 * USEC_PER_MSEC);
}

static void *disarm_soon(void *arg)
{
	while (points_passed(arg, "a.point") == 0)
		usleep(1000);
	points_disarm(arg, "a.point");
	return NULL;
}

static void a_hang_ends_when_it_is_disarmed(void **state)
{
	pthread_t thread;

	points_arm(*state, "a.point", "hang");
	assert_int_equal(pthread_create(&thread, NULL, disarm_soon, *state), 0);
	assert_int_equal(INJECT("a.point"), 0);
	pthread_join(thread, NULL);
}

static void *cancel_soon(void *arg)
{
	usleep(20000);
	cancel_request(arg, "a test");
	return NULL;
}

static void a_hang_that_may_be_cancelled_ends_with_the_cancel(void **state)
{
	struct cancel *cancel CLEANUP_CANCEL = cancel_new();
	pthread_t thread;

	points_arm(*state, "a.point", "hang");
	assert_int_equal(pthread_create(&thread, NULL, cancel_soon, cancel), 0);
	assert_int_equal(INJECT_WAIT(cancel, NULL, "a.point"), -ECANCELED);
	pthread_join(thread, NULL);
}

static void a_kill_is_counted_before_it_kills(void **state)
{
	int status = 0;

	points_arm(*state, "a.point", "kill after=1");
	pid_t child = fork();
	if (child == 0) {
		(void)INJECT("a.point");
		(void)INJECT("a.point");
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGKILL);
	assert_int_equal(points_passed(*state, "a.point"), 2);
	assert_int_equal(INJECT("a.point"), 0); /* The next process comes past it. */
}

static void a_rule_that_is_none_ends_the_process(void **state)
{
	static const char *const rules[] = {"", "explode", "error", "error EWHAT", "delay",
		"delay x", "error EIO after=", "error EIO nth=3"};

	for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
		int status = 0;
		points_arm(*state, "a.point", rules[i]);
		pid_t child = fork();
		if (child == 0) {
			struct sigaction standard = {.sa_handler = SIG_DFL};
			sigaction(SIGABRT, &standard, NULL);
			(void)INJECT("a.point");
			_exit(0);
		}
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	}
}

static void a_short_write_is_gone_on_with(void **state)
{
	const struct points *points = *state;
	char path[128], back[12] = "";

	snprintf(path, sizeof(path), "%s/file", points->path);
	int fd CLEANUP_CLOSE = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	points_arm(*state, "io.pwrite.short", "error EIO");
	assert_int_equal(io_pwrite_full(fd, "hello world", 11, 0), 0);
	assert_int_equal(points_passed(*state, "io.pwrite.short"), 1);
	assert_int_equal(io_pread_full(fd, back, 11, 0), 0);
	assert_string_equal(back, "hello world");
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			a_point_that_is_not_armed_does_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(
			an_error_comes_once_and_is_counted, setup, teardown),
		cmocka_unit_test_setup_teardown(
			the_nth_pass_is_the_one_that_fails, setup, teardown),
		cmocka_unit_test_setup_teardown(bytes_are_counted_as_such, setup, teardown),
		cmocka_unit_test_setup_teardown(
			an_error_that_stays_comes_until_it_is_disarmed, setup, teardown),
		cmocka_unit_test_setup_teardown(a_rule_may_be_of_some_bytes_only, setup, teardown),
		cmocka_unit_test_setup_teardown(the_fault_names_the_point, setup, teardown),
		cmocka_unit_test_setup_teardown(a_delay_passes, setup, teardown),
		cmocka_unit_test_setup_teardown(a_hang_ends_when_it_is_disarmed, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_hang_that_may_be_cancelled_ends_with_the_cancel, setup, teardown),
		cmocka_unit_test_setup_teardown(a_kill_is_counted_before_it_kills, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_rule_that_is_none_ends_the_process, setup, teardown),
		cmocka_unit_test_setup_teardown(a_short_write_is_gone_on_with, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
