/* SPDX-License-Identifier: Apache-2.0 */
/* Guests that leave this host, and that come to it. */
#include "tests/lib/guest_fixture.h"

#include "agent/vm/guest_record.h"
#include "agent/vm/guest_state.h"
#include "agent/vm/operations.h"

#include <errno.h>
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
	if (w->pid > 0) {
		kill(w->pid, SIGKILL);
		waitpid(w->pid, NULL, 0);
	}
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

/* --- It comes -----------------------------------------------------------------------------------
 */

#define MIGRATION "6a1c3f0e-0000-4000-8000-00000000000a"

/* A VM as the commit imports it; its uuid is the one that the guest is started with. */
struct arrival {
	char *vm;
	char *uuid;
	pid_t pid;
};

static void arrival_clear(struct arrival *arrival)
{
	if (arrival->pid > 0) {
		kill(arrival->pid, SIGKILL);
		waitpid(arrival->pid, NULL, 0);
	}
	free(arrival->vm);
	free(arrival->uuid);
}

#define CLEANUP_ARRIVAL CLEANUP(arrival_clear)

static struct arrival start_incoming(struct world *w)
{
	struct guest_spec spec CLEANUP_GUEST_SPEC = GUEST_SPEC_INIT;
	struct resident *resident CLEANUP_GUESTS_RESIDENT = NULL;
	struct arrival arrival = {.vm = fixture_object(w->fixture, "VM", guest_fixture_vm())};

	check_ok(&w->fixture->fault, object_get_string(w->fixture->storage.pool, "VM", arrival.vm,
					     "uuid", &arrival.uuid, &w->fixture->fault));
	check_ok(&w->fixture->fault,
		guest_record_read(&w->fixture->storage, arrival.vm, &spec, &w->fixture->fault));
	check_ok(&w->fixture->fault, guests_start_incoming(w->guests, MIGRATION, &spec, NULL,
					     &resident, &w->fixture->fault));
	arrival.pid = guest_pid(resident_guest(resident));
	return arrival;
}

static void command(struct world *w, struct guest *guest, const char *name, struct value *arguments)
{
	struct value *owned CLEANUP_VALUE = arguments;

	check_ok(&w->fixture->fault,
		guest_command(guest, name, owned, NULL, NULL, &w->fixture->fault));
}

static void await_completed(struct world *w, struct guest *guest)
{
	uint64_t deadline = clock_deadline(20 * USEC_PER_SEC);
	bool is_completed = false;

	while (!is_completed && clock_now_usec() < deadline) {
		struct value *answer CLEANUP_VALUE = NULL;
		check_ok(&w->fixture->fault, guest_command(guest, "query-migrate", NULL, NULL,
						     &answer, &w->fixture->fault));
		is_completed = strcmp(value_find_string(answer, "status", ""), "completed") == 0;
		if (!is_completed)
			cancel_sleep(NULL, 5 * USEC_PER_MSEC);
	}
	assert_true(is_completed);
}

/* The guest of w->vm hands its memory over; it stays here, stopped. */
static void send_memory(struct world *w)
{
	struct resident *from CLEANUP_GUESTS_RESIDENT = start_and_hold(w);
	struct resident *to CLEANUP_GUESTS_RESIDENT = guests_find_incoming(w->guests, MIGRATION);
	assert_non_null(to);
	char *socket CLEANUP_FREE = guest_file(resident_run_dir(to), GUEST_MEMORY);
	char *uri CLEANUP_FREE = xasprintf("unix:%s", socket);
	struct value *capability = value_new_struct();

	mark_as_moving(w);
	value_set_string(capability, "capability", "return-path");
	value_set_bool(capability, "state", true);
	struct value *arguments = value_new_struct();
	value_set(arguments, "capabilities", value_append(value_new_array(), capability));
	command(w, resident_guest(to), "migrate-set-capabilities", value_copy(arguments));
	command(w, resident_guest(from), "migrate-set-capabilities", arguments);
	command(w, resident_guest(to), "migrate-incoming",
		value_set_string(value_new_struct(), "uri", uri));
	command(w, resident_guest(from), "migrate",
		value_set_string(value_new_struct(), "uri", uri));
	await_completed(w, resident_guest(to));
}

/* What the commit stores. */
static void store_as_running(struct world *w, const struct arrival *arrival)
{
	const struct guest_running running = {.vm = arrival->vm,
		.host_ref = w->fixture->host,
		.console_path = "/x",
		.domid = guests_take_domid(w->guests)};
	bool is_committed = false;

	check_ok(&w->fixture->fault,
		guest_state_started(w->fixture->storage.pool, &running, &w->fixture->fault));
	check_ok(&w->fixture->fault, commit_decide(w->fixture->storage.pool, MIGRATION, true,
					     arrival->vm, &is_committed, NULL, &w->fixture->fault));
}

static bool runs(struct world *w, const char *vm)
{
	struct resident *resident CLEANUP_GUESTS_RESIDENT = guests_hold(w->guests, vm);
	bool is_running = false;

	assert_non_null(resident);
	check_ok(&w->fixture->fault,
		guest_is_running(resident_guest(resident), &is_running, &w->fixture->fault));
	return is_running;
}

static void check_has_ended(struct world *w, struct arrival *arrival)
{
	char *folder CLEANUP_FREE = xasprintf("%s/guests/%s", w->fixture->folder, arrival->uuid);

	waitpid(arrival->pid, NULL, WNOHANG);
	assert_int_equal(kill(arrival->pid, 0), -1);
	arrival->pid = 0;
	assert_int_equal(access(folder, F_OK), -1);
	assert_int_equal(guest_fixture_count_journal(w->fixture, MIGRATION), 0);
	assert_null(guests_find_incoming(w->guests, MIGRATION));
}

static void one_that_waits_is_the_migrations_until_it_is_ended(void **state)
{
	struct world *w = *state;
	struct arrival arrival CLEANUP_ARRIVAL = start_incoming(w);

	assert_int_equal(guest_fixture_count_journal(w->fixture, MIGRATION), 1);
	assert_null(guests_hold(w->guests, arrival.vm));
	guest_fixture_check_state(w->fixture, arrival.vm, "Halted");
	/* An agent that comes in meanwhile leaves it to the migration. */
	restart(w);
	assert_int_equal(kill(arrival.pid, 0), 0);
	guests_release(guests_find_incoming(w->guests, MIGRATION));
	check_ok(&w->fixture->fault, guests_end_incoming(w->guests, MIGRATION, &w->fixture->fault));
	check_has_ended(w, &arrival);
	check_ok(&w->fixture->fault, guests_end_incoming(w->guests, MIGRATION, &w->fixture->fault));
}

static void a_second_one_ends_the_first(void **state)
{
	struct world *w = *state;
	struct arrival first CLEANUP_ARRIVAL = start_incoming(w);
	struct arrival second CLEANUP_ARRIVAL = start_incoming(w);

	assert_int_equal(guest_fixture_count_journal(w->fixture, MIGRATION), 1);
	assert_int_equal(kill(second.pid, 0), 0);
	waitpid(first.pid, NULL, WNOHANG);
	assert_int_equal(kill(first.pid, 0), -1);
	first.pid = 0;
	check_ok(&w->fixture->fault, guests_end_incoming(w->guests, MIGRATION, &w->fixture->fault));
	check_has_ended(w, &second);
}

static void one_that_dies_while_it_waits_is_not_found(void **state)
{
	struct world *w = *state;
	struct arrival arrival CLEANUP_ARRIVAL = start_incoming(w);
	struct resident *resident CLEANUP_GUESTS_RESIDENT =
		guests_find_incoming(w->guests, MIGRATION);

	kill(arrival.pid, SIGKILL);
	while (guest_is_alive(resident_guest(resident)))
		cancel_sleep(NULL, 5 * USEC_PER_MSEC);
	assert_null(guests_find_incoming(w->guests, MIGRATION));
	check_ok(&w->fixture->fault, guests_end_incoming(w->guests, MIGRATION, &w->fixture->fault));
	check_has_ended(w, &arrival);
}

static void more_memory_than_the_host_has_is_refused(void **state)
{
	struct world *w = *state;
	struct guest_spec spec CLEANUP_GUEST_SPEC = GUEST_SPEC_INIT;
	struct resident *resident = NULL;

	check_ok(&w->fixture->fault,
		guest_record_read(&w->fixture->storage, w->vm, &spec, &w->fixture->fault));
	spec.memory_bytes = UINT64_C(2) << 30;
	check_fault(&w->fixture->fault, "HOST_NOT_ENOUGH_FREE_MEMORY",
		guests_check_room(w->guests, &spec, &w->fixture->fault));
	check_fault(&w->fixture->fault, "HOST_NOT_ENOUGH_FREE_MEMORY",
		guests_start_incoming(
			w->guests, MIGRATION, &spec, NULL, &resident, &w->fixture->fault));
	assert_int_equal(guest_fixture_count_journal(w->fixture, NULL), 0);
}

static void one_that_is_taken_over_runs_like_any_other(void **state)
{
	struct world *w = *state;
	struct arrival arrival CLEANUP_ARRIVAL = start_incoming(w);
	uint64_t resumed = 0;

	send_memory(w);
	store_as_running(w, &arrival);
	for (int i = 0; i < 2; i++) {
		check_ok(&w->fixture->fault, guests_take_over(w->guests, MIGRATION, arrival.vm,
						     &resumed, &w->fixture->fault));
		assert_int_equal(resumed != 0, i == 0);
	}
	assert_true(runs(w, arrival.vm));
	assert_false(runs(w, w->vm));
	assert_int_equal(guest_fixture_count_journal(w->fixture, ""), 2);
	guest_fixture_do(w->fixture, w->guests, arrival.vm, "pause");
	restart(w);
	guest_fixture_check_state(w->fixture, arrival.vm, "Paused");
	check_ok(&w->fixture->fault,
		guests_take_over(w->guests, MIGRATION, arrival.vm, NULL, &w->fixture->fault));
	guest_fixture_check_state(w->fixture, arrival.vm, "Paused");
	guest_fixture_do(w->fixture, w->guests, arrival.vm, "hard_shutdown");
	check_has_ended(w, &arrival);
	check_ok(&w->fixture->fault, guests_end(w->guests, w->vm, w->uuid, &w->fixture->fault));
}

/* The agent died between the commit and the order to run. */
static void one_whose_vm_was_committed_runs_after_a_restart(void **state)
{
	struct world *w = *state;
	struct arrival arrival CLEANUP_ARRIVAL = start_incoming(w);

	send_memory(w);
	store_as_running(w, &arrival);
	restart(w);
	guest_fixture_check_state(w->fixture, arrival.vm, "Running");
	assert_true(runs(w, arrival.vm));
	assert_int_equal(guest_fixture_count_journal(w->fixture, MIGRATION), 0);
	guest_fixture_do(w->fixture, w->guests, arrival.vm, "hard_shutdown");
	check_has_ended(w, &arrival);
	check_ok(&w->fixture->fault, guests_end(w->guests, w->vm, w->uuid, &w->fixture->fault));
}

static void one_that_died_after_the_commit_leaves_its_vm_halted(void **state)
{
	struct world *w = *state;

	for (int with_restart = 0; with_restart < 2; with_restart++) {
		struct arrival arrival CLEANUP_ARRIVAL = start_incoming(w);
		store_as_running(w, &arrival);
		kill(arrival.pid, SIGKILL);
		waitpid(arrival.pid, NULL, 0);
		arrival.pid = 0;
		if (with_restart)
			restart(w);
		assert_int_equal(guests_take_over(w->guests, MIGRATION, arrival.vm, NULL,
					 &w->fixture->fault),
			-ESRCH);
		guest_fixture_check_state(w->fixture, arrival.vm, "Halted");
		guest_fixture_await_journal(w->fixture, 0);
	}
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
		CASE(one_that_waits_is_the_migrations_until_it_is_ended),
		CASE(a_second_one_ends_the_first),
		CASE(one_that_dies_while_it_waits_is_not_found),
		CASE(more_memory_than_the_host_has_is_refused),
		CASE(one_that_is_taken_over_runs_like_any_other),
		CASE(one_whose_vm_was_committed_runs_after_a_restart),
		CASE(one_that_died_after_the_commit_leaves_its_vm_halted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
