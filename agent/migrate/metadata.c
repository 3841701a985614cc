/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/migrate/metadata_internal.h"
#include "agent/migrate/unknown.h"
#include "agent/vm/object.h"
#include "base/alloc.h"
#include "base/parse.h"
#include "base/uuid.h"
#include "schema/classes.h"

#include <errno.h>
#include <string.h>

/* Highest place of a disk or a network card. */
#define MAX_POSITION 255

/* Stored fields that describe the moment or the place, not the object. */
static bool stays_behind(const char *field)
{
	static const char *const fields[] = {
		"allowed_operations",
		"current_operations",
		"currently_attached",
		"domid",
		"location",
		"managed",
		"missing",
		"physical_utilisation",
		"runtime_properties",
		"status_code",
		"status_detail",
		"storage_lock",
		"virtual_size",
	};

	for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
		if (strcmp(fields[i], field) == 0)
			return true;
	return false;
}

static bool travels(const struct class_field *field)
{
	return field->type != FIELD_DERIVED && field->type != FIELD_REF &&
	       field->type != FIELD_SET_REF && !stays_behind(field->name);
}

int metadata_export_object(struct pool_db *pool, const char *class_name, const char *ref,
	struct value **ret_fields, struct fault *fault)
{
	const struct class *class = class_find(class_name);
	struct value *record CLEANUP_VALUE = NULL;

	int r = object_get_record(pool, class_name, ref, &record, fault);
	if (r < 0)
		return r;
	struct value *fields = value_new_struct();
	for (size_t i = 0; i < class->n_fields; i++) {
		const struct value *value = value_find(record, class->fields[i].name);
		if (value && travels(&class->fields[i]))
			value_set(fields, class->fields[i].name, value_copy(value));
	}
	*ret_fields = fields;
	return 0;
}

int metadata_export_whole(struct pool_db *pool, const char *class_name, const char *ref,
	struct value **ret_fields, struct fault *fault)
{
	struct value *fields CLEANUP_VALUE = NULL;
	int r = metadata_export_object(pool, class_name, ref, &fields, fault);

	if (r == 0)
		r = unknown_add(pool, class_name, ref, fields, fault);
	if (r == 0)
		*ret_fields = TAKE_PTR(fields);
	return r;
}

static int export_vbds(struct pool_db *pool, const char *vm, const struct value *disks,
	struct value *ret_vbds, struct fault *fault)
{
	struct value *refs CLEANUP_VALUE = NULL;

	int r = object_find(pool, "VBD", "VM", vm, &refs, fault);
	for (size_t i = 0; r == 0 && i < refs->array.n_items; i++) {
		const char *ref = refs->array.items[i]->string;
		struct value *fields CLEANUP_VALUE = NULL;
		char *vdi CLEANUP_FREE = NULL;
		r = metadata_export_whole(pool, "VBD", ref, &fields, fault);
		if (r == 0)
			r = object_get_string(pool, "VBD", ref, "VDI", &vdi, fault);
		if (r < 0)
			return r;
		int64_t index = value_index_of_string(disks, vdi);
		value_set_int(fields, "disk", index);
		/* A CD stays behind: its drive arrives empty. */
		value_set_bool(fields, "empty", index < 0);
		value_append(ret_vbds, TAKE_PTR(fields));
	}
	return r;
}

static int export_vifs(struct pool_db *pool, const char *vm, const struct value *vif_map,
	struct value *ret_vifs, struct fault *fault)
{
	struct value *refs CLEANUP_VALUE = NULL;

	int r = object_find(pool, "VIF", "VM", vm, &refs, fault);
	for (size_t i = 0; r == 0 && i < refs->array.n_items; i++) {
		const char *ref = refs->array.items[i]->string;
		struct value *fields CLEANUP_VALUE = NULL;
		const char *network = value_find_string(vif_map, ref, NULL);
		if (ref_is_null(network))
			return fault_set(fault, -EINVAL, "VIF_NOT_IN_MAP", ref, NULL);
		r = metadata_export_whole(pool, "VIF", ref, &fields, fault);
		if (r < 0)
			return r;
		value_set_string(fields, "network", network);
		value_append(ret_vifs, TAKE_PTR(fields));
	}
	return r;
}

int metadata_export_one(struct pool_db *pool, const char *vm, const struct value *disks,
	const struct value *vif_map, struct value *ret_manifest, struct fault *fault)
{
	struct value *fields = NULL;
	char *metrics CLEANUP_FREE = NULL;

	int r = metadata_export_whole(pool, "VM", vm, &fields, fault);
	if (r < 0)
		return r;
	value_set(ret_manifest, "vm", TAKE_PTR(fields));
	r = object_get_string(pool, "VM", vm, "metrics", &metrics, fault);
	if (r < 0)
		return r;
	if (!ref_is_null(metrics) && object_exists(pool, "VM_metrics", metrics)) {
		r = metadata_export_whole(pool, "VM_metrics", metrics, &fields, fault);
		if (r < 0)
			return r;
		value_set(ret_manifest, "metrics", TAKE_PTR(fields));
	}
	struct value *vbds = value_new_array();
	value_set(ret_manifest, "vbds", vbds);
	struct value *vifs = value_new_array();
	value_set(ret_manifest, "vifs", vifs);
	r = export_vbds(pool, vm, disks, vbds, fault);
	return r < 0 ? r : export_vifs(pool, vm, vif_map, vifs, fault);
}

/* XML-RPC carries ints as bare text, and JSON carries datetimes as text. */
static int coerce(const struct class_field *field, const struct value *value,
	struct value **ret_value, struct fault *fault)
{
	const char *text = value_string(value, NULL);
	int64_t integer;
	double real;

	*ret_value = NULL;
	if (text && field->type == FIELD_INT && parse_int64(text, &integer) == 0)
		*ret_value = value_new_int(integer);
	else if (text && field->type == FIELD_FLOAT && parse_double(text, &real) == 0)
		*ret_value = value_new_double(real);
	else if (text && field->type == FIELD_DATETIME && datetime_parse(text, &integer) == 0)
		*ret_value = value_new_datetime(integer);
	else if (text && (field->type == FIELD_INT || field->type == FIELD_FLOAT ||
				 field->type == FIELD_DATETIME))
		return fault_set(fault, -EINVAL, "FIELD_TYPE_ERROR", field->name, NULL);
	else
		*ret_value = value_copy(value);
	return 0;
}

int metadata_import_fields(const char *class_name, const struct value *fields,
	struct value **ret_fields, struct fault *fault)
{
	const struct class *class = class_find(class_name);
	struct value *chosen CLEANUP_VALUE = value_new_struct();

	for (size_t i = 0; i < class->n_fields; i++) {
		const struct class_field *field = &class->fields[i];
		const struct value *value = value_find(fields, field->name);
		struct value *right = NULL;
		if (!value || !travels(field))
			continue;
		int r = coerce(field, value, &right, fault);
		if (r < 0)
			return r;
		value_set(chosen, field->name, right);
	}
	*ret_fields = TAKE_PTR(chosen);
	return 0;
}

void metadata_settle_uuid(
	struct pool_db *pool, const char *class, struct value *fields, bool new_identity)
{
	const char *uuid = value_find_string(fields, "uuid", "");
	char *ref CLEANUP_FREE = NULL;

	if (new_identity || !uuid_is_valid(uuid) ||
		object_get_by_uuid(pool, class, uuid, &ref, NULL) == 0)
		value_unset(fields, "uuid");
}

/* more: fields that are no matter of the manifest. */
static int import_vm(struct pool_db *pool, const struct value *manifest, const struct value *more,
	bool new_identity, char **ret_vm, struct fault *fault)
{
	struct value *fields CLEANUP_VALUE = NULL;
	struct value *metrics CLEANUP_VALUE = NULL;
	const struct value *sent_metrics = value_find(manifest, "metrics");

	int r = metadata_import_fields("VM", value_find(manifest, "vm"), &fields, fault);
	if (r == 0 && sent_metrics)
		r = metadata_import_fields("VM_metrics", sent_metrics, &metrics, fault);
	if (r < 0)
		return r;
	if (!metrics)
		metrics = value_new_struct();
	metadata_settle_uuid(pool, "VM_metrics", metrics, new_identity);
	if (new_identity)
		value_unset(fields, "uuid");
	for (size_t i = 0; i < more->record.n_members; i++)
		value_set(fields, more->record.members[i].name,
			value_copy(more->record.members[i].value));
	r = vm_object_create(pool, fields, metrics, ret_vm, fault);
	if (r == 0)
		r = unknown_keep(pool, "VM", *ret_vm, value_find(manifest, "vm"), NULL, fault);
	return r < 0 ? r
		     : unknown_keep(pool, "VM_metrics", value_find_string(fields, "metrics", ""),
			       sent_metrics, NULL, fault);
}

int metadata_check_position(
	const char *class, const struct value *fields, size_t number, struct fault *fault)
{
	const char *name = strcmp(class, "VBD") == 0 ? "userdevice" : "device";
	const char *text = value_find_string(fields, name, "");
	uint64_t position;

	if (parse_range(text, 0, MAX_POSITION, &position) == 0)
		return 0;
	return fault_text(fault, -EINVAL,
		"manifest: %s %zu: %s is \"%s\" and must be a decimal number from 0 to %d", class,
		number, name, text, MAX_POSITION);
}

int metadata_read_index(const struct value *value, const char *who, const char *what, size_t n,
	int64_t *ret_index, struct fault *fault)
{
	int64_t index = -2;

	if (value && value->type == VALUE_INT)
		index = value->integer;
	else if (parse_int64(value_string(value, ""), &index) < 0)
		index = -2;
	if (index < -1 || index >= (int64_t)n)
		return fault_text(fault, -EINVAL,
			"manifest: %s must name a %s from 0 to %zd, or -1 for none", who, what,
			(ssize_t)n - 1);
	*ret_index = index;
	return 0;
}

/* The disk that a VBD names; -1: its drive is empty. */
static int read_disk_index(const struct value *device, size_t number, size_t n_disks,
	int64_t *ret_index, struct fault *fault)
{
	char *who CLEANUP_FREE = xasprintf("VBD %zu", number);

	return metadata_read_index(
		value_find(device, "disk"), who, "disk", n_disks, ret_index, fault);
}

static int import_devices(struct pool_db *pool, const char *class, const struct value *devices,
	const char *vm, const struct value *vdis, bool new_identity, struct fault *fault)
{
	for (size_t i = 0; devices && i < devices->array.n_items; i++) {
		const struct value *device = devices->array.items[i];
		struct value *fields CLEANUP_VALUE = NULL;
		char *ref CLEANUP_FREE = NULL;
		int64_t disk = -1;
		int r = metadata_import_fields(class, device, &fields, fault);
		if (r == 0)
			r = metadata_check_position(class, fields, i, fault);
		if (r == 0 && vdis)
			r = read_disk_index(device, i, vdis->array.n_items, &disk, fault);
		if (r < 0)
			return r;
		metadata_settle_uuid(pool, class, fields, new_identity);
		value_set_string(fields, "VM", vm);
		if (disk >= 0)
			value_set_string(fields, "VDI", vdis->array.items[disk]->string);
		if (!vdis)
			value_set_string(
				fields, "network", value_find_string(device, "network", ""));
		r = object_create(pool, class, fields, &ref, fault);
		if (r == 0)
			r = unknown_keep(pool, class, ref, device, NULL, fault);
		if (r < 0)
			return r;
	}
	return 0;
}

int metadata_import_one(struct pool_db *pool, const struct value *manifest,
	const struct value *more, const struct value *vdis, bool new_identity, char **ret_vm,
	struct fault *fault)
{
	char *vm CLEANUP_FREE = NULL;
	int r = import_vm(pool, manifest, more, new_identity, &vm, fault);

	if (r == 0)
		r = import_devices(
			pool, "VBD", value_find(manifest, "vbds"), vm, vdis, new_identity, fault);
	if (r == 0)
		r = import_devices(
			pool, "VIF", value_find(manifest, "vifs"), vm, NULL, new_identity, fault);
	if (r == 0)
		*ret_vm = TAKE_PTR(vm);
	return r;
}
