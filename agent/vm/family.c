/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/vm/family.h"

#include "base/alloc.h"
#include "base/uuid.h"

#include <string.h>

int vm_list_snapshots(
	struct pool_db *pool, const char *vm, struct value **ret_snapshots, struct fault *fault)
{
	return object_find(pool, "VM", "snapshot_of", vm, ret_snapshots, fault);
}

bool vm_is_family(struct pool_db *pool, const char *vm, const char *other)
{
	char *of CLEANUP_FREE = NULL;

	if (strcmp(vm, other) == 0)
		return true;
	return object_get_string(pool, "VM", other, "snapshot_of", &of, NULL) == 0 &&
	       strcmp(of, vm) == 0;
}

static void add(struct value *vdis, const char *vdi)
{
	if (!ref_is_null(vdi) && !value_contains_string(vdis, vdi))
		value_append_string(vdis, vdi);
}

int vm_add_disks(struct pool_db *pool, const char *vm, struct value *vdis, struct fault *fault)
{
	struct value *vbds CLEANUP_VALUE = NULL;
	int r = object_find(pool, "VBD", "VM", vm, &vbds, fault);

	for (size_t i = 0; r == 0 && i < vbds->array.n_items; i++) {
		struct value *vbd CLEANUP_VALUE = NULL;
		r = object_get_record(pool, "VBD", vbds->array.items[i]->string, &vbd, fault);
		if (r == 0 && strcmp(value_find_string(vbd, "type", ""), "Disk") == 0)
			add(vdis, value_find_string(vbd, "VDI", REF_NULL));
	}
	return r;
}

int vm_add_snapshot_disks(
	struct pool_db *pool, const char *snapshot, struct value *vdis, struct fault *fault)
{
	char *memory CLEANUP_FREE = NULL;
	int r = vm_add_disks(pool, snapshot, vdis, fault);

	if (r == 0)
		r = object_get_string(pool, "VM", snapshot, "suspend_VDI", &memory, fault);
	if (r == 0)
		add(vdis, memory);
	return r;
}
