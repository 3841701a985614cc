/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/pool_fixture.h"

#include "base/uuid.h"
#include "schema/classes.h"

#include <errno.h>
#include <math.h>

static void assert_refs(struct value *refs, ...)
{
	const char *ref;
	size_t n = 0;
	va_list args;

	va_start(args, refs);
	while ((ref = va_arg(args, const char *))) {
		assert_true(n < refs->array.n_items);
		assert_string_equal(refs->array.items[n++]->string, ref);
	}
	va_end(args);
	assert_int_equal(refs->array.n_items, n);
	value_free(refs);
}

static void a_fresh_object_has_every_field_with_its_default(void **state)
{
	struct fixture *f = *state;

	for (size_t i = 0; i < n_classes; i++) {
		char *ref CLEANUP_FREE = fixture_create(f, classes[i].name, NULL);
		struct value *record CLEANUP_VALUE = NULL;
		assert_memory_equal(ref, REF_PREFIX, strlen(REF_PREFIX));
		check_ok(&f->fault,
			object_get_record(f->pool, classes[i].name, ref, &record, &f->fault));
		assert_int_equal(record->record.n_members, classes[i].n_fields);
		for (size_t j = 0; j < classes[i].n_fields; j++)
			assert_string_equal(
				record->record.members[j].name, classes[i].fields[j].name);
		assert_true(uuid_is_valid(value_find_string(record, "uuid", "")));
	}
	struct value *vms CLEANUP_VALUE = NULL;
	check_ok(&f->fault, object_get_all_records(f->pool, "VM", &vms, &f->fault));
	struct value *vm = vms->record.members[0].value;
	assert_string_equal(value_find_string(vm, "power_state", ""), "Halted");
	assert_string_equal(value_find_string(vm, "resident_on", ""), REF_NULL);
	assert_int_equal(value_find_int(vm, "domid", 0), -1);
	assert_false(value_find_bool(vm, "is_a_template", true));
	assert_true(value_find(vm, "HVM_shadow_multiplier")->real == 1.0);
	assert_int_equal(value_find(vm, "snapshot_time")->type, VALUE_DATETIME);
	assert_int_equal(value_find(vm, "other_config")->type, VALUE_STRUCT);
	assert_int_equal(value_find(vm, "tags")->type, VALUE_ARRAY);
}

static void what_is_written_is_read_back_also_by_the_next_process(void **state)
{
	static const char label[] = "a \"name\", it's\n<ü>& \x01";
	struct fixture *f = *state;
	struct value *fields CLEANUP_VALUE = value_new_struct();
	struct value *map = value_new_struct();
	char *ref CLEANUP_FREE = NULL;
	struct value *record CLEANUP_VALUE = NULL;

	value_set_string(map, "key, \"quoted\"", label);
	value_set_string(map, "", "");
	value_set_string(fields, "name_label", label);
	value_set(fields, "other_config", map);
	value_set(fields, "tags", value_append_string(value_new_array(), label));
	value_set_int(fields, "memory_static_max", INT64_MAX);
	value_set_int(fields, "order", INT64_MIN);
	value_set_bool(fields, "is_a_template", true);
	value_set(fields, "HVM_shadow_multiplier", value_new_double(0.1));
	value_set(fields, "snapshot_time", value_new_datetime(1787277623));
	check_ok(&f->fault, object_create(f->pool, "VM", fields, &ref, &f->fault));
	fixture_reopen(f);
	check_ok(&f->fault, object_get_record(f->pool, "VM", ref, &record, &f->fault));
	for (size_t i = 0; i < fields->record.n_members; i++)
		assert_true(value_equal(fields->record.members[i].value,
			value_find(record, fields->record.members[i].name)));
}

static void both_ends_of_a_relation_show_it(void **state)
{
	struct fixture *f = *state;
	char *sr CLEANUP_FREE = fixture_create(f, "SR", "name_label", "s", NULL);
	char *vdi CLEANUP_FREE = fixture_create(f, "VDI", "SR", sr, NULL);
	char *other CLEANUP_FREE = fixture_create(f, "VDI", "SR", sr, NULL);
	char *vm CLEANUP_FREE = fixture_create(f, "VM", NULL);
	char *vbd CLEANUP_FREE = fixture_create(f, "VBD", "VM", vm, "VDI", vdi, NULL);
	struct value *record CLEANUP_VALUE = NULL;

	assert_refs(fixture_get(f, "SR", sr, "VDIs"), vdi, other, NULL);
	assert_refs(fixture_get(f, "VM", vm, "VBDs"), vbd, NULL);
	assert_refs(fixture_get(f, "VDI", vdi, "VBDs"), vbd, NULL);
	fixture_set_string(f, "VBD", vbd, "VDI", other);
	assert_refs(fixture_get(f, "VDI", vdi, "VBDs"), NULL);
	assert_refs(fixture_get(f, "VDI", other, "VBDs"), vbd, NULL);
	check_ok(&f->fault, object_get_record(f->pool, "SR", sr, &record, &f->fault));
	assert_refs(value_copy(value_find(record, "VDIs")), vdi, other, NULL);
}

/* Few records are joined one by one, many at once: the result is the same. */
static void long_lists_show_the_same_relations_as_single_records(void **state)
{
	struct fixture *f = *state;
	struct value *all CLEANUP_VALUE = NULL;

	for (int i = 0; i < 100; i++) {
		char *vm CLEANUP_FREE = fixture_create(f, "VM", NULL);
		for (int j = 0; j < i % 4; j++)
			free(fixture_create(f, "VBD", "VM", vm, NULL));
	}
	check_ok(&f->fault, object_get_all_records(f->pool, "VM", &all, &f->fault));
	assert_int_equal(all->record.n_members, 100);
	for (size_t i = 0; i < 100; i++) {
		struct value *record CLEANUP_VALUE = NULL;
		check_ok(&f->fault, object_get_record(f->pool, "VM", all->record.members[i].name,
					    &record, &f->fault));
		assert_true(value_equal(record, all->record.members[i].value));
		assert_int_equal(value_find(record, "VBDs")->array.n_items, i % 4);
	}
}

static void an_object_in_use_is_not_destroyed(void **state)
{
	struct fixture *f = *state;
	char *sr CLEANUP_FREE = fixture_create(f, "SR", NULL);
	char *vdi CLEANUP_FREE = fixture_create(f, "VDI", "SR", sr, NULL);
	char *vm CLEANUP_FREE = fixture_create(f, "VM", NULL);
	char *vbd CLEANUP_FREE = fixture_create(f, "VBD", "VM", vm, "VDI", vdi, NULL);

	assert_int_equal(object_destroy(f->pool, "VDI", vdi, &f->fault), -EBUSY);
	assert_non_null(strstr(f->fault.params[0], vbd));
	check_fault(&f->fault, "INTERNAL_ERROR", object_destroy(f->pool, "VM", vm, &f->fault));
	check_fault(&f->fault, "INTERNAL_ERROR", object_destroy(f->pool, "SR", sr, &f->fault));
	check_ok(&f->fault, object_destroy(f->pool, "VBD", vbd, &f->fault));
	check_ok(&f->fault, object_destroy(f->pool, "VDI", vdi, &f->fault));
	check_ok(&f->fault, object_destroy(f->pool, "VM", vm, &f->fault));
	check_ok(&f->fault, object_destroy(f->pool, "SR", sr, &f->fault));
	check_fault(&f->fault, "HANDLE_INVALID", object_destroy(f->pool, "SR", sr, &f->fault));
	assert_false(object_exists(f->pool, "SR", sr));
}

static void references_to_what_is_gone_become_null(void **state)
{
	struct fixture *f = *state;
	char *host CLEANUP_FREE = fixture_create(f, "host", NULL);
	char *vm CLEANUP_FREE =
		fixture_create(f, "VM", "resident_on", host, "affinity", host, NULL);
	char *task CLEANUP_FREE = fixture_create(f, "task", NULL);
	struct value *fields CLEANUP_VALUE = value_new_struct();
	char *session CLEANUP_FREE = NULL;
	struct value *record CLEANUP_VALUE = NULL;

	value_set(fields, "tasks", value_append_string(value_new_array(), task));
	check_ok(&f->fault, object_create(f->pool, "session", fields, &session, &f->fault));
	check_ok(&f->fault, object_destroy(f->pool, "task", task, &f->fault));
	assert_refs(fixture_get(f, "session", session, "tasks"), NULL);
	check_ok(&f->fault, object_destroy(f->pool, "host", host, &f->fault));
	check_ok(&f->fault, object_get_record(f->pool, "VM", vm, &record, &f->fault));
	assert_string_equal(value_find_string(record, "resident_on", ""), REF_NULL);
	assert_string_equal(value_find_string(record, "affinity", ""), REF_NULL);
}

static int try_set(struct fixture *f, const char *vm, const char *field, struct value *value)
{
	int r = object_set_field(f->pool, "VM", vm, field, value, &f->fault);

	value_free(value);
	return r;
}

static void a_value_of_the_wrong_type_is_refused_and_named(void **state)
{
	struct fixture *f = *state;
	char *vm CLEANUP_FREE = fixture_create(f, "VM", NULL);
	struct value *ints = value_append(value_new_array(), value_new_int(1));
	struct value *map = value_set_int(value_new_struct(), "a", 1);

	assert_int_equal(try_set(f, vm, "name_label", value_new_int(1)), -EINVAL);
	assert_string_equal(f->fault.code, "FIELD_TYPE_ERROR");
	assert_string_equal(f->fault.params[0], "name_label");
	check_fault(
		&f->fault, "FIELD_TYPE_ERROR", try_set(f, vm, "VCPUs_max", value_new_string("1")));
	check_fault(
		&f->fault, "FIELD_TYPE_ERROR", try_set(f, vm, "is_a_template", value_new_int(1)));
	check_fault(&f->fault, "FIELD_TYPE_ERROR", try_set(f, vm, "tags", ints));
	check_fault(&f->fault, "FIELD_TYPE_ERROR", try_set(f, vm, "other_config", map));
	check_fault(
		&f->fault, "INVALID_VALUE", try_set(f, vm, "name_label", value_new_string("\xff")));
	check_fault(&f->fault, "INVALID_VALUE",
		try_set(f, vm, "HVM_shadow_multiplier", value_new_double(NAN)));
	check_fault(&f->fault, "INTERNAL_ERROR", try_set(f, vm, "nothing", value_new_int(1)));
	check_fault(&f->fault, "INTERNAL_ERROR", try_set(f, vm, "VBDs", value_new_array()));
	check_fault(&f->fault, "INTERNAL_ERROR", try_set(f, vm, "uuid", value_new_string("x")));
}

static void a_value_out_of_its_choices_is_refused(void **state)
{
	struct fixture *f = *state;
	char *vm CLEANUP_FREE = fixture_create(f, "VM", NULL);
	static const char *const wrong[] = {"", "halted", "Hal", "Halted|Paused", "Haltedx"};

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		assert_int_equal(
			try_set(f, vm, "power_state", value_new_string(wrong[i])), -EINVAL);
		assert_string_equal(f->fault.code, "INVALID_VALUE");
		assert_string_equal(f->fault.params[0], "power_state");
		assert_string_equal(f->fault.params[1], wrong[i]);
	}
	check_ok(&f->fault, try_set(f, vm, "power_state", value_new_string("Running")));
	check_fault(&f->fault, "HANDLE_INVALID",
		try_set(f, vm, "affinity", value_new_string("OpaqueRef:none")));
	check_fault(&f->fault, "HANDLE_INVALID",
		try_set(f, vm, "appliance", value_new_string("OpaqueRef:none")));
	check_ok(&f->fault, try_set(f, vm, "appliance", value_new_string(REF_NULL)));
}

static void a_refused_object_leaves_nothing(void **state)
{
	struct fixture *f = *state;
	struct value *fields CLEANUP_VALUE = value_new_struct();
	struct value *all CLEANUP_VALUE = NULL;
	uint64_t before = pool_db_generation(f->pool);

	value_set_string(fields, "name_label", "x");
	value_set_string(fields, "no_such_field", "x");
	assert_int_equal(object_create(f->pool, "VM", fields, NULL, &f->fault), -EINVAL);
	assert_non_null(strstr(f->fault.params[0], "no_such_field"));
	value_unset(fields, "no_such_field");
	value_set_string(fields, "uuid", "not-a-uuid");
	check_fault(
		&f->fault, "INVALID_VALUE", object_create(f->pool, "VM", fields, NULL, &f->fault));
	check_ok(&f->fault, object_get_all(f->pool, "VM", &all, &f->fault));
	assert_int_equal(all->array.n_items, 0);
	assert_int_equal(pool_db_generation(f->pool), before);
	check_fault(&f->fault, "INTERNAL_ERROR",
		object_create(f->pool, "nothing", fields, NULL, &f->fault));
}

static void objects_are_found_by_uuid_label_and_field(void **state)
{
	struct fixture *f = *state;
	char *uuid CLEANUP_FREE = uuid_new();
	char *a CLEANUP_FREE = fixture_create(f, "VM", "uuid", uuid, "name_label", "x", NULL);
	char *b CLEANUP_FREE = fixture_create(f, "VM", "name_label", "x", NULL);
	char *found CLEANUP_FREE = NULL;
	struct value *refs = NULL;

	check_ok(&f->fault, object_get_by_uuid(f->pool, "VM", uuid, &found, &f->fault));
	assert_string_equal(found, a);
	check_fault(&f->fault, "UUID_INVALID",
		object_get_by_uuid(f->pool, "VM", "x", &found, &f->fault));
	check_ok(&f->fault, object_get_by_name_label(f->pool, "VM", "x", &refs, &f->fault));
	assert_refs(refs, a, b, NULL);
	check_ok(&f->fault, object_find(f->pool, "VM", "affinity", REF_NULL, &refs, &f->fault));
	assert_refs(refs, a, b, NULL);
	check_ok(&f->fault, object_get_by_name_label(f->pool, "VM", "y", &refs, &f->fault));
	assert_refs(refs, NULL);
	check_fault(&f->fault, "FIELD_TYPE_ERROR",
		object_find(f->pool, "VM", "VBDs", "x", &refs, &f->fault));
	struct value *fields CLEANUP_VALUE = value_set_string(value_new_struct(), "uuid", uuid);
	check_fault(&f->fault, "DB_UNIQUENESS_CONSTRAINT_VIOLATION",
		object_create(f->pool, "VM", fields, NULL, &f->fault));
}

static void keys_of_a_map_and_items_of_a_set_are_edited_singly(void **state)
{
	struct fixture *f = *state;
	char *vm CLEANUP_FREE = fixture_create(f, "VM", NULL);
	char *uuid CLEANUP_FREE = NULL;

	check_ok(&f->fault, object_get_string(f->pool, "VM", vm, "uuid", &uuid, &f->fault));
	check_ok(&f->fault, object_map_add(f->pool, "VM", vm, "other_config", "k", "1", &f->fault));
	assert_true(object_map_add(f->pool, "VM", vm, "other_config", "k", "2", &f->fault) < 0);
	assert_string_equal(f->fault.code, "MAP_DUPLICATE_KEY");
	assert_int_equal(f->fault.n_params, 4);
	assert_string_equal(f->fault.params[0], "VM");
	assert_string_equal(f->fault.params[1], "other_config");
	assert_string_equal(f->fault.params[2], uuid);
	assert_string_equal(f->fault.params[3], "k");
	check_ok(&f->fault, object_map_set(f->pool, "VM", vm, "other_config", "k", "3", &f->fault));
	struct value *map CLEANUP_VALUE = fixture_get(f, "VM", vm, "other_config");
	assert_string_equal(value_find_string(map, "k", ""), "3");
	for (int i = 0; i < 2; i++)
		check_ok(&f->fault,
			object_map_remove(f->pool, "VM", vm, "other_config", "k", &f->fault));
	for (int i = 0; i < 2; i++)
		check_ok(&f->fault, object_set_add(f->pool, "VM", vm, "tags", "t", &f->fault));
	assert_refs(fixture_get(f, "VM", vm, "tags"), "t", NULL);
	for (int i = 0; i < 2; i++)
		check_ok(&f->fault, object_set_remove(f->pool, "VM", vm, "tags", "t", &f->fault));
	assert_refs(fixture_get(f, "VM", vm, "tags"), NULL);
	check_fault(&f->fault, "FIELD_TYPE_ERROR",
		object_map_set(f->pool, "VM", vm, "name_label", "k", "v", &f->fault));
	check_fault(&f->fault, "FIELD_TYPE_ERROR",
		object_set_add(f->pool, "VM", vm, "other_config", "k", &f->fault));
	check_fault(&f->fault, "HANDLE_INVALID",
		object_map_set(f->pool, "VM", "x", "other_config", "k", "v", &f->fault));
}

static void single_fields_are_read_by_type(void **state)
{
	struct fixture *f = *state;
	char *vm CLEANUP_FREE = fixture_create(f, "VM", NULL);
	char *text CLEANUP_FREE = NULL;
	int64_t integer = 0;
	bool boolean = true;

	check_ok(&f->fault, object_get_int(f->pool, "VM", vm, "domid", &integer, &f->fault));
	assert_int_equal(integer, -1);
	check_ok(&f->fault,
		object_get_bool(f->pool, "VM", vm, "is_a_snapshot", &boolean, &f->fault));
	assert_false(boolean);
	check_fault(&f->fault, "FIELD_TYPE_ERROR",
		object_get_string(f->pool, "VM", vm, "domid", &text, &f->fault));
	check_fault(&f->fault, "HANDLE_INVALID",
		object_get_string(f->pool, "VM", REF_NULL, "uuid", &text, &f->fault));
	check_fault(&f->fault, "HANDLE_INVALID",
		object_get_field(f->pool, "VM", "x", "VBDs", &(struct value *){0}, &f->fault));
}

/* --- Transactions ------------------------------------------------------------------------------
 */

static int create_two(struct pool_db *pool, void *arg, struct fault *fault)
{
	int *outcome = arg;

	int r = object_create(pool, "VM", NULL, NULL, fault);
	if (r == 0)
		r = object_create(pool, "VM", NULL, NULL, fault);
	return r < 0 ? r : *outcome;
}

/* One call in it fails, and the transaction goes on. */
static int go_on_after_a_failure(struct pool_db *pool, void *arg, struct fault *fault)
{
	int outcome = -EIO;

	(void)arg;
	int r = object_create(pool, "VM", NULL, NULL, fault);
	if (r == 0 && pool_db_transaction(pool, create_two, &outcome, fault) != -EIO)
		return -EINVAL;
	return r < 0 ? r : 5;
}

static size_t n_vms(struct fixture *f)
{
	struct value *refs CLEANUP_VALUE = NULL;

	check_ok(&f->fault, object_get_all(f->pool, "VM", &refs, &f->fault));
	return refs->array.n_items;
}

static void a_transaction_is_all_or_nothing(void **state)
{
	struct fixture *f = *state;
	int outcome = -EIO;
	uint64_t before = pool_db_generation(f->pool);

	assert_int_equal(pool_db_transaction(f->pool, create_two, &outcome, &f->fault), -EIO);
	assert_int_equal(n_vms(f), 0);
	assert_int_equal(pool_db_generation(f->pool), before);
	outcome = 3;
	assert_int_equal(pool_db_transaction(f->pool, create_two, &outcome, &f->fault), 3);
	assert_int_equal(n_vms(f), 2);
	assert_int_equal(pool_db_transaction(f->pool, go_on_after_a_failure, NULL, &f->fault), 5);
	assert_int_equal(n_vms(f), 3);
}

/* --- Commits and users -------------------------------------------------------------------------
 */

static void a_decision_is_made_once(void **state)
{
	struct fixture *f = *state;
	bool committed = false;
	char *ref = NULL;
	int64_t when = 0;

	assert_int_equal(commit_find(f->pool, "m1", &committed, &ref, &when, &f->fault), 0);
	check_ok(&f->fault,
		commit_decide(f->pool, "m1", true, "OpaqueRef:1", &committed, &ref, &f->fault));
	assert_true(committed);
	assert_string_equal(ref, "OpaqueRef:1");
	free(ref);
	check_ok(&f->fault, commit_decide(f->pool, "m1", false, NULL, &committed, &ref, &f->fault));
	assert_true(committed);
	assert_string_equal(ref, "OpaqueRef:1");
	free(ref);
	check_ok(&f->fault, commit_decide(f->pool, "m2", false, NULL, &committed, &ref, &f->fault));
	assert_false(committed);
	assert_null(ref);
	fixture_reopen(f);
	check_ok(&f->fault,
		commit_decide(f->pool, "m2", true, "OpaqueRef:2", &committed, &ref, &f->fault));
	assert_false(committed);
	assert_null(ref);
	assert_int_equal(commit_find(f->pool, "m1", &committed, &ref, &when, &f->fault), 1);
	assert_true(committed);
	assert_true(when > 1600000000);
	free(ref);
	check_fault(&f->fault, "INTERNAL_ERROR",
		commit_decide(f->pool, "m3", true, REF_NULL, &committed, &ref, &f->fault));
}

static void users_keep_their_last_hash(void **state)
{
	struct fixture *f = *state;
	char *hash = NULL;

	check_ok(&f->fault, pool_db_get_user(f->pool, "root", &hash, &f->fault));
	assert_null(hash);
	check_ok(&f->fault, pool_db_set_user(f->pool, "root", "h1", &f->fault));
	check_ok(&f->fault, pool_db_set_user(f->pool, "root", "h2", &f->fault));
	fixture_reopen(f);
	check_ok(&f->fault, pool_db_get_user(f->pool, "root", &hash, &f->fault));
	assert_string_equal(hash, "h2");
	free(hash);
}

#define test(name)   cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
#define remote(name) cmocka_unit_test_setup_teardown(name, fixture_setup_remote, fixture_teardown)
/* The same holds on a host that is not the coordinator. */
#define both(name) test(name), remote(name)

int main(void)
{
	const struct CMUnitTest tests[] = {
		both(a_fresh_object_has_every_field_with_its_default),
		both(what_is_written_is_read_back_also_by_the_next_process),
		both(both_ends_of_a_relation_show_it),
		both(long_lists_show_the_same_relations_as_single_records),
		both(an_object_in_use_is_not_destroyed),
		both(references_to_what_is_gone_become_null),
		both(a_value_of_the_wrong_type_is_refused_and_named),
		both(a_value_out_of_its_choices_is_refused),
		both(a_refused_object_leaves_nothing),
		both(objects_are_found_by_uuid_label_and_field),
		both(keys_of_a_map_and_items_of_a_set_are_edited_singly),
		both(single_fields_are_read_by_type),
		both(a_transaction_is_all_or_nothing),
		both(a_decision_is_made_once),
		both(users_keep_their_last_hash),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
