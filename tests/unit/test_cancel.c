/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/check.h"

#include "base/cancel.h"
#include "base/cleanup.h"
#include "base/clock.h"

#include <errno.h>
#include <limits.h>

static void the_first_reason_is_kept(void **state)
{
	struct cancel *cancel CLEANUP_CANCEL = cancel_new();

	(void)state;
	assert_false(cancel_is_requested(cancel));
	assert_string_equal(cancel_reason(cancel), "");
	cancel_request(cancel, "operator");
	cancel_request(cancel, "shutdown");
	assert_true(cancel_is_requested(cancel));
	assert_string_equal(cancel_reason(cancel), "operator");
}

static void nobody_cancels_a_null_token(void **state)
{
	struct pollfd none = {.fd = -1};

	(void)state;
	assert_false(cancel_is_requested(NULL));
	assert_int_equal(cancel_fd(NULL), -1);
	assert_int_equal(cancel_poll(NULL, &none, 1, clock_deadline(1000)), 0);
	assert_int_equal(cancel_sleep(NULL, 1000), 0);
}

static void *request_soon(void *cancel)
{
	usleep(20000);
	cancel_request(cancel, "from another thread");
	return NULL;
}

static void a_waiting_thread_is_woken(void **state)
{
	struct cancel *cancel CLEANUP_CANCEL = cancel_new();
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, request_soon, cancel), 0);
	uint64_t start = clock_now_usec();
	assert_int_equal(cancel_sleep(cancel, 60 * USEC_PER_SEC), -ECANCELED);
	assert_true(clock_now_usec() - start < 30 * USEC_PER_SEC);
	assert_string_equal(cancel_reason(cancel), "from another thread");
	pthread_join(thread, NULL);
}

static void a_requested_token_refuses_every_later_wait(void **state)
{
	struct cancel *cancel CLEANUP_CANCEL = cancel_new();
	int pipe_fds[2];

	(void)state;
	assert_int_equal(pipe(pipe_fds), 0);
	assert_int_equal(write(pipe_fds[1], "x", 1), 1);
	struct pollfd fd = {.fd = pipe_fds[0], .events = POLLIN};
	assert_int_equal(cancel_poll(cancel, &fd, 1, clock_deadline(USEC_PER_SEC)), 1);
	assert_true(fd.revents & POLLIN);
	cancel_request(cancel, "x");
	for (int i = 0; i < 2; i++)
		assert_int_equal(cancel_poll(cancel, &fd, 1, USEC_FOREVER), -ECANCELED);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
}

static void a_wait_ends_at_its_deadline_and_not_before(void **state)
{
	struct cancel *cancel CLEANUP_CANCEL = cancel_new();
	uint64_t start = clock_now_usec();

	(void)state;
	assert_int_equal(cancel_sleep(cancel, 15500), 0);
	assert_true(clock_now_usec() - start >= 15500);
	assert_int_equal(cancel_poll(cancel, NULL, 0, 0), 0);
}

static void far_deadlines_saturate(void **state)
{
	uint64_t now = clock_now_usec();

	(void)state;
	assert_true(clock_deadline(USEC_FOREVER) == USEC_FOREVER);
	assert_true(clock_deadline(USEC_FOREVER - 1) == USEC_FOREVER);
	assert_int_equal(clock_poll_timeout(USEC_FOREVER), -1);
	assert_int_equal(clock_poll_timeout(0), 0);
	assert_int_equal(clock_poll_timeout(now + USEC_PER_SEC * 86400 * 365), INT_MAX);
	/* Rounded up: never awake before the deadline. */
	uint64_t deadline = clock_now_usec() + 10 * USEC_PER_SEC + 1;
	uint64_t timeout = (uint64_t)clock_poll_timeout(deadline) * USEC_PER_MSEC;
	assert_true(clock_now_usec() + timeout >= deadline);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_first_reason_is_kept),
		cmocka_unit_test(nobody_cancels_a_null_token),
		cmocka_unit_test(a_waiting_thread_is_woken),
		cmocka_unit_test(a_requested_token_refuses_every_later_wait),
		cmocka_unit_test(a_wait_ends_at_its_deadline_and_not_before),
		cmocka_unit_test(far_deadlines_saturate),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
