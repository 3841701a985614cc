/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/agent_fixture.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

static enum migration_state stored_state(struct agent_fixture *f, const char *uuid)
{
	struct migration_row row = {0};

	assert_int_equal(migration_load(f->agent, uuid, &row, &f->fault), 1);
	enum migration_state found = row.state;
	migration_row_clear(&row);
	return found;
}

static void move(struct agent_fixture *f, const char *uuid, enum migration_state from,
	enum migration_state to)
{
	check_ok(&f->fault, migration_move(f->agent, uuid, from, to, "go", NULL, &f->fault));
}

static void a_migration_is_read_back_as_it_was_stored(void **state)
{
	struct agent_fixture *f = *state;
	struct migration_row row = {.uuid = xstrdup("x"),
		.role = ROLE_RECEIVER,
		.state = STATE_ALLOCATING,
		.document = value_set_string(value_new_struct(), "peer", "https://\"b\""),
		.created = 1787277623};
	struct migration_row found = {0};

	check_ok(&f->fault, migration_insert(f->agent, &row, &f->fault));
	assert_int_equal(migration_insert(f->agent, &row, &f->fault), -EEXIST);
	agent_fixture_reopen(f);
	assert_int_equal(migration_load(f->agent, "x", &found, &f->fault), 1);
	assert_string_equal(found.uuid, "x");
	assert_int_equal(found.role, ROLE_RECEIVER);
	assert_int_equal(found.state, STATE_ALLOCATING);
	assert_true(value_equal(found.document, row.document));
	assert_int_equal(found.created, 1787277623);
	assert_int_equal(found.finished, 0);
	assert_int_equal(migration_load(f->agent, "y", &found, &f->fault), 0);
	migration_row_clear(&found);
	migration_row_clear(&row);
}

static void a_move_from_another_state_is_refused(void **state)
{
	struct agent_fixture *f = *state;
	struct value *moves CLEANUP_VALUE = NULL;

	move(f, "m", STATE_NEW, STATE_PREPARING);
	assert_int_equal(
		migration_move(f->agent, "m", STATE_NEW, STATE_COPYING, "go", NULL, &f->fault),
		-ESTALE);
	assert_non_null(strstr(f->fault.params[0], "PREPARING"));
	assert_int_equal(stored_state(f, "m"), STATE_PREPARING);
	assert_int_equal(
		migration_move(f->agent, "nobody", STATE_NEW, STATE_COPYING, "go", NULL, &f->fault),
		-ENOENT);
	check_ok(&f->fault, migration_moves(f->agent, "m", &moves, &f->fault));
	assert_int_equal(moves->array.n_items, 1);
	const struct value *line = moves->array.items[0];
	assert_string_equal(value_find_string(line, "from", ""), "NEW");
	assert_string_equal(value_find_string(line, "to", ""), "PREPARING");
	assert_string_equal(value_find_string(line, "event", ""), "go");
	assert_int_equal(value_find(line, "at")->type, VALUE_DATETIME);
}

static void a_move_stores_its_document_and_the_end_its_time(void **state)
{
	static const enum migration_state ends[] = {STATE_DONE, STATE_CANCELLED, STATE_FAILED};
	struct agent_fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
		char *uuid CLEANUP_FREE = xasprintf("e%zu", i);
		struct value *document CLEANUP_VALUE =
			value_set_int(value_new_struct(), "n", (int64_t)i);
		struct migration_row row = {0};
		agent_fixture_insert(f, uuid);
		move(f, uuid, STATE_NEW, STATE_ABORTING);
		check_ok(&f->fault, migration_move(f->agent, uuid, STATE_ABORTING, ends[i], "end",
					    document, &f->fault));
		assert_int_equal(migration_load(f->agent, uuid, &row, &f->fault), 1);
		assert_true(row.finished > 1600000000);
		assert_true(value_equal(row.document, document));
		migration_row_clear(&row);
	}
	struct migration_row *rows = NULL;
	size_t n = 0;
	check_ok(&f->fault, migration_list(f->agent, true, &rows, &n, &f->fault));
	assert_int_equal(n, 1);
	assert_string_equal(rows[0].uuid, "m");
	migration_row_clear(&rows[0]);
	free(rows);
	check_ok(&f->fault, migration_list(f->agent, false, &rows, &n, &f->fault));
	assert_int_equal(n, 4);
	assert_string_equal(rows[0].uuid, "e2");
	for (size_t i = 0; i < n; i++)
		migration_row_clear(&rows[i]);
	free(rows);
}

static void a_document_is_saved_without_a_move(void **state)
{
	struct agent_fixture *f = *state;
	struct value *document CLEANUP_VALUE = value_set_int(value_new_struct(), "n", 7);
	struct migration_row row = {0};

	check_ok(&f->fault, migration_save_document(f->agent, "m", document, &f->fault));
	assert_int_equal(migration_load(f->agent, "m", &row, &f->fault), 1);
	assert_true(value_equal(row.document, document));
	assert_int_equal(row.state, STATE_NEW);
	migration_row_clear(&row);
	assert_int_equal(migration_save_document(f->agent, "nobody", document, &f->fault), -ENOENT);
}

static void what_hangs_on_a_migration_goes_with_it(void **state)
{
	const struct extent extent = {0, 512};
	struct agent_fixture *f = *state;
	char digest[16] = "0123456789abcde";
	int64_t id = 0;

	check_ok(&f->fault, extent_log_add(f->agent, "m", 0, &extent, 1, &f->fault));
	check_ok(&f->fault, digest_store(f->agent, "m", 0, 0, digest, 16, &f->fault));
	check_ok(&f->fault, resource_record(f->agent, "m", "export", "e", NULL, &id, &f->fault));
	assert_int_equal(migration_forget(f->agent, "m", &f->fault), -EBUSY);
	assert_non_null(strstr(f->fault.params[0], "export e"));
	check_ok(&f->fault, resource_forget(f->agent, id, &f->fault));
	check_ok(&f->fault, migration_forget(f->agent, "m", &f->fault));
	check_ok(&f->fault, migration_forget(f->agent, "m", &f->fault));
	agent_fixture_insert(f, "m");
	assert_int_equal(digest_load(f->agent, "m", 0, 0, digest, 16, &f->fault), 0);
}

/* "0+8:5 16+4:5", in sectors, with the errno. */
static void assert_unreadable(struct agent_fixture *f, const char *expected)
{
	struct unreadable_row *rows CLEANUP_FREE = NULL;
	char text[128] = "";
	size_t n = 0;

	check_ok(&f->fault, unreadable_list(f->agent, "m", 1, &rows, &n, &f->fault));
	for (size_t i = 0; i < n; i++) {
		size_t at = strlen(text);
		snprintf(text + at, sizeof(text) - at, "%s%llu+%llu:%d", i ? " " : "",
			(unsigned long long)rows[i].extent.offset / 512,
			(unsigned long long)rows[i].extent.length / 512, rows[i].error);
	}
	assert_string_equal(text, expected);
}

static void what_is_unreadable_is_a_set(void **state)
{
	struct agent_fixture *f = *state;
	uint64_t bytes = 1;
#define ADD(offset, length, error)                                                                 \
	check_ok(                                                                                  \
		&f->fault, unreadable_add(f->agent, "m", 1,                                        \
				   (struct extent){(offset)*512, (length)*512}, error, &f->fault))

	check_ok(&f->fault, unreadable_total(f->agent, "m", &bytes, &f->fault));
	assert_int_equal(bytes, 0);
	ADD(8, 2, 5);
	ADD(12, 2, 5);
	ADD(10, 2, 5);
	ADD(20, 4, 5);
	assert_unreadable(f, "8+6:5 20+4:5");
	ADD(10, 1, 61);
	ADD(14, 1, 61);
	assert_unreadable(f, "8+2:5 10+1:61 11+3:5 14+1:61 20+4:5");
	ADD(9, 12, 5);
	assert_unreadable(f, "8+16:5");
	check_ok(&f->fault,
		unreadable_remove(f->agent, "m", 1, (struct extent){10 * 512, 2 * 512}, &f->fault));
	assert_unreadable(f, "8+2:5 12+12:5");
	agent_fixture_reopen(f);
	assert_unreadable(f, "8+2:5 12+12:5");
	check_ok(&f->fault, unreadable_total(f->agent, "m", &bytes, &f->fault));
	assert_int_equal(bytes, 14 * 512);
	check_ok(&f->fault,
		unreadable_remove(f->agent, "m", 1, (struct extent){0, 1 << 20}, &f->fault));
	assert_unreadable(f, "");
	check_fault(&f->fault, "INTERNAL_ERROR",
		unreadable_add(f->agent, "m", 1, (struct extent){1, 512}, 5, &f->fault));
}

static void digests_are_replaced_and_their_length_checked(void **state)
{
	struct agent_fixture *f = *state;
	unsigned char digests[64], found[64];

	memset(digests, 0xa5, sizeof(digests));
	assert_int_equal(digest_load(f->agent, "m", 1, 2, found, 64, &f->fault), 0);
	check_ok(&f->fault, digest_store(f->agent, "m", 1, 2, "x", 1, &f->fault));
	check_ok(&f->fault, digest_store(f->agent, "m", 1, 2, digests, 64, &f->fault));
	assert_int_equal(digest_load(f->agent, "m", 1, 2, found, 64, &f->fault), 1);
	assert_memory_equal(found, digests, 64);
	assert_int_equal(digest_load(f->agent, "m", 1, 3, found, 64, &f->fault), 0);
	assert_int_equal(digest_load(f->agent, "m", 0, 2, found, 64, &f->fault), 0);
	assert_int_equal(digest_load(f->agent, "m", 1, 2, found, 32, &f->fault), -EBADMSG);
}

/* "kind/name kind/name", newest first */
static void assert_resources(
	struct agent_fixture *f, const char *owner, const char *kind, const char *expected)
{
	struct buf text CLEANUP_BUF = BUF_INIT;
	struct resource_row *rows = NULL;
	size_t n = 0;

	check_ok(&f->fault, resource_list(f->agent, owner, kind, &rows, &n, &f->fault));
	for (size_t i = 0; i < n; i++) {
		buf_printf(&text, "%s%s/%s", i ? " " : "", rows[i].kind, rows[i].name);
		resource_row_clear(&rows[i]);
	}
	free(rows);
	char *found CLEANUP_FREE = buf_take_string(&text);
	assert_string_equal(found, expected);
}

static void resources_are_listed_in_the_order_of_removal(void **state)
{
	struct agent_fixture *f = *state;
	int64_t first = 0, again = 0;

	check_ok(&f->fault,
		resource_record(f->agent, "m", "vdi-file", "/a", NULL, &first, &f->fault));
	check_ok(&f->fault, resource_record(f->agent, "m", "tgtd", "t", NULL, NULL, &f->fault));
	check_ok(&f->fault, resource_record(f->agent, "", "vdi-file", "/b", NULL, NULL, &f->fault));
	assert_resources(f, NULL, NULL, "vdi-file//b tgtd/t vdi-file//a");
	assert_resources(f, "m", NULL, "tgtd/t vdi-file//a");
	assert_resources(f, "", NULL, "vdi-file//b");
	assert_resources(f, NULL, "vdi-file", "vdi-file//b vdi-file//a");
	check_ok(&f->fault,
		resource_record(f->agent, "m", "vdi-file", "/a", NULL, &again, &f->fault));
	assert_int_equal(again, first);
	assert_int_equal(
		resource_record(f->agent, "n", "vdi-file", "/a", NULL, &again, &f->fault), -EEXIST);
	check_ok(&f->fault, resource_give(f->agent, "vdi-file", "/a", "n", &f->fault));
	check_ok(&f->fault,
		resource_record(f->agent, "n", "vdi-file", "/a", NULL, &again, &f->fault));
	assert_int_equal(again, first);
	check_ok(&f->fault, resource_forget_name(f->agent, "vdi-file", "/a", &f->fault));
	check_ok(&f->fault, resource_forget_name(f->agent, "vdi-file", "/a", &f->fault));
	check_ok(&f->fault,
		resource_record(f->agent, "m", "vdi-file", "/a", NULL, &again, &f->fault));
	assert_true(again > first);
}

static void a_resource_keeps_its_detail_until_it_gets_another(void **state)
{
	struct agent_fixture *f = *state;
	struct value *detail CLEANUP_VALUE = value_set_int(value_new_struct(), "pid", 42);

	for (int i = 0; i < 3; i++) {
		struct resource_row *rows = NULL;
		size_t n = 0;
		check_ok(&f->fault, resource_record(f->agent, "m", "tgtd", "t",
					    i == 1 ? detail : NULL, NULL, &f->fault));
		check_ok(&f->fault, resource_list(f->agent, "m", NULL, &rows, &n, &f->fault));
		assert_int_equal(n, 1);
		if (i == 0)
			assert_null(rows[0].detail);
		else
			assert_true(value_equal(rows[0].detail, detail));
		resource_row_clear(&rows[0]);
		free(rows);
	}
}

/* --- Transactions and crashes ------------------------------------------------------------------
 */

static int record_and_fail(struct agent_db *agent, void *arg, struct fault *fault)
{
	(void)arg;
	int r = resource_record(agent, "m", "tgtd", "t", NULL, NULL, fault);
	return r < 0 ? r : -EIO;
}

static void a_transaction_that_fails_leaves_nothing(void **state)
{
	struct agent_fixture *f = *state;

	assert_int_equal(agent_db_transaction(f->agent, record_and_fail, NULL, &f->fault), -EIO);
	assert_resources(f, NULL, NULL, "");
}

static int write_and_die(struct agent_db *agent, void *arg, struct fault *fault)
{
	const struct extent extent = {0, 4096};

	(void)arg;
	if (migration_move(agent, "m", STATE_PREPARING, STATE_COPYING, "go", NULL, fault) == 0 &&
		extent_log_add(agent, "m", 0, &extent, 1, fault) == 0)
		kill(getpid(), SIGKILL);
	return 0;
}

/* The child commits one move, and is killed inside the transaction of the next. */
static void what_returned_survives_a_kill_and_what_did_not_is_gone(void **state)
{
	struct agent_fixture *f = *state;
	uint64_t bytes = 1;
	int status = 0;

	f->agent = agent_db_close(f->agent);
	pid_t child = fork();
	if (child == 0) {
		if (agent_db_open(f->folder.database, &f->agent, NULL) == 0 &&
			migration_move(
				f->agent, "m", STATE_NEW, STATE_PREPARING, "go", NULL, NULL) == 0)
			agent_db_transaction(f->agent, write_and_die, NULL, NULL);
		_exit(1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	agent_fixture_reopen(f);
	assert_int_equal(stored_state(f, "m"), STATE_PREPARING);
	check_ok(&f->fault, extent_log_total(f->agent, "m", 0, &bytes, NULL, &f->fault));
	assert_int_equal(bytes, 0);
	move(f, "m", STATE_PREPARING, STATE_COPYING);
}

#define test(name)                                                                                 \
	cmocka_unit_test_setup_teardown(name, agent_fixture_setup, agent_fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(a_migration_is_read_back_as_it_was_stored),
		test(a_move_from_another_state_is_refused),
		test(a_move_stores_its_document_and_the_end_its_time),
		test(a_document_is_saved_without_a_move),
		test(what_hangs_on_a_migration_goes_with_it),
		test(what_is_unreadable_is_a_set),
		test(digests_are_replaced_and_their_length_checked),
		test(resources_are_listed_in_the_order_of_removal),
		test(a_resource_keeps_its_detail_until_it_gets_another),
		test(a_transaction_that_fails_leaves_nothing),
		test(what_returned_survives_a_kill_and_what_did_not_is_gone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
