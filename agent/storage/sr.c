/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/storage/private.h"
#include "base/alloc.h"
#include "base/uuid.h"

#include <errno.h>
#include <string.h>

static void set_strings(struct value *record, const char *name, const char *const *items)
{
	struct value *array = value_new_array();

	for (; *items; items++)
		value_append_string(array, *items);
	value_set(record, name, array);
}

/* --- sr_create ----------------------------------------------------------------------------------
 */

static int check_request(const struct value *fields, struct fault *fault)
{
	const char *type = value_find_string(fields, "type", "");

	if (strcmp(type, "file") != 0)
		return fault_set(fault, -EINVAL, "SR_UNKNOWN_DRIVER", type, NULL);
	return 0;
}

struct sr_request {
	const char *host_ref;
	const char *dir;
	const char *uuid;
	const struct value *fields;
	const struct value *device_config;
	char *ref; /* result */
};

/* Scripts look for the default before they look for anything else: a pool has one as soon as it has
 * an SR. */
static int adopt_as_default(struct pool_db *pool, const char *sr, struct fault *fault)
{
	struct value *pools CLEANUP_VALUE = NULL;
	struct value *ref CLEANUP_VALUE = value_new_string(sr);
	int r = object_find(pool, "pool", "default_SR", REF_NULL, &pools, fault);

	for (size_t i = 0; r >= 0 && i < pools->array.n_items; i++)
		r = object_set_field(
			pool, "pool", pools->array.items[i]->string, "default_SR", ref, fault);
	return r;
}

static int insert_sr(struct pool_db *pool, void *arg, struct fault *fault)
{
	static const char *const operations[] = {"scan", "destroy", "forget", "update",
		"vdi_create", "vdi_destroy", "vdi_resize", "vdi_mirror", NULL};
	struct sr_request *request = arg;
	struct value *sr CLEANUP_VALUE = value_copy(request->fields);
	struct value *pbd CLEANUP_VALUE = value_new_struct();
	struct value *config = value_copy(request->device_config);
	char *pbd_ref CLEANUP_FREE = NULL;
	int r = sr_check_unused(pool, request->host_ref, request->dir, NULL, fault);

	value_set_string(sr, "uuid", request->uuid);
	value_set_string(config, "location", request->dir);
	value_set(pbd, "device_config", config);
	if (r < 0)
		return r;
	if (!*value_find_string(sr, "content_type", ""))
		value_set_string(sr, "content_type", "user");
	set_strings(sr, "allowed_operations", operations);
	r = object_create(pool, "SR", sr, &request->ref, fault);
	if (r < 0)
		return r;
	value_set_string(pbd, "host", request->host_ref);
	value_set_string(pbd, "SR", request->ref);
	value_set_bool(pbd, "currently_attached", true);
	r = object_create(pool, "PBD", pbd, &pbd_ref, fault);
	return r < 0 ? r : adopt_as_default(pool, request->ref, fault);
}

/* The mark of a shared SR first: where it cannot be made there is no such SR. */
static int make_sr(const struct storage *storage, struct sr_request *request, struct fault *fault)
{
	bool is_shared = value_find_bool(request->fields, "shared", false);
	int r = is_shared ? mark_make(storage, request->dir, request->uuid, fault)
			  : mark_check_foreign(request->dir, request->uuid, fault);

	if (r == 0)
		r = pool_db_transaction(storage->pool, insert_sr, request, fault);
	if (is_shared)
		mark_settle(storage, request->uuid);
	return r;
}

int sr_create(const struct storage *storage, const struct value *device_config,
	const struct value *fields, char **ret_ref, struct fault *fault)
{
	char *dir CLEANUP_FREE = NULL;
	char *uuid CLEANUP_FREE = uuid_new();
	int r = check_request(fields, fault);

	if (r == 0)
		r = sr_resolve_location(storage, device_config, NULL, &dir, fault);
	if (r < 0)
		return r;
	struct sr_request request = {
		.host_ref = storage->host_ref,
		.dir = dir,
		.uuid = uuid,
		.fields = fields,
		.device_config = device_config,
	};
	char *ref CLEANUP_FREE = NULL;
	r = make_sr(storage, &request, fault);
	ref = request.ref;
	if (r < 0)
		return r;
	/* The SR stands; sizes that cannot be told now come with the next refresh. */
	sr_refresh(storage, ref, NULL);
	*ret_ref = TAKE_PTR(ref);
	return 0;
}

/* --- sr_set_shared ------------------------------------------------------------------------------
 */

struct sharing {
	const char *sr;
	bool shared;
};

static int store_shared(struct pool_db *pool, void *arg, struct fault *fault)
{
	const struct sharing *sharing = arg;
	struct value *value CLEANUP_VALUE = value_new_bool(sharing->shared);
	struct value *pbds CLEANUP_VALUE = NULL;
	int r = object_find(pool, "PBD", "SR", sharing->sr, &pbds, fault);

	if (r == 0 && !sharing->shared && pbds->array.n_items > 1)
		return fault_set(fault, -EBUSY, "SR_HAS_MULTIPLE_PBDS", sharing->sr, NULL);
	return r < 0 ? r : object_set_field(pool, "SR", sharing->sr, "shared", value, fault);
}

int sr_set_shared(const struct storage *storage, const char *sr, bool shared, struct fault *fault)
{
	struct sharing sharing = {sr, shared};
	char *dir CLEANUP_FREE = NULL;
	char *uuid CLEANUP_FREE = NULL;
	int r = object_get_string(storage->pool, "SR", sr, "uuid", &uuid, fault);

	if (r == 0)
		r = journal_check_sr_idle(storage, sr, fault);
	if (r == 0)
		r = sr_location(storage, sr, &dir, fault);
	if (r == 0)
		r = shared ? mark_make(storage, dir, uuid, fault)
			   : mark_record(storage, dir, uuid, fault);
	if (r == 0)
		r = pool_db_transaction(storage->pool, store_shared, &sharing, fault);
	if (uuid)
		mark_settle(storage, uuid);
	return r;
}

/* --- sr_forget, sr_destroy
 * -------------------------------------------------------------------------- */

static int destroy_all(
	struct pool_db *pool, const char *class, const struct value *refs, struct fault *fault)
{
	int r = 0;

	for (size_t i = 0; r >= 0 && i < refs->array.n_items; i++)
		r = object_destroy(pool, class, refs->array.items[i]->string, fault);
	return r;
}

struct sr_removal {
	const char *sr;
	const char *host;
};

/* Another host may be working on its files. */
static int check_unplugged(struct pool_db *pool, const struct sr_removal *removal,
	const struct value *pbds, struct fault *fault)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < pbds->array.n_items; i++) {
		struct value *pbd CLEANUP_VALUE = NULL;
		r = object_get_record(pool, "PBD", pbds->array.items[i]->string, &pbd, fault);
		if (r == 0 && value_find_bool(pbd, "currently_attached", false) &&
			strcmp(value_find_string(pbd, "host", ""), removal->host) != 0)
			r = fault_set(fault, -EBUSY, "SR_HAS_PBD", removal->sr, NULL);
	}
	return r;
}

/* The rows of the SR itself, once no VDI is left. */
static int delete_sr(struct pool_db *pool, const struct sr_removal *removal, struct fault *fault)
{
	struct value *pbds CLEANUP_VALUE = NULL;
	int r = object_find(pool, "PBD", "SR", removal->sr, &pbds, fault);

	if (r >= 0)
		r = check_unplugged(pool, removal, pbds, fault);
	if (r >= 0)
		r = destroy_all(pool, "PBD", pbds, fault);
	return r < 0 ? r : object_destroy(pool, "SR", removal->sr, fault);
}

static int check_no_vbd(struct pool_db *pool, const struct value *vdis, struct fault *fault)
{
	for (size_t i = 0; i < vdis->array.n_items; i++) {
		const char *vdi = vdis->array.items[i]->string;
		struct value *vbds CLEANUP_VALUE = NULL;
		int r = object_find(pool, "VBD", "VDI", vdi, &vbds, fault);
		if (r < 0)
			return r;
		if (vbds->array.n_items)
			return fault_set(fault, -EBUSY, "VDI_IN_USE", vdi, "forget", NULL);
	}
	return 0;
}

static int forget_rows(struct pool_db *pool, void *arg, struct fault *fault)
{
	const struct sr_removal *removal = arg;
	struct value *vdis CLEANUP_VALUE = NULL;
	int r = object_find(pool, "VDI", "SR", removal->sr, &vdis, fault);

	if (r >= 0)
		r = check_no_vbd(pool, vdis, fault);
	if (r >= 0)
		r = destroy_all(pool, "VDI", vdis, fault);
	return r < 0 ? r : delete_sr(pool, removal, fault);
}

static int destroy_empty(struct pool_db *pool, void *arg, struct fault *fault)
{
	const struct sr_removal *removal = arg;
	struct value *vdis CLEANUP_VALUE = NULL;
	int r = object_find(pool, "VDI", "SR", removal->sr, &vdis, fault);

	if (r < 0)
		return r;
	if (vdis->array.n_items)
		return fault_set(fault, -ENOTEMPTY, "SR_NOT_EMPTY", NULL);
	return delete_sr(pool, removal, fault);
}

/* A mark goes with its SR, where that is plugged in; otherwise it stays, and says why a directory
 * cannot be used. */
static int record_mark(
	const struct storage *storage, const char *sr, const char *uuid, struct fault *fault)
{
	char *dir CLEANUP_FREE = NULL;
	bool is_shared = false;
	int r = object_get_bool(storage->pool, "SR", sr, "shared", &is_shared, fault);

	if (r < 0 || !is_shared || sr_location(storage, sr, &dir, NULL) < 0)
		return r;
	return mark_record(storage, dir, uuid, fault);
}

static int remove_sr(
	const struct storage *storage, const char *sr, pool_db_fn remove_rows, struct fault *fault)
{
	struct sr_removal removal = {sr, storage->host_ref};
	char *uuid CLEANUP_FREE = NULL;
	int r = object_check(storage->pool, "SR", sr, fault);

	if (r == 0)
		r = object_get_string(storage->pool, "SR", sr, "uuid", &uuid, fault);
	if (r == 0)
		r = journal_check_sr_idle(storage, sr, fault);
	if (r == 0)
		r = record_mark(storage, sr, uuid, fault);
	if (r == 0)
		r = pool_db_transaction(storage->pool, remove_rows, &removal, fault);
	if (uuid)
		mark_settle(storage, uuid);
	return r;
}

int sr_forget(const struct storage *storage, const char *sr, struct fault *fault)
{
	return remove_sr(storage, sr, forget_rows, fault);
}

int sr_destroy(const struct storage *storage, const char *sr, struct fault *fault)
{
	return remove_sr(storage, sr, destroy_empty, fault);
}

/* --- sr_location --------------------------------------------------------------------------------
 */

/* NULL: it is not plugged in here. */
static int find_location(
	const struct storage *storage, const char *sr, char **ret_path, struct fault *fault)
{
	struct value *pbds CLEANUP_VALUE = NULL;
	int r = object_find(storage->pool, "PBD", "SR", sr, &pbds, fault);

	for (size_t i = 0; r == 0 && i < pbds->array.n_items; i++) {
		struct value *pbd CLEANUP_VALUE = NULL;
		r = object_get_record(
			storage->pool, "PBD", pbds->array.items[i]->string, &pbd, fault);
		if (r < 0)
			return r;
		const struct value *config = value_find(pbd, "device_config");
		const char *location = value_find_string(config, "location", "");
		if (strcmp(value_find_string(pbd, "host", ""), storage->host_ref) != 0 ||
			!value_find_bool(pbd, "currently_attached", false) || !*location)
			continue;
		*ret_path = xstrdup(location);
		return 0;
	}
	return r;
}

int sr_location(const struct storage *storage, const char *sr, char **ret_path, struct fault *fault)
{
	char *uuid CLEANUP_FREE = NULL;
	char *path CLEANUP_FREE = NULL;
	bool is_shared = false;
	int r = object_get_string(storage->pool, "SR", sr, "uuid", &uuid, fault);

	if (r == 0)
		r = object_get_bool(storage->pool, "SR", sr, "shared", &is_shared, fault);
	if (r == 0)
		r = find_location(storage, sr, &path, fault);
	if (r == 0 && !path)
		r = fault_set(fault, -ENOTCONN, "SR_NOT_ATTACHED", uuid, NULL);
	/* A file system that is not mounted is an empty directory. */
	if (r == 0 && is_shared)
		r = mark_check(path, uuid, fault);
	if (r < 0)
		return r;
	*ret_path = TAKE_PTR(path);
	return 0;
}

int sr_is_plugged(struct pool_db *pool, const char *sr, const char *host_ref, struct fault *fault)
{
	struct value *pbds CLEANUP_VALUE = NULL;
	int r = object_find(pool, "PBD", "SR", sr, &pbds, fault);

	for (size_t i = 0; r == 0 && i < pbds->array.n_items; i++) {
		struct value *pbd CLEANUP_VALUE = NULL;
		r = object_get_record(pool, "PBD", pbds->array.items[i]->string, &pbd, fault);
		if (r == 0 && value_find_bool(pbd, "currently_attached", false) &&
			strcmp(value_find_string(pbd, "host", ""), host_ref) == 0)
			return 1;
	}
	return r;
}

int sr_add_allocation(struct pool_db *pool, const char *sr, int64_t bytes, struct fault *fault)
{
	int64_t allocation;
	int r = object_get_int(pool, "SR", sr, "virtual_allocation", &allocation, fault);

	if (r < 0)
		return r;
	struct value *sum CLEANUP_VALUE = value_new_int(MAX(allocation + bytes, 0));
	return object_set_field(pool, "SR", sr, "virtual_allocation", sum, fault);
}
