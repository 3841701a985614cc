/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/check.h"

#include "agent/api/where.h"
#include "base/alloc.h"
#include "base/cleanup.h"

static struct value *records_new(void)
{
	struct value *records = value_new_struct();

	for (int i = 0; i < 4; i++) {
		struct value *record = value_new_struct();
		char *ref CLEANUP_FREE = xasprintf("r%d", i);
		value_set(record, "name_label", value_new_format("vm \"%d\"", i));
		value_set_bool(record, "is_a_template", i % 2);
		value_set_int(record, "VCPUs_max", i);
		value_set(record, "other_config",
			value_set_string(value_new_struct(), "owner", i < 2 ? "a" : "b"));
		value_set(records, ref, record);
	}
	return records;
}

static void expressions_select(void **state)
{
	static const struct {
		const char *expression;
		const char *refs;
	} cases[] = {
		{"true", "r0 r1 r2 r3 "},
		{"false", ""},
		{"field \"VCPUs_max\" = \"2\"", "r2 "},
		{"field 'VCPUs_max'='2'", "r2 "},
		{"field \"name_label\" = \"vm \\\"3\\\"\"", "r3 "},
		{"field \"is_a_template\" = \"true\"", "r1 r3 "},
		{"not field \"is_a_template\" = \"true\"", "r0 r2 "},
		{"not (true and false)", "r0 r1 r2 r3 "},
		{"field \"other_config__owner\" = \"b\" and field \"is_a_template\" = \"false\"",
			"r2 "},
		{"field \"VCPUs_max\" = \"0\" or field \"VCPUs_max\" = \"1\" and false", "r0 "},
		{"(field \"VCPUs_max\" = \"0\" or field \"VCPUs_max\" = \"1\") and false", ""},
		{"field \"other_config__nothing\" = \"\"", ""},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct value *records CLEANUP_VALUE = records_new();
		struct value *selected CLEANUP_VALUE = NULL;
		struct fault fault CLEANUP_FAULT = FAULT_INIT;
		char refs[64] = "";
		check_ok(&fault, where_select(class_find("VM"), cases[i].expression, records,
					 &selected, &fault));
		for (size_t j = 0; j < selected->record.n_members; j++) {
			strcat(refs, selected->record.members[j].name);
			strcat(refs, " ");
		}
		assert_string_equal(refs, cases[i].refs);
	}
}

static void what_cannot_be_read_is_said(void **state)
{
	static const char *const bad[] = {"", "field", "field \"uuid\"",
		"field \"uuid\" = ", "field \"uuid\" = \"x", "true true", "(true", "not",
		"truefalse", "and", "true or"};
	struct value *none CLEANUP_VALUE = value_new_struct();
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct value *selected = NULL;
	char deep[401];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		check_fault(&fault, "INTERNAL_ERROR",
			where_select(class_find("VM"), bad[i], none, &selected, &fault));
	memset(deep, '(', sizeof(deep) - 1);
	deep[sizeof(deep) - 1] = '\0';
	check_fault(&fault, "INTERNAL_ERROR",
		where_select(class_find("VM"), deep, none, &selected, &fault));
	check_fault(&fault, "INVALID_VALUE",
		where_select(
			class_find("VM"), "field \"nonsense\" = \"1\"", none, &selected, &fault));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(expressions_select),
		cmocka_unit_test(what_cannot_be_read_is_said),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
