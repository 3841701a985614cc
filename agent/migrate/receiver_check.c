/* SPDX-License-Identifier: Apache-2.0 */
/* Would this host take the VM? Asked by a dry run and again before the disks are made. */
#include "agent/migrate/peer.h"
#include "agent/migrate/receiver.h"
#include "agent/migrate/receiver_internal.h"
#include "agent/migrate/rehome.h"
#include "base/alloc.h"
#include "base/json.h"
#include "base/uuid.h"
#include "target/disk.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* What a VM can have, and a bound for its texts: they are stored in both databases. */
#define MAX_DEVICES        255
#define MAX_MANIFEST_BYTES (4u << 20)

static bool is_default(const char *sr)
{
	return strcmp(sr, PEER_DEFAULT_SR) == 0;
}

/* PEER_DEFAULT_SR when the pool has none. */
static char *default_sr(struct pool_db *pool)
{
	struct value *pools CLEANUP_VALUE = NULL;

	if (object_get_all_records(pool, "pool", &pools, NULL) < 0 || pools->record.n_members == 0)
		return xstrdup(PEER_DEFAULT_SR);
	const char *sr = value_find_string(pools->record.members[0].value, "default_SR", REF_NULL);
	return xstrdup(ref_is_null(sr) ? PEER_DEFAULT_SR : sr);
}

static uint64_t wanted_bytes(const struct value *disk)
{
	int64_t size = peer_int(disk, "size", 0);

	return (uint64_t)MIN(peer_int(disk, "allocated", 0), size);
}

/* disks: of receiver_plan_disks. */
static int check_space(struct pool_db *pool, const struct storage *storage,
	const struct value *disks, size_t index, struct fault *fault)
{
	const char *sr = value_find_string(disks->array.items[index], "sr", "");
	char *dir CLEANUP_FREE = NULL;
	uint64_t need = 0;
	bool overflow = false;
	uint64_t size;
	uint64_t available;

	if (is_default(sr))
		return fault_set(fault, -EINVAL, "VDI_NOT_IN_MAP",
			value_find_string(disks->array.items[index], "vdi", REF_NULL), NULL);
	int r = object_check(pool, "SR", sr, fault);
	if (r == 0)
		r = sr_location(storage, sr, &dir, fault);
	if (r == 0)
		r = disk_space(dir, &size, &available, fault);
	if (r < 0)
		return r;
	for (size_t i = 0; i < disks->array.n_items; i++)
		if (strcmp(value_find_string(disks->array.items[i], "sr", ""), sr) == 0)
			overflow |= __builtin_add_overflow(
				need, wanted_bytes(disks->array.items[i]), &need);
	if (!overflow && need <= available)
		return 0;
	char *text CLEANUP_FREE = xasprintf(
		"preflight: the destination SR %s (%s) has %llu bytes free, the disks that would "
		"go "
		"there have %s%llu allocated; free space there, or map them to another SR",
		sr, dir, (unsigned long long)available, overflow ? "more than " : "",
		(unsigned long long)(overflow ? UINT64_MAX : need));
	return fault_set(fault, -ENOSPC, "SR_BACKEND_FAILURE_44", "", text, "", NULL);
}

/* Another VM with that uuid is this one as it was at another time. */
static int check_new(struct pool_db *pool, const struct value *vm, struct fault *fault)
{
	char *existing CLEANUP_FREE = NULL;
	int64_t version = 0;

	if (object_get_by_uuid(pool, "VM", value_find_string(vm, "uuid", ""), &existing, NULL) < 0)
		return 0;
	int r = object_get_int(pool, "VM", existing, "version", &version, fault);
	if (r < 0)
		return r;
	char *here CLEANUP_FREE = xasprintf("%lld", (long long)version);
	char *there CLEANUP_FREE = xasprintf("%lld", (long long)peer_int(vm, "version", 0));
	return fault_set(
		fault, -EEXIST, "VM_TO_IMPORT_IS_NOT_NEWER_VERSION", existing, here, there, NULL);
}

static int check_identity(
	const struct supervisor_params *params, const struct value *manifest, struct fault *fault)
{
	struct pool_db *pool = params->storage->pool;
	const struct value *snapshots = value_find(manifest, "snapshots");
	struct value *pools CLEANUP_VALUE = NULL;
	char *own_pool CLEANUP_FREE = NULL;

	int r = object_get_all(pool, "pool", &pools, fault);
	if (r == 0 && pools->array.n_items)
		r = object_get_string(
			pool, "pool", pools->array.items[0]->string, "uuid", &own_pool, fault);
	if (r < 0)
		return r;
	bool same_pool = own_pool &&
			 strcmp(own_pool, value_find_string(manifest, "source_pool_uuid", "")) == 0;
	if (same_pool != rehome_is_wanted(manifest))
		return fault_set(fault, -EPERM, "OPERATION_NOT_ALLOWED",
			same_pool ? "source and destination are the same pool, and the sender does "
				    "not know it"
				  : "the sender takes this pool for its own, and it is another",
			NULL);
	if (same_pool)
		return rehome_check(params->storage, manifest, fault);
	if (value_find_bool(manifest, "copy", false))
		return 0;
	r = check_new(pool, value_find(manifest, "vm"), fault);
	for (size_t i = 0; r == 0 && snapshots && i < snapshots->array.n_items; i++)
		r = check_new(pool, value_find(snapshots->array.items[i], "vm"), fault);
	return r;
}

static int check_host(const struct supervisor_params *params, struct fault *fault)
{
	bool enabled;

	int r = object_get_bool(params->storage->pool, "host", params->storage->host_ref, "enabled",
		&enabled, fault);
	if (r == 0 && !enabled)
		r = fault_set(fault, -EPERM, "HOST_DISABLED", params->storage->host_ref, NULL);
	return r;
}

static int incompatible(const struct supervisor_params *params, const struct value *manifest,
	const char *why, struct fault *fault)
{
	const char *uuid = value_find_string(value_find(manifest, "vm"), "uuid", "");
	char *text CLEANUP_FREE = xasprintf("%s: shut it down, move it, and start it here", why);

	return fault_set(fault, -EPERM, "VM_INCOMPATIBLE_WITH_THIS_HOST",
		value_find_string(manifest, "vm_ref", uuid), params->storage->host_ref, text, NULL);
}

/* What QEMU would say when the guest's memory comes, after its disks. */
static int check_compatible(
	const struct supervisor_params *params, const struct value *manifest, struct fault *fault)
{
	const char *ours = guest_accelerator();
	const char *theirs = value_find_string(manifest, "accelerator", ours);
	const char *machine = value_find_string(manifest, "machine", NULL);
	struct fault why CLEANUP_FAULT = FAULT_INIT;

	if (!value_find_bool(manifest, "live", false))
		return 0;
	if (strcmp(theirs, ours) != 0) {
		char *text CLEANUP_FREE = xasprintf(
			"the guest runs with %.16s, and guests of this host with %s", theirs, ours);
		return incompatible(params, manifest, text, fault);
	}
	int r = machine ? guests_check_machine(params->guests, machine, &why) : 0;
	if (r == -EOPNOTSUPP)
		return incompatible(params, manifest, why.params[0], fault);
	fault_move(fault, &why);
	return r;
}

int receiver_check_list(const struct value *manifest, const char *name, struct fault *fault)
{
	const struct value *list = value_find(manifest, name);

	if (!list || list->type != VALUE_ARRAY || list->array.n_items > MAX_DEVICES)
		return fault_text(fault, -EINVAL,
			"manifest: %s must be an array of at most %d structs", name, MAX_DEVICES);
	for (size_t i = 0; i < list->array.n_items; i++)
		if (list->array.items[i]->type != VALUE_STRUCT)
			return fault_text(
				fault, -EINVAL, "manifest: %s[%zu] is no struct", name, i);
	return 0;
}

int receiver_check_size(const struct value *manifest, struct fault *fault)
{
	struct buf text CLEANUP_BUF = BUF_INIT;

	json_encode(manifest, &text);
	return text.length <= MAX_MANIFEST_BYTES
		       ? 0
		       : fault_text(fault, -EINVAL, "manifest: %zu bytes are too many; at most %u",
				 text.length, MAX_MANIFEST_BYTES);
}

/* A halted VM travels as metadata and disks alone, one that runs with its memory. */
static int check_power(const struct value *manifest, struct fault *fault)
{
	const struct value *live = value_find(manifest, "live");
	const char *power = value_find_string(value_find(manifest, "vm"), "power_state", "Halted");
	bool is_live = live && live->type == VALUE_BOOL && live->boolean;
	const char *wanted = is_live ? "Running" : "Halted";

	if (live && live->type != VALUE_BOOL)
		return fault_text(fault, -EINVAL, "manifest: live must be a boolean");
	if (is_live && value_find_bool(manifest, "copy", false))
		return fault_text(fault, -EINVAL,
			"manifest: live and copy: a VM that runs cannot be copied, only moved");
	return strcmp(power, wanted) == 0
		       ? 0
		       : fault_text(fault, -EINVAL,
				 "manifest: a VM that is %s, not %s, with live %s", power, wanted,
				 is_live ? "true" : "false");
}

/* Of a VM or a snapshot. */
static int check_vm(const struct value *manifest, struct fault *fault)
{
	const struct value *vm = value_find(manifest, "vm");
	const struct value *metrics = value_find(manifest, "metrics");

	if (!vm || vm->type != VALUE_STRUCT)
		return fault_text(fault, -EINVAL, "manifest: vm must be a struct");
	if (metrics && metrics->type != VALUE_STRUCT)
		return fault_text(fault, -EINVAL, "manifest: metrics must be a struct");
	int r = receiver_check_list(manifest, "vbds", fault);
	return r < 0 ? r : receiver_check_list(manifest, "vifs", fault);
}

/* Nothing that runs comes as a snapshot. */
static int check_snapshot(const struct value *snapshot, size_t number, struct fault *fault)
{
	const struct value *vm = value_find(snapshot, "vm");
	int r = check_vm(snapshot, fault);

	if (r < 0)
		return r;
	const char *power = value_find_string(vm, "power_state", "Halted");
	if (value_find_bool(vm, "is_a_snapshot", false) &&
		(strcmp(power, "Halted") == 0 || strcmp(power, "Suspended") == 0))
		return 0;
	return fault_text(fault, -EINVAL,
		"manifest: snapshot %zu: it must be a snapshot, and Halted or Suspended", number);
}

int receiver_check_snapshots(const struct value *manifest, struct fault *fault)
{
	const struct value *snapshots = value_find(manifest, "snapshots");
	int r = snapshots ? receiver_check_list(manifest, "snapshots", fault) : 0;

	for (size_t i = 0; r == 0 && snapshots && i < snapshots->array.n_items; i++)
		r = check_snapshot(snapshots->array.items[i], i, fault);
	return r;
}

static int check_form(const struct value *manifest, struct fault *fault)
{
	int r = check_vm(manifest, fault);

	if (r == 0)
		r = receiver_check_list(manifest, "disks", fault);
	if (r == 0)
		r = receiver_check_snapshots(manifest, fault);
	if (r == 0)
		r = receiver_check_size(manifest, fault);
	return r < 0 ? r : check_power(manifest, fault);
}

static int check_disks(const struct value *disks, struct fault *fault)
{
	for (size_t i = 0; i < disks->array.n_items; i++) {
		const struct value *disk = disks->array.items[i];
		int64_t size = peer_int(disk, "size", 0);
		if (size <= 0 || size % DISK_SECTOR || peer_int(disk, "allocated", 0) < 0)
			return fault_text(fault, -EINVAL,
				"manifest: disk %zu: size %lld must be a positive multiple of %d, "
				"allocated not negative",
				i, (long long)size, DISK_SECTOR);
		if (!uuid_is_valid(value_find_string(disk, "uuid", "")))
			return fault_text(fault, -EINVAL, "manifest: disk %zu: bad uuid", i);
	}
	return 0;
}

/* Of a VM or a snapshot. */
static bool has_disk(const struct value *manifest, size_t disk)
{
	const struct value *vbds = value_find(manifest, "vbds");
	bool has = peer_int(manifest, "memory", -1) == (int64_t)disk;

	for (size_t i = 0; i < vbds->array.n_items && !has; i++)
		has = peer_int(vbds->array.items[i], "disk", -1) == (int64_t)disk;
	return has;
}

/* A disk that nothing has would be left here when the VM is gone. */
static int check_used(const struct value *manifest, struct fault *fault)
{
	const struct value *disks = value_find(manifest, "disks");
	const struct value *snapshots = value_find(manifest, "snapshots");

	for (size_t i = 0; i < disks->array.n_items; i++) {
		bool is_used = has_disk(manifest, i);
		for (size_t j = 0; snapshots && j < snapshots->array.n_items && !is_used; j++)
			is_used = has_disk(snapshots->array.items[j], i);
		if (!is_used)
			return fault_text(fault, -EINVAL,
				"manifest: disk %zu is none of a VBD of the VM or of a snapshot",
				i);
	}
	return 0;
}

static int check_networks(struct pool_db *pool, const struct value *manifest, struct fault *fault)
{
	const struct value *vifs = value_find(manifest, "vifs");
	const struct value *snapshots = value_find(manifest, "snapshots");

	for (size_t i = 0; i < vifs->array.n_items; i++) {
		const char *network = value_find_string(vifs->array.items[i], "network", "");
		int r = object_check(pool, "network", network, fault);
		if (r < 0)
			return r;
	}
	int r = 0;
	for (size_t i = 0; r == 0 && snapshots && i < snapshots->array.n_items; i++)
		r = check_networks(pool, snapshots->array.items[i], fault);
	return r;
}

struct value *receiver_plan_disks(
	const struct supervisor_params *params, const struct value *manifest)
{
	const struct value *sent = value_find(manifest, "disks");
	bool copy = value_find_bool(manifest, "copy", false);
	struct value *disks = value_new_array();
	char *fallback CLEANUP_FREE = default_sr(params->storage->pool);

	for (size_t i = 0; i < sent->array.n_items; i++) {
		const struct value *from = sent->array.items[i];
		const struct value *fields = value_find(from, "fields");
		const char *uuid = value_find_string(from, "uuid", "");
		const char *sr = value_find_string(from, "sr", "");
		char *taken CLEANUP_FREE = NULL;
		char *fresh CLEANUP_FREE = uuid_new();
		struct value *disk = value_new_struct();
		bool keep = !copy &&
			    (rehome_is_wanted(manifest) || object_get_by_uuid(params->storage->pool,
								   "VDI", uuid, &taken, NULL) < 0);
		value_set_string(disk, "uuid", keep ? uuid : fresh);
		value_set_string(disk, "vdi", value_find_string(from, "vdi", REF_NULL));
		value_set_string(disk, "from_sr", value_find_string(from, "from_sr", ""));
		value_set_string(disk, "sr", is_default(sr) ? fallback : sr);
		value_set_bool(disk, "still", value_find_bool(from, "still", false));
		value_set_int(disk, "snapshot_of", peer_int(from, "snapshot_of", -1));
		value_set_int(disk, "size", peer_int(from, "size", 0));
		value_set_int(disk, "allocated", (int64_t)wanted_bytes(from));
		value_set(disk, "fields", fields ? value_copy(fields) : value_new_struct());
		value_append(disks, disk);
	}
	return disks;
}

/* What is made for the move right after this. */
static int check_files(
	const struct supervisor_params *params, const struct value *disks, struct fault *fault)
{
	int r = 0;

	if (disks->array.n_items && access(params->tgtd, X_OK) < 0) {
		int error = -errno;
		return fault_errno(fault, error, "preflight: the destination cannot take disks: %s",
			params->tgtd);
	}
	for (size_t i = 0; r == 0 && i < disks->array.n_items; i++) {
		const char *sr = value_find_string(disks->array.items[i], "sr", "");
		uint64_t need = 0;
		for (size_t j = 0; j < disks->array.n_items; j++)
			if (strcmp(value_find_string(disks->array.items[j], "sr", ""), sr) == 0)
				need += wanted_bytes(disks->array.items[j]);
		r = storage_check_disk(params->storage, sr,
			value_find_string(disks->array.items[i], "uuid", ""), need, fault);
	}
	return r;
}

/* What the commit will do must not fail after the disks were copied, and a guest that runs must
 * find its place. */
static int check_import(const struct supervisor_params *params, const struct value *manifest,
	const struct value *disks, struct fault *fault)
{
	struct guest_spec spec CLEANUP_GUEST_SPEC = GUEST_SPEC_INIT;
	int r = check_files(params, disks, fault);

	if (r < 0)
		return r;
	if (!value_find_bool(manifest, "live", false))
		return receiver_try_import(params, manifest, disks, fault);
	r = receiver_try_guest(params, manifest, disks, false, &spec, fault);
	return r < 0 ? r : guests_check_room(params->guests, &spec, fault);
}

int receiver_check(
	const struct supervisor_params *params, const struct value *manifest, struct fault *fault)
{
	struct pool_db *pool = params->storage->pool;
	const char *protocol = value_find_string(manifest, "protocol", "");

	if (strcmp(protocol, PEER_PROTOCOL) != 0)
		return fault_text(fault, -EPROTONOSUPPORT,
			"the sender speaks migration protocol \"%s\", this pool " PEER_PROTOCOL
			"; both must run the same version",
			protocol);
	int r = check_form(manifest, fault);
	if (r == 0)
		r = peer_check_data_tls(params, value_find_string(manifest, "data_tls", ""), fault);
	if (r == 0)
		r = check_host(params, fault);
	if (r == 0)
		r = check_identity(params, manifest, fault);
	if (r == 0)
		r = check_compatible(params, manifest, fault);
	if (r == 0)
		r = check_disks(value_find(manifest, "disks"), fault);
	if (r == 0)
		r = check_used(manifest, fault);
	if (r == 0)
		r = check_networks(pool, manifest, fault);
	if (r < 0)
		return r;
	struct value *disks CLEANUP_VALUE = receiver_plan_disks(params, manifest);
	for (size_t i = 0; r == 0 && i < disks->array.n_items; i++)
		r = check_space(pool, params->storage, disks, i, fault);
	return r < 0 ? r : check_import(params, manifest, disks, fault);
}
