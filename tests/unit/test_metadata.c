/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/check.h"

#include "agent/migrate/metadata.h"
#include "base/alloc.h"
#include "base/uuid.h"
#include "schema/classes.h"

#include <errno.h>
#include <unistd.h>

/* Two pools, each a database in a folder of its own. */
struct world {
	char dir[64];
	struct pool_db *a;
	struct pool_db *b;
	char *sr_b;
	char *network_b;
	struct value *none; /* of its snapshots */
	struct fault fault;
};

static char *create(struct world *w, struct pool_db *pool, const char *class, struct value *fields)
{
	char *ref = NULL;

	check_ok(&w->fault, object_create(pool, class, fields, &ref, &w->fault));
	value_free(fields);
	return ref;
}

static struct value *named(const char *name)
{
	return value_set_string(value_new_struct(), "name_label", name);
}

static int set_up(void **state)
{
	struct world *w = xcalloc(1, sizeof(*w));

	strcpy(w->dir, "/tmp/ferry-metadata.XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	char *a CLEANUP_FREE = xasprintf("%s/a.db", w->dir);
	char *b CLEANUP_FREE = xasprintf("%s/b.db", w->dir);
	check_ok(&w->fault, pool_db_open(a, &w->a, &w->fault));
	check_ok(&w->fault, pool_db_open(b, &w->b, &w->fault));
	w->sr_b = create(w, w->b, "SR", named("there"));
	w->network_b = create(w, w->b, "network", named("there"));
	w->none = value_new_array();
	*state = w;
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;

	pool_db_close(w->a);
	pool_db_close(w->b);
	char *command CLEANUP_FREE = xasprintf("rm -r '%s'", w->dir);
	assert_int_equal(system(command), 0);
	free(w->sr_b);
	free(w->network_b);
	value_free(w->none);
	fault_clear(&w->fault);
	free(w);
	return 0;
}

/* A VM with two disks, a CD drive that holds an image, and two VIFs. */
static char *make_vm(struct world *w, struct value *disks, struct value *vif_map)
{
	struct value *fields = named("guest \"one\", ümläut\n<&>");
	char *sr CLEANUP_FREE = create(w, w->a, "SR", named("here"));
	char *network CLEANUP_FREE = create(w, w->a, "network", named("here"));

	value_set_int(fields, "memory_static_max", INT64_C(1) << 40);
	value_set_int(fields, "VCPUs_max", 3);
	value_set_string(fields, "power_state", "Halted");
	value_set(fields, "platform", value_set_string(value_new_struct(), "acpi", "1"));
	value_set(fields, "tags", value_append_string(value_new_array(), "tag, with comma"));
	value_set(fields, "snapshot_time", value_new_datetime(1234567));
	value_set(fields, "blocked_operations",
		value_set_string(value_new_struct(), "destroy", "keep"));
	char *vm = create(w, w->a, "VM", fields);
	for (int i = 0; i < 3; i++) {
		struct value *vdi = named("disk");
		value_set_string(vdi, "SR", sr);
		value_set_int(vdi, "virtual_size", 512 * (i + 1));
		char *ref CLEANUP_FREE = create(w, w->a, "VDI", vdi);
		struct value *vbd = value_set_string(value_new_struct(), "VM", vm);
		char *device CLEANUP_FREE = xasprintf("%d", i);
		value_set_string(vbd, "VDI", ref);
		value_set_string(vbd, "userdevice", device);
		value_set_string(vbd, "type", i == 2 ? "CD" : "Disk");
		value_set_string(vbd, "mode", i == 2 ? "RO" : "RW");
		value_set_bool(vbd, "bootable", i == 0);
		free(create(w, w->a, "VBD", vbd));
		if (i < 2)
			value_append_string(disks, ref);
	}
	for (int i = 0; i < 2; i++) {
		struct value *vif = value_set_string(value_new_struct(), "VM", vm);
		value_set_string(vif, "network", network);
		value_set_string(vif, "device", i ? "1" : "0");
		value_set_string(vif, "MAC", i ? "aa:00:00:00:00:01" : "aa:00:00:00:00:02");
		value_set_int(vif, "MTU", 9000);
		char *ref CLEANUP_FREE = create(w, w->a, "VIF", vif);
		value_set_string(vif_map, ref, w->network_b);
	}
	return vm;
}

/* What the receiver makes of the plan: SR, uuid, location and size per disk. */
static struct value *receiver_disks(struct world *w, const struct value *refs)
{
	struct value *disks = value_new_array();

	for (size_t i = 0; i < refs->array.n_items; i++) {
		struct value *disk = value_new_struct();
		struct value *fields = NULL;
		char *uuid CLEANUP_FREE = NULL;
		const char *ref = refs->array.items[i]->string;
		check_ok(&w->fault, metadata_export_object(w->a, "VDI", ref, &fields, &w->fault));
		check_ok(&w->fault, object_get_string(w->a, "VDI", ref, "uuid", &uuid, &w->fault));
		value_set(disk, "fields", fields);
		value_set_string(disk, "uuid", uuid);
		value_set_string(disk, "sr", w->sr_b);
		value_set_string(disk, "location", "x.raw");
		value_set_int(disk, "size", 512 * (int64_t)(i + 1));
		value_append(disks, disk);
	}
	return disks;
}

/* XML-RPC carries ints as bare text and JSON documents carry datetimes as text. */
static struct value *as_received(const struct value *value)
{
	struct value *copy;

	if (value->type == VALUE_INT)
		return value_new_format("%lld", (long long)value->integer);
	if (value->type == VALUE_DATETIME) {
		char *text CLEANUP_FREE = datetime_format(value->integer);
		return value_new_string(text);
	}
	if (value->type == VALUE_ARRAY) {
		copy = value_new_array();
		for (size_t i = 0; i < value->array.n_items; i++)
			value_append(copy, as_received(value->array.items[i]));
		return copy;
	}
	if (value->type != VALUE_STRUCT)
		return value_copy(value);
	copy = value_new_struct();
	for (size_t i = 0; i < value->record.n_members; i++)
		value_set(copy, value->record.members[i].name,
			as_received(value->record.members[i].value));
	return copy;
}

static struct value *refs_of(struct world *w, struct pool_db *pool, const char *vm)
{
	struct value *refs = value_new_array();
	struct value *vbds CLEANUP_VALUE = NULL;

	check_ok(&w->fault, object_find(pool, "VBD", "VM", vm, &vbds, &w->fault));
	for (size_t i = 0; i < vbds->array.n_items; i++) {
		char *vdi CLEANUP_FREE = NULL;
		check_ok(&w->fault, object_get_string(pool, "VBD", vbds->array.items[i]->string,
					    "VDI", &vdi, &w->fault));
		if (!ref_is_null(vdi))
			value_append_string(refs, vdi);
	}
	return refs;
}

static struct value *identity_map(struct world *w, struct pool_db *pool, const char *vm)
{
	struct value *map = value_new_struct();
	struct value *vifs CLEANUP_VALUE = NULL;

	check_ok(&w->fault, object_find(pool, "VIF", "VM", vm, &vifs, &w->fault));
	for (size_t i = 0; i < vifs->array.n_items; i++)
		value_set_string(map, vifs->array.items[i]->string, w->network_b);
	return map;
}

static void export_import_export_is_equal(void **state)
{
	struct world *w = *state;
	struct value *disks CLEANUP_VALUE = value_new_array();
	struct value *vif_map CLEANUP_VALUE = value_new_struct();
	struct value *first CLEANUP_VALUE = NULL;
	struct value *second CLEANUP_VALUE = NULL;
	char *vm CLEANUP_FREE = make_vm(w, disks, vif_map);
	char *there CLEANUP_FREE = NULL;

	check_ok(&w->fault, metadata_export(w->a, vm, w->none, disks, vif_map, &first, &w->fault));
	struct value *received CLEANUP_VALUE = as_received(first);
	struct value *placed CLEANUP_VALUE = receiver_disks(w, disks);
	check_ok(&w->fault, metadata_import(w->b, received, placed, false, &there, &w->fault));

	struct value *refs CLEANUP_VALUE = refs_of(w, w->b, there);
	struct value *same CLEANUP_VALUE = identity_map(w, w->b, there);
	assert_int_equal(refs->array.n_items, 2);
	check_ok(&w->fault, metadata_export(w->b, there, w->none, refs, same, &second, &w->fault));
	value_unset(first, "metrics");
	value_unset(second, "metrics");
	assert_true(value_equal(first, second));
}

/* Of the VM, with a disk of its own that goes into `disks`. */
static char *make_snapshot(struct world *w, const char *vm, const char *parent, struct value *disks)
{
	struct value *fields = named("kept");
	struct value *vdi = named("disk");
	char *sr CLEANUP_FREE = NULL;
	const char *of = disks->array.items[0]->string;

	check_ok(&w->fault, object_get_string(w->a, "VDI", of, "SR", &sr, &w->fault));
	value_set_string(vdi, "SR", sr);
	value_set_string(vdi, "snapshot_of", of);
	char *disk CLEANUP_FREE = create(w, w->a, "VDI", vdi);
	value_set_string(fields, "snapshot_of", vm);
	value_set_string(fields, "parent", parent);
	value_set_bool(fields, "is_a_snapshot", true);
	char *snapshot = create(w, w->a, "VM", fields);
	struct value *vbd = value_set_string(value_new_struct(), "VM", snapshot);
	value_set_string(vbd, "VDI", disk);
	value_set_string(vbd, "userdevice", "0");
	value_set_string(vbd, "type", "Disk");
	free(create(w, w->a, "VBD", vbd));
	value_append_string(disks, disk);
	return snapshot;
}

static void check_names(
	struct world *w, const char *class, const char *ref, const char *field, const char *other)
{
	char *found CLEANUP_FREE = NULL;

	check_ok(&w->fault, object_get_string(w->b, class, ref, field, &found, &w->fault));
	assert_string_equal(found, other);
}

/* Two in a chain, the later of which has a memory; the VM was gone back to the earlier. */
static void a_tree_of_snapshots_arrives_as_it_was(void **state)
{
	struct world *w = *state;
	struct value *disks CLEANUP_VALUE = value_new_array();
	struct value *vif_map CLEANUP_VALUE = value_new_struct();
	struct value *manifest CLEANUP_VALUE = NULL;
	char *vm CLEANUP_FREE = make_vm(w, disks, vif_map);
	char *earlier CLEANUP_FREE = make_snapshot(w, vm, REF_NULL, disks);
	char *later CLEANUP_FREE = make_snapshot(w, vm, earlier, disks);
	struct value *parent CLEANUP_VALUE = value_new_string(earlier);
	struct value *memory CLEANUP_VALUE = value_copy(disks->array.items[1]);
	struct value *snapshots CLEANUP_VALUE = value_new_array();
	char *there CLEANUP_FREE = NULL;

	check_ok(&w->fault, object_set_field(w->a, "VM", vm, "parent", parent, &w->fault));
	check_ok(&w->fault, object_set_field(w->a, "VM", later, "suspend_VDI", memory, &w->fault));
	value_append_string(value_append_string(snapshots, later), earlier);
	check_ok(&w->fault,
		metadata_export(w->a, vm, snapshots, disks, vif_map, &manifest, &w->fault));
	struct value *refs CLEANUP_VALUE = metadata_snapshots(manifest);
	assert_true(value_equal(refs, snapshots));
	struct value *received CLEANUP_VALUE = as_received(manifest);
	struct value *placed CLEANUP_VALUE = receiver_disks(w, disks);
	value_set_int(placed->array.items[2], "snapshot_of", 0);
	value_set_int(placed->array.items[3], "snapshot_of", -1);
	check_ok(&w->fault, metadata_import(w->b, received, placed, false, &there, &w->fault));

	struct value *made CLEANUP_VALUE = NULL;
	check_ok(&w->fault, object_find(w->b, "VM", "snapshot_of", there, &made, &w->fault));
	assert_int_equal(made->array.n_items, 2);
	const char *first = made->array.items[0]->string;
	const char *second = made->array.items[1]->string;
	struct value *of_first CLEANUP_VALUE = refs_of(w, w->b, first);
	struct value *of_vm CLEANUP_VALUE = refs_of(w, w->b, there);
	bool first_is_later = false;
	char *found CLEANUP_FREE = NULL;
	check_ok(&w->fault, object_get_string(w->b, "VM", first, "parent", &found, &w->fault));
	first_is_later = !ref_is_null(found);
	check_names(w, "VM", first_is_later ? first : second, "parent",
		first_is_later ? second : first);
	check_names(w, "VM", first_is_later ? second : first, "parent", REF_NULL);
	check_names(w, "VM", there, "parent", first_is_later ? second : first);
	check_names(w, "VM", first_is_later ? first : second, "suspend_VDI",
		of_vm->array.items[1]->string);
	check_names(w, "VM", first_is_later ? second : first, "suspend_VDI", REF_NULL);
	assert_int_equal(of_first->array.n_items, 1);
	check_names(w, "VDI", of_first->array.items[0]->string, "snapshot_of",
		first_is_later ? REF_NULL : of_vm->array.items[0]->string);
}

static void a_copy_gets_an_identity_of_its_own(void **state)
{
	struct world *w = *state;
	struct value *disks CLEANUP_VALUE = value_new_array();
	struct value *vif_map CLEANUP_VALUE = value_new_struct();
	struct value *manifest CLEANUP_VALUE = NULL;
	char *vm CLEANUP_FREE = make_vm(w, disks, vif_map);
	char *there CLEANUP_FREE = NULL;
	char *uuid CLEANUP_FREE = NULL;
	char *new_uuid CLEANUP_FREE = NULL;

	check_ok(&w->fault,
		metadata_export(w->a, vm, w->none, disks, vif_map, &manifest, &w->fault));
	struct value *placed CLEANUP_VALUE = receiver_disks(w, disks);
	check_ok(&w->fault, metadata_import(w->b, manifest, placed, true, &there, &w->fault));
	check_ok(&w->fault, object_get_string(w->a, "VM", vm, "uuid", &uuid, &w->fault));
	check_ok(&w->fault, object_get_string(w->b, "VM", there, "uuid", &new_uuid, &w->fault));
	assert_string_not_equal(uuid, new_uuid);
}

static void a_vif_that_is_not_mapped_is_named(void **state)
{
	struct world *w = *state;
	struct value *disks CLEANUP_VALUE = value_new_array();
	struct value *vif_map CLEANUP_VALUE = value_new_struct();
	struct value *empty CLEANUP_VALUE = value_new_struct();
	struct value *manifest = NULL;
	char *vm CLEANUP_FREE = make_vm(w, disks, vif_map);

	check_fault(&w->fault, "VIF_NOT_IN_MAP",
		metadata_export(w->a, vm, w->none, disks, empty, &manifest, &w->fault));
	assert_null(manifest);
}

struct import {
	const struct value *manifest;
	const struct value *disks;
};

static int import_in_transaction(struct pool_db *pool, void *arg, struct fault *fault)
{
	const struct import *import = arg;
	char *vm CLEANUP_FREE = NULL;

	return metadata_import(pool, import->manifest, import->disks, false, &vm, fault);
}

/* What a client would stumble over later is refused before anything is made. */
static void a_device_without_a_place_is_refused(void **state)
{
	struct world *w = *state;
	struct value *disks CLEANUP_VALUE = value_new_array();
	struct value *vif_map CLEANUP_VALUE = value_new_struct();
	struct value *manifest CLEANUP_VALUE = NULL;
	char *vm CLEANUP_FREE = make_vm(w, disks, vif_map);
	static const char *const bad[] = {"", "x", "-1", "256", "1 "};

	check_ok(&w->fault,
		metadata_export(w->a, vm, w->none, disks, vif_map, &manifest, &w->fault));
	struct value *placed CLEANUP_VALUE = receiver_disks(w, disks);
	struct import import = {.manifest = manifest, .disks = placed};
	struct value *vbd = value_find(manifest, "vbds")->array.items[0];
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		value_set_string(vbd, "userdevice", bad[i]);
		check_fault(&w->fault, "INTERNAL_ERROR",
			pool_db_transaction(w->b, import_in_transaction, &import, &w->fault));
	}
	value_set_string(vbd, "userdevice", "0");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		value_set_string(vbd, "disk", strcmp(bad[i], "-1") == 0 ? "-2" : bad[i]);
		check_fault(&w->fault, "INTERNAL_ERROR",
			pool_db_transaction(w->b, import_in_transaction, &import, &w->fault));
	}
}

static void a_snapshot_of_nothing_is_refused(void **state)
{
	struct world *w = *state;
	struct value *disks CLEANUP_VALUE = value_new_array();
	struct value *vif_map CLEANUP_VALUE = value_new_struct();
	struct value *manifest CLEANUP_VALUE = NULL;
	char *vm CLEANUP_FREE = make_vm(w, disks, vif_map);

	check_ok(&w->fault,
		metadata_export(w->a, vm, w->none, disks, vif_map, &manifest, &w->fault));
	struct value *placed CLEANUP_VALUE = receiver_disks(w, disks);
	struct import import = {.manifest = manifest, .disks = placed};
	value_set_int(manifest, "parent", 0);
	check_fault(&w->fault, "INTERNAL_ERROR",
		pool_db_transaction(w->b, import_in_transaction, &import, &w->fault));
	value_set_int(manifest, "parent", -1);
	value_set_int(placed->array.items[1], "snapshot_of", 2);
	check_fault(&w->fault, "INTERNAL_ERROR",
		pool_db_transaction(w->b, import_in_transaction, &import, &w->fault));
	value_set_int(placed->array.items[1], "snapshot_of", -1);
	check_ok(&w->fault, pool_db_transaction(w->b, import_in_transaction, &import, &w->fault));
}

static void an_import_that_fails_leaves_nothing(void **state)
{
	struct world *w = *state;
	struct value *disks CLEANUP_VALUE = value_new_array();
	struct value *vif_map CLEANUP_VALUE = value_new_struct();
	struct value *manifest CLEANUP_VALUE = NULL;
	char *vm CLEANUP_FREE = make_vm(w, disks, vif_map);
	static const char *const classes_touched[] = {"VM", "VDI", "VBD", "VIF", "VM_metrics"};

	check_ok(&w->fault,
		metadata_export(w->a, vm, w->none, disks, vif_map, &manifest, &w->fault));
	struct value *placed CLEANUP_VALUE = receiver_disks(w, disks);
	struct value *last = value_find(manifest, "vifs");
	value_set_string(last->array.items[1], "network", "OpaqueRef:gone");
	struct import import = {.manifest = manifest, .disks = placed};
	assert_true(pool_db_transaction(w->b, import_in_transaction, &import, &w->fault) < 0);
	for (size_t i = 0; i < ARRAY_SIZE(classes_touched); i++) {
		struct value *refs CLEANUP_VALUE = NULL;
		check_ok(&w->fault, object_get_all(w->b, classes_touched[i], &refs, &w->fault));
		assert_int_equal(refs->array.n_items, 0);
	}
}

static void set_all_unknown(struct value *fields)
{
	struct value *map = value_set_string(value_new_struct(), "a <&> key", "\t\n\r\xc3\xa4");

	value_set_string(fields, "tomorrow_text", " 5 ");
	value_set_bool(fields, "tomorrow_flag", true);
	value_set(fields, "tomorrow_set", value_append_string(value_new_array(), ""));
	value_set(fields, "tomorrow_map", map);
	value_set(fields, "tomorrow_real", value_new_double(0.1));
	value_set(fields, "tomorrow_time", value_new_datetime(1234567));
	value_set_string(fields, "tomorrow_null", REF_NULL);
}

/* Nothing that this program knows is set by what it does not; refs of another pool name nothing. */
static void fields_of_a_newer_pool_go_through(void **state)
{
	struct world *w = *state;
	struct value *disks CLEANUP_VALUE = value_new_array();
	struct value *vif_map CLEANUP_VALUE = value_new_struct();
	struct value *first CLEANUP_VALUE = NULL;
	struct value *second CLEANUP_VALUE = NULL;
	struct value *disk CLEANUP_VALUE = NULL;
	struct value *record CLEANUP_VALUE = NULL;
	char *vm CLEANUP_FREE = make_vm(w, disks, vif_map);
	char *there CLEANUP_FREE = NULL;

	check_ok(&w->fault, metadata_export(w->a, vm, w->none, disks, vif_map, &first, &w->fault));
	struct value *placed CLEANUP_VALUE = receiver_disks(w, disks);
	set_all_unknown(value_find(first, "vm"));
	set_all_unknown(value_find(first, "vbds")->array.items[1]);
	set_all_unknown(value_find(first, "vifs")->array.items[0]);
	set_all_unknown(value_find(placed->array.items[0], "fields"));
	struct value *sent CLEANUP_VALUE = value_copy(first);
	struct value *more = value_find(sent, "vm");
	value_set_string(more, "tomorrow_ref", "OpaqueRef:of-there");
	value_set(more, "tomorrow_refs",
		value_append_string(value_new_array(), "OpaqueRef:of-there"));
	value_set(more, "tomorrow_keys",
		value_set_string(value_new_struct(), "OpaqueRef:of-there", "x"));
	value_set_int(more, "domid", 7);
	check_ok(&w->fault, metadata_import(w->b, sent, placed, false, &there, &w->fault));

	check_ok(&w->fault, object_get_record(w->b, "VM", there, &record, &w->fault));
	assert_int_equal(record->record.n_members, class_find("VM")->n_fields);
	assert_int_equal(value_find_int(record, "domid", 0), -1);
	struct value *refs CLEANUP_VALUE = refs_of(w, w->b, there);
	struct value *same CLEANUP_VALUE = identity_map(w, w->b, there);
	check_ok(&w->fault, metadata_export(w->b, there, w->none, refs, same, &second, &w->fault));
	value_unset(first, "metrics");
	value_unset(second, "metrics");
	assert_true(value_equal(first, second));
	check_ok(&w->fault,
		metadata_export_whole(w->b, "VDI", refs->array.items[0]->string, &disk, &w->fault));
	assert_true(value_equal(disk, value_find(placed->array.items[0], "fields")));
	/* What is kept and became known meanwhile: the known one holds. */
	check_ok(&w->fault, object_set_unknown(w->b, "VM", there,
				    "<value><struct><member><name>name_label</name><value>x</value>"
				    "</member></struct></value>",
				    &w->fault));
	value_free(second);
	check_ok(&w->fault, metadata_export(w->b, there, w->none, refs, same, &second, &w->fault));
	assert_string_equal(value_find_string(value_find(second, "vm"), "name_label", ""),
		value_find_string(record, "name_label", "none"));
}

static void what_a_newer_pool_sends_has_bounds(void **state)
{
	struct world *w = *state;
	struct value *disks CLEANUP_VALUE = value_new_array();
	struct value *vif_map CLEANUP_VALUE = value_new_struct();
	struct value *manifest CLEANUP_VALUE = NULL;
	char *vm CLEANUP_FREE = make_vm(w, disks, vif_map);
	char *large CLEANUP_FREE = xcalloc(1, UNKNOWN_MAX_BYTES + 1);
	static const char *const names[] = {"", "a b", "\"", "x\n",
		"a_name_that_is_far_too_long_to_be_the_name_of_a_field_of_any_object_"};

	check_ok(&w->fault,
		metadata_export(w->a, vm, w->none, disks, vif_map, &manifest, &w->fault));
	struct value *placed CLEANUP_VALUE = receiver_disks(w, disks);
	struct import import = {.manifest = manifest, .disks = placed};
	struct value *fields = value_find(manifest, "vm");
	memset(large, 'x', UNKNOWN_MAX_BYTES);
	value_set_string(fields, "tomorrow", large);
	check_fault(&w->fault, "INTERNAL_ERROR",
		pool_db_transaction(w->b, import_in_transaction, &import, &w->fault));
	value_unset(fields, "tomorrow");
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		value_set_string(fields, names[i], "x");
		check_fault(&w->fault, "INTERNAL_ERROR",
			pool_db_transaction(w->b, import_in_transaction, &import, &w->fault));
		value_unset(fields, names[i]);
	}
	struct value *deep = value_new_array();
	for (int i = 0; i < 8; i++)
		deep = value_append(value_new_array(), deep);
	value_set(fields, "tomorrow", deep);
	check_fault(&w->fault, "INTERNAL_ERROR",
		pool_db_transaction(w->b, import_in_transaction, &import, &w->fault));
	value_unset(fields, "tomorrow");
	check_ok(&w->fault, pool_db_transaction(w->b, import_in_transaction, &import, &w->fault));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(export_import_export_is_equal, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			fields_of_a_newer_pool_go_through, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			what_a_newer_pool_sends_has_bounds, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			a_tree_of_snapshots_arrives_as_it_was, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			a_snapshot_of_nothing_is_refused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			a_copy_gets_an_identity_of_its_own, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			a_vif_that_is_not_mapped_is_named, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			a_device_without_a_place_is_refused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			an_import_that_fails_leaves_nothing, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
