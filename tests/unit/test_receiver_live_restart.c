/* SPDX-License-Identifier: Apache-2.0 */
/* The destination's agent dies while a guest comes in. */
#include "tests/lib/live_fixture.h"

static bool take_over_fails;

int __real_guests_take_over(struct guests *guests, const char *migration, const char *vm,
	uint64_t *ret_resumed_usec, struct fault *fault);
int __wrap_guests_take_over(struct guests *guests, const char *migration, const char *vm,
	uint64_t *ret_resumed_usec, struct fault *fault);

int __wrap_guests_take_over(struct guests *guests, const char *migration, const char *vm,
	uint64_t *ret_resumed_usec, struct fault *fault)
{
	if (take_over_fails)
		return fault_text(fault, -ETIMEDOUT, "the agent dies here");
	return __real_guests_take_over(guests, migration, vm, ret_resumed_usec, fault);
}

/* --- Restarts ----------------------------------------------------------------------------------
 */

static void before_the_seal_a_restart_ends_the_qemu(void **state)
{
	struct world *w = *state;

	open_receiver(w, STATE_RECEIVING);
	value_free(begin_incoming(w));
	restart(w);
	check_is_dead(w);
	check_incoming(w, "none");
	assert_int_equal(migration_state(w->m), STATE_RECEIVING);
}

static void after_the_seal_a_restart_keeps_the_memory(void **state)
{
	struct world *w = *state;

	open_receiver(w, STATE_RECEIVING);
	move(w);
	restart(w);
	check_incoming(w, "complete");
	check_ok(&w->fixture->fault, receiver_commit(w->m, &w->fixture->fault));
	check_runs(w, true);
	end_both(w);
}

static void a_commit_cut_off_before_the_guest_ran_goes_on_after_a_restart(void **state)
{
	struct world *w = *state;
	struct value *resumed CLEANUP_VALUE = NULL;

	open_receiver(w, STATE_RECEIVING);
	move(w);
	take_over_fails = true;
	assert_int_equal(receiver_commit(w->m, &w->fixture->fault), -ETIMEDOUT);
	assert_int_equal(decision(w), 1);
	assert_int_equal(migration_state(w->m), STATE_SEALED);
	assert_int_equal(receiver_abort(w->m, EVENT_FAILED, &w->fixture->fault), -EALREADY);
	take_over_fails = false;
	restart(w);
	check_runs(w, true);
	check_ok(&w->fixture->fault, receiver_commit(w->m, &w->fixture->fault));
	assert_int_equal(migration_state(w->m), STATE_COMMITTED);
	resumed = migration_get(w->m, "resumed");
	assert_true(resumed->boolean);
	check_ok(&w->fixture->fault, receiver_finish(w->m, &w->fixture->fault));
	end_both(w);
}

static void a_qemu_that_dies_right_after_the_commit_leaves_the_vm_halted(void **state)
{
	struct world *w = *state;
	struct value *resumed CLEANUP_VALUE = NULL;

	open_receiver(w, STATE_RECEIVING);
	move(w);
	take_over_fails = true;
	assert_int_equal(receiver_commit(w->m, &w->fixture->fault), -ETIMEDOUT);
	take_over_fails = false;
	end_process(w->pid);
	w->pid = 0;
	check_ok(&w->fixture->fault, receiver_commit(w->m, &w->fixture->fault));
	resumed = migration_get(w->m, "resumed");
	assert_false(resumed->boolean);
	char *vm CLEANUP_FREE = find_arrived(w);
	guest_fixture_check_state(w->fixture, vm, "Halted");
	guest_fixture_do(w->fixture, w->params.guests, w->source, "hard_shutdown");
	w->source_pid = 0;
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		CASE(before_the_seal_a_restart_ends_the_qemu),
		CASE(after_the_seal_a_restart_keeps_the_memory),
		CASE(a_commit_cut_off_before_the_guest_ran_goes_on_after_a_restart),
		CASE(a_qemu_that_dies_right_after_the_commit_leaves_the_vm_halted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
