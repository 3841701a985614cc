/* SPDX-License-Identifier: Apache-2.0 */
/* Would this host take the VM? Asked by a dry run and again before the disks are made. */
#include "agent/migrate/peer.h"
#include "agent/migrate/receiver.h"
#include "base/alloc.h"
#include "base/uuid.h"
#include "target/disk.h"

#include <errno.h>
#include <string.h>

static int check_space(struct pool_db *pool, const struct storage *storage,
	const struct value *disks, size_t index, struct fault *fault)
{
	const char *sr = value_find_string(disks->array.items[index], "sr", "");
	char *dir CLEANUP_FREE = NULL;
	int64_t need = 0;
	uint64_t size;
	uint64_t available;

	if (!object_exists(pool, "SR", sr))
		return fault_set(fault, -ENOENT, "HANDLE_INVALID", "SR", sr, NULL);
	int r = sr_location(storage, sr, &dir, fault);
	if (r == 0)
		r = disk_space(dir, &size, &available, fault);
	if (r < 0)
		return r;
	for (size_t i = 0; i < disks->array.n_items; i++)
		if (strcmp(value_find_string(disks->array.items[i], "sr", ""), sr) == 0)
			need += peer_int(disks->array.items[i], "allocated", 0);
	if ((uint64_t)need <= available)
		return 0;
	char *text CLEANUP_FREE = xasprintf("preflight: the destination SR %s (%s) has %llu bytes "
					    "free, the disks that would go "
					    "there have %lld allocated",
		sr, dir, (unsigned long long)available, (long long)need);
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
	if (own_pool && strcmp(own_pool, value_find_string(manifest, "source_pool_uuid", "")) == 0)
		return fault_set(fault, -EPERM, "OPERATION_NOT_ALLOWED",
			"source and destination are the same pool: this moves VMs between pools",
			NULL);
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

static bool is_array(const struct value *value)
{
	return value && value->type == VALUE_ARRAY;
}

static int check_disks(const struct value *disks, struct fault *fault)
{
	for (size_t i = 0; i < disks->array.n_items; i++) {
		int64_t size = peer_int(disks->array.items[i], "size", 0);
		if (size <= 0 || size % DISK_SECTOR ||
			!uuid_is_valid(value_find_string(disks->array.items[i], "uuid", "")))
			return fault_text(fault, -EINVAL,
				"manifest: disk %zu: size %lld must be a positive multiple of %d, "
				"the "
				"uuid well-formed",
				i, (long long)size, DISK_SECTOR);
	}
	return 0;
}

int receiver_check(
	const struct supervisor_params *params, const struct value *manifest, struct fault *fault)
{
	struct pool_db *pool = params->storage->pool;
	const struct value *disks = value_find(manifest, "disks");
	const struct value *vifs = value_find(manifest, "vifs");
	const char *protocol = value_find_string(manifest, "protocol", "");

	if (strcmp(protocol, PEER_PROTOCOL) != 0)
		return fault_text(fault, -EPROTONOSUPPORT,
			"the sender speaks migration protocol \"%s\", this pool " PEER_PROTOCOL
			"; both must run the same version",
			protocol);
	if (!is_array(disks) || !is_array(vifs) || !is_array(value_find(manifest, "vbds")) ||
		!value_find(manifest, "vm"))
		return fault_text(
			fault, -EINVAL, "manifest: vm, disks, vbds and vifs must be there");
	int r = check_host(params, fault);
	if (r == 0)
		r = check_identity(params, manifest, fault);
	if (r == 0)
		r = check_disks(disks, fault);
	for (size_t i = 0; r == 0 && i < vifs->array.n_items; i++) {
		const char *network = value_find_string(vifs->array.items[i], "network", "");
		if (!object_exists(pool, "network", network))
			r = fault_set(fault, -ENOENT, "HANDLE_INVALID", "network", network, NULL);
	}
	for (size_t i = 0; r == 0 && i < disks->array.n_items; i++)
		r = check_space(pool, params->storage, disks, i, fault);
	return r;
}
