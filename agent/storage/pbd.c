/* SPDX-License-Identifier: Apache-2.0 */
/* How this host reaches an SR: the directory of its PBD. */
#include "agent/storage/private.h"
#include "base/alloc.h"
#include "base/log.h"
#include "base/uuid.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* "<dir>/<uuid>.raw" must stay a valid path. */
#define DIR_MAX_BYTES (PATH_MAX - 64)

/* --- The directory -------------------------------------------------------------------------------
 */

/* device_config:location, checked, with symbolic links resolved. */
static int look_up(
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
	const struct stat *st, const char *except, struct fault *fault)
{
	struct value *pbds CLEANUP_VALUE = NULL;
	int r = object_get_all_records(pool, "PBD", &pbds, fault);

	if (r < 0)
		return r;
	for (size_t i = 0; i < pbds->record.n_members; i++) {
		const struct value *pbd = pbds->record.members[i].value;
		const struct value *config = value_find(pbd, "device_config");
		const char *other = value_find_string(config, "location", "");
		if (strcmp(value_find_string(pbd, "host", ""), host) != 0 || !*other ||
			(except && strcmp(pbds->record.members[i].name, except) == 0))
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

int sr_check_unused(struct pool_db *pool, const char *host, const char *dir, const char *pbd,
	struct fault *fault)
{
	return check_unused(pool, host, dir, NULL, pbd, fault);
}

int sr_resolve_location(const struct storage *storage, const struct value *device_config,
	const char *pbd, char **ret_dir, struct fault *fault)
{
	char *dir CLEANUP_FREE = NULL;
	struct stat st;
	int r = look_up(device_config, &dir, &st, fault);

	if (r == 0)
		r = check_unused(storage->pool, storage->host_ref, dir, &st, pbd, fault);
	if (r < 0)
		return r;
	*ret_dir = TAKE_PTR(dir);
	return 0;
}

/* --- sr_plug ------------------------------------------------------------------------------------
 */

struct plugging {
	const struct storage *storage;
	const char *pbd;
	const char *sr;
	const char *dir;
	const struct value *device_config;
	bool is_shared;
};

/* An SR that is not shared belongs to the host that has it. */
static int check_sharing(struct pool_db *pool, const struct plugging *plugging, struct fault *fault)
{
	const char *host = plugging->storage->host_ref;
	struct value *pbds CLEANUP_VALUE = NULL;
	int r = object_find(pool, "PBD", "SR", plugging->sr, &pbds, fault);

	for (size_t i = 0; r == 0 && !plugging->is_shared && i < pbds->array.n_items; i++) {
		struct value *pbd CLEANUP_VALUE = NULL;
		r = object_get_record(pool, "PBD", pbds->array.items[i]->string, &pbd, fault);
		if (r == 0 && value_find_bool(pbd, "currently_attached", false) &&
			strcmp(value_find_string(pbd, "host", ""), host) != 0)
			r = fault_set(fault, -EPERM, "SR_NOT_SHARABLE", plugging->sr, host, NULL);
	}
	return r;
}

static int store_plugged(struct pool_db *pool, void *arg, struct fault *fault)
{
	const struct plugging *plugging = arg;
	struct value *fields CLEANUP_VALUE = value_new_struct();
	struct value *config = value_copy(plugging->device_config);
	int r = check_sharing(pool, plugging, fault);

	value_set_string(config, "location", plugging->dir);
	value_set(fields, "device_config", config);
	value_set_bool(fields, "currently_attached", true);
	if (r == 0)
		r = sr_check_unused(
			pool, plugging->storage->host_ref, plugging->dir, plugging->pbd, fault);
	return r < 0 ? r : object_set_fields(pool, "PBD", plugging->pbd, fields, fault);
}

static int check_mark(const struct plugging *plugging, struct fault *fault)
{
	char *uuid CLEANUP_FREE = NULL;
	int r = object_get_string(
		plugging->storage->pool, "SR", plugging->sr, "uuid", &uuid, fault);

	if (r < 0)
		return r;
	return plugging->is_shared ? mark_check(plugging->dir, uuid, fault)
				   : mark_check_foreign(plugging->dir, uuid, fault);
}

/* Plugged first, then looked at: storage reads what is plugged only. */
static int plug(struct plugging *plugging, struct fault *fault)
{
	struct pool_db *pool = plugging->storage->pool;
	struct value *unplugged CLEANUP_VALUE = value_new_bool(false);
	int r = pool_db_transaction(pool, store_plugged, plugging, fault);

	if (r < 0)
		return r;
	r = sr_refresh(plugging->storage, plugging->sr, fault);
	if (r < 0 && object_set_field(
			     pool, "PBD", plugging->pbd, "currently_attached", unplugged, NULL) < 0)
		log_error("pbd-plug-not-undone", "pbd=%s", plugging->pbd);
	return r;
}

int sr_plug(const struct storage *storage, const char *pbd, struct fault *fault)
{
	struct value *record CLEANUP_VALUE = NULL;
	char *dir CLEANUP_FREE = NULL;
	int r = object_get_record(storage->pool, "PBD", pbd, &record, fault);

	if (r < 0 || value_find_bool(record, "currently_attached", false))
		return r;
	struct plugging plugging = {.storage = storage,
		.pbd = pbd,
		.sr = value_find_string(record, "SR", REF_NULL),
		.device_config = value_find(record, "device_config")};
	r = object_get_bool(storage->pool, "SR", plugging.sr, "shared", &plugging.is_shared, fault);
	if (r == 0)
		r = sr_resolve_location(storage, plugging.device_config, pbd, &dir, fault);
	if (r < 0)
		return r;
	plugging.dir = dir;
	r = check_mark(&plugging, fault);
	return r < 0 ? r : plug(&plugging, fault);
}
