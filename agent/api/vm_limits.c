/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/api/vm_limits.h"

#include "agent/api/context.h"
#include "agent/vm/operations.h"
#include "base/alloc.h"

#include <errno.h>
#include <inttypes.h>

static int out_of_range(const char *field, int64_t value, struct fault *fault)
{
	char *text CLEANUP_FREE = xasprintf("%" PRId64, value);

	return fault_set(fault, -EINVAL, "INVALID_VALUE", field, text, NULL);
}

/* XenAPI: static_min <= dynamic_min <= dynamic_max <= static_max. */
static int check_memory(const struct value *fields, struct fault *fault)
{
	static const char *const order[] = {"memory_static_min", "memory_dynamic_min",
		"memory_dynamic_max", "memory_static_max"};
	int64_t previous = 0;

	for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
		int64_t bytes = value_find_int(fields, order[i], 0);
		if (bytes < 0)
			return out_of_range(order[i], bytes, fault);
		if (bytes < previous)
			return fault_set(fault, -EINVAL, "MEMORY_CONSTRAINT_VIOLATION_ORDER",
				"Memory limits must satisfy: static_min <= dynamic_min <= "
				"dynamic_max <= static_max",
				NULL);
		previous = bytes;
	}
	return 0;
}

static int check_vcpus(const struct value *fields, struct fault *fault)
{
	int64_t max = value_find_int(fields, "VCPUs_max", 1);
	int64_t at_startup = value_find_int(fields, "VCPUs_at_startup", 1);

	if (max < 1)
		return out_of_range("VCPUs_max", max, fault);
	if (at_startup < 1 || at_startup > max)
		return out_of_range("VCPUs_at_startup", at_startup, fault);
	return 0;
}

void vm_limits_fill(struct value *fields)
{
	static const char *const up[] = {"memory_dynamic_max", "memory_dynamic_min"};
	int64_t bytes = value_find_int(fields, "memory_static_max", 0);

	if (!value_find(fields, "memory_static_max")) {
		bytes = value_find_int(fields, "memory_dynamic_max",
			value_find_int(fields, "memory_dynamic_min", 0));
		value_set_int(fields, "memory_static_max", bytes);
	}
	for (size_t i = 0; i < ARRAY_SIZE(up); i++) {
		bytes = value_find_int(fields, up[i], bytes);
		value_set_int(fields, up[i], bytes);
	}
	if (!value_find(fields, "VCPUs_max"))
		value_set_int(fields, "VCPUs_max", value_find_int(fields, "VCPUs_at_startup", 1));
	if (!value_find(fields, "VCPUs_at_startup"))
		value_set_int(fields, "VCPUs_at_startup", value_find_int(fields, "VCPUs_max", 1));
}

int vm_limits_check(const struct value *fields, struct fault *fault)
{
	int r = check_memory(fields, fault);

	return r < 0 ? r : check_vcpus(fields, fault);
}

/* --- Setters: written by hand, as limits depend on each other ----------------------------------
 */

struct limits_change {
	const char *vm;
	struct value *fields; /* the limits to set */
};

static int limits_change(struct pool_db *pool, void *arg, struct fault *fault)
{
	const struct limits_change *change = arg;
	struct value *record CLEANUP_VALUE = NULL;
	int r = object_get_record(pool, "VM", change->vm, &record, fault);

	if (r == 0)
		r = vm_check_changeable(pool, change->vm, fault);
	if (r < 0)
		return r;
	for (size_t i = 0; i < change->fields->record.n_members; i++) {
		const struct value_member *member = &change->fields->record.members[i];
		value_set(record, member->name, value_copy(member->value));
	}
	r = vm_limits_check(record, fault);
	return r < 0 ? r : object_set_fields(pool, "VM", change->vm, change->fields, fault);
}

/* The row's data: names of the fields that the arguments after self set, ending with NULL. */
static int set_limits(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	const char *const *names = call_method(call)->data;
	struct value *fields CLEANUP_VALUE = value_new_struct();
	struct limits_change change = {arg_text(args, 0), fields};

	(void)ret_result;
	for (size_t i = 0; names[i]; i++)
		value_set(fields, names[i], value_copy(args[i + 1]));
	return pool_db_transaction(api_of(call)->pool, limits_change, &change, fault);
}

static const char *const memory_static_max[] = {"memory_static_max", NULL};
static const char *const memory_static_min[] = {"memory_static_min", NULL};
static const char *const memory_dynamic_max[] = {"memory_dynamic_max", NULL};
static const char *const memory_dynamic_min[] = {"memory_dynamic_min", NULL};
static const char *const memory_limits[] = {
	"memory_static_min", "memory_static_max", "memory_dynamic_min", "memory_dynamic_max", NULL};
static const char *const vcpus_max[] = {"VCPUs_max", NULL};
static const char *const vcpus_at_startup[] = {"VCPUs_at_startup", NULL};

static const struct param value_params[] = {
	{"self", PARAM_STRING, "VM ref"},
	{"value", PARAM_INT, NULL},
};
static const struct param limits_params[] = {
	{"self", PARAM_STRING, "VM ref"},
	{"static_min", PARAM_INT, NULL},
	{"static_max", PARAM_INT, NULL},
	{"dynamic_min", PARAM_INT, NULL},
	{"dynamic_max", PARAM_INT, NULL},
};

/* What the rows of single limits share. */
#define LIMIT_SETTER                                                                               \
	.role = USER_VM_ADMIN, .handle = set_limits, PARAMS(value_params), .result = "void",       \
	.doc = "Sets the limit."

static const struct method rows[] = {
	{.name = "VM.set_memory_static_max", LIMIT_SETTER, .data = memory_static_max},
	{.name = "VM.set_memory_static_min", LIMIT_SETTER, .data = memory_static_min},
	{.name = "VM.set_memory_dynamic_max", LIMIT_SETTER, .data = memory_dynamic_max},
	{.name = "VM.set_memory_dynamic_min", LIMIT_SETTER, .data = memory_dynamic_min},
	{.name = "VM.set_VCPUs_max", LIMIT_SETTER, .data = vcpus_max},
	{.name = "VM.set_VCPUs_at_startup", LIMIT_SETTER, .data = vcpus_at_startup},
	{
		.name = "VM.set_memory_limits",
		.role = USER_VM_ADMIN,
		.handle = set_limits,
		PARAMS(limits_params),
		.result = "void",
		.doc = "Sets all four limits at once, in bytes.",
		.data = memory_limits,
	},
};

const struct method_table vm_limits_methods = {rows, ARRAY_SIZE(rows)};
