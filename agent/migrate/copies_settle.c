/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/migrate/copies_internal.h"

#include "agent/vm/operations.h"
#include "base/alloc.h"
#include "base/log.h"
#include "base/uuid.h"

#include <string.h>

/* --- The row ------------------------------------------------------------------------------------
 */

int copies_store(const struct copies *copies, struct fault *fault)
{
	struct value *detail CLEANUP_VALUE = value_new_struct();

	value_set_string(detail, "key", copies->key);
	value_set_string(detail, "operation", copies->operation);
	value_set_string(detail, "vm", copies->vm);
	value_set_string(detail, "reverted", copies->reverted);
	value_set_string(detail, "guest", copies->guest);
	value_set_bool(detail, "stops", copies->stops);
	value_set(detail, "vdis", value_copy(copies->vdis));
	value_set(detail, "replaced", value_copy(copies->replaced));
	return resource_record(copies->params->storage->agent, copies->uuid, COPIES_KIND,
		copies->uuid, detail, NULL, fault);
}

static struct value *array_of(const struct value *detail, const char *name)
{
	const struct value *array = value_find(detail, name);

	return array ? value_copy(array) : value_new_array();
}

static void load(const struct supervisor_params *params, const struct resource_row *row,
	struct copies *copies)
{
	copies->params = params;
	copies->uuid = xstrdup(row->owner);
	copies->key = xstrdup(value_find_string(row->detail, "key", ""));
	copies->operation = xstrdup(value_find_string(row->detail, "operation", ""));
	copies->vm = xstrdup(value_find_string(row->detail, "vm", ""));
	copies->reverted = xstrdup(value_find_string(row->detail, "reverted", ""));
	copies->guest = xstrdup(value_find_string(row->detail, "guest", REF_NULL));
	copies->stops = value_find_bool(row->detail, "stops", false);
	copies->vdis = array_of(row->detail, "vdis");
	copies->replaced = array_of(row->detail, "replaced");
}

void copies_clear(struct copies *copies)
{
	copies_guest_clear(copies);
	for (size_t i = 0; i < copies->n_files; i++)
		storage_move_clear(&copies->files[i]);
	free(copies->files);
	rate_limit_free(copies->rate);
	value_free(copies->vdis);
	value_free(copies->replaced);
	free(copies->uuid);
	free(copies->key);
	free(copies->operation);
	free(copies->vm);
	free(copies->reverted);
	free(copies->guest);
	free(copies->made);
}

/* --- Settling -----------------------------------------------------------------------------------
 */

static int unmark_vdi(
	struct pool_db *pool, const struct copies *copies, const char *vdi, struct fault *fault)
{
	if (ref_is_null(vdi) || !object_exists(pool, "VDI", vdi))
		return 0;
	return object_map_remove(pool, "VDI", vdi, "current_operations", copies->key, fault);
}

static int unmark(struct pool_db *pool, void *arg, struct fault *fault)
{
	const struct copies *copies = arg;
	int r = *copies->vm ? vm_forget_operation(pool, copies->vm, copies->key, fault) : 0;

	if (r == 0 && *copies->reverted)
		r = vm_forget_operation(pool, copies->reverted, copies->key, fault);
	if (r == 0 && !ref_is_null(copies->guest))
		r = vm_forget_operation(pool, copies->guest, copies->key, fault);
	for (size_t i = 0; r == 0 && i < copies->vdis->array.n_items; i++) {
		r = unmark_vdi(pool, copies, copies_vdi(copies, i), fault);
		if (r == 0)
			r = unmark_vdi(pool, copies, copies_replaced(copies, i), fault);
	}
	return r;
}

int copies_settle(struct copies *copies, struct fault *fault)
{
	const struct storage *storage = copies->params->storage;
	int r = copies_guest_settle(copies, fault);

	if (r == 0)
		r = storage_recover(storage, copies->uuid, fault);
	if (r == 0)
		r = pool_db_transaction(storage->pool, unmark, copies, fault);
	if (r == 0)
		r = resource_forget_name(storage->agent, COPIES_KIND, copies->uuid, fault);
	if (r < 0)
		return r;
	/* Only figures; they are looked at again before long. */
	for (size_t i = 0; i < copies->n_files; i++)
		sr_refresh(storage, copies->files[i].to.sr, NULL);
	log_info("COPY-ENDED", "copy=%s operation=%s disks=%zu made=%s", copies->uuid,
		copies->operation, copies->vdis->array.n_items, copies->made ? copies->made : "");
	return 0;
}

/* --- After a restart ----------------------------------------------------------------------------
 */

int copies_settle_row(
	const struct supervisor_params *params, const struct resource_row *row, struct fault *fault)
{
	struct copies copies CLEANUP_COPIES = {0};

	load(params, row, &copies);
	return copies_settle(&copies, fault);
}

int copies_recover(const struct supervisor_params *params, struct fault *fault)
{
	struct resource_row *rows = NULL;
	size_t n = 0;
	int r = resource_list(params->storage->agent, NULL, COPIES_KIND, &rows, &n, fault);

	for (size_t i = 0; i < n; i++) {
		struct fault left CLEANUP_FAULT = FAULT_INIT;
		if (copies_settle_row(params, &rows[i], &left) < 0) {
			char *text CLEANUP_FREE = fault_describe(&left);
			log_error("COPY-LEFTOVER",
				"copy=%s error=\"%s\": it is tried again at the next start",
				rows[i].name, text);
		}
		resource_row_clear(&rows[i]);
	}
	free(rows);
	return r;
}
