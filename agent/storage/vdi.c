/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/storage/private.h"
#include "base/alloc.h"
#include "base/parse.h"
#include "base/uuid.h"
#include "schema/classes.h"
#include "target/disk.h"
#include "target/image.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

struct value *storage_vdi_operations(void)
{
	static const char *const names[] = {
		"clone", "copy", "destroy", "forget", "mirror", "resize", "snapshot", "update"};
	struct value *array = value_new_array();

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		value_append_string(array, names[i]);
	return array;
}

/* --- vdi_create ---------------------------------------------------------------------------------
 */

/* XML-RPC clients write 64-bit integers as decimal text, and records are passed as they came. */
static int read_size(const struct value *record, uint64_t *ret_bytes, struct fault *fault)
{
	const struct value *given = value_find(record, "virtual_size");
	char *text CLEANUP_FREE = NULL;
	int64_t size = 0;

	if (!given)
		return fault_set(fault, -EINVAL, "INVALID_VALUE", "virtual_size",
			"missing; it must be a number of bytes", NULL);
	text = given->type == VALUE_INT || given->type == VALUE_I4
		       ? xasprintf("%" PRId64, given->integer)
		       : xstrdup(value_string(given, ""));
	if (parse_int64(text, &size) < 0 || size <= 0 || size > INT64_MAX - DISK_SECTOR)
		return fault_set(fault, -EINVAL, "INVALID_VALUE", "virtual_size", text, NULL);
	*ret_bytes = ((uint64_t)size + DISK_SECTOR - 1) / DISK_SECTOR * DISK_SECTOR;
	return 0;
}

static int read_format(
	const struct value *record, enum image_format *ret_format, struct fault *fault)
{
	const char *name = value_find_string(
		value_find(record, "sm_config"), STORAGE_FORMAT_KEY, image_format_name(IMAGE_RAW));

	if (image_format_parse(name, ret_format) == 0)
		return 0;
	return fault_set(
		fault, -EINVAL, "INVALID_VALUE", "sm_config:" STORAGE_FORMAT_KEY, name, NULL);
}

struct vdi_row {
	const char *sr;
	uint64_t size_bytes;
	const struct value *fields;
	char *ref; /* result */
};

static int insert_vdi(struct pool_db *pool, void *arg, struct fault *fault)
{
	struct vdi_row *row = arg;

	if (!object_exists(pool, "SR", row->sr))
		return fault_set(fault, -ENOENT, "HANDLE_INVALID", "SR", row->sr, NULL);
	int r = object_create(pool, "VDI", row->fields, &row->ref, fault);
	if (r < 0)
		return r;
	return sr_add_allocation(pool, row->sr, (int64_t)row->size_bytes, fault);
}

/* What a client may choose, of what it sent; clients pass whole records of other VDIs. */
static struct value *new_vdi_fields(
	const struct value *record, const char *uuid, const char *location, uint64_t size_bytes)
{
	const struct class *class = class_find("VDI");
	struct value *fields = value_new_struct();

	for (size_t i = 0; i < record->record.n_members; i++) {
		const struct value_member *member = &record->record.members[i];
		const struct class_field *field = class_field_find(class, member->name);
		if (field && field->access != FIELD_RO)
			value_set(fields, member->name, value_copy(member->value));
	}
	value_set_string(fields, "uuid", uuid);
	value_set_string(fields, "location", location);
	value_set_int(fields, "virtual_size", (int64_t)size_bytes);
	value_set_bool(fields, "managed", true);
	value_set(fields, "allowed_operations", storage_vdi_operations());
	return fields;
}

/* Under the journal: file, then row. */
static int make_vdi(const struct storage *storage, const struct image_entry *entry,
	enum image_format format, struct vdi_row *row, struct fault *fault)
{
	int64_t id;
	int r = journal_record(storage, entry, &id, fault);

	if (r < 0)
		return r;
	r = image_create(storage->qemu_img, entry->path, format, row->size_bytes, fault);
	if (r < 0)
		r = sr_fault_from_disk(fault, r, SR_FAILURE_VDI_CREATE);
	else
		r = pool_db_transaction(storage->pool, insert_vdi, row, fault);
	if (r < 0)
		journal_undo(storage, id, entry, r);
	else
		journal_forget(storage, id, entry->path);
	return r;
}

int vdi_create(const struct storage *storage, const struct value *record, char **ret_ref,
	struct fault *fault)
{
	const char *sr = value_find_string(record, "SR", "");
	enum image_format format = IMAGE_RAW;
	char *dir CLEANUP_FREE = NULL;
	uint64_t size_bytes;
	int r = read_size(record, &size_bytes, fault);

	if (r == 0)
		r = read_format(record, &format, fault);
	if (r == 0)
		r = sr_location(storage, sr, &dir, fault);
	if (r < 0)
		return r;

	char *uuid CLEANUP_FREE = uuid_new();
	char *location CLEANUP_FREE = xasprintf("%s%s", uuid, image_format_suffix(format));
	char *path CLEANUP_FREE = NULL;
	r = storage_image_path(dir, location, &path, fault);
	if (r < 0)
		return r;

	const struct image_entry entry = {
		.owner = "", .sr = sr, .location = location, .path = path};
	struct value *fields CLEANUP_VALUE = new_vdi_fields(record, uuid, location, size_bytes);
	struct vdi_row row = {.sr = sr, .size_bytes = size_bytes, .fields = fields};
	r = make_vdi(storage, &entry, format, &row, fault);
	char *ref CLEANUP_FREE = row.ref;
	if (r == 0)
		*ret_ref = TAKE_PTR(ref);
	return r;
}

/* --- vdi_destroy --------------------------------------------------------------------------------
 */

static bool map_has_value(const struct value *map, const char *a, const char *b)
{
	for (size_t i = 0; map && i < map->record.n_members; i++) {
		const char *text = value_string(map->record.members[i].value, "");
		if (strcmp(text, a) == 0 || strcmp(text, b) == 0)
			return true;
	}
	return false;
}

static int check_operations(
	struct pool_db *pool, const char *vdi, const char *op, struct fault *fault)
{
	struct value *operations CLEANUP_VALUE = NULL;
	int r = object_get_field(pool, "VDI", vdi, "current_operations", &operations, fault);

	if (r < 0)
		return r;
	for (size_t i = 0; i < operations->record.n_members; i++) {
		const char *other = value_string(operations->record.members[i].value, "");
		/* The caller's own entry is no obstacle to it. */
		if (strcmp(other, op) != 0)
			return fault_set(fault, -EBUSY, "VDI_IN_USE", vdi, op, NULL);
	}
	return 0;
}

int vdi_check_idle(struct pool_db *pool, const char *vdi, const char *op, struct fault *fault)
{
	return vdi_check_idle_beside(pool, vdi, op, "", fault);
}

int vdi_check_idle_beside(
	struct pool_db *pool, const char *vdi, const char *op, const char *vm, struct fault *fault)
{
	struct value *vbds CLEANUP_VALUE = NULL;
	int r = check_operations(pool, vdi, op, fault);

	if (r >= 0)
		r = object_find(pool, "VBD", "VDI", vdi, &vbds, fault);
	if (r < 0)
		return r;
	for (size_t i = 0; i < vbds->array.n_items; i++) {
		const char *vbd = vbds->array.items[i]->string;
		struct value *record CLEANUP_VALUE = NULL;
		struct value *operations CLEANUP_VALUE = NULL;
		r = object_get_record(pool, "VBD", vbd, &record, fault);
		if (r < 0)
			return r;
		if (value_find_bool(record, "currently_attached", false) &&
			strcmp(value_find_string(record, "VM", ""), vm) != 0)
			return fault_set(fault, -EBUSY, "VDI_IN_USE", vdi, op, NULL);
		r = object_get_field(pool, "VM", value_find_string(record, "VM", ""),
			"current_operations", &operations, fault);
		if (r < 0)
			return r;
		if (map_has_value(operations, "migrate_send", "pool_migrate"))
			return fault_set(fault, -EBUSY, "VDI_IN_USE", vdi, op, NULL);
	}
	return 0;
}

struct vdi_removal {
	const char *vdi;
	const char *sr;
};

/* Its VBDs, none of them attached, go with it, as a VBD without its disk is of no use. */
static int delete_vdi(struct pool_db *pool, void *arg, struct fault *fault)
{
	const struct vdi_removal *removal = arg;
	struct value *vbds CLEANUP_VALUE = NULL;
	int64_t size = 0;
	int r = vdi_check_idle(pool, removal->vdi, "destroy", fault);

	if (r >= 0)
		r = object_get_int(pool, "VDI", removal->vdi, "virtual_size", &size, fault);
	if (r >= 0)
		r = object_find(pool, "VBD", "VDI", removal->vdi, &vbds, fault);
	for (size_t i = 0; r >= 0 && i < vbds->array.n_items; i++)
		r = object_destroy(pool, "VBD", vbds->array.items[i]->string, fault);
	if (r >= 0)
		r = object_destroy(pool, "VDI", removal->vdi, fault);
	return r < 0 ? r : sr_add_allocation(pool, removal->sr, -size, fault);
}

/* SR, location and path of a VDI. */
struct vdi_place {
	char *sr;
	char *location;
	char *path;
};

static void place_clear(struct vdi_place *place)
{
	free(place->sr);
	free(place->location);
	free(place->path);
}

static int find_place(const struct storage *storage, const char *vdi, struct vdi_place *ret_place,
	struct fault *fault)
{
	char *dir CLEANUP_FREE = NULL;
	int r = object_get_string(storage->pool, "VDI", vdi, "SR", &ret_place->sr, fault);

	if (r >= 0)
		r = object_get_string(
			storage->pool, "VDI", vdi, "location", &ret_place->location, fault);
	if (r >= 0)
		r = sr_location(storage, ret_place->sr, &dir, fault);
	if (r >= 0)
		r = storage_image_path(dir, ret_place->location, &ret_place->path, fault);
	return r;
}

int vdi_destroy(const struct storage *storage, const char *vdi, struct fault *fault)
{
	return vdi_destroy_for(storage, "", vdi, fault);
}

int vdi_destroy_for(
	const struct storage *storage, const char *owner, const char *vdi, struct fault *fault)
{
	struct vdi_place place CLEANUP(place_clear) = {0};
	int64_t id;
	int r = find_place(storage, vdi, &place, fault);

	if (r >= 0)
		r = vdi_check_idle(storage->pool, vdi, "destroy", fault);
	if (r < 0)
		return r;

	const struct image_entry entry = {
		.owner = owner, .sr = place.sr, .location = place.location, .path = place.path};
	r = journal_record(storage, &entry, &id, fault);
	if (r < 0)
		return r;
	struct vdi_removal removal = {.vdi = vdi, .sr = place.sr};
	r = pool_db_transaction(storage->pool, delete_vdi, &removal, fault);
	if (r < 0) {
		journal_undo(storage, id, &entry, r);
		return r;
	}
	/* The VDI is gone. A file that cannot be removed now stays in the journal and goes at the
	 * next start. */
	struct fault left CLEANUP_FAULT = FAULT_INIT;
	r = disk_remove(place.path, &left);
	if (r < 0) {
		char *text CLEANUP_FREE = fault_describe(&left);
		return sr_fault(fault, r, SR_FAILURE_VDI_REMOVE,
			"the VDI is gone, but its file is not yet (%s); it is removed later, at "
			"the latest when the daemon starts again",
			text);
	}
	journal_forget(storage, id, place.path);
	return 0;
}

/* --- vdi_resize, vdi_path
 * ---------------------------------------------------------------------------
 */

struct vdi_growth {
	const char *vdi;
	const char *sr;
	uint64_t size_bytes;
};

static int store_size(struct pool_db *pool, void *arg, struct fault *fault)
{
	const struct vdi_growth *growth = arg;
	struct value *size CLEANUP_VALUE = value_new_int((int64_t)growth->size_bytes);
	int64_t before;
	int r = object_get_int(pool, "VDI", growth->vdi, "virtual_size", &before, fault);

	if (r >= 0)
		r = object_set_field(pool, "VDI", growth->vdi, "virtual_size", size, fault);
	return r < 0 ? r
		     : sr_add_allocation(
			       pool, growth->sr, (int64_t)growth->size_bytes - before, fault);
}

/* As disk_inspect, but for the size: that of the disk in the image. */
static int inspect_image(const char *path, struct disk_info *ret_info, struct fault *fault)
{
	struct fault cause CLEANUP_FAULT = FAULT_INIT;
	struct image_info image;
	int r = disk_inspect(path, ret_info, fault);

	if (r < 0 || image_format_of(path) == IMAGE_RAW)
		return r;
	r = image_inspect(path, &image, &cause);
	if (r < 0)
		return fault_text(fault, r, "the image %s cannot be used: %s", path,
			cause.n_params ? cause.params[0] : "");
	ret_info->size_bytes = image.virtual_bytes;
	return 0;
}

/* The file first, then the row: a crash between the two leaves a file with a tail that no guest
 * sees, and the same call, or a scan, sets it right. */
int vdi_resize(
	const struct storage *storage, const char *vdi, int64_t virtual_size, struct fault *fault)
{
	struct vdi_place place CLEANUP(place_clear) = {0};
	struct value *request CLEANUP_VALUE = value_new_struct();
	struct vdi_growth growth = {.vdi = vdi};
	bool is_a_snapshot = false;
	int64_t before = 0;
	int r = find_place(storage, vdi, &place, fault);

	value_set_int(request, "virtual_size", virtual_size);
	if (r >= 0)
		r = read_size(request, &growth.size_bytes, fault);
	if (r >= 0)
		r = object_get_bool(
			storage->pool, "VDI", vdi, "is_a_snapshot", &is_a_snapshot, fault);
	if (r >= 0 && is_a_snapshot)
		return fault_set(fault, -EROFS, "VDI_READONLY", vdi, NULL);
	if (r >= 0)
		r = vdi_check_idle(storage->pool, vdi, "resize", fault);
	if (r >= 0)
		r = object_get_int(storage->pool, "VDI", vdi, "virtual_size", &before, fault);
	if (r < 0)
		return r;
	if (growth.size_bytes < (uint64_t)before)
		return sr_fault(fault, -EINVAL, SR_FAILURE_VDI_SIZE,
			"the VDI has %" PRId64 " bytes and cannot be made smaller (to %" PRIu64
			"): its end would be lost",
			before, growth.size_bytes);
	struct disk_info info;
	r = inspect_image(place.path, &info, fault);
	if (r == -ENOENT)
		return fault_set(fault, r, "VDI_MISSING", place.sr, vdi, NULL);
	/* An earlier call may have grown the file and not come to the row. */
	if (r >= 0 && info.size_bytes < growth.size_bytes)
		r = image_grow(storage->qemu_img, place.path, growth.size_bytes, fault);
	if (r < 0)
		return sr_fault_from_disk(fault, r, SR_FAILURE_VDI_SIZE);
	growth.sr = place.sr;
	return pool_db_transaction(storage->pool, store_size, &growth, fault);
}

int vdi_path(const struct storage *storage, const char *vdi, char **ret_path, struct fault *fault)
{
	struct vdi_place place CLEANUP(place_clear) = {0};
	struct disk_info info;
	int r = find_place(storage, vdi, &place, fault);

	if (r < 0)
		return r;
	r = inspect_image(place.path, &info, fault);
	if (r == -ENOENT)
		return fault_set(fault, r, "VDI_MISSING", place.sr, vdi, NULL);
	if (r < 0)
		return sr_fault_from_disk(fault, r, SR_FAILURE_VDI_UNAVAILABLE);
	if (!info.regular)
		return sr_fault(fault, -EINVAL, SR_FAILURE_VDI_UNAVAILABLE,
			"%s is not a regular file", place.path);
	*ret_path = TAKE_PTR(place.path);
	return 0;
}

int storage_record_image(
	const struct storage *storage, const char *owner, const char *vdi, struct fault *fault)
{
	struct vdi_place place CLEANUP(place_clear) = {0};
	int r = find_place(storage, vdi, &place, fault);

	if (r < 0)
		return r;
	const struct image_entry entry = {
		.owner = owner, .sr = place.sr, .location = place.location, .path = place.path};
	return journal_record(storage, &entry, NULL, fault);
}

int storage_find_vdi(const struct storage *storage, const char *sr, const char *location,
	char **ret_vdi, struct fault *fault)
{
	struct value *vdis CLEANUP_VALUE = NULL;
	int r = object_find(storage->pool, "VDI", "location", location, &vdis, fault);

	*ret_vdi = NULL;
	for (size_t i = 0; r >= 0 && !*ret_vdi && i < vdis->array.n_items; i++) {
		const char *vdi = vdis->array.items[i]->string;
		char *owner CLEANUP_FREE = NULL;
		r = object_get_string(storage->pool, "VDI", vdi, "SR", &owner, fault);
		if (r >= 0 && strcmp(owner, sr) == 0)
			*ret_vdi = xstrdup(vdi);
	}
	return r < 0 ? r : 0;
}
