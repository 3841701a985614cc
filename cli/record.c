/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/record.h"

#include "base/parse.h"

#include <stdlib.h>
#include <string.h>

/* Sorted. tests/unit/test_record.c compares it with the list of classes. */
static const char *const int_fields[] = {
	"API_version_major",
	"API_version_minor",
	"MTU",
	"VCPUs_at_startup",
	"VCPUs_max",
	"VLAN",
	"bytes_compared",
	"bytes_dirty",
	"bytes_saved",
	"bytes_sent",
	"bytes_total",
	"bytes_unreadable",
	"console_idle_timeout",
	"copy_rate",
	"dirty_rate",
	"domid",
	"eta",
	"ext_auth_cache_expiry",
	"ext_auth_cache_size",
	"ext_auth_max_threads",
	"ha_host_failures_to_tolerate",
	"ha_plan_exists_for",
	"hardware_platform_version",
	"local_auth_max_threads",
	"memory_dynamic_max",
	"memory_dynamic_min",
	"memory_overhead",
	"memory_sent",
	"memory_static_max",
	"memory_static_min",
	"memory_target",
	"memory_total",
	"order",
	"physical_size",
	"physical_utilisation",
	"predicted_pause",
	"queue_place",
	"rate",
	"rounds",
	"shutdown_delay",
	"ssh_enabled_timeout",
	"start_delay",
	"status_code",
	"throttle",
	"update_sync_day",
	"user_version",
	"version",
	"virtual_allocation",
	"virtual_size",
	"vm_console_idle_timeout",
};

static int compare(const void *name, const void *entry)
{
	return strcmp(name, *(const char *const *)entry);
}

bool record_is_int_field(const char *field)
{
	return bsearch(field, int_fields, ARRAY_SIZE(int_fields), sizeof(*int_fields), compare) !=
	       NULL;
}

int64_t record_int(const struct value *record, const char *field, int64_t fallback)
{
	const struct value *value = value_find(record, field);
	int64_t integer;

	if (value && value->type == VALUE_STRING && parse_int64(value->string, &integer) == 0)
		return integer;
	return value_find_int(record, field, fallback);
}

double record_double(const struct value *record, const char *field, double fallback)
{
	const struct value *value = value_find(record, field);
	double real;

	if (value && value->type == VALUE_DOUBLE)
		return value->real;
	if (value && value->type == VALUE_STRING && parse_double(value->string, &real) == 0)
		return real;
	return value && value->type == VALUE_INT ? (double)value->integer : fallback;
}

struct value *record_for_json(const char *ref, const struct value *record)
{
	struct value *json = value_new_struct();

	value_set_string(json, "ref", ref);
	for (size_t i = 0; i < record->record.n_members; i++) {
		const struct value_member *member = &record->record.members[i];
		int64_t integer;
		if (record_is_int_field(member->name) && member->value->type == VALUE_STRING &&
			parse_int64(member->value->string, &integer) == 0)
			value_set_int(json, member->name, integer);
		else
			value_set(json, member->name, value_copy(member->value));
	}
	return json;
}
