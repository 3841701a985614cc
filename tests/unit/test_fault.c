/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/check.h"

#include "base/cleanup.h"
#include "base/fault.h"

#include <errno.h>

static void a_fault_keeps_code_and_parameters(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	(void)state;
	assert_int_equal(
		fault_set(&fault, -ENOENT, "HANDLE_INVALID", "VM", "OpaqueRef:x", NULL), -ENOENT);
	assert_true(fault_is(&fault, "HANDLE_INVALID"));
	assert_false(fault_is(&fault, "HANDLE"));
	assert_int_equal(fault.n_params, 2);
	char *text CLEANUP_FREE = fault_describe(&fault);
	assert_string_equal(text, "HANDLE_INVALID: VM, OpaqueRef:x");
}

static void a_second_fault_replaces_the_first(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	(void)state;
	fault_set(&fault, -EIO, "FIRST", "a", "b", "c", NULL);
	fault_set(&fault, -EIO, "SECOND", NULL);
	assert_true(fault_is(&fault, "SECOND"));
	assert_int_equal(fault.n_params, 0);
}

static void the_old_text_may_be_part_of_the_new(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	(void)state;
	fault_text(&fault, -EIO, "the cause");
	fault_set(&fault, -EIO, "VM_MIGRATE_FAILED", "uuid", fault.params[0], NULL);
	assert_string_equal(fault.params[1], "the cause");
	fault_text(&fault, -EIO, "sealing disk 0: %s", fault.params[1]);
	assert_string_equal(fault.params[0], "sealing disk 0: the cause");
	fault_set(&fault, -EIO, fault.code, "again", NULL);
	assert_true(fault_is(&fault, "INTERNAL_ERROR"));
}

static void an_errno_is_written_out(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	(void)state;
	assert_int_equal(fault_errno(&fault, -ENOSPC, "writing %s", "pool.db"), -ENOSPC);
	assert_true(fault_is(&fault, "INTERNAL_ERROR"));
	assert_string_equal(fault.params[0], "writing pool.db: No space left on device");
}

static void nobody_has_to_want_the_fault(void **state)
{
	struct fault src = FAULT_INIT;

	(void)state;
	assert_int_equal(fault_set(NULL, -EIO, "CODE", "x", NULL), -EIO);
	assert_int_equal(fault_errno(NULL, -EIO, "x"), -EIO);
	assert_int_equal(fault_text(NULL, -EIO, "x"), -EIO);
	fault_add_param(NULL, "x");
	fault_clear(NULL);
	fault_set(&src, -EIO, "CODE", NULL);
	fault_copy(NULL, &src);
	fault_move(NULL, &src);
	assert_null(src.code);
}

static void moving_empties_the_source_and_copying_does_not(void **state)
{
	struct fault a CLEANUP_FAULT = FAULT_INIT;
	struct fault b CLEANUP_FAULT = FAULT_INIT;
	struct fault c CLEANUP_FAULT = FAULT_INIT;

	(void)state;
	fault_set(&a, -EIO, "CODE", "p", NULL);
	fault_set(&b, -EIO, "OTHER", "q", NULL);
	fault_copy(&c, &a);
	assert_true(fault_is(&a, "CODE") && fault_is(&c, "CODE"));
	fault_move(&b, &a);
	assert_null(a.code);
	assert_int_equal(a.n_params, 0);
	assert_string_equal(b.params[0], "p");
	fault_copy(&b, &a);
	assert_null(b.code);
}

static void a_fault_survives_being_copied_to_itself(void **state)
{
	struct fault a CLEANUP_FAULT = FAULT_INIT;
	struct fault *same = &a;

	(void)state;
	fault_set(&a, -EIO, "CODE", "p", NULL);
	fault_copy(&a, same);
	fault_move(&a, same);
	assert_true(fault_is(&a, "CODE"));
	assert_string_equal(a.params[0], "p");
}

static void no_fault_describes_itself(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	char *text CLEANUP_FREE = fault_describe(&fault);

	(void)state;
	assert_string_equal(text, "no error");
	assert_false(fault_is(&fault, ""));
	fault_add_param(&fault, NULL);
	assert_string_equal(fault.params[0], "");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_fault_keeps_code_and_parameters),
		cmocka_unit_test(a_second_fault_replaces_the_first),
		cmocka_unit_test(the_old_text_may_be_part_of_the_new),
		cmocka_unit_test(an_errno_is_written_out),
		cmocka_unit_test(nobody_has_to_want_the_fault),
		cmocka_unit_test(moving_empties_the_source_and_copying_does_not),
		cmocka_unit_test(a_fault_survives_being_copied_to_itself),
		cmocka_unit_test(no_fault_describes_itself),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
