/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/check.h"

#include "base/alloc.h"
#include "base/json.h"
#include "base/value.h"

#include <math.h>

static void many_members_are_found_replaced_and_removed(void **state)
{
	struct value *record CLEANUP_VALUE = value_new_struct();

	(void)state;
	for (int i = 0; i < 1000; i++) {
		char *name CLEANUP_FREE = xasprintf("key%d", i);
		value_set_int(record, name, i);
	}
	value_set_int(record, "key500", -1);
	assert_int_equal(record->record.n_members, 1000);
	for (int i = 0; i < 1000; i += 2) {
		char *name CLEANUP_FREE = xasprintf("key%d", i);
		assert_true(value_unset(record, name));
		assert_false(value_unset(record, name));
	}
	assert_int_equal(record->record.n_members, 500);
	for (int i = 0; i < 1000; i++) {
		char *name CLEANUP_FREE = xasprintf("key%d", i);
		assert_int_equal(value_find_int(record, name, -2), i % 2 ? i : -2);
	}
	value_set_int(record, "key0", 7);
	assert_int_equal(value_find_int(record, "key0", 0), 7);
}

static void members_with_borrowed_names_are_found_replaced_and_removed(void **state)
{
	static const char names[40][3] = {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "a",
		"b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r",
		"s", "t", "u", "v", "w", "x", "y", "z", "A", "B", "C", "D"};
	struct value *record CLEANUP_VALUE = value_new_struct();

	(void)state;
	for (int i = 0; i < 40; i++)
		value_add(record, names[i], value_new_int(i));
	for (int i = 0; i < 40; i++)
		assert_int_equal(value_find_int(record, names[i], -1), i);
	struct value *copy CLEANUP_VALUE = value_copy(record);
	assert_true(value_equal(record, copy));
	value_set_int(record, "7", 70); /* from here on there may be an index */
	value_set_int(record, "new", 40);
	assert_true(value_unset(record, "0"));
	assert_true(value_unset(record, "new"));
	assert_false(value_unset(record, "new"));
	assert_int_equal(record->record.n_members, 39);
	assert_int_equal(value_find_int(record, "7", -1), 70);
	assert_int_equal(value_find_int(record, "D", -1), 39);
	assert_null(value_find(record, "0"));
}

static void a_copy_is_equal_and_its_own(void **state)
{
	struct value *a CLEANUP_VALUE = value_new_struct();

	(void)state;
	value_set_string(a, "s", "text");
	value_set(a, "list", value_append_string(value_append_string(value_new_array(), "x"), "y"));
	value_set(a, "when", value_new_datetime(1));
	struct value *b CLEANUP_VALUE = value_copy(a);
	assert_true(value_equal(a, b));
	value_append_string(value_find(b, "list"), "z");
	assert_false(value_equal(a, b));
}

static void datetimes_are_read_in_both_forms(void **state)
{
	static const char *const bad[] = {"", "2026", "20261301T00:00:00Z", "20260821T02:00:23Zx",
		"20260821T02:00:23+01", "2026-08-21 02:00:23"};
	int64_t seconds;

	(void)state;
	assert_int_equal(datetime_parse("20260821T02:00:23Z", &seconds), 0);
	char *text CLEANUP_FREE = datetime_format(seconds);
	assert_string_equal(text, "20260821T02:00:23Z");
	int64_t again;
	assert_int_equal(datetime_parse("2026-08-21T02:00:23Z", &again), 0);
	assert_int_equal(again, seconds);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_true(datetime_parse(bad[i], &seconds) < 0);
}

static void json_goes_round(void **state)
{
	static const char text[] =
		"{\"a\":[1,2.5,true,null,\"\\u00e9\\n\"],\"b\":{\"c\":-9223372036854775808}}";
	struct value *value CLEANUP_VALUE = NULL;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct buf out CLEANUP_BUF = BUF_INIT;
	struct value *again CLEANUP_VALUE = NULL;

	(void)state;
	check_ok(&fault, json_decode(text, strlen(text), NULL, &value, &fault));
	json_encode(value, &out);
	check_ok(&fault, json_decode(out.data, out.length, NULL, &again, &fault));
	assert_true(value_equal(value, again));
}

static void json_is_written_compact_or_for_people(void **state)
{
	struct value *inner CLEANUP_VALUE = value_new_struct();
	struct buf out CLEANUP_BUF = BUF_INIT;

	(void)state;
	value_set_string(inner, "t\"\\", "\b\f\n\r\t\x01\x1f\x7f/\xc3\xa9");
	value_set_string(inner, "no UTF-8", "\xe9");
	value_set(inner, "r", value_new_double(1e30));
	value_set(inner, "n", value_new_double(NAN));
	value_set(inner, "none", value_new_array());
	value_set(inner, "two",
		value_append(value_append(value_new_array(), value_new_i4(-1)), value_new_nil()));
	json_encode(inner, &out);
	assert_string_equal(out.data,
		"{\"t\\\"\\\\\":\"\\b\\f\\n\\r\\t\\u0001\\u001F\x7f/\xc3\xa9\",\"no UTF-8\":\"\","
		"\"r\":1e30,\"n\":0,\"none\":[],\"two\":[-1,null]}");
	buf_free(&out);
	value_unset(inner, "t\"\\");
	value_unset(inner, "no UTF-8");
	value_set(inner, "s", value_new_struct());
	json_encode_pretty(inner, &out);
	assert_string_equal(out.data, "{\n  \"r\": 1e30,\n  \"n\": 0,\n  \"none\": [],\n  \"two\": "
				      "[\n    -1,\n    null\n  ],\n"
				      "  \"s\": {}\n}");
}

static void json_limits_hold(void **state)
{
	static const struct json_limits limits = {.max_depth = 3, .max_values = 6};
	static const char *const good[] = {"[[[]]]", "[1,2,3,4,5]", "1"};
	static const char *const bad[] = {
		"[[[[]]]]", "[1,2,3,4,5,6]", "", "{", "{\"a\":1,\"a\":2}", "[1] 2", "\"\\u0000\""};
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		struct value *value CLEANUP_VALUE = NULL;
		check_ok(&fault, json_decode(good[i], strlen(good[i]), &limits, &value, &fault));
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct value *value = NULL;
		check_fault(&fault, "INTERNAL_ERROR",
			json_decode(bad[i], strlen(bad[i]), &limits, &value, &fault));
		assert_null(value);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(many_members_are_found_replaced_and_removed),
		cmocka_unit_test(members_with_borrowed_names_are_found_replaced_and_removed),
		cmocka_unit_test(a_copy_is_equal_and_its_own),
		cmocka_unit_test(datetimes_are_read_in_both_forms),
		cmocka_unit_test(json_goes_round),
		cmocka_unit_test(json_is_written_compact_or_for_people),
		cmocka_unit_test(json_limits_hold),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
