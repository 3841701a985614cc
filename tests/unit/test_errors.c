/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/check.h"

#include "base/alloc.h"
#include "cli/errors.h"

#include <errno.h>

static char *describe(void *arg, const char *class, const char *ref)
{
	(void)arg;
	return strcmp(ref, "OpaqueRef:known") == 0 ? xasprintf("the %s", class) : NULL;
}

static void check_text(const struct fault *fault, const char *expected)
{
	struct buf text CLEANUP_BUF = BUF_INIT;

	errors_explain(fault, describe, NULL, &text);
	assert_string_equal(text.data, expected);
}

static void the_sentence_names_the_object_and_the_code(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	(void)state;
	fault_set(&fault, -EIO, "VDI_NOT_IN_MAP", "OpaqueRef:known", NULL);
	check_text(&fault, "ferry: disk the VDI has no SR at the destination [VDI_NOT_IN_MAP]\n"
			   "       give --sr SR or --map VDI=SR\n");
	fault_set(&fault, -EIO, "VDI_NOT_IN_MAP", "OpaqueRef:gone", NULL);
	check_text(&fault, "ferry: disk OpaqueRef:gone has no SR at the destination "
			   "[VDI_NOT_IN_MAP]\n       give --sr SR or --map VDI=SR\n");
}

static void a_sentence_that_lacks_a_parameter_is_not_used(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	(void)state;
	fault_set(&fault, -EIO, "CANNOT_CONTACT_HOST", "h:1", "refused", NULL);
	check_text(&fault, "ferry: no answer from h:1: refused [CANNOT_CONTACT_HOST]\n"
			   "       check the address and that ferryd runs there\n");
	fault_set(&fault, -EIO, "CANNOT_CONTACT_HOST", "h:1", NULL);
	check_text(&fault, "ferry: no answer from h:1 [CANNOT_CONTACT_HOST]\n"
			   "       check that ferryd runs there\n");
	fault_set(&fault, -EIO, "CANNOT_CONTACT_HOST", NULL);
	check_text(&fault, "ferry: CANNOT_CONTACT_HOST\n");
}

static void texts_with_braces_are_not_filled_again(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	(void)state;
	fault_set(&fault, -EIO, "INTERNAL_ERROR", "{1} {9} %s", "second", NULL);
	check_text(&fault, "ferry: {1} {9} %s [INTERNAL_ERROR]\n");
	cli_fail(&fault, -EIO, "own {0} text");
	check_text(&fault, "ferry: own {0} text\n");
}

static void nothing_at_all_is_still_a_line(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	(void)state;
	check_text(&fault, "ferry: no error\n");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_sentence_names_the_object_and_the_code),
		cmocka_unit_test(a_sentence_that_lacks_a_parameter_is_not_used),
		cmocka_unit_test(texts_with_braces_are_not_filled_again),
		cmocka_unit_test(nothing_at_all_is_still_a_line),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
