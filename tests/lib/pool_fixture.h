/* SPDX-License-Identifier: Apache-2.0 */
/* A folder that is removed afterwards, with a pool.db in it, for tests of the stores: opened here,
 * or as another host of the pool sees it, over a line that loses requests and answers. */
#ifndef FERRY_TESTS_LIB_POOL_FIXTURE_H
#define FERRY_TESTS_LIB_POOL_FIXTURE_H

#include "tests/lib/check.h"
#include "tests/lib/folder.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/value.h"
#include "schema/pool_db.h"

#include <errno.h>

struct fixture {
	struct folder folder;
	struct pool_db *pool;   /* under test */
	struct pool_db *server; /* that answers it; NULL: pool is the file itself */
	unsigned n_messages;
	struct fault fault;
};

static inline int fixture_lose(struct fault *fault)
{
	return fault_set(fault, -ECONNRESET, "CANNOT_CONTACT_HOST", "server", "lost", NULL);
}

/* Now and then a request or an answer is lost. */
static inline int fixture_carry(
	void *arg, const char *request, char **ret_answer, struct fault *fault)
{
	struct fixture *fixture = arg;
	unsigned n = fixture->n_messages++;
	char *answer CLEANUP_FREE = NULL;

	if (n % 16 == 5)
		return fixture_lose(fault);
	if (pool_db_answer(fixture->server, "member", request, &answer, fault) < 0)
		return -EREMOTEIO;
	if (n % 16 == 11)
		return fixture_lose(fault);
	*ret_answer = TAKE_PTR(answer);
	return 0;
}

static inline void fixture_reopen(struct fixture *fixture)
{
	bool is_remote = fixture->server != NULL;
	const struct db_transport transport = {.call = fixture_carry,
		.arg = fixture,
		.patience_usec = 60000000,
		.commit_patience_usec = 60000000};

	fixture->pool = pool_db_close(fixture->pool);
	fixture->server = pool_db_close(fixture->server);
	check_ok(&fixture->fault,
		pool_db_open(fixture->folder.database, &fixture->pool, &fixture->fault));
	if (!is_remote)
		return;
	fixture->server = fixture->pool;
	check_ok(&fixture->fault, pool_db_serve(fixture->server, &fixture->fault));
	fixture->pool = pool_db_open_remote(&transport);
}

static inline int fixture_setup(void **state)
{
	struct fixture *fixture = xcalloc(1, sizeof(*fixture));

	*state = fixture;
	folder_make(&fixture->folder);
	fixture_reopen(fixture);
	return 0;
}

static inline int fixture_setup_remote(void **state)
{
	fixture_setup(state);
	struct fixture *fixture = *state;

	fixture->server = TAKE_PTR(fixture->pool);
	fixture_reopen(fixture);
	return 0;
}

static inline int fixture_teardown(void **state)
{
	struct fixture *fixture = *state;

	pool_db_close(fixture->pool);
	pool_db_close(fixture->server);
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
