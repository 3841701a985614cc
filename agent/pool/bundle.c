/* SPDX-License-Identifier: Apache-2.0 */
/* Gathering, and removing what was gathered. */
#include "agent/pool/bundle.h"

#include "base/alloc.h"
#include "base/uuid.h"
#include "schema/classes.h"

#include <errno.h>
#include <string.h>

/* In an order in which they can be removed: what belongs to another goes before it. */
static const char *const moving[] = {"console", "VBD", "VIF", "PBD", "PIF", "VDI", "VM",
	"VM_metrics", "VM_guest_metrics", "SR", "host", "host_metrics", "network"};

const char *bundle_host(const struct value *bundle)
{
	const struct value *hosts = value_find(bundle, "host");

	return hosts && hosts->type == VALUE_STRUCT && hosts->record.n_members
		       ? hosts->record.members[0].name
		       : NULL;
}

/* --- Single objects ----------------------------------------------------------------------------
 */

static struct value *class_of(struct value *bundle, const char *class)
{
	struct value *records = value_find(bundle, class);

	if (!records)
		value_set(bundle, class, records = value_new_struct());
	return records;
}

static bool has(const struct value *bundle, const char *class, const char *ref)
{
	return value_find(value_find(bundle, class), ref) != NULL;
}

static void take(
	struct value *bundle, const char *class, const char *ref, const struct value *record)
{
	const struct class *fields = class_find(class);
	struct value *stored = value_new_struct();

	for (size_t i = 0; i < fields->n_fields; i++) {
		const struct class_field *field = &fields->fields[i];
		const struct value *value = value_find(record, field->name);
		if (field->type != FIELD_DERIVED && value)
			value_set(stored, field->name, value_copy(value));
	}
	value_set(class_of(bundle, class), ref, stored);
}

/* What newer pools sent with them goes along. */
static int take_unknown(struct pool_db *pool, struct value *bundle, struct fault *fault)
{
	int r = 0;

	for (size_t i = 0; i < bundle->record.n_members; i++) {
		const struct value_member *class = &bundle->record.members[i];
		for (size_t j = 0; r == 0 && j < class->value->record.n_members; j++) {
			const struct value_member *object = &class->value->record.members[j];
			char *text CLEANUP_FREE = NULL;
			r = object_get_unknown(pool, class->name, object->name, &text, fault);
			if (text)
				value_set_string(object->value, BUNDLE_UNKNOWN, text);
		}
	}
	return r;
}

typedef bool (*wanted_fn)(const struct value *record, const struct value *bundle, const void *arg);

static int take_those(struct pool_db *pool, const char *class, wanted_fn is_wanted, const void *arg,
	struct value *bundle, struct fault *fault)
{
	struct value *records CLEANUP_VALUE = NULL;
	int r = object_get_all_records(pool, class, &records, fault);

	for (size_t i = 0; r == 0 && i < records->record.n_members; i++) {
		const struct value_member *member = &records->record.members[i];
		if (!is_wanted || is_wanted(member->value, bundle, arg))
			take(bundle, class, member->name, member->value);
	}
	return r;
}

int bundle_export_pool(struct pool_db *pool, struct value **ret_bundle, struct fault *fault)
{
	struct value *bundle CLEANUP_VALUE = value_new_struct();
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(moving); i++)
		r = take_those(pool, moving[i], NULL, NULL, bundle, fault);
	if (r == 0)
		r = take_unknown(pool, bundle, fault);
	if (r < 0)
		return r;
	*ret_bundle = TAKE_PTR(bundle);
	return 0;
}

/* --- One host of several -----------------------------------------------------------------------
 */

static bool names(const struct value *record, const char *field, const char *ref)
{
	return strcmp(value_find_string(record, field, ""), ref) == 0;
}

static bool is_of_host(const struct value *record, const struct value *bundle, const void *arg)
{
	(void)bundle;
	return names(record, "host", arg);
}

/* Reached from there alone. A shared one is the pool's, whoever reaches it now. */
static bool is_local_sr(const struct value *record, const struct value *bundle, const void *arg)
{
	const struct value *pbds = value_find(record, "PBDs");

	(void)arg;
	if (value_find_bool(record, "shared", false))
		return false;
	for (size_t i = 0; i < pbds->array.n_items; i++)
		if (!has(bundle, "PBD", pbds->array.items[i]->string))
			return false;
	return pbds->array.n_items > 0;
}

static bool is_on_local_sr(const struct value *record, const struct value *bundle, const void *arg)
{
	(void)arg;
	return has(bundle, "SR", value_find_string(record, "SR", ""));
}

static bool is_of_vm(const struct value *record, const struct value *bundle, const void *arg)
{
	(void)arg;
	return has(bundle, "VM", value_find_string(record, "VM", ""));
}

static bool is_network_in_use(
	const struct value *record, const struct value *bundle, const void *arg)
{
	static const char *const ends[][2] = {{"PIFs", "PIF"}, {"VIFs", "VIF"}};

	(void)arg;
	for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
		const struct value *refs = value_find(record, ends[i][0]);
		for (size_t j = 0; j < refs->array.n_items; j++)
			if (has(bundle, ends[i][1], refs->array.items[j]->string))
				return true;
	}
	return false;
}

struct disks {
	size_t n_here;
	size_t n_elsewhere;
};

static int count_disks(struct pool_db *pool, const struct value *vm, const struct value *bundle,
	struct disks *ret_disks, struct fault *fault)
{
	const struct value *vbds = value_find(vm, "VBDs");
	int r = 0;

	*ret_disks = (struct disks){0};
	for (size_t i = 0; r == 0 && i < vbds->array.n_items; i++) {
		char *vdi CLEANUP_FREE = NULL;
		r = object_get_string(
			pool, "VBD", vbds->array.items[i]->string, "VDI", &vdi, fault);
		if (r == 0 && !ref_is_null(vdi))
			(*(has(bundle, "VDI", vdi) ? &ret_disks->n_here
						   : &ret_disks->n_elsewhere))++;
	}
	return r;
}

/* 1: it goes along. */
static int decide_vm(struct pool_db *pool, const struct value *vm, const char *host,
	const struct value *bundle, struct fault *fault)
{
	const char *label = value_find_string(vm, "name_label", "");
	bool is_resident = names(vm, "resident_on", host);
	struct disks disks;

	if (value_find_bool(vm, "is_control_domain", false))
		return is_resident;
	if (is_resident || names(vm, "scheduled_to_be_resident_on", host)) {
		fault_set(fault, -EBUSY, "HOST_HAS_RESIDENT_VMS", host, NULL);
		return -EBUSY;
	}
	int r = count_disks(pool, vm, bundle, &disks, fault);
	if (r < 0 || disks.n_here == 0)
		return r;
	if (value_find(vm, "current_operations")->record.n_members > 0)
		return fault_text(fault, -EBUSY,
			"an operation of VM \"%s\", whose disks are on that host, is under way: "
			"wait "
			"for it",
			label);
	if (disks.n_elsewhere > 0)
		return fault_text(fault, -EBUSY,
			"VM \"%s\" has disks on that host and others elsewhere: detach or move "
			"them first",
			label);
	return 1;
}

static int take_vms(
	struct pool_db *pool, const char *host, struct value *bundle, struct fault *fault)
{
	struct value *records CLEANUP_VALUE = NULL;
	int r = object_get_all_records(pool, "VM", &records, fault);

	for (size_t i = 0; r >= 0 && i < records->record.n_members; i++) {
		const struct value_member *member = &records->record.members[i];
		r = decide_vm(pool, member->value, host, bundle, fault);
		if (r > 0)
			take(bundle, "VM", member->name, member->value);
	}
	return MIN(r, 0);
}

/* The object that a field of others names. */
static int take_named(struct pool_db *pool, const char *from, const char *field, const char *class,
	struct value *bundle, struct fault *fault)
{
	const struct value *records = value_find(bundle, from);
	int r = 0;

	for (size_t i = 0; records && r == 0 && i < records->record.n_members; i++) {
		struct value *record CLEANUP_VALUE = NULL;
		const char *ref = value_find_string(records->record.members[i].value, field, "");
		if (ref_is_null(ref) || !object_exists(pool, class, ref))
			continue;
		r = object_get_record(pool, class, ref, &record, fault);
		if (r == 0)
			take(bundle, class, ref, record);
	}
	return r;
}

int bundle_export_host(
	struct pool_db *pool, const char *host, struct value **ret_bundle, struct fault *fault)
{
	struct value *bundle CLEANUP_VALUE = value_new_struct();
	struct value *record CLEANUP_VALUE = NULL;
	int r = object_get_record(pool, "host", host, &record, fault);

	if (r < 0)
		return r;
	take(bundle, "host", host, record);
	r = take_named(pool, "host", "metrics", "host_metrics", bundle, fault);
	if (r == 0)
		r = take_those(pool, "PBD", is_of_host, host, bundle, fault);
	if (r == 0)
		r = take_those(pool, "PIF", is_of_host, host, bundle, fault);
	if (r == 0)
		r = take_those(pool, "SR", is_local_sr, NULL, bundle, fault);
	if (r == 0)
		r = take_those(pool, "VDI", is_on_local_sr, NULL, bundle, fault);
	if (r == 0)
		r = take_vms(pool, host, bundle, fault);
	if (r == 0)
		r = take_named(pool, "VM", "metrics", "VM_metrics", bundle, fault);
	if (r == 0)
		r = take_named(pool, "VM", "guest_metrics", "VM_guest_metrics", bundle, fault);
	if (r == 0)
		r = take_those(pool, "VBD", is_of_vm, NULL, bundle, fault);
	if (r == 0)
		r = take_those(pool, "VIF", is_of_vm, NULL, bundle, fault);
	if (r == 0)
		r = take_those(pool, "network", is_network_in_use, NULL, bundle, fault);
	if (r == 0)
		r = take_unknown(pool, bundle, fault);
	if (r < 0)
		return r;
	*ret_bundle = TAKE_PTR(bundle);
	return 0;
}

int bundle_remove(struct pool_db *pool, const struct value *bundle, struct fault *fault)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(moving); i++) {
		const struct value *records = value_find(bundle, moving[i]);
		if (strcmp(moving[i], "network") == 0)
			continue;
		for (size_t j = 0; records && r == 0 && j < records->record.n_members; j++)
			r = object_destroy(pool, moving[i], records->record.members[j].name, fault);
	}
	return r;
}
