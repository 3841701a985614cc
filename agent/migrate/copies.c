/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/migrate/copies.h"

#include "agent/copy/file_copy.h"
#include "agent/migrate/copies_internal.h"
#include "agent/vm/operations.h"
#include "base/alloc.h"
#include "base/inject.h"
#include "base/log.h"
#include "base/uuid.h"

#include <errno.h>
#include <string.h>

const char *copies_replaced(const struct copies *copies, size_t i)
{
	return i < copies->replaced->array.n_items
		       ? value_string(copies->replaced->array.items[i], REF_NULL)
		       : REF_NULL;
}

/* --- What is copied -----------------------------------------------------------------------------
 */

/* The VM's disks; what is in a drive stays one for all. */
static int collect_vm(struct pool_db *pool, const struct copies *copies, struct value *ret_vdis,
	struct fault *fault)
{
	const struct value *ignored = copies->request->ignored;
	struct value *vbds CLEANUP_VALUE = NULL;
	int r = object_find(pool, "VBD", "VM", copies->vm, &vbds, fault);

	for (size_t i = 0; r == 0 && i < vbds->array.n_items; i++) {
		struct value *vbd CLEANUP_VALUE = NULL;
		r = object_get_record(
			pool, "VBD", value_string(vbds->array.items[i], ""), &vbd, fault);
		const char *vdi = r == 0 ? value_find_string(vbd, "VDI", REF_NULL) : REF_NULL;
		if (!ref_is_null(vdi) && strcmp(value_find_string(vbd, "type", ""), "Disk") == 0 &&
			!value_contains_string(ret_vdis, vdi) &&
			!(ignored && value_contains_string(ignored, vdi)))
			value_append_string(ret_vdis, vdi);
	}
	return r;
}

/* The disks that the snapshot's were taken of, as far as they are there. */
static int collect_replaced(struct pool_db *pool, struct copies *copies, struct fault *fault)
{
	int r = object_get_string(pool, "VM", copies->vm, "snapshot_of", &copies->reverted, fault);

	for (size_t i = 0; r == 0 && i < copies->vdis->array.n_items; i++) {
		char *of CLEANUP_FREE = NULL;
		r = object_get_string(
			pool, "VDI", copies_vdi(copies, i), "snapshot_of", &of, fault);
		if (r == 0)
			value_append_string(copies->replaced, ref_is_null(of) ? REF_NULL : of);
	}
	return r;
}

static int collect(
	struct pool_db *pool, struct copies *copies, const char *vdi, struct fault *fault)
{
	bool is_revert = strcmp(copies->operation, "revert") == 0;
	int r = 0;

	copies->vdis = value_new_array();
	copies->replaced = value_new_array();
	if (*copies->vm)
		r = collect_vm(pool, copies, copies->vdis, fault);
	else
		value_append_string(copies->vdis, vdi);
	if (r == 0)
		r = copies_find_guest(pool, copies, &copies->guest, fault);
	if (r == 0 && is_revert)
		r = vm_check_operation(pool, copies->vm, copies->operation, fault);
	return r < 0 || !is_revert ? r : collect_replaced(pool, copies, fault);
}

/* --- Marks --------------------------------------------------------------------------------------
 */

static int mark_vms(struct pool_db *pool, const struct copies *copies, struct fault *fault)
{
	int r = vm_check_operation(pool, copies->vm, copies->operation, fault);

	if (r == 0)
		r = vm_ensure_operation(pool, copies->vm, copies->key, copies->operation, fault);
	if (r < 0 || !*copies->reverted)
		return r;
	r = vm_check_changeable(pool, copies->reverted, fault);
	return r < 0 ? r
		     : vm_ensure_operation(
			       pool, copies->reverted, copies->key, VM_REVERTING, fault);
}

static int mark_vdi(struct pool_db *pool, const struct copies *copies, const char *vdi,
	const char *mark, struct fault *fault)
{
	int r = ref_is_null(vdi) ? 0 : vdi_check_idle_beside(pool, vdi, mark, copies->guest, fault);

	if (r < 0 || ref_is_null(vdi))
		return r;
	return object_map_set(pool, "VDI", vdi, "current_operations", copies->key, mark, fault);
}

/* It may have begun or ended since. */
static int mark_guest(struct pool_db *pool, const struct copies *copies, struct fault *fault)
{
	char *guest CLEANUP_FREE = NULL;
	int r = copies_find_guest(pool, copies, &guest, fault);

	if (r < 0 || (ref_is_null(guest) && ref_is_null(copies->guest)))
		return r;
	if (strcmp(guest, copies->guest) != 0)
		return fault_set(fault, -EBUSY, "OTHER_OPERATION_IN_PROGRESS", "VM",
			ref_is_null(guest) ? copies->guest : guest, "", "", NULL);
	/* That of a VM's own snapshot is there. */
	if (*copies->vm)
		return 0;
	r = vm_check_operation(pool, guest, copies->operation, fault);
	return r < 0 ? r : vm_ensure_operation(pool, guest, copies->key, copies->operation, fault);
}

/* All that is true when the marks are made stays so until they go. */
static int mark(struct pool_db *pool, void *arg, struct fault *fault)
{
	const struct copies *copies = arg;
	struct value *vdis CLEANUP_VALUE = value_new_array();
	int r = *copies->vm ? mark_vms(pool, copies, fault) : 0;

	if (r == 0)
		r = mark_guest(pool, copies, fault);
	if (r == 0 && *copies->vm)
		r = collect_vm(pool, copies, vdis, fault);
	if (r == 0 && *copies->vm && !value_equal(vdis, copies->vdis))
		return fault_set(fault, -EBUSY, "OTHER_OPERATION_IN_PROGRESS", "VM", copies->vm, "",
			"", NULL);
	for (size_t i = 0; r == 0 && i < copies->vdis->array.n_items; i++) {
		r = mark_vdi(pool, copies, copies_vdi(copies, i), COPIES_MARK, fault);
		if (r == 0)
			r = mark_vdi(
				pool, copies, copies_replaced(copies, i), COPIES_REPLACED, fault);
	}
	return r;
}

/* --- Files --------------------------------------------------------------------------------------
 */

/* Where the copy of that disk goes. */
static int choose_sr(const struct copies *copies, size_t i, char **ret_sr, struct fault *fault)
{
	struct pool_db *pool = copies->params->storage->pool;
	const char *replaced = copies_replaced(copies, i);

	if (copies->request->sr) {
		*ret_sr = xstrdup(copies->request->sr);
		return 0;
	}
	return object_get_string(pool, "VDI",
		ref_is_null(replaced) ? copies_vdi(copies, i) : replaced, "SR", ret_sr, fault);
}

static int plan_files(struct copies *copies, struct fault *fault)
{
	const struct storage *storage = copies->params->storage;
	size_t n = copies->vdis->array.n_items;
	int r = 0;

	copies->files = xcalloc(MAX(n, (size_t)1), sizeof(*copies->files));
	for (size_t i = 0; r == 0 && i < n; i++) {
		char *sr CLEANUP_FREE = NULL;
		r = choose_sr(copies, i, &sr, fault);
		if (r == 0)
			r = storage_copy_plan(storage, copies->uuid, copies_vdi(copies, i), sr,
				&copies->files[i], fault);
		if (r < 0)
			return r;
		copies->n_files++;
		copies->all_bytes += copies->files[i].data_bytes;
	}
	return r;
}

static void report(void *arg, uint64_t bytes)
{
	struct copies *copies = arg;
	uint64_t all = MAX(copies->all_bytes, UINT64_C(1));

	copies->copied_bytes += bytes;
	struct value *progress CLEANUP_VALUE =
		value_new_double((double)MIN(copies->copied_bytes, all) / (double)all * 0.99);
	object_set_field(
		copies->params->storage->pool, "task", copies->key, "progress", progress, NULL);
}

static int check_cancel(const struct copies *copies, struct fault *fault)
{
	if (!cancel_is_requested(copies->request->cancel) &&
		!cancel_is_requested(copies->request->stop))
		return 0;
	return fault_errno(
		fault, -ECANCELED, "copying %s", *copies->vm ? copies->vm : copies_vdi(copies, 0));
}

/* 1: it has the content already, as both share their blocks; 0: it is empty, and has the room. */
static int make_file(struct copies *copies, const struct storage_move *file, struct fault *fault)
{
	const struct storage *storage = copies->params->storage;
	int r = file->disk_bytes ? 0 : storage_copy_prepare(storage, file, 0, fault);

	if (r == 0 && !file->disk_bytes)
		r = file_copy_reflink(file->from.path, file->to.path, fault);
	if (r != 0)
		return r;
	return storage_copy_prepare(storage, file, file->data_bytes, fault);
}

static bool is_over(void *arg)
{
	return copies_guest_has_ended(arg);
}

/* One that a guest writes to stays open. */
static int copy_file(struct copies *copies, size_t i, bool is_full, struct fault *fault)
{
	const struct storage_move *file = &copies->files[i];
	bool stays = copies_guest_writes(copies, i);
	struct file_copy_params params = {
		.source = file->from.path,
		.target = file->to.path,
		.size_bytes = file->file_bytes,
		.rate = copies->rate,
		.cancel = copies->request->cancel,
		.stop = copies->request->stop,
		.is_over = is_over,
		.copied = report,
		.arg = copies,
	};
	struct file_copy *copy CLEANUP_FILE_COPY = NULL;
	int r = 0;

	if (stays)
		r = copies_guest_open(copies, i, &params, fault);
	else if (!is_full)
		r = file_copy_open(&params, &copy, fault);
	return r < 0 || is_full ? r : file_copy_bulk(stays ? copies->disks[i].copy : copy, fault);
}

/* All files are made before the first is filled, so that too little room is seen at once. */
static int copy_files(struct copies *copies, struct fault *fault)
{
	bool *is_full CLEANUP_FREE = xcalloc(MAX(copies->n_files, (size_t)1), sizeof(*is_full));
	int r = 0;

	for (size_t i = 0; r == 0 && i < copies->n_files; i++) {
		r = make_file(copies, &copies->files[i], fault);
		is_full[i] = r > 0;
		if (r > 0)
			report(copies, copies->files[i].data_bytes);
		r = MIN(r, 0);
		if (r == 0)
			r = check_cancel(copies, fault);
	}
	copies->rate = rate_limit_new(copies->params->bandwidth_bytes_per_sec);
	for (size_t i = 0; r == 0 && i < copies->n_files; i++)
		r = copy_file(copies, i, is_full[i], fault);
	if (r == 0)
		r = copies_guest_finish(copies, fault);
	return r < 0 ? r : check_cancel(copies, fault);
}

/* --- The copy -----------------------------------------------------------------------------------
 */

static int report_end(struct fault *fault)
{
	fault_clear(fault);
	return fault_text(fault, -ESRCH,
		"The guest ended while the snapshot was taken, of which nothing is left: take it "
		"again, of the halted VM");
}

static int run(struct copies *copies, struct fault *fault)
{
	struct fault left CLEANUP_FAULT = FAULT_INIT;
	int r = pool_db_transaction(copies->params->storage->pool, mark, copies, fault);

	if (r == 0)
		r = plan_files(copies, fault);
	if (r == 0)
		r = copies_guest_begin(copies, fault);
	if (r == 0)
		r = copy_files(copies, fault);
	copies_guest_close(copies);
	if (r < 0 && copies_guest_has_ended_by(copies, r))
		r = report_end(fault);
	if (r == 0)
		r = INJECT_FAULT(fault, "copy.commit.before");
	if (r == 0)
		r = copies_commit(copies, fault);
	if (r == 0)
		(void)INJECT("copy.commit.after");
	if (copies_settle(copies, &left) < 0) {
		char *text CLEANUP_FREE = fault_describe(&left);
		log_error("COPY-LEFTOVER",
			"copy=%s error=\"%s\": it is tried again at the next start", copies->uuid,
			text);
	}
	return r;
}

static int check_objects(
	struct pool_db *pool, const struct copies_request *request, struct fault *fault)
{
	int r = request->vm ? object_check(pool, "VM", request->vm, fault)
			    : object_check(pool, "VDI", request->vdi, fault);

	for (size_t i = 0; r == 0 && request->ignored && i < request->ignored->array.n_items; i++)
		r = object_check(
			pool, "VDI", value_string(request->ignored->array.items[i], ""), fault);
	return r < 0 || !request->sr ? r : object_check(pool, "SR", request->sr, fault);
}

int copies_run(const struct supervisor_params *params, const struct copies_request *request,
	char **ret_ref, struct fault *fault)
{
	struct pool_db *pool = params->storage->pool;
	struct copies copies CLEANUP_COPIES = {
		.params = params,
		.uuid = uuid_new(),
		.key = xstrdup(request->task),
		.operation = xstrdup(request->operation),
		.vm = xstrdup(request->vm ? request->vm : ""),
		.request = request,
	};
	int r = check_objects(pool, request, fault);

	if (r == 0)
		r = collect(pool, &copies, request->vdi, fault);
	if (!copies.reverted)
		copies.reverted = xstrdup("");
	if (!copies.guest)
		copies.guest = xstrdup(REF_NULL);
	if (r == 0)
		r = copies_store(&copies, fault);
	if (r == 0)
		r = run(&copies, fault);
	if (r < 0 && cancel_is_requested(request->cancel))
		return fault_set(fault, -ECANCELED, "TASK_CANCELLED", request->task, NULL);
	if (r == 0)
		*ret_ref = TAKE_PTR(copies.made);
	return r;
}
