/* SPDX-License-Identifier: Apache-2.0 */
/* Classes VM and VDI: copies and snapshots of VMs and of their disks. */
#include "agent/migrate/copies.h"
#include "agent/api/context.h"
#include "base/alloc.h"
#include "base/uuid.h"

/* The row's data is the operation's name. */
static int copy(struct call *call, struct copies_request *request, struct value **ret_result,
	struct fault *fault)
{
	char *ref CLEANUP_FREE = NULL;

	request->operation = call_method(call)->data;
	request->task = call_task(call);
	request->cancel = call_cancel(call);
	int r = supervisor_copy(api_of(call)->supervisor, request, &ref, fault);
	if (r == 0)
		*ret_result = value_new_string(ref);
	return r;
}

static int vm_clone(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct copies_request request = {.vm = arg_text(args, 0), .name = arg_text(args, 1)};

	return copy(call, &request, ret_result, fault);
}

static int vm_snapshot(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct copies_request request = {
		.vm = arg_text(args, 0),
		.name = arg_text(args, 1),
		.ignored = args[2],
	};

	return copy(call, &request, ret_result, fault);
}

static int vm_copy(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	const char *sr = arg_text(args, 2);
	struct copies_request request = {
		.vm = arg_text(args, 0),
		.name = arg_text(args, 1),
		.sr = ref_is_null(sr) ? NULL : sr,
	};

	return copy(call, &request, ret_result, fault);
}

static int vm_revert(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct copies_request request = {.vm = arg_text(args, 0)};
	struct value *vm CLEANUP_VALUE = NULL;

	(void)ret_result;
	return copy(call, &request, &vm, fault);
}

static int vdi_clone(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct copies_request request = {.vdi = arg_text(args, 0)};

	return copy(call, &request, ret_result, fault);
}

static int vdi_copy(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct copies_request request = {.vdi = arg_text(args, 0), .sr = arg_text(args, 1)};

	return copy(call, &request, ret_result, fault);
}

static const struct param vm_params[] = {
	{"vm", PARAM_STRING, "VM ref"},
	{"new_name", PARAM_STRING, NULL},
	{"sr", PARAM_STRING, "SR ref"},
};
static const struct param snapshot_params[] = {
	{"vm", PARAM_STRING, "VM ref"},
	{"new_name", PARAM_STRING, NULL},
	{"ignore_vdis", PARAM_SET, "VDI ref set"},
};
static const struct param revert_params[] = {{"snapshot", PARAM_STRING, "VM ref"}};
static const struct param vdi_params[] = {
	{"vdi", PARAM_STRING, "VDI ref"},
	{"driver_params", PARAM_MAP, NULL},
};
static const struct param copy_params[] = {
	{"vdi", PARAM_STRING, "VDI ref"},
	{"sr", PARAM_STRING, "SR ref"},
};

static const struct method rows[] = {
	{
		.name = "VM.clone",
		.role = USER_VM_ADMIN,
		.handle = vm_clone,
		.flags = METHOD_ASYNC | METHOD_TASK,
		.params = vm_params,
		.n_params = 2,
		.n_mandatory = 2,
		.result = "VM ref",
		.doc = "Makes another VM of a halted one, with copies of its disks in the same "
		       "SRs and new MACs.",
		.data = "clone",
	},
	{
		.name = "VM.copy",
		.role = USER_VM_ADMIN,
		.handle = vm_copy,
		.flags = METHOD_ASYNC | METHOD_TASK,
		PARAMS(vm_params),
		.result = "VM ref",
		.doc = "The same, with all disks in that SR; null: each in its own.",
		.data = "copy",
	},
	{
		.name = "VM.snapshot",
		.role = USER_VM_POWER_ADMIN,
		.handle = vm_snapshot,
		.flags = METHOD_ASYNC | METHOD_TASK,
		PARAMS_OPTIONAL(snapshot_params, 2),
		.result = "VM ref",
		.doc = "Keeps a VM as it is now, with copies of its disks but for those of "
		       "`ignore_vdis`. A guest runs on; its memory is not kept.",
		.data = "snapshot",
	},
	{
		.name = "VM.revert",
		.role = USER_VM_POWER_ADMIN,
		.handle = vm_revert,
		.flags = METHOD_ASYNC | METHOD_TASK,
		PARAMS(revert_params),
		.result = "void",
		.doc = "Makes the halted VM what it was at the snapshot, which stays.",
		.data = "revert",
	},
	{
		.name = "VDI.clone",
		.role = USER_VM_ADMIN,
		.handle = vdi_clone,
		.flags = METHOD_ASYNC | METHOD_TASK,
		PARAMS_OPTIONAL(vdi_params, 1),
		.result = "VDI ref",
		.doc = "Copies a disk that no guest has, into the same SR.",
		.data = "clone",
	},
	{
		.name = "VDI.copy",
		.role = USER_VM_ADMIN,
		.handle = vdi_copy,
		.flags = METHOD_ASYNC | METHOD_TASK,
		PARAMS(copy_params),
		.result = "VDI ref",
		.doc = "The same, into that SR of the same host.",
		.data = "copy",
	},
	{
		.name = "VDI.snapshot",
		.role = USER_VM_ADMIN,
		.handle = vdi_clone,
		.flags = METHOD_ASYNC | METHOD_TASK,
		PARAMS_OPTIONAL(vdi_params, 1),
		.result = "VDI ref",
		.doc = "Keeps a disk as it is now: a read-only copy in the same SR. A guest that "
		       "has it runs on.",
		.data = "snapshot",
	},
};

const struct method_table copies_methods = {rows, ARRAY_SIZE(rows)};
