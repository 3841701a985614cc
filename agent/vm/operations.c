/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/vm/operations.h"

#include "base/alloc.h"
#include "base/buf.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

/* Of XenAPI's vm_operations, those that this agent can do to a halted VM. */
static const char *const halted_operations[] = {"migrate_send", "destroy"};

static const struct value *current_operations(const struct value *record)
{
	const struct value *operations = value_find(record, "current_operations");

	return operations && operations->type == VALUE_STRUCT && operations->record.n_members > 0
		       ? operations
		       : NULL;
}

/* What the VM is, as opposed to the state that it is in, may forbid it. */
static int check_kind(
	const char *vm, const struct value *record, const char *operation, struct fault *fault)
{
	if (strcmp(operation, "migrate_send") != 0)
		return 0;
	if (value_find_bool(record, "is_default_template", false))
		return fault_set(fault, -EPERM, "VM_IS_TEMPLATE", vm, operation, NULL);
	if (value_find_bool(record, "is_a_snapshot", false))
		return fault_set(fault, -EPERM, "VM_IS_SNAPSHOT", vm, operation, NULL);
	if (value_find_bool(record, "is_control_domain", false))
		return fault_set(fault, -EPERM, "OPERATION_NOT_ALLOWED",
			"a control domain belongs to its host and cannot be migrated", NULL);
	return 0;
}

static struct value *allowed_operations_new(const struct value *record)
{
	const struct value *blocked = value_find(record, "blocked_operations");
	struct value *allowed = value_new_array();

	if (strcmp(value_find_string(record, "power_state", ""), "Halted") != 0 ||
		current_operations(record))
		return allowed;
	for (size_t i = 0; i < ARRAY_SIZE(halted_operations); i++) {
		const char *operation = halted_operations[i];
		if (value_find(blocked, operation))
			continue;
		if (check_kind("", record, operation, NULL) == 0)
			value_append_string(allowed, operation);
	}
	return allowed;
}

int vm_update_allowed_operations(struct pool_db *pool, const char *vm, struct fault *fault)
{
	struct value *record CLEANUP_VALUE = NULL;
	struct value *allowed CLEANUP_VALUE = NULL;
	int r = object_get_record(pool, "VM", vm, &record, fault);

	if (r < 0)
		return r;
	allowed = allowed_operations_new(record);
	if (value_equal(allowed, value_find(record, "allowed_operations")))
		return 0;
	return object_set_field(pool, "VM", vm, "allowed_operations", allowed, fault);
}

static int check_idle(const char *vm, const struct value *record, struct fault *fault)
{
	const struct value *running = current_operations(record);
	struct buf operations CLEANUP_BUF = BUF_INIT;
	struct buf tasks CLEANUP_BUF = BUF_INIT;

	if (!running)
		return 0;
	for (size_t i = 0; i < running->record.n_members; i++) {
		buf_append_string(&operations, i ? "; " : "");
		buf_append_string(&operations, value_string(running->record.members[i].value, ""));
		buf_append_string(&tasks, i ? "; " : "");
		buf_append_string(&tasks, running->record.members[i].name);
	}
	char *operation_text CLEANUP_FREE = buf_take_string(&operations);
	char *task_text CLEANUP_FREE = buf_take_string(&tasks);
	return fault_set(fault, -EBUSY, "OTHER_OPERATION_IN_PROGRESS", "VM", vm, operation_text,
		task_text, NULL);
}

int vm_check_idle(struct pool_db *pool, const char *vm, struct fault *fault)
{
	struct value *record CLEANUP_VALUE = NULL;
	int r = object_get_record(pool, "VM", vm, &record, fault);

	return r < 0 ? r : check_idle(vm, record, fault);
}

static int check_halted(const char *vm, const struct value *record, struct fault *fault)
{
	char *actual CLEANUP_FREE = xstrdup(value_find_string(record, "power_state", ""));

	if (strcmp(actual, "Halted") == 0)
		return 0;
	for (char *c = actual; *c; c++)
		*c = (char)tolower((unsigned char)*c);
	return fault_set(fault, -EBUSY, "VM_BAD_POWER_STATE", vm, "halted", actual, NULL);
}

int vm_check_operation(
	struct pool_db *pool, const char *vm, const char *operation, struct fault *fault)
{
	struct value *record CLEANUP_VALUE = NULL;
	const struct value *blocked;
	int r = object_get_record(pool, "VM", vm, &record, fault);

	if (r < 0)
		return r;
	blocked = value_find(value_find(record, "blocked_operations"), operation);
	if (blocked)
		return fault_set(
			fault, -EPERM, "OPERATION_BLOCKED", vm, value_string(blocked, ""), NULL);
	r = check_halted(vm, record, fault);
	if (r == 0)
		r = check_idle(vm, record, fault);
	return r < 0 ? r : check_kind(vm, record, operation, fault);
}

bool vm_has_operation(struct pool_db *pool, const char *vm, const char *key)
{
	struct value *operations CLEANUP_VALUE = NULL;

	return object_get_field(pool, "VM", vm, "current_operations", &operations, NULL) == 0 &&
	       value_find(operations, key);
}

int vm_ensure_operation(struct pool_db *pool, const char *vm, const char *key,
	const char *operation, struct fault *fault)
{
	int r = object_map_set(pool, "VM", vm, "current_operations", key, operation, fault);

	return r < 0 ? r : vm_update_allowed_operations(pool, vm, fault);
}

int vm_forget_operation(struct pool_db *pool, const char *vm, const char *key, struct fault *fault)
{
	if (!object_exists(pool, "VM", vm))
		return 0;
	int r = object_map_remove(pool, "VM", vm, "current_operations", key, fault);
	return r < 0 ? r : vm_update_allowed_operations(pool, vm, fault);
}
