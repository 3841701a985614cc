/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/migrate/source.h"

#include "agent/migrate/attention.h"
#include "agent/migrate/live.h"
#include "agent/migrate/metadata.h"
#include "agent/vm/object.h"
#include "agent/vm/operations.h"
#include "base/alloc.h"
#include "base/json.h"
#include "base/uuid.h"

#include <errno.h>
#include <string.h>

#define VDI_OPERATION "mirror"

struct marks {
	char *vm;
	char *key;
	char *operation;
	struct value *disks;
	struct value *manifest;
	struct value *vif_map;
	bool live;
};

static void marks_load(struct migration *m, struct marks *marks)
{
	marks->vm = migration_get_string(m, "vm");
	marks->key = migration_get_string(m, "operation");
	marks->operation = migration_get_string(m, "vm_operation");
	/* Begun by an agent that knew no other. */
	if (!marks->operation)
		marks->operation = xstrdup("migrate_send");
	marks->disks = migration_get(m, "disks");
	marks->manifest = migration_get(m, "manifest");
	marks->vif_map = migration_get(m, "vif_map");
	marks->live = live_is_wanted(m);
}

static void marks_clear(struct marks *marks)
{
	free(marks->vm);
	free(marks->key);
	free(marks->operation);
	value_free(marks->disks);
	value_free(marks->manifest);
	value_free(marks->vif_map);
}

#define CLEANUP_MARKS CLEANUP(marks_clear)

/* As text, because one of them may have been stored. */
static bool is_same(const struct value *a, const struct value *b)
{
	struct buf left CLEANUP_BUF = BUF_INIT;
	struct buf right CLEANUP_BUF = BUF_INIT;

	json_encode(a, &left);
	json_encode(b, &right);
	return strcmp(left.data, right.data) == 0;
}

/* The plan was made before the VM was locked, and the destination was asked in between. */
static int check_unchanged(struct pool_db *pool, const struct marks *marks, struct fault *fault)
{
	static const char *const parts[] = {"vm", "vbds", "vifs", "snapshots", "parent"};
	struct value *now CLEANUP_VALUE = NULL;

	int r = metadata_export_again(
		pool, marks->vm, marks->manifest, marks->disks, marks->vif_map, &now, fault);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(parts); i++)
		if (!is_same(value_find(now, parts[i]), value_find(marks->manifest, parts[i])))
			r = fault_text(fault, -EBUSY,
				"the VM, its devices or its snapshots (%s) were changed after the "
				"migration was asked for: migrate it again",
				parts[i]);
	return r;
}

/* It may have been started or have ended since the plan was made. */
static int check_power(struct pool_db *pool, const struct marks *marks, struct fault *fault)
{
	const char *wanted = marks->live ? "Running" : "Halted";
	char *state CLEANUP_FREE = NULL;

	int r = object_get_string(pool, "VM", marks->vm, "power_state", &state, fault);
	if (r < 0 || strcmp(state, wanted) == 0)
		return r;
	return fault_set(fault, -EBUSY, "VM_BAD_POWER_STATE", marks->vm,
		marks->live ? "running" : "halted", state, NULL);
}

/* Disks in shared repositories stay where they are, and are left alone meanwhile. */
static int mark_shared(struct pool_db *pool, const struct marks *marks, struct fault *fault)
{
	const struct value *shared = value_find(marks->manifest, "shared");
	int r = 0;

	for (size_t i = 0; shared && r == 0 && i < shared->array.n_items; i++) {
		const char *vdi = value_string(shared->array.items[i], REF_NULL);
		struct value *operations CLEANUP_VALUE = NULL;
		r = object_get_field(pool, "VDI", vdi, "current_operations", &operations, fault);
		if (r == 0 && operations->record.n_members > 0)
			r = fault_set(fault, -EBUSY, "OTHER_OPERATION_IN_PROGRESS", "VDI", vdi,
				value_string(operations->record.members[0].value, ""),
				operations->record.members[0].name, NULL);
		if (r == 0)
			r = object_map_set(pool, "VDI", vdi, "current_operations", marks->key,
				VDI_OPERATION, fault);
	}
	return r;
}

/* They are neither gone back to nor destroyed nor copied meanwhile. */
static int mark_snapshots(struct pool_db *pool, const struct marks *marks, struct fault *fault)
{
	struct value *snapshots CLEANUP_VALUE = metadata_snapshots(marks->manifest);
	int r = 0;

	for (size_t i = 0; r == 0 && i < snapshots->array.n_items; i++) {
		const char *ref = snapshots->array.items[i]->string;
		r = vm_check_idle(pool, ref, fault);
		if (r == 0)
			r = vm_ensure_operation(pool, ref, marks->key, marks->operation, fault);
	}
	return r;
}

static int unmark_vdi(
	struct pool_db *pool, const char *vdi, const struct marks *marks, struct fault *fault)
{
	if (!object_exists(pool, "VDI", vdi))
		return 0;
	return object_map_remove(pool, "VDI", vdi, "current_operations", marks->key, fault);
}

static int mark(struct pool_db *pool, void *arg, struct fault *fault)
{
	const struct marks *marks = arg;

	if (vm_has_operation(pool, marks->vm, marks->key))
		return 0;
	int r = vm_check_operation(pool, marks->vm, marks->operation, fault);
	if (r == 0)
		r = check_power(pool, marks, fault);
	if (r == 0)
		r = check_unchanged(pool, marks, fault);
	if (r == 0)
		r = vm_ensure_operation(pool, marks->vm, marks->key, marks->operation, fault);
	if (r == 0)
		r = mark_snapshots(pool, marks, fault);
	for (size_t i = 0; r == 0 && i < marks->disks->array.n_items; i++) {
		const struct value *disk = marks->disks->array.items[i];
		const char *vdi = value_find_string(disk, "vdi", "");
		/* Another VM may have it too, and run. A guest's own writes are tracked. */
		if (!marks->live || value_find(disk, "snapshot"))
			r = vm_check_disk_still(pool, vdi, marks->operation, fault);
		if (r == 0)
			r = object_map_set(pool, "VDI", vdi, "current_operations", marks->key,
				VDI_OPERATION, fault);
	}
	return r < 0 ? r : mark_shared(pool, marks, fault);
}

int source_lock(struct migration *m, struct fault *fault)
{
	struct marks marks CLEANUP_MARKS = {0};

	marks_load(m, &marks);
	return pool_db_transaction(m->params->storage->pool, mark, &marks, fault);
}

static int unmark(struct pool_db *pool, void *arg, struct fault *fault)
{
	const struct marks *marks = arg;
	struct value *snapshots CLEANUP_VALUE = metadata_snapshots(marks->manifest);
	int r = vm_forget_operation(pool, marks->vm, marks->key, fault);

	for (size_t i = 0; r == 0 && i < snapshots->array.n_items; i++)
		r = vm_forget_operation(pool, snapshots->array.items[i]->string, marks->key, fault);
	const struct value *shared = value_find(marks->manifest, "shared");
	for (size_t i = 0; r == 0 && i < marks->disks->array.n_items; i++)
		r = unmark_vdi(pool, value_find_string(marks->disks->array.items[i], "vdi", ""),
			marks, fault);
	for (size_t i = 0; shared && r == 0 && i < shared->array.n_items; i++)
		r = unmark_vdi(pool, value_string(shared->array.items[i], ""), marks, fault);
	return r;
}

bool source_is_same_pool(struct migration *m)
{
	SCOPE_LOCK(&m->lock);
	return value_find_bool(m->document, "same_pool", false);
}

int source_record(struct migration *m, struct fault *fault)
{
	struct value *disks CLEANUP_VALUE = migration_get(m, "disks");
	int r = 0;

	for (size_t i = 0; source_is_same_pool(m) && r == 0 && i < disks->array.n_items; i++)
		r = storage_record_image(m->params->storage, m->uuid,
			value_find_string(disks->array.items[i], "vdi", ""), fault);
	return r;
}

int source_unlock(struct migration *m, struct fault *fault)
{
	struct marks marks CLEANUP_MARKS = {0};

	marks_load(m, &marks);
	int r = pool_db_transaction(m->params->storage->pool, unmark, &marks, fault);
	return r < 0 || !source_is_same_pool(m)
		       ? r
		       : storage_recover(m->params->storage, m->uuid, fault);
}

static int destroy_one(struct pool_db *pool, const char *vm, struct fault *fault)
{
	return object_exists(pool, "VM", vm) ? vm_object_destroy(pool, vm, fault) : 0;
}

/* With its snapshots, which are at the destination too. */
static int destroy_vm(struct pool_db *pool, void *arg, struct fault *fault)
{
	const struct marks *marks = arg;
	struct value *snapshots CLEANUP_VALUE = metadata_snapshots(marks->manifest);

	int r = unmark(pool, arg, fault);
	for (size_t i = 0; r == 0 && i < snapshots->array.n_items; i++)
		r = destroy_one(pool, snapshots->array.items[i]->string, fault);
	return r < 0 ? r : destroy_one(pool, marks->vm, fault);
}

int source_forget(struct migration *m, struct fault *fault)
{
	struct marks marks CLEANUP_MARKS = {0};

	/* The VM is another host's, and its disks have other files: those here go. */
	if (source_is_same_pool(m))
		return source_unlock(m, fault);
	marks_load(m, &marks);
	int r = pool_db_transaction(m->params->storage->pool, destroy_vm, &marks, fault);
	/* Nobody but an operator says that the data is at the destination. */
	if (attention_is_assumed(m))
		return r;
	for (size_t i = 0; r == 0 && i < marks.disks->array.n_items; i++) {
		const char *vdi = value_find_string(marks.disks->array.items[i], "vdi", "");
		struct fault why CLEANUP_FAULT = FAULT_INIT;
		r = object_check(m->params->storage->pool, "VDI", vdi, &why);
		if (r == 0)
			r = vdi_destroy_for(m->params->storage, m->uuid, vdi, fault);
		else if (fault_is(&why, "HANDLE_INVALID"))
			r = 0; /* it went before a crash */
		else if (fault)
			fault_move(fault, &why);
	}
	/* Files that could not be removed when their VDIs went. */
	return r < 0 ? r : storage_recover(m->params->storage, m->uuid, fault);
}
