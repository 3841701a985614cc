/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/agent_fixture.h"

#include "base/clock.h"

#include <errno.h>
#include <inttypes.h>

#define SECTOR 512

static void add(struct agent_fixture *f, unsigned disk, const struct extent *extents, size_t n)
{
	check_ok(&f->fault, extent_log_add(f->agent, "m", disk, extents, n, &f->fault));
}

static void add_one(struct agent_fixture *f, unsigned disk, uint64_t offset, uint64_t length)
{
	const struct extent extent = {offset * SECTOR, length * SECTOR};

	add(f, disk, &extent, 1);
}

static void remove_one(struct agent_fixture *f, unsigned disk, uint64_t offset, uint64_t length)
{
	const struct extent extent = {offset * SECTOR, length * SECTOR};

	check_ok(&f->fault, extent_log_remove(f->agent, "m", disk, &extent, 1, &f->fault));
}

/* "0+8 16+4", in sectors, of what lies at or after `from`. */
static void assert_log(
	struct agent_fixture *f, unsigned disk, uint64_t from, size_t max, const char *expected)
{
	struct buf text CLEANUP_BUF = BUF_INIT;
	struct extent extents[32];
	size_t n = 0;

	check_ok(&f->fault,
		extent_log_read(f->agent, "m", disk, from * SECTOR, extents, max, &n, &f->fault));
	for (size_t i = 0; i < n; i++)
		buf_printf(&text, "%s%" PRIu64 "+%" PRIu64, i ? " " : "",
			extents[i].offset / SECTOR, extents[i].length / SECTOR);
	char *found CLEANUP_FREE = buf_take_string(&text);
	assert_string_equal(found, expected);
}

static void what_touches_becomes_one_row(void **state)
{
	struct agent_fixture *f = *state;
	const struct extent unsorted[] = {
		{40 * SECTOR, 8 * SECTOR}, {0, 8 * SECTOR}, {44 * SECTOR, 8 * SECTOR}, {0, SECTOR}};

	add(f, 0, unsorted, ARRAY_SIZE(unsorted));
	assert_log(f, 0, 0, 32, "0+8 40+12");
	add_one(f, 0, 8, 1);
	add_one(f, 0, 39, 1);
	assert_log(f, 0, 0, 32, "0+9 39+13");
	add_one(f, 0, 20, 1);
	add_one(f, 0, 9, 30);
	assert_log(f, 0, 0, 32, "0+52");
	add_one(f, 0, 1, 2);
	assert_log(f, 0, 0, 32, "0+52");
}

static void what_is_removed_leaves_the_rest(void **state)
{
	struct agent_fixture *f = *state;

	add_one(f, 0, 10, 10);
	remove_one(f, 0, 0, 10);
	remove_one(f, 0, 20, 5);
	assert_log(f, 0, 0, 32, "10+10");
	remove_one(f, 0, 14, 2);
	assert_log(f, 0, 0, 32, "10+4 16+4");
	remove_one(f, 0, 0, 12);
	remove_one(f, 0, 19, 1);
	assert_log(f, 0, 0, 32, "12+2 16+3");
	remove_one(f, 0, 0, 100);
	assert_log(f, 0, 0, 32, "");
	remove_one(f, 0, 0, 100);
}

static void reading_goes_on_where_it_stopped(void **state)
{
	struct agent_fixture *f = *state;

	for (uint64_t i = 0; i < 5; i++)
		add_one(f, 0, i * 10, 5);
	assert_log(f, 0, 0, 2, "0+5 10+5");
	assert_log(f, 0, 15, 2, "20+5 30+5");
	assert_log(f, 0, 22, 2, "22+3 30+5");
	assert_log(f, 0, 45, 2, "");
	assert_log(f, 0, 0, 0, "");
}

static void disks_and_migrations_do_not_mix(void **state)
{
	struct agent_fixture *f = *state;
	uint64_t bytes = 1, rows = 1;

	agent_fixture_insert(f, "n");
	add_one(f, 0, 0, 8);
	add_one(f, 1, 8, 8);
	remove_one(f, 1, 0, 8);
	assert_log(f, 0, 0, 32, "0+8");
	assert_log(f, 1, 0, 32, "8+8");
	check_ok(&f->fault, extent_log_total(f->agent, "n", 0, &bytes, &rows, &f->fault));
	assert_int_equal(bytes, 0);
	assert_int_equal(rows, 0);
	check_ok(&f->fault, migration_forget(f->agent, "n", &f->fault));
	assert_log(f, 1, 0, 32, "8+8");
	check_ok(&f->fault, migration_forget(f->agent, "m", &f->fault));
	assert_int_equal(extent_log_total(f->agent, "m", 0, &bytes, &rows, &f->fault), -ENOENT);
	agent_fixture_insert(f, "m");
	assert_log(f, 0, 0, 32, "");
}

static void what_is_no_extent_is_refused_whole(void **state)
{
	struct agent_fixture *f = *state;
	const struct extent wrong[] = {{1, SECTOR}, {0, 1}, {0, 0}, {UINT64_MAX - 511, SECTOR},
		{SECTOR, INT64_MAX - 511}, {0, UINT64_MAX - 511}};

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		const struct extent extents[] = {{0, SECTOR}, wrong[i]};
		assert_int_equal(extent_log_add(f->agent, "m", 0, extents, 2, &f->fault), -EINVAL);
		fault_clear(&f->fault);
		assert_int_equal(
			extent_log_remove(f->agent, "m", 0, extents, 2, &f->fault), -EINVAL);
		fault_clear(&f->fault);
	}
	assert_log(f, 0, 0, 32, "");
	assert_int_equal(extent_log_add(f->agent, "nobody", 0, wrong, 0, &f->fault), -ENOENT);
}

/* --- Against a naive model ---------------------------------------------------------------------
 */

#define N_SECTORS 4096

struct model {
	bool has[N_SECTORS];
	uint64_t seed;
};

static uint64_t next_random(struct model *model, uint64_t below)
{
	model->seed ^= model->seed << 13; /* xorshift64 */
	model->seed ^= model->seed >> 7;
	model->seed ^= model->seed << 17;
	return model->seed % below;
}

static size_t make_extents(struct model *model, struct extent *extents, size_t max)
{
	size_t n = (size_t)next_random(model, max) + 1;
	uint64_t longest = next_random(model, 3) ? 8 : N_SECTORS / 2;

	for (size_t i = 0; i < n; i++) {
		uint64_t length = 1 + next_random(model, longest);
		uint64_t offset = next_random(model, N_SECTORS - length + 1);
		extents[i] = (struct extent){offset * SECTOR, length * SECTOR};
	}
	return n;
}

static void model_set(struct model *model, const struct extent *extents, size_t n, bool has)
{
	for (size_t i = 0; i < n; i++)
		for (uint64_t s = 0; s < extents[i].length / SECTOR; s++)
			model->has[extents[i].offset / SECTOR + s] = has;
}

/* The same bytes, and rows that neither touch nor overlap nor are out of order. */
static void compare(struct agent_fixture *f, const struct model *model)
{
	static struct extent rows[N_SECTORS];
	uint64_t bytes = 0, n_rows = 0, sum = 0, at = 0;
	size_t n = 0;

	check_ok(&f->fault, extent_log_read(f->agent, "m", 0, 0, rows, N_SECTORS, &n, &f->fault));
	check_ok(&f->fault, extent_log_total(f->agent, "m", 0, &bytes, &n_rows, &f->fault));
	assert_int_equal(n, n_rows);
	for (size_t i = 0; i < n; i++) {
		assert_true(rows[i].length > 0);
		assert_true(i == 0 || rows[i].offset > rows[i - 1].offset + rows[i - 1].length);
		for (; at < rows[i].offset / SECTOR; at++)
			assert_false(model->has[at]);
		for (; at < (rows[i].offset + rows[i].length) / SECTOR; at++)
			assert_true(model->has[at]);
		sum += rows[i].length;
	}
	for (; at < N_SECTORS; at++)
		assert_false(model->has[at]);
	assert_int_equal(bytes, sum);
}

static void random_changes_agree_with_a_bitmap(void **state)
{
	static struct extent extents[600];
	struct agent_fixture *f = *state;

	for (uint64_t seed = 1; seed <= 8; seed++) {
		struct model model = {.seed = seed * UINT64_C(0x9e3779b97f4a7c15)};
		for (int round = 0; round < 60; round++) {
			bool is_add = next_random(&model, 2);
			size_t n = make_extents(&model, extents, next_random(&model, 4) ? 20 : 600);
			model_set(&model, extents, n, is_add);
			check_ok(&f->fault,
				is_add ? extent_log_add(f->agent, "m", 0, extents, n, &f->fault)
				       : extent_log_remove(
						 f->agent, "m", 0, extents, n, &f->fault));
			compare(f, &model);
		}
		const struct extent all = {0, N_SECTORS * SECTOR};
		check_ok(&f->fault, extent_log_remove(f->agent, "m", 0, &all, 1, &f->fault));
	}
}

/* More rows than one batch of the reader holds, in every relation to the change. */
static void many_rows_are_joined_and_cut_by_one_extent(void **state)
{
	enum { N = 5000 };
	static struct extent extents[N];
	struct agent_fixture *f = *state;

	for (uint64_t i = 0; i < N; i++)
		extents[i] = (struct extent){i * 2 * SECTOR, SECTOR};
	add(f, 0, extents, N);
	add_one(f, 0, 1, 2 * N - 2);
	assert_log(f, 0, 0, 2, "0+9999");
	check_ok(&f->fault, extent_log_remove(f->agent, "m", 0, extents, N, &f->fault));
	assert_log(f, 0, 0, 2, "1+1 3+1");
	remove_one(f, 0, 2, 2 * N - 4);
	assert_log(f, 0, 0, 2, "1+1");
	add(f, 0, extents, N);
	assert_log(f, 0, 0, 2, "0+3 4+1");
	remove_one(f, 0, 0, 2 * N);
	assert_log(f, 0, 0, 2, "");
}

/* Only a quadratic algorithm breaks the time limit of the test. */
static void a_million_extents_are_added_and_removed(void **state)
{
	enum { N = 1000000 };
	struct extent *extents CLEANUP_FREE = xcalloc(N, sizeof(*extents));
	struct agent_fixture *f = *state;
	uint64_t bytes = 0, rows = 0;

	for (uint64_t i = 0; i < N; i++) /* a permutation: 7919 is prime to N */
		extents[i] = (struct extent){i * 7919 % N * 8 * SECTOR, 4 * SECTOR};
	uint64_t begin = clock_now_usec();
	add(f, 0, extents, N);
	uint64_t added = clock_now_usec();
	check_ok(&f->fault, extent_log_total(f->agent, "m", 0, &bytes, &rows, &f->fault));
	assert_int_equal(rows, N);
	assert_int_equal(bytes, (uint64_t)N * 4 * SECTOR);
	check_ok(&f->fault, extent_log_remove(f->agent, "m", 0, extents, N, &f->fault));
	uint64_t removed = clock_now_usec();
	print_message("1000000 extents: added in %.2f s, removed in %.2f s\n",
		(double)(added - begin) / 1e6, (double)(removed - added) / 1e6);
	check_ok(&f->fault, extent_log_total(f->agent, "m", 0, &bytes, &rows, &f->fault));
	assert_int_equal(rows, 0);
}

#define test(name)                                                                                 \
	cmocka_unit_test_setup_teardown(name, agent_fixture_setup, agent_fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(what_touches_becomes_one_row),
		test(what_is_removed_leaves_the_rest),
		test(reading_goes_on_where_it_stopped),
		test(disks_and_migrations_do_not_mix),
		test(what_is_no_extent_is_refused_whole),
		test(random_changes_agree_with_a_bitmap),
		test(many_rows_are_joined_and_cut_by_one_extent),
		test(a_million_extents_are_added_and_removed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
