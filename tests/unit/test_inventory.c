/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/check.h"

#include "agent/inventory.h"
#include "agent/machine.h"
#include "base/alloc.h"
#include "base/parse.h"

#include <stdlib.h>
#include <unistd.h>

struct fixture {
	char dir[32];
	struct config config;
	struct pool_db *pool;
};

static void open_pool(struct fixture *fixture)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	char *path CLEANUP_FREE = xasprintf("%s/pool.db", fixture->dir);

	check_ok(&fault, pool_db_open(path, &fixture->pool, &fault));
}

static int setup(void **state)
{
	struct fixture *fixture = xcalloc(1, sizeof(*fixture));
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	strcpy(fixture->dir, "/tmp/ferry-inv-XXXXXX");
	if (!mkdtemp(fixture->dir))
		return -1;
	char *path CLEANUP_FREE = xasprintf("%s/conf", fixture->dir);
	FILE *file = fopen(path, "w");
	if (!file)
		return -1;
	fputs("[ferryd]\nlisten = 127.0.0.1:8443\npool_name = the pool\nhost_name = the host\n",
		file);
	fclose(file);
	check_ok(&fault, config_load(path, &fixture->config, &fault));
	open_pool(fixture);
	*state = fixture;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fixture = *state;
	char *command CLEANUP_FREE = xasprintf("rm -r %s", fixture->dir);

	pool_db_close(fixture->pool);
	config_clear(&fixture->config);
	int r = system(command);
	free(fixture);
	return r;
}

static struct value *record_of(struct fixture *fixture, const char *class, const char *ref)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct value *record = NULL;

	check_ok(&fault, object_get_record(fixture->pool, class, ref, &record, &fault));
	return record;
}

static size_t count(struct fixture *fixture, const char *class)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct value *refs CLEANUP_VALUE = NULL;

	check_ok(&fault, object_get_all(fixture->pool, class, &refs, &fault));
	return refs->array.n_items;
}

static void the_first_start_makes_one_of_each(void **state)
{
	static const char *const classes_made[] = {
		"pool", "host", "host_metrics", "VM", "VM_metrics", "network", "PIF", "SM"};
	struct fixture *fixture = *state;
	struct inventory inventory CLEANUP_INVENTORY = {0};
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	check_ok(&fault,
		inventory_ensure(fixture->pool, &fixture->config, NULL, &inventory, &fault));
	for (size_t i = 0; i < ARRAY_SIZE(classes_made); i++)
		assert_int_equal(count(fixture, classes_made[i]), 1);
	struct value *pool CLEANUP_VALUE = record_of(fixture, "pool", inventory.pool_ref);
	assert_string_equal(value_find_string(pool, "name_label", ""), "the pool");
	assert_string_equal(value_find_string(pool, "master", ""), inventory.host_ref);
}

/* Ansible splits product_version at the dots and indexes; XO reads .iommu and calls .some(). */
static void the_host_has_what_clients_index(void **state)
{
	struct fixture *fixture = *state;
	struct inventory inventory CLEANUP_INVENTORY = {0};
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	check_ok(&fault,
		inventory_ensure(fixture->pool, &fixture->config, NULL, &inventory, &fault));
	struct value *host CLEANUP_VALUE = record_of(fixture, "host", inventory.host_ref);
	const char *version =
		value_find_string(value_find(host, "software_version"), "product_version", "");
	int major, minor, patch, length = 0;
	assert_int_equal(sscanf(version, "%d.%d.%d%n", &major, &minor, &patch, &length), 3);
	assert_int_equal(version[length], '\0');
	assert_string_equal(value_find_string(host, "name_label", ""), "the host");
	assert_string_equal(value_find_string(host, "address", ""), "127.0.0.1");
	assert_int_equal(value_find_int(host, "API_version_major", 0), 2);
	assert_int_equal(value_find_int(host, "API_version_minor", 0), 23);
	assert_true(value_find_bool(host, "enabled", false));
	assert_int_equal(value_find(host, "capabilities")->type, VALUE_ARRAY);
	assert_non_null(value_find(value_find(host, "chipset_info"), "iommu"));
	assert_non_null(value_find(value_find(host, "license_params"), "expiry"));
	uint64_t n_cpus;
	assert_int_equal(
		parse_range(value_find_string(value_find(host, "cpu_info"), "cpu_count", ""), 1,
			4096, &n_cpus),
		0);

	struct value *metrics CLEANUP_VALUE =
		record_of(fixture, "host_metrics", value_find_string(host, "metrics", ""));
	assert_true(value_find_bool(metrics, "live", false));
	assert_true(value_find_int(metrics, "memory_total", 0) > 0);
	assert_true(value_find_int(metrics, "memory_free", 0) > 0);

	struct value *domain CLEANUP_VALUE =
		record_of(fixture, "VM", value_find_string(host, "control_domain", ""));
	assert_true(value_find_bool(domain, "is_control_domain", false));
	assert_string_equal(value_find_string(domain, "power_state", ""), "Running");
	assert_string_equal(value_find_string(domain, "resident_on", ""), inventory.host_ref);
	assert_int_equal(value_find_int(domain, "domid", -1), 0);
}

static void the_management_interface_is_the_one_with_the_address(void **state)
{
	struct fixture *fixture = *state;
	struct inventory inventory CLEANUP_INVENTORY = {0};
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct value *pifs CLEANUP_VALUE = NULL;

	check_ok(&fault,
		inventory_ensure(fixture->pool, &fixture->config, NULL, &inventory, &fault));
	check_ok(&fault, object_get_all_records(fixture->pool, "PIF", &pifs, &fault));
	const struct value *pif = pifs->record.members[0].value;
	assert_true(value_find_bool(pif, "management", false));
	assert_string_equal(value_find_string(pif, "IP", ""), "127.0.0.1");
	assert_string_equal(value_find_string(pif, "netmask", ""), "255.0.0.0");
	assert_string_equal(value_find_string(pif, "device", ""), "lo");
	assert_string_equal(value_find_string(pif, "host", ""), inventory.host_ref);
}

static void a_later_start_keeps_the_objects_and_what_clients_changed(void **state)
{
	struct fixture *fixture = *state;
	struct inventory first CLEANUP_INVENTORY = {0};
	struct inventory second CLEANUP_INVENTORY = {0};
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct value *label CLEANUP_VALUE = value_new_string("renamed");

	check_ok(&fault, inventory_ensure(fixture->pool, &fixture->config, NULL, &first, &fault));
	check_ok(&fault, object_set_field(fixture->pool, "host", first.host_ref, "name_label",
				 label, &fault));
	check_ok(&fault, object_map_set(fixture->pool, "host", first.host_ref, "other_config",
				 "mine", "1", &fault));
	pool_db_close(TAKE_PTR(fixture->pool));
	open_pool(fixture);
	free(fixture->config.address);
	fixture->config.address = xstrdup("host.example");
	check_ok(&fault, inventory_ensure(fixture->pool, &fixture->config, NULL, &second, &fault));
	assert_string_equal(first.pool_ref, second.pool_ref);
	assert_string_equal(first.host_ref, second.host_ref);
	assert_int_equal(count(fixture, "host"), 1);
	assert_int_equal(count(fixture, "PIF"), 1);
	assert_int_equal(count(fixture, "VM"), 1);

	struct value *host CLEANUP_VALUE = record_of(fixture, "host", second.host_ref);
	const struct value *other = value_find(host, "other_config");
	assert_string_equal(value_find_string(host, "name_label", ""), "renamed");
	assert_string_equal(value_find_string(other, "mine", ""), "1");
	assert_non_null(value_find(other, "agent_start_time"));
	assert_string_equal(value_find_string(host, "address", ""), "host.example");
}

static void an_address_of_no_interface_has_no_link(void **state)
{
	struct machine_link link CLEANUP(machine_link_clear) = {0};

	(void)state;
	machine_find_link("192.0.2.1", &link);
	assert_string_equal(link.device, "");
	machine_link_clear(&link);
	machine_find_link("not an address", &link);
	assert_string_equal(link.device, "");
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(the_first_start_makes_one_of_each),
		T(the_host_has_what_clients_index),
		T(the_management_interface_is_the_one_with_the_address),
		T(a_later_start_keeps_the_objects_and_what_clients_changed),
		cmocka_unit_test(an_address_of_no_interface_has_no_link),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
