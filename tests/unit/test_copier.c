/* SPDX-License-Identifier: Apache-2.0 */
/* What the copier makes of all kinds of disks, against a real tgtd. */
#include "agent/copy/copier.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "tests/lib/check.h"
#include "tests/lib/copy_fixture.h"

static void one_sector_is_copied(void **state)
{
	struct copy_fixture *f = *state;

	copy_fixture_begin(f, 512);
	copy_fixture_fill(f->source, 0, 512, 1);
	copy_fixture_copy_and_check(f);
	assert_int_equal(f->progress.sent, 512);
}

static void a_size_beside_all_blocks_is_copied(void **state)
{
	struct copy_fixture *f = *state;

	copy_fixture_begin(f, MIB + 512);
	copy_fixture_fill(f->source, 0, MIB + 512, 2);
	copy_fixture_copy_and_check(f);
	assert_int_equal(f->progress.sent, MIB + 512);
}

static void written_zeros_are_not_sent(void **state)
{
	struct copy_fixture *f = *state;

	copy_fixture_begin(f, 16 * MIB);
	copy_fixture_fill_zeros(f->source, 0, 16 * MIB);
	copy_fixture_copy_and_check(f);
	assert_int_equal(f->progress.sent, 0);
	assert_int_equal(f->progress.skipped_zero, 16 * MIB);
}

static void holes_are_not_read(void **state)
{
	struct copy_fixture *f = *state;

	copy_fixture_begin(f, 64 * MIB);
	copy_fixture_copy_and_check(f);
	assert_int_equal(f->progress.read, 0);
	assert_int_equal(f->progress.sent, 0);
	assert_int_equal(f->progress.skipped_hole, 64 * MIB);
}

static void random_data_is_copied(void **state)
{
	struct copy_fixture *f = *state;

	copy_fixture_begin(f, 48 * MIB + 512);
	copy_fixture_fill(f->source, 0, 48 * MIB + 512, 3);
	copy_fixture_copy_and_check(f);
	assert_int_equal(f->progress.sent, 48 * MIB + 512);
}

static void a_sparse_disk_costs_what_is_in_it(void **state)
{
	struct copy_fixture *f = *state;
	uint64_t before;

	copy_fixture_begin(f, 20 * GIB);
	copy_fixture_fill(f->source, 0, 4096, 4);
	copy_fixture_fill(f->source, 7 * GIB + 12345 * 512, 3 * MIB, 5);
	copy_fixture_fill(f->source, 20 * GIB - 512, 512, 6);
	before = clock_now_usec();
	copy_fixture_copy_and_check(f);
	assert_true(clock_now_usec() - before < 10 * USEC_PER_SEC);
	assert_true(f->progress.read < 4 * MIB);
}

/* Blocks of data and of zeros by turns, zeros short and long, on an allocated file. */
static void zeros_between_data_do_not_grow_the_target(void **state)
{
	struct copy_fixture *f = *state;

	copy_fixture_begin(f, 16 * MIB);
	copy_fixture_fill_zeros(f->source, 0, 8 * MIB);
	for (uint64_t at = 0, gap = 4096; at + 4096 < 16 * MIB; at += 4096 + gap) {
		copy_fixture_fill(f->source, at, 4096, (uint32_t)at + 7);
		gap = gap == 128 * KIB ? 4096 : gap * 2;
	}
	copy_fixture_copy_and_check(f);
	assert_true(f->progress.skipped_zero > 0);
}

static void only_what_the_log_has_is_sent(void **state)
{
	struct copy_fixture *f = *state;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct extent extents[3000];

	copy_fixture_begin(f, 64 * MIB);
	copy_fixture_fill(f->source, 0, 64 * MIB, 8);
	copy_fixture_copy_and_check(f);
	uint64_t sent = f->progress.sent;
	for (size_t i = 0; i < ARRAY_SIZE(extents); i++) {
		extents[i] = (struct extent){i * 20 * KIB + i % 8 * 512, 4096};
		copy_fixture_fill(f->source, extents[i].offset, 4096, (uint32_t)i + 9);
	}
	copy_fixture_log_add(f, extents, ARRAY_SIZE(extents));
	check_ok(&fault, copy_run(&f->params, &fault));
	copy_fixture_check(f);
	assert_int_equal(f->progress.sent - sent, ARRAY_SIZE(extents) * 4096);
}

/* The densest log there is: every second sector. */
static void every_second_sector_is_copied(void **state)
{
	struct copy_fixture *f = *state;
	struct extent *extents CLEANUP_FREE = xcalloc(8192 + 10, sizeof(*extents));

	copy_fixture_source(f, 9 * MIB);
	lun_start(&f->lun, 9 * MIB, SERIAL, true);
	f->has_lun = true;
	f->params.target = lun_spec(&f->lun, SERIAL);
	for (size_t i = 0; i < 8192 + 10; i++) {
		extents[i] = (struct extent){i * 1024, 512};
		copy_fixture_fill(f->source, extents[i].offset, 512, (uint32_t)i + 1);
	}
	copy_fixture_log_add(f, extents, 8192 + 10);
	copy_fixture_copy_and_check(f);
}

static void garbage_on_a_used_target_is_overwritten(void **state)
{
	struct copy_fixture *f = *state;

	copy_fixture_begin(f, 24 * MIB);
	copy_fixture_fill(f->lun.path, 0, 24 * MIB, 10);
	copy_fixture_fill(f->source, 3 * MIB + 512, 2 * MIB, 11);
	copy_fixture_fill_zeros(f->source, 9 * MIB, 3 * MIB);
	copy_fixture_fill(f->source, 9 * MIB + 4096, 4096, 12);
	f->params.target_fresh = false;
	copy_fixture_copy_and_check(f);
}

static void the_rate_limit_holds_over_all_sessions(void **state)
{
	struct copy_fixture *f = *state;
	struct rate_limit *rate CLEANUP_RATE_LIMIT = rate_limit_new(40 * MIB);
	uint64_t before;

	copy_fixture_begin(f, 32 * MIB);
	copy_fixture_fill(f->source, 0, 32 * MIB, 20);
	f->params.rate = rate;
	before = clock_now_usec();
	copy_fixture_copy_and_check(f);
	assert_in_range(clock_now_usec() - before, 600 * USEC_PER_MSEC, 4 * USEC_PER_SEC);
}

static void an_empty_log_is_done(void **state)
{
	struct copy_fixture *f = *state;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	copy_fixture_source(f, MIB);
	f->params.target = (struct endpoint_spec){.kind = ENDPOINT_ISCSI};
	check_ok(&fault, copy_run(&f->params, &fault));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, copy_fixture_setup, copy_fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(one_sector_is_copied),
		TEST(a_size_beside_all_blocks_is_copied),
		TEST(written_zeros_are_not_sent),
		TEST(holes_are_not_read),
		TEST(random_data_is_copied),
		TEST(a_sparse_disk_costs_what_is_in_it),
		TEST(zeros_between_data_do_not_grow_the_target),
		TEST(only_what_the_log_has_is_sent),
		TEST(every_second_sector_is_copied),
		TEST(garbage_on_a_used_target_is_overwritten),
		TEST(the_rate_limit_holds_over_all_sessions),
		TEST(an_empty_log_is_done),
	};

	if (!lun_is_available()) {
		print_message("tgtd is not installed\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
