/* SPDX-License-Identifier: Apache-2.0 */
/* What every cmocka program of this project includes. */
#ifndef FERRY_TESTS_LIB_CHECK_H
#define FERRY_TESTS_LIB_CHECK_H

/* cmocka wants these before it, in this order. */
/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "base/fault.h"

#include <stdio.h>
#include <string.h>

/* The call must return 0; its fault is printed when it does not. */
#define check_ok(fault, expression)                                                                \
	do {                                                                                       \
		int check_r_ = (expression);                                                       \
		if (check_r_ < 0) {                                                                \
			char *text_ = fault_describe(fault);                                       \
			print_error("%s: %d (%s) %s\n", #expression, check_r_,                     \
				strerror(-check_r_), text_);                                       \
			free(text_);                                                               \
			fail();                                                                    \
		}                                                                                  \
	} while (0)

/* The call must fail with that XenAPI code. */
#define check_fault(fault, expected_code, expression)                                              \
	do {                                                                                       \
		int check_r_ = (expression);                                                       \
		assert_true(check_r_ < 0);                                                         \
		assert_non_null((fault)->code);                                                    \
		assert_string_equal((fault)->code, expected_code);                                 \
		fault_clear(fault);                                                                \
	} while (0)

#endif
