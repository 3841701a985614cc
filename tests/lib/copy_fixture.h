/* SPDX-License-Identifier: Apache-2.0 */
/* A source file, an agent.db with a migration and its extent log, and a LUN to copy to. */
#ifndef FERRY_TESTS_LIB_COPY_FIXTURE_H
#define FERRY_TESTS_LIB_COPY_FIXTURE_H

#include "agent/copy/copier.h"
#include "tests/lib/lun.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KIB    UINT64_C(1024)
#define MIB    (UINT64_C(1) << 20)
#define GIB    (UINT64_C(1) << 30)
#define M      "5d6f8c0e-6d0f-4f0e-9a55-0e7f6ad5e7a1"
#define SERIAL "m1-0-1"

struct copy_fixture {
	char *dir, *source, *db_path;
	struct agent_db *db;
	struct lun lun;
	bool has_lun;
	struct copy_progress progress;
	struct cancel *cancel;
	struct copy_params params;
};

int copy_fixture_setup(void **state);
int copy_fixture_teardown(void **state);

/* A sparse source of that size. */
void copy_fixture_source(struct copy_fixture *f, uint64_t size_bytes);
/* A source of that size, all of it in the log, and a fresh LUN for it. */
void copy_fixture_begin(struct copy_fixture *f, uint64_t size_bytes);

/* Bytes that look random, of which the seed decides. */
void copy_fixture_fill(const char *path, uint64_t offset, uint64_t length, uint32_t seed);
void copy_fixture_fill_zeros(const char *path, uint64_t offset, uint64_t length);

void copy_fixture_log_add(struct copy_fixture *f, const struct extent *extents, size_t n);
uint64_t copy_fixture_log_bytes(struct copy_fixture *f);

/* Source and target hold the same bytes. */
void copy_fixture_check_content(struct copy_fixture *f);
/* What must hold after a copy: the log is empty; content, digests and allocation are right. */
void copy_fixture_check(struct copy_fixture *f);
void copy_fixture_copy_and_check(struct copy_fixture *f);

#endif
