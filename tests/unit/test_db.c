/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/check.h"
#include "tests/lib/folder.h"

#include "base/alloc.h"
#include "schema/db.h"
#include "schema/pool_db.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <sys/wait.h>

static const struct db_migration migrations[] = {
	{1, "test_001_init.sql",
		"CREATE TABLE parent (id INTEGER PRIMARY KEY) STRICT;"
		"CREATE TABLE child (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parent (id) "
		"DEFERRABLE INITIALLY DEFERRED) STRICT;"},
	{2, "test_002_note.sql", "ALTER TABLE parent ADD COLUMN note TEXT NOT NULL DEFAULT 'x';"},
	{3, "test_003_broken.sql", "CREATE TABLE half (id INTEGER) STRICT; CREATE NONSENSE;"},
};

struct fixture {
	struct folder folder;
	struct db *db;
	struct fault fault;
};

static int open_version(struct fixture *f, size_t version)
{
	const struct db_kind kind = {.name = "test",
		.application_id = 0x1234,
		.migrations = migrations,
		.n_migrations = version};

	f->db = db_close(f->db);
	fault_clear(&f->fault);
	return db_open(f->folder.database, &kind, &f->db, &f->fault);
}

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	*state = f;
	folder_make(&f->folder);
	check_ok(&f->fault, open_version(f, 2));
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	db_close(f->db);
	folder_remove(&f->folder);
	fault_clear(&f->fault);
	free(f);
	return 0;
}

/* One statement in a transaction of its own. */
static int run(struct fixture *f, const char *sql)
{
	struct db_scope scope;

	fault_clear(&f->fault);
	int r = db_begin(f->db, DB_WRITE, &scope, &f->fault);
	return r < 0 ? r : db_end(&scope, db_run(f->db, &f->fault, sql, ""), &f->fault);
}

static int64_t read_int(struct fixture *f, const char *sql)
{
	struct db_scope scope;
	int64_t value = -1;

	check_ok(&f->fault, db_begin(f->db, DB_READ, &scope, &f->fault));
	int r = db_read_int(f->db, &value, &f->fault, sql, "");
	check_ok(&f->fault, db_end(&scope, r, &f->fault));
	return value;
}

/* What another program does to the file. */
static void run_outside(const char *path, const char *sql)
{
	sqlite3 *handle = NULL;

	assert_int_equal(sqlite3_open(path, &handle), SQLITE_OK);
	assert_int_equal(sqlite3_exec(handle, sql, NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(handle);
}

static void assert_text(struct fixture *f, const char *part)
{
	assert_non_null(f->fault.code);
	assert_string_equal(f->fault.code, "INTERNAL_ERROR");
	if (!strstr(f->fault.params[0], part))
		fail_msg("'%s' is not in: %s", part, f->fault.params[0]);
	if (!strstr(f->fault.params[0], f->folder.database))
		fail_msg("the path is not in: %s", f->fault.params[0]);
}

/* --- Opening and versions ----------------------------------------------------------------------
 */

static void a_fresh_file_is_private_and_durable(void **state)
{
	struct fixture *f = *state;
	struct stat status;

	assert_int_equal(stat(f->folder.database, &status), 0);
	assert_int_equal(status.st_mode & 0777, 0600);
	assert_int_equal(read_int(f, "PRAGMA user_version"), 2);
	assert_int_equal(read_int(f, "PRAGMA synchronous"), 2);
	assert_int_equal(read_int(f, "PRAGMA foreign_keys"), 1);
	assert_int_equal(read_int(f, "SELECT journal_mode = 'wal' FROM pragma_journal_mode"), 1);
}

static void only_the_missing_migrations_are_run(void **state)
{
	struct fixture *f = *state;

	f->db = db_close(f->db);
	unlink(f->folder.database);
	check_ok(&f->fault, open_version(f, 1));
	check_ok(&f->fault, run(f, "INSERT INTO parent (id) VALUES (7)"));
	check_ok(&f->fault, open_version(f, 2));
	check_ok(&f->fault, open_version(f, 2));
	assert_int_equal(read_int(f, "SELECT id FROM parent WHERE note = 'x'"), 7);
}

static void a_newer_database_is_refused(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(open_version(f, 1), -EEXIST);
	assert_text(f, "newer ferryd (version 2; this program knows up to 1)");
	assert_null(f->db);
}

static void a_migration_that_fails_leaves_the_version_before_it(void **state)
{
	struct fixture *f = *state;

	assert_true(open_version(f, 3) < 0);
	assert_text(f, "NONSENSE");
	check_ok(&f->fault, open_version(f, 2));
	assert_int_equal(read_int(f, "PRAGMA user_version"), 2);
	assert_int_equal(read_int(f, "SELECT count(*) FROM sqlite_schema WHERE name = 'half'"), 0);
}

static void a_file_that_is_no_database_is_refused(void **state)
{
	static const char text[] = "This is a letter, and it is long enough to be looked at. It is "
				   "no database, whatever its name says.";
	struct fixture *f = *state;

	f->db = db_close(f->db);
	int fd = open(f->folder.database, O_WRONLY | O_TRUNC);
	assert_int_equal(write(fd, text, sizeof(text)), sizeof(text));
	close(fd);
	assert_int_equal(open_version(f, 2), -EBADMSG);
	assert_text(f, "check the configured path");
}

static void the_database_of_another_program_is_refused(void **state)
{
	struct fixture *f = *state;

	f->db = db_close(f->db);
	unlink(f->folder.database);
	run_outside(f->folder.database, "CREATE TABLE letters (id INTEGER)");
	assert_int_equal(open_version(f, 2), -EBADMSG);
	assert_text(f, "another program's database");
}

static void a_folder_that_is_not_there_is_named(void **state)
{
	struct fixture *f = *state;

	f->db = db_close(f->db);
	unlink(f->folder.database);
	strcat(f->folder.database, "/none/x.db");
	assert_int_equal(open_version(f, 2), -ENOENT);
	assert_text(f, "No such file");
	*strstr(f->folder.database, "/none") = '\0';
}

/* --- Failures of the file ----------------------------------------------------------------------
 */

static void a_damaged_file_is_said_to_be_damaged(void **state)
{
	struct fixture *f = *state;
	unsigned char noise[4096];

	check_ok(&f->fault, run(f, "INSERT INTO parent (id, note) WITH RECURSIVE n(i) AS (SELECT 1 "
				   "UNION ALL SELECT i + 1 FROM n WHERE i < 2000) "
				   "SELECT i, hex(randomblob(50)) FROM n"));
	f->db = db_close(f->db);
	memset(noise, 0xff, sizeof(noise));
	int fd = open(f->folder.database, O_WRONLY);
	off_t size = lseek(fd, 0, SEEK_END);
	for (off_t at = 4096 * 3; at < size; at += 4096)
		assert_int_equal(pwrite(fd, noise, sizeof(noise), at), sizeof(noise));
	close(fd);
	int r = open_version(f, 2);
	if (r == 0)
		r = run(f, "UPDATE parent SET note = note || 'y'");
	assert_int_equal(r, -EBADMSG);
	assert_text(f, "damaged");
}

static void a_full_disk_undoes_all_and_says_so(void **state)
{
	struct fixture *f = *state;
	struct db_scope scope;

	check_ok(&f->fault, run(f, "PRAGMA max_page_count = 8"));
	check_ok(&f->fault, db_begin(f->db, DB_WRITE, &scope, &f->fault));
	check_ok(&f->fault, db_run(f->db, &f->fault, "INSERT INTO parent (id) VALUES (1)", ""));
	int r = db_run(f->db, &f->fault,
		"INSERT INTO parent (id, note) VALUES (2, hex(randomblob(100000)))", "");
	assert_int_equal(r, -ENOSPC);
	assert_text(f, "free space");
	assert_int_equal(db_end(&scope, r, &f->fault), -ENOSPC);
	assert_int_equal(read_int(f, "SELECT count(*) FROM parent"), 0);
}

/* SQLite may undo the whole transaction when a statement fails: nothing may then be written on its
 * own, nor the commit be said to have worked. */
static void work_after_an_undone_transaction_is_refused(void **state)
{
	struct fixture *f = *state;
	struct db_scope outer, inner;

	check_ok(&f->fault, db_begin(f->db, DB_WRITE, &outer, &f->fault));
	check_ok(&f->fault, db_run(f->db, &f->fault, "INSERT INTO parent (id) VALUES (1)", ""));
	check_ok(&f->fault, db_begin(f->db, DB_WRITE, &inner, &f->fault));
	assert_true(
		db_run(f->db, &f->fault, "INSERT OR ROLLBACK INTO parent (id) VALUES (1)", "") < 0);
	fault_clear(&f->fault);
	assert_true(db_run(f->db, &f->fault, "INSERT INTO parent (id) VALUES (2)", "") < 0);
	assert_text(f, "test_db.c");
	assert_int_equal(db_end(&inner, 0, &f->fault), 0);
	assert_int_equal(db_end(&outer, 0, &f->fault), -EIO);
	assert_text(f, "undone");
	assert_int_equal(read_int(f, "SELECT count(*) FROM parent"), 0);
}

/* As a user that may read but not write. Returns what open_version or the write says. */
static int write_as_nobody(struct fixture *f)
{
	if (geteuid() == 0 && (setegid(65534) < 0 || seteuid(65534) < 0))
		return 0;
	int r = open_version(f, 2);
	return r < 0 ? r : run(f, "INSERT INTO parent (id) VALUES (1)");
}

static void a_file_that_cannot_be_written_tells_whom_to_ask(void **state)
{
	struct fixture *f = *state;
	int status = 0;

	f->db = db_close(f->db);
	assert_int_equal(chmod(f->folder.database, 0444), 0);
	assert_int_equal(chmod(f->folder.path, 0555), 0);
	pid_t child = fork();
	if (child == 0) {
		int r = write_as_nobody(f);
		bool is_told = f->fault.code && strstr(f->fault.params[0], "who owns");
		_exit(r < 0 && is_told ? 0 : 1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(chmod(f->folder.path, 0755), 0);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* --- References ------------------------------------------------------------------------------ */

static void a_reference_to_nothing_is_not_committed(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(run(f, "INSERT INTO child (id, parent) VALUES (1, 99)"), -EEXIST);
	assert_text(f, "FOREIGN KEY");
	assert_int_equal(read_int(f, "SELECT count(*) FROM child"), 0);
}

static void a_reference_broken_from_outside_is_found(void **state)
{
	struct fixture *f = *state;
	struct db_scope scope;

	check_ok(&f->fault, db_begin(f->db, DB_READ, &scope, &f->fault));
	check_ok(&f->fault, db_end(&scope, db_check_references(f->db, &f->fault), &f->fault));
	run_outside(f->folder.database, "INSERT INTO child (id, parent) VALUES (5, 99)");
	check_ok(&f->fault, db_begin(f->db, DB_READ, &scope, &f->fault));
	int r = db_end(&scope, db_check_references(f->db, &f->fault), &f->fault);
	assert_int_equal(r, -EBADMSG);
	assert_text(f, "row 5 of table child");
}

/* --- Tables from the class list ----------------------------------------------------------------
 */

static void a_field_that_the_list_gained_gets_its_default(void **state)
{
	struct fixture *f = *state;
	struct pool_db *pool = NULL;
	char *ref CLEANUP_FREE = NULL;
	char *unknown CLEANUP_FREE = NULL;
	int64_t version = -1;

	f->db = db_close(f->db);
	unlink(f->folder.database);
	check_ok(&f->fault, pool_db_open(f->folder.database, &pool, &f->fault));
	check_ok(&f->fault, object_create(pool, "VM", NULL, &ref, &f->fault));
	pool_db_close(pool);
	run_outside(f->folder.database, "ALTER TABLE VM DROP COLUMN unknown_fields;"
					"ALTER TABLE VM DROP COLUMN VCPUs_max;"
					"ALTER TABLE VM DROP COLUMN platform;"
					"ALTER TABLE VM ADD COLUMN lost TEXT NOT NULL DEFAULT ''");
	check_ok(&f->fault, pool_db_open(f->folder.database, &pool, &f->fault));
	check_ok(&f->fault, object_get_int(pool, "VM", ref, "VCPUs_max", &version, &f->fault));
	assert_int_equal(version, 1);
	check_ok(&f->fault, object_map_add(pool, "VM", ref, "platform", "k", "v", &f->fault));
	check_ok(&f->fault, object_get_unknown(pool, "VM", ref, &unknown, &f->fault));
	assert_null(unknown);
	check_ok(&f->fault, object_set_unknown(pool, "VM", ref, "text", &f->fault));
	check_ok(&f->fault, object_get_unknown(pool, "VM", ref, &unknown, &f->fault));
	assert_string_equal(unknown, "text");
	check_ok(&f->fault, object_create(pool, "VM", NULL, NULL, &f->fault));
	pool_db_close(pool);
	run_outside(f->folder.database, "ALTER TABLE VM DROP COLUMN VCPUs_max;"
					"ALTER TABLE VM ADD COLUMN VCPUs_max TEXT");
	pool = NULL;
	assert_int_equal(pool_db_open(f->folder.database, &pool, &f->fault), -EBADMSG);
	assert_text(f, "VM.VCPUs_max is TEXT there and INTEGER in this program");
}

/* --- Scopes and statements ---------------------------------------------------------------------
 */

static void an_inner_failure_undoes_only_the_inner_work(void **state)
{
	struct fixture *f = *state;
	struct db_scope outer, inner;

	check_ok(&f->fault, db_begin(f->db, DB_WRITE, &outer, &f->fault));
	check_ok(&f->fault, db_run(f->db, &f->fault, "INSERT INTO parent (id) VALUES (1)", ""));
	check_ok(&f->fault, db_begin(f->db, DB_WRITE, &inner, &f->fault));
	check_ok(&f->fault, db_run(f->db, &f->fault, "INSERT INTO parent (id) VALUES (2)", ""));
	assert_int_equal(db_end(&inner, -EINVAL, &f->fault), -EINVAL);
	check_ok(&f->fault, db_begin(f->db, DB_WRITE, &inner, &f->fault));
	check_ok(&f->fault, db_run(f->db, &f->fault, "INSERT INTO parent (id) VALUES (3)", ""));
	assert_int_equal(db_end(&inner, 7, &f->fault), 7);
	assert_int_equal(db_end(&outer, 0, &f->fault), 0);
	assert_int_equal(read_int(f, "SELECT sum(id) FROM parent"), 4);
}

/* The same text twice at once, and more texts than the cache has places. */
static void statements_nest_and_outlive_the_cache(void **state)
{
	struct fixture *f = *state;
	struct db_scope scope;
	int64_t sum = 0;

	check_ok(&f->fault, run(f, "INSERT INTO parent (id) VALUES (1), (2), (3)"));
	check_ok(&f->fault, db_begin(f->db, DB_READ, &scope, &f->fault));
	for (int i = 0; i < 2000; i++) {
		char *sql CLEANUP_FREE = xasprintf("SELECT %d", i);
		int64_t value = -1;
		assert_int_equal(db_read_int(f->db, &value, &f->fault, sql, ""), 1);
		assert_int_equal(value, i);
	}
	struct db_query *outer = NULL;
	check_ok(&f->fault, db_query(f->db, &outer, &f->fault, "SELECT id FROM parent", ""));
	while (db_next(outer, &f->fault) > 0) {
		struct db_query *inner CLEANUP_QUERY = NULL;
		check_ok(
			&f->fault, db_query(f->db, &inner, &f->fault, "SELECT id FROM parent", ""));
		while (db_next(inner, &f->fault) > 0)
			sum += db_column_int(outer, 0) * db_column_int(inner, 0);
	}
	db_query_free(outer);
	assert_int_equal(db_end(&scope, 0, &f->fault), 0);
	assert_int_equal(sum, 36);
}

static void *add_rows(void *arg)
{
	struct fixture *f = arg;

	for (int i = 0; i < 100; i++) {
		struct db_scope scope;
		int64_t n = 0;
		assert_int_equal(db_begin(f->db, DB_WRITE, &scope, NULL), 0);
		db_read_int(f->db, &n, NULL, "SELECT count(*) FROM parent", "");
		int r = db_run(f->db, NULL, "INSERT INTO parent (id) VALUES (?)", "i", n + 1);
		assert_int_equal(db_end(&scope, r, NULL), 0);
	}
	return NULL;
}

static void threads_wait_for_each_others_scopes(void **state)
{
	struct fixture *f = *state;
	pthread_t threads[4];

	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, add_rows, f), 0);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(read_int(f, "SELECT max(id) FROM parent"), 400);
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(a_fresh_file_is_private_and_durable),
		test(only_the_missing_migrations_are_run),
		test(a_newer_database_is_refused),
		test(a_migration_that_fails_leaves_the_version_before_it),
		test(a_file_that_is_no_database_is_refused),
		test(the_database_of_another_program_is_refused),
		test(a_folder_that_is_not_there_is_named),
		test(a_damaged_file_is_said_to_be_damaged),
		test(a_full_disk_undoes_all_and_says_so),
		test(work_after_an_undone_transaction_is_refused),
		test(a_file_that_cannot_be_written_tells_whom_to_ask),
		test(a_reference_to_nothing_is_not_committed),
		test(a_reference_broken_from_outside_is_found),
		test(a_field_that_the_list_gained_gets_its_default),
		test(an_inner_failure_undoes_only_the_inner_work),
		test(statements_nest_and_outlive_the_cache),
		test(threads_wait_for_each_others_scopes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
