/* SPDX-License-Identifier: Apache-2.0 */
/* Class VM: making and removing VMs, and moving them to another pool. */
#include "agent/api/context.h"
#include "agent/api/placement.h"
#include "agent/api/record.h"
#include "agent/api/vm_limits.h"
#include "agent/vm/object.h"
#include "agent/vm/operations.h"
#include "base/alloc.h"
#include "base/uuid.h"

#include <errno.h>
#include <string.h>

/* --- Making ------------------------------------------------------------------------------------
 */

struct vm_making {
	struct value *fields;
	char *ref;
};

static int vm_make(struct pool_db *pool, void *arg, struct fault *fault)
{
	struct vm_making *making = arg;
	struct value *metrics CLEANUP_VALUE = value_new_struct();

	value_set_int(metrics, "VCPUs_number", value_find_int(making->fields, "VCPUs_max", 1));
	return vm_object_create(pool, making->fields, metrics, &making->ref, fault);
}

static int vm_create(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct pool_db *pool = api_of(call)->pool;
	struct value *fields CLEANUP_VALUE = NULL;
	struct vm_making making = {0};
	int r = record_take(pool, "VM", args[0], &fields, fault);

	if (r == 0)
		r = record_require("VM", fields, "name_label", fault);
	if (r < 0)
		return r;
	vm_limits_fill(fields);
	r = vm_limits_check(fields, fault);
	if (r < 0)
		return r;
	making.fields = fields;
	r = pool_db_transaction(pool, vm_make, &making, fault);
	char *ref CLEANUP_FREE = making.ref;
	if (r == 0)
		*ret_result = value_new_string(ref);
	return r;
}

/* --- Removing ----------------------------------------------------------------------------------
 */

static int vm_unmake(struct pool_db *pool, void *arg, struct fault *fault)
{
	const char *vm = arg;
	struct value *snapshots CLEANUP_VALUE = NULL;
	int r = vm_check_operation(pool, vm, "destroy", fault);

	if (r == 0)
		r = object_find(pool, "VM", "snapshot_of", vm, &snapshots, fault);
	if (r == 0)
		r = vm_object_destroy(pool, vm, fault);
	/* They outlive it, but nothing can be reverted to them. */
	for (size_t i = 0; r == 0 && i < snapshots->array.n_items; i++)
		r = vm_update_allowed_operations(
			pool, value_string(snapshots->array.items[i], ""), fault);
	return r;
}

static int vm_destroy(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	char *vm CLEANUP_FREE = xstrdup(arg_text(args, 0));

	(void)ret_result;
	return pool_db_transaction(api_of(call)->pool, vm_unmake, vm, fault);
}

/* --- Moving ------------------------------------------------------------------------------------
 */

static struct migrate_request migrate_request_of(struct value *const *args)
{
	/* args[2], live, means nothing: what is possible follows from the VM's power state. */
	return (struct migrate_request){
		.operation = "migrate_send",
		.vm = arg_text(args, 0),
		.dest = args[1],
		.vdi_map = args[3],
		.vif_map = args[4],
		.options = args[5],
	};
}

static int check_map(
	struct pool_db *pool, const char *from_class, const struct value *map, struct fault *fault)
{
	for (size_t i = 0; i < map->record.n_members; i++) {
		const char *ref = map->record.members[i].name;
		int r = object_check(pool, from_class, ref, fault);
		if (r < 0)
			return r;
	}
	return 0;
}

/* What this pool's database can tell is wrong; the rest is the supervisor's. */
static int check_request(
	struct api *api, const struct migrate_request *request, struct fault *fault)
{
	int r = object_check(api->pool, "VM", request->vm, fault);

	if (r == 0)
		r = check_map(api->pool, "VDI", request->vdi_map, fault);
	return r < 0 ? r : check_map(api->pool, "VIF", request->vif_map, fault);
}

static int vm_assert_can_migrate(struct call *call, struct value *const *args,
	struct value **ret_result, struct fault *fault)
{
	struct api *api = api_of(call);
	struct migrate_request request = migrate_request_of(args);
	int r = check_request(api, &request, fault);

	(void)ret_result;
	if (r < 0)
		return r;
	return supervisor_assert_can_migrate(api->supervisor, &request, call_cancel(call), fault);
}

static int vm_migrate_send(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct api *api = api_of(call);
	struct migrate_request request = migrate_request_of(args);
	char *vm_there CLEANUP_FREE = NULL;
	int r = check_request(api, &request, fault);

	if (r < 0)
		return r;
	r = supervisor_migrate_send(
		api->supervisor, &request, call_task(call), call_cancel(call), &vm_there, fault);
	if (r == 0)
		*ret_result = value_new_string(vm_there);
	return r;
}

static int vm_pool_migrate(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct api *api = api_of(call);
	int r = object_check(api->pool, "VM", arg_text(args, 0), fault);

	(void)ret_result;
	if (r == 0)
		r = object_check(api->pool, "host", arg_text(args, 1), fault);
	if (r == 0)
		r = supervisor_pool_migrate(api->supervisor, arg_text(args, 0), arg_text(args, 1),
			args[2], call_session(call), call_task(call), call_cancel(call), fault);
	return r;
}

/* --- Asking ------------------------------------------------------------------------------------
 */

static int vm_update_operations(struct call *call, struct value *const *args,
	struct value **ret_result, struct fault *fault)
{
	(void)ret_result;
	return vm_update_allowed_operations(api_of(call)->pool, arg_text(args, 0), fault);
}

static int vm_get_possible_hosts(struct call *call, struct value *const *args,
	struct value **ret_result, struct fault *fault)
{
	struct fault why CLEANUP_FAULT = FAULT_INIT;
	int r = placement_candidates(api_of(call)->pool, arg_text(args, 0), ret_result, &why);

	if (r < 0 && (fault_is(&why, "NO_HOSTS_AVAILABLE") || fault_is(&why, "VM_REQUIRES_SR"))) {
		*ret_result = value_new_array();
		return 0;
	}
	if (r < 0)
		fault_move(fault, &why);
	return r;
}

static int vm_assert_can_boot_here(struct call *call, struct value *const *args,
	struct value **ret_result, struct fault *fault)
{
	(void)ret_result;
	return placement_check(api_of(call)->pool, arg_text(args, 0), arg_text(args, 1), fault);
}

/* --- Rows --------------------------------------------------------------------------------------
 */

static const struct param create_params[] = {{"args", PARAM_STRUCT, "VM record"}};
static const struct param self_params[] = {{"self", PARAM_STRING, "VM ref"}};
static const struct param migrate_params[] = {
	{"vm", PARAM_STRING, "VM ref"},
	{"dest", PARAM_MAP, NULL},
	{"live", PARAM_BOOL, NULL},
	{"vdi_map", PARAM_MAP, "(VDI ref -> SR ref) map"},
	{"vif_map", PARAM_MAP, "(VIF ref -> network ref) map"},
	{"options", PARAM_MAP, NULL},
	{"vgpu_map", PARAM_MAP, "(VGPU ref -> GPU_group ref) map"},
	{"vdi_format_map", PARAM_MAP, "(VDI ref -> string) map"},
};

static const struct param pool_migrate_params[] = {
	{"vm", PARAM_STRING, "VM ref"},
	{"host", PARAM_STRING, "host ref"},
	{"options", PARAM_MAP, NULL},
};

static const struct param boot_params[] = {
	{"self", PARAM_STRING, "VM ref"},
	{"host", PARAM_STRING, "host ref"},
};

static const struct method rows[] = {
	{
		.name = "VM.create",
		.role = USER_VM_ADMIN,
		.handle = vm_create,
		.flags = METHOD_ASYNC,
		PARAMS(create_params),
		.result = "VM ref",
		.doc = "Makes a halted VM; name_label is needed, other fields have defaults.",
	},
	{
		.name = "VM.destroy",
		.role = USER_VM_ADMIN,
		.handle = vm_destroy,
		.flags = METHOD_ASYNC,
		PARAMS(self_params),
		.result = "void",
		.doc = "Removes a halted VM with its VBDs and VIFs; its disks stay.",
	},
	{
		.name = "VM.assert_can_migrate",
		.role = USER_READ_ONLY,
		.handle = vm_assert_can_migrate,
		.flags = METHOD_ASYNC | METHOD_TASK,
		.params = migrate_params,
		.n_params = 7,
		.n_mandatory = 6,
		.result = "void",
		.doc = "Fails as VM.migrate_send would at its start; moves nothing.",
	},
	{
		.name = "VM.migrate_send",
		.role = USER_VM_POWER_ADMIN,
		.handle = vm_migrate_send,
		.flags = METHOD_ASYNC | METHOD_TASK,
		PARAMS_OPTIONAL(migrate_params, 6),
		.result = "VM ref",
		.doc = "Moves the VM with its disks to where host.migrate_receive made the token.",
	},
	{
		.name = "VM.pool_migrate",
		.role = USER_VM_POWER_ADMIN,
		.handle = vm_pool_migrate,
		.flags = METHOD_ASYNC | METHOD_TASK,
		PARAMS(pool_migrate_params),
		.result = "void",
		.doc = "Moves a running VM to another host of the pool, with the disks that host "
		       "does not reach.",
	},
	{
		.name = "VM.update_allowed_operations",
		.role = USER_VM_OPERATOR,
		.handle = vm_update_operations,
		PARAMS(self_params),
		.result = "void",
		.doc = "Works allowed_operations out anew.",
	},
	{
		.name = "VM.get_possible_hosts",
		.role = USER_READ_ONLY,
		.handle = vm_get_possible_hosts,
		PARAMS(self_params),
		.result = "host ref set",
		.doc = "The hosts that are live, enabled, and reach its disks.",
	},
	{
		.name = "VM.assert_can_boot_here",
		.role = USER_READ_ONLY,
		.handle = vm_assert_can_boot_here,
		PARAMS(boot_params),
		.result = "void",
		.doc = "Fails with what would keep the VM from starting on that host: it is "
		       "disabled, not live, does not reach a disk, or has too little memory.",
	},
};

const struct method_table vm_methods = {rows, ARRAY_SIZE(rows)};
