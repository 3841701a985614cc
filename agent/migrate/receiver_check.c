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

static uint64_t wanted_bytes(const struct value *disk)
{
	int64_t size = peer_int(disk, "size", 0);

	return (uint64_t)MIN(peer_int(disk, "allocated", 0), size);
}

static int check_space(struct pool_db *pool, const struct storage *storage,
	const struct value *disks, size_t index, struct fault *fault)
{
	const char *sr = value_find_string(disks->array.items[index], "sr", "");
	char *dir CLEANUP_FREE = NULL;
	uint64_t need = 0;
	bool overflow = false;
	uint64_t size;
	uint64_t available;

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

static int check_identity(
	const struct supervisor_params *params, const struct value *manifest, struct fault *fault)
{
	struct pool_db *pool = params->storage->pool;
	const char *uuid = value_find_string(value_find(manifest, "vm"), "uuid", "");
	char *existing CLEANUP_FREE = NULL;
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
	if (value_find_bool(manifest, "copy", false) ||
		object_get_by_uuid(pool, "VM", uuid, &existing, NULL) < 0)
		return 0;
	int64_t version = 0;
	r = object_get_int(pool, "VM", existing, "version", &version, fault);
	if (r < 0)
		return r;
	char *here CLEANUP_FREE = xasprintf("%lld", (long long)version);
	char *there CLEANUP_FREE =
		xasprintf("%lld", (long long)peer_int(value_find(manifest, "vm"), "version", 0));
	return fault_set(
		fault, -EEXIST, "VM_TO_IMPORT_IS_NOT_NEWER_VERSION", existing, here, there, NULL);
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

static int check_form(const struct value *manifest, struct fault *fault)
{
	static const char *const lists[] = {"disks", "vbds", "vifs"};
	const struct value *vm = value_find(manifest, "vm");
	int r = 0;

	if (!vm || vm->type != VALUE_STRUCT)
		return fault_text(fault, -EINVAL, "manifest: vm must be a struct");
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(lists); i++)
		r = receiver_check_list(manifest, lists[i], fault);
	if (r < 0)
		return r;
	r = receiver_check_size(manifest, fault);
	if (r < 0)
		return r;
	return check_power(manifest, fault);
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

static int check_networks(struct pool_db *pool, const struct value *vifs, struct fault *fault)
{
	for (size_t i = 0; i < vifs->array.n_items; i++) {
		const char *network = value_find_string(vifs->array.items[i], "network", "");
		int r = object_check(pool, "network", network, fault);
		if (r < 0)
			return r;
	}
	return 0;
}

struct value *receiver_plan_disks(
	const struct supervisor_params *params, const struct value *manifest)
{
	const struct value *sent = value_find(manifest, "disks");
	bool copy = value_find_bool(manifest, "copy", false);
	struct value *disks = value_new_array();

	for (size_t i = 0; i < sent->array.n_items; i++) {
		const struct value *from = sent->array.items[i];
		const struct value *fields = value_find(from, "fields");
		const char *uuid = value_find_string(from, "uuid", "");
		char *taken CLEANUP_FREE = NULL;
		char *fresh CLEANUP_FREE = uuid_new();
		struct value *disk = value_new_struct();
		bool keep = !copy &&
			    (rehome_is_wanted(manifest) || object_get_by_uuid(params->storage->pool,
								   "VDI", uuid, &taken, NULL) < 0);
		value_set_string(disk, "uuid", keep ? uuid : fresh);
		value_set_string(disk, "vdi", value_find_string(from, "vdi", REF_NULL));
		value_set_string(disk, "from_sr", value_find_string(from, "from_sr", ""));
		value_set_string(disk, "sr", value_find_string(from, "sr", ""));
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
static int check_import(
	const struct supervisor_params *params, const struct value *manifest, struct fault *fault)
{
	struct value *disks CLEANUP_VALUE = receiver_plan_disks(params, manifest);
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
	const struct value *disks = value_find(manifest, "disks");
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
		r = check_disks(disks, fault);
	if (r == 0)
		r = check_networks(pool, value_find(manifest, "vifs"), fault);
	for (size_t i = 0; r == 0 && i < disks->array.n_items; i++)
		r = check_space(pool, params->storage, disks, i, fault);
	return r < 0 ? r : check_import(params, manifest, fault);
}
