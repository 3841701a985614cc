/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/migrate/ova.h"

#include "agent/migrate/metadata.h"
#include "agent/migrate/ova_internal.h"
#include "agent/migrate/unknown.h"
#include "agent/vm/object.h"
#include "agent/vm/operations.h"
#include "base/alloc.h"
#include "base/buf.h"
#include "base/parse.h"
#include "base/uuid.h"

#include <errno.h>
#include <string.h>

#define MAC_SEED_KEY "mac_seed"

struct importing {
	struct pool_db *pool;
	const struct ova_import *how;
	const struct value *objects;
	struct value *index; /* id -> number of the object */
	struct value *made;  /* id -> ref here */
	struct value *vms;   /* refs, result */
	struct buf missing;  /* uuids of disks */
	bool is_done;        /* a dry run ends with all undone */
};

/* One object of the document. */
struct item {
	size_t number;
	const char *class;
	const char *id;
	const struct value *snapshot;
};

/* --- The document -------------------------------------------------------------------------------
 */

static struct item item_at(const struct importing *importing, size_t number)
{
	const struct value *object = importing->objects->array.items[number];

	return (struct item){
		.number = number,
		.class = value_find_string(object, "class", ""),
		.id = value_find_string(object, "id", ""),
		.snapshot = value_find(object, "snapshot"),
	};
}

/* Says where it was; what names itself is left as it is. */
static int explain(const struct item *item, int error, struct fault *fault)
{
	if (error != -EINVAL || !fault)
		return error;
	char *why CLEANUP_FREE = fault_describe(fault);
	char *text CLEANUP_FREE = xasprintf("ova.xml: object %zu (%s %s, \"%s\"): %s", item->number,
		item->class, item->id, value_find_string(item->snapshot, "name_label", ""), why);
	return fault_set(fault, error, "IMPORT_ERROR", text, NULL);
}

static int bad_document(struct fault *fault, const char *text)
{
	return fault_set(fault, -EBADMSG, "IMPORT_ERROR", text, NULL);
}

static int check_version(const struct value *document, struct fault *fault)
{
	const struct value *version = value_find(document, "version");
	const char *text = value_find_string(version, "export_vsn", NULL);
	int64_t number = value_find_int(version, "export_vsn", 0);

	if (!version || version->type != VALUE_STRUCT)
		return bad_document(fault, "ova.xml: version must be a struct");
	if ((text && parse_int64(text, &number) < 0) || number < 0 || number > OVA_VERSION)
		return bad_document(fault, "ova.xml: version.export_vsn must be a number from 0 to "
					   "2: the document is of a newer kind");
	return 0;
}

static int index_objects(struct importing *importing, struct fault *fault)
{
	const struct value *objects = importing->objects;

	if (!objects || objects->type != VALUE_ARRAY)
		return bad_document(fault, "ova.xml: objects must be an array");
	for (size_t i = 0; i < objects->array.n_items; i++) {
		struct item item = item_at(importing, i);
		const char *wrong = !*item.class ? "class must be a text"
				    : !*item.id  ? "id must be a text"
				    : !item.snapshot || item.snapshot->type != VALUE_STRUCT
					    ? "snapshot must be a struct"
				    : value_find(importing->index, item.id)
					    ? "its id is another object's too"
					    : NULL;
		if (wrong) {
			char *text CLEANUP_FREE = xasprintf("ova.xml: object %zu: %s", i, wrong);
			return bad_document(fault, text);
		}
		value_set_int(importing->index, item.id, (int64_t)i);
	}
	return 0;
}

/* The object of that class that a relation names. 0: null; 1: *ret_item. */
static int find_item(const struct importing *importing, const struct item *from, const char *field,
	const char *class, struct item *ret_item, struct fault *fault)
{
	const char *id = value_find_string(from->snapshot, field, REF_NULL);
	int64_t number = value_find_int(importing->index, id, -1);

	if (ref_is_null(id) || !*id)
		return 0;
	if (number < 0)
		return fault_set(fault, -ENOENT, "IMPORT_ERROR_FAILED_TO_FIND_OBJECT", id, NULL);
	*ret_item = item_at(importing, (size_t)number);
	if (strcmp(ret_item->class, class) == 0)
		return 1;
	fault_text(fault, -EINVAL, "%s is a %s, not a %s", field, ret_item->class, class);
	return explain(from, -EINVAL, fault);
}

static int keep_unknown(
	struct importing *importing, const struct item *item, const char *ref, struct fault *fault)
{
	return unknown_keep(
		importing->pool, item->class, ref, item->snapshot, importing->index, fault);
}

/* --- What is here already -----------------------------------------------------------------------
 */

static int find_by_uuid(
	struct importing *importing, const struct item *item, char **ret_ref, struct fault *fault)
{
	const char *uuid = value_find_string(item->snapshot, "uuid", "");
	struct fault local CLEANUP_FAULT = FAULT_INIT;
	int r = object_get_by_uuid(importing->pool, item->class, uuid, ret_ref, &local);

	if (r == 0 || fault_is(&local, "UUID_INVALID"))
		return r == 0;
	fault_move(fault, &local);
	return r;
}

/* A disk that a scan took in has another uuid. */
static int find_by_location(
	struct importing *importing, const struct item *vdi, char **ret_ref, struct fault *fault)
{
	const char *location = value_find_string(vdi->snapshot, "location", "");
	struct value *refs CLEANUP_VALUE = NULL;
	char *sr CLEANUP_FREE = NULL;
	struct item item;
	int r = find_item(importing, vdi, "SR", "SR", &item, fault);

	if (r > 0)
		r = find_by_uuid(importing, &item, &sr, fault);
	if (r <= 0)
		return r;
	r = object_find(importing->pool, "VDI", "location", location, &refs, fault);
	for (size_t i = 0; r == 0 && i < refs->array.n_items; i++) {
		char *other CLEANUP_FREE = NULL;
		const char *ref = refs->array.items[i]->string;
		r = object_get_string(importing->pool, "VDI", ref, "SR", &other, fault);
		if (r == 0 && strcmp(other, sr) == 0) {
			*ret_ref = xstrdup(ref);
			return 1;
		}
	}
	return r;
}

static int find_disk(
	struct importing *importing, const struct item *vdi, char **ret_ref, struct fault *fault)
{
	int r = find_by_uuid(importing, vdi, ret_ref, fault);

	return r != 0 ? r : find_by_location(importing, vdi, ret_ref, fault);
}

/* By uuid, else the one of that name and bridge; else it is made. */
static int find_network(struct importing *importing, const struct item *network, char **ret_ref,
	struct fault *fault)
{
	const char *name = value_find_string(network->snapshot, "name_label", "");
	const char *made = value_find_string(importing->made, network->id, NULL);
	struct value *fields CLEANUP_VALUE = NULL;
	struct value *refs CLEANUP_VALUE = NULL;
	int r = made ? 0 : find_by_uuid(importing, network, ret_ref, fault);

	if (made)
		*ret_ref = xstrdup(made);
	if (made || r != 0)
		return MIN(r, 0);
	r = object_get_by_name_label(importing->pool, "network", name, &refs, fault);
	for (size_t i = 0; r == 0 && i < refs->array.n_items; i++) {
		char *bridge CLEANUP_FREE = NULL;
		const char *ref = refs->array.items[i]->string;
		r = object_get_string(importing->pool, "network", ref, "bridge", &bridge, fault);
		if (r == 0 &&
			strcmp(bridge, value_find_string(network->snapshot, "bridge", "")) == 0) {
			*ret_ref = xstrdup(ref);
			return 0;
		}
	}
	if (r == 0)
		r = metadata_import_fields("network", network->snapshot, &fields, fault);
	if (r == 0) {
		metadata_settle_uuid(importing->pool, "network", fields, !importing->how->restore);
		r = object_create(importing->pool, "network", fields, ret_ref, fault);
	}
	if (r == 0)
		r = keep_unknown(importing, network, *ret_ref, fault);
	if (r == 0)
		value_set_string(importing->made, network->id, *ret_ref);
	return explain(network, r, fault);
}

/* --- VMs ----------------------------------------------------------------------------------------
 */

static int check_identity(
	struct importing *importing, const struct value *fields, struct fault *fault)
{
	const char *uuid = value_find_string(fields, "uuid", "");
	char *existing CLEANUP_FREE = NULL;
	int64_t version = 0;

	if (!importing->how->restore ||
		object_get_by_uuid(importing->pool, "VM", uuid, &existing, NULL) < 0)
		return 0;
	int r = object_get_int(importing->pool, "VM", existing, "version", &version, fault);
	char *here CLEANUP_FREE = xasprintf("%lld", (long long)version);
	char *there CLEANUP_FREE =
		xasprintf("%lld", (long long)value_find_int(fields, "version", 0));
	return r < 0 ? r
		     : fault_set(fault, -EEXIST, "VM_TO_IMPORT_IS_NOT_NEWER_VERSION", existing,
			       here, there, NULL);
}

/* It arrives halted; what it has of its own is kept, or made anew. */
static int settle_fields(struct importing *importing, struct value *fields, struct fault *fault)
{
	struct value *config = value_find(fields, "other_config");

	value_set_string(fields, "power_state", "Halted");
	if (value_find_bool(fields, "is_control_domain", false))
		return fault_text(fault, -EINVAL, "a control domain belongs to its host");
	if (!importing->how->restore && config && config->type == VALUE_STRUCT &&
		value_find(config, MAC_SEED_KEY)) {
		char *seed CLEANUP_FREE = uuid_new();
		value_set_string(config, MAC_SEED_KEY, seed);
	}
	metadata_settle_uuid(importing->pool, "VM", fields, !importing->how->restore);
	return importing->how->check_vm(fields, fault);
}

/* 1: *ret_item is what it came from; 0: there is none. */
static int take_metrics(struct importing *importing, const struct item *vm,
	struct value **ret_metrics, struct item *ret_item, struct fault *fault)
{
	int r = find_item(importing, vm, "metrics", "VM_metrics", ret_item, fault);

	if (r <= 0) {
		*ret_metrics = value_new_struct();
		return r;
	}
	r = metadata_import_fields("VM_metrics", ret_item->snapshot, ret_metrics, fault);
	if (r < 0)
		return explain(ret_item, r, fault);
	metadata_settle_uuid(importing->pool, "VM_metrics", *ret_metrics, !importing->how->restore);
	return 1;
}

static int make_vm(struct importing *importing, const struct item *vm, struct fault *fault)
{
	struct value *fields CLEANUP_VALUE = NULL;
	struct value *metrics CLEANUP_VALUE = NULL;
	char *ref CLEANUP_FREE = NULL;
	struct item item;
	bool has_metrics = false;
	int r = metadata_import_fields("VM", vm->snapshot, &fields, fault);

	if (r == 0)
		r = check_identity(importing, fields, fault);
	if (r == 0)
		r = settle_fields(importing, fields, fault);
	if (r == 0)
		r = take_metrics(importing, vm, &metrics, &item, fault);
	has_metrics = r > 0;
	if (r >= 0)
		r = vm_object_create(importing->pool, fields, metrics, &ref, fault);
	if (r == 0)
		r = keep_unknown(importing, vm, ref, fault);
	if (r == 0 && has_metrics)
		r = keep_unknown(importing, &item, value_find_string(fields, "metrics", ""), fault);
	if (r < 0)
		return explain(vm, r, fault);
	value_set_string(importing->made, vm->id, ref);
	value_append_string(importing->vms, ref);
	return 0;
}

static int relate(struct importing *importing, const struct item *vm, const char *field,
	const char *ref, struct fault *fault)
{
	struct value *value CLEANUP_VALUE = value_new_string(ref);

	return object_set_field(importing->pool, "VM",
		value_find_string(importing->made, vm->id, ""), field, value, fault);
}

/* After all VMs are there. */
static int relate_vm(struct importing *importing, const struct item *vm, struct fault *fault)
{
	static const char *const fields[] = {"snapshot_of", "parent"};
	char *host CLEANUP_FREE = NULL;
	struct item item;
	int r = 0;

	for (size_t i = 0; r >= 0 && i < ARRAY_SIZE(fields); i++) {
		r = find_item(importing, vm, fields[i], "VM", &item, fault);
		if (r > 0)
			r = relate(importing, vm, fields[i],
				value_find_string(importing->made, item.id, REF_NULL), fault);
	}
	if (r >= 0)
		r = find_item(importing, vm, "affinity", "host", &item, fault);
	if (r > 0)
		r = find_by_uuid(importing, &item, &host, fault);
	if (r > 0)
		r = relate(importing, vm, "affinity", host, fault);
	return MIN(r, 0);
}

/* --- Devices ------------------------------------------------------------------------------------
 */

/* 1: the device is made; 0: it is left out, as its VM is no part of the document's, or its disk is
 * missing. */
static int settle_vbd(struct importing *importing, const struct item *vbd, struct value *fields,
	struct fault *fault)
{
	bool is_cd = strcmp(value_find_string(fields, "type", ""), "CD") == 0;
	char *vdi CLEANUP_FREE = NULL;
	struct item item;
	int r = find_item(importing, vbd, "VDI", "VDI", &item, fault);

	value_set_bool(fields, "empty", r == 0);
	if (r <= 0)
		return r < 0 ? r : 1;
	r = find_disk(importing, &item, &vdi, fault);
	if (r < 0)
		return r;
	value_set_bool(fields, "empty", r == 0);
	if (r > 0)
		value_set_string(fields, "VDI", vdi);
	if (r > 0 || is_cd)
		return 1;
	if (!importing->how->force)
		buf_printf(&importing->missing, "%s%s", importing->missing.length ? "," : "",
			value_find_string(item.snapshot, "uuid", ""));
	return 0;
}

static int settle_vif(struct importing *importing, const struct item *vif, struct value *fields,
	struct fault *fault)
{
	char *network CLEANUP_FREE = NULL;
	struct item item;
	int r = find_item(importing, vif, "network", "network", &item, fault);

	if (r == 0)
		return fault_text(fault, -EINVAL, "network must name an object");
	if (r > 0)
		r = find_network(importing, &item, &network, fault);
	if (r < 0)
		return r;
	value_set_string(fields, "network", network);
	if (!importing->how->restore)
		value_set_string(fields, "MAC", "");
	bool was_generated = value_find_bool(fields, "MAC_autogenerated", false);
	r = importing->how->check_vif(fields, fault);
	if (importing->how->restore)
		value_set_bool(fields, "MAC_autogenerated", was_generated);
	return r < 0 ? r : 1;
}

static int make_device(struct importing *importing, const struct item *device, struct fault *fault)
{
	bool is_vbd = strcmp(device->class, "VBD") == 0;
	struct value *fields CLEANUP_VALUE = NULL;
	char *ref CLEANUP_FREE = NULL;
	struct item vm;
	int r = find_item(importing, device, "VM", "VM", &vm, fault);

	if (r <= 0)
		return r;
	r = metadata_import_fields(device->class, device->snapshot, &fields, fault);
	if (r == 0)
		r = metadata_check_position(device->class, fields, device->number, fault);
	if (r == 0)
		r = is_vbd ? settle_vbd(importing, device, fields, fault)
			   : settle_vif(importing, device, fields, fault);
	if (r > 0) {
		metadata_settle_uuid(
			importing->pool, device->class, fields, !importing->how->restore);
		value_set_string(fields, "VM", value_find_string(importing->made, vm.id, REF_NULL));
		r = object_create(importing->pool, device->class, fields, &ref, fault);
		if (r == 0)
			r = keep_unknown(importing, device, ref, fault);
	}
	return explain(device, r, fault);
}

/* --- All ----------------------------------------------------------------------------------------
 */

static int for_each(struct importing *importing, const char *class,
	int (*fn)(struct importing *importing, const struct item *item, struct fault *fault),
	struct fault *fault)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < importing->objects->array.n_items; i++) {
		struct item item = item_at(importing, i);
		if (strcmp(item.class, class) == 0)
			r = fn(importing, &item, fault);
	}
	return r;
}

static int import_all(struct pool_db *pool, void *arg, struct fault *fault)
{
	struct importing *importing = arg;

	importing->pool = pool;
	int r = for_each(importing, "VM", make_vm, fault);
	if (r == 0)
		r = for_each(importing, "VM", relate_vm, fault);
	if (r == 0)
		r = for_each(importing, "VBD", make_device, fault);
	if (r == 0)
		r = for_each(importing, "VIF", make_device, fault);
	if (r == 0 && importing->missing.length)
		return fault_set(fault, -ENOENT, "IMPORT_ERROR_ATTACHED_DISKS_NOT_FOUND",
			importing->missing.data, NULL);
	if (r < 0)
		return r;
	importing->is_done = true;
	return importing->how->dry_run ? -ECANCELED : 0;
}

int ova_import(struct pool_db *pool, const struct value *document, const struct ova_import *how,
	struct value **ret_vms, struct fault *fault)
{
	struct value *index CLEANUP_VALUE = value_new_struct();
	struct value *made CLEANUP_VALUE = value_new_struct();
	struct value *vms CLEANUP_VALUE = value_new_array();
	struct importing importing = {
		.how = how,
		.objects = value_find(document, "objects"),
		.index = index,
		.made = made,
		.vms = vms,
	};
	int r = check_version(document, fault);

	if (r == 0)
		r = index_objects(&importing, fault);
	if (r == 0)
		r = pool_db_transaction(pool, import_all, &importing, fault);
	buf_free(&importing.missing);
	if (r < 0 && !(importing.is_done && how->dry_run))
		return r;
	*ret_vms = how->dry_run ? value_new_array() : TAKE_PTR(vms);
	return 0;
}
