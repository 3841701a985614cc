/* SPDX-License-Identifier: Apache-2.0 */
/* What runs on a VDI, as its fields show it. */
#include "agent/storage/private.h"

#include "base/alloc.h"

#include <errno.h>
#include <string.h>

#define READING "copy"

struct mark {
	const char *vdi;
	const char *key;
	const char *op;
};

/* Of what runs already. A mark of its own is none. */
static int check_others(
	const struct mark *mark, const struct value *operations, struct fault *fault)
{
	for (size_t i = 0; i < operations->record.n_members; i++) {
		const struct value_member *other = &operations->record.members[i];
		const char *op = value_string(other->value, "");
		bool both_read = strcmp(op, READING) == 0 && strcmp(mark->op, READING) == 0;
		if (strcmp(other->name, mark->key) != 0 && !both_read)
			return fault_set(fault, -EBUSY, "OTHER_OPERATION_IN_PROGRESS", "VDI",
				mark->vdi, op, other->name, NULL);
	}
	return 0;
}

/* While something runs, no more than what may run beside it. */
static int update_allowed(struct pool_db *pool, const char *vdi, struct fault *fault)
{
	struct value *operations CLEANUP_VALUE = NULL;
	struct value *allowed CLEANUP_VALUE = NULL;
	int r = object_get_field(pool, "VDI", vdi, "current_operations", &operations, fault);

	if (r < 0)
		return r;
	allowed = operations->record.n_members ? value_new_array() : storage_vdi_operations();
	for (size_t i = 0; i < operations->record.n_members; i++)
		if (strcmp(value_string(operations->record.members[i].value, ""), READING) == 0 &&
			!allowed->array.n_items)
			value_append_string(allowed, READING);
	return object_set_field(pool, "VDI", vdi, "allowed_operations", allowed, fault);
}

static int ensure(struct pool_db *pool, void *arg, struct fault *fault)
{
	const struct mark *mark = arg;
	struct value *operations CLEANUP_VALUE = NULL;
	int r = object_get_field(pool, "VDI", mark->vdi, "current_operations", &operations, fault);

	if (r == 0)
		r = check_others(mark, operations, fault);
	if (r == 0)
		r = vdi_check_idle(pool, mark->vdi, mark->op, fault);
	if (r == 0)
		r = object_map_set(
			pool, "VDI", mark->vdi, "current_operations", mark->key, mark->op, fault);
	return r < 0 ? r : update_allowed(pool, mark->vdi, fault);
}

static int forget(struct pool_db *pool, void *arg, struct fault *fault)
{
	const struct mark *mark = arg;

	if (!object_exists(pool, "VDI", mark->vdi))
		return 0;
	int r = object_map_remove(pool, "VDI", mark->vdi, "current_operations", mark->key, fault);
	return r < 0 ? r : update_allowed(pool, mark->vdi, fault);
}

int vdi_ensure_operation(
	struct pool_db *pool, const char *vdi, const char *key, const char *op, struct fault *fault)
{
	struct mark mark = {.vdi = vdi, .key = key, .op = op};

	return pool_db_transaction(pool, ensure, &mark, fault);
}

int vdi_forget_operation(
	struct pool_db *pool, const char *vdi, const char *key, struct fault *fault)
{
	struct mark mark = {.vdi = vdi, .key = key};

	return pool_db_transaction(pool, forget, &mark, fault);
}
