/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/storage/private.h"
#include "base/alloc.h"
#include "base/uuid.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

/* "<dir>/<uuid>.raw" must stay a valid path. */
#define DIR_MAX_BYTES (PATH_MAX - 64)

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
	/* A directory of one host: to call it shared would let a migration move no bytes. */
	if (value_find_bool(fields, "shared", false))
		return fault_set(fault, -EINVAL, "INVALID_VALUE", "shared", "true", NULL);
	return 0;
}

/* device_config:location, checked, with symbolic links resolved. */
static int resolve_location(
	const struct value *device_config, char **ret_dir, struct stat *ret_st, struct fault *fault)
{
	const char *location = value_find_string(device_config, "location", "");
	char *dir CLEANUP_FREE = NULL;

	if (!*location)
		return sr_fault(fault, -EINVAL, SR_FAILURE_NO_LOCATION,
			"device_config:location is missing; it must be the absolute path of an "
			"existing directory");
	if (*location != '/')
		return sr_fault(fault, -EINVAL, SR_FAILURE_BAD_DIRECTORY,
			"device_config:location = \"%s\" is not an absolute path", location);
	dir = realpath(location, NULL);
	if (!dir || stat(dir, ret_st) < 0) {
		int error = -errno;
		return sr_fault(fault, error, SR_FAILURE_BAD_DIRECTORY,
			"device_config:location = \"%s\": %s; it must be an existing directory",
			location, strerror(-error));
	}
	if (!S_ISDIR(ret_st->st_mode))
		return sr_fault(fault, -ENOTDIR, SR_FAILURE_BAD_DIRECTORY,
			"device_config:location = \"%s\" is not a directory", location);
	if (!storage_name_is_safe(dir) || strlen(dir) > DIR_MAX_BYTES)
		return sr_fault(fault, -EINVAL, SR_FAILURE_BAD_CHARACTER,
			"the directory \"%s\" cannot be exported: its path must be UTF-8 without "
			"commas and control characters, of at most %d bytes",
			dir, DIR_MAX_BYTES);
	if (faccessat(AT_FDCWD, dir, R_OK | W_OK | X_OK, AT_EACCESS) < 0) {
		int error = -errno;
		return sr_fault(fault, error, SR_FAILURE_BAD_DIRECTORY,
			"the directory \"%s\" cannot be read and written by the daemon's user "
			"(uid %u): %s",
			dir, (unsigned)geteuid(), strerror(-error));
	}
	*ret_dir = TAKE_PTR(dir);
	return 0;
}

static bool is_same_directory(const char *dir, const struct stat *st, const char *other)
{
	struct stat other_st;

	if (strcmp(dir, other) == 0)
		return true;
	/* The same directory under another name: a bind mount. */
	return st && stat(other, &other_st) == 0 && other_st.st_dev == st->st_dev &&
	       other_st.st_ino == st->st_ino;
}

/* Refuses a directory that another SR of this host uses. st NULL: names only, no I/O. */
static int check_unused(struct pool_db *pool, const char *host, const char *dir,
	const struct stat *st, struct fault *fault)
{
	struct value *pbds CLEANUP_VALUE = NULL;
	int r = object_get_all_records(pool, "PBD", &pbds, fault);

	if (r < 0)
		return r;
	for (size_t i = 0; i < pbds->record.n_members; i++) {
		const struct value *pbd = pbds->record.members[i].value;
		const struct value *config = value_find(pbd, "device_config");
		const char *other = value_find_string(config, "location", "");
		if (strcmp(value_find_string(pbd, "host", ""), host) != 0 || !*other)
			continue;
		if (!is_same_directory(dir, st, other))
			continue;
		char *label CLEANUP_FREE = NULL;
		object_get_string(
			pool, "SR", value_find_string(pbd, "SR", ""), "name_label", &label, NULL);
		return sr_fault(fault, -EEXIST, SR_FAILURE_IN_USE,
			"the directory \"%s\" is used by the SR \"%s\" already", dir,
			label ? label : "");
	}
	return 0;
}

struct sr_request {
	const char *host_ref;
	const char *dir;
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
	int r = check_unused(pool, request->host_ref, request->dir, NULL, fault);

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

int sr_create(const struct storage *storage, const struct value *device_config,
	const struct value *fields, char **ret_ref, struct fault *fault)
{
	char *dir CLEANUP_FREE = NULL;
	struct stat st;
	int r = check_request(fields, fault);

	if (r == 0)
		r = resolve_location(device_config, &dir, &st, fault);
	if (r == 0)
		r = check_unused(storage->pool, storage->host_ref, dir, &st, fault);
	if (r < 0)
		return r;
	struct sr_request request = {
		.host_ref = storage->host_ref,
		.dir = dir,
		.fields = fields,
		.device_config = device_config,
	};
	char *ref CLEANUP_FREE = NULL;
	r = pool_db_transaction(storage->pool, insert_sr, &request, fault);
	ref = request.ref;
	if (r < 0)
		return r;
	/* The SR stands; sizes that cannot be told now come with the next refresh. */
	sr_refresh(storage, ref, NULL);
	*ret_ref = TAKE_PTR(ref);
	return 0;
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

/* The rows of the SR itself, once no VDI is left. */
static int delete_sr(struct pool_db *pool, const char *sr, struct fault *fault)
{
	struct value *pbds CLEANUP_VALUE = NULL;
	int r = object_find(pool, "PBD", "SR", sr, &pbds, fault);

	if (r >= 0)
		r = destroy_all(pool, "PBD", pbds, fault);
	return r < 0 ? r : object_destroy(pool, "SR", sr, fault);
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
	const char *sr = arg;
	struct value *vdis CLEANUP_VALUE = NULL;
	int r = object_find(pool, "VDI", "SR", sr, &vdis, fault);

	if (r >= 0)
		r = check_no_vbd(pool, vdis, fault);
	if (r >= 0)
		r = destroy_all(pool, "VDI", vdis, fault);
	return r < 0 ? r : delete_sr(pool, sr, fault);
}

static int destroy_empty(struct pool_db *pool, void *arg, struct fault *fault)
{
	const char *sr = arg;
	struct value *vdis CLEANUP_VALUE = NULL;
	int r = object_find(pool, "VDI", "SR", sr, &vdis, fault);

	if (r < 0)
		return r;
	if (vdis->array.n_items)
		return fault_set(fault, -ENOTEMPTY, "SR_NOT_EMPTY", NULL);
	return delete_sr(pool, sr, fault);
}

static int remove_sr(
	const struct storage *storage, const char *sr, pool_db_fn remove_rows, struct fault *fault)
{
	int r = object_check(storage->pool, "SR", sr, fault);
	if (r == 0)
		r = journal_check_sr_idle(storage, sr, fault);
	return r < 0 ? r : pool_db_transaction(storage->pool, remove_rows, (void *)sr, fault);
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

int sr_location(const struct storage *storage, const char *sr, char **ret_path, struct fault *fault)
{
	char *uuid CLEANUP_FREE = NULL;
	struct value *pbds CLEANUP_VALUE = NULL;
	int r = object_get_string(storage->pool, "SR", sr, "uuid", &uuid, fault);

	if (r >= 0)
		r = object_find(storage->pool, "PBD", "SR", sr, &pbds, fault);
	if (r < 0)
		return r;
	for (size_t i = 0; i < pbds->array.n_items; i++) {
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
	return fault_set(fault, -ENOTCONN, "SR_NOT_ATTACHED", uuid, NULL);
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
