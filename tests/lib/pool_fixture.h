/* SPDX-License-Identifier: Apache-2.0 */
/* A folder that is removed afterwards, with a pool.db in it, for tests of the stores. */
#ifndef FERRY_TESTS_LIB_POOL_FIXTURE_H
#define FERRY_TESTS_LIB_POOL_FIXTURE_H

#include "tests/lib/check.h"
#include "tests/lib/folder.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/value.h"
#include "schema/pool_db.h"

struct fixture {
	struct folder folder;
	struct pool_db *pool;
	struct fault fault;
};

static inline void fixture_reopen(struct fixture *fixture)
{
	fixture->pool = pool_db_close(fixture->pool);
	check_ok(&fixture->fault,
		pool_db_open(fixture->folder.database, &fixture->pool, &fixture->fault));
}

static inline int fixture_setup(void **state)
{
	struct fixture *fixture = xcalloc(1, sizeof(*fixture));

	*state = fixture;
	folder_make(&fixture->folder);
	fixture_reopen(fixture);
	return 0;
}

static inline int fixture_teardown(void **state)
{
	struct fixture *fixture = *state;

	pool_db_close(fixture->pool);
	folder_remove(&fixture->folder);
	fault_clear(&fixture->fault);
	free(fixture);
	return 0;
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
