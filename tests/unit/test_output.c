/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/check.h"

#include "cli/output.h"
#include "cli/progress.h"

static void sizes_have_one_digit_after_the_point(void **state)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} cases[] = {
		{0, "0 B"},
		{1023, "1023 B"},
		{1024, "1.0 KiB"},
		{1536, "1.5 KiB"},
		{(1 << 20) - 1, "1.0 MiB"},
		{UINT64_C(20) << 30, "20.0 GiB"},
		{UINT64_MAX, "16.0 EiB"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char *text CLEANUP_FREE = output_size(cases[i].bytes);
		assert_string_equal(text, cases[i].text);
	}
}

static void durations_show_hours_only_when_there_are(void **state)
{
	char *seconds CLEANUP_FREE = output_duration(5);
	char *hours CLEANUP_FREE = output_duration(100 * 3600 + 62);

	(void)state;
	assert_string_equal(seconds, "0:05");
	assert_string_equal(hours, "100:01:02");
}

static void no_control_character_is_shown(void **state)
{
	char *clean CLEANUP_FREE = output_clean("a\x1b[2J\tb\n\x7f\xc2\x9b\xc2\xa0\xc3\xa9");

	(void)state;
	assert_string_equal(clean, "a?[2J?b????\xc2\xa0\xc3\xa9");
}

static void columns_are_as_wide_as_their_widest_cell(void **state)
{
	static const char *const cells[] = {"d\xc3\xa9j\xc3\xa0", "1", "x", "1000"};
	struct table *table CLEANUP_TABLE = table_new();
	struct buf out CLEANUP_BUF = BUF_INIT;

	(void)state;
	table_add_column(table, "NAME", TABLE_LEFT);
	table_add_column(table, "N", TABLE_RIGHT);
	for (size_t i = 0; i < ARRAY_SIZE(cells); i++)
		table_add(table, cells[i]);
	table_write(table, &out);
	assert_string_equal(out.data, "NAME     N\n"
				      "d\xc3\xa9j\xc3\xa0     1\n"
				      "x     1000\n");
}

static void the_progress_line_never_exceeds_the_terminal(void **state)
{
	struct value *task CLEANUP_VALUE = value_new_struct();
	struct value *config = value_new_struct();

	(void)state;
	value_set(task, "progress", value_new_double(7)); /* servers err */
	value_set(task, "other_config", config);
	value_set_string(config, "ferry:state", "CONVERGING");
	value_set_string(config, "ferry:bytes_total", "9000000000000");
	value_set_string(config, "ferry:bytes_done", "9000000000000");
	value_set_string(config, "ferry:rate", "1000000000");
	value_set_string(config, "ferry:eta", "99999");
	for (size_t columns = 20; columns < 200; columns++) {
		struct buf line CLEANUP_BUF = BUF_INIT;
		progress_format(task, columns, &line);
		assert_true(line.length <= columns);
	}
	struct buf whole CLEANUP_BUF = BUF_INIT;
	progress_format(task, 200, &whole);
	assert_string_equal(whole.data, "[################] 100%  CONVERGING  8.2 TiB of 8.2 TiB  "
					"953.7 MiB/s  ETA 27:46:39");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_have_one_digit_after_the_point),
		cmocka_unit_test(durations_show_hours_only_when_there_are),
		cmocka_unit_test(no_control_character_is_shown),
		cmocka_unit_test(columns_are_as_wide_as_their_widest_cell),
		cmocka_unit_test(the_progress_line_never_exceeds_the_terminal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
