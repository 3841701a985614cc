/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/migrate/plan.h"

#include "agent/migrate/metadata.h"
#include "agent/migrate/peer.h"
#include "agent/migrate/rehome.h"
#include "agent/vm/family.h"
#include "agent/vm/guest_record.h"
#include "agent/vm/operations.h"
#include "base/alloc.h"
#include "base/uuid.h"
#include "target/image.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define OPERATION "migrate_send"

/* A disk that another VM uses too, which is no snapshot of this one, would be taken away from it.
 */
static int check_exclusive(
	struct pool_db *pool, const char *vm, const char *vdi, struct fault *fault)
{
	struct value *vbds CLEANUP_VALUE = NULL;

	int r = object_find(pool, "VBD", "VDI", vdi, &vbds, fault);
	for (size_t i = 0; r == 0 && i < vbds->array.n_items; i++) {
		char *owner CLEANUP_FREE = NULL;
		r = object_get_string(
			pool, "VBD", vbds->array.items[i]->string, "VM", &owner, fault);
		if (r == 0 && !vm_is_family(pool, vm, owner))
			r = fault_set(fault, -EBUSY, "VDI_IN_USE", vdi, OPERATION, NULL);
	}
	return r;
}

static int check_idle(const char *vdi, const struct value *record, struct fault *fault)
{
	const struct value *operations = value_find(record, "current_operations");

	if (!operations || operations->type != VALUE_STRUCT || operations->record.n_members == 0)
		return 0;
	return fault_set(fault, -EBUSY, "OTHER_OPERATION_IN_PROGRESS", "VDI", vdi,
		value_string(operations->record.members[0].value, ""),
		operations->record.members[0].name, NULL);
}

static int check_vdi(struct pool_db *pool, const char *vm, const char *vdi,
	const struct value *record, struct fault *fault)
{
	if (value_find_bool(record, "cbt_enabled", false))
		return fault_set(fault, -EPERM, "VDI_CBT_ENABLED", vdi, NULL);
	if (value_find(value_find(record, "sm_config"), "key_hash"))
		return fault_set(fault, -EPERM, "VDI_IS_ENCRYPTED", vdi, NULL);
	if (strcmp(value_find_string(record, "on_boot", "persist"), "reset") == 0)
		return fault_set(
			fault, -EPERM, "VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION", vdi, NULL);
	int r = check_idle(vdi, record, fault);
	return r < 0 ? r : check_exclusive(pool, vm, vdi, fault);
}

static int inspect_source(const char *path, struct stat *ret_st)
{
	int fd CLEANUP_CLOSE = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

	if (fd < 0 || fstat(fd, ret_st) < 0)
		return -errno;
	return S_ISREG(ret_st->st_mode) ? 0 : -EINVAL;
}

/* By what a file is known to be the same and unchanged. */
static void set_identity(struct value *disk, const struct stat *st)
{
	value_set_int(disk, "file_size", st->st_size);
	value_set_int(disk, "device", (int64_t)st->st_dev);
	value_set_int(disk, "inode", (int64_t)st->st_ino);
	value_set_int(disk, "mtime_sec", st->st_mtim.tv_sec);
	value_set_int(disk, "mtime_nsec", st->st_mtim.tv_nsec);
}

/* What is in the file: the disk's size, and how much of it is data. */
static int inspect_content(const char *path, const char *vdi, int64_t size,
	struct image_info *ret_info, uint64_t *ret_data_bytes, struct fault *fault)
{
	struct fault cause CLEANUP_FAULT = FAULT_INIT;
	int r = image_inspect(path, ret_info, &cause);

	if (r == 0)
		r = image_data_bytes(path, ret_data_bytes, &cause);
	if (r < 0)
		return fault_text(fault, r, "preflight: disk %s on the source: %s: %s", vdi, path,
			cause.n_params ? cause.params[0] : strerror(-r));
	if ((int64_t)ret_info->virtual_bytes == size)
		return 0;
	return fault_text(fault, -EINVAL,
		"preflight: disk %s on the source: %s has %llu bytes, the VDI says %lld; SR.scan "
		"takes in what changed",
		vdi, path, (unsigned long long)ret_info->virtual_bytes, (long long)size);
}

/* One disk of the plan, and what the destination needs to know of it. */
static int plan_disk(const struct storage *storage, const char *vm, const char *vdi, const char *sr,
	struct value **ret_disk, struct value **ret_manifest, struct fault *fault)
{
	struct value *record CLEANUP_VALUE = NULL;
	struct value *fields CLEANUP_VALUE = NULL;
	char *path CLEANUP_FREE = NULL;
	struct image_info image;
	uint64_t data_bytes;
	struct stat st;

	int r = object_get_record(storage->pool, "VDI", vdi, &record, fault);
	if (r == 0)
		r = check_vdi(storage->pool, vm, vdi, record, fault);
	if (r == 0)
		r = vdi_path(storage, vdi, &path, fault);
	if (r == 0)
		r = metadata_export_whole(storage->pool, "VDI", vdi, &fields, fault);
	if (r < 0)
		return r;
	r = inspect_source(path, &st);
	if (r < 0)
		return fault_errno(fault, r, "preflight: disk %s on the source: %s", vdi, path);
	r = inspect_content(
		path, vdi, value_find_int(record, "virtual_size", -1), &image, &data_bytes, fault);
	if (r < 0)
		return r;

	struct value *disk = value_new_struct();
	value_set_string(disk, "vdi", vdi);
	value_set_string(disk, "vdi_uuid", value_find_string(record, "uuid", ""));
	value_set_string(disk, "name", value_find_string(record, "name_label", ""));
	value_set_string(disk, "path", path);
	value_set_string(disk, "sr", sr);
	value_set_int(disk, "size", (int64_t)image.virtual_bytes);
	value_set_int(disk, "allocated", (int64_t)data_bytes);
	set_identity(disk, &st);
	*ret_disk = disk;

	struct value *manifest = value_new_struct();
	value_set_string(manifest, "sr", sr);
	value_set_string(manifest, "vdi", vdi);
	value_set_string(manifest, "from_sr", value_find_string(record, "SR", ""));
	value_set_string(manifest, "uuid", value_find_string(record, "uuid", ""));
	value_set_int(manifest, "size", (int64_t)image.virtual_bytes);
	value_set_int(manifest, "allocated", (int64_t)data_bytes);
	/* The image that it gets there is raw. */
	struct value *sm_config = value_find(fields, "sm_config");
	if (sm_config)
		value_unset(sm_config, STORAGE_FORMAT_KEY);
	value_set(manifest, "fields", TAKE_PTR(fields));
	*ret_manifest = manifest;
	return 0;
}

/* What collect_disks finds: refs of those that are copied, and, for each of a snapshot's, the name
 * of the snapshot; of a move within the pool, refs of those that stay where they are. */
struct collection {
	struct pool_db *pool;
	const struct value *vdi_map;
	const char *host; /* of this pool, or NULL */
	struct value *refs;
	struct value *names; /* ref -> name of the snapshot */
	struct value *shared;
};

static void collection_clear(struct collection *collection)
{
	value_free(collection->refs);
	value_free(collection->names);
	value_free(collection->shared);
}

#define CLEANUP_COLLECTION CLEANUP(collection_clear)

/* snapshot: its name, if it is a snapshot's disk. If the map does not say where that goes, another
 * pool does. */
static int collect_disk(const struct collection *collection, const char *vdi, const char *snapshot,
	struct fault *fault)
{
	if (value_contains_string(collection->refs, vdi) ||
		value_contains_string(collection->shared, vdi))
		return 0;
	if (ref_is_null(value_find_string(collection->vdi_map, vdi, NULL)) &&
		(!snapshot || collection->host))
		return fault_set(fault, -EINVAL, "VDI_NOT_IN_MAP", vdi, NULL);
	if (collection->host && rehome_is_shared(collection->pool, collection->vdi_map, vdi)) {
		value_append_string(collection->shared, vdi);
		return 0;
	}
	value_append_string(collection->refs, vdi);
	if (snapshot)
		value_set_string(collection->names, vdi, snapshot);
	return 0;
}

static int collect_snapshot(
	const struct collection *collection, const char *snapshot, struct fault *fault)
{
	struct value *vdis CLEANUP_VALUE = value_new_array();
	char *name CLEANUP_FREE = NULL;
	int r = object_get_string(collection->pool, "VM", snapshot, "name_label", &name, fault);

	if (r == 0)
		r = vm_add_snapshot_disks(collection->pool, snapshot, vdis, fault);
	for (size_t i = 0; r == 0 && i < vdis->array.n_items; i++)
		r = collect_disk(collection, vdis->array.items[i]->string, name, fault);
	return r;
}

/* The VM's own come first. */
static int collect_disks(const struct collection *collection, const char *vm,
	const struct value *snapshots, struct fault *fault)
{
	struct value *own CLEANUP_VALUE = value_new_array();
	int r = vm_add_disks(collection->pool, vm, own, fault);

	for (size_t i = 0; r == 0 && i < own->array.n_items; i++)
		r = collect_disk(collection, own->array.items[i]->string, NULL, fault);
	for (size_t i = 0; r == 0 && i < snapshots->array.n_items; i++)
		r = collect_snapshot(collection, snapshots->array.items[i]->string, fault);
	return r;
}

/* Those that stay where they are. */
static int check_shared(struct pool_db *pool, const struct value *shared, struct fault *fault)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < shared->array.n_items; i++) {
		const char *vdi = shared->array.items[i]->string;
		struct value *record CLEANUP_VALUE = NULL;
		r = object_get_record(pool, "VDI", vdi, &record, fault);
		if (r == 0)
			r = check_idle(vdi, record, fault);
	}
	return r;
}

/* How the guest knows its disks. A CD that the destination does not reach stays behind, so its
 * drive must be empty. */
static int plan_guest(const struct storage *storage, const char *vm, const char *host,
	struct value *disks, struct fault *fault)
{
	struct guest_spec spec CLEANUP_GUEST_SPEC = GUEST_SPEC_INIT;
	int r = guest_record_read(storage, vm, &spec, fault);

	if (r == 0 && host)
		r = rehome_check_drives(storage->pool, vm, host, fault);
	for (size_t i = 0; r == 0 && !host && i < spec.n_drives; i++)
		if (spec.drives[i].path)
			r = fault_set(fault, -EPERM, "OPERATION_NOT_ALLOWED",
				"a CD is in one of the VM's drives: eject it first, as it does not "
				"move with a guest that runs",
				NULL);
	for (size_t i = 0; r == 0 && i < disks->array.n_items; i++) {
		struct value *disk = disks->array.items[i];
		size_t n = 0;
		if (value_find(disk, "snapshot"))
			continue;
		while (n < spec.n_disks &&
			(!spec.disks[n].vdi ||
				strcmp(spec.disks[n].vdi, value_find_string(disk, "vdi", "")) != 0))
			n++;
		if (n == spec.n_disks)
			return fault_text(fault, -EINVAL,
				"preflight: disk %s is none of the guest's",
				value_find_string(disk, "vdi", ""));
		value_set(disk, "node", value_new_format("d%zu", n));
	}
	return r;
}

/* What a receiver in the same pool needs to know besides. */
static void add_same_pool(const struct storage *storage, const struct migrate_request *request,
	struct value *shared, struct value *manifest)
{
	value_set_bool(manifest, "same_pool", true);
	value_set_string(manifest, "vm_ref", request->vm);
	value_set_string(manifest, "source_host", storage->host_ref);
	value_set(manifest, "shared", value_copy(shared));
}

static int check_copy(const struct value *options, const char *host, struct fault *fault)
{
	if (!host || !value_find_bool(options, "copy", false))
		return 0;
	return fault_set(fault, -EPERM, "OPERATION_NOT_ALLOWED",
		"a move within a pool copies no VM: the option copy is for another pool", NULL);
}

/* Which of the disks each was taken of: -1 for none of them. */
static int set_origins(struct pool_db *pool, const struct value *refs, struct value *manifest_disks,
	struct fault *fault)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < refs->array.n_items; i++) {
		char *of CLEANUP_FREE = NULL;
		r = object_get_string(
			pool, "VDI", refs->array.items[i]->string, "snapshot_of", &of, fault);
		if (r == 0)
			value_set_int(manifest_disks->array.items[i], "snapshot_of",
				value_index_of_string(refs, of));
	}
	return r;
}

static int plan_disks(const struct storage *storage, const char *vm,
	const struct collection *collection, struct value *ret_disks,
	struct value *ret_manifest_disks, struct fault *fault)
{
	for (size_t i = 0; i < collection->refs->array.n_items; i++) {
		const char *vdi = collection->refs->array.items[i]->string;
		const char *snapshot = value_find_string(collection->names, vdi, NULL);
		struct value *disk = NULL;
		struct value *entry = NULL;
		int r = plan_disk(storage, vm, vdi,
			value_find_string(collection->vdi_map, vdi, PEER_DEFAULT_SR), &disk, &entry,
			fault);
		if (r < 0)
			return r;
		if (snapshot) {
			value_set_string(disk, "snapshot", snapshot);
			value_set_bool(entry, "still", true);
		}
		value_append(ret_disks, disk);
		value_append(ret_manifest_disks, entry);
	}
	return set_origins(storage->pool, collection->refs, ret_manifest_disks, fault);
}

/* A copy is another VM, of which no snapshot was taken. */
static int list_snapshots(struct pool_db *pool, const char *vm, const struct value *options,
	struct value **ret_snapshots, struct fault *fault)
{
	struct value *snapshots CLEANUP_VALUE = NULL;
	int r = 0;

	if (value_find_bool(options, "copy", false))
		snapshots = value_new_array();
	else
		r = vm_list_snapshots(pool, vm, &snapshots, fault);
	for (size_t i = 0; r == 0 && i < snapshots->array.n_items; i++)
		r = vm_check_idle(pool, snapshots->array.items[i]->string, fault);
	if (r == 0)
		*ret_snapshots = TAKE_PTR(snapshots);
	return r;
}

int plan_make(const struct storage *storage, const struct migrate_request *request,
	const char *host, const struct value *options, struct value **ret_disks,
	struct value **ret_manifest, struct fault *fault)
{
	bool live = value_find_bool(options, "live", false);
	struct value *snapshots CLEANUP_VALUE = NULL;
	struct value *disks CLEANUP_VALUE = value_new_array();
	struct value *manifest CLEANUP_VALUE = NULL;
	struct value *manifest_disks CLEANUP_VALUE = value_new_array();
	struct collection found CLEANUP_COLLECTION = {.pool = storage->pool,
		.vdi_map = request->vdi_map,
		.host = host,
		.refs = value_new_array(),
		.names = value_new_struct(),
		.shared = value_new_array()};

	int r = check_copy(options, host, fault);
	if (r == 0)
		r = list_snapshots(storage->pool, request->vm, options, &snapshots, fault);
	if (r == 0)
		r = collect_disks(&found, request->vm, snapshots, fault);
	if (r == 0)
		r = check_shared(storage->pool, found.shared, fault);
	if (r == 0)
		r = plan_disks(storage, request->vm, &found, disks, manifest_disks, fault);
	if (r == 0)
		r = metadata_export(storage->pool, request->vm, snapshots, found.refs,
			request->vif_map, &manifest, fault);
	if (r == 0 && live)
		r = plan_guest(storage, request->vm, host, disks, fault);
	if (r < 0)
		return r;
	value_set_bool(manifest, "copy", value_find_bool(options, "copy", false));
	value_set_bool(manifest, "live", live);
	value_set(manifest, "disks", TAKE_PTR(manifest_disks));
	if (host)
		add_same_pool(storage, request, found.shared, manifest);
	*ret_disks = TAKE_PTR(disks);
	*ret_manifest = TAKE_PTR(manifest);
	return 0;
}

int plan_renew_sources(struct value *disks, struct fault *fault)
{
	for (size_t i = 0; i < disks->array.n_items; i++) {
		struct value *disk = disks->array.items[i];
		const char *path = value_find_string(disk, "path", "");
		struct image_info image;
		uint64_t data_bytes;
		struct stat st;
		int r = inspect_source(path, &st);
		if (r < 0)
			return fault_errno(fault, r, "source disk %zu (%s)", i, path);
		r = inspect_content(path, value_find_string(disk, "vdi", ""),
			value_find_int(disk, "size", -1), &image, &data_bytes, fault);
		if (r < 0)
			return r;
		set_identity(disk, &st);
	}
	return 0;
}

int plan_check_sources(const struct value *disks, size_t first, struct fault *fault)
{
	for (size_t i = first; i < disks->array.n_items; i++) {
		const struct value *disk = disks->array.items[i];
		const char *path = value_find_string(disk, "path", "");
		struct stat st;
		int r = inspect_source(path, &st);
		if (r < 0)
			return fault_errno(fault, r, "source disk %zu (%s)", i, path);
		int64_t size = value_find_int(disk, "size", -1);
		if (st.st_size == value_find_int(disk, "file_size", size) &&
			(int64_t)st.st_dev == value_find_int(disk, "device", -1) &&
			(int64_t)st.st_ino == value_find_int(disk, "inode", -1) &&
			st.st_mtim.tv_sec == value_find_int(disk, "mtime_sec", -1) &&
			st.st_mtim.tv_nsec == value_find_int(disk, "mtime_nsec", -1))
			continue;
		return fault_text(fault, -EBUSY,
			"source disk %zu (%s) was changed or replaced by somebody else while it "
			"was copied: migrate again when it is at rest",
			i, path);
	}
	return 0;
}
