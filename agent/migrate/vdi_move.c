/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/migrate/vdi_move.h"

#include "agent/migrate/vdi_move_internal.h"
#include "agent/vm/operations.h"
#include "base/alloc.h"
#include "base/io.h"
#include "base/log.h"
#include "base/uuid.h"
#include "target/image.h"

#include <errno.h>
#include <string.h>

/* --- Who has it ---------------------------------------------------------------------------------
 */

/* One guest may run on it, and write: as what else writes to it would not be tracked. */
static int take_attached(
	const struct vdi_move *move, const struct value *vbd, char **vm, struct fault *fault)
{
	if (*vm || strcmp(value_find_string(vbd, "type", ""), "Disk") != 0 ||
		strcmp(value_find_string(vbd, "mode", ""), "RW") != 0)
		return fault_set(fault, -EBUSY, "VDI_IN_USE", move->vdi, VDI_MOVE_VDI_MARK, NULL);
	*vm = xstrdup(value_find_string(vbd, "VM", ""));
	return 0;
}

/* The VMs that have the disk, and the one whose guest runs on it ("": none). */
static int list_vms(const struct vdi_move *move, struct pool_db *pool, struct value **ret_vms,
	char **ret_vm, struct fault *fault)
{
	struct value *vms CLEANUP_VALUE = value_new_array();
	struct value *vbds CLEANUP_VALUE = NULL;
	char *vm CLEANUP_FREE = NULL;
	int r = object_find(pool, "VBD", "VDI", move->vdi, &vbds, fault);

	for (size_t i = 0; r == 0 && i < vbds->array.n_items; i++) {
		struct value *vbd CLEANUP_VALUE = NULL;
		r = object_get_record(
			pool, "VBD", value_string(vbds->array.items[i], ""), &vbd, fault);
		if (r == 0 && value_find_bool(vbd, "currently_attached", false))
			r = take_attached(move, vbd, &vm, fault);
		if (r == 0 && !value_contains_string(vms, value_find_string(vbd, "VM", "")))
			value_append_string(vms, value_find_string(vbd, "VM", ""));
	}
	if (r < 0)
		return r;
	*ret_vms = TAKE_PTR(vms);
	*ret_vm = vm ? TAKE_PTR(vm) : xstrdup("");
	return 0;
}

static int check_vdi(struct pool_db *pool, const struct vdi_move *move, struct fault *fault)
{
	struct value *record CLEANUP_VALUE = NULL;
	int r = object_get_record(pool, "VDI", move->vdi, &record, fault);

	if (r < 0)
		return r;
	const struct value *running = value_find(record, "current_operations");
	if (running->record.n_members > 0)
		return fault_set(fault, -EBUSY, "OTHER_OPERATION_IN_PROGRESS", "VDI", move->vdi,
			value_string(running->record.members[0].value, ""),
			running->record.members[0].name, NULL);
	return 0;
}

/* A snapshot is not moved by itself, but its disks can be elsewhere. */
static int check_vm(struct pool_db *pool, const char *vm, struct fault *fault)
{
	bool is_snapshot = false;
	int r = object_get_bool(pool, "VM", vm, "is_a_snapshot", &is_snapshot, fault);

	if (r < 0)
		return r;
	return is_snapshot ? vm_check_idle(pool, vm, fault)
			   : vm_check_operation(pool, vm, VDI_MOVE_VM_OPERATION, fault);
}

/* --- Beginning ----------------------------------------------------------------------------------
 */

static int plan(struct vdi_move *move, const char *sr, struct fault *fault)
{
	const struct storage *storage = move->params->storage;
	int r = check_vdi(storage->pool, move, fault);

	if (r == 0)
		r = storage_move_plan(storage, move->uuid, move->vdi, sr, &move->files, fault);
	if (r == 0 && strcmp(move->files.from.sr, sr) == 0)
		return fault_set(fault, -EINVAL, "OPERATION_NOT_ALLOWED",
			"The VDI is in that SR already", NULL);
	if (r == 0)
		r = list_vms(move, storage->pool, &move->vms, &move->vm, fault);
	if (r == 0 && *move->vm && image_format_of(move->files.from.location) != IMAGE_RAW)
		return fault_set(fault, -EPERM, "OPERATION_NOT_ALLOWED",
			"The disk of a running guest can move to another SR only if its image is "
			"raw: halt the VM first",
			NULL);
	/* Of a raw image, the only one that a guest may run on meanwhile. */
	move->disk_bytes = move->files.file_bytes;
	return r;
}

/* All that is true when the marks are made stays so until they go. */
static int mark(struct pool_db *pool, void *arg, struct fault *fault)
{
	const struct vdi_move *move = arg;
	struct value *vms CLEANUP_VALUE = NULL;
	char *vm CLEANUP_FREE = NULL;
	int r = check_vdi(pool, move, fault);

	if (r == 0)
		r = list_vms(move, pool, &vms, &vm, fault);
	if (r == 0 && (!value_equal(vms, move->vms) || strcmp(vm, move->vm) != 0))
		return fault_set(fault, -EBUSY, "VDI_IN_USE", move->vdi, VDI_MOVE_VDI_MARK, NULL);
	for (size_t i = 0; r == 0 && i < vms->array.n_items; i++) {
		const char *ref = value_string(vms->array.items[i], "");
		r = check_vm(pool, ref, fault);
		if (r == 0)
			r = vm_ensure_operation(pool, ref, move->key, VDI_MOVE_VM_OPERATION, fault);
	}
	return r < 0 ? r
		     : object_map_set(pool, "VDI", move->vdi, "current_operations", move->key,
			       VDI_MOVE_VDI_MARK, fault);
}

/* --- The move -----------------------------------------------------------------------------------
 */

static void report(void *arg, uint64_t bytes)
{
	struct vdi_move *move = arg;
	uint64_t all = MAX(move->files.data_bytes, UINT64_C(1));

	move->copied_bytes += bytes;
	struct value *progress CLEANUP_VALUE =
		value_new_double((double)MIN(move->copied_bytes, all) / (double)all * 0.99);
	object_set_field(
		move->params->storage->pool, "task", move->key, "progress", progress, NULL);
}

static int open_copy(struct vdi_move *move, struct fault *fault)
{
	const struct file_copy_params params = {
		.source = move->files.from.path,
		.direct = move->guest_node.direct,
		.target = move->files.to.path,
		.size_bytes = move->files.file_bytes,
		.rate = move->rate = rate_limit_new(move->params->bandwidth_bytes_per_sec),
		.cancel = move->cancel,
		.stop = move->stop,
		.copied = report,
		.arg = move,
	};

	return file_copy_open(&params, &move->copy, fault);
}

static int copy(struct vdi_move *move, struct fault *fault)
{
	bool is_live = *move->vm != '\0';
	int r = storage_move_prepare(move->params->storage, &move->files, fault);

	if (r == 0 && is_live)
		r = vdi_move_guest_begin(move, fault);
	if (r == 0)
		r = open_copy(move, fault);
	if (r == 0)
		r = file_copy_bulk(move->copy, fault);
	if (r == 0 && is_live)
		r = vdi_move_guest_follow(move, fault);
	if (r < 0)
		return r;
	r = io_sync_parent(move->files.to.path);
	if (r < 0)
		return fault_errno(fault, r, "syncing the folder of %s", move->files.to.path);
	if (cancel_is_requested(move->cancel) || cancel_is_requested(move->stop))
		return fault_errno(fault, -ECANCELED, "moving the VDI %s", move->vdi);
	return is_live ? vdi_move_guest_stop(move, fault) : 0;
}

/* The guest, if any, is stopped, and both files are the same: with the commit the new one counts.
 * As long as the guest was not put on it, the old one can count again. */
static int commit(struct vdi_move *move, struct fault *fault)
{
	const struct storage *storage = move->params->storage;
	int r = storage_move_commit(storage, &move->files, false, fault);

	if (r == 0 && move->stops) {
		r = vdi_move_guest_switch(move, fault);
		if (r < 0)
			storage_move_commit(storage, &move->files, true, NULL);
	}
	return r;
}

static int run(struct vdi_move *move, struct fault *fault)
{
	struct fault left CLEANUP_FAULT = FAULT_INIT;
	int r = pool_db_transaction(move->params->storage->pool, mark, move, fault);

	if (r == 0)
		r = copy(move, fault);
	if (r == 0)
		r = commit(move, fault);
	if (vdi_move_settle(move, &left) < 0) {
		char *text CLEANUP_FREE = fault_describe(&left);
		log_error("VDI-MOVE-LEFTOVER",
			"vdi=%s error=\"%s\": it is tried again at the next start", move->vdi,
			text);
	}
	return r;
}

int vdi_move_run(const struct supervisor_params *params, const struct vdi_move_request *request,
	struct fault *fault)
{
	struct vdi_move move CLEANUP_VDI_MOVE = {
		.params = params,
		.uuid = uuid_new(),
		.vdi = xstrdup(request->vdi),
		.key = xstrdup(request->task),
		.cancel = request->cancel,
		.stop = request->stop,
	};
	int r = plan(&move, request->sr, fault);

	if (r == 0)
		r = vdi_move_store(&move, fault);
	if (r == 0)
		r = run(&move, fault);
	if (r < 0 && cancel_is_requested(request->cancel))
		return fault_set(fault, -ECANCELED, "TASK_CANCELLED", request->task, NULL);
	return r;
}
