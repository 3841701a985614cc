/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/migrate/source.h"

#include "agent/migrate/plan.h"
#include "base/alloc.h"
#include "base/uuid.h"

#include <errno.h>
#include <string.h>

#define VM_OPERATION  "migrate_send"
#define VDI_OPERATION "mirror"

struct marks {
	char *vm;
	char *key;
	struct value *disks;
	const struct storage *storage;
};

static void marks_load(struct migration *m, struct marks *marks)
{
	marks->vm = migration_get_string(m, "vm");
	marks->key = migration_get_string(m, "operation");
	marks->disks = migration_get(m, "disks");
	marks->storage = m->params->storage;
}

static void marks_clear(struct marks *marks)
{
	free(marks->vm);
	free(marks->key);
	value_free(marks->disks);
}

#define CLEANUP_MARKS CLEANUP(marks_clear)

static bool is_marked(struct pool_db *pool, const char *vm, const char *key)
{
	struct value *operations CLEANUP_VALUE = NULL;

	return object_get_field(pool, "VM", vm, "current_operations", &operations, NULL) == 0 &&
	       value_find(operations, key);
}

static int mark(struct pool_db *pool, void *arg, struct fault *fault)
{
	const struct marks *marks = arg;

	if (is_marked(pool, marks->vm, marks->key))
		return 0;
	int r = plan_check_operation(marks->storage, marks->vm, fault);
	if (r == 0)
		r = object_map_set(pool, "VM", marks->vm, "current_operations", marks->key,
			VM_OPERATION, fault);
	for (size_t i = 0; r == 0 && i < marks->disks->array.n_items; i++)
		r = object_map_set(pool, "VDI",
			value_find_string(marks->disks->array.items[i], "vdi", ""),
			"current_operations", marks->key, VDI_OPERATION, fault);
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
	int r = 0;

	if (object_exists(pool, "VM", marks->vm))
		r = object_map_remove(
			pool, "VM", marks->vm, "current_operations", marks->key, fault);
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

static int destroy_all(struct pool_db *pool, const char *class, const char *field, const char *ref,
	struct fault *fault)
{
	struct value *refs CLEANUP_VALUE = NULL;

	int r = object_find(pool, class, field, ref, &refs, fault);
	for (size_t i = 0; r == 0 && i < refs->array.n_items; i++)
		r = object_destroy(pool, class, refs->array.items[i]->string, fault);
	return r;
}

static int destroy_vm(struct pool_db *pool, void *arg, struct fault *fault)
{
	const struct marks *marks = arg;
	char *metrics CLEANUP_FREE = NULL;
	char *guest_metrics CLEANUP_FREE = NULL;

	int r = unmark(pool, arg, fault);
	if (r < 0 || !object_exists(pool, "VM", marks->vm))
		return r;
	r = object_get_string(pool, "VM", marks->vm, "metrics", &metrics, fault);
	if (r == 0)
		r = object_get_string(
			pool, "VM", marks->vm, "guest_metrics", &guest_metrics, fault);
	if (r == 0)
		r = destroy_all(pool, "VBD", "VM", marks->vm, fault);
	if (r == 0)
		r = destroy_all(pool, "VIF", "VM", marks->vm, fault);
	if (r == 0)
		r = destroy_all(pool, "console", "VM", marks->vm, fault);
	if (r == 0)
		r = object_destroy(pool, "VM", marks->vm, fault);
	if (r == 0 && !ref_is_null(metrics) && object_exists(pool, "VM_metrics", metrics))
		r = object_destroy(pool, "VM_metrics", metrics, fault);
	if (r == 0 && !ref_is_null(guest_metrics) &&
		object_exists(pool, "VM_guest_metrics", guest_metrics))
		r = object_destroy(pool, "VM_guest_metrics", guest_metrics, fault);
	return r;
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
