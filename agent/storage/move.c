/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/storage/move.h"

#include "agent/storage/private.h"
#include "base/alloc.h"
#include "base/uuid.h"
#include "target/disk.h"
#include "target/image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void clear_place(struct storage_place *place)
{
	free(place->sr);
	free(place->location);
	free(place->path);
	*place = (struct storage_place){0};
}

void storage_move_clear(struct storage_move *move)
{
	clear_place(&move->from);
	clear_place(&move->to);
}

static int plan_source(
	const struct storage *storage, struct storage_move *move, struct fault *fault)
{
	struct disk_info info = {0};
	int r = object_get_string(storage->pool, "VDI", move->vdi, "SR", &move->from.sr, fault);

	if (r == 0)
		r = object_get_string(
			storage->pool, "VDI", move->vdi, "location", &move->from.location, fault);
	if (r == 0)
		r = vdi_path(storage, move->vdi, &move->from.path, fault);
	if (r == 0)
		r = disk_inspect(move->from.path, &info, fault);
	move->file_bytes = (info.size_bytes + DISK_SECTOR - 1) / DISK_SECTOR * DISK_SECTOR;
	move->data_bytes = info.allocated_bytes;
	return r;
}

static int plan_target(const struct storage *storage, const char *sr, const char *uuid,
	struct storage_move *move, struct fault *fault)
{
	char *dir CLEANUP_FREE = NULL;
	int r = sr_location(storage, sr, &dir, fault);

	if (r < 0)
		return r;
	move->to.sr = xstrdup(sr);
	move->to.location =
		xasprintf("%s%s", uuid, image_format_suffix(image_format_of(move->from.location)));
	return storage_image_path(dir, move->to.location, &move->to.path, fault);
}

static int plan(const struct storage *storage, struct storage_move *move, const char *sr,
	const char *uuid, struct storage_move *ret_move, struct fault *fault)
{
	int r = plan_source(storage, move, fault);

	if (r == 0)
		r = plan_target(storage, sr, uuid, move, fault);
	if (r < 0)
		return r;
	*ret_move = *move;
	*move = (struct storage_move){0};
	return 0;
}

int storage_move_plan(const struct storage *storage, const char *owner, const char *vdi,
	const char *sr, struct storage_move *ret_move, struct fault *fault)
{
	struct storage_move move CLEANUP_STORAGE_MOVE = {.owner = owner, .vdi = vdi};
	char *uuid CLEANUP_FREE = NULL;
	int r = object_get_string(storage->pool, "VDI", vdi, "uuid", &uuid, fault);

	return r < 0 ? r : plan(storage, &move, sr, uuid, ret_move, fault);
}

int storage_copy_plan(const struct storage *storage, const char *owner, const char *vdi,
	const char *sr, struct storage_move *ret_move, struct fault *fault)
{
	struct storage_move move CLEANUP_STORAGE_MOVE = {.owner = owner, .vdi = vdi};
	char *uuid CLEANUP_FREE = uuid_new();

	return plan(storage, &move, sr, uuid, ret_move, fault);
}

int storage_copy_plan_image(struct storage_move *move, struct fault *fault)
{
	struct image_info info;
	int r = image_inspect(move->from.path, &info, fault);

	if (r < 0)
		return sr_fault_from_disk(fault, r, SR_FAILURE_VDI_UNAVAILABLE);
	move->disk_bytes = info.virtual_bytes;
	return 0;
}

int storage_copy_prepare(const struct storage *storage, const struct storage_move *move,
	uint64_t need_bytes, struct fault *fault)
{
	char *path CLEANUP_FREE = NULL;

	if (move->disk_bytes)
		return storage_prepare_image(storage, move->owner, move->to.sr, move->to.location,
			image_format_of(move->to.location), move->disk_bytes, need_bytes, &path,
			fault);
	/* A qcow2 file may end anywhere, and does not mind zeros behind its end; files are copied
	 * in whole sectors. */
	int r = disk_grow(move->from.path, move->file_bytes, fault);

	return r < 0 ? r
		     : storage_prepare_image(storage, move->owner, move->to.sr, move->to.location,
			       IMAGE_RAW, move->file_bytes, need_bytes, &path, fault);
}

int storage_move_prepare(
	const struct storage *storage, const struct storage_move *move, struct fault *fault)
{
	const struct image_entry from = {
		.owner = move->owner,
		.sr = move->from.sr,
		.location = move->from.location,
		.path = move->from.path,
	};
	int r = storage_copy_prepare(storage, move, move->data_bytes, fault);

	return r < 0 ? r : journal_record(storage, &from, NULL, fault);
}

struct relocation {
	const struct storage_move *move;
	const struct storage_place *from;
	const struct storage_place *to;
};

static int relocate(struct pool_db *pool, void *arg, struct fault *fault)
{
	const struct relocation *relocation = arg;
	const char *vdi = relocation->move->vdi;
	struct value *record CLEANUP_VALUE = NULL;
	struct value *fields CLEANUP_VALUE = value_new_struct();
	int r = object_get_record(pool, "VDI", vdi, &record, fault);

	if (r < 0)
		return r;
	const char *sr = value_find_string(record, "SR", "");
	int64_t size = value_find_int(record, "virtual_size", 0);
	if (strcmp(sr, relocation->to->sr) == 0)
		return 0;
	if (strcmp(sr, relocation->from->sr) != 0)
		return fault_set(
			fault, -EBUSY, "OTHER_OPERATION_IN_PROGRESS", "VDI", vdi, "", "", NULL);
	value_set_string(fields, "SR", relocation->to->sr);
	value_set_string(fields, "location", relocation->to->location);
	r = object_set_fields(pool, "VDI", vdi, fields, fault);
	if (r == 0)
		r = sr_add_allocation(pool, relocation->from->sr, -size, fault);
	return r < 0 ? r : sr_add_allocation(pool, relocation->to->sr, size, fault);
}

int storage_move_commit(const struct storage *storage, const struct storage_move *move, bool back,
	struct fault *fault)
{
	struct relocation relocation = {
		.move = move,
		.from = back ? &move->to : &move->from,
		.to = back ? &move->from : &move->to,
	};

	return pool_db_transaction(storage->pool, relocate, &relocation, fault);
}

/* --- Copies -------------------------------------------------------------------------------------
 */

int storage_copy_insert(struct pool_db *pool, const struct storage_move *move, struct value *fields,
	char **ret_vdi, struct fault *fault)
{
	int64_t size = 0;
	int r = object_get_int(pool, "VDI", move->vdi, "virtual_size", &size, fault);

	if (r < 0)
		return r;
	/* The file was named so. */
	value_set(fields, "uuid", value_new_format("%.*s", UUID_LENGTH, move->to.location));
	value_set_string(fields, "SR", move->to.sr);
	value_set_string(fields, "location", move->to.location);
	value_set_int(fields, "virtual_size", size);
	value_set_bool(fields, "managed", true);
	value_set(fields, "allowed_operations", storage_vdi_operations());
	r = object_create(pool, "VDI", fields, ret_vdi, fault);
	return r < 0 ? r : sr_add_allocation(pool, move->to.sr, size, fault);
}

int storage_copy_replace(
	struct pool_db *pool, const struct storage_move *move, const char *vdi, struct fault *fault)
{
	struct value *fields CLEANUP_VALUE = value_new_struct();
	struct value *from CLEANUP_VALUE = NULL;
	int64_t before = 0;
	int r = object_get_record(pool, "VDI", move->vdi, &from, fault);

	if (r == 0)
		r = object_get_int(pool, "VDI", vdi, "virtual_size", &before, fault);
	if (r < 0)
		return r;
	int64_t size = value_find_int(from, "virtual_size", 0);
	value_set_string(fields, "location", move->to.location);
	value_set_int(fields, "virtual_size", size);
	value_set(fields, "sm_config", value_copy(value_find(from, "sm_config")));
	r = object_set_fields(pool, "VDI", vdi, fields, fault);
	return r < 0 ? r : sr_add_allocation(pool, move->to.sr, size - before, fault);
}
