/* SPDX-License-Identifier: Apache-2.0 */
/* The receiver's side: what is checked, and what the commit changes. */
#include "agent/migrate/rehome.h"

#include "agent/storage/move.h"
#include "agent/vm/family.h"
#include "agent/vm/operations.h"
#include "base/alloc.h"
#include "base/uuid.h"

#include <errno.h>
#include <string.h>

bool rehome_is_wanted(const struct value *manifest)
{
	return value_find_bool(manifest, "same_pool", false);
}

static const char *vm_of(const struct value *manifest)
{
	return value_find_string(manifest, "vm_ref", REF_NULL);
}

/* --- Checks -------------------------------------------------------------------------------------
 */

static int check_vm(
	const struct storage *storage, const struct value *manifest, struct fault *fault)
{
	const char *source = value_find_string(manifest, "source_host", REF_NULL);
	const char *said = value_find_string(value_find(manifest, "vm"), "uuid", "");
	char *uuid CLEANUP_FREE = NULL;
	char *resident CLEANUP_FREE = NULL;
	int r = object_get_string(storage->pool, "VM", vm_of(manifest), "uuid", &uuid, fault);

	if (r == 0)
		r = object_get_string(
			storage->pool, "VM", vm_of(manifest), "resident_on", &resident, fault);
	if (r < 0)
		return r;
	if (strcmp(uuid, said) != 0 || strcmp(source, storage->host_ref) == 0 ||
		(!ref_is_null(resident) && strcmp(resident, source) != 0))
		return fault_text(fault, -EINVAL,
			"manifest: VM %s is not the one at host %s of which the sender speaks",
			uuid, source);
	return 0;
}

/* Of the VM itself, or of one of its snapshots. */
static int check_disk_of(struct pool_db *pool, const char *vm, const char *vdi, struct fault *fault)
{
	struct value *vbds CLEANUP_VALUE = NULL;
	struct value *memory_of CLEANUP_VALUE = NULL;
	int r = object_check(pool, "VDI", vdi, fault);

	if (r == 0)
		r = object_find(pool, "VBD", "VDI", vdi, &vbds, fault);
	if (r == 0)
		r = object_find(pool, "VM", "suspend_VDI", vdi, &memory_of, fault);
	for (size_t i = 0; r == 0 && i < vbds->array.n_items; i++) {
		char *owner CLEANUP_FREE = NULL;
		r = object_get_string(
			pool, "VBD", vbds->array.items[i]->string, "VM", &owner, fault);
		if (r == 0 && vm_is_family(pool, vm, owner))
			return 0;
	}
	for (size_t i = 0; r == 0 && i < memory_of->array.n_items; i++)
		if (vm_is_family(pool, vm, memory_of->array.items[i]->string))
			return 0;
	return r < 0 ? r : fault_text(fault, -EINVAL, "manifest: disk %s is none of the VM's", vdi);
}

static int check_copied(
	struct pool_db *pool, const char *vm, const struct value *disk, struct fault *fault)
{
	const char *vdi = value_find_string(disk, "vdi", REF_NULL);
	char *sr CLEANUP_FREE = NULL;
	int r = check_disk_of(pool, vm, vdi, fault);

	if (r == 0)
		r = object_get_string(pool, "VDI", vdi, "SR", &sr, fault);
	if (r < 0)
		return r;
	if (strcmp(sr, value_find_string(disk, "from_sr", "")) != 0 ||
		strcmp(sr, value_find_string(disk, "sr", "")) == 0)
		return fault_text(fault, -EINVAL,
			"manifest: disk %s is in the SR %s, and is to be copied from %s to %s", vdi,
			sr, value_find_string(disk, "from_sr", ""),
			value_find_string(disk, "sr", ""));
	return 0;
}

/* The file is to be there, and not only the repository. */
static int check_shared(
	const struct storage *storage, const char *vm, const char *vdi, struct fault *fault)
{
	char *path CLEANUP_FREE = NULL;
	int r = check_disk_of(storage->pool, vm, vdi, fault);

	return r < 0 ? r : vdi_path(storage, vdi, &path, fault);
}

int rehome_check(const struct storage *storage, const struct value *manifest, struct fault *fault)
{
	const struct value *disks = value_find(manifest, "disks");
	const struct value *shared = value_find(manifest, "shared");
	int r = check_vm(storage, manifest, fault);

	if (r == 0 && (!shared || shared->type != VALUE_ARRAY))
		r = fault_text(fault, -EINVAL, "manifest: shared must be an array");
	for (size_t i = 0; r == 0 && i < disks->array.n_items; i++)
		r = check_copied(storage->pool, vm_of(manifest), disks->array.items[i], fault);
	for (size_t i = 0; r == 0 && i < shared->array.n_items; i++)
		r = check_shared(storage, vm_of(manifest),
			value_string(shared->array.items[i], REF_NULL), fault);
	return r;
}

/* --- The commit ---------------------------------------------------------------------------------
 */

/* The image that it has now is raw, whatever it was. */
static int set_raw(struct pool_db *pool, const char *vdi, struct fault *fault)
{
	struct value *sm_config CLEANUP_VALUE = NULL;
	int r = object_get_field(pool, "VDI", vdi, "sm_config", &sm_config, fault);

	if (r < 0 || !value_find(sm_config, STORAGE_FORMAT_KEY))
		return r;
	value_unset(sm_config, STORAGE_FORMAT_KEY);
	return object_set_field(pool, "VDI", vdi, "sm_config", sm_config, fault);
}

static int move_disk(const struct storage *storage, const struct value *disk, struct fault *fault)
{
	const char *vdi = value_find_string(disk, "vdi", REF_NULL);
	struct storage_move move CLEANUP_STORAGE_MOVE = {
		.vdi = vdi,
		.from = {.sr = xstrdup(value_find_string(disk, "from_sr", ""))},
		.to = {.sr = xstrdup(value_find_string(disk, "sr", "")),
			.location = xstrdup(value_find_string(disk, "location", ""))},
	};
	int r = storage_move_commit(storage, &move, false, fault);

	return r < 0 ? r : set_raw(storage->pool, vdi, fault);
}

/* A CD stays where it is: a drive whose CD this host does not reach becomes empty. */
static int empty_drive(const struct storage *storage, const char *vbd, struct fault *fault)
{
	struct value *record CLEANUP_VALUE = NULL;
	struct value *fields CLEANUP_VALUE = value_new_struct();
	char *sr CLEANUP_FREE = NULL;
	int r = object_get_record(storage->pool, "VBD", vbd, &record, fault);

	if (r < 0)
		return r;
	const char *vdi = value_find_string(record, "VDI", REF_NULL);
	if (strcmp(value_find_string(record, "type", ""), "CD") != 0 || ref_is_null(vdi))
		return 0;
	r = object_get_string(storage->pool, "VDI", vdi, "SR", &sr, fault);
	if (r == 0)
		r = sr_is_plugged(storage->pool, sr, storage->host_ref, fault);
	if (r != 0)
		return MIN(r, 0);
	value_set_string(fields, "VDI", REF_NULL);
	value_set_bool(fields, "empty", true);
	return object_set_fields(storage->pool, "VBD", vbd, fields, fault);
}

static int empty_drives(const struct storage *storage, const char *vm, struct fault *fault)
{
	struct value *vbds CLEANUP_VALUE = NULL;
	int r = object_find(storage->pool, "VBD", "VM", vm, &vbds, fault);

	for (size_t i = 0; r == 0 && i < vbds->array.n_items; i++)
		r = empty_drive(storage, vbds->array.items[i]->string, fault);
	return r;
}

/* The repository may have been unplugged here since the check. */
static int check_reached(
	const struct storage *storage, const struct value *shared, struct fault *fault)
{
	int r = 1;

	for (size_t i = 0; r > 0 && i < shared->array.n_items; i++) {
		const char *vdi = value_string(shared->array.items[i], REF_NULL);
		char *sr CLEANUP_FREE = NULL;
		r = object_get_string(storage->pool, "VDI", vdi, "SR", &sr, fault);
		if (r == 0)
			r = sr_is_plugged(storage->pool, sr, storage->host_ref, fault);
		if (r == 0)
			return fault_text(fault, -ENOTCONN,
				"commit: the shared SR %s of disk %s is not plugged in at the "
				"destination any more",
				sr, vdi);
	}
	return MIN(r, 0);
}

/* A halted VM is at no host; where it has a disk that others reach too, its affinity says where it
 * is to start. */
static int set_affinity(const struct storage *storage, const struct value *manifest,
	const struct value *shared, struct fault *fault)
{
	struct value *here CLEANUP_VALUE = value_new_string(storage->host_ref);

	if (value_find_bool(manifest, "live", false) || shared->array.n_items == 0)
		return 0;
	return object_set_field(storage->pool, "VM", vm_of(manifest), "affinity", here, fault);
}

int rehome_commit(const struct storage *storage, const struct value *manifest,
	const struct value *disks, bool marked, struct fault *fault)
{
	const char *vm = vm_of(manifest);
	const char *key = value_find_string(manifest, "operation", "");
	const struct value *shared = value_find(manifest, "shared");
	int r = 0;

	if (marked && !vm_has_operation(storage->pool, vm, key))
		return fault_text(fault, -ECANCELED,
			"commit: the VM is not marked as being moved any more: the source has "
			"given the move up");
	r = check_reached(storage, shared, fault);
	for (size_t i = 0; r == 0 && i < disks->array.n_items; i++)
		r = move_disk(storage, disks->array.items[i], fault);
	if (r == 0)
		r = set_affinity(storage, manifest, shared, fault);
	return r < 0 ? r : empty_drives(storage, vm, fault);
}
