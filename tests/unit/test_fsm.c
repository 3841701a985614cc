/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/check.h"

#include "agent/migrate/fsm.h"
#include "base/buf.h"
#include "base/io.h"

#define STATES_PAGE FERRY_SOURCE_DIR "/docs/states.md"

static bool is_mentioned(enum migration_role role, enum migration_state state)
{
	for (size_t i = 0; i < fsm_n_rows; i++)
		if (fsm_rows[i].role == role &&
			(fsm_rows[i].from == state || fsm_rows[i].to == state))
			return true;
	return false;
}

/* Whether any way leads from `state` to `goal`; the depth is bounded, as a guest may be paused more
 * than once. */
static bool leads_to(enum migration_role role, enum migration_state state,
	enum migration_state goal, unsigned depth)
{
	if (state == goal)
		return true;
	for (size_t i = 0; depth && i < fsm_n_rows; i++)
		if (fsm_rows[i].role == role && fsm_rows[i].from == state &&
			leads_to(role, fsm_rows[i].to, goal, depth - 1))
			return true;
	return false;
}

static void each_pair_has_one_row(void **state)
{
	(void)state;
	for (size_t i = 0; i < fsm_n_rows; i++) {
		const struct fsm_row *row = &fsm_rows[i];
		assert_ptr_equal(fsm_find(row->role, row->from, row->event), row);
		assert_false(fsm_is_final(row->from));
		assert_non_null(migration_event_name(row->event));
	}
}

static void every_state_comes_to_an_end(void **state)
{
	(void)state;
	for (int role = ROLE_SENDER; role <= ROLE_RECEIVER; role++) {
		for (int s = 0; s < N_STATES; s++) {
			if (!is_mentioned(role, s) || fsm_is_final(s))
				continue;
			assert_true(leads_to(role, s, STATE_DONE, N_STATES) ||
				    leads_to(role, s, STATE_FAILED, N_STATES));
		}
	}
}

static void after_the_commit_there_is_no_way_back(void **state)
{
	(void)state;
	assert_false(leads_to(ROLE_SENDER, STATE_FINISHING, STATE_ABORTING, N_STATES));
	assert_false(leads_to(ROLE_RECEIVER, STATE_COMMITTED, STATE_ABORTING, N_STATES));
	assert_false(leads_to(ROLE_SENDER, STATE_ABORTING, STATE_DONE, N_STATES));
	assert_false(leads_to(ROLE_RECEIVER, STATE_ABORTING, STATE_DONE, N_STATES));
}

static void only_states_before_the_commit_can_be_cancelled(void **state)
{
	static const enum migration_state no[] = {STATE_COMMITTING, STATE_FINISHING,
		STATE_COMMITTED, STATE_DONE, STATE_FAILED, STATE_CANCELLED};
	static const enum migration_state sender[] = {STATE_NEW, STATE_PREPARING, STATE_COPYING,
		STATE_CONVERGING, STATE_SWITCHING, STATE_HANDOVER};
	static const enum migration_state receiver[] = {
		STATE_ALLOCATING, STATE_RECEIVING, STATE_SEALED};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(no); i++) {
		assert_false(fsm_is_cancellable(ROLE_SENDER, no[i]));
		assert_false(fsm_is_cancellable(ROLE_RECEIVER, no[i]));
	}
	for (size_t i = 0; i < ARRAY_SIZE(sender); i++)
		assert_true(fsm_is_cancellable(ROLE_SENDER, sender[i]));
	for (size_t i = 0; i < ARRAY_SIZE(receiver); i++)
		assert_true(fsm_is_cancellable(ROLE_RECEIVER, receiver[i]));
}

static void a_pair_without_a_row_is_refused(void **state)
{
	(void)state;
	assert_null(fsm_find(ROLE_SENDER, STATE_COMMITTING, EVENT_CANCEL));
	assert_null(fsm_find(ROLE_SENDER, STATE_COMMITTING, EVENT_FAILED));
	assert_null(fsm_find(ROLE_RECEIVER, STATE_RECEIVING, EVENT_COMMITTED));
	assert_null(fsm_find(ROLE_RECEIVER, STATE_SEALED, EVENT_ABANDONED));
	assert_null(fsm_find(ROLE_RECEIVER, STATE_NEW, EVENT_STARTED));
}

/* FERRY_UPDATE=1 writes the page instead. */
static void the_page_of_states_is_the_table(void **state)
{
	struct buf page CLEANUP_BUF = BUF_INIT;
	char *text = NULL;
	size_t length = 0;
	FILE *out = open_memstream(&text, &length);

	(void)state;
	fsm_print_markdown(out);
	fclose(out);
	if (getenv("FERRY_UPDATE"))
		assert_int_equal(io_replace_file(STATES_PAGE, text, length, 0644), 0);
	assert_int_equal(io_read_file(STATES_PAGE, 1 << 20, &page), 0);
	assert_string_equal(page.data, text);
	free(text);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_pair_has_one_row),
		cmocka_unit_test(every_state_comes_to_an_end),
		cmocka_unit_test(after_the_commit_there_is_no_way_back),
		cmocka_unit_test(only_states_before_the_commit_can_be_cancelled),
		cmocka_unit_test(a_pair_without_a_row_is_refused),
		cmocka_unit_test(the_page_of_states_is_the_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
