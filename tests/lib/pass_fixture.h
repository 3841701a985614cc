/* SPDX-License-Identifier: Apache-2.0 */
/* What a pass needs beside copy_fixture.h: a guest that writes to the source, and a receiver that
 * compares by what its file holds. */
#ifndef FERRY_TESTS_LIB_PASS_FIXTURE_H
#define FERRY_TESTS_LIB_PASS_FIXTURE_H

#include "agent/copy/pass.h"
#include "tests/lib/copy_fixture.h"

struct pass_fixture {
	struct copy_fixture *copy;
	struct pass_params params;
	/* The receiver. What it does is set between rounds only. */
	uint64_t lie_from, lie_to; /* extents that begin here are said to differ ... */
	int n_lies;                /* ... so many times; -1: always */
	int compare_error;         /* what comparing fails with; 0: it does not */
	/* Called by each comparison, in the pass's thread; NULL: not. */
	void (*before_compare)(struct pass_fixture *f);
	size_t n_compares, n_compared;
	uint64_t last_offset; /* of the extent that was compared last */
};

int pass_fixture_setup(void **state);
int pass_fixture_teardown(void **state);

/* Source, empty log, LUN: equal, of that size. */
void pass_fixture_begin(struct pass_fixture *f, uint64_t size_bytes);
/* The guest writes, and the log has it. */
void pass_fixture_write(struct pass_fixture *f, uint64_t offset, uint64_t length, uint32_t seed);
/* The guest discards: a hole at the source. */
void pass_fixture_discard(struct pass_fixture *f, uint64_t offset, uint64_t length);
struct pass *pass_fixture_open(struct pass_fixture *f);
/* One round, which must succeed. */
struct pass_result pass_fixture_round(struct pass *pass);
/* The log is empty and the contents are equal. */
void pass_fixture_check(struct pass_fixture *f);

#endif
