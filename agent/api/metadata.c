/* SPDX-License-Identifier: Apache-2.0 */
/* GET /export_metadata and PUT /import_metadata: VMs without the content of their disks. */
#include "agent/api/transfer.h"

#include "agent/api/device.h"
#include "agent/api/ova_file.h"
#include "agent/api/vm_limits.h"
#include "agent/migrate/ova.h"
#include "base/alloc.h"

#include <errno.h>
#include <string.h>

/* A document takes a multiple of its text: one at a time is in memory. */
static pthread_mutex_t document_lock = PTHREAD_MUTEX_INITIALIZER;

/* The database is the coordinator's: a member sends clients there. */
static int check_place(struct transfer *transfer, struct fault *fault)
{
	const struct api *api = transfer->api;

	return api->coordinator_address ? transfer_redirect(transfer, api->coordinator_ref, fault)
					: 0;
}

/* --- Export -------------------------------------------------------------------------------------
 */

/* All but what every pool has of its own. Snapshots come with their VMs. */
static int list_all(struct transfer *transfer, struct value *ret_vms, struct fault *fault)
{
	struct value *records CLEANUP_VALUE = NULL;
	int r = object_get_all_records(transfer->api->pool, "VM", &records, fault);

	for (size_t i = 0; r == 0 && i < records->record.n_members; i++) {
		const struct value *vm = records->record.members[i].value;
		if (!value_find_bool(vm, "is_control_domain", false) &&
			!value_find_bool(vm, "is_default_template", false) &&
			!value_find_bool(vm, "is_a_snapshot", false))
			value_append_string(ret_vms, records->record.members[i].name);
	}
	return r;
}

static int choose_vms(struct transfer *transfer, struct value *ret_vms, struct fault *fault)
{
	const char *param = transfer_param(transfer, "ref") ? "ref" : "uuid";
	char *vm CLEANUP_FREE = NULL;
	bool all = false;
	int r = transfer_flag(transfer, "all", &all, fault);

	if (r < 0)
		return r;
	if (all && transfer_param(transfer, param))
		return transfer_bad_param("all", "not beside ref or uuid", fault);
	if (all)
		return list_all(transfer, ret_vms, fault);
	if (!transfer_param(transfer, param))
		return transfer_bad_param(
			"ref", "missing; name a VM by ref or uuid, or say all=true", fault);
	r = transfer_object(transfer, param, "VM", &vm, fault);
	if (r == 0)
		value_append_string(ret_vms, vm);
	return r;
}

static int send_file(struct transfer *transfer, const struct buf *file, struct fault *fault)
{
	int r = 0;

	value_set_string(
		transfer->headers, "Content-Disposition", "attachment; filename=\"ova.tar\"");
	transfer->n_total = file->length;
	transfer_answer(transfer, 200, "application/octet-stream", file->length);
	for (size_t at = 0, n; r == 0 && at < file->length; at += n) {
		n = MIN(file->length - at, HTTP_STREAM_BUFFER_BYTES);
		r = transfer_write(transfer, file->data + at, n, fault);
	}
	return r < 0 ? r : transfer_flush(transfer, fault);
}

static int make_file(struct transfer *transfer, const struct value *vms, bool snapshots,
	struct buf *file, struct fault *fault)
{
	struct value *document CLEANUP_VALUE = NULL;

	SCOPE_LOCK(&document_lock);
	int r = ova_export(transfer->api->pool, vms, snapshots, &document, fault);
	return r < 0 ? r : ova_file_write(document, file, fault);
}

static int run_export(struct transfer *transfer, struct fault *fault)
{
	struct value *vms CLEANUP_VALUE = value_new_array();
	struct buf file CLEANUP_BUF = BUF_INIT;
	bool snapshots = true;
	int r = check_place(transfer, fault);

	if (r == 0)
		r = transfer_flag(transfer, "export_snapshots", &snapshots, fault);
	if (r == 0)
		r = choose_vms(transfer, vms, fault);
	if (r == 0)
		r = transfer_begin(transfer, HTTP_STREAM_LENGTH_UNKNOWN, fault);
	if (r == 0)
		r = make_file(transfer, vms, snapshots, &file, fault);
	return r != 0 ? r : send_file(transfer, &file, fault);
}

/* --- Import -------------------------------------------------------------------------------------
 */

static int check_vm(struct value *fields, struct fault *fault)
{
	return vm_limits_check(fields, fault);
}

/* All of the body; what is too long is not kept. */
static int receive(struct transfer *transfer, struct buf *file, struct fault *fault)
{
	char *piece CLEANUP_FREE = xcalloc(1, HTTP_STREAM_BUFFER_BYTES);
	ssize_t n;

	while ((n = transfer_read(transfer, piece, HTTP_STREAM_BUFFER_BYTES, fault)) > 0) {
		if (file->length + (size_t)n > OVA_MAX_BYTES)
			return fault_set(fault, -EFBIG, "IMPORT_ERROR",
				"the file is larger than 4 MiB", NULL);
		buf_append(file, piece, (size_t)n);
	}
	return (int)n;
}

/* What of XenAPI's only migrations use is refused, not passed over. */
static int read_params(struct transfer *transfer, struct ova_import *how, struct fault *fault)
{
	bool live = false;
	int r = transfer_flag(transfer, "restore", &how->restore, fault);

	if (r == 0)
		r = transfer_flag(transfer, "dry_run", &how->dry_run, fault);
	if (r == 0)
		r = transfer_flag(transfer, "force", &how->force, fault);
	if (r == 0)
		r = transfer_flag(transfer, "live", &live, fault);
	if (r == 0 && live)
		r = transfer_bad_param(
			"live", "guests move by VM.migrate_send (allowed: false)", fault);
	return r;
}

static int import_file(struct transfer *transfer, const struct buf *file,
	const struct ova_import *how, struct fault *fault)
{
	struct value *document CLEANUP_VALUE = NULL;

	SCOPE_LOCK(&document_lock);
	int r = ova_file_read(file, &document, fault);
	return r < 0 ? r : ova_import(transfer->api->pool, document, how, &transfer->result, fault);
}

static int run_import(struct transfer *transfer, struct fault *fault)
{
	struct ova_import how = {.check_vm = check_vm, .check_vif = vif_take_mac};
	struct buf file CLEANUP_BUF = BUF_INIT;
	int r = check_place(transfer, fault);

	if (r == 0)
		r = read_params(transfer, &how, fault);
	if (r == 0)
		r = transfer_begin(transfer, http_stream_length(transfer->stream), fault);
	if (r == 0)
		r = receive(transfer, &file, fault);
	return r != 0 ? r : import_file(transfer, &file, &how, fault);
}

const struct transfer_handler export_metadata = {
	.name = "http/get_export_metadata",
	.label = "Exporting metadata",
	.role = USER_VM_ADMIN,
	.run = run_export,
	.doc = "`ref` or `uuid` of a VM, or `all=true`; `export_snapshots`: true. A tar with an "
	       "`ova.xml`.",
};

const struct transfer_handler import_metadata = {
	.name = "http/put_import_metadata",
	.label = "Importing metadata",
	.role = USER_VM_ADMIN,
	.run = run_import,
	.doc = "`restore`, `dry_run`, `force`: false. The same file; the VMs' refs are the task's "
	       "result and the answer.",
};
