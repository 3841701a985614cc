/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/vm/operations.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/uuid.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

enum {
	HALTED = 1 << 0,
	PAUSED = 1 << 1,
	RUNNING = 1 << 2,
	SUSPENDED = 1 << 3,
};

/* In the order in which faults list them. */
static const struct {
	const char *name;
	unsigned bit;
} states[] = {
	{"Halted", HALTED},
	{"Suspended", SUSPENDED},
	{"Running", RUNNING},
	{"Paused", PAUSED},
};

/* Of XenAPI's vm_operations, those that this agent can do, and in which power states. One that ends
 * a guest by force may begin while it is asked politely. */
static const struct rule {
	const char *name;
	unsigned states;
	bool needs_guest; /* it makes no sense for what is no VM of its own */
	bool by_force;
	bool is_polite;
	bool is_a_copy; /* of its disks */
	bool reads;     /* changes nothing of it: may run beside others that do not either */
} rules[] = {
	{"start", HALTED, .needs_guest = true},
	{"start_on", HALTED, .needs_guest = true},
	{"pause", RUNNING, .needs_guest = true},
	{"unpause", PAUSED, .needs_guest = true},
	{"clean_shutdown", RUNNING, .needs_guest = true, .is_polite = true},
	{"clean_reboot", RUNNING, .needs_guest = true, .is_polite = true},
	{"hard_shutdown", RUNNING | PAUSED, .needs_guest = true, .by_force = true},
	{"hard_reboot", RUNNING | PAUSED, .needs_guest = true, .by_force = true},
	{"migrate_send", HALTED | RUNNING, .needs_guest = true},
	{"pool_migrate", RUNNING, .needs_guest = true},
	{"clone", HALTED, .is_a_copy = true, .reads = true},
	{"copy", HALTED, .is_a_copy = true, .reads = true},
	{"snapshot", HALTED | RUNNING | PAUSED, .needs_guest = true, .is_a_copy = true},
	{"revert", HALTED, .is_a_copy = true},
	{"destroy", HALTED, .needs_guest = false},
};

static const struct rule *rule_find(const char *operation)
{
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++)
		if (strcmp(rules[i].name, operation) == 0)
			return &rules[i];
	return NULL;
}

static unsigned state_bit(const char *power_state)
{
	for (size_t i = 0; i < ARRAY_SIZE(states); i++)
		if (strcmp(states[i].name, power_state) == 0)
			return states[i].bit;
	return 0;
}

static const struct value *current_operations(const struct value *record)
{
	const struct value *operations = value_find(record, "current_operations");

	return operations && operations->type == VALUE_STRUCT && operations->record.n_members > 0
		       ? operations
		       : NULL;
}

/* What the VM is, as opposed to the state that it is in, may forbid it. */
static int check_kind(
	const char *vm, const struct value *record, const struct rule *rule, struct fault *fault)
{
	/* A template without the mark of a built-in one can be moved, but none can be run. */
	const char *template_field =
		strcmp(rule->name, "migrate_send") == 0 ? "is_default_template" : "is_a_template";

	if (strcmp(rule->name, "revert") == 0 && !value_find_bool(record, "is_a_snapshot", false))
		return fault_set(fault, -EPERM, "OPERATION_NOT_ALLOWED",
			"Only a snapshot can be reverted to: VM.revert wants its ref", NULL);
	if (strcmp(rule->name, "revert") == 0 &&
		ref_is_null(value_find_string(record, "snapshot_of", REF_NULL)))
		return fault_set(fault, -EPERM, "OPERATION_NOT_ALLOWED",
			"The VM that the snapshot was taken of is gone: clone the snapshot", NULL);
	if (rule->is_a_copy && value_find_bool(record, "is_control_domain", false))
		return fault_set(fault, -EPERM, "OPERATION_NOT_ALLOWED",
			"A control domain belongs to its host: it is not copied", NULL);
	if (!rule->needs_guest)
		return 0;
	if (value_find_bool(record, template_field, false))
		return fault_set(fault, -EPERM, "VM_IS_TEMPLATE", vm, rule->name, NULL);
	if (value_find_bool(record, "is_a_snapshot", false))
		return fault_set(fault, -EPERM, "VM_IS_SNAPSHOT", vm, rule->name, NULL);
	if (value_find_bool(record, "is_control_domain", false))
		return fault_set(fault, -EPERM, "OPERATION_NOT_ALLOWED",
			"A control domain belongs to its host: it is neither run nor migrated",
			NULL);
	return 0;
}

static bool may_begin_beside(const struct rule *rule, const struct value *running)
{
	for (size_t i = 0; running && i < running->record.n_members; i++) {
		const struct rule *other =
			rule_find(value_string(running->record.members[i].value, ""));
		if (!other ||
			!((rule->by_force && other->is_polite) || (rule->reads && other->reads)))
			return false;
	}
	return true;
}

static struct value *allowed_operations_new(const struct value *record)
{
	const struct value *blocked = value_find(record, "blocked_operations");
	const struct value *running = current_operations(record);
	unsigned state = state_bit(value_find_string(record, "power_state", ""));
	struct value *allowed = value_new_array();

	for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
		const struct rule *rule = &rules[i];
		if (rule->states & state && may_begin_beside(rule, running) &&
			!value_find(blocked, rule->name) && check_kind("", record, rule, NULL) == 0)
			value_append_string(allowed, rule->name);
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

/* States in lower case, as XenAPI writes them in faults. */
static int check_state(
	const char *vm, const struct value *record, unsigned allowed, struct fault *fault)
{
	char *actual CLEANUP_FREE = xstrdup(value_find_string(record, "power_state", ""));
	struct buf expected CLEANUP_BUF = BUF_INIT;

	if (allowed & state_bit(actual))
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(states); i++)
		if (allowed & states[i].bit)
			buf_printf(&expected, "%s%s", expected.length ? ", " : "", states[i].name);
	char *expected_text CLEANUP_FREE = buf_take_string(&expected);
	for (char *c = expected_text; *c; c++)
		*c = (char)tolower((unsigned char)*c);
	for (char *c = actual; *c; c++)
		*c = (char)tolower((unsigned char)*c);
	return fault_set(fault, -EBUSY, "VM_BAD_POWER_STATE", vm, expected_text, actual, NULL);
}

int vm_check_changeable(struct pool_db *pool, const char *vm, struct fault *fault)
{
	struct value *record CLEANUP_VALUE = NULL;
	int r = object_get_record(pool, "VM", vm, &record, fault);

	if (r == 0)
		r = check_state(vm, record, HALTED, fault);
	return r < 0 ? r : check_idle(vm, record, fault);
}

int vm_check_idle(struct pool_db *pool, const char *vm, struct fault *fault)
{
	struct value *record CLEANUP_VALUE = NULL;
	int r = object_get_record(pool, "VM", vm, &record, fault);

	return r < 0 ? r : check_idle(vm, record, fault);
}

int vm_check_operation(
	struct pool_db *pool, const char *vm, const char *operation, struct fault *fault)
{
	const struct rule *rule = rule_find(operation);
	struct value *record CLEANUP_VALUE = NULL;
	const struct value *blocked;
	int r = object_get_record(pool, "VM", vm, &record, fault);

	if (r < 0)
		return r;
	if (!rule)
		return fault_text(fault, -EINVAL, "Unknown operation of a VM: %s", operation);
	blocked = value_find(value_find(record, "blocked_operations"), operation);
	if (blocked)
		return fault_set(
			fault, -EPERM, "OPERATION_BLOCKED", vm, value_string(blocked, ""), NULL);
	r = check_state(vm, record, rule->states, fault);
	if (r == 0 && !may_begin_beside(rule, current_operations(record)))
		r = check_idle(vm, record, fault);
	return r < 0 ? r : check_kind(vm, record, rule, fault);
}

int vm_check_disk_still(
	struct pool_db *pool, const char *vdi, const char *operation, struct fault *fault)
{
	struct value *vbds CLEANUP_VALUE = NULL;
	int r = object_find(pool, "VBD", "VDI", vdi, &vbds, fault);

	for (size_t i = 0; r == 0 && i < vbds->array.n_items; i++) {
		struct value *vbd CLEANUP_VALUE = NULL;
		r = object_get_record(pool, "VBD", vbds->array.items[i]->string, &vbd, fault);
		if (r == 0 && value_find_bool(vbd, "currently_attached", false) &&
			strcmp(value_find_string(vbd, "mode", "RW"), "RO") != 0)
			return fault_set(fault, -EBUSY, "VDI_IN_USE", vdi, operation, NULL);
	}
	return r;
}

bool vm_has_operation(struct pool_db *pool, const char *vm, const char *key)
{
	struct value *operations CLEANUP_VALUE = NULL;

	return object_get_field(pool, "VM", vm, "current_operations", &operations, NULL) == 0 &&
	       value_find(operations, key);
}

static bool is_a_move(const char *operation)
{
	return strcmp(operation, "migrate_send") == 0 || strcmp(operation, "pool_migrate") == 0;
}

static bool stops_guests(const char *operation)
{
	return is_a_move(operation) || strcmp(operation, "snapshot") == 0;
}

bool vm_may_be_stopped(struct pool_db *pool, const char *vm)
{
	struct value *operations CLEANUP_VALUE = NULL;

	if (object_get_field(pool, "VM", vm, "current_operations", &operations, NULL) < 0)
		return false;
	for (size_t i = 0; i < operations->record.n_members; i++)
		if (stops_guests(value_string(operations->record.members[i].value, "")))
			return true;
	return false;
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

bool vm_operation_is_a_copy(const char *operation)
{
	const struct rule *rule = rule_find(operation);

	return (rule && rule->is_a_copy) || strcmp(operation, VM_REVERTING) == 0;
}

bool vm_operation_is_a_guests(const char *operation)
{
	const struct rule *rule = rule_find(operation);

	return rule && rule->needs_guest && !rule->is_a_copy && !is_a_move(operation);
}
