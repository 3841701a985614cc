/* SPDX-License-Identifier: Apache-2.0 */
/* Class PBD: how a host reaches a repository. SR.create makes the plugged PBD of this host. */
#include "agent/api/context.h"
#include "base/alloc.h"
#include "base/log.h"

#include <errno.h>

static int set_attached(struct pool_db *pool, const char *pbd, bool attached, struct fault *fault)
{
	struct value *value CLEANUP_VALUE = value_new_bool(attached);

	return object_set_field(pool, "PBD", pbd, "currently_attached", value, fault);
}

/* A disk that is attached to a VM, or on its way to another pool, keeps its repository plugged. */
static int check_disks_unused(struct pool_db *pool, const char *sr, struct fault *fault)
{
	struct value *vdis CLEANUP_VALUE = NULL;
	int r = object_find(pool, "VDI", "SR", sr, &vdis, fault);

	for (size_t i = 0; r == 0 && i < vdis->array.n_items; i++) {
		const char *vdi = vdis->array.items[i]->string;
		struct value *operations CLEANUP_VALUE = NULL;
		struct value *vbds CLEANUP_VALUE = NULL;
		r = object_get_field(pool, "VDI", vdi, "current_operations", &operations, fault);
		if (r == 0 && operations->record.n_members > 0)
			return fault_set(fault, -EBUSY, "VDI_IN_USE", vdi,
				value_string(operations->record.members[0].value, ""), NULL);
		if (r == 0)
			r = object_find(pool, "VBD", "VDI", vdi, &vbds, fault);
		for (size_t j = 0; r == 0 && j < vbds->array.n_items; j++) {
			bool is_attached = false;
			r = object_get_bool(pool, "VBD", vbds->array.items[j]->string,
				"currently_attached", &is_attached, fault);
			if (r == 0 && is_attached)
				return fault_set(fault, -EBUSY, "VDI_IN_USE", vdi, "attach", NULL);
		}
	}
	return r;
}

static int pbd_detach(struct pool_db *pool, void *arg, struct fault *fault)
{
	const char *pbd = arg;
	char *sr CLEANUP_FREE = NULL;
	int r = object_get_string(pool, "PBD", pbd, "SR", &sr, fault);

	if (r == 0)
		r = check_disks_unused(pool, sr, fault);
	return r < 0 ? r : set_attached(pool, pbd, false, fault);
}

static int pbd_unplug(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	char *pbd CLEANUP_FREE = xstrdup(arg_text(args, 0));

	(void)ret_result;
	return pool_db_transaction(api_of(call)->pool, pbd_detach, pbd, fault);
}

/* Plugged first, then looked at: storage reads what is plugged only. */
static int pbd_plug(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct api *api = api_of(call);
	const char *pbd = arg_text(args, 0);
	char *sr CLEANUP_FREE = NULL;
	bool is_attached = false;
	int r = object_get_bool(api->pool, "PBD", pbd, "currently_attached", &is_attached, fault);

	(void)ret_result;
	if (r < 0 || is_attached)
		return r;
	r = object_get_string(api->pool, "PBD", pbd, "SR", &sr, fault);
	if (r == 0)
		r = set_attached(api->pool, pbd, true, fault);
	if (r < 0)
		return r;
	r = sr_refresh(api->storage, sr, fault);
	if (r < 0 && set_attached(api->pool, pbd, false, NULL) < 0)
		log_error("pbd-plug-not-undone", "pbd=%s", pbd);
	return r;
}

static int pbd_unmake(struct pool_db *pool, void *arg, struct fault *fault)
{
	const char *pbd = arg;
	bool is_attached = false;
	int r = object_get_bool(pool, "PBD", pbd, "currently_attached", &is_attached, fault);

	if (r == 0 && is_attached)
		return fault_set(fault, -EBUSY, "OPERATION_NOT_ALLOWED",
			"PBD.destroy: the PBD is plugged; unplug it first", NULL);
	return r < 0 ? r : object_destroy(pool, "PBD", pbd, fault);
}

static int pbd_destroy(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	char *pbd CLEANUP_FREE = xstrdup(arg_text(args, 0));

	(void)ret_result;
	return pool_db_transaction(api_of(call)->pool, pbd_unmake, pbd, fault);
}

static const struct param self_params[] = {{"self", PARAM_STRING, "PBD ref"}};

static const struct method rows[] = {
	{
		.name = "PBD.plug",
		.role = USER_POOL_OPERATOR,
		.handle = pbd_plug,
		.flags = METHOD_ASYNC | METHOD_TASK,
		PARAMS(self_params),
		.result = "void",
		.doc = "Connects the host to the repository.",
	},
	{
		.name = "PBD.unplug",
		.role = USER_POOL_OPERATOR,
		.handle = pbd_unplug,
		.flags = METHOD_ASYNC,
		PARAMS(self_params),
		.result = "void",
		.doc = "Disconnects the host; refused while one of the disks is in use.",
	},
	{
		.name = "PBD.destroy",
		.role = USER_POOL_OPERATOR,
		.handle = pbd_destroy,
		.flags = METHOD_ASYNC,
		PARAMS(self_params),
		.result = "void",
		.doc = "Removes an unplugged PBD.",
	},
};

const struct method_table pbd_methods = {rows, ARRAY_SIZE(rows)};
