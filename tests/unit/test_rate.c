/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/copy/rate.h"

#include "base/clock.h"
#include "tests/lib/check.h"

#include <errno.h>

#define MIB (UINT64_C(1) << 20)

static void no_limit_never_waits(void **state)
{
	struct rate_limit *rate CLEANUP_RATE_LIMIT = rate_limit_new(0);

	(void)state;
	for (int i = 0; i < 1000; i++)
		assert_int_equal(rate_limit_try(rate, 1000 * MIB), 0);
	assert_int_equal(rate_limit_try(NULL, 1), 0);
	assert_int_equal(rate_limit_take(NULL, 1, NULL), 0);
}

static void the_average_holds(void **state)
{
	struct rate_limit *rate CLEANUP_RATE_LIMIT = rate_limit_new(20 * MIB);
	uint64_t before = clock_now_usec();

	(void)state;
	for (int i = 0; i < 20; i++)
		assert_int_equal(rate_limit_take(rate, MIB / 2, NULL), 0);
	/* 10 MiB at 20 MiB/s less the burst of 100 ms and the last request's debt. */
	assert_in_range(clock_now_usec() - before, 350 * USEC_PER_MSEC, 1500 * USEC_PER_MSEC);
}

static void idle_time_is_not_saved_up(void **state)
{
	struct rate_limit *rate CLEANUP_RATE_LIMIT = rate_limit_new(10 * MIB);

	(void)state;
	assert_int_equal(cancel_sleep(NULL, 300 * USEC_PER_MSEC), 0);
	uint64_t before = clock_now_usec();
	for (int i = 0; i < 4; i++)
		assert_int_equal(rate_limit_take(rate, MIB, NULL), 0);
	assert_true(clock_now_usec() - before >= 190 * USEC_PER_MSEC);
}

static void a_request_larger_than_the_rate_passes(void **state)
{
	struct rate_limit *rate CLEANUP_RATE_LIMIT = rate_limit_new(1000);
	uint64_t now = clock_now_usec();

	(void)state;
	assert_int_equal(rate_limit_try(rate, MIB), 0);
	uint64_t again = rate_limit_try(rate, 1);
	assert_in_range(again, now + 200 * USEC_PER_MSEC, clock_now_usec() + 250 * USEC_PER_MSEC);
}

static void a_raised_limit_ends_the_wait(void **state)
{
	struct rate_limit *rate CLEANUP_RATE_LIMIT = rate_limit_new(1000);

	(void)state;
	assert_int_equal(rate_limit_take(rate, MIB, NULL), 0);
	assert_true(rate_limit_try(rate, 1) > 0);
	rate_limit_set(rate, 1000 * MIB);
	assert_int_equal(rate_limit_get(rate), 1000 * MIB);
	uint64_t before = clock_now_usec();
	assert_int_equal(rate_limit_take(rate, 1, NULL), 0);
	assert_true(clock_now_usec() - before < 250 * USEC_PER_MSEC);
	rate_limit_set(rate, 1);
	assert_int_equal(rate_limit_take(rate, MIB, NULL), 0);
	rate_limit_set(rate, 0);
	assert_int_equal(rate_limit_try(rate, MIB), 0);
}

static void cancel_ends_the_wait(void **state)
{
	struct rate_limit *rate CLEANUP_RATE_LIMIT = rate_limit_new(1);
	struct cancel *cancel CLEANUP_CANCEL = cancel_new();

	(void)state;
	assert_int_equal(rate_limit_take(rate, MIB, cancel), 0);
	cancel_request(cancel, "enough");
	assert_int_equal(rate_limit_take(rate, 1, cancel), -ECANCELED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_limit_never_waits),
		cmocka_unit_test(the_average_holds),
		cmocka_unit_test(idle_time_is_not_saved_up),
		cmocka_unit_test(a_request_larger_than_the_rate_passes),
		cmocka_unit_test(a_raised_limit_ends_the_wait),
		cmocka_unit_test(cancel_ends_the_wait),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
