/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/api/placement.h"

#include "base/alloc.h"
#include "base/uuid.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* Refs of the hosts at which it is plugged. */
static int hosts_of_sr(
	struct pool_db *pool, const char *sr, struct value **ret_hosts, struct fault *fault)
{
	struct value *hosts CLEANUP_VALUE = value_new_array();
	struct value *pbds CLEANUP_VALUE = NULL;
	int r = object_find(pool, "PBD", "SR", sr, &pbds, fault);

	for (size_t i = 0; r == 0 && i < pbds->array.n_items; i++) {
		struct value *pbd CLEANUP_VALUE = NULL;
		r = object_get_record(pool, "PBD", pbds->array.items[i]->string, &pbd, fault);
		if (r == 0 && value_find_bool(pbd, "currently_attached", false))
			value_append_string(hosts, value_find_string(pbd, "host", REF_NULL));
	}
	if (r < 0)
		return r;
	*ret_hosts = TAKE_PTR(hosts);
	return 0;
}

static bool is_live(struct pool_db *pool, const struct value *host)
{
	bool live = false;

	return object_get_bool(pool, "host_metrics", value_find_string(host, "metrics", REF_NULL),
		       "live", &live, NULL) == 0 &&
	       live;
}

char *placement_of_sr(struct pool_db *pool, const char *sr, const char *preferred)
{
	struct value *hosts CLEANUP_VALUE = NULL;

	if (hosts_of_sr(pool, sr, &hosts, NULL) < 0 || hosts->array.n_items == 0)
		return NULL;
	if (value_contains_string(hosts, preferred))
		return xstrdup(preferred);
	for (size_t i = 0; i < hosts->array.n_items; i++) {
		const char *host = hosts->array.items[i]->string;
		struct value *record CLEANUP_VALUE = NULL;
		if (object_get_record(pool, "host", host, &record, NULL) == 0 &&
			is_live(pool, record))
			return xstrdup(host);
	}
	return xstrdup(hosts->array.items[0]->string);
}

static bool is_usable(struct pool_db *pool, const struct value *host)
{
	return value_find_bool(host, "enabled", false) && is_live(pool, host);
}

static int usable_hosts(struct pool_db *pool, struct value **ret_hosts, struct fault *fault)
{
	struct value *records CLEANUP_VALUE = NULL;
	int r = object_get_all_records(pool, "host", &records, fault);

	if (r < 0)
		return r;
	*ret_hosts = value_new_array();
	for (size_t i = 0; i < records->record.n_members; i++)
		if (is_usable(pool, records->record.members[i].value))
			value_append_string(*ret_hosts, records->record.members[i].name);
	return 0;
}

static struct value *intersect(const struct value *a, const struct value *b)
{
	struct value *both = value_new_array();

	for (size_t i = 0; i < a->array.n_items; i++)
		if (value_contains_string(b, a->array.items[i]->string))
			value_append_string(both, a->array.items[i]->string);
	return both;
}

/* Leaves those that reach the disk. */
static int narrow(struct pool_db *pool, const char *vm, const char *vbd, struct value **hosts,
	struct fault *fault)
{
	char *vdi CLEANUP_FREE = NULL;
	char *sr CLEANUP_FREE = NULL;
	struct value *there CLEANUP_VALUE = NULL;
	int r = object_get_string(pool, "VBD", vbd, "VDI", &vdi, fault);

	if (r < 0 || ref_is_null(vdi))
		return r;
	r = object_get_string(pool, "VDI", vdi, "SR", &sr, fault);
	if (r == 0)
		r = hosts_of_sr(pool, sr, &there, fault);
	if (r < 0)
		return r;
	if (there->array.n_items == 0)
		return fault_set(fault, -ENOTCONN, "VM_REQUIRES_SR", vm, sr, NULL);
	struct value *left = intersect(*hosts, there);
	value_free(*hosts);
	*hosts = left;
	return 0;
}

int placement_others_reach(struct pool_db *pool, const char *sr, const char *host,
	bool *ret_reached, struct fault *fault)
{
	struct value *hosts CLEANUP_VALUE = NULL;
	struct value *usable CLEANUP_VALUE = NULL;
	int r = hosts_of_sr(pool, sr, &hosts, fault);

	if (r == 0)
		r = usable_hosts(pool, &usable, fault);
	if (r < 0)
		return r;
	struct value *both CLEANUP_VALUE = intersect(hosts, usable);
	*ret_reached = both->array.n_items > (value_contains_string(both, host) ? 1 : 0);
	return 0;
}

int placement_candidates(
	struct pool_db *pool, const char *vm, struct value **ret_hosts, struct fault *fault)
{
	struct value *hosts CLEANUP_VALUE = NULL;
	struct value *vbds CLEANUP_VALUE = NULL;
	int r = object_check(pool, "VM", vm, fault);

	if (r == 0)
		r = usable_hosts(pool, &hosts, fault);
	if (r == 0)
		r = object_find(pool, "VBD", "VM", vm, &vbds, fault);
	for (size_t i = 0; r == 0 && i < vbds->array.n_items; i++)
		r = narrow(pool, vm, vbds->array.items[i]->string, &hosts, fault);
	if (r == 0 && hosts->array.n_items == 0)
		r = fault_set(fault, -EHOSTDOWN, "NO_HOSTS_AVAILABLE", vm, NULL);
	if (r < 0)
		return r;
	*ret_hosts = TAKE_PTR(hosts);
	return 0;
}

int64_t placement_free_memory(struct pool_db *pool, const char *host)
{
	char *metrics CLEANUP_FREE = NULL;
	int64_t bytes = 0;

	if (object_get_string(pool, "host", host, "metrics", &metrics, NULL) < 0 ||
		object_get_int(pool, "host_metrics", metrics, "memory_free", &bytes, NULL) < 0)
		return 0;
	return bytes;
}

/* The SRs of the VM's disks. */
static int check_disks(struct pool_db *pool, const char *vm, const char *host, struct fault *fault)
{
	struct value *vbds CLEANUP_VALUE = NULL;
	int r = object_find(pool, "VBD", "VM", vm, &vbds, fault);

	for (size_t i = 0; r == 0 && i < vbds->array.n_items; i++) {
		char *vdi CLEANUP_FREE = NULL;
		char *sr CLEANUP_FREE = NULL;
		struct value *there CLEANUP_VALUE = NULL;
		r = object_get_string(
			pool, "VBD", vbds->array.items[i]->string, "VDI", &vdi, fault);
		if (r < 0 || ref_is_null(vdi))
			continue;
		r = object_get_string(pool, "VDI", vdi, "SR", &sr, fault);
		if (r == 0)
			r = hosts_of_sr(pool, sr, &there, fault);
		if (r == 0 && !value_contains_string(there, host))
			return fault_set(fault, -ENOTCONN, "VM_REQUIRES_SR", vm, sr, NULL);
	}
	return r;
}

int placement_check(struct pool_db *pool, const char *vm, const char *host, struct fault *fault)
{
	struct value *record CLEANUP_VALUE = NULL;
	int64_t needed = 0;
	int r = object_get_int(pool, "VM", vm, "memory_dynamic_max", &needed, fault);

	if (r == 0)
		r = object_get_record(pool, "host", host, &record, fault);
	if (r < 0)
		return r;
	if (!value_find_bool(record, "enabled", false))
		return fault_set(fault, -EPERM, "HOST_DISABLED", host, NULL);
	if (!is_live(pool, record))
		return fault_set(fault, -EHOSTDOWN, "HOST_NOT_LIVE", NULL);
	r = check_disks(pool, vm, host, fault);
	int64_t available = placement_free_memory(pool, host);
	if (r < 0 || needed <= available)
		return r;
	char *want CLEANUP_FREE = xasprintf("%" PRId64, needed);
	char *have CLEANUP_FREE = xasprintf("%" PRId64, available);
	return fault_set(fault, -ENOMEM, "HOST_NOT_ENOUGH_FREE_MEMORY", want, have, NULL);
}

int placement_pick(struct pool_db *pool, const char *vm, char **ret_host, struct fault *fault)
{
	struct value *hosts CLEANUP_VALUE = NULL;
	char *affinity CLEANUP_FREE = NULL;
	const char *best = NULL;
	int64_t most = -1;
	int r = placement_candidates(pool, vm, &hosts, fault);

	if (r == 0)
		r = object_get_string(pool, "VM", vm, "affinity", &affinity, fault);
	if (r < 0)
		return r;
	if (value_contains_string(hosts, affinity)) {
		*ret_host = TAKE_PTR(affinity);
		return 0;
	}
	for (size_t i = 0; i < hosts->array.n_items; i++) {
		int64_t bytes = placement_free_memory(pool, hosts->array.items[i]->string);
		if (bytes <= most)
			continue;
		most = bytes;
		best = hosts->array.items[i]->string;
	}
	*ret_host = xstrdup(best);
	return 0;
}
