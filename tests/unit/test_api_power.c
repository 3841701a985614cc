/* SPDX-License-Identifier: Apache-2.0 */
/* What VM.start and its kin refuse, and what a start that fails leaves: nothing. Guests that run
 * are in tests/e2e/guests.py. */
#include "tests/lib/api_fixture.h"

#include "base/alloc.h"
#include "base/uuid.h"

#include <stdlib.h>

static void set_field(
	struct api_fixture *fixture, const char *vm, const char *field, struct value *value)
{
	struct value *owned CLEANUP_VALUE = value;

	check_ok(&fixture->fault,
		object_set_field(fixture->storage.pool, "VM", vm, field, owned, &fixture->fault));
}

/* A VM with enough memory to be started. */
static char *make_vm(struct api_fixture *fixture)
{
	char *vm = api_make_vm(fixture, "guest");

	value_free(api_call_ok(fixture, "VM.set_memory_limits",
		params_new(fixture, vm, "67108864", "67108864", "67108864", "67108864", NULL)));
	return vm;
}

static struct value *start_params(struct api_fixture *fixture, const char *vm)
{
	struct value *params = params_new(fixture, vm, NULL);

	value_append(params, value_new_bool(false));
	return value_append(params, value_new_bool(false));
}

static void start_fails(struct api_fixture *fixture, const char *vm, const char *code)
{
	api_call_fails(fixture, code, "VM.start", start_params(fixture, vm));
}

static struct value *record_of(struct api_fixture *fixture, const char *vm)
{
	return api_call_ok(fixture, "VM.get_record", params_new(fixture, vm, NULL));
}

static void check_untouched(struct api_fixture *fixture, const char *vm)
{
	struct value *record CLEANUP_VALUE = record_of(fixture, vm);
	struct resource_row *rows = NULL;
	size_t n_rows = 0;

	assert_string_equal(value_find_string(record, "power_state", ""), "Halted");
	assert_int_equal(value_find(record, "current_operations")->record.n_members, 0);
	assert_int_equal(value_find(record, "consoles")->array.n_items, 0);
	assert_true(value_contains_string(value_find(record, "allowed_operations"), "start"));
	check_ok(&fixture->fault, resource_list(fixture->storage.agent, NULL, "qemu", &rows,
					  &n_rows, &fixture->fault));
	assert_int_equal(n_rows, 0);
	free(rows);
}

static void a_program_that_ends_at_once_leaves_nothing(void **state)
{
	struct api_fixture *fixture = *state;
	char *vm CLEANUP_FREE = make_vm(fixture);

	start_fails(fixture, vm, "INTERNAL_ERROR");
	assert_non_null(strstr(fixture->fault.params[0], "QEMU did not start"));
	check_untouched(fixture, vm);
}

static void memory_that_the_host_has_not_is_refused_with_both_figures(void **state)
{
	struct api_fixture *fixture = *state;
	char *vm CLEANUP_FREE = make_vm(fixture);
	char *free_text CLEANUP_FREE = xasprintf("%lld", (long long)API_MEMORY);

	value_free(api_call_ok(
		fixture, "VM.set_memory_static_max", params_new(fixture, vm, "1073741825", NULL)));
	start_fails(fixture, vm, "HOST_NOT_ENOUGH_FREE_MEMORY");
	assert_string_equal(fixture->fault.params[0], "1073741825");
	assert_string_equal(fixture->fault.params[1], free_text);
	check_untouched(fixture, vm);
}

static void what_has_no_guest_is_not_started(void **state)
{
	struct api_fixture *fixture = *state;
	char *vm CLEANUP_FREE = make_vm(fixture);

	set_field(fixture, vm, "is_a_template", value_new_bool(true));
	start_fails(fixture, vm, "VM_IS_TEMPLATE");
	set_field(fixture, vm, "is_a_template", value_new_bool(false));
	set_field(fixture, vm, "is_a_snapshot", value_new_bool(true));
	start_fails(fixture, vm, "VM_IS_SNAPSHOT");
	set_field(fixture, vm, "is_a_snapshot", value_new_bool(false));
	set_field(fixture, vm, "is_control_domain", value_new_bool(true));
	start_fails(fixture, vm, "OPERATION_NOT_ALLOWED");
	start_fails(fixture, "OpaqueRef:none", "HANDLE_INVALID");
}

static void the_power_state_says_what_may_be_asked(void **state)
{
	static const struct {
		const char *state;
		const char *allowed[9];
	} expected[] = {
		{"Halted", {"start", "start_on", "migrate_send", "clone", "copy", "snapshot",
				   "destroy"}},
		{"Running", {"pause", "clean_shutdown", "clean_reboot", "hard_shutdown",
				    "hard_reboot", "migrate_send", "pool_migrate", "snapshot"}},
		{"Paused", {"unpause", "hard_shutdown", "hard_reboot", "snapshot"}},
	};
	struct api_fixture *fixture = *state;
	char *vm CLEANUP_FREE = make_vm(fixture);

	for (size_t i = 0; i < ARRAY_SIZE(expected); i++) {
		size_t n = 0;
		set_field(fixture, vm, "power_state", value_new_string(expected[i].state));
		value_free(api_call_ok(
			fixture, "VM.update_allowed_operations", params_new(fixture, vm, NULL)));
		struct value *record CLEANUP_VALUE = record_of(fixture, vm);
		const struct value *allowed = value_find(record, "allowed_operations");
		for (; expected[i].allowed[n]; n++)
			assert_true(value_contains_string(allowed, expected[i].allowed[n]));
		assert_int_equal(allowed->array.n_items, n);
	}
	api_call_fails(
		fixture, "VM_BAD_POWER_STATE", "VM.clean_shutdown", params_new(fixture, vm, NULL));
	assert_string_equal(fixture->fault.params[0], vm);
	assert_string_equal(fixture->fault.params[1], "running");
	assert_string_equal(fixture->fault.params[2], "paused");
	set_field(fixture, vm, "power_state", value_new_string("Halted"));
	api_call_fails(
		fixture, "VM_BAD_POWER_STATE", "VM.hard_shutdown", params_new(fixture, vm, NULL));
	assert_string_equal(fixture->fault.params[1], "running, paused");
}

static void a_vm_that_ran_under_an_agent_that_died_is_halted(void **state)
{
	struct api_fixture *fixture = *state;
	char *vm CLEANUP_FREE = make_vm(fixture);

	set_field(fixture, vm, "power_state", value_new_string("Running"));
	set_field(fixture, vm, "current_operations",
		value_set_string(value_new_struct(), "OpaqueRef:old", "clean_shutdown"));
	api_fixture_restart(fixture);
	check_untouched(fixture, vm);
}

static void a_mark_that_is_not_a_guests_outlives_the_agent(void **state)
{
	struct api_fixture *fixture = *state;
	char *vm CLEANUP_FREE = make_vm(fixture);

	set_field(fixture, vm, "current_operations",
		value_set_string(value_new_struct(), "OpaqueRef:old", "migrate_send"));
	api_fixture_restart(fixture);
	struct value *record CLEANUP_VALUE = record_of(fixture, vm);
	assert_int_equal(value_find(record, "current_operations")->record.n_members, 1);
	start_fails(fixture, vm, "OTHER_OPERATION_IN_PROGRESS");
}

static void a_network_with_a_bridge_cannot_be_joined(void **state)
{
	struct api_fixture *fixture = *state;
	char *vm CLEANUP_FREE = make_vm(fixture);
	struct value *network CLEANUP_VALUE = value_new_struct();
	struct value *vif = value_new_struct();
	struct value *params = params_new(fixture, NULL);
	char *ref CLEANUP_FREE = NULL;

	value_set_string(network, "bridge", "br0");
	check_ok(&fixture->fault,
		object_create(fixture->storage.pool, "network", network, &ref, &fixture->fault));
	value_set_string(vif, "VM", vm);
	value_set_string(vif, "network", ref);
	value_set_string(vif, "device", "0");
	value_free(api_call_ok(fixture, "VIF.create", value_append(params, vif)));
	start_fails(fixture, vm, "VM_REQUIRES_NETWORK");
	assert_string_equal(fixture->fault.params[0], vm);
	assert_string_equal(fixture->fault.params[1], ref);
	check_untouched(fixture, vm);
}

static void only_a_host_of_the_pool_starts_it(void **state)
{
	struct api_fixture *fixture = *state;
	char *vm CLEANUP_FREE = make_vm(fixture);
	struct value *params = params_new(fixture, vm, "OpaqueRef:other", NULL);

	value_append(params, value_new_bool(false));
	value_append(params, value_new_bool(false));
	api_call_fails(fixture, "HANDLE_INVALID", "VM.start_on", params);
	assert_string_equal(fixture->fault.params[0], "host");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, api_fixture_setup, api_fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_program_that_ends_at_once_leaves_nothing),
		TEST(memory_that_the_host_has_not_is_refused_with_both_figures),
		TEST(what_has_no_guest_is_not_started),
		TEST(the_power_state_says_what_may_be_asked),
		TEST(a_vm_that_ran_under_an_agent_that_died_is_halted),
		TEST(a_mark_that_is_not_a_guests_outlives_the_agent),
		TEST(a_network_with_a_bridge_cannot_be_joined),
		TEST(only_a_host_of_the_pool_starts_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
