/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/copy/heat.h"

#include "tests/lib/check.h"

#define MIB (UINT64_C(1) << 20)

static void what_is_written_in_every_round_is_hot(void **state)
{
	struct heat heat = {0};

	(void)state;
	for (int round = 0; round < 10; round++) {
		heat_touch(&heat, 7 * MIB + 4096);
		assert_int_equal(heat_is_hot(&heat, 7 * MIB), round >= 2);
		heat_end_round(&heat);
	}
	assert_true(heat_is_hot(&heat, 8 * MIB - 512));
	assert_false(heat_is_hot(&heat, 8 * MIB));
	assert_false(heat_is_hot(&heat, 7 * MIB - 512));
}

static void a_round_does_not_change_what_is_hot_in_it(void **state)
{
	struct heat heat = {0};

	(void)state;
	heat_touch(&heat, 0);
	heat_end_round(&heat);
	heat_touch(&heat, 0);
	heat_touch(&heat, 0);
	assert_false(heat_is_hot(&heat, 0));
	heat_end_round(&heat);
	assert_true(heat_is_hot(&heat, 0));
}

static void what_is_left_alone_cools_down(void **state)
{
	struct heat heat = {0};

	(void)state;
	for (int round = 0; round < 8; round++) {
		heat_touch(&heat, 3 * MIB);
		heat_end_round(&heat);
	}
	for (int round = 0; round < 3; round++) {
		assert_true(heat_is_hot(&heat, 3 * MIB));
		heat_end_round(&heat);
	}
	assert_false(heat_is_hot(&heat, 3 * MIB));
}

static void the_whole_range_of_offsets_has_a_place(void **state)
{
	struct heat heat = {0};

	(void)state;
	for (uint64_t bit = 0; bit < 63; bit++) {
		heat_touch(&heat, UINT64_C(1) << bit);
		assert_false(heat_is_hot(&heat, UINT64_C(1) << bit));
	}
	heat_touch(&heat, UINT64_MAX);
	heat_end_round(&heat);
}

/* Block groups of 128 MiB, each with something hot at its start: they must not all share one. */
static void regular_distances_do_not_meet(void **state)
{
	struct heat heat = {0};
	unsigned n_touched = 0;

	(void)state;
	for (uint64_t group = 0; group < 512; group++)
		heat_touch(&heat, group * 128 * MIB);
	for (unsigned i = 0; i < HEAT_PLACES; i++)
		n_touched += heat.touched[i];
	assert_true(n_touched > 256);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_written_in_every_round_is_hot),
		cmocka_unit_test(a_round_does_not_change_what_is_hot_in_it),
		cmocka_unit_test(what_is_left_alone_cools_down),
		cmocka_unit_test(the_whole_range_of_offsets_has_a_place),
		cmocka_unit_test(regular_distances_do_not_meet),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
