/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/api/vm_operations.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/log.h"

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

static bool may_migrate(const struct value *record)
{
	return !value_find_bool(record, "is_default_template", false) &&
	       !value_find_bool(record, "is_a_snapshot", false) &&
	       !value_find_bool(record, "is_control_domain", false);
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
		if (strcmp(operation, "migrate_send") == 0 && !may_migrate(record))
			continue;
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

void vm_update_all_allowed_operations(struct pool_db *pool)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct value *refs CLEANUP_VALUE = NULL;
	int r = object_get_all(pool, "VM", &refs, &fault);

	for (size_t i = 0; r == 0 && i < refs->array.n_items; i++) {
		r = vm_update_allowed_operations(pool, refs->array.items[i]->string, &fault);
		/* Destroyed since it was listed. */
		if (fault_is(&fault, "HANDLE_INVALID"))
			r = 0;
	}
	if (r < 0) {
		char *text CLEANUP_FREE = fault_describe(&fault);
		log_warn("vm-operations-not-updated", "error=\"%s\"", text);
	}
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
	return r < 0 ? r : check_idle(vm, record, fault);
}
