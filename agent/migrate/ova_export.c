/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/migrate/ova.h"

#include "agent/migrate/metadata.h"
#include "agent/migrate/ova_internal.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/uuid.h"

#include <string.h>

struct exporting {
	struct pool_db *pool;
	const struct value *vms;
	bool snapshots;
	struct value *ids;  /* ref -> id, in the order of the document */
	struct value *refs; /* the same order: array of {class, ref} */
	struct value *objects;
};

static int add(struct exporting *exporting, const char *class, const char *ref)
{
	struct value *entry;

	if (ref_is_null(ref) || value_find(exporting->ids, ref))
		return 0;
	value_set(exporting->ids, ref, value_new_format("Ref:%zu", exporting->refs->array.n_items));
	entry = value_new_struct();
	value_set_string(entry, "class", class);
	value_set_string(entry, "ref", ref);
	value_append(exporting->refs, entry);
	return 1;
}

/* What the object names, as far as it is not another VM: that is there for its own sake. */
static int add_named(struct exporting *exporting, const struct ova_class *class, const char *ref,
	struct fault *fault)
{
	for (size_t i = 0; i < OVA_MAX_RELATIONS && class->relations[i].field; i++) {
		const struct ova_relation *relation = &class->relations[i];
		char *other CLEANUP_FREE = NULL;
		if (relation->is_weak)
			continue;
		int r = object_get_string(
			exporting->pool, class->name, ref, relation->field, &other, fault);
		if (r < 0)
			return r;
		if (add(exporting, relation->class, other) == 0)
			continue;
		r = add_named(exporting, ova_class_find(relation->class), other, fault);
		if (r < 0)
			return r;
	}
	return 0;
}

static int add_devices(
	struct exporting *exporting, const char *class, const char *vm, struct fault *fault)
{
	struct value *refs CLEANUP_VALUE = NULL;
	int r = object_find(exporting->pool, class, "VM", vm, &refs, fault);

	for (size_t i = 0; r == 0 && i < refs->array.n_items; i++) {
		const char *ref = refs->array.items[i]->string;
		add(exporting, class, ref);
		r = add_named(exporting, ova_class_find(class), ref, fault);
	}
	return r;
}

static int add_vm(struct exporting *exporting, const char *vm, struct fault *fault)
{
	struct value *snapshots CLEANUP_VALUE = NULL;

	if (add(exporting, "VM", vm) == 0)
		return 0;
	int r = add_named(exporting, ova_class_find("VM"), vm, fault);
	if (r == 0)
		r = add_devices(exporting, "VBD", vm, fault);
	if (r == 0)
		r = add_devices(exporting, "VIF", vm, fault);
	if (r == 0 && exporting->snapshots)
		r = object_find(exporting->pool, "VM", "snapshot_of", vm, &snapshots, fault);
	for (size_t i = 0; r == 0 && snapshots && i < snapshots->array.n_items; i++)
		r = add_vm(exporting, snapshots->array.items[i]->string, fault);
	return r;
}

static int write_relations(struct exporting *exporting, const struct ova_class *class,
	const char *ref, struct value *snapshot, struct fault *fault)
{
	for (size_t i = 0; i < OVA_MAX_RELATIONS && class->relations[i].field; i++) {
		const char *field = class->relations[i].field;
		char *other CLEANUP_FREE = NULL;
		int r = object_get_string(exporting->pool, class->name, ref, field, &other, fault);
		if (r < 0)
			return r;
		value_set_string(
			snapshot, field, value_find_string(exporting->ids, other, REF_NULL));
	}
	return 0;
}

/* Of a host or SR no more than what tells it from others. */
static int write_fields(struct exporting *exporting, const struct ova_class *class, const char *ref,
	struct value **ret_snapshot, struct fault *fault)
{
	struct value *record CLEANUP_VALUE = NULL;
	struct value *snapshot CLEANUP_VALUE = NULL;
	int r = object_get_record(exporting->pool, class->name, ref, &record, fault);

	if (r == 0 && class->is_named_only)
		snapshot = value_new_struct();
	else if (r == 0)
		r = metadata_export_whole(exporting->pool, class->name, ref, &snapshot, fault);
	if (r < 0)
		return r;
	for (size_t i = 0; i < OVA_MAX_RELATIONS && class->more[i]; i++) {
		const struct value *value = value_find(record, class->more[i]);
		if (value)
			value_set(snapshot, class->more[i], value_copy(value));
	}
	*ret_snapshot = TAKE_PTR(snapshot);
	return 0;
}

static int write_object(struct exporting *exporting, const struct value *entry, struct fault *fault)
{
	const char *ref = value_find_string(entry, "ref", "");
	const struct ova_class *class = ova_class_find(value_find_string(entry, "class", ""));
	struct value *object CLEANUP_VALUE = value_new_struct();
	struct value *snapshot = NULL;
	int r = write_fields(exporting, class, ref, &snapshot, fault);

	if (r < 0)
		return r;
	value_set_string(object, "class", class->name);
	value_set_string(object, "id", value_find_string(exporting->ids, ref, ""));
	value_set(object, "snapshot", snapshot);
	r = write_relations(exporting, class, ref, snapshot, fault);
	if (r == 0)
		value_append(exporting->objects, TAKE_PTR(object));
	return r;
}

/* All from one moment. */
static int export_all(struct pool_db *pool, void *arg, struct fault *fault)
{
	struct exporting *exporting = arg;
	int r = 0;

	exporting->pool = pool;
	for (size_t i = 0; r == 0 && i < exporting->vms->array.n_items; i++)
		r = add_vm(exporting, value_string(exporting->vms->array.items[i], ""), fault);
	for (size_t i = 0; r == 0 && i < exporting->refs->array.n_items; i++)
		r = write_object(exporting, exporting->refs->array.items[i], fault);
	return r;
}

static struct value *version(void)
{
	struct value *version = value_new_struct();
	char *date CLEANUP_FREE = datetime_format(clock_wall_sec());

	value_set_string(version, "hostname", "");
	value_set_string(version, "date", date);
	value_set_string(version, "product_brand", "Ferry");
	value_set_string(version, "product_version", FERRY_VERSION);
	value_set_string(version, "build_number", "0");
	value_set_int(version, "xapi_major", 1);
	value_set_int(version, "xapi_minor", 0);
	value_set_int(version, "export_vsn", OVA_VERSION);
	return version;
}

int ova_export(struct pool_db *pool, const struct value *vms, bool snapshots,
	struct value **ret_document, struct fault *fault)
{
	struct value *ids CLEANUP_VALUE = value_new_struct();
	struct value *refs CLEANUP_VALUE = value_new_array();
	struct value *document CLEANUP_VALUE = value_new_struct();
	struct exporting exporting = {
		.vms = vms,
		.snapshots = snapshots,
		.ids = ids,
		.refs = refs,
		.objects = value_new_array(),
	};

	value_set(document, "version", version());
	value_set(document, "objects", exporting.objects);
	int r = pool_db_transaction(pool, export_all, &exporting, fault);
	if (r == 0)
		*ret_document = TAKE_PTR(document);
	return r;
}
