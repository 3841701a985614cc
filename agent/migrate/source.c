/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/migrate/source.h"

#include "agent/vm/object.h"
#include "agent/vm/operations.h"
#include "base/alloc.h"

#define VM_OPERATION  "migrate_send"
#define VDI_OPERATION "mirror"

struct marks {
	char *vm;
	char *key;
	struct value *disks;
};

static void marks_load(struct migration *m, struct marks *marks)
{
	marks->vm = migration_get_string(m, "vm");
	marks->key = migration_get_string(m, "operation");
	marks->disks = migration_get(m, "disks");
}

static void marks_clear(struct marks *marks)
{
	free(marks->vm);
	free(marks->key);
	value_free(marks->disks);
}

#define CLEANUP_MARKS CLEANUP(marks_clear)

static int mark(struct pool_db *pool, void *arg, struct fault *fault)
{
	const struct marks *marks = arg;

	if (vm_has_operation(pool, marks->vm, marks->key))
		return 0;
	int r = vm_check_operation(pool, marks->vm, VM_OPERATION, fault);
	if (r == 0)
		r = vm_ensure_operation(pool, marks->vm, marks->key, VM_OPERATION, fault);
	for (size_t i = 0; r == 0 && i < marks->disks->array.n_items; i++) {
		const char *vdi = value_find_string(marks->disks->array.items[i], "vdi", "");
		/* Another VM may have it too, and run. */
		r = vm_check_disk_still(pool, vdi, VM_OPERATION, fault);
		if (r == 0)
			r = object_map_set(pool, "VDI", vdi, "current_operations", marks->key,
				VDI_OPERATION, fault);
	}
	return r;
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
	int r = vm_forget_operation(pool, marks->vm, marks->key, fault);

	for (size_t i = 0; r == 0 && i < marks->disks->array.n_items; i++) {
		const char *vdi = value_find_string(marks->disks->array.items[i], "vdi", "");
		if (object_exists(pool, "VDI", vdi))
			r = object_map_remove(
				pool, "VDI", vdi, "current_operations", marks->key, fault);
	}
	return r;
}

int source_unlock(struct migration *m, struct fault *fault)
{
	struct marks marks CLEANUP_MARKS = {0};

	marks_load(m, &marks);
	return pool_db_transaction(m->params->storage->pool, unmark, &marks, fault);
}

static int destroy_vm(struct pool_db *pool, void *arg, struct fault *fault)
{
	const struct marks *marks = arg;

	int r = unmark(pool, arg, fault);
	if (r < 0 || !object_exists(pool, "VM", marks->vm))
		return r;
	return vm_object_destroy(pool, marks->vm, fault);
}

int source_forget(struct migration *m, struct fault *fault)
{
	struct marks marks CLEANUP_MARKS = {0};

	marks_load(m, &marks);
	int r = pool_db_transaction(m->params->storage->pool, destroy_vm, &marks, fault);
	for (size_t i = 0; r == 0 && i < marks.disks->array.n_items; i++) {
		const char *vdi = value_find_string(marks.disks->array.items[i], "vdi", "");
		if (object_exists(m->params->storage->pool, "VDI", vdi))
			r = vdi_destroy(m->params->storage, vdi, fault);
	}
	return r;
}
