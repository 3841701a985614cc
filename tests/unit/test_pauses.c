/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/pool_fixture.h"

#include "agent/migrate/pauses.h"

static void add_move(struct pool_db *pool, int64_t finished, const char *total, const char *last)
{
	struct value *fields CLEANUP_VALUE = value_new_struct();
	struct value *pause = value_new_struct();
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	value_set_string(pause, "total", total);
	value_set_string(pause, "last_round", last);
	value_set(fields, "pause", pause);
	value_set(fields, "finished", value_new_datetime(finished));
	check_ok(&fault, object_create(pool, "migration", fields, NULL, &fault));
}

static void the_latest_five_tell_the_usual(void **state)
{
	struct fixture *fixture = *state;

	assert_int_equal(pauses_usual_usec(fixture->pool), 0);
	/* Older ones, in whatever order they are kept, count no more. */
	add_move(fixture->pool, 100, "9000.0", "0.0");
	add_move(fixture->pool, 1000, "30.0", "10.0");
	add_move(fixture->pool, 900, "62.5", "2.5");
	add_move(fixture->pool, 50, "8000.0", "0.0");
	add_move(fixture->pool, 1100, "500.0", "10.0");
	add_move(fixture->pool, 1200, "34.0", "10.0");
	add_move(fixture->pool, 800, "26.0", "4.0");
	assert_int_equal(pauses_usual_usec(fixture->pool), 24000);
}

static void a_move_of_a_halted_vm_has_no_pause(void **state)
{
	struct fixture *fixture = *state;
	struct value *fields CLEANUP_VALUE = value_new_struct();
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	check_ok(&fault, object_create(fixture->pool, "migration", fields, NULL, &fault));
	assert_int_equal(pauses_usual_usec(fixture->pool), 0);
	add_move(fixture->pool, 10, "nonsense", "");
	assert_int_equal(pauses_usual_usec(fixture->pool), 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			the_latest_five_tell_the_usual, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(
			a_move_of_a_halted_vm_has_no_pause, fixture_setup, fixture_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
