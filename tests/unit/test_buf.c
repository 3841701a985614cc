/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/check.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/cleanup.h"

static void every_append_ends_with_a_nul(void **state)
{
	struct buf buf CLEANUP_BUF = BUF_INIT;

	(void)state;
	assert_null(buf.data);
	buf_append(&buf, NULL, 0);
	assert_string_equal(buf.data, "");
	buf_append_string(&buf, "ab");
	buf_append_char(&buf, 'c');
	buf_printf(&buf, "%d-%s", 42, "x");
	assert_string_equal(buf.data, "abc42-x");
	assert_int_equal(buf.length, strlen("abc42-x"));
}

static void bytes_with_nul_are_kept(void **state)
{
	struct buf buf CLEANUP_BUF = BUF_INIT;

	(void)state;
	buf_append(&buf, "a\0b", 3);
	buf_append_char(&buf, '\0');
	assert_int_equal(buf.length, 4);
	assert_memory_equal(buf.data, "a\0b\0", 5);
}

static void growth_keeps_what_was_there(void **state)
{
	struct buf buf CLEANUP_BUF = BUF_INIT;

	(void)state;
	for (unsigned i = 0; i < 100000; i++)
		buf_append_char(&buf, (char)('a' + i % 26));
	assert_int_equal(buf.length, 100000);
	assert_int_equal(strlen(buf.data), 100000);
	for (unsigned i = 0; i < 100000; i++)
		assert_int_equal(buf.data[i], 'a' + i % 26);
}

static void an_empty_buffer_gives_an_empty_string(void **state)
{
	struct buf buf CLEANUP_BUF = BUF_INIT;
	char *empty CLEANUP_FREE = buf_take_string(&buf);

	(void)state;
	assert_string_equal(empty, "");
}

static void taking_leaves_a_buffer_that_can_be_used_again(void **state)
{
	struct buf buf CLEANUP_BUF = BUF_INIT;

	(void)state;
	buf_append_string(&buf, "one");
	char *one CLEANUP_FREE = buf_take_string(&buf);
	assert_null(buf.data);
	assert_int_equal(buf.length, 0);
	buf_append_string(&buf, "two");
	assert_string_equal(one, "one");
	assert_string_equal(buf.data, "two");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_append_ends_with_a_nul),
		cmocka_unit_test(bytes_with_nul_are_kept),
		cmocka_unit_test(growth_keeps_what_was_there),
		cmocka_unit_test(an_empty_buffer_gives_an_empty_string),
		cmocka_unit_test(taking_leaves_a_buffer_that_can_be_used_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
