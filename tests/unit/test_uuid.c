/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/check.h"

#include "base/cleanup.h"
#include "base/uuid.h"

#include <stdlib.h>

static void fresh_uuids_are_valid_and_differ(void **state)
{
	char *previous CLEANUP_FREE = uuid_new();

	(void)state;
	for (int i = 0; i < 1000; i++) {
		char *uuid = uuid_new();
		assert_true(uuid_is_valid(uuid));
		assert_int_equal(uuid[14], '4'); /* version 4 */
		assert_non_null(strchr("89ab", uuid[19]));
		assert_string_not_equal(uuid, previous);
		free(previous);
		previous = uuid;
	}
}

static void what_is_no_uuid_is_refused(void **state)
{
	static const char *const bad[] = {
		"",
		"not a uuid",
		"123e4567-e89b-42d3-a456-42661417400",
		"123e4567-e89b-42d3-a456-4266141740000",
		"123E4567-E89B-42D3-A456-426614174000",
		"123e4567e89b-42d3-a456-4266141740000",
		"123e4567-e89b-42d3-a456_426614174000",
		"123e4567-e89b-42d3-a456-42661417400g",
		"--------------------------------------",
	};

	(void)state;
	assert_false(uuid_is_valid(NULL));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_false(uuid_is_valid(bad[i]));
	assert_true(uuid_is_valid("123e4567-e89b-42d3-a456-426614174000"));
}

static void refs_carry_the_prefix_and_are_not_null(void **state)
{
	char *ref CLEANUP_FREE = ref_new();

	(void)state;
	assert_int_equal(strncmp(ref, REF_PREFIX, strlen(REF_PREFIX)), 0);
	assert_true(uuid_is_valid(ref + strlen(REF_PREFIX)));
	assert_false(ref_is_null(ref));
	assert_true(ref_is_null(NULL));
	assert_true(ref_is_null(""));
	assert_true(ref_is_null(REF_NULL));
}

static void secrets_use_the_whole_alphabet_evenly(void **state)
{
	char *secret CLEANUP_FREE = secret_new(62000);
	unsigned seen[256] = {0};

	(void)state;
	assert_int_equal(strlen(secret), 62000);
	for (const char *c = secret; *c; c++)
		seen[(unsigned char)*c]++;
	unsigned letters = 0;
	for (size_t i = 0; i < ARRAY_SIZE(seen); i++) {
		if (!seen[i])
			continue;
		letters++;
		/* 1000 expected, standard deviation 32: ten of them are never seen. */
		assert_in_range(seen[i], 680, 1320);
	}
	assert_int_equal(letters, 62);
	char *none CLEANUP_FREE = secret_new(0);
	assert_string_equal(none, "");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(fresh_uuids_are_valid_and_differ),
		cmocka_unit_test(what_is_no_uuid_is_refused),
		cmocka_unit_test(refs_carry_the_prefix_and_are_not_null),
		cmocka_unit_test(secrets_use_the_whole_alphabet_evenly),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
