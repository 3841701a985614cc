/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/check.h"

#include "base/alloc.h"
#include "base/cleanup.h"
#include "schema/classes.h"
#include "schema/types.h"

#include <errno.h>
#include <string.h>

/* XenAPI classes that fields name and this service does not have. */
static const char *const absent_classes[] = {"Bond", "Certificate", "DR_task", "Feature", "PCI",
	"PGPU", "PIF_metrics", "PUSB", "Repository", "VBD_metrics", "VGPU", "VIF_metrics", "VLAN",
	"VMPP", "VMSS", "VM_appliance", "VM_group", "VTPM", "VUSB", "crashdump", "host_cpu",
	"host_crashdump", "host_patch", "network_sriov", "pool_update", "secret", "subject",
	"tunnel", "user"};

static bool is_absent_class(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(absent_classes); i++)
		if (strcmp(absent_classes[i], name) == 0)
			return true;
	return false;
}

static bool is_choice(const char *choices, const char *text)
{
	size_t length = strlen(text);

	for (const char *at = choices; (at = strstr(at, text)); at++)
		if ((at == choices || at[-1] == '|') && (!at[length] || at[length] == '|'))
			return true;
	return false;
}

static void names_are_unique_and_the_uuid_comes_first(void **state)
{
	(void)state;
	for (size_t i = 0; i < n_classes; i++) {
		assert_string_equal(classes[i].fields[0].name, "uuid");
		assert_non_null(classes[i].doc);
		assert_ptr_equal(class_find(classes[i].name), &classes[i]);
		assert_ptr_equal(class_find_nocase(classes[i].name), &classes[i]);
		for (size_t j = 0; j < classes[i].n_fields; j++)
			assert_ptr_equal(class_field_find(&classes[i], classes[i].fields[j].name),
				&classes[i].fields[j]);
	}
	assert_null(class_find("vm"));
	assert_ptr_equal(class_find_nocase("vm"), class_find("VM"));
	assert_null(class_find_nocase("nothing"));
	assert_false(class_has_field(class_find("VM"), "nothing"));
}

static void check_relation(const struct class_field *field)
{
	char *name CLEANUP_FREE = xstrdup(field->of);
	char *dot = strchr(name, '.');

	assert_non_null(dot);
	*dot = '\0';
	const struct class *class = class_find(name);
	assert_non_null(class);
	const struct class_field *other = class_field_find(class, dot + 1);
	assert_non_null(other);
	assert_int_equal(other->type, FIELD_REF);
	assert_int_equal(field->access, FIELD_RO);
}

static void what_a_field_names_exists(void **state)
{
	(void)state;
	for (size_t i = 0; i < n_classes; i++) {
		for (size_t j = 0; j < classes[i].n_fields; j++) {
			const struct class_field *field = &classes[i].fields[j];
			if (field->type == FIELD_DERIVED)
				check_relation(field);
			else if (field->type == FIELD_REF || field->type == FIELD_SET_REF)
				assert_true(class_find(field->of) || is_absent_class(field->of));
			else if (field->type == FIELD_ENUM)
				assert_true(is_choice(field->of, field->fallback));
			else if (field->type != FIELD_SET_STRING)
				assert_null(field->of);
			assert_true(!field->owner || field->type == FIELD_REF);
		}
	}
}

static void the_other_end_of_a_relation_has_its_class(void **state)
{
	(void)state;
	for (size_t i = 0; i < n_classes; i++) {
		for (size_t j = 0; j < classes[i].n_fields; j++) {
			const struct class_field *field = &classes[i].fields[j];
			if (field->type != FIELD_DERIVED)
				continue;
			char *name CLEANUP_FREE = xstrdup(field->of);
			*strchr(name, '.') = '\0';
			const struct class_field *other =
				class_field_find(class_find(name), strchr(field->of, '.') + 1);
			assert_string_equal(other->of, classes[i].name);
		}
	}
}

/* What clients break without, or read when they list or migrate (contract, section 5). */
static const struct {
	const char *class;
	const char *fields;
} contract[] = {
	{"session", "this_host is_local_superuser"},
	{"pool", "name_label master default_SR suspend_image_SR other_config ha_enabled "
		 "restrictions "
		 "cpu_info migration_compression ha_statefiles"},
	{"host",
		"name_label allowed_operations current_operations API_version_major "
		"API_version_minor enabled software_version other_config capabilities resident_VMs "
		"PIFs suspend_image_sr PBDs cpu_info hostname address metrics license_params "
		"chipset_info virtual_hardware_platform_versions"},
	{"host_metrics", "memory_total memory_free live"},
	{"VM", "allowed_operations current_operations name_label name_description power_state "
	       "is_a_template is_default_template suspend_VDI resident_on affinity "
	       "memory_static_max memory_dynamic_max memory_dynamic_min memory_static_min "
	       "VCPUs_max "
	       "VCPUs_at_startup VIFs VBDs HVM_boot_policy HVM_boot_params platform other_config "
	       "domid is_control_domain metrics guest_metrics xenstore_data is_a_snapshot "
	       "snapshot_of snapshots blocked_operations domain_type"},
	{"VM_metrics", "memory_actual VCPUs_number start_time install_time"},
	{"VM_guest_metrics", "os_version PV_drivers_version networks other"},
	{"VBD", "VM VDI device userdevice mode type empty currently_attached"},
	{"VDI", "name_label name_description allowed_operations current_operations SR VBDs "
		"virtual_size physical_utilisation type read_only other_config location managed "
		"sm_config is_a_snapshot snapshot_of snapshot_time on_boot cbt_enabled"},
	{"SR", "name_label allowed_operations VDIs PBDs virtual_allocation physical_utilisation "
	       "physical_size type content_type shared other_config"},
	{"PBD", "host SR device_config currently_attached"},
	{"SM", "name_label type vendor version capabilities features"},
	{"VIF", "device network VM MAC MTU other_config currently_attached ipv4_addresses "
		"ipv4_gateway ipv6_configuration_mode ipv6_addresses ipv6_gateway"},
	{"network", "name_label PIFs other_config bridge"},
	{"PIF", "network host currently_attached ip_configuration_mode IP management "
		"primary_address_type"},
	{"task", "name_label name_description allowed_operations current_operations created "
		 "finished status resident_on progress type result error_info other_config "
		 "subtask_of subtasks backtrace"},
	{"console", "protocol location VM other_config"},
	{"migration", "name_label role state VM vm_uuid peer started finished progress bytes_total "
		      "bytes_sent rate eta disks error_info cancelled_by other_config"},
};

static void every_field_that_clients_need_is_there(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(contract); i++) {
		const struct class *class = class_find(contract[i].class);
		assert_non_null(class);
		char *names CLEANUP_FREE = xstrdup(contract[i].fields);
		char *rest = NULL;
		for (char *name = strtok_r(names, " ", &rest); name;
			name = strtok_r(NULL, " ", &rest))
			if (!class_has_field(class, name))
				fail_msg("%s.%s is missing", contract[i].class, name);
	}
}

static void the_page_names_every_field(void **state)
{
	char *page CLEANUP_FREE = NULL;
	size_t length = 0;
	FILE *out = open_memstream(&page, &length);

	(void)state;
	class_list_print_markdown(out);
	fclose(out);
	for (size_t i = 0; i < n_classes; i++) {
		char *title CLEANUP_FREE = xasprintf("### %s\n", classes[i].name);
		assert_non_null(strstr(page, title));
		for (size_t j = 0; j < classes[i].n_fields; j++) {
			char *row CLEANUP_FREE = xasprintf("\n| %s | ", classes[i].fields[j].name);
			assert_non_null(strstr(page, row));
		}
	}
	assert_non_null(strstr(page, "| VBDs | set of VBD refs | read |"));
	assert_non_null(strstr(page, "| mode | enum (RO, RW) | read, write | RW |"));
}

static void state_names_are_read_back(void **state)
{
	enum migration_state found;

	(void)state;
	for (unsigned i = 0; i < N_STATES; i++) {
		assert_int_equal(migration_state_parse(
					 migration_state_name((enum migration_state)i), &found),
			0);
		assert_int_equal(found, i);
	}
	assert_int_equal(migration_state_parse("copying", &found), -EINVAL);
	assert_int_equal(migration_state_parse("", &found), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_are_unique_and_the_uuid_comes_first),
		cmocka_unit_test(what_a_field_names_exists),
		cmocka_unit_test(the_other_end_of_a_relation_has_its_class),
		cmocka_unit_test(every_field_that_clients_need_is_there),
		cmocka_unit_test(the_page_names_every_field),
		cmocka_unit_test(state_names_are_read_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
