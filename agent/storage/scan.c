/* SPDX-License-Identifier: Apache-2.0 */
/* Bringing an SR's rows up to what its directory holds. */
#include "agent/storage/private.h"
#include "base/alloc.h"
#include "base/buf.h"
#include "base/log.h"
#include "base/uuid.h"
#include "target/disk.h"
#include "target/image.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* How many skipped files are said by name: sm_config travels with every SR record. */
#define SKIPPED_MAX    32
#define SKIPPED_PREFIX "skipped:"

struct scan {
	const struct storage *storage;
	const char *sr;
	char *dir;
	struct value *names;  /* array: what lies in the directory and may be an image */
	struct value *before; /* struct: locations of the VDI rows before the directory was read */
	struct value *known;  /* the same, after */
	struct journal journal;
	struct value *holds;   /* struct: what other hosts are working on */
	struct value *skipped; /* struct: name, made printable -> why */
	size_t n_skipped;
};

static void scan_clear(struct scan *scan)
{
	free(scan->dir);
	value_free(scan->names);
	value_free(scan->before);
	value_free(scan->known);
	value_free(scan->skipped);
	value_free(scan->holds);
	journal_clear(&scan->journal);
}

/* Struct: location -> ref of the SR's VDIs. */
static int load_locations(
	const struct scan *scan, struct value **ret_locations, struct fault *fault)
{
	struct pool_db *pool = scan->storage->pool;
	struct value *locations CLEANUP_VALUE = value_new_struct();
	struct value *vdis CLEANUP_VALUE = NULL;
	int r = object_find(pool, "VDI", "SR", scan->sr, &vdis, fault);

	for (size_t i = 0; r >= 0 && i < vdis->array.n_items; i++) {
		const char *vdi = vdis->array.items[i]->string;
		char *location CLEANUP_FREE = NULL;
		r = object_get_string(pool, "VDI", vdi, "location", &location, NULL);
		if (r == 0)
			value_set_string(locations, location, vdi);
		r = 0; /* destroyed meanwhile: then it names nothing */
	}
	if (r < 0)
		return r;
	*ret_locations = TAKE_PTR(locations);
	return 0;
}

static void close_directory(DIR **dir)
{
	if (*dir)
		closedir(*dir);
}

static int list_directory(struct scan *scan, struct fault *fault)
{
	DIR *dir CLEANUP(close_directory) = opendir(scan->dir);

	if (!dir) {
		int error = -errno;
		return sr_fault(fault, error, SR_FAILURE_SCAN, "cannot list %s: %s", scan->dir,
			strerror(-error));
	}
	for (;;) {
		errno = 0;
		const struct dirent *entry = readdir(dir);
		if (!entry)
			break;
		/* Hidden files and folders such as lost+found are not images of anything. */
		if (entry->d_name[0] == '.' || entry->d_type == DT_DIR)
			continue;
		value_append_string(scan->names, entry->d_name);
	}
	if (errno) {
		int error = -errno;
		return sr_fault(fault, error, SR_FAILURE_SCAN, "cannot list %s: %s", scan->dir,
			strerror(-error));
	}
	return 0;
}

static void skip(struct scan *scan, const char *name, const char *why)
{
	struct buf key CLEANUP_BUF = BUF_INIT;

	scan->n_skipped++;
	if (scan->n_skipped > SKIPPED_MAX)
		return;
	buf_append_string(&key, SKIPPED_PREFIX);
	for (const unsigned char *c = (const unsigned char *)name; *c; c++) {
		if (*c < ' ' || *c >= 0x7f || *c == '\\')
			buf_printf(&key, "\\x%02x", *c);
		else
			buf_append_char(&key, (char)*c);
	}
	value_set_string(scan->skipped, key.data, why);
}

static bool has_suffix(const char *name, const char *suffix)
{
	size_t length = strlen(name);
	size_t n = strlen(suffix);

	return length > n && strcmp(name + length - n, suffix) == 0;
}

static bool has_odd_characters(const char *name)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789._-";

	return name[strspn(name, plain)] != '\0';
}

/* --- Taking in ----------------------------------------------------------------------------------
 */

struct import {
	const struct scan *scan;
	const char *location;
	const struct image_info *info;
};

/* The format, in a map of sm_config. */
static struct value *set_format(struct value *sm_config, enum image_format format)
{
	return value_set_string(sm_config, STORAGE_FORMAT_KEY, image_format_name(format));
}

static int insert_import(struct pool_db *pool, void *arg, struct fault *fault)
{
	const struct import *import = arg;
	const struct storage *storage = import->scan->storage;
	struct value *fields CLEANUP_VALUE = value_new_struct();
	char *vdi CLEANUP_FREE = NULL;
	char *ref CLEANUP_FREE = NULL;
	char *other CLEANUP_FREE = NULL;
	int r = storage_find_vdi(storage, import->scan->sr, import->location, &vdi, fault);

	if (r < 0 || vdi)
		return r; /* another scan was first */
	/* A file named by us keeps its VDI's uuid when a forgotten SR comes back. */
	size_t stem = (size_t)(strrchr(import->location, '.') - import->location);
	char *uuid CLEANUP_FREE = xstrndup(import->location, stem);
	if (uuid_is_valid(uuid) && object_get_by_uuid(pool, "VDI", uuid, &other, NULL) < 0)
		value_set_string(fields, "uuid", uuid);
	value_set_string(fields, "name_label", import->location);
	value_set_string(fields, "SR", import->scan->sr);
	value_set_string(fields, "location", import->location);
	value_set_int(fields, "virtual_size", (int64_t)import->info->virtual_bytes);
	if (import->info->format != IMAGE_RAW)
		value_set(
			fields, "sm_config", set_format(value_new_struct(), import->info->format));
	value_set_int(fields, "physical_utilisation", (int64_t)import->info->allocated_bytes);
	value_set_bool(fields, "managed", true);
	value_set(fields, "allowed_operations", storage_vdi_operations());
	return object_create(pool, "VDI", fields, &ref, fault);
}

static int take_in(struct scan *scan, const char *name, struct fault *fault)
{
	char *path CLEANUP_FREE = xasprintf("%s/%s", scan->dir, name);
	struct image_info info = {0};
	struct fault why CLEANUP_FAULT = FAULT_INIT;

	if (value_find(scan->before, name) || value_find(scan->known, name) ||
		value_find(scan->holds, name) || journal_find(&scan->journal, path))
		return 0;
	if (!has_suffix(name, ".raw") && !has_suffix(name, ".img") &&
		image_format_of(name) == IMAGE_RAW) {
		skip(scan, name, "its name does not end in .raw, .img or .qcow2");
		return 0;
	}
	if (has_odd_characters(name)) {
		skip(scan, name, "its name has characters other than A-Z a-z 0-9 . _ -");
		return 0;
	}
	int r = image_inspect(path, &info, &why);
	if (r == -ENOENT)
		return 0; /* removed since the directory was read */
	if (r < 0) {
		skip(scan, name, why.n_params ? why.params[0] : strerror(-r));
		return 0;
	}
	struct import import = {.scan = scan, .location = name, .info = &info};
	log_info("STORAGE_TAKEN_IN", "sr=%s path=%s bytes=%" PRIu64, scan->sr, path,
		info.virtual_bytes);
	return pool_db_transaction(scan->storage->pool, insert_import, &import, fault);
}

/* --- What is there already
 * --------------------------------------------------------------------------
 */

/* The size of the disk in the file, if it is not what the row says. A VDI in use keeps its size: a
 * guest sees it. */
static void update_size(struct pool_db *pool, const char *vdi, const struct value *record,
	const char *path, struct value *changes)
{
	struct fault why CLEANUP_FAULT = FAULT_INIT;
	struct image_info info;
	int64_t size = value_find_int(record, "virtual_size", 0);

	if (image_inspect(path, &info, &why) < 0) {
		char *text CLEANUP_FREE = fault_describe(&why);
		log_warn("STORAGE_VDI_UNUSABLE", "vdi=%s path=%s error=\"%s\"",
			value_find_string(record, "uuid", ""), path, text);
		return;
	}
	if ((int64_t)info.virtual_bytes == size || vdi_check_idle(pool, vdi, "update", NULL) < 0)
		return;
	value_set_int(changes, "virtual_size", (int64_t)info.virtual_bytes);
	log_warn("STORAGE_VDI_SIZE", "vdi=%s path=%s row=%" PRId64 " file=%" PRIu64,
		value_find_string(record, "uuid", ""), path, size, info.virtual_bytes);
}

/* What sm_config says of the format, if it is not so. */
static void update_format(const struct value *record, const char *location, struct value *changes)
{
	const struct value *sm_config = value_find(record, "sm_config");
	enum image_format format = image_format_of(location);
	const char *said =
		value_find_string(sm_config, STORAGE_FORMAT_KEY, image_format_name(IMAGE_RAW));

	if (sm_config && strcmp(said, image_format_name(format)) != 0)
		value_set(changes, "sm_config", set_format(value_copy(sm_config), format));
}

/* missing, virtual_size and format of one VDI. */
static int update_vdi(
	const struct scan *scan, const char *vdi, const char *location, struct fault *fault)
{
	struct pool_db *pool = scan->storage->pool;
	struct value *changes CLEANUP_VALUE = value_new_struct();
	struct value *record CLEANUP_VALUE = NULL;
	char *path CLEANUP_FREE = xasprintf("%s/%s", scan->dir, location);
	struct disk_info info = {0};
	int r = disk_inspect(path, &info, NULL);
	bool missing = r < 0 || !info.regular;

	if (object_get_record(pool, "VDI", vdi, &record, NULL) < 0)
		return 0; /* destroyed meanwhile */
	if (value_find_bool(record, "missing", false) != missing) {
		value_set_bool(changes, "missing", missing);
		log_write(missing ? LOG_LEVEL_WARN : LOG_LEVEL_INFO,
			missing ? "STORAGE_VDI_MISSING" : "STORAGE_VDI_FOUND", "vdi=%s path=%s",
			value_find_string(record, "uuid", ""), path);
	}
	if (!missing)
		update_size(pool, vdi, record, path, changes);
	update_format(record, location, changes);
	if (!changes->record.n_members)
		return 0;
	r = object_set_fields(pool, "VDI", vdi, changes, fault);
	return r < 0 && object_exists(pool, "VDI", vdi) ? r : 0;
}

/* Replaces the "skipped:" keys of the SR's sm_config, if they changed. */
static int store_skipped(struct pool_db *pool, void *arg, struct fault *fault)
{
	const struct scan *scan = arg;
	struct value *before CLEANUP_VALUE = NULL;
	struct value *after CLEANUP_VALUE = value_copy(scan->skipped);
	int r = object_get_field(pool, "SR", scan->sr, "sm_config", &before, fault);

	if (r < 0)
		return r;
	for (size_t i = 0; i < before->record.n_members; i++) {
		const struct value_member *member = &before->record.members[i];
		if (strncmp(member->name, SKIPPED_PREFIX, strlen(SKIPPED_PREFIX)) != 0)
			value_set(after, member->name, value_copy(member->value));
	}
	if (value_equal(before, after))
		return 0;
	return object_set_field(pool, "SR", scan->sr, "sm_config", after, fault);
}

/* The order of reading decides against VDIs being made or destroyed meanwhile. One being made
 * (journal, file, row, no journal) whose file is seen stands in the journal afterwards, or, later
 * still, in the rows. One being destroyed (journal, no row, no file, no journal) stood in the rows
 * before, or stands in the journal, or its file is gone when it is looked at last. To other hosts a
 * hold is what the journal is to this one. */
static int read_state(struct scan *scan, struct fault *fault)
{
	int r = load_locations(scan, &scan->before, fault);

	if (r >= 0)
		r = list_directory(scan, fault);
	if (r >= 0)
		r = storage_list_holds(scan->dir, &scan->holds, fault);
	if (r >= 0)
		r = journal_load(scan->storage, NULL, &scan->journal, fault);
	if (r >= 0)
		r = load_locations(scan, &scan->known, fault);
	return r;
}

int sr_scan(const struct storage *storage, const char *sr, struct fault *fault)
{
	struct scan scan CLEANUP(scan_clear) = {
		.storage = storage,
		.sr = sr,
		.names = value_new_array(),
		.skipped = value_new_struct(),
	};
	int r = sr_location(storage, sr, &scan.dir, fault);

	if (r >= 0)
		r = read_state(&scan, fault);
	for (size_t i = 0; r >= 0 && i < scan.known->record.n_members; i++) {
		const struct value_member *member = &scan.known->record.members[i];
		r = update_vdi(&scan, member->value->string, member->name, fault);
	}
	for (size_t i = 0; r >= 0 && i < scan.names->array.n_items; i++)
		r = take_in(&scan, scan.names->array.items[i]->string, fault);
	if (r < 0)
		return r;
	if (scan.n_skipped > SKIPPED_MAX)
		value_set(scan.skipped, SKIPPED_PREFIX "...",
			value_new_format("and %zu more", scan.n_skipped - SKIPPED_MAX));
	r = pool_db_transaction(storage->pool, store_skipped, &scan, fault);
	return r < 0 ? r : sr_refresh(storage, sr, fault);
}

/* --- sr_refresh ---------------------------------------------------------------------------------
 */

static int refresh_vdi(const struct storage *storage, const char *dir, const char *vdi,
	int64_t *allocation, struct fault *fault)
{
	struct value *record CLEANUP_VALUE = NULL;
	struct disk_info info = {0};

	if (object_get_record(storage->pool, "VDI", vdi, &record, NULL) < 0)
		return 0; /* destroyed meanwhile */
	*allocation += value_find_int(record, "virtual_size", 0);
	char *path CLEANUP_FREE =
		xasprintf("%s/%s", dir, value_find_string(record, "location", ""));
	if (disk_inspect(path, &info, NULL) < 0 ||
		value_find_int(record, "physical_utilisation", -1) == (int64_t)info.allocated_bytes)
		return 0;
	struct value *used CLEANUP_VALUE = value_new_int((int64_t)info.allocated_bytes);
	int r = object_set_field(storage->pool, "VDI", vdi, "physical_utilisation", used, fault);
	return r < 0 && object_exists(storage->pool, "VDI", vdi) ? r : 0;
}

static void set_if_changed(
	const struct value *record, struct value *changes, const char *name, int64_t amount)
{
	if (value_find_int(record, name, -1) != amount)
		value_set_int(changes, name, amount);
}

int sr_refresh(const struct storage *storage, const char *sr, struct fault *fault)
{
	struct value *vdis CLEANUP_VALUE = NULL;
	struct value *record CLEANUP_VALUE = NULL;
	struct value *changes CLEANUP_VALUE = value_new_struct();
	char *dir CLEANUP_FREE = NULL;
	uint64_t size_bytes, free_bytes;
	int64_t allocation = 0;
	int r = sr_location(storage, sr, &dir, fault);

	if (r < 0)
		return r;
	r = disk_space(dir, &size_bytes, &free_bytes, fault);
	if (r < 0)
		return sr_fault_from_disk(fault, r, SR_FAILURE_UNAVAILABLE);
	r = object_find(storage->pool, "VDI", "SR", sr, &vdis, fault);
	for (size_t i = 0; r >= 0 && i < vdis->array.n_items; i++)
		r = refresh_vdi(storage, dir, vdis->array.items[i]->string, &allocation, fault);
	if (r >= 0)
		r = object_get_record(storage->pool, "SR", sr, &record, fault);
	if (r < 0)
		return r;
	/* Clients compute what is free as size - utilisation. */
	set_if_changed(record, changes, "physical_size", (int64_t)size_bytes);
	set_if_changed(record, changes, "physical_utilisation",
		(int64_t)(size_bytes - MIN(size_bytes, free_bytes)));
	set_if_changed(record, changes, "virtual_allocation", allocation);
	if (!changes->record.n_members)
		return 0;
	return object_set_fields(storage->pool, "SR", sr, changes, fault);
}
