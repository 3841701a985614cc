/* SPDX-License-Identifier: Apache-2.0 */
/* The back end that is a SQLite file: opening, versions, transactions. */
#include "schema/db_sqlite.h"
#include "base/alloc.h"
#include "base/io.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <string.h>

/* How long another program (a backup, a person with sqlite3) may hold the file. */
#define BUSY_TIMEOUT_MSEC 10000

static int execute(struct sqlite_db *db, const char *sql, struct fault *fault)
{
	if (sqlite3_exec(db->handle, sql, NULL, NULL, NULL) == SQLITE_OK)
		return 0;
	return db_error(db, fault, sql);
}

/* --- Opening --------------------------------------------------------------------------------- */

/* SQLite would make the file readable for all; passwords' hashes lie in it. Its journals take over
 * the mode. */
static int ensure_file(const char *path, struct fault *fault)
{
	int fd CLEANUP_CLOSE = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd < 0)
		return errno == EEXIST ? 0
				       : fault_errno(fault, -errno, "database %s: create", path);
	int r = io_sync_parent(path);
	return r < 0 ? fault_errno(fault, r, "database %s: create", path) : 0;
}

static int read_pragma(
	struct sqlite_db *db, const char *sql, int64_t *ret_value, struct fault *fault)
{
	sqlite3_stmt *statement = NULL;
	int r = 0;

	if (sqlite3_prepare_v2(db->handle, sql, -1, &statement, NULL) != SQLITE_OK)
		return db_error(db, fault, sql);
	if (sqlite3_step(statement) == SQLITE_ROW)
		*ret_value = sqlite3_column_int64(statement, 0);
	else
		r = db_error(db, fault, sql);
	sqlite3_finalize(statement);
	return r;
}

static int check_kind(
	struct sqlite_db *db, const struct db_kind *kind, int version, struct fault *fault)
{
	int64_t id = 0, tables = 0;

	int r = read_pragma(db, "PRAGMA application_id", &id, fault);
	if (r == 0)
		r = read_pragma(db, "SELECT count(*) FROM sqlite_schema", &tables, fault);
	if (r < 0)
		return r;
	if (id != kind->application_id && (id || version || tables))
		return fault_text(fault, -EBADMSG,
			"database %s: this is another program's database, not a %s database of "
			"ferryd: check the configured path",
			db->base.path, kind->name);
	if (version > (int)kind->n_migrations)
		return fault_text(fault, -EEXIST,
			"database %s: it was written by a newer ferryd (version %d; this program "
			"knows up to %zu): install that ferryd again; there is no way back",
			db->base.path, version, kind->n_migrations);
	return 0;
}

static int run_migration(struct sqlite_db *db, const struct db_kind *kind,
	const struct db_migration *migration, struct fault *fault)
{
	char *marks CLEANUP_FREE = xasprintf("PRAGMA application_id=%d; PRAGMA user_version=%d",
		(int)kind->application_id, migration->version);

	int r = execute(db, "BEGIN IMMEDIATE", fault);
	if (r < 0)
		return r;
	r = execute(db, migration->sql, fault);
	if (r == 0)
		r = execute(db, marks, fault);
	if (r == 0)
		r = execute(db, "COMMIT", fault);
	if (r < 0 && !sqlite3_get_autocommit(db->handle))
		sqlite3_exec(db->handle, "ROLLBACK", NULL, NULL, NULL);
	if (r == 0)
		log_info("DB_MIGRATED", "path=%s migration=%s", db->base.path, migration->name);
	return r;
}

static int migrate(struct sqlite_db *db, const struct db_kind *kind, struct fault *fault)
{
	int64_t version = 0;

	int r = read_pragma(db, "PRAGMA user_version", &version, fault);
	if (r == 0)
		r = check_kind(db, kind, (int)version, fault);
	for (size_t i = (size_t)version; r == 0 && i < kind->n_migrations; i++)
		r = run_migration(db, kind, &kind->migrations[i], fault);
	return r;
}

static int connect_file(struct sqlite_db *db, struct fault *fault)
{
	int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;

	if (sqlite3_open_v2(db->base.path, &db->handle, flags, NULL) != SQLITE_OK)
		return db->handle ? db_error(db, fault, "open")
				  : fault_text(fault, -ENOMEM, "database %s: no memory",
					    db->base.path);
	sqlite3_busy_timeout(db->handle, BUSY_TIMEOUT_MSEC);
	return execute(db,
		"PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;"
		"PRAGMA journal_size_limit=67108864; PRAGMA trusted_schema=OFF",
		fault);
}

/* --- Transactions ------------------------------------------------------------------------------
 */

static struct sqlite_db *of(struct db *base)
{
	return (struct sqlite_db *)base;
}

static int sqlite_begin(struct db *base, enum db_mode mode, struct fault *fault)
{
	int r = mode == DB_WRITE ? db_inject(of(base), "begin", fault) : 0;

	of(base)->changes_before = sqlite3_total_changes64(of(base)->handle);
	return r < 0 ? r : execute(of(base), mode == DB_WRITE ? "BEGIN IMMEDIATE" : "BEGIN", fault);
}

/* A transaction that changed nothing proves nothing. */
static void note_commit(struct sqlite_db *db)
{
	if (!db->is_unwritable || sqlite3_total_changes64(db->handle) == db->changes_before)
		return;
	db->is_unwritable = false;
	log_info("DB_WRITABLE", "path=%s", db->base.path);
}

static int sqlite_commit(struct db *base, struct fault *fault)
{
	int r = base->mode == DB_WRITE ? db_inject(of(base), "commit", fault) : 0;

	if (r == 0)
		r = execute(of(base), "COMMIT", fault);
	if (r == 0)
		note_commit(of(base));
	return r;
}

static bool sqlite_is_undone(struct db *base)
{
	return sqlite3_get_autocommit(of(base)->handle);
}

static void sqlite_rollback(struct db *base)
{
	if (!sqlite_is_undone(base))
		sqlite3_exec(of(base)->handle, "ROLLBACK", NULL, NULL, NULL);
}

static int sqlite_exec_sql(struct db *base, const char *sql, struct fault *fault)
{
	return execute(of(base), sql, fault);
}

static int64_t sqlite_changes_of(struct db *base)
{
	return sqlite3_changes64(of(base)->handle);
}

static void sqlite_close_file(struct db *base)
{
	sqlite_cache_drop(of(base));
	sqlite3_close(of(base)->handle);
}

static const struct db_backend sqlite_backend = {
	.begin = sqlite_begin,
	.commit = sqlite_commit,
	.rollback = sqlite_rollback,
	.is_undone = sqlite_is_undone,
	.exec = sqlite_exec_sql,
	.prepare = sqlite_prepare,
	.release = sqlite_release,
	.reset = sqlite_reset_query,
	.bind = sqlite_bind,
	.start = sqlite_start,
	.next = sqlite_next,
	.finish = sqlite_finish,
	.changes = sqlite_changes_of,
	.column_int = sqlite_column_int_of,
	.column_real = sqlite_column_real_of,
	.column_text = sqlite_column_text_of,
	.column_blob = sqlite_column_blob_of,
	.close = sqlite_close_file,
};

/* --- Life ---------------------------------------------------------------------------------------
 */

static int open_path(const char *path, struct db **ret_db, struct fault *fault)
{
	struct sqlite_db *sqlite = xcalloc(1, sizeof(*sqlite));
	struct db *db CLEANUP_DB = &sqlite->base;

	db_init(db, &sqlite_backend, path);
	int r = connect_file(sqlite, fault);
	if (r < 0)
		return r;
	*ret_db = TAKE_PTR(db);
	return 0;
}

int db_open(const char *path, const struct db_kind *kind, struct db **ret_db, struct fault *fault)
{
	struct db *db CLEANUP_DB = NULL;

	int r = ensure_file(path, fault);
	if (r == 0)
		r = open_path(path, &db, fault);
	if (r == 0)
		r = migrate(of(db), kind, fault);
	if (r < 0)
		return r;
	*ret_db = TAKE_PTR(db);
	return 0;
}

int db_sqlite_open_again(struct db *db, struct db **ret_db, struct fault *fault)
{
	return open_path(db->path, ret_db, fault);
}
