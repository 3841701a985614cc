/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/check.h"

#include "agent/migrate/migration.h"
#include "base/alloc.h"
#include "base/uuid.h"

#include <errno.h>
#include <unistd.h>

struct world {
	char dir[64];
	struct storage storage;
	struct supervisor_params params;
	struct migration *m;
	struct fault fault;
};

static void open_row(struct world *w, enum migration_role role, enum migration_state state)
{
	struct migration_row row = {
		.uuid = uuid_new(), .role = role, .state = state, .document = value_new_struct()};

	check_ok(&w->fault, migration_insert(w->storage.agent, &row, &w->fault));
	w->m = migration_new(&w->params, &row);
	migration_row_clear(&row);
}

static int set_up(void **state)
{
	struct world *w = xcalloc(1, sizeof(*w));

	strcpy(w->dir, "/tmp/ferry-migration.XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	char *pool CLEANUP_FREE = xasprintf("%s/pool.db", w->dir);
	char *agent CLEANUP_FREE = xasprintf("%s/agent.db", w->dir);
	check_ok(&w->fault, pool_db_open(pool, &w->storage.pool, &w->fault));
	check_ok(&w->fault, agent_db_open(agent, &w->storage.agent, &w->fault));
	w->params.storage = &w->storage;
	*state = w;
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;

	migration_unref(w->m);
	agent_db_close(w->storage.agent);
	pool_db_close(w->storage.pool);
	char *command CLEANUP_FREE = xasprintf("rm -r '%s'", w->dir);
	assert_int_equal(system(command), 0);
	fault_clear(&w->fault);
	free(w);
	return 0;
}

static enum migration_state stored_state(struct world *w)
{
	struct migration_row row = {0};

	check_ok(&w->fault, migration_load(w->storage.agent, w->m->uuid, &row, &w->fault));
	enum migration_state state = row.state;
	migration_row_clear(&row);
	return state;
}

static void a_state_is_stored_with_its_document(void **state)
{
	struct world *w = *state;
	struct migration_row row = {0};

	open_row(w, ROLE_SENDER, STATE_NEW);
	migration_set(w->m, "key", value_new_string("value"));
	check_ok(&w->fault, migration_post(w->m, EVENT_STARTED, &w->fault));
	check_ok(&w->fault, migration_load(w->storage.agent, w->m->uuid, &row, &w->fault));
	assert_int_equal(row.state, STATE_PREPARING);
	assert_string_equal(value_find_string(row.document, "key", ""), "value");
	migration_row_clear(&row);
}

static void an_event_without_a_row_changes_nothing(void **state)
{
	struct world *w = *state;

	open_row(w, ROLE_SENDER, STATE_COPYING);
	assert_int_equal(migration_post(w->m, EVENT_COMMITTED, &w->fault), -EINVAL);
	assert_int_equal(migration_state(w->m), STATE_COPYING);
	assert_int_equal(stored_state(w), STATE_COPYING);
}

static void a_cancel_in_the_last_moment_stops_the_commit(void **state)
{
	struct world *w = *state;

	open_row(w, ROLE_SENDER, STATE_SWITCHING);
	assert_true(migration_request_cancel(w->m, "operator"));
	assert_int_equal(migration_post(w->m, EVENT_SEALED, &w->fault), -ECANCELED);
	check_ok(&w->fault, migration_post(w->m, EVENT_CANCEL, &w->fault));
	assert_int_equal(stored_state(w), STATE_ABORTING);
	char *who CLEANUP_FREE = migration_get_string(w->m, "cancelled_by");
	char *where CLEANUP_FREE = migration_get_string(w->m, "cancelled_in");
	assert_string_equal(who, "operator");
	assert_string_equal(where, "SWITCHING");
}

static void a_cancel_after_the_commit_was_asked_is_refused(void **state)
{
	struct world *w = *state;

	open_row(w, ROLE_SENDER, STATE_COMMITTING);
	assert_false(migration_request_cancel(w->m, "operator"));
	assert_false(cancel_is_requested(w->m->cancel));
	assert_false(migration_cancel_requested(w->m));
}

static void a_state_that_cannot_be_stored_is_not_entered(void **state)
{
	struct world *w = *state;

	open_row(w, ROLE_SENDER, STATE_NEW);
	check_ok(&w->fault, migration_forget(w->storage.agent, w->m->uuid, &w->fault));
	assert_true(migration_post(w->m, EVENT_STARTED, &w->fault) < 0);
	assert_int_equal(migration_state(w->m), STATE_NEW);
}

/* kill -9 after the answer to the cancel, before or in ABORTING. */
static void a_cancel_that_was_accepted_survives_a_crash(void **state)
{
	struct world *w = *state;
	struct migration_row row = {0};

	open_row(w, ROLE_SENDER, STATE_COPYING);
	assert_true(migration_request_cancel(w->m, "operator"));
	for (int i = 0; i < 2; i++) {
		char *uuid CLEANUP_FREE = xstrdup(w->m->uuid);
		w->m = migration_unref(w->m);
		check_ok(&w->fault, migration_load(w->storage.agent, uuid, &row, &w->fault));
		w->m = migration_new(&w->params, &row);
		migration_row_clear(&row);
		assert_true(migration_cancel_requested(w->m));
		assert_true(cancel_is_requested(w->m->cancel));
		if (i == 0)
			check_ok(&w->fault, migration_post(w->m, EVENT_CANCEL, &w->fault));
	}
	assert_int_equal(migration_state(w->m), STATE_ABORTING);
}

struct canceller {
	struct migration *m;
	bool accepted;
};

static void *cancel_now(void *arg)
{
	struct canceller *canceller = arg;

	canceller->accepted = migration_request_cancel(canceller->m, "thread");
	return NULL;
}

/* Whatever the order, the answer to the cancel is what happens. */
static void the_answer_to_a_racing_cancel_is_true(void **state)
{
	struct world *w = *state;

	for (int i = 0; i < 50; i++) {
		pthread_t thread;
		w->m = migration_unref(w->m);
		open_row(w, ROLE_SENDER, STATE_SWITCHING);
		struct canceller canceller = {.m = w->m};
		pthread_create(&thread, NULL, cancel_now, &canceller);
		int r = migration_post(w->m, EVENT_SEALED, &w->fault);
		pthread_join(thread, NULL);
		assert_int_equal(r, canceller.accepted ? -ECANCELED : 0);
		assert_int_equal(
			stored_state(w), canceller.accepted ? STATE_SWITCHING : STATE_COMMITTING);
	}
}

static void only_one_operation_enters(void **state)
{
	struct world *w = *state;

	open_row(w, ROLE_RECEIVER, STATE_RECEIVING);
	check_ok(&w->fault, migration_enter(w->m, 0, &w->fault));
	assert_int_equal(migration_enter(w->m, 0, &w->fault), -ETIMEDOUT);
	migration_leave(w->m);
	check_ok(&w->fault, migration_enter(w->m, 0, &w->fault));
	migration_leave(w->m);
}

static void the_first_error_is_kept(void **state)
{
	struct world *w = *state;
	struct fault error CLEANUP_FAULT = FAULT_INIT;

	open_row(w, ROLE_SENDER, STATE_COPYING);
	fault_set(&error, -EIO, "FIRST", "a", "b", NULL);
	migration_set_error(w->m, &error);
	fault_set(&error, -EIO, "SECOND", NULL);
	migration_set_error(w->m, &error);
	migration_get_error(w->m, &error);
	assert_string_equal(error.code, "FIRST");
	assert_int_equal(error.n_params, 2);
	assert_string_equal(error.params[1], "b");
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		CASE(a_state_is_stored_with_its_document),
		CASE(an_event_without_a_row_changes_nothing),
		CASE(a_cancel_in_the_last_moment_stops_the_commit),
		CASE(a_cancel_after_the_commit_was_asked_is_refused),
		CASE(a_state_that_cannot_be_stored_is_not_entered),
		CASE(a_cancel_that_was_accepted_survives_a_crash),
		CASE(the_answer_to_a_racing_cancel_is_true),
		CASE(only_one_operation_enters),
		CASE(the_first_error_is_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
