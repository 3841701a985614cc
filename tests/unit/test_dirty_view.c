/* SPDX-License-Identifier: Apache-2.0 */
/* What a tracker makes of the bitmaps that a QEMU has. */
#include "tests/lib/check.h"

#include "agent/guest/dirty_internal.h"
#include "base/alloc.h"
#include "base/json.h"

static struct dirty_disk_copy disks[] = {{(char *)"d0", 4096}, {(char *)"d1", 4096}};

static const struct dirty tracker = {
	.job = (char *)"j", .proxy = (char *)"proxy", .disks = disks, .n_disks = 2};

#define BITMAP(name, recording)                                                                    \
	"{\"name\": \"" name "\", \"granularity\": 4096, \"recording\": " recording "}"
#define NODE(name, bitmaps) "{\"node-name\": \"" name "\", \"dirty-bitmaps\": [" bitmaps "]}"

static struct dirty_view view_of(const char *text)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct value *nodes CLEANUP_VALUE = NULL;
	struct dirty_view view;

	check_ok(&fault, json_decode(text, strlen(text), NULL, &nodes, &fault));
	dirty_view_read(&tracker, nodes, &view);
	return view;
}

static void check_lost(const char *text, const char *word)
{
	struct dirty_view view = view_of(text);

	assert_int_equal(view.state, DIRTY_LOST);
	if (!strstr(view.lost, word))
		print_error("lost: %s\n", view.lost);
	assert_non_null(strstr(view.lost, word));
}

static void bitmaps_of_others_are_none_of_ours(void **state)
{
	struct dirty_view view = view_of("[" NODE(
		"d0", BITMAP("backup", "true") "," BITMAP("ferry.j2.d0.0", "true")) "," NODE("d1",
		BITMAP("ferry.j-.d1.0", "true")) "]");

	(void)state;
	assert_int_equal(view.state, DIRTY_NONE);
	assert_false(view.has_proxy);
}

static void one_that_records_on_each_disk_is_recording(void **state)
{
	struct dirty_view view = view_of("[" NODE("d0", BITMAP("ferry.j.d0.7", "true")) "," NODE(
		"d1", BITMAP("ferry.j.d1.7", "true")) "," NODE("proxy", "") "]");

	(void)state;
	assert_int_equal(view.state, DIRTY_RECORDING);
	assert_int_equal(view.generation, 7);
	assert_true(view.has_proxy);
}

static void the_one_before_may_be_frozen(void **state)
{
	struct dirty_view view = view_of("[" NODE("d0",
		BITMAP("ferry.j.d0.9", "false") "," BITMAP("ferry.j.d0.10", "true")) "," NODE("d1",
		BITMAP("ferry.j.d1.10", "true") "," BITMAP("ferry.j.d1.9", "false")) "]");

	(void)state;
	assert_int_equal(view.state, DIRTY_FROZEN);
	assert_int_equal(view.generation, 10);
}

static void disks_that_differ_are_lost(void **state)
{
	(void)state;
	check_lost("[" NODE("d0", BITMAP("ferry.j.d0.0", "true")) "," NODE("d1", "") "]", "d1");
	check_lost("[" NODE("d0", "") "," NODE("d1", BITMAP("ferry.j.d1.0", "true")) "]", "d1");
	check_lost("[" NODE("d0", BITMAP("ferry.j.d0.0", "true")) "," NODE(
			   "d1", BITMAP("ferry.j.d1.1", "true")) "]",
		"d1");
	check_lost("[" NODE("d0", BITMAP("ferry.j.d0.0", "true")) "]", "no such node");
}

static void generations_with_a_gap_are_lost(void **state)
{
	(void)state;
	check_lost("[" NODE("d0", BITMAP("ferry.j.d0.0", "false")) "," NODE("d1", "") "]", "d0");
	check_lost("[" NODE("d0", BITMAP("ferry.j.d0.0", "false") "," BITMAP(
					  "ferry.j.d0.2", "true")) "," NODE("d1", "") "]",
		"d0");
	check_lost("[" NODE("d0", BITMAP("ferry.j.d0.1", "true") "," BITMAP(
					  "ferry.j.d0.2", "true")) "," NODE("d1", "") "]",
		"d0");
	check_lost("[" NODE("d0", BITMAP("ferry.j.d0.x", "true")) "," NODE("d1", "") "]",
		"generation");
}

static void an_inconsistent_bitmap_is_lost(void **state)
{
	(void)state;
	check_lost(
		"[" NODE("d0", "{\"name\": \"ferry.j.d0.0\", \"granularity\": 4096, \"recording\": "
			       "false, \"inconsistent\": true}") "," NODE("d1", "") "]",
		"inconsistent");
}

static void an_answer_of_another_shape_is_no_tracking(void **state)
{
	(void)state;
	check_lost("[]", "no such node");
	check_lost("[1, {}, \"d0\", {\"node-name\": 5}]", "no such node");
	assert_int_equal(view_of("[{\"node-name\": \"d0\", \"dirty-bitmaps\": 5},"
				 "{\"node-name\": \"d1\", \"dirty-bitmaps\": [5, {}]}]")
				 .state,
		DIRTY_NONE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bitmaps_of_others_are_none_of_ours),
		cmocka_unit_test(one_that_records_on_each_disk_is_recording),
		cmocka_unit_test(the_one_before_may_be_frozen),
		cmocka_unit_test(disks_that_differ_are_lost),
		cmocka_unit_test(generations_with_a_gap_are_lost),
		cmocka_unit_test(an_inconsistent_bitmap_is_lost),
		cmocka_unit_test(an_answer_of_another_shape_is_no_tracking),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
