/* SPDX-License-Identifier: Apache-2.0 */
/* What members are given, without the network; tests/e2e/pool_coordinator.py has it. */
#include "tests/lib/pool_fixture.h"

#include "agent/pool/handout.h"
#include "base/base64.h"
#include "base/io.h"
#include "base/parse.h"

#include <unistd.h>

#define LONG_USEC UINT64_C(3600000000)

struct bench {
	struct fixture *fixture;
	struct handout *handout;
};

static void bench_open(struct bench *b, void **state, uint64_t max_age_usec)
{
	b->fixture = *state;
	b->handout = handout_new(b->fixture->folder.database, max_age_usec);
}

/* The id, for the caller to free. *ret_size: 0 when the copy is there already. */
static char *offer(struct bench *b, const char *have, bool now, int64_t *ret_size)
{
	struct value *offered CLEANUP_VALUE = NULL;
	struct fault *fault = &b->fixture->fault;

	check_ok(fault, handout_offer(b->handout, have, now, &offered, fault));
	*ret_size = 0;
	const char *size = value_find_string(offered, "size", NULL);
	if (size)
		assert_int_equal(parse_int64(size, ret_size), 0);
	else if (value_find(offered, "size"))
		*ret_size = value_find_int(offered, "size", 0);
	return xstrdup(value_find_string(offered, "id", ""));
}

static void a_copy_is_a_database_with_all_of_it(void **state)
{
	struct bench b;
	struct buf bytes CLEANUP_BUF = BUF_INIT;
	int64_t size;

	bench_open(&b, state, 0);
	char *vm CLEANUP_FREE = fixture_create(b.fixture, "VM", "name_label", "one", NULL);
	char *id CLEANUP_FREE = offer(&b, "", false, &size);
	while ((int64_t)bytes.length < size) {
		struct value *piece CLEANUP_VALUE = NULL;
		check_ok(&b.fixture->fault, handout_read(b.handout, id, (int64_t)bytes.length,
						    &piece, &b.fixture->fault));
		assert_int_equal(base64_decode(piece->string, &bytes), 0);
	}
	char *path CLEANUP_FREE = xasprintf("%s/copied.db", b.fixture->folder.path);
	assert_int_equal(io_replace_file(path, bytes.data, bytes.length, 0600), 0);
	struct pool_db *copy = NULL;
	check_ok(&b.fixture->fault, pool_db_open(path, &copy, &b.fixture->fault));
	assert_true(object_exists(copy, "VM", vm));
	assert_int_equal(pool_db_generation(copy), pool_db_generation(b.fixture->pool));
	pool_db_close(copy);
	unlink(path);
	char *left CLEANUP_FREE = xasprintf("%s.handout", b.fixture->folder.database);
	assert_int_equal(access(left, F_OK), -1);
	handout_free(b.handout);
}

static void nothing_new_is_no_copy(void **state)
{
	struct bench b;
	int64_t size;

	bench_open(&b, state, 0);
	char *first CLEANUP_FREE = offer(&b, "", false, &size);
	assert_true(size > 0);
	char *same CLEANUP_FREE = offer(&b, first, true, &size);
	assert_int_equal(size, 0);
	assert_string_equal(same, first);
	char *vm CLEANUP_FREE = fixture_create(b.fixture, "VM", "name_label", "one", NULL);
	char *next CLEANUP_FREE = offer(&b, first, false, &size);
	assert_true(size > 0);
	assert_string_not_equal(next, first);
	handout_free(b.handout);
}

static void a_young_copy_is_shared_unless_it_must_be_new(void **state)
{
	struct bench b;
	int64_t size;

	bench_open(&b, state, LONG_USEC);
	char *first CLEANUP_FREE = offer(&b, "", false, &size);
	char *vm CLEANUP_FREE = fixture_create(b.fixture, "VM", "name_label", "one", NULL);
	char *shared CLEANUP_FREE = offer(&b, "", false, &size);
	assert_string_equal(shared, first);
	char *now CLEANUP_FREE = offer(&b, "", true, &size);
	assert_string_not_equal(now, first);
	handout_free(b.handout);
}

static void a_copy_that_is_read_is_kept_and_others_go(void **state)
{
	struct bench b;
	struct value *piece = NULL;
	int64_t size;

	bench_open(&b, state, 0);
	char *slow CLEANUP_FREE = offer(&b, "", false, &size);
	char *idle CLEANUP_FREE = NULL;
	for (int i = 0; i < 6; i++) {
		char *vm CLEANUP_FREE = fixture_create(b.fixture, "VM", "name_label", "x", NULL);
		char *id CLEANUP_FREE = offer(&b, "", false, &size);
		if (!idle)
			idle = TAKE_PTR(id);
		check_ok(&b.fixture->fault,
			handout_read(b.handout, slow, 0, &piece, &b.fixture->fault));
		piece = value_free(piece);
	}
	check_fault(&b.fixture->fault, "FERRY_COPY_GONE",
		handout_read(b.handout, idle, 0, &piece, &b.fixture->fault));
	check_fault(&b.fixture->fault, "INTERNAL_ERROR",
		handout_read(b.handout, slow, -1, &piece, &b.fixture->fault));
	check_fault(&b.fixture->fault, "INTERNAL_ERROR",
		handout_read(b.handout, slow, INT64_MAX, &piece, &b.fixture->fault));
	handout_free(b.handout);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			a_copy_is_a_database_with_all_of_it, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(
			nothing_new_is_no_copy, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(a_young_copy_is_shared_unless_it_must_be_new,
			fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(
			a_copy_that_is_read_is_kept_and_others_go, fixture_setup, fixture_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
