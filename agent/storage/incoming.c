/* SPDX-License-Identifier: Apache-2.0 */
/* Disks for incoming migrations. */
#include "agent/storage/private.h"
#include "base/alloc.h"
#include "base/uuid.h"
#include "target/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

/* What the journalled disks of other migrations may yet take of this SR: space that statvfs still
 * calls free, but that is spoken for. */
static uint64_t promised_bytes(const struct journal *journal, const struct image_entry *entry)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < journal->n_rows; i++) {
		const struct resource_row *row = &journal->rows[i];
		uint64_t need = (uint64_t)value_find_int(row->detail, "need_bytes", 0);
		struct disk_info info = {0};
		if (strcmp(value_find_string(row->detail, "sr", ""), entry->sr) != 0 ||
			strcmp(row->name, entry->path) == 0)
			continue;
		if (disk_inspect(row->name, &info, NULL) == 0)
			sum += need - MIN(need, info.allocated_bytes);
	}
	return sum;
}

/* The same of other hosts. */
static uint64_t promised_elsewhere(const struct storage *storage, const char *dir)
{
	struct value *holds CLEANUP_VALUE = NULL;
	uint64_t sum = 0;

	if (storage_list_holds(dir, &holds, NULL) < 0)
		return 0;
	for (size_t i = 0; i < holds->record.n_members; i++) {
		const struct value_member *hold = &holds->record.members[i];
		char *path CLEANUP_FREE = xasprintf("%s/%s", dir, hold->name);
		uint64_t need = (uint64_t)value_find_int(hold->value, "need_bytes", 0);
		struct disk_info info = {0};
		if (strcmp(value_find_string(hold->value, "host", ""), storage->host_ref) != 0 &&
			disk_inspect(path, &info, NULL) == 0)
			sum += need - MIN(need, info.allocated_bytes);
	}
	return sum;
}

static int check_space(const struct storage *storage, const struct journal *journal,
	const struct image_entry *entry, const char *dir, uint64_t allocated_bytes,
	struct fault *fault)
{
	uint64_t size, free_bytes;
	uint64_t need = entry->need_bytes - MIN(entry->need_bytes, allocated_bytes);
	int r = disk_space(dir, &size, &free_bytes, fault);

	if (r < 0) {
		sr_fault_from_disk(fault, r, SR_FAILURE_UNAVAILABLE);
		return r;
	}
	uint64_t promised = promised_bytes(journal, entry) + promised_elsewhere(storage, dir);
	if (need <= free_bytes && promised <= free_bytes - need)
		return 0;
	return sr_fault(fault, -ENOSPC, SR_FAILURE_NO_SPACE,
		"not enough space in %s: the disk needs %" PRIu64 " bytes, %" PRIu64
		" are free, of which %" PRIu64 " are promised to other incoming disks",
		dir, need, free_bytes, promised);
}

/* Whether the path is free for the owner: the file and the VDI of somebody else are not touched,
 * whatever uuid a peer asks for. */
static int check_owner(const struct storage *storage, const struct image_entry *entry,
	const struct resource_row *row, const struct disk_info *found, struct fault *fault)
{
	char *vdi CLEANUP_FREE = NULL;

	if (row && strcmp(row->owner, entry->owner) != 0)
		return fault_set(
			fault, -EBUSY, "OTHER_OPERATION_IN_PROGRESS", "SR", entry->sr, NULL);
	int r = row ? 0 : storage_find_vdi(storage, entry->sr, entry->location, &vdi, fault);
	if (r < 0)
		return r;
	if (vdi || (found && (!row || !found->regular)))
		return sr_fault(fault, -EEXIST, SR_FAILURE_VDI_EXISTS,
			"%s exists and is not of this migration", entry->path);
	return 0;
}

/* Makes the file, or finds the one that an earlier call made. */
static int ensure_file(const struct storage *storage, const struct image_entry *entry,
	uint64_t size_bytes, enum image_format format, const struct disk_info *found,
	struct fault *fault)
{
	int r = 0;

	/* Cut short by a crash, or of another plan: nothing in it can be relied on. */
	if (found && (format != IMAGE_RAW || found->size_bytes != size_bytes)) {
		r = disk_remove(entry->path, fault);
		found = NULL;
	}
	if (r == 0 && !found)
		r = image_create(storage->qemu_img, entry->path, format, size_bytes, fault);
	return r < 0 ? sr_fault_from_disk(fault, r, SR_FAILURE_VDI_CREATE) : 0;
}

/* Checks, then journal, then file. */
static int prepare(const struct storage *storage, const struct image_entry *entry, const char *dir,
	uint64_t size_bytes, enum image_format format, struct fault *fault)
{
	struct journal journal CLEANUP_JOURNAL = {0};
	struct disk_info info = {0};
	int64_t id;
	int r = journal_load(storage, NULL, &journal, fault);

	if (r < 0)
		return r;
	const struct resource_row *row = journal_find(&journal, entry->path);
	const struct disk_info *found = disk_inspect(entry->path, &info, NULL) == 0 ? &info : NULL;
	r = check_owner(storage, entry, row, found, fault);
	if (r == 0)
		r = check_space(storage, &journal, entry, dir, info.allocated_bytes, fault);
	if (r == 0)
		r = journal_record(storage, entry, &id, fault);
	if (r < 0)
		return r;
	r = ensure_file(storage, entry, size_bytes, format, found, fault);
	if (r < 0 && !row)
		journal_undo(storage, id, entry, r);
	return r;
}

int storage_prepare_image(const struct storage *storage, const char *owner, const char *sr,
	const char *location, enum image_format format, uint64_t size_bytes, uint64_t need_bytes,
	char **ret_path, struct fault *fault)
{
	char *dir CLEANUP_FREE = NULL;
	char *path CLEANUP_FREE = NULL;
	int r = sr_location(storage, sr, &dir, fault);

	if (r < 0)
		return r;
	if (size_bytes == 0 || size_bytes % DISK_SECTOR || size_bytes > INT64_MAX) {
		char *text CLEANUP_FREE = xasprintf("%" PRIu64, size_bytes);
		return fault_set(fault, -EINVAL, "INVALID_VALUE", "virtual_size", text, NULL);
	}
	r = storage_image_path(dir, location, &path, fault);
	if (r < 0)
		return r;
	const struct image_entry entry = {.owner = owner,
		.sr = sr,
		.location = location,
		.path = path,
		.need_bytes = MIN(need_bytes, (uint64_t)INT64_MAX)};
	r = prepare(storage, &entry, dir, size_bytes, format, fault);
	if (r < 0)
		return r;
	*ret_path = TAKE_PTR(path);
	return 0;
}

/* What prepare() would find. */
static int check(const struct storage *storage, const struct image_entry *entry, const char *dir,
	struct fault *fault)
{
	struct journal journal CLEANUP_JOURNAL = {0};
	struct disk_info info = {0};
	int r = journal_load(storage, NULL, &journal, fault);

	if (r < 0)
		return r;
	const struct disk_info *found = disk_inspect(entry->path, &info, NULL) == 0 ? &info : NULL;
	r = check_owner(storage, entry, journal_find(&journal, entry->path), found, fault);
	if (r == 0)
		r = check_space(storage, &journal, entry, dir, 0, fault);
	if (r < 0 || faccessat(AT_FDCWD, dir, W_OK | X_OK, AT_EACCESS) == 0)
		return r;
	r = fault_errno(fault, -errno, "files cannot be made in %s", dir);
	sr_fault_from_disk(fault, r, SR_FAILURE_VDI_CREATE);
	return r;
}

int storage_check_disk(const struct storage *storage, const char *sr, const char *vdi_uuid,
	uint64_t need_bytes, struct fault *fault)
{
	char *location CLEANUP_FREE = xasprintf("%s.raw", vdi_uuid);
	char *dir CLEANUP_FREE = NULL;
	char *path CLEANUP_FREE = NULL;
	int r = sr_location(storage, sr, &dir, fault);

	if (r == 0)
		r = storage_image_path(dir, location, &path, fault);
	if (r < 0)
		return r;
	const struct image_entry entry = {.owner = "",
		.sr = sr,
		.location = location,
		.path = path,
		.need_bytes = MIN(need_bytes, (uint64_t)INT64_MAX)};
	return check(storage, &entry, dir, fault);
}

int storage_prepare_disk(const struct storage *storage, const char *owner, const char *sr,
	const char *vdi_uuid, uint64_t size_bytes, uint64_t need_bytes, char **ret_location,
	char **ret_path, struct fault *fault)
{
	char *location CLEANUP_FREE = xasprintf("%s.raw", vdi_uuid);

	if (!uuid_is_valid(vdi_uuid))
		return fault_set(fault, -EINVAL, "UUID_INVALID", "VDI", vdi_uuid, NULL);
	int r = storage_prepare_image(
		storage, owner, sr, location, IMAGE_RAW, size_bytes, need_bytes, ret_path, fault);
	if (r == 0)
		*ret_location = TAKE_PTR(location);
	return r;
}
