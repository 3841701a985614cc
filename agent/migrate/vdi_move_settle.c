/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/migrate/vdi_move_internal.h"

#include "agent/vm/operations.h"
#include "base/alloc.h"
#include "base/log.h"

#include <errno.h>
#include <string.h>

/* --- The row ------------------------------------------------------------------------------------
 */

static struct value *place_to_value(const struct storage_place *place)
{
	struct value *value = value_new_struct();

	value_set_string(value, "sr", place->sr);
	value_set_string(value, "location", place->location);
	value_set_string(value, "path", place->path);
	return value;
}

static void place_from_value(const struct value *value, struct storage_place *place)
{
	place->sr = xstrdup(value_find_string(value, "sr", ""));
	place->location = xstrdup(value_find_string(value, "location", ""));
	place->path = xstrdup(value_find_string(value, "path", ""));
}

int vdi_move_store(struct vdi_move *move, struct fault *fault)
{
	struct value *detail CLEANUP_VALUE = value_new_struct();

	value_set_string(detail, "key", move->key);
	value_set_string(detail, "vm", move->vm);
	value_set(detail, "vms", value_copy(move->vms));
	value_set(detail, "from", place_to_value(&move->files.from));
	value_set(detail, "to", place_to_value(&move->files.to));
	value_set_string(detail, "node", move->node ? move->node : "");
	value_set_int(detail, "disk_bytes", (int64_t)move->disk_bytes);
	value_set_bool(detail, "stops", move->stops);
	int r = resource_record(move->params->storage->agent, move->uuid, VDI_MOVE_KIND, move->vdi,
		detail, NULL, fault);
	if (r == -EEXIST)
		return fault_set(fault, -EBUSY, "OTHER_OPERATION_IN_PROGRESS", "VDI", move->vdi,
			VDI_MOVE_VDI_MARK, "", NULL);
	return r;
}

static void load(const struct supervisor_params *params, const struct resource_row *row,
	struct vdi_move *move)
{
	const struct value *vms = value_find(row->detail, "vms");

	move->params = params;
	move->uuid = xstrdup(row->owner);
	move->vdi = xstrdup(row->name);
	move->key = xstrdup(value_find_string(row->detail, "key", ""));
	move->vm = xstrdup(value_find_string(row->detail, "vm", ""));
	move->vms = vms ? value_copy(vms) : value_new_array();
	place_from_value(value_find(row->detail, "from"), &move->files.from);
	place_from_value(value_find(row->detail, "to"), &move->files.to);
	move->files.owner = move->uuid;
	move->files.vdi = move->vdi;
	move->node = xstrdup(value_find_string(row->detail, "node", ""));
	move->disk_bytes = (uint64_t)value_find_int(row->detail, "disk_bytes", 0);
	move->stops = value_find_bool(row->detail, "stops", false);
}

void vdi_move_clear(struct vdi_move *move)
{
	file_copy_close(move->copy);
	rate_limit_free(move->rate);
	dirty_free(move->dirty);
	guest_node_clear(&move->guest_node);
	guests_release(move->resident);
	storage_move_clear(&move->files);
	value_free(move->vms);
	free(move->node);
	free(move->vm);
	free(move->key);
	free(move->vdi);
	free(move->uuid);
}

/* --- Settling -----------------------------------------------------------------------------------
 */

int vdi_move_is_committed(const struct vdi_move *move, bool *ret_is_committed, struct fault *fault)
{
	char *sr CLEANUP_FREE = NULL;
	int r = object_get_string(move->params->storage->pool, "VDI", move->vdi, "SR", &sr, fault);

	if (r == 0)
		*ret_is_committed = strcmp(sr, move->files.to.sr) == 0;
	return r;
}

static int settle_guest(struct vdi_move *move, const char *path, struct fault *fault)
{
	if (!*move->vm || !move->node || !*move->node)
		return 0;
	struct resident *resident = guests_hold(move->params->guests, move->vm);
	if (!resident)
		return 0;
	struct guest *guest = resident_guest(resident);
	int r = vdi_move_guest_settle(move, guest, path, fault);
	/* What has ended needs nothing; both files were good at every moment. */
	if (r < 0 && !guest_is_alive(guest)) {
		fault_clear(fault);
		r = 0;
	}
	guests_release(resident);
	return r;
}

static int unmark(struct pool_db *pool, void *arg, struct fault *fault)
{
	const struct vdi_move *move = arg;
	int r = 0;

	for (size_t i = 0; r == 0 && i < move->vms->array.n_items; i++)
		r = vm_forget_operation(
			pool, value_string(move->vms->array.items[i], ""), move->key, fault);
	if (r == 0 && object_exists(pool, "VDI", move->vdi))
		r = object_map_remove(
			pool, "VDI", move->vdi, "current_operations", move->key, fault);
	return r;
}

/* Only figures; they are looked at again before long. */
static void refresh(const struct vdi_move *move)
{
	sr_refresh(move->params->storage, move->files.from.sr, NULL);
	sr_refresh(move->params->storage, move->files.to.sr, NULL);
}

int vdi_move_settle(struct vdi_move *move, struct fault *fault)
{
	const struct storage *storage = move->params->storage;
	bool is_committed = false;
	int r = vdi_move_is_committed(move, &is_committed, fault);

	if (r == 0)
		r = settle_guest(
			move, is_committed ? move->files.to.path : move->files.from.path, fault);
	if (r == 0)
		r = storage_recover(storage, move->uuid, fault);
	if (r == 0)
		r = pool_db_transaction(storage->pool, unmark, move, fault);
	if (r == 0)
		r = resource_forget_name(storage->agent, VDI_MOVE_KIND, move->vdi, fault);
	if (r < 0)
		return r;
	refresh(move);
	log_info("VDI-MOVE-ENDED", "vdi=%s sr=%s moved=%d", move->vdi,
		is_committed ? move->files.to.sr : move->files.from.sr, is_committed);
	return 0;
}

/* --- After a restart ----------------------------------------------------------------------------
 */

int vdi_move_settle_row(
	const struct supervisor_params *params, const struct resource_row *row, struct fault *fault)
{
	struct vdi_move move CLEANUP_VDI_MOVE = {0};

	load(params, row, &move);
	return vdi_move_settle(&move, fault);
}

int vdi_move_recover(const struct supervisor_params *params, struct fault *fault)
{
	struct resource_row *rows = NULL;
	size_t n = 0;
	int r = resource_list(params->storage->agent, NULL, VDI_MOVE_KIND, &rows, &n, fault);

	for (size_t i = 0; i < n; i++) {
		struct fault left CLEANUP_FAULT = FAULT_INIT;
		if (vdi_move_settle_row(params, &rows[i], &left) < 0) {
			char *text CLEANUP_FREE = fault_describe(&left);
			log_error("VDI-MOVE-LEFTOVER",
				"vdi=%s error=\"%s\": it is tried again at the next start",
				rows[i].name, text);
		}
		resource_row_clear(&rows[i]);
	}
	free(rows);
	return r;
}
