/* SPDX-License-Identifier: Apache-2.0 */
/* A folder that is removed afterwards, with a pool.db in it, for tests of the stores. */
#ifndef FERRY_TESTS_LIB_POOL_FIXTURE_H
#define FERRY_TESTS_LIB_POOL_FIXTURE_H

#include "tests/lib/check.h"

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/value.h"
#include "schema/pool_db.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct fixture {
	char folder[64];
	char path[96]; /* of the database */
	struct pool_db *pool;
	struct fault fault;
};

static inline int fixture_folder_setup(void **state)
{
	struct fixture *fixture = xcalloc(1, sizeof(*fixture));

	strcpy(fixture->folder, "/tmp/ferry-test-XXXXXX");
	if (!mkdtemp(fixture->folder))
		return -1;
	snprintf(fixture->path, sizeof(fixture->path), "%s/test.db", fixture->folder);
	*state = fixture;
	return 0;
}

static inline int fixture_pool_setup(void **state)
{
	if (fixture_folder_setup(state) < 0)
		return -1;
	struct fixture *fixture = *state;
	return pool_db_open(fixture->path, &fixture->pool, &fixture->fault);
}

static inline int fixture_teardown(void **state)
{
	static const char *const suffixes[] = {"", "-wal", "-shm", "-journal"};
	struct fixture *fixture = *state;
	char path[128];

	pool_db_close(fixture->pool);
	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
		snprintf(path, sizeof(path), "%s%s", fixture->path, suffixes[i]);
		unlink(path);
	}
	rmdir(fixture->folder);
	fault_clear(&fixture->fault);
	free(fixture);
	return 0;
}

static inline void fixture_reopen(struct fixture *fixture)
{
	fixture->pool = pool_db_close(fixture->pool);
	check_ok(&fixture->fault, pool_db_open(fixture->path, &fixture->pool, &fixture->fault));
}

/* An object with text fields, given as name, value, ..., NULL; the caller frees the ref. */
static inline char *fixture_create(struct fixture *fixture, const char *class, ...)
{
	struct value *fields CLEANUP_VALUE = value_new_struct();
	const char *name;
	char *ref = NULL;
	va_list args;

	va_start(args, class);
	while ((name = va_arg(args, const char *)))
		value_set_string(fields, name, va_arg(args, const char *));
	va_end(args);
	check_ok(&fixture->fault,
		object_create(fixture->pool, class, fields, &ref, &fixture->fault));
	return ref;
}

static inline struct value *fixture_get(
	struct fixture *fixture, const char *class, const char *ref, const char *field)
{
	struct value *value = NULL;

	check_ok(&fixture->fault,
		object_get_field(fixture->pool, class, ref, field, &value, &fixture->fault));
	return value;
}

static inline void fixture_set_string(struct fixture *fixture, const char *class, const char *ref,
	const char *field, const char *text)
{
	struct value *value CLEANUP_VALUE = value_new_string(text);

	check_ok(&fixture->fault,
		object_set_field(fixture->pool, class, ref, field, value, &fixture->fault));
}

#endif
