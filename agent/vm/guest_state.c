/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/vm/guest_state.h"

#include "agent/vm/operations.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/uuid.h"

#include <errno.h>
#include <string.h>

/* --- Devices ------------------------------------------------------------------------------------
 */

static int set_attached(struct pool_db *pool, const char *class, const char *vm, bool is_attached,
	struct fault *fault)
{
	struct value *refs CLEANUP_VALUE = NULL;
	struct value *attached CLEANUP_VALUE = value_new_bool(is_attached);
	int r = object_find(pool, class, "VM", vm, &refs, fault);

	for (size_t i = 0; r == 0 && i < refs->array.n_items; i++) {
		const char *ref = refs->array.items[i]->string;
		bool before = false;
		r = object_get_bool(pool, class, ref, "currently_attached", &before, fault);
		if (r == 0 && before != is_attached)
			r = object_set_field(
				pool, class, ref, "currently_attached", attached, fault);
	}
	return r;
}

/* Disks that all read may be shared, and those that are marked as such. */
static int check_other_vbds(struct pool_db *pool, const struct value *vbd, const char *vdi,
	const char *operation, struct fault *fault)
{
	struct value *others CLEANUP_VALUE = NULL;
	bool is_sharable = false;
	bool reads = strcmp(value_find_string(vbd, "mode", "RW"), "RO") == 0;
	int r = object_get_bool(pool, "VDI", vdi, "sharable", &is_sharable, fault);

	if (r == 0)
		r = object_find(pool, "VBD", "VDI", vdi, &others, fault);
	for (size_t i = 0; r == 0 && !is_sharable && i < others->array.n_items; i++) {
		struct value *other CLEANUP_VALUE = NULL;
		r = object_get_record(pool, "VBD", others->array.items[i]->string, &other, fault);
		if (r < 0)
			return r;
		bool other_reads = strcmp(value_find_string(other, "mode", "RW"), "RO") == 0;
		if (value_find_bool(other, "currently_attached", false) && !(reads && other_reads))
			return fault_set(fault, -EBUSY, "VDI_IN_USE", vdi, operation, NULL);
	}
	return r;
}

static int check_disk(
	struct pool_db *pool, const char *ref, const char *operation, struct fault *fault)
{
	struct value *vbd CLEANUP_VALUE = NULL;
	struct value *operations CLEANUP_VALUE = NULL;
	int r = object_get_record(pool, "VBD", ref, &vbd, fault);
	const char *vdi = r == 0 ? value_find_string(vbd, "VDI", REF_NULL) : REF_NULL;

	if (r < 0 || ref_is_null(vdi))
		return r;
	r = object_get_field(pool, "VDI", vdi, "current_operations", &operations, fault);
	if (r == 0 && operations->record.n_members > 0)
		return fault_set(fault, -EBUSY, "VDI_IN_USE", vdi, operation, NULL);
	return r < 0 ? r : check_other_vbds(pool, vbd, vdi, operation, fault);
}

static int attach(struct pool_db *pool, const char *vm, const char *operation, struct fault *fault)
{
	struct value *vbds CLEANUP_VALUE = NULL;
	int r = object_find(pool, "VBD", "VM", vm, &vbds, fault);

	for (size_t i = 0; r == 0 && i < vbds->array.n_items; i++)
		r = check_disk(pool, vbds->array.items[i]->string, operation, fault);
	return r < 0 ? r : set_attached(pool, "VBD", vm, true, fault);
}

struct attaching {
	const char *vm;
	const char *operation;
};

static int attach_scope(struct pool_db *pool, void *arg, struct fault *fault)
{
	const struct attaching *attaching = arg;

	return attach(pool, attaching->vm, attaching->operation, fault);
}

int guest_state_attach(
	struct pool_db *pool, const char *vm, const char *operation, struct fault *fault)
{
	struct attaching attaching = {vm, operation};

	return pool_db_transaction(pool, attach_scope, &attaching, fault);
}

/* --- Operations ---------------------------------------------------------------------------------
 */

/* Which host answers for the VM until it runs. */
static int schedule(struct pool_db *pool, const char *vm, const char *host, struct fault *fault)
{
	struct value *ref CLEANUP_VALUE = value_new_string(host);

	return object_set_field(pool, "VM", vm, "scheduled_to_be_resident_on", ref, fault);
}

static int begin_scope(struct pool_db *pool, void *arg, struct fault *fault)
{
	const struct guest_begin *begin = arg;
	int r = vm_check_operation(pool, begin->vm, begin->operation, fault);

	if (r == 0 && begin->attach)
		r = attach(pool, begin->vm, begin->operation, fault);
	if (r == 0 && begin->attach)
		r = schedule(pool, begin->vm, begin->host_ref, fault);
	return r < 0 ? r
		     : vm_ensure_operation(pool, begin->vm, begin->key, begin->operation, fault);
}

int guest_state_begin(struct pool_db *pool, const struct guest_begin *begin, struct fault *fault)
{
	struct guest_begin copy = *begin;

	return pool_db_transaction(pool, begin_scope, &copy, fault);
}

struct ending {
	const char *vm;
	const char *key;
};

static int end_scope(struct pool_db *pool, void *arg, struct fault *fault)
{
	const struct ending *ending = arg;

	return vm_forget_operation(pool, ending->vm, ending->key, fault);
}

int guest_state_end(struct pool_db *pool, const char *vm, const char *key, struct fault *fault)
{
	struct ending ending = {vm, key};

	return pool_db_transaction(pool, end_scope, &ending, fault);
}

static int forget_marks_scope(struct pool_db *pool, void *arg, struct fault *fault)
{
	const char *vm = arg;
	struct value *marks CLEANUP_VALUE = NULL;
	int r = object_get_field(pool, "VM", vm, "current_operations", &marks, fault);

	for (size_t i = 0; r == 0 && i < marks->record.n_members; i++) {
		const struct value_member *mark = &marks->record.members[i];
		if (vm_operation_is_a_guests(value_string(mark->value, "")))
			r = vm_forget_operation(pool, vm, mark->name, fault);
	}
	return r < 0 ? r : vm_update_allowed_operations(pool, vm, fault);
}

int guest_state_forget_marks(struct pool_db *pool, const char *vm, struct fault *fault)
{
	char *copy CLEANUP_FREE = xstrdup(vm);

	return pool_db_transaction(pool, forget_marks_scope, copy, fault);
}

/* --- Power --------------------------------------------------------------------------------------
 */

static int forget_consoles(struct pool_db *pool, const char *vm, struct fault *fault)
{
	struct value *refs CLEANUP_VALUE = NULL;
	int r = object_find(pool, "console", "VM", vm, &refs, fault);

	for (size_t i = 0; r == 0 && i < refs->array.n_items; i++)
		r = object_destroy(pool, "console", refs->array.items[i]->string, fault);
	return r;
}

static int make_console(
	struct pool_db *pool, const struct guest_running *running, struct fault *fault)
{
	struct value *console CLEANUP_VALUE = value_new_struct();
	int r = forget_consoles(pool, running->vm, fault);

	value_set_string(console, "VM", running->vm);
	value_set_string(console, "protocol", "vt100");
	value_set(console, "location", value_new_format("unix:%s", running->console_path));
	return r < 0 ? r : object_create(pool, "console", console, NULL, fault);
}

/* memory_bytes 0: it does not run. */
static int store_metrics(struct pool_db *pool, const char *vm, int64_t memory_bytes, int64_t vcpus,
	struct fault *fault)
{
	struct value *metrics CLEANUP_VALUE = value_new_struct();
	char *ref CLEANUP_FREE = NULL;
	int r = object_get_string(pool, "VM", vm, "metrics", &ref, fault);

	if (r < 0 || ref_is_null(ref))
		return r;
	value_set_int(metrics, "memory_actual", memory_bytes);
	value_set(metrics, "last_updated", value_new_datetime(clock_wall_sec()));
	if (memory_bytes) {
		value_set_int(metrics, "VCPUs_number", vcpus);
		value_set(metrics, "start_time", value_new_datetime(clock_wall_sec()));
		value_set_bool(metrics, "hvm", true);
		value_set_string(metrics, "current_domain_type", "hvm");
	}
	return object_set_fields(pool, "VM_metrics", ref, metrics, fault);
}

static int started_scope(struct pool_db *pool, void *arg, struct fault *fault)
{
	const struct guest_running *running = arg;
	struct value *fields CLEANUP_VALUE = value_new_struct();
	int64_t memory = 0, vcpus = 0;
	int r = object_get_int(pool, "VM", running->vm, "memory_static_max", &memory, fault);

	if (r == 0)
		r = object_get_int(pool, "VM", running->vm, "VCPUs_max", &vcpus, fault);
	if (r < 0)
		return r;
	value_set_string(fields, "power_state", running->is_paused ? "Paused" : "Running");
	value_set_int(fields, "domid", running->domid);
	value_set_int(fields, "memory_target", memory);
	value_set_string(fields, "resident_on", running->host_ref);
	value_set_string(fields, "scheduled_to_be_resident_on", REF_NULL);
	r = object_set_fields(pool, "VM", running->vm, fields, fault);
	if (r == 0)
		r = set_attached(pool, "VBD", running->vm, true, fault);
	if (r == 0)
		r = set_attached(pool, "VIF", running->vm, true, fault);
	if (r == 0)
		r = make_console(pool, running, fault);
	if (r == 0)
		r = store_metrics(pool, running->vm, memory, vcpus, fault);
	return r < 0 ? r : vm_update_allowed_operations(pool, running->vm, fault);
}

int guest_state_started(
	struct pool_db *pool, const struct guest_running *running, struct fault *fault)
{
	struct guest_running copy = *running;

	return pool_db_transaction(pool, started_scope, &copy, fault);
}

/* Another host of the pool has it. */
static int is_elsewhere(
	struct pool_db *pool, const char *vm, const char *host_ref, struct fault *fault)
{
	char *resident CLEANUP_FREE = NULL;
	int r = object_get_string(pool, "VM", vm, "resident_on", &resident, fault);

	return r < 0 ? r : !ref_is_null(resident) && strcmp(resident, host_ref) != 0;
}

struct pausing {
	const char *vm;
	const char *host_ref;
	bool is_paused;
};

static int pause_scope(struct pool_db *pool, void *arg, struct fault *fault)
{
	const struct pausing *pausing = arg;
	const char *wanted = pausing->is_paused ? "Paused" : "Running";
	struct value *state CLEANUP_VALUE = value_new_string(wanted);
	char *now CLEANUP_FREE = NULL;
	int r = is_elsewhere(pool, pausing->vm, pausing->host_ref, fault);

	if (r != 0)
		return MIN(r, 0);
	r = object_get_string(pool, "VM", pausing->vm, "power_state", &now, fault);
	/* A late word about one that has ended meanwhile wakes no dead; and while it moves, or a
	 * snapshot of it is taken, its pauses are that one's own. */
	if (r < 0 || strcmp(now, wanted) == 0 || strcmp(now, "Halted") == 0 ||
		vm_may_be_stopped(pool, pausing->vm))
		return r;
	r = object_set_field(pool, "VM", pausing->vm, "power_state", state, fault);
	return r < 0 ? r : vm_update_allowed_operations(pool, pausing->vm, fault);
}

int guest_state_set_paused(struct pool_db *pool, const char *vm, const char *host_ref,
	bool is_paused, struct fault *fault)
{
	struct pausing pausing = {vm, host_ref, is_paused};

	return pool_db_transaction(pool, pause_scope, &pausing, fault);
}

struct halting {
	const char *vm;
	const char *host_ref;
};

static int halted_scope(struct pool_db *pool, void *arg, struct fault *fault)
{
	const struct halting *halting = arg;
	const char *vm = halting->vm;
	struct value *fields CLEANUP_VALUE = value_new_struct();
	char *now CLEANUP_FREE = NULL;

	if (!object_exists(pool, "VM", vm))
		return 0;
	int r = is_elsewhere(pool, vm, halting->host_ref, fault);
	if (r != 0)
		return MIN(r, 0);
	r = object_get_string(pool, "VM", vm, "power_state", &now, fault);
	if (r == 0 && strcmp(now, "Halted") != 0) {
		value_set_string(fields, "power_state", "Halted");
		value_set_int(fields, "domid", -1);
		value_set_string(fields, "resident_on", REF_NULL);
		r = object_set_fields(pool, "VM", vm, fields, fault);
		if (r == 0)
			r = store_metrics(pool, vm, 0, 0, fault);
	}
	if (r == 0)
		r = schedule(pool, vm, REF_NULL, fault);
	if (r == 0)
		r = set_attached(pool, "VBD", vm, false, fault);
	if (r == 0)
		r = set_attached(pool, "VIF", vm, false, fault);
	if (r == 0)
		r = forget_consoles(pool, vm, fault);
	return r < 0 ? r : vm_update_allowed_operations(pool, vm, fault);
}

int guest_state_halted(
	struct pool_db *pool, const char *vm, const char *host_ref, struct fault *fault)
{
	struct halting halting = {vm, host_ref};

	return pool_db_transaction(pool, halted_scope, &halting, fault);
}
