/* SPDX-License-Identifier: Apache-2.0 */
/* Guests that leave this host, and that come to it. */
#include "tests/lib/guest_fixture.h"

#include "agent/vm/operations.h"

#include <signal.h>
#include <sys/wait.h>

struct world {
	struct fixture *fixture;
	struct guests *guests;
	char *vm;
	char *uuid;
	pid_t pid; /* of a QEMU, to be ended in any case */
};

static int set_up(void **state)
{
	struct world *w = xcalloc(1, sizeof(*w));

	*state = w;
	if (fixture_setup((void **)&w->fixture) < 0)
		return -1;
	w->guests = guest_fixture_open(w->fixture);
	w->vm = fixture_object(w->fixture, "VM", guest_fixture_vm());
	check_ok(&w->fixture->fault, object_get_string(w->fixture->storage.pool, "VM", w->vm,
					     "uuid", &w->uuid, &w->fixture->fault));
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;
	struct fixture *fixture = w->fixture;

	guests_free(w->guests);
	if (w->pid > 0)
		kill(w->pid, SIGKILL);
	free(w->vm);
	free(w->uuid);
	free(w);
	return fixture_teardown((void **)&fixture);
}

/* As when the agent is started again. */
static void restart(struct world *w)
{
	guests_free(w->guests);
	fixture_close(w->fixture);
	fixture_open(w->fixture);
	w->guests = guest_fixture_open(w->fixture);
}

static struct resident *start_and_hold(struct world *w)
{
	guest_fixture_do(w->fixture, w->guests, w->vm, "start");
	struct resident *resident = guests_hold(w->guests, w->vm);
	assert_non_null(resident);
	w->pid = guest_pid(resident_guest(resident));
	return resident;
}

static void mark_as_moving(struct world *w)
{
	check_ok(&w->fixture->fault, vm_ensure_operation(w->fixture->storage.pool, w->vm, "key",
					     "migrate_send", &w->fixture->fault));
}

static void unmark(struct world *w)
{
	check_ok(&w->fixture->fault,
		vm_forget_operation(w->fixture->storage.pool, w->vm, "key", &w->fixture->fault));
}

static void check_is_gone(struct world *w)
{
	char *folder CLEANUP_FREE = xasprintf("%s/guests/%s", w->fixture->folder, w->uuid);

	/* After a restart it is a child of this process that nobody else has waited for. */
	waitpid(w->pid, NULL, WNOHANG);
	assert_int_equal(kill(w->pid, 0), -1);
	assert_int_equal(access(folder, F_OK), -1);
	assert_int_equal(guest_fixture_count_journal(w->fixture, NULL), 0);
	w->pid = 0;
}

/* --- It leaves -------------------------------------------------------------------------------- */

static void a_halted_vm_has_no_guest_to_hold(void **state)
{
	struct world *w = *state;

	assert_null(guests_hold(w->guests, w->vm));
	check_ok(&w->fixture->fault, guests_end(w->guests, w->vm, w->uuid, &w->fixture->fault));
}

static void the_stop_at_the_switch_is_no_pause(void **state)
{
	struct world *w = *state;
	struct resident *resident = start_and_hold(w);

	mark_as_moving(w);
	check_ok(&w->fixture->fault, guest_pause(resident_guest(resident), &w->fixture->fault));
	cancel_sleep(NULL, 300 * USEC_PER_MSEC);
	guest_fixture_check_state(w->fixture, w->vm, "Running");
	/* The same for an agent that comes in at that moment. */
	guests_release(resident);
	restart(w);
	guest_fixture_check_state(w->fixture, w->vm, "Running");
	resident = guests_hold(w->guests, w->vm);
	check_ok(&w->fixture->fault, guests_end(w->guests, w->vm, w->uuid, &w->fixture->fault));
	guests_release(resident);
}

static void a_guest_that_stopped_while_it_moved_is_stored_as_paused_afterwards(void **state)
{
	struct world *w = *state;
	struct resident *resident = start_and_hold(w);

	mark_as_moving(w);
	check_ok(&w->fixture->fault, guest_pause(resident_guest(resident), &w->fixture->fault));
	unmark(w);
	guests_release(resident);
	guest_fixture_await_state(w->fixture, w->vm, "Paused");
	guest_fixture_do(w->fixture, w->guests, w->vm, "hard_shutdown");
	check_is_gone(w);
}

static void a_guest_that_is_ended_for_good_leaves_its_vm_alone(void **state)
{
	struct world *w = *state;
	struct resident *resident = start_and_hold(w);

	mark_as_moving(w);
	check_ok(&w->fixture->fault, guests_end(w->guests, w->vm, w->uuid, &w->fixture->fault));
	guest_fixture_check_state(w->fixture, w->vm, "Running");
	guests_release(resident);
	assert_null(guests_hold(w->guests, w->vm));
	check_is_gone(w);
	check_ok(&w->fixture->fault, guests_end(w->guests, w->vm, w->uuid, &w->fixture->fault));
}

static void it_is_ended_after_a_restart_too(void **state)
{
	struct world *w = *state;

	guests_release(start_and_hold(w));
	mark_as_moving(w);
	restart(w);
	assert_int_equal(kill(w->pid, 0), 0);
	check_ok(&w->fixture->fault, guests_end(w->guests, w->vm, w->uuid, &w->fixture->fault));
	guest_fixture_check_state(w->fixture, w->vm, "Running");
	check_is_gone(w);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		CASE(a_halted_vm_has_no_guest_to_hold),
		CASE(the_stop_at_the_switch_is_no_pause),
		CASE(a_guest_that_stopped_while_it_moved_is_stored_as_paused_afterwards),
		CASE(a_guest_that_is_ended_for_good_leaves_its_vm_alone),
		CASE(it_is_ended_after_a_restart_too),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
