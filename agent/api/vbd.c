/* SPDX-License-Identifier: Apache-2.0 */
/* Class VBD: a disk or drive in a VM. */
#include "agent/api/context.h"
#include "agent/api/device.h"
#include "agent/api/record.h"
#include "agent/vm/operations.h"
#include "base/alloc.h"
#include "base/uuid.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

static const struct device_rule vbd_rule = {"VBD", "userdevice", 255};

/* 0 is xvda, 25 is xvdz, 26 is xvdaa: as Linux counts disks. */
static char *device_name(uint64_t place)
{
	if (place < 26)
		return xasprintf("xvd%c", (char)('a' + place));
	return xasprintf("xvd%c%c", (char)('a' + place / 26 - 1), (char)('a' + place % 26));
}

/* A medium and "empty" exclude each other, and only drives can be empty. */
static int check_medium(struct pool_db *pool, const struct value *fields, struct fault *fault)
{
	const char *vdi = value_find_string(fields, "VDI", REF_NULL);
	const char *mode = value_find_string(fields, "mode", "RW");
	const char *type = value_find_string(fields, "type", "Disk");
	bool is_read_only = false;
	int r;

	if (ref_is_null(vdi)) {
		if (!value_find_bool(fields, "empty", false))
			return fault_set(fault, -ENOENT, "HANDLE_INVALID", "VDI", vdi, NULL);
		if (strcmp(type, "Disk") == 0)
			return fault_set(fault, -EINVAL, "INVALID_VALUE", "empty", "true", NULL);
		return 0;
	}
	if (value_find_bool(fields, "empty", false))
		return fault_set(fault, -EINVAL, "INVALID_VALUE", "empty", "true", NULL);
	r = object_get_bool(pool, "VDI", vdi, "read_only", &is_read_only, fault);
	if (r < 0)
		return r;
	if (is_read_only && strcmp(mode, "RW") == 0)
		return fault_set(fault, -EROFS, "VDI_READONLY", vdi, NULL);
	return 0;
}

/* A disk that a migration is moving belongs to it alone. */
static int check_vdi_idle(struct pool_db *pool, const char *vdi, struct fault *fault)
{
	struct value *operations CLEANUP_VALUE = NULL;
	int r;

	if (ref_is_null(vdi))
		return 0;
	r = object_get_field(pool, "VDI", vdi, "current_operations", &operations, fault);
	if (r < 0)
		return r;
	if (operations->record.n_members > 0)
		return fault_set(fault, -EBUSY, "VDI_IN_USE", vdi,
			value_string(operations->record.members[0].value, ""), NULL);
	return 0;
}

struct vbd_making {
	struct value *fields;
	char *ref;
};

static int vbd_make(struct pool_db *pool, void *arg, struct fault *fault)
{
	struct vbd_making *making = arg;
	struct value *fields = making->fields;
	const char *vm = value_find_string(fields, "VM", "");
	uint64_t place = 0;
	int r = vm_check_changeable(pool, vm, fault);

	if (r == 0)
		r = check_medium(pool, fields, fault);
	if (r == 0)
		r = check_vdi_idle(pool, value_find_string(fields, "VDI", REF_NULL), fault);
	if (r == 0)
		r = device_take(pool, &vbd_rule, vm, value_find_string(fields, "userdevice", NULL),
			&place, fault);
	if (r < 0)
		return r;
	char *device CLEANUP_FREE = device_name(place);
	value_set_string(fields, "device", device);
	value_set(fields, "userdevice", value_new_format("%" PRIu64, place));
	value_set_bool(fields, "currently_attached", false);
	return object_create(pool, "VBD", fields, &making->ref, fault);
}

static int vbd_create(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct pool_db *pool = api_of(call)->pool;
	struct value *fields CLEANUP_VALUE = NULL;
	struct vbd_making making = {0};
	int r = record_take(pool, "VBD", args[0], &fields, fault);

	if (r == 0)
		r = record_require("VBD", fields, "VM", fault);
	if (r < 0)
		return r;
	making.fields = fields;
	r = pool_db_transaction(pool, vbd_make, &making, fault);
	char *ref CLEANUP_FREE = making.ref;
	if (r == 0)
		*ret_result = value_new_string(ref);
	return r;
}

static int vbd_unmake(struct pool_db *pool, void *arg, struct fault *fault)
{
	const char *vbd = arg;
	char *vm CLEANUP_FREE = NULL;
	int r = object_get_string(pool, "VBD", vbd, "VM", &vm, fault);

	if (r == 0)
		r = vm_check_changeable(pool, vm, fault);
	return r < 0 ? r : object_destroy(pool, "VBD", vbd, fault);
}

static int vbd_destroy(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	char *vbd CLEANUP_FREE = xstrdup(arg_text(args, 0));

	(void)ret_result;
	return pool_db_transaction(api_of(call)->pool, vbd_unmake, vbd, fault);
}

struct vbd_place {
	const char *vbd;
	const char *wanted;
};

static int vbd_move(struct pool_db *pool, void *arg, struct fault *fault)
{
	const struct vbd_place *move = arg;
	struct value *fields CLEANUP_VALUE = value_new_struct();
	char *vm CLEANUP_FREE = NULL;
	char *now CLEANUP_FREE = NULL;
	uint64_t place = 0;
	int r = object_get_string(pool, "VBD", move->vbd, "VM", &vm, fault);

	if (r == 0)
		r = object_get_string(pool, "VBD", move->vbd, "userdevice", &now, fault);
	if (!now || strcmp(now, move->wanted) == 0)
		return r;
	r = vm_check_changeable(pool, vm, fault);
	if (r == 0)
		r = device_take(pool, &vbd_rule, vm, move->wanted, &place, fault);
	if (r < 0)
		return r;
	char *device CLEANUP_FREE = device_name(place);
	value_set_string(fields, "device", device);
	value_set(fields, "userdevice", value_new_format("%" PRIu64, place));
	return object_set_fields(pool, "VBD", move->vbd, fields, fault);
}

/* Written by hand: a place is used once, and the device name follows it. */
static int vbd_set_userdevice(struct call *call, struct value *const *args,
	struct value **ret_result, struct fault *fault)
{
	struct vbd_place move = {arg_text(args, 0), arg_text(args, 1)};

	(void)ret_result;
	return pool_db_transaction(api_of(call)->pool, vbd_move, &move, fault);
}

/* Kept here and not with class VM: it answers what VBD.create may be given. */
static int vm_get_allowed_vbd_devices(struct call *call, struct value *const *args,
	struct value **ret_result, struct fault *fault)
{
	return device_list_free(
		api_of(call)->pool, &vbd_rule, arg_text(args, 0), ret_result, fault);
}

static const struct param create_params[] = {{"args", PARAM_STRUCT, "VBD record"}};
static const struct param self_params[] = {{"self", PARAM_STRING, "VBD ref"}};
static const struct param userdevice_params[] = {
	{"self", PARAM_STRING, "VBD ref"},
	{"value", PARAM_STRING, NULL},
};

static const struct param vm_params[] = {{"vm", PARAM_STRING, "VM ref"}};

static const struct method rows[] = {
	{
		.name = "VBD.create",
		.role = USER_VM_ADMIN,
		.handle = vbd_create,
		.flags = METHOD_ASYNC,
		PARAMS(create_params),
		.result = "VBD ref",
		.doc = "Puts a disk, or an empty drive, into a VM; userdevice may be autodetect.",
	},
	{
		.name = "VBD.destroy",
		.role = USER_VM_ADMIN,
		.handle = vbd_destroy,
		.flags = METHOD_ASYNC,
		PARAMS(self_params),
		.result = "void",
		.doc = "Takes the disk out of the VM; the VDI stays.",
	},
	{
		.name = "VBD.set_userdevice",
		.role = USER_VM_ADMIN,
		.handle = vbd_set_userdevice,
		PARAMS(userdevice_params),
		.result = "void",
		.doc = "Moves it to another place of the VM; the device name follows.",
	},
	{
		.name = "VM.get_allowed_VBD_devices",
		.role = USER_READ_ONLY,
		.handle = vm_get_allowed_vbd_devices,
		PARAMS(vm_params),
		.result = "string set",
		.doc = "The values of VBD.userdevice that are free in this VM, in order.",
	},
};

const struct method_table vbd_methods = {rows, ARRAY_SIZE(rows)};
