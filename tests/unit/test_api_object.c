/* SPDX-License-Identifier: Apache-2.0 */
/* Making and removing VMs, disks, drives, cards, networks and repositories, and what is refused. */
#include "tests/lib/api_fixture.h"

#include "base/alloc.h"
#include "base/uuid.h"

#include <sys/stat.h>
#include <unistd.h>

#define DISK_BYTES "1048576"

/* A call with one struct. */
static struct value *with_record(struct api_fixture *fixture, struct value *record)
{
	return value_append(params_new(fixture, NULL), record);
}

static char *create(struct api_fixture *fixture, const char *method, struct value *record)
{
	return api_call_text(fixture, method, with_record(fixture, record));
}

static char *make_sr(struct api_fixture *fixture)
{
	char *folder CLEANUP_FREE = xasprintf("%s/sr", fixture->folder);
	struct value *params = params_new(fixture, fixture->host_ref, NULL);

	if (mkdir(folder, 0700) < 0)
		fail();
	value_append(params, value_set_string(value_new_struct(), "location", folder));
	value_append_string(params, "0");
	value_append_string(params, "local");
	value_append_string(params, "");
	value_append_string(params, "file");
	value_append_string(params, "user");
	value_append(params, value_new_bool(false));
	return api_call_text(fixture, "SR.create", params);
}

static struct value *vdi_record(const char *sr)
{
	struct value *record = value_new_struct();

	value_set_string(record, "name_label", "disk");
	value_set_string(record, "SR", sr);
	return value_set_string(record, "virtual_size", DISK_BYTES);
}

static struct value *vbd_record(const char *vm, const char *vdi, const char *userdevice)
{
	struct value *record = value_new_struct();

	value_set_string(record, "VM", vm);
	value_set_string(record, "VDI", vdi);
	value_set_string(record, "userdevice", userdevice);
	value_set_string(record, "mode", "RW");
	return value_set_string(record, "type", "Disk");
}

static struct value *vif_record(struct api_fixture *fixture, const char *vm, const char *mac)
{
	struct value *record = value_new_struct();

	value_set_string(record, "VM", vm);
	value_set_string(record, "network", fixture->network_ref);
	value_set_string(record, "device", "autodetect");
	return value_set_string(record, "MAC", mac);
}

static char *get(struct api_fixture *fixture, const char *method, const char *ref)
{
	return api_call_text(fixture, method, params_new(fixture, ref, NULL));
}

static void mark_busy(struct api_fixture *fixture, const char *vm)
{
	check_ok(&fixture->fault,
		object_map_set(fixture->storage.pool, "VM", vm, "current_operations",
			"OpaqueRef:task", "migrate_send", &fixture->fault));
}

/* --- VM ----------------------------------------------------------------------------------------
 */

static void a_vm_is_made_whole_and_goes_whole(void **state)
{
	struct api_fixture *fixture = *state;
	struct value *given = value_set_string(value_new_struct(), "name_label", "one");

	value_set_string(given, "memory_static_max", "1073741824");
	value_set_string(given, "VCPUs_max", "2");
	/* Members of a record that was read before. */
	value_set_string(given, "uuid", "not to be taken");
	value_set_string(given, "power_state", "Running");
	value_set_string(given, "unknown_to_us", "x");
	char *vm CLEANUP_FREE = create(fixture, "VM.create", given);
	struct value *record CLEANUP_VALUE =
		api_call_ok(fixture, "VM.get_record", params_new(fixture, vm, NULL));
	assert_true(uuid_is_valid(value_find_string(record, "uuid", "")));
	assert_string_equal(value_find_string(record, "power_state", ""), "Halted");
	assert_string_equal(value_find_string(record, "memory_dynamic_min", ""), "1073741824");
	assert_string_equal(value_find_string(record, "VCPUs_at_startup", ""), "2");
	assert_string_equal(value_find_string(record, "domid", ""), "-1");
	assert_false(value_find_bool(record, "is_a_template", true));
	assert_true(
		value_contains_string(value_find(record, "allowed_operations"), "migrate_send"));
	char *metrics CLEANUP_FREE = xstrdup(value_find_string(record, "metrics", ""));
	char *vcpus CLEANUP_FREE = get(fixture, "VM_metrics.get_VCPUs_number", metrics);
	assert_string_equal(vcpus, "2");

	char *vif CLEANUP_FREE = create(fixture, "VIF.create", vif_record(fixture, vm, ""));
	value_free(api_call_ok(fixture, "VM.destroy", params_new(fixture, vm, NULL)));
	api_call_fails(fixture, "HANDLE_INVALID", "VM.get_record", params_new(fixture, vm, NULL));
	api_call_fails(fixture, "HANDLE_INVALID", "VIF.get_record", params_new(fixture, vif, NULL));
	api_call_fails(fixture, "HANDLE_INVALID", "VM_metrics.get_record",
		params_new(fixture, metrics, NULL));
}

static void a_vm_that_makes_no_sense_is_refused(void **state)
{
	static const struct {
		const char *field;
		const char *text;
		const char *code;
	} cases[] = {
		{"VCPUs_max", "0", "INVALID_VALUE"},
		{"VCPUs_at_startup", "x", "INVALID_VALUE"},
		{"memory_static_max", "-1", "INVALID_VALUE"},
		{"actions_after_crash", "explode", "INVALID_VALUE"},
		{"affinity", "OpaqueRef:nothing", "HANDLE_INVALID"},
		{"is_a_template", "true", "FIELD_TYPE_ERROR"},
		{"platform", "x", "FIELD_TYPE_ERROR"},
	};
	struct api_fixture *fixture = *state;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct value *given = value_set_string(value_new_struct(), "name_label", "x");
		value_set_string(given, cases[i].field, cases[i].text);
		api_call_fails(fixture, cases[i].code, "VM.create", with_record(fixture, given));
	}
	api_call_fails(
		fixture, "FIELD_TYPE_ERROR", "VM.create", with_record(fixture, value_new_struct()));
	struct value *given = value_set_string(value_new_struct(), "name_label", "x");
	value_set_string(given, "memory_static_max", "1");
	value_set_string(given, "memory_dynamic_max", "2");
	api_call_fails(fixture, "MEMORY_CONSTRAINT_VIOLATION_ORDER", "VM.create",
		with_record(fixture, given));
	struct value *left CLEANUP_VALUE =
		api_call_ok(fixture, "VM.get_all", params_new(fixture, NULL));
	assert_int_equal(left->array.n_items, 0);
}

static void limits_stay_in_their_order(void **state)
{
	struct api_fixture *fixture = *state;
	char *vm CLEANUP_FREE = api_make_vm(fixture, "limits");

	value_free(api_call_ok(fixture, "VM.set_memory_limits",
		params_new(fixture, vm, "1", "4", "2", "3", NULL)));
	char *dynamic_max CLEANUP_FREE = get(fixture, "VM.get_memory_dynamic_max", vm);
	assert_string_equal(dynamic_max, "3");
	api_call_fails(fixture, "MEMORY_CONSTRAINT_VIOLATION_ORDER", "VM.set_memory_static_max",
		params_new(fixture, vm, "2", NULL));
	api_call_fails(fixture, "INVALID_VALUE", "VM.set_VCPUs_at_startup",
		params_new(fixture, vm, "2", NULL));
	value_free(api_call_ok(fixture, "VM.set_VCPUs_max", params_new(fixture, vm, "2", NULL)));
	value_free(api_call_ok(
		fixture, "VM.set_VCPUs_at_startup", params_new(fixture, vm, "2", NULL)));
	api_call_fails(
		fixture, "INVALID_VALUE", "VM.set_VCPUs_max", params_new(fixture, vm, "0", NULL));
	mark_busy(fixture, vm);
	api_call_fails(fixture, "OTHER_OPERATION_IN_PROGRESS", "VM.set_VCPUs_max",
		params_new(fixture, vm, "3", NULL));
}

static void a_vm_in_use_is_not_destroyed(void **state)
{
	struct api_fixture *fixture = *state;
	struct pool_db *pool = fixture->storage.pool;
	char *vm CLEANUP_FREE = api_make_vm(fixture, "busy");
	struct value *running CLEANUP_VALUE = value_new_string("Running");
	struct value *halted CLEANUP_VALUE = value_new_string("Halted");

	check_ok(&fixture->fault,
		object_set_field(pool, "VM", vm, "power_state", running, &fixture->fault));
	api_call_fails(fixture, "VM_BAD_POWER_STATE", "VM.destroy", params_new(fixture, vm, NULL));
	assert_string_equal(fixture->fault.params[0], vm);
	assert_string_equal(fixture->fault.params[1], "halted");
	assert_string_equal(fixture->fault.params[2], "running");
	check_ok(&fixture->fault,
		object_set_field(pool, "VM", vm, "power_state", halted, &fixture->fault));
	value_free(api_call_ok(fixture, "VM.add_to_blocked_operations",
		params_new(fixture, vm, "destroy", "keep it", NULL)));
	struct value *allowed CLEANUP_VALUE =
		api_call_ok(fixture, "VM.get_allowed_operations", params_new(fixture, vm, NULL));
	assert_false(value_contains_string(allowed, "destroy"));
	api_call_fails(fixture, "OPERATION_BLOCKED", "VM.destroy", params_new(fixture, vm, NULL));
	assert_string_equal(fixture->fault.params[1], "keep it");
	value_free(api_call_ok(fixture, "VM.remove_from_blocked_operations",
		params_new(fixture, vm, "destroy", NULL)));
	mark_busy(fixture, vm);
	api_call_fails(fixture, "OTHER_OPERATION_IN_PROGRESS", "VM.destroy",
		params_new(fixture, vm, NULL));
	assert_string_equal(fixture->fault.params[0], "VM");
	assert_string_equal(fixture->fault.params[1], vm);
	assert_string_equal(fixture->fault.params[2], "migrate_send");
	assert_string_equal(fixture->fault.params[3], "OpaqueRef:task");
	api_call_fails(fixture, "OTHER_OPERATION_IN_PROGRESS", "VIF.create",
		with_record(fixture, vif_record(fixture, vm, "")));
}

static void possible_hosts_are_live_and_enabled(void **state)
{
	struct api_fixture *fixture = *state;
	char *vm CLEANUP_FREE = api_make_vm(fixture, "x");
	struct value *hosts CLEANUP_VALUE =
		api_call_ok(fixture, "VM.get_possible_hosts", params_new(fixture, vm, NULL));
	assert_int_equal(hosts->array.n_items, 1);
	value_free(
		api_call_ok(fixture, "host.disable", params_new(fixture, fixture->host_ref, NULL)));
	struct value *none CLEANUP_VALUE =
		api_call_ok(fixture, "VM.get_possible_hosts", params_new(fixture, vm, NULL));
	assert_int_equal(none->array.n_items, 0);
	value_free(
		api_call_ok(fixture, "host.enable", params_new(fixture, fixture->host_ref, NULL)));
}

/* --- VIF and network ---------------------------------------------------------------------------
 */

static void macs_are_made_or_checked(void **state)
{
	static const char *const bad[] = {"x", "02:00:00:00:00", "02:00:00:00:00:0g",
		"03:00:00:00:00:01", "02-00-00-00-00-01", "02:00:00:00:00:01:02"};
	struct api_fixture *fixture = *state;
	char *vm CLEANUP_FREE = api_make_vm(fixture, "cards");
	char *made CLEANUP_FREE = create(fixture, "VIF.create", vif_record(fixture, vm, ""));
	char *given CLEANUP_FREE =
		create(fixture, "VIF.create", vif_record(fixture, vm, "02:AB:00:00:00:01"));
	char *mac CLEANUP_FREE = get(fixture, "VIF.get_MAC", made);
	char *lower CLEANUP_FREE = get(fixture, "VIF.get_MAC", given);
	char *device CLEANUP_FREE = get(fixture, "VIF.get_device", given);
	char *mtu CLEANUP_FREE = get(fixture, "VIF.get_MTU", given);

	assert_int_equal(strlen(mac), 17);
	assert_int_equal(strtoul(mac, NULL, 16) & 3, 2);
	assert_string_equal(lower, "02:ab:00:00:00:01");
	assert_string_equal(device, "1");
	assert_string_equal(mtu, "1500");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		api_call_fails(fixture, "MAC_INVALID", "VIF.create",
			with_record(fixture, vif_record(fixture, vm, bad[i])));
		assert_string_equal(fixture->fault.params[0], bad[i]);
	}
	struct value *again = vif_record(fixture, vm, "");
	value_set_string(again, "device", "1");
	api_call_fails(fixture, "DEVICE_ALREADY_EXISTS", "VIF.create", with_record(fixture, again));
	assert_string_equal(fixture->fault.params[0], "1");
	api_call_fails(fixture, "NETWORK_CONTAINS_VIF", "network.destroy",
		params_new(fixture, fixture->network_ref, NULL));
	assert_int_equal(fixture->fault.n_params, 2);
	value_free(api_call_ok(fixture, "VIF.destroy", params_new(fixture, made, NULL)));
	value_free(api_call_ok(fixture, "VIF.destroy", params_new(fixture, given, NULL)));
	value_free(api_call_ok(
		fixture, "network.destroy", params_new(fixture, fixture->network_ref, NULL)));
}

/* --- SR, VDI, VBD ------------------------------------------------------------------------------
 */

static void a_repository_with_disks_stays(void **state)
{
	struct api_fixture *fixture = *state;
	char *sr CLEANUP_FREE = make_sr(fixture);
	char *vdi CLEANUP_FREE = create(fixture, "VDI.create", vdi_record(sr));
	char *size CLEANUP_FREE = get(fixture, "VDI.get_virtual_size", vdi);
	struct value *resize = params_new(fixture, vdi, "2097152", NULL);

	assert_string_equal(size, DISK_BYTES);
	value_free(api_call_ok(fixture, "VDI.resize", resize));
	char *grown CLEANUP_FREE = get(fixture, "VDI.get_virtual_size", vdi);
	assert_string_equal(grown, "2097152");
	api_call_fails(fixture, "SR_NOT_EMPTY", "SR.destroy", params_new(fixture, sr, NULL));
	value_free(api_call_ok(fixture, "SR.scan", params_new(fixture, sr, NULL)));
	value_free(api_call_ok(fixture, "VDI.destroy", params_new(fixture, vdi, NULL)));
	value_free(api_call_ok(fixture, "SR.set_shared",
		value_append(params_new(fixture, sr, NULL), value_new_bool(true))));
	value_free(api_call_ok(fixture, "SR.destroy", params_new(fixture, sr, NULL)));
	struct value *pbds CLEANUP_VALUE =
		api_call_ok(fixture, "PBD.get_all", params_new(fixture, NULL));
	assert_int_equal(pbds->array.n_items, 0);
}

static void a_disk_needs_repository_and_size(void **state)
{
	struct api_fixture *fixture = *state;
	char *sr CLEANUP_FREE = make_sr(fixture);
	struct value *record = vdi_record(sr);

	value_unset(record, "SR");
	api_call_fails(fixture, "FIELD_TYPE_ERROR", "VDI.create", with_record(fixture, record));
	api_call_fails(fixture, "HANDLE_INVALID", "VDI.create",
		with_record(fixture, vdi_record("OpaqueRef:nothing")));
	record = value_set_string(vdi_record(sr), "virtual_size", "0");
	api_call_fails(fixture, "INVALID_VALUE", "VDI.create", with_record(fixture, record));
	assert_string_equal(fixture->fault.params[0], "virtual_size");
	record = value_set_string(vdi_record(sr), "virtual_size", "much");
	api_call_fails(fixture, "INVALID_VALUE", "VDI.create", with_record(fixture, record));
}

static void disks_take_free_places(void **state)
{
	struct api_fixture *fixture = *state;
	char *sr CLEANUP_FREE = make_sr(fixture);
	char *vm CLEANUP_FREE = api_make_vm(fixture, "disks");
	char *vdi CLEANUP_FREE = create(fixture, "VDI.create", vdi_record(sr));
	char *first CLEANUP_FREE = create(fixture, "VBD.create", vbd_record(vm, vdi, "autodetect"));
	char *place CLEANUP_FREE = get(fixture, "VBD.get_userdevice", first);
	char *device CLEANUP_FREE = get(fixture, "VBD.get_device", first);

	assert_string_equal(place, "0");
	assert_string_equal(device, "xvda");
	api_call_fails(fixture, "DEVICE_ALREADY_EXISTS", "VBD.create",
		with_record(fixture, vbd_record(vm, vdi, "0")));
	assert_string_equal(fixture->fault.params[0], "0");
	api_call_fails(fixture, "INVALID_DEVICE", "VBD.create",
		with_record(fixture, vbd_record(vm, vdi, "first")));
	api_call_fails(fixture, "HANDLE_INVALID", "VBD.create",
		with_record(fixture, vbd_record(vm, REF_NULL, "1")));
	struct value *drive = vbd_record(vm, REF_NULL, "27");
	value_set_bool(drive, "empty", true);
	api_call_fails(
		fixture, "INVALID_VALUE", "VBD.create", with_record(fixture, value_copy(drive)));
	value_set_string(drive, "type", "CD");
	value_set_string(drive, "mode", "RO");
	char *cd CLEANUP_FREE = create(fixture, "VBD.create", drive);
	char *cd_device CLEANUP_FREE = get(fixture, "VBD.get_device", cd);
	assert_string_equal(cd_device, "xvdab");
	value_free(api_call_ok(fixture, "VBD.set_userdevice", params_new(fixture, cd, "3", NULL)));
	free(cd_device);
	cd_device = get(fixture, "VBD.get_device", cd);
	assert_string_equal(cd_device, "xvdd");
	api_call_fails(fixture, "DEVICE_ALREADY_EXISTS", "VBD.set_userdevice",
		params_new(fixture, cd, "0", NULL));
	mark_busy(fixture, vm);
	api_call_fails(fixture, "OTHER_OPERATION_IN_PROGRESS", "VBD.destroy",
		params_new(fixture, first, NULL));
}

static void a_repository_is_unplugged_and_plugged(void **state)
{
	struct api_fixture *fixture = *state;
	char *sr CLEANUP_FREE = make_sr(fixture);
	struct value *pbds CLEANUP_VALUE =
		api_call_ok(fixture, "SR.get_PBDs", params_new(fixture, sr, NULL));
	const char *pbd = pbds->array.items[0]->string;

	api_call_fails(
		fixture, "OPERATION_NOT_ALLOWED", "PBD.destroy", params_new(fixture, pbd, NULL));
	value_free(api_call_ok(fixture, "PBD.unplug", params_new(fixture, pbd, NULL)));
	api_call_fails(
		fixture, "SR_NOT_ATTACHED", "VDI.create", with_record(fixture, vdi_record(sr)));
	value_free(api_call_ok(fixture, "PBD.plug", params_new(fixture, pbd, NULL)));
	char *vdi CLEANUP_FREE = create(fixture, "VDI.create", vdi_record(sr));
	check_ok(&fixture->fault,
		object_map_set(fixture->storage.pool, "VDI", vdi, "current_operations",
			"OpaqueRef:task", "mirror", &fixture->fault));
	api_call_fails(fixture, "VDI_IN_USE", "PBD.unplug", params_new(fixture, pbd, NULL));
	assert_string_equal(fixture->fault.params[0], vdi);
}

/* --- Moving ------------------------------------------------------------------------------------
 */

static struct value *migrate_params(
	struct api_fixture *fixture, const char *vm, struct value *vdi_map, size_t n_maps)
{
	struct value *params = params_new(fixture, vm, NULL);

	value_append(params, value_new_struct());
	value_append(params, value_new_bool(true));
	value_append(params, vdi_map);
	for (size_t i = 0; i < n_maps; i++)
		value_append(params, value_new_struct());
	return params;
}

static void migrate_calls_name_what_is_missing(void **state)
{
	struct api_fixture *fixture = *state;
	char *vm CLEANUP_FREE = api_make_vm(fixture, "moved");
	struct value *map = value_set_string(value_new_struct(), "OpaqueRef:x", "OpaqueRef:y");

	api_call_fails(fixture, "HANDLE_INVALID", "VM.migrate_send",
		migrate_params(fixture, "OpaqueRef:none", value_new_struct(), 2));
	api_call_fails(
		fixture, "HANDLE_INVALID", "VM.migrate_send", migrate_params(fixture, vm, map, 4));
	assert_string_equal(fixture->fault.params[0], "VDI");
	api_call_fails(fixture, "MESSAGE_PARAMETER_COUNT_MISMATCH", "VM.migrate_send",
		migrate_params(fixture, vm, value_new_struct(), 5));
	/* A token with none of its keys. */
	api_call_fails(fixture, "INTERNAL_ERROR", "VM.assert_can_migrate",
		migrate_params(fixture, vm, value_new_struct(), 2));
	api_call_fails(fixture, "INTERNAL_ERROR", "VM.assert_can_migrate",
		migrate_params(fixture, vm, value_new_struct(), 3));
	api_call_fails(fixture, "UUID_INVALID", "migration.cancel",
		params_new(fixture, "00000000-0000-4000-8000-000000000000", NULL));
}

static void a_token_is_made_for_hosts_and_networks_that_exist(void **state)
{
	struct api_fixture *fixture = *state;
	struct value *params = params_new(fixture, "OpaqueRef:x", fixture->network_ref, NULL);

	api_call_fails(fixture, "HANDLE_INVALID", "host.migrate_receive",
		value_append(params, value_new_struct()));
	assert_string_equal(fixture->fault.params[0], "host");
	params = params_new(fixture, fixture->host_ref, "OpaqueRef:x", NULL);
	api_call_fails(fixture, "HANDLE_INVALID", "host.migrate_receive",
		value_append(params, value_new_struct()));
	assert_string_equal(fixture->fault.params[0], "network");
}

static void the_first_repository_becomes_the_default(void **state)
{
	struct api_fixture *fixture = *state;
	char *none CLEANUP_FREE = get(fixture, "pool.get_default_SR", fixture->pool_ref);
	char *sr CLEANUP_FREE = make_sr(fixture);
	char *first CLEANUP_FREE = get(fixture, "pool.get_default_SR", fixture->pool_ref);

	assert_string_equal(none, REF_NULL);
	assert_string_equal(first, sr);
	value_free(api_call_ok(fixture, "SR.destroy", params_new(fixture, sr, NULL)));
	char *after CLEANUP_FREE = get(fixture, "pool.get_default_SR", fixture->pool_ref);
	assert_string_equal(after, REF_NULL);
}

static void free_places_are_told(void **state)
{
	struct api_fixture *fixture = *state;
	struct value *vm_fields = value_set_string(value_new_struct(), "name_label", "vm");
	char *vm CLEANUP_FREE = create(fixture, "VM.create", vm_fields);
	char *vif CLEANUP_FREE = create(fixture, "VIF.create", vif_record(fixture, vm, ""));
	struct value *vbds CLEANUP_VALUE =
		api_call_ok(fixture, "VM.get_allowed_VBD_devices", params_new(fixture, vm, NULL));
	struct value *vifs CLEANUP_VALUE =
		api_call_ok(fixture, "VM.get_allowed_VIF_devices", params_new(fixture, vm, NULL));

	assert_int_equal(vbds->array.n_items, 256);
	assert_string_equal(vbds->array.items[0]->string, "0");
	assert_int_equal(vifs->array.n_items, 15);
	assert_string_equal(vifs->array.items[0]->string, "1");
	api_call_fails(fixture, "HANDLE_INVALID", "VM.get_allowed_VBD_devices",
		params_new(fixture, "OpaqueRef:x", NULL));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, api_fixture_setup, api_fixture_teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(free_places_are_told),
		TEST(the_first_repository_becomes_the_default),
		TEST(a_vm_is_made_whole_and_goes_whole),
		TEST(a_vm_that_makes_no_sense_is_refused),
		TEST(limits_stay_in_their_order),
		TEST(a_vm_in_use_is_not_destroyed),
		TEST(possible_hosts_are_live_and_enabled),
		TEST(macs_are_made_or_checked),
		TEST(a_repository_with_disks_stays),
		TEST(a_disk_needs_repository_and_size),
		TEST(disks_take_free_places),
		TEST(a_repository_is_unplugged_and_plugged),
		TEST(migrate_calls_name_what_is_missing),
		TEST(a_token_is_made_for_hosts_and_networks_that_exist),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
