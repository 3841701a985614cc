/* SPDX-License-Identifier: Apache-2.0 */
/* The sender's side: where the VM may go, and which of its disks stay where they are. */
#include "agent/migrate/rehome.h"

#include "agent/migrate/plan.h"
#include "agent/vm/family.h"
#include "base/alloc.h"
#include "base/uuid.h"

#include <errno.h>
#include <string.h>

/* Of VM.pool_migrate: an SR for every disk that is copied, and one for a single disk. */
#define OPTION_SR       "sr"
#define OPTION_VDI      "vdi:"
#define OPTION_VDI_SIZE (sizeof(OPTION_VDI) - 1)

/* --- The host -----------------------------------------------------------------------------------
 */

const char *rehome_destination(struct pool_db *pool, const struct value *dest)
{
	const char *host = value_find_string(dest, "host", NULL);

	return host && object_exists(pool, "host", host) ? host : NULL;
}

int rehome_check_host(const struct storage *storage, const char *host, struct fault *fault)
{
	struct value *record CLEANUP_VALUE = NULL;
	bool is_live = false;
	int r = object_get_record(storage->pool, "host", host, &record, fault);

	if (r < 0)
		return r;
	if (strcmp(host, storage->host_ref) == 0)
		return fault_set(fault, -EINVAL, "OPERATION_NOT_ALLOWED",
			"the VM is at that host already; VDI.pool_migrate moves a disk to another "
			"SR of its host",
			NULL);
	r = object_get_bool(storage->pool, "host_metrics",
		value_find_string(record, "metrics", REF_NULL), "live", &is_live, fault);
	if (r == 0 && !is_live)
		r = fault_set(fault, -EHOSTDOWN, "HOST_NOT_LIVE", NULL);
	if (r == 0 && !value_find_bool(record, "enabled", false))
		r = fault_set(fault, -EPERM, "HOST_DISABLED", host, NULL);
	return r;
}

/* --- Disks and cards ----------------------------------------------------------------------------
 */

/* Puts the disk in the map if the host reaches its SR; 1: it does. */
static int map_reached(struct pool_db *pool, const char *vdi, const char *host, struct value *map,
	struct fault *fault)
{
	char *sr CLEANUP_FREE = NULL;
	int r = object_get_string(pool, "VDI", vdi, "SR", &sr, fault);

	if (r == 0)
		r = sr_is_plugged(pool, sr, host, fault);
	if (r > 0)
		value_set_string(map, vdi, sr);
	return r;
}

bool rehome_is_shared(struct pool_db *pool, const struct value *vdi_map, const char *vdi)
{
	char *sr CLEANUP_FREE = NULL;

	return object_get_string(pool, "VDI", vdi, "SR", &sr, NULL) == 0 &&
	       strcmp(sr, value_find_string(vdi_map, vdi, "")) == 0;
}

int rehome_check_drives(struct pool_db *pool, const char *vm, const char *host, struct fault *fault)
{
	struct value *vbds CLEANUP_VALUE = NULL;
	int r = object_find(pool, "VBD", "VM", vm, &vbds, fault);

	for (size_t i = 0; r >= 0 && i < vbds->array.n_items; i++) {
		struct value *vbd CLEANUP_VALUE = NULL;
		char *sr CLEANUP_FREE = NULL;
		r = object_get_record(pool, "VBD", vbds->array.items[i]->string, &vbd, fault);
		const char *vdi = value_find_string(vbd, "VDI", REF_NULL);
		if (r < 0 || strcmp(value_find_string(vbd, "type", ""), "CD") != 0 ||
			ref_is_null(vdi))
			continue;
		r = object_get_string(pool, "VDI", vdi, "SR", &sr, fault);
		if (r == 0)
			r = sr_is_plugged(pool, sr, host, fault);
		if (r == 0)
			r = fault_set(fault, -EPERM, "OPERATION_NOT_ALLOWED",
				"a CD is in one of the VM's drives that the destination does not "
				"reach: eject it first",
				NULL);
	}
	return MIN(r, 0);
}

/* --- Where copies go ----------------------------------------------------------------------------
 */

/* The pool's default SR, if the host reaches it; NULL: it does not. The caller frees it. */
static int default_sr(struct pool_db *pool, const char *host, char **ret_sr, struct fault *fault)
{
	struct value *pools CLEANUP_VALUE = NULL;
	int r = object_get_all_records(pool, "pool", &pools, fault);

	if (r < 0 || pools->record.n_members == 0)
		return r;
	const char *sr = value_find_string(pools->record.members[0].value, "default_SR", REF_NULL);
	r = ref_is_null(sr) ? 0 : sr_is_plugged(pool, sr, host, fault);
	if (r > 0)
		*ret_sr = xstrdup(sr);
	return MIN(r, 0);
}

static int64_t free_bytes(struct pool_db *pool, const char *sr)
{
	int64_t size = 0;
	int64_t used = 0;

	if (object_get_int(pool, "SR", sr, "physical_size", &size, NULL) < 0 ||
		object_get_int(pool, "SR", sr, "physical_utilisation", &used, NULL) < 0)
		return 0;
	return size - used;
}

/* Of the SRs that are plugged in at the host. */
static int roomiest_sr(struct pool_db *pool, const char *host, char **ret_sr, struct fault *fault)
{
	struct value *pbds CLEANUP_VALUE = NULL;
	int64_t most = -1;
	int r = object_get_all_records(pool, "PBD", &pbds, fault);

	for (size_t i = 0; r == 0 && i < pbds->record.n_members; i++) {
		const struct value *pbd = pbds->record.members[i].value;
		const char *sr = value_find_string(pbd, "SR", REF_NULL);
		int64_t bytes = free_bytes(pool, sr);
		if (strcmp(value_find_string(pbd, "host", ""), host) != 0 ||
			!value_find_bool(pbd, "currently_attached", false) || bytes <= most)
			continue;
		most = bytes;
		free(*ret_sr);
		*ret_sr = xstrdup(sr);
	}
	return r;
}

/* The SR that an option names; NULL: none does. */
static int named_sr(struct pool_db *pool, const struct value *options, const char *name,
	const char **ret_sr, struct fault *fault)
{
	*ret_sr = value_find_string(options, name, NULL);
	return *ret_sr ? object_check(pool, "SR", *ret_sr, fault) : 0;
}

static int check_options(const struct value *options, const struct value *vdis, struct fault *fault)
{
	for (size_t i = 0; i < options->record.n_members; i++) {
		const char *name = options->record.members[i].name;
		if (strncmp(name, OPTION_VDI, OPTION_VDI_SIZE) == 0 &&
			!value_contains_string(vdis, name + OPTION_VDI_SIZE))
			return fault_set(fault, -ENOENT, "INVALID_VALUE", "options",
				"vdi: must be followed by the ref of one of the VM's disks", NULL);
	}
	return 0;
}

/* The disk is not where the host reaches it, unless an option wants it elsewhere anyway. */
static int choose_sr(struct pool_db *pool, const char *host, const struct value *options,
	const char *vdi, struct value *map, struct fault *fault)
{
	char *option CLEANUP_FREE = xasprintf(OPTION_VDI "%s", vdi);
	char *chosen CLEANUP_FREE = NULL;
	const char *named = NULL;
	int r = named_sr(pool, options, option, &named, fault);

	if (r == 0 && !named)
		r = map_reached(pool, vdi, host, map, fault);
	if (r != 0)
		return MIN(r, 0);
	if (!named)
		r = named_sr(pool, options, OPTION_SR, &named, fault);
	if (r == 0 && !named)
		r = default_sr(pool, host, &chosen, fault);
	if (r == 0 && !named && !chosen)
		r = roomiest_sr(pool, host, &chosen, fault);
	if (r == 0 && (named || chosen))
		value_set_string(map, vdi, named ? named : chosen);
	return r;
}

int rehome_choose_srs(const struct storage *storage, const char *vm, const char *host,
	const struct value *options, struct value **ret_vdi_map, struct fault *fault)
{
	struct value *map CLEANUP_VALUE = value_new_struct();
	struct value *vdis CLEANUP_VALUE = value_new_array();
	int r = vm_add_disks(storage->pool, vm, vdis, fault);

	if (r == 0)
		r = check_options(options, vdis, fault);
	for (size_t i = 0; r == 0 && i < vdis->array.n_items; i++) {
		const char *vdi = vdis->array.items[i]->string;
		char *sr CLEANUP_FREE = NULL;
		r = choose_sr(storage->pool, host, options, vdi, map, fault);
		if (r < 0 || value_find(map, vdi))
			continue;
		r = object_get_string(storage->pool, "VDI", vdi, "SR", &sr, fault);
		if (r == 0)
			r = fault_set(fault, -ENOTCONN, "VM_REQUIRES_SR", vm, sr, NULL);
	}
	if (r < 0)
		return r;
	*ret_vdi_map = TAKE_PTR(map);
	return 0;
}

/* --- The maps -----------------------------------------------------------------------------------
 */

static int map_card(struct pool_db *pool, const char *vif, const struct value *wanted,
	struct value *map, struct fault *fault)
{
	const char *other = value_find_string(wanted, vif, NULL);
	char *network CLEANUP_FREE = NULL;
	int r = object_get_string(pool, "VIF", vif, "network", &network, fault);

	if (r < 0)
		return r;
	if (other && strcmp(other, network) != 0)
		return fault_set(fault, -EINVAL, "OPERATION_NOT_ALLOWED",
			"within a pool a VM keeps its networks: leave vif_map empty", NULL);
	value_set_string(map, vif, network);
	return 0;
}

static int map_cards(struct pool_db *pool, const char *vm, const struct value *wanted,
	struct value *map, struct fault *fault)
{
	struct value *vifs CLEANUP_VALUE = NULL;
	int r = object_find(pool, "VIF", "VM", vm, &vifs, fault);

	for (size_t i = 0; r == 0 && i < vifs->array.n_items; i++)
		r = map_card(pool, vifs->array.items[i]->string, wanted, map, fault);
	return r;
}

static int map_own(struct pool_db *pool, const char *vm, const char *host, struct value *map,
	struct fault *fault)
{
	struct value *vdis CLEANUP_VALUE = value_new_array();
	int r = vm_add_disks(pool, vm, vdis, fault);

	for (size_t i = 0; r >= 0 && i < vdis->array.n_items; i++)
		if (!value_find(map, vdis->array.items[i]->string))
			r = map_reached(pool, vdis->array.items[i]->string, host, map, fault);
	return MIN(r, 0);
}

/* Its disks stay where the host reaches them, else they go where the disks go that they were taken
 * of, else where any other would. */
static int map_snapshot(struct pool_db *pool, const char *snapshot, const char *host,
	struct value *map, struct fault *fault)
{
	struct value *nothing CLEANUP_VALUE = value_new_struct();
	struct value *vdis CLEANUP_VALUE = value_new_array();
	int r = vm_add_snapshot_disks(pool, snapshot, vdis, fault);

	for (size_t i = 0; r >= 0 && i < vdis->array.n_items; i++)
		if (!value_find(map, vdis->array.items[i]->string))
			r = map_reached(pool, vdis->array.items[i]->string, host, map, fault);
	if (r >= 0)
		r = plan_follow_disks(pool, snapshot, map, fault);
	for (size_t i = 0; r >= 0 && i < vdis->array.n_items; i++)
		if (!value_find(map, vdis->array.items[i]->string))
			r = choose_sr(
				pool, host, nothing, vdis->array.items[i]->string, map, fault);
	return MIN(r, 0);
}

int rehome_maps(const struct storage *storage, const struct migrate_request *request,
	const char *host, struct value **ret_vdi_map, struct value **ret_vif_map,
	struct fault *fault)
{
	struct pool_db *pool = storage->pool;
	struct value *vdi_map CLEANUP_VALUE = value_copy(request->vdi_map);
	struct value *vif_map CLEANUP_VALUE = value_new_struct();
	struct value *snapshots CLEANUP_VALUE = NULL;
	int r = map_own(pool, request->vm, host, vdi_map, fault);

	if (r == 0)
		r = map_cards(pool, request->vm, request->vif_map, vif_map, fault);
	if (r == 0)
		r = vm_list_snapshots(pool, request->vm, &snapshots, fault);
	for (size_t i = 0; r == 0 && i < snapshots->array.n_items; i++) {
		const char *snapshot = snapshots->array.items[i]->string;
		r = map_snapshot(pool, snapshot, host, vdi_map, fault);
		if (r == 0)
			r = map_cards(pool, snapshot, request->vif_map, vif_map, fault);
	}
	if (r < 0)
		return r;
	*ret_vdi_map = TAKE_PTR(vdi_map);
	*ret_vif_map = TAKE_PTR(vif_map);
	return 0;
}
