/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/check.h"

#include "base/alloc.h"
#include "base/base64.h"
#include "base/cleanup.h"

#include <errno.h>

static void the_examples_of_the_standard(void **state)
{
	static const char *const pairs[][2] = {{"", ""}, {"f", "Zg=="}, {"fo", "Zm8="},
		{"foo", "Zm9v"}, {"foob", "Zm9vYg=="}, {"fooba", "Zm9vYmE="},
		{"foobar", "Zm9vYmFy"}};

	(void)state;
	for (size_t i = 1; i < ARRAY_SIZE(pairs); i++) {
		struct buf text CLEANUP_BUF = BUF_INIT;
		struct buf bytes CLEANUP_BUF = BUF_INIT;
		base64_encode(pairs[i][0], strlen(pairs[i][0]), &text);
		assert_string_equal(text.data, pairs[i][1]);
		assert_int_equal(base64_decode(text.data, &bytes), 0);
		assert_string_equal(bytes.data, pairs[i][0]);
	}
}

static void every_byte_comes_back(void **state)
{
	unsigned char all[256];

	(void)state;
	for (size_t i = 0; i < sizeof(all); i++)
		all[i] = (unsigned char)i;
	for (size_t length = 0; length <= sizeof(all); length++) {
		struct buf text CLEANUP_BUF = BUF_INIT;
		struct buf bytes CLEANUP_BUF = BUF_INIT;
		base64_encode(all, length, &text);
		assert_int_equal(base64_decode(text.data ? text.data : "", &bytes), 0);
		assert_int_equal(bytes.length, length);
		assert_true(length == 0 || memcmp(bytes.data, all, length) == 0);
	}
}

static void what_is_not_in_form_is_refused(void **state)
{
	static const char *const texts[] = {"Z", "Zg",
		"Zg=", "Z===", "====", "Zg==Zg==", "Zh==", "Zm9", "Zm9v\n", "Zm*v", "Zm8=Zm9v",
		"=m9v", "Zm=v"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct buf bytes CLEANUP_BUF = BUF_INIT;
		assert_int_equal(base64_decode(texts[i], &bytes), -EBADMSG);
		assert_int_equal(bytes.length, 0);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_examples_of_the_standard),
		cmocka_unit_test(every_byte_comes_back),
		cmocka_unit_test(what_is_not_in_form_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
