/* SPDX-License-Identifier: Apache-2.0 */
/* Class PBD: how a host reaches a repository. SR.create makes the plugged PBD of this host. */
#include "agent/api/context.h"
#include "agent/api/record.h"
#include "base/alloc.h"
#include "base/uuid.h"

#include <errno.h>
#include <string.h>

/* --- Making --------------------------------------------------------------------------------------
 */

struct pbd_making {
	const struct value *fields;
	char *ref;
};

static int pbd_make(struct pool_db *pool, void *arg, struct fault *fault)
{
	struct pbd_making *making = arg;
	const char *sr = value_find_string(making->fields, "SR", REF_NULL);
	const char *host = value_find_string(making->fields, "host", REF_NULL);
	struct value *pbds CLEANUP_VALUE = NULL;
	bool is_shared = false;
	int r = object_get_bool(pool, "SR", sr, "shared", &is_shared, fault);

	if (r == 0)
		r = object_find(pool, "PBD", "SR", sr, &pbds, fault);
	for (size_t i = 0; r == 0 && i < pbds->array.n_items; i++) {
		const char *pbd = pbds->array.items[i]->string;
		char *other CLEANUP_FREE = NULL;
		r = object_get_string(pool, "PBD", pbd, "host", &other, fault);
		if (r == 0 && strcmp(other, host) == 0)
			r = fault_set(fault, -EEXIST, "PBD_EXISTS", sr, host, pbd, NULL);
	}
	if (r == 0 && !is_shared && pbds->array.n_items > 0)
		r = fault_set(fault, -EPERM, "SR_NOT_SHARABLE", sr, host, NULL);
	return r < 0 ? r : object_create(pool, "PBD", making->fields, &making->ref, fault);
}

/* Whether the location is what it should be shows when it is plugged. */
static int pbd_create(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct pool_db *pool = api_of(call)->pool;
	struct value *fields CLEANUP_VALUE = NULL;
	int r = record_take(pool, "PBD", args[0], &fields, fault);

	if (r == 0)
		r = record_require("PBD", fields, "host", fault);
	if (r == 0)
		r = record_require("PBD", fields, "SR", fault);
	if (r < 0)
		return r;
	const char *location =
		value_find_string(value_find(fields, "device_config"), "location", "");
	if (*location != '/')
		return fault_set(fault, -EINVAL, "INVALID_VALUE", "device_config:location",
			*location ? location : "missing; it must be an absolute path", NULL);
	struct pbd_making making = {.fields = fields};
	r = pool_db_transaction(pool, pbd_make, &making, fault);
	char *ref CLEANUP_FREE = making.ref;
	if (r == 0)
		*ret_result = value_new_string(ref);
	return r;
}

/* --- Unplugging ---------------------------------------------------------------------------------
 */

/* The disk's VM runs at this host, or something is being done with it. */
static int check_vbd_unused(struct pool_db *pool, const char *vdi, const char *vbd,
	const char *host, struct fault *fault)
{
	struct value *record CLEANUP_VALUE = NULL;
	struct value *operations CLEANUP_VALUE = NULL;
	char *resident CLEANUP_FREE = NULL;
	int r = object_get_record(pool, "VBD", vbd, &record, fault);

	if (r < 0)
		return r;
	const char *vm = value_find_string(record, "VM", REF_NULL);
	r = object_get_string(pool, "VM", vm, "resident_on", &resident, fault);
	if (r == 0)
		r = object_get_field(pool, "VM", vm, "current_operations", &operations, fault);
	if (r < 0)
		return r;
	if (operations->record.n_members > 0)
		return fault_set(fault, -EBUSY, "VDI_IN_USE", vdi,
			value_string(operations->record.members[0].value, ""), NULL);
	if (value_find_bool(record, "currently_attached", false) &&
		(ref_is_null(resident) || strcmp(resident, host) == 0))
		return fault_set(fault, -EBUSY, "VDI_IN_USE", vdi, "attach", NULL);
	return 0;
}

/* A disk of a VM that runs here, or on its way to another place, keeps its repository plugged. */
static int check_disks_unused(
	struct pool_db *pool, const char *sr, const char *host, struct fault *fault)
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
		for (size_t j = 0; r == 0 && j < vbds->array.n_items; j++)
			r = check_vbd_unused(pool, vdi, vbds->array.items[j]->string, host, fault);
	}
	return r;
}

struct pbd_detaching {
	const struct storage *storage;
	const char *pbd;
};

static int pbd_detach(struct pool_db *pool, void *arg, struct fault *fault)
{
	const struct pbd_detaching *detaching = arg;
	struct value *unplugged CLEANUP_VALUE = value_new_bool(false);
	struct value *record CLEANUP_VALUE = NULL;
	int r = object_get_record(pool, "PBD", detaching->pbd, &record, fault);

	if (r < 0 || !value_find_bool(record, "currently_attached", false))
		return r;
	const char *sr = value_find_string(record, "SR", REF_NULL);
	r = check_disks_unused(pool, sr, value_find_string(record, "host", REF_NULL), fault);
	/* What it has begun with a file it could not end later. */
	if (r == 0)
		r = sr_check_idle(detaching->storage, sr, fault);
	if (r < 0)
		return r;
	return object_set_field(
		pool, "PBD", detaching->pbd, "currently_attached", unplugged, fault);
}

static int pbd_unplug(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct pbd_detaching detaching = {api_of(call)->storage, arg_text(args, 0)};

	(void)ret_result;
	return pool_db_transaction(api_of(call)->pool, pbd_detach, &detaching, fault);
}

static int pbd_plug(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	(void)ret_result;
	return sr_plug(api_of(call)->storage, arg_text(args, 0), fault);
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

static const struct param create_params[] = {{"args", PARAM_STRUCT, "PBD record"}};

static const struct method rows[] = {
	{
		.name = "PBD.create",
		.role = USER_POOL_OPERATOR,
		.handle = pbd_create,
		.flags = METHOD_ASYNC,
		PARAMS(create_params),
		.result = "PBD ref",
		.doc = "Makes the unplugged PBD of one more host for a shared repository.",
	},
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
