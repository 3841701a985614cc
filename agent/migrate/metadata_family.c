/* SPDX-License-Identifier: Apache-2.0 */
/* A VM with its disks and its snapshots, and what these are to each other. */
#include "agent/migrate/metadata_internal.h"
#include "agent/migrate/unknown.h"
#include "agent/vm/family.h"
#include "base/alloc.h"
#include "base/uuid.h"

#include <string.h>

/* --- Export -------------------------------------------------------------------------------------
 */

struct exporting {
	const char *vm;
	const struct value *snapshots;
	const struct value *disks;
	const struct value *vif_map;
	struct value *manifest;
};

static int set_index(struct pool_db *pool, const char *vm, const char *field, const char *name,
	const struct value *refs, struct value *ret_manifest, struct fault *fault)
{
	char *ref CLEANUP_FREE = NULL;
	int r = object_get_string(pool, "VM", vm, field, &ref, fault);

	if (r == 0)
		value_set_int(ret_manifest, name, value_index_of_string(refs, ref));
	return r;
}

static int export_snapshot(struct pool_db *pool, const struct exporting *exporting,
	const char *snapshot, struct value *ret_manifest, struct fault *fault)
{
	int r = metadata_export_one(
		pool, snapshot, exporting->disks, exporting->vif_map, ret_manifest, fault);

	value_set_string(ret_manifest, "ref", snapshot);
	if (r == 0)
		r = set_index(pool, snapshot, "parent", "parent", exporting->snapshots,
			ret_manifest, fault);
	return r < 0 ? r
		     : set_index(pool, snapshot, "suspend_VDI", "memory", exporting->disks,
			       ret_manifest, fault);
}

static int export_all(struct pool_db *pool, const struct exporting *exporting, struct fault *fault)
{
	struct value *snapshots = value_new_array();
	int r = metadata_export_one(pool, exporting->vm, exporting->disks, exporting->vif_map,
		exporting->manifest, fault);

	value_set(exporting->manifest, "snapshots", snapshots);
	if (r == 0)
		r = set_index(pool, exporting->vm, "parent", "parent", exporting->snapshots,
			exporting->manifest, fault);
	for (size_t i = 0; r == 0 && i < exporting->snapshots->array.n_items; i++) {
		struct value *snapshot = value_new_struct();
		value_append(snapshots, snapshot);
		r = export_snapshot(pool, exporting,
			value_string(exporting->snapshots->array.items[i], ""), snapshot, fault);
	}
	return r;
}

int metadata_export(struct pool_db *pool, const char *vm, const struct value *snapshots,
	const struct value *disks, const struct value *vif_map, struct value **ret_manifest,
	struct fault *fault)
{
	struct value *manifest CLEANUP_VALUE = value_new_struct();
	struct exporting exporting = {.vm = vm,
		.snapshots = snapshots,
		.disks = disks,
		.vif_map = vif_map,
		.manifest = manifest};
	int r = export_all(pool, &exporting, fault);

	if (r == 0)
		*ret_manifest = TAKE_PTR(manifest);
	return r;
}

struct value *metadata_snapshots(const struct value *manifest)
{
	const struct value *snapshots = value_find(manifest, "snapshots");
	struct value *refs = value_new_array();

	for (size_t i = 0; snapshots && i < snapshots->array.n_items; i++)
		value_append_string(
			refs, value_find_string(snapshots->array.items[i], "ref", REF_NULL));
	return refs;
}

int metadata_export_again(struct pool_db *pool, const char *vm, const struct value *manifest,
	const struct value *plan, const struct value *vif_map, struct value **ret_manifest,
	struct fault *fault)
{
	struct value *disks CLEANUP_VALUE = value_new_array();
	struct value *snapshots CLEANUP_VALUE = NULL;
	int r = 0;

	for (size_t i = 0; i < plan->array.n_items; i++)
		value_append_string(
			disks, value_find_string(plan->array.items[i], "vdi", REF_NULL));
	if (value_find_bool(manifest, "copy", false))
		snapshots = value_new_array();
	else
		r = vm_list_snapshots(pool, vm, &snapshots, fault);
	return r < 0 ? r
		     : metadata_export(pool, vm, snapshots, disks, vif_map, ret_manifest, fault);
}

/* --- Import -------------------------------------------------------------------------------------
 */

static int import_disks(struct pool_db *pool, const struct value *disks, struct value *ret_refs,
	struct fault *fault)
{
	for (size_t i = 0; i < disks->array.n_items; i++) {
		const struct value *disk = disks->array.items[i];
		struct value *fields CLEANUP_VALUE = NULL;
		char *ref CLEANUP_FREE = NULL;
		int r = metadata_import_fields("VDI", value_find(disk, "fields"), &fields, fault);
		if (r < 0)
			return r;
		value_set_string(fields, "uuid", value_find_string(disk, "uuid", ""));
		value_set_string(fields, "SR", value_find_string(disk, "sr", ""));
		value_set_string(fields, "location", value_find_string(disk, "location", ""));
		value_set_int(fields, "virtual_size", value_find_int(disk, "size", 0));
		value_set_bool(fields, "managed", true);
		r = object_create(pool, "VDI", fields, &ref, fault);
		if (r == 0)
			r = unknown_keep(pool, "VDI", ref, value_find(disk, "fields"), NULL, fault);
		if (r < 0)
			return r;
		value_append_string(ret_refs, ref);
	}
	return 0;
}

/* What the index under that name says, if it is there, the object's field names from now on. */
static int relate(struct pool_db *pool, const char *class, const char *ref, const char *field,
	const struct value *said, const char *name, const struct value *others, struct fault *fault)
{
	const struct value *value = value_find(said, name);
	char *who CLEANUP_FREE = xasprintf("%s of a %s", name, class);
	int64_t index = -1;
	int r = value ? metadata_read_index(
				value, who, "place", others->array.n_items, &index, fault)
		      : 0;

	if (r < 0 || index < 0)
		return r;
	struct value *other CLEANUP_VALUE = value_copy(others->array.items[index]);
	return object_set_field(pool, class, ref, field, other, fault);
}

static int import_snapshots(struct pool_db *pool, const struct value *snapshots, const char *vm,
	const struct value *vdis, bool new_identity, struct value *ret_refs, struct fault *fault)
{
	struct value *more CLEANUP_VALUE = value_set_string(value_new_struct(), "snapshot_of", vm);
	int r = 0;

	for (size_t i = 0; r == 0 && snapshots && i < snapshots->array.n_items; i++) {
		const struct value *snapshot = snapshots->array.items[i];
		char *ref CLEANUP_FREE = NULL;
		r = metadata_import_one(pool, snapshot, more, vdis, new_identity, &ref, fault);
		if (r == 0)
			r = relate(pool, "VM", ref, "suspend_VDI", snapshot, "memory", vdis, fault);
		if (r == 0)
			value_append_string(ret_refs, ref);
	}
	return r;
}

static int relate_all(struct pool_db *pool, const struct value *manifest, const char *vm,
	const struct value *refs, struct fault *fault)
{
	const struct value *snapshots = value_find(manifest, "snapshots");
	int r = relate(pool, "VM", vm, "parent", manifest, "parent", refs, fault);

	for (size_t i = 0; r == 0 && i < refs->array.n_items; i++)
		r = relate(pool, "VM", refs->array.items[i]->string, "parent",
			snapshots->array.items[i], "parent", refs, fault);
	return r;
}

int metadata_import(struct pool_db *pool, const struct value *manifest, const struct value *disks,
	bool new_identity, char **ret_vm, struct fault *fault)
{
	struct value *nothing CLEANUP_VALUE = value_new_struct();
	struct value *vdis CLEANUP_VALUE = value_new_array();
	struct value *snapshots CLEANUP_VALUE = value_new_array();
	char *vm CLEANUP_FREE = NULL;

	int r = import_disks(pool, disks, vdis, fault);
	for (size_t i = 0; r == 0 && i < disks->array.n_items; i++)
		r = relate(pool, "VDI", vdis->array.items[i]->string, "snapshot_of",
			disks->array.items[i], "snapshot_of", vdis, fault);
	if (r == 0)
		r = metadata_import_one(pool, manifest, nothing, vdis, new_identity, &vm, fault);
	if (r == 0)
		r = import_snapshots(pool, value_find(manifest, "snapshots"), vm, vdis,
			new_identity, snapshots, fault);
	if (r == 0)
		r = relate_all(pool, manifest, vm, snapshots, fault);
	if (r == 0)
		*ret_vm = TAKE_PTR(vm);
	return r;
}
