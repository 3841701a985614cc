/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/check.h"

#include "agent/migrate/predict.h"
#include "base/cleanup.h"
#include "base/clock.h"

#define MIB (UINT64_C(1) << 20)

/* A round over a link of `rate` bytes a second that leaves what a guest dirties meanwhile. */
static uint64_t play_round(struct predict *predict, uint64_t left, double rate, double dirty_rate)
{
	uint64_t usec = (uint64_t)((double)left / rate * (double)USEC_PER_SEC);
	uint64_t next = (uint64_t)(dirty_rate * (double)usec / (double)USEC_PER_SEC);

	predict_add(predict,
		&(struct predict_round){
			.sent_bytes = left, .busy_usec = usec, .usec = usec, .left_bytes = next});
	return next;
}

static void a_guest_slower_than_the_link_fits_in_the_end(void **state)
{
	struct predict predict;
	uint64_t left = 68 * MIB;
	unsigned n = 0;

	(void)state;
	predict_init(&predict, 0, 300 * USEC_PER_MSEC, 20.0 * MIB);
	while (!predict_fits(&predict, left) && n++ < 50) {
		left = play_round(&predict, left, 20.0 * MIB, 11.7 * MIB);
		assert_false(predict_is_stalled(&predict));
	}
	/* 260 ms of a link of 20 MiB/s. */
	assert_in_range(left, 1, 5 * MIB + MIB / 4);
	assert_in_range(n, 4, 7);
	assert_in_range((uint64_t)predict.rate, 19 * MIB, 21 * MIB);
	assert_in_range((uint64_t)predict.dirty_rate, 11 * MIB, 12 * MIB);
}

static void a_guest_faster_than_the_link_is_said_to_stall(void **state)
{
	struct predict predict;
	uint64_t left = 40 * MIB;
	unsigned n = 0;

	(void)state;
	predict_init(&predict, 0, 300 * USEC_PER_MSEC, 20.0 * MIB);
	while (!predict_is_stalled(&predict)) {
		/* It has only so much to dirty. */
		uint64_t next = play_round(&predict, left, 20.0 * MIB, 40.0 * MIB);
		left = MIN(next, 256 * MIB);
		assert_false(predict_fits(&predict, left));
		assert_in_range(n++, 0, 10);
	}
	assert_in_range(n, PREDICT_STALLED_ROUNDS, PREDICT_STALLED_ROUNDS + 1);
	assert_true(predict_pause_usec(&predict, left) > USEC_PER_SEC);
	predict_forgive(&predict);
	assert_false(predict_is_stalled(&predict));
}

static void nothing_left_costs_what_is_fixed(void **state)
{
	struct predict predict;

	(void)state;
	predict_init(&predict, 0, 300 * USEC_PER_MSEC, 0);
	assert_int_equal(predict_pause_usec(&predict, 0), PREDICT_FIXED_USEC);
	assert_true(predict_fits(&predict, 0));
	/* Nothing was ever sent: no promise can be made about a byte. */
	assert_false(predict_fits(&predict, 4096));
}

static void a_few_bytes_are_not_judged_by_the_bandwidth(void **state)
{
	struct predict predict;

	(void)state;
	predict_init(&predict, 0, 300 * USEC_PER_MSEC, 1000.0 * MIB);
	/* 4 KiB in 10 ms is latency: it says nothing about 100 MiB. */
	predict_add(&predict, &(struct predict_round){.sent_bytes = 4096,
				      .busy_usec = 10 * USEC_PER_MSEC,
				      .usec = 20 * USEC_PER_MSEC,
				      .left_bytes = 8192});
	assert_int_equal((uint64_t)predict.rate, 1000 * MIB);
	assert_int_equal(
		predict_pause_usec(&predict, 8192), PREDICT_FIXED_USEC + 10 * USEC_PER_MSEC);
	assert_in_range(predict_pause_usec(&predict, 100 * MIB),
		PREDICT_FIXED_USEC + 99 * USEC_PER_MSEC, PREDICT_FIXED_USEC + 101 * USEC_PER_MSEC);
}

static void a_slow_host_can_move_a_guest_all_the_same(void **state)
{
	struct predict predict;

	(void)state;
	/* Earlier pauses were longer than what is allowed now: said, but no reason to send on. */
	predict_init(&predict, 900 * USEC_PER_MSEC, 300 * USEC_PER_MSEC, 20.0 * MIB);
	assert_int_equal(predict_pause_usec(&predict, 0), 900 * USEC_PER_MSEC);
	assert_true(predict_fits(&predict, MIB));
	assert_false(predict_fits(&predict, 4 * MIB));
	/* Rounds of few bytes that take long are no stall either. */
	for (int i = 0; i < 10; i++)
		predict_add(&predict, &(struct predict_round){.sent_bytes = 65536,
					      .busy_usec = 400 * USEC_PER_MSEC,
					      .usec = 500 * USEC_PER_MSEC,
					      .left_bytes = 65536});
	assert_true(predict_fits(&predict, 65536));
	assert_false(predict_is_stalled(&predict));
}

static void each_throttle_is_half_of_the_one_before(void **state)
{
	struct predict predict;

	(void)state;
	predict_init(&predict, 0, 300 * USEC_PER_MSEC, 20.0 * MIB);
	assert_int_equal(predict_throttle(&predict, 0), 10 * MIB);
	assert_int_equal(predict_throttle(&predict, 1), 5 * MIB);
	/* Slower than that, it can as well be stopped. */
	assert_int_equal(predict_throttle(&predict, 20), MIB / 4);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_guest_slower_than_the_link_fits_in_the_end),
		cmocka_unit_test(a_guest_faster_than_the_link_is_said_to_stall),
		cmocka_unit_test(nothing_left_costs_what_is_fixed),
		cmocka_unit_test(a_few_bytes_are_not_judged_by_the_bandwidth),
		cmocka_unit_test(a_slow_host_can_move_a_guest_all_the_same),
		cmocka_unit_test(each_throttle_is_half_of_the_one_before),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
