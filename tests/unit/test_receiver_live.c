/* SPDX-License-Identifier: Apache-2.0 */
/* How a guest that runs comes in, and what keeps it from running here. */
#include "tests/lib/live_fixture.h"

#include "agent/migrate/peer.h"
#include "agent/migrate/supervisor_internal.h"

static bool wait_is_short;

int __real_resident_await_memory(struct resident *resident, uint64_t deadline_usec,
	const struct cancel *cancel, struct fault *fault);
int __wrap_resident_await_memory(struct resident *resident, uint64_t deadline_usec,
	const struct cancel *cancel, struct fault *fault);

int __wrap_resident_await_memory(struct resident *resident, uint64_t deadline_usec,
	const struct cancel *cancel, struct fault *fault)
{
	return __real_resident_await_memory(resident,
		wait_is_short ? clock_deadline(100 * USEC_PER_MSEC) : deadline_usec, cancel, fault);
}

/* --- Before the move ---------------------------------------------------------------------------
 */

/* The import and the guest that it would make, without disks. */
static int try_guest(struct world *w, const struct value *manifest)
{
	struct value *disks CLEANUP_VALUE = value_new_array();
	struct guest_spec spec CLEANUP_GUEST_SPEC = GUEST_SPEC_INIT;

	fault_clear(&w->fixture->fault);
	return receiver_try_guest(&w->params, manifest, disks, false, &spec, &w->fixture->fault);
}

static void a_guest_that_would_not_start_is_refused_before_the_move(void **state)
{
	struct world *w = *state;
	struct value *manifest CLEANUP_VALUE = value_new_struct();
	struct value *network = value_set_string(value_new_struct(), "bridge", "br0");
	char *ref CLEANUP_FREE = fixture_object(w->fixture, "network", network);
	struct value *vm = new_vm(w);
	struct value *vif = value_new_struct();

	value_set(manifest, "vm", vm);
	check_ok(&w->fixture->fault, try_guest(w, manifest));
	value_set_int(vm, "memory_static_max", 4096);
	assert_true(try_guest(w, manifest) < 0);
	assert_string_equal(w->fixture->fault.code, "VM_MEMORY_SIZE_TOO_LOW");
	/* The ref that it had for a moment says nothing to anybody. */
	assert_string_equal(w->fixture->fault.params[0], w->uuid);
	value_set_int(vm, "memory_static_max", GUEST_MEMORY_BYTES);
	value_set_string(vif, "device", "0");
	value_set_string(vif, "network", ref);
	value_set(manifest, "vifs", value_append(value_new_array(), vif));
	assert_true(try_guest(w, manifest) < 0);
	assert_string_equal(w->fixture->fault.code, "VM_REQUIRES_NETWORK");
	assert_string_equal(w->fixture->fault.params[0], w->uuid);
	assert_string_equal(w->fixture->fault.params[1], ref);
	assert_int_equal(fixture_count(w->fixture, "VM"), 0);
	assert_int_equal(fixture_count(w->fixture, "VIF"), 0);
}

static int check_with(struct world *w, const char *name, const char *value)
{
	struct value *manifest CLEANUP_VALUE = new_manifest(w);

	fault_clear(&w->fixture->fault);
	value_set_string(manifest, "protocol", PEER_PROTOCOL);
	value_set_string(manifest, "data_tls", peer_data_tls(&w->params));
	value_set_string(value_find(manifest, "vm"), "power_state", "Running");
	value_set(manifest, "disks", value_new_array());
	value_set(manifest, "vbds", value_new_array());
	if (name)
		value_set_string(manifest, name, value);
	return receiver_check(&w->params, manifest, &w->fixture->fault);
}

/* After the disks were copied QEMU would refuse its memory. */
static void a_guest_that_cannot_go_on_here_is_refused_before_the_move(void **state)
{
	struct world *w = *state;
	struct value *yes CLEANUP_VALUE = value_new_bool(true);
	bool has_kvm = strcmp(guest_accelerator(), "kvm") == 0;

	check_ok(&w->fixture->fault, object_set_field(w->fixture->storage.pool, "host",
					     w->fixture->host, "enabled", yes, &w->fixture->fault));
	check_ok(&w->fixture->fault, check_with(w, NULL, NULL));
	check_ok(&w->fixture->fault, check_with(w, "accelerator", guest_accelerator()));
	assert_true(check_with(w, "accelerator", has_kvm ? "tcg" : "kvm") < 0);
	assert_string_equal(w->fixture->fault.code, "VM_INCOMPATIBLE_WITH_THIS_HOST");
	assert_string_equal(w->fixture->fault.params[0], w->uuid);
	assert_string_equal(w->fixture->fault.params[1], w->fixture->host);
	check_ok(&w->fixture->fault, check_with(w, "machine", "pc-i440fx-6.2"));
	assert_true(check_with(w, "machine", "pc-i440fx-6") < 0);
	assert_string_equal(w->fixture->fault.code, "VM_INCOMPATIBLE_WITH_THIS_HOST");
	assert_non_null(strstr(w->fixture->fault.params[2], "pc-i440fx-6"));
	assert_true(check_with(w, "machine", "pc,accel=kvm") < 0);
	assert_string_equal(w->fixture->fault.code, "INTERNAL_ERROR");
}

/* --- Moves -------------------------------------------------------------------------------------
 */

static void the_guest_arrives_and_runs(void **state)
{
	struct world *w = *state;
	struct value *resumed CLEANUP_VALUE = NULL;

	open_receiver(w, STATE_RECEIVING);
	move(w);
	uint64_t asked = clock_now_usec();
	check_ok(&w->fixture->fault, receiver_commit(w->m, &w->fixture->fault));
	assert_int_equal(migration_state(w->m), STATE_COMMITTED);
	assert_true(w->m->resumed_usec >= asked);
	resumed = migration_get(w->m, "resumed");
	assert_true(resumed->boolean);
	assert_null(w->m->door);
	check_runs(w, true);
	char *vm CLEANUP_FREE = find_arrived(w);
	struct value *record CLEANUP_VALUE = fixture_record(w->fixture, "VM", vm);
	assert_string_equal(value_find_string(record, "resident_on", ""), w->fixture->host);
	assert_true(value_find_int(record, "domid", -1) > 0);
	assert_int_equal(value_find(record, "consoles")->array.n_items, 1);
	struct value *vbds CLEANUP_VALUE = NULL;
	check_ok(&w->fixture->fault,
		object_find(w->fixture->storage.pool, "VBD", "VM", vm, &vbds, &w->fixture->fault));
	struct value *vbd CLEANUP_VALUE =
		fixture_record(w->fixture, "VBD", vbds->array.items[0]->string);
	assert_true(value_find_bool(vbd, "currently_attached", false));
	/* Asked again, by a sender that has not heard. */
	check_ok(&w->fixture->fault, receiver_commit(w->m, &w->fixture->fault));
	check_ok(&w->fixture->fault, receiver_finish(w->m, &w->fixture->fault));
	check_runs(w, true);
	end_both(w);
}

/* Telling takes the database's time, which is the guest's while it is paused. */
static void a_seal_that_lasts_is_shown(void **state)
{
	struct world *w = *state;
	struct supervisor *supervisor = NULL;

	open_receiver(w, STATE_RECEIVING);
	w->params.lease_usec = w->params.abandon_usec = 60 * USEC_PER_SEC;
	supervisor = supervisor_new(&w->params);
	registry_add(&supervisor->registry, w->m);
	value_free(begin_incoming(w));
	seal(w);
	check_shown(w, "");
	keeper_round(supervisor);
	check_shown(w, "");
	w->m->sealed_usec -= 3 * USEC_PER_SEC;
	keeper_round(supervisor);
	check_shown(w, "SEALED");
	check_ok(&w->fixture->fault, receiver_abort(w->m, EVENT_FAILED, &w->fixture->fault));
	supervisor_stop(supervisor);
	check_nothing_is_left(w, 0);
}

/* The source is done milliseconds before the destination. */
static void a_commit_waits_for_the_last_of_the_memory(void **state)
{
	struct world *w = *state;
	struct resident *from CLEANUP_GUESTS_RESIDENT = NULL;
	struct value *answer CLEANUP_VALUE = NULL;
	struct tunnel_link *link CLEANUP_TUNNEL_LINK = NULL;

	open_receiver(w, STATE_RECEIVING);
	from = start_source(w);
	answer = begin_incoming(w);
	send_memory(w, resident_guest(from), answer, &link);
	seal(w);
	check_incoming(w, "waiting");
	check_ok(&w->fixture->fault, memory_continue(resident_guest(from), &w->fixture->fault));
	check_ok(&w->fixture->fault, receiver_commit(w->m, &w->fixture->fault));
	check_shown(w, "COMMITTED");
	check_runs(w, true);
	end_both(w);
}

static void a_commit_without_the_memory_is_refused_for_good(void **state)
{
	struct world *w = *state;

	open_receiver(w, STATE_RECEIVING);
	value_free(begin_incoming(w));
	seal(w);
	wait_is_short = true;
	assert_int_equal(receiver_commit(w->m, &w->fixture->fault), -ETIMEDOUT);
	wait_is_short = false;
	check_nothing_is_left(w, 0);
	assert_int_equal(fixture_count_files(w->fixture), 0);
	assert_true(receiver_commit(w->m, &w->fixture->fault) < 0);
}

static void a_commit_whose_qemu_is_dead_is_refused_for_good(void **state)
{
	struct world *w = *state;

	open_receiver(w, STATE_RECEIVING);
	move(w);
	kill(w->pid, SIGKILL);
	waitpid(w->pid, NULL, 0);
	assert_int_equal(receiver_commit(w->m, &w->fixture->fault), -ESRCH);
	check_nothing_is_left(w, 1);
}

static void a_commit_after_no_incoming_is_refused_for_good(void **state)
{
	struct world *w = *state;

	open_receiver(w, STATE_SEALED);
	check_incoming(w, "dead");
	assert_int_equal(receiver_commit(w->m, &w->fixture->fault), -ESRCH);
	assert_int_equal(decision(w), 0);
	assert_int_equal(fixture_count(w->fixture, "VM"), 0);
}

/* --- Beginning, and beginning again ------------------------------------------------------------
 */

static void a_second_incoming_is_another_qemu_behind_another_secret(void **state)
{
	struct world *w = *state;
	struct tunnel_link *link CLEANUP_TUNNEL_LINK = NULL;

	open_receiver(w, STATE_RECEIVING);
	check_incoming(w, "none");
	struct value *first CLEANUP_VALUE = begin_incoming(w);
	pid_t first_pid = w->pid;
	struct value *second CLEANUP_VALUE = begin_incoming(w);
	assert_int_not_equal(first_pid, w->pid);
	waitpid(first_pid, NULL, WNOHANG);
	assert_int_equal(kill(first_pid, 0), -1);
	assert_int_equal(try_link(w, first, &link), -EACCES);
	check_ok(&w->fixture->fault, try_link(w, second, &link));
	check_ok(&w->fixture->fault, receiver_abort(w->m, EVENT_FAILED, &w->fixture->fault));
	check_is_dead(w);
}

static void a_qemu_that_dies_while_it_waits_is_seen(void **state)
{
	struct world *w = *state;
	uint64_t deadline = clock_deadline(WAIT_USEC);

	open_receiver(w, STATE_RECEIVING);
	value_free(begin_incoming(w));
	kill(w->pid, SIGKILL);
	while (strcmp(incoming(w), "dead") != 0 && clock_now_usec() < deadline)
		cancel_sleep(NULL, 5 * USEC_PER_MSEC);
	check_incoming(w, "dead");
	value_free(begin_incoming(w));
	receiver_suspend(w->m);
	check_incoming(w, "none");
	check_is_dead(w);
	assert_int_equal(migration_state(w->m), STATE_RECEIVING);
	assert_int_equal(fixture_count_files(w->fixture), 1);
}

/* It is known a moment after its end. */
static bool has_end(struct world *w, const char *wanted)
{
	struct value *result CLEANUP_VALUE = value_new_struct();

	receiver_incoming_status(w->m, result);
	return strstr(value_find_string(result, "incoming_end", ""), wanted);
}

/* As a stream of another machine type is refused. */
static void why_a_qemu_could_not_take_the_stream_is_told(void **state)
{
	struct world *w = *state;
	struct tunnel_link *link CLEANUP_TUNNEL_LINK = NULL;
	uint64_t deadline = clock_deadline(WAIT_USEC);

	open_receiver(w, STATE_RECEIVING);
	struct value *answer CLEANUP_VALUE = begin_incoming(w);
	check_ok(&w->fixture->fault, try_link(w, answer, &link));
	int fd CLEANUP_CLOSE = connect_near(w);
	assert_int_equal(write(fd, "no stream of QEMU's", 19), 19);
	while (!has_end(w, "Not a migration stream") && clock_now_usec() < deadline)
		cancel_sleep(NULL, 5 * USEC_PER_MSEC);
	assert_true(has_end(w, "Not a migration stream"));
	check_incoming(w, "dead");
	check_ok(&w->fixture->fault, receiver_abort(w->m, EVENT_FAILED, &w->fixture->fault));
	check_is_dead(w);
}

static void incoming_has_its_place(void **state)
{
	struct world *w = *state;
	struct value *answer = NULL;

	open_receiver(w, STATE_SEALED);
	assert_int_equal(receiver_incoming(w->m, &answer, &w->fixture->fault), -EINVAL);
	w->m = migration_unref(w->m);
	open_receiver(w, STATE_RECEIVING);
	migration_set(w->m, "live", value_new_bool(false));
	assert_int_equal(receiver_incoming(w->m, &answer, &w->fixture->fault), -EINVAL);
	assert_int_equal(guest_fixture_count_journal(w->fixture, NULL), 0);
}

static void an_abort_ends_the_qemu(void **state)
{
	struct world *w = *state;

	open_receiver(w, STATE_RECEIVING);
	move(w);
	check_incoming(w, "complete");
	assert_true(receiver_may_run(w->m));
	check_ok(&w->fixture->fault, receiver_abort(w->m, EVENT_FAILED, &w->fixture->fault));
	assert_false(receiver_may_run(w->m));
	check_nothing_is_left(w, 1);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		CASE(a_guest_that_would_not_start_is_refused_before_the_move),
		CASE(a_guest_that_cannot_go_on_here_is_refused_before_the_move),
		CASE(the_guest_arrives_and_runs),
		CASE(a_seal_that_lasts_is_shown),
		CASE(a_commit_waits_for_the_last_of_the_memory),
		CASE(a_commit_without_the_memory_is_refused_for_good),
		CASE(a_commit_whose_qemu_is_dead_is_refused_for_good),
		CASE(a_commit_after_no_incoming_is_refused_for_good),
		CASE(a_second_incoming_is_another_qemu_behind_another_secret),
		CASE(a_qemu_that_dies_while_it_waits_is_seen),
		CASE(why_a_qemu_could_not_take_the_stream_is_told),
		CASE(incoming_has_its_place),
		CASE(an_abort_ends_the_qemu),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
