/* SPDX-License-Identifier: Apache-2.0 */
/* Walks the class list: what it names can be called, and only that. */
#include "tests/lib/api_fixture.h"

#include "base/alloc.h"
#include "base/uuid.h"
#include "schema/classes.h"

static struct value *listed(struct api_fixture *fixture)
{
	return api_call_ok(fixture, "system.listMethods", value_new_array());
}

/* An object of the class; those that need an owner get one. */
static char *make_object(struct api_fixture *fixture, const struct class *class)
{
	struct value *fields CLEANUP_VALUE = value_new_struct();
	char *ref = NULL;

	for (size_t i = 0; i < class->n_fields; i++) {
		const struct class_field *field = &class->fields[i];
		const struct class *of = field->owner ? class_find(field->of) : NULL;
		if (!of)
			continue;
		char *owner CLEANUP_FREE = make_object(fixture, of);
		value_set_string(fields, field->name, owner);
	}
	check_ok(&fixture->fault,
		object_create(fixture->storage.pool, class->name, fields, &ref, &fixture->fault));
	return ref;
}

static void each_class_is_read_whole(void **state)
{
	struct api_fixture *fixture = *state;
	struct value *names CLEANUP_VALUE = listed(fixture);

	for (size_t i = 0; i < n_classes; i++) {
		const struct class *class = &classes[i];
		char *all_records CLEANUP_FREE = xasprintf("%s.get_all_records", class->name);
		char *all CLEANUP_FREE = xasprintf("%s.get_all", class->name);
		char *get_record CLEANUP_FREE = xasprintf("%s.get_record", class->name);
		char *ref CLEANUP_FREE = make_object(fixture, class);
		assert_true(value_contains_string(names, all_records) == !class->hidden);
		struct value *record CLEANUP_VALUE =
			api_call_ok(fixture, get_record, params_new(fixture, ref, NULL));
		assert_int_equal(record->record.n_members, class->n_fields);
		if (class->hidden) {
			api_call_fails(fixture, "MESSAGE_METHOD_UNKNOWN", all_records,
				params_new(fixture, NULL));
			continue;
		}
		struct value *refs CLEANUP_VALUE =
			api_call_ok(fixture, all, params_new(fixture, NULL));
		struct value *records CLEANUP_VALUE =
			api_call_ok(fixture, all_records, params_new(fixture, NULL));
		assert_true(value_contains_string(refs, ref));
		assert_int_equal(refs->array.n_items, records->record.n_members);
		assert_true(value_equal(value_find(records, ref), record));
	}
}

static void each_field_has_its_getter(void **state)
{
	struct api_fixture *fixture = *state;

	for (size_t i = 0; i < n_classes; i++) {
		const struct class *class = &classes[i];
		char *get_record CLEANUP_FREE = xasprintf("%s.get_record", class->name);
		char *ref CLEANUP_FREE = make_object(fixture, class);
		char *none CLEANUP_FREE = ref_new();
		struct value *record CLEANUP_VALUE =
			api_call_ok(fixture, get_record, params_new(fixture, ref, NULL));
		for (size_t j = 0; j < class->n_fields; j++) {
			const char *name = class->fields[j].name;
			char *method CLEANUP_FREE = xasprintf("%s.get_%s", class->name, name);
			struct value *value CLEANUP_VALUE =
				api_call_ok(fixture, method, params_new(fixture, ref, NULL));
			assert_true(value_equal(value, value_find(record, name)));
			api_call_fails(
				fixture, "HANDLE_INVALID", method, params_new(fixture, none, NULL));
			assert_string_equal(fixture->fault.params[0], class->name);
			assert_string_equal(fixture->fault.params[1], none);
		}
	}
}

static bool is_read_only(const struct class *class, const struct class_field *field)
{
	/* Tasks have setters of their own; a session's fields are not its user's to set. */
	return field->access != FIELD_RW || class->hidden;
}

static void only_what_may_be_written_has_a_setter(void **state)
{
	struct api_fixture *fixture = *state;
	struct value *names CLEANUP_VALUE = listed(fixture);

	for (size_t i = 0; i < n_classes; i++) {
		if (strcmp(classes[i].name, "task") == 0)
			continue;
		for (size_t j = 0; j < classes[i].n_fields; j++) {
			const struct class_field *field = &classes[i].fields[j];
			char *set CLEANUP_FREE =
				xasprintf("%s.set_%s", classes[i].name, field->name);
			char *add_to CLEANUP_FREE =
				xasprintf("%s.add_to_%s", classes[i].name, field->name);
			bool is_written = !is_read_only(&classes[i], field);
			assert_int_equal(value_contains_string(names, set), is_written);
			assert_int_equal(value_contains_string(names, add_to),
				is_written && field->type == FIELD_MAP);
		}
	}
}

/* A value to write that differs from the default. */
static struct value *sample(const struct class_field *field)
{
	switch (field->type) {
	case FIELD_STRING:
		return value_new_string("a <text> & \"more\"");
	case FIELD_INT:
		return value_new_int(4242);
	case FIELD_BOOL:
		return value_new_bool(!field->fallback || strcmp(field->fallback, "true") != 0);
	case FIELD_FLOAT:
		return value_new_double(0.25);
	case FIELD_ENUM:
		return value_new_string_n(field->of, strcspn(field->of, "|"));
	case FIELD_SET_STRING:
		return value_append(value_new_array(),
			field->of ? value_new_string_n(field->of, strcspn(field->of, "|"))
				  : value_new_string("one"));
	case FIELD_MAP:
		return value_set_string(value_new_struct(), "key", "value");
	default:
		return NULL;
	}
}

/* As the wire has it: ints are text in XML. */
static bool is_same(const struct value *written, const struct value *read)
{
	if (written->type != VALUE_INT)
		return value_equal(written, read);
	char *text CLEANUP_FREE = xasprintf("%lld", (long long)written->integer);
	return read->type == VALUE_STRING ? strcmp(read->string, text) == 0
					  : read->integer == written->integer;
}

static void what_is_set_is_read_back(void **state)
{
	struct api_fixture *fixture = *state;
	size_t n_written = 0;

	for (size_t i = 0; i < n_classes; i++) {
		const struct class *class = &classes[i];
		char *ref CLEANUP_FREE = make_object(fixture, class);
		for (size_t j = 0; j < class->n_fields; j++) {
			const struct class_field *field = &class->fields[j];
			struct value *value CLEANUP_VALUE = sample(field);
			char *set CLEANUP_FREE = xasprintf("%s.set_%s", class->name, field->name);
			char *get CLEANUP_FREE = xasprintf("%s.get_%s", class->name, field->name);
			if (is_read_only(class, field) || !value ||
				strcmp(set, "SR.set_shared") == 0 ||
				strcmp(set, "VBD.set_userdevice") == 0)
				continue;
			value_free(api_call_ok(fixture, set,
				value_append(params_new(fixture, ref, NULL), value_copy(value))));
			struct value *read CLEANUP_VALUE =
				api_call_ok(fixture, get, params_new(fixture, ref, NULL));
			assert_true(is_same(value, read));
			n_written++;
		}
	}
	assert_true(n_written > 50);
}

static void maps_and_sets_change_by_key(void **state)
{
	struct api_fixture *fixture = *state;
	char *vm CLEANUP_FREE = api_make_vm(fixture, "keys");

	value_free(api_call_ok(
		fixture, "VM.add_to_other_config", params_new(fixture, vm, "k", "v", NULL)));
	api_call_fails(fixture, "MAP_DUPLICATE_KEY", "VM.add_to_other_config",
		params_new(fixture, vm, "k", "w", NULL));
	value_free(api_call_ok(
		fixture, "VM.remove_from_other_config", params_new(fixture, vm, "k", NULL)));
	value_free(api_call_ok(
		fixture, "VM.remove_from_other_config", params_new(fixture, vm, "k", NULL)));
	value_free(api_call_ok(fixture, "VM.add_tags", params_new(fixture, vm, "t", NULL)));
	value_free(api_call_ok(fixture, "VM.add_tags", params_new(fixture, vm, "t", NULL)));
	struct value *tags CLEANUP_VALUE =
		api_call_ok(fixture, "VM.get_tags", params_new(fixture, vm, NULL));
	assert_int_equal(tags->array.n_items, 1);
	value_free(api_call_ok(fixture, "VM.remove_tags", params_new(fixture, vm, "t", NULL)));
}

static void objects_are_found_by_uuid_name_and_expression(void **state)
{
	struct api_fixture *fixture = *state;
	char *vm CLEANUP_FREE = api_make_vm(fixture, "found");
	char *other CLEANUP_FREE = api_make_vm(fixture, "other");
	char *uuid CLEANUP_FREE =
		api_call_text(fixture, "VM.get_uuid", params_new(fixture, vm, NULL));
	char *by_uuid CLEANUP_FREE =
		api_call_text(fixture, "VM.get_by_uuid", params_new(fixture, uuid, NULL));
	struct value *by_name CLEANUP_VALUE =
		api_call_ok(fixture, "VM.get_by_name_label", params_new(fixture, "found", NULL));
	struct value *where CLEANUP_VALUE = api_call_ok(fixture, "VM.get_all_records_where",
		params_new(fixture, "field \"name_label\" = \"found\"", NULL));

	assert_string_equal(by_uuid, vm);
	assert_int_equal(by_name->array.n_items, 1);
	assert_string_equal(by_name->array.items[0]->string, vm);
	assert_int_equal(where->record.n_members, 1);
	assert_string_equal(where->record.members[0].name, vm);
	api_call_fails(fixture, "UUID_INVALID", "VM.get_by_uuid", params_new(fixture, "x", NULL));
	assert_string_equal(fixture->fault.params[0], "VM");
}

static void a_ref_field_takes_only_what_exists(void **state)
{
	struct api_fixture *fixture = *state;
	char *none CLEANUP_FREE = ref_new();

	api_call_fails(fixture, "HANDLE_INVALID", "pool.set_default_SR",
		params_new(fixture, fixture->pool_ref, none, NULL));
	assert_string_equal(fixture->fault.params[0], "SR");
	value_free(api_call_ok(fixture, "pool.set_default_SR",
		params_new(fixture, fixture->pool_ref, REF_NULL, NULL)));
	api_call_fails(fixture, "INVALID_VALUE", "host.set_display",
		params_new(fixture, fixture->host_ref, "perhaps", NULL));
}

static void json_gives_numbers_where_xml_gives_text(void **state)
{
	struct api_fixture *fixture = *state;
	char *body CLEANUP_FREE = xasprintf("{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":"
					    "\"host.get_API_version_major\",\"params\":[\"%s\","
					    "\"%s\"]}",
		fixture->session, fixture->host_ref);
	char *answer CLEANUP_FREE = api_json(fixture, body);

	assert_string_equal(answer, "{\"jsonrpc\":\"2.0\",\"result\":2,\"id\":0}");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, api_fixture_setup, api_fixture_teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(each_class_is_read_whole),
		TEST(each_field_has_its_getter),
		TEST(only_what_may_be_written_has_a_setter),
		TEST(what_is_set_is_read_back),
		TEST(maps_and_sets_change_by_key),
		TEST(objects_are_found_by_uuid_name_and_expression),
		TEST(a_ref_field_takes_only_what_exists),
		TEST(json_gives_numbers_where_xml_gives_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
