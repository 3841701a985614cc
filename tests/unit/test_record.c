/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/check.h"

#include "cli/record.h"
#include "schema/classes.h"

/* The classes whose records `ferry --json` prints. */
static const char *const shown[] = {
	"pool", "host", "task", "migration", "SR", "PBD", "VDI", "VBD", "VM", "VIF", "network"};

static void every_int_field_is_a_number_in_json(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(shown); i++) {
		const struct class *class = class_find(shown[i]);
		assert_non_null(class);
		for (size_t j = 0; j < class->n_fields; j++) {
			bool is_int = class->fields[j].type == FIELD_INT;
			if (record_is_int_field(class->fields[j].name) != is_int)
				fail_msg("%s.%s", class->name, class->fields[j].name);
		}
	}
}

static void ints_come_as_text_and_leave_as_numbers(void **state)
{
	struct value *record CLEANUP_VALUE = value_new_struct();

	(void)state;
	value_set_string(record, "virtual_size", "21474836480");
	value_set_string(record, "name_label", "42");
	value_set_string(record, "order", "not a number");
	struct value *json CLEANUP_VALUE = record_for_json("OpaqueRef:x", record);
	assert_string_equal(json->record.members[0].name, "ref");
	assert_int_equal(value_find_int(json, "virtual_size", 0), 21474836480);
	assert_string_equal(value_find_string(json, "name_label", ""), "42");
	assert_string_equal(value_find_string(json, "order", ""), "not a number");
	assert_int_equal(record_int(record, "virtual_size", -1), 21474836480);
	assert_int_equal(record_int(record, "order", -1), -1);
	assert_int_equal(record_int(NULL, "order", -1), -1);
}

static void floats_come_in_three_forms(void **state)
{
	struct value *record CLEANUP_VALUE = value_new_struct();

	(void)state;
	value_set(record, "a", value_new_double(0.5));
	value_set_string(record, "b", "0.5");
	value_set_int(record, "c", 1);
	assert_true(record_double(record, "a", 0) == 0.5);
	assert_true(record_double(record, "b", 0) == 0.5);
	assert_true(record_double(record, "c", 0) == 1);
	assert_true(record_double(record, "d", 7) == 7);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_int_field_is_a_number_in_json),
		cmocka_unit_test(ints_come_as_text_and_leave_as_numbers),
		cmocka_unit_test(floats_come_in_three_forms),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
