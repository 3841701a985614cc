/* SPDX-License-Identifier: Apache-2.0 */
#include "schema/db.h"

#include "base/alloc.h"
#include "base/io.h"
#include "base/log.h"
#include "schema/db_private.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <string.h>

/* How long another program (a backup, a person with sqlite3) may hold the file. */
#define BUSY_TIMEOUT_MSEC 10000

int db_exec(struct db *db, const char *sql, struct fault *fault)
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

static int read_pragma(struct db *db, const char *sql, int64_t *ret_value, struct fault *fault)
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

static int check_kind(struct db *db, const struct db_kind *kind, int version, struct fault *fault)
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
			db->path, kind->name);
	if (version > (int)kind->n_migrations)
		return fault_text(fault, -EEXIST,
			"database %s: it was written by a newer ferryd (version %d; this program "
			"knows up to %zu): install that ferryd again; there is no way back",
			db->path, version, kind->n_migrations);
	return 0;
}

static int run_migration(struct db *db, const struct db_kind *kind,
	const struct db_migration *migration, struct fault *fault)
{
	char *marks CLEANUP_FREE = xasprintf("PRAGMA application_id=%d; PRAGMA user_version=%d",
		(int)kind->application_id, migration->version);

	int r = db_exec(db, "BEGIN IMMEDIATE", fault);
	if (r < 0)
		return r;
	r = db_exec(db, migration->sql, fault);
	if (r == 0)
		r = db_exec(db, marks, fault);
	if (r == 0)
		r = db_exec(db, "COMMIT", fault);
	if (r < 0 && !sqlite3_get_autocommit(db->handle))
		sqlite3_exec(db->handle, "ROLLBACK", NULL, NULL, NULL);
	if (r == 0)
		log_info("DB_MIGRATED", "path=%s migration=%s", db->path, migration->name);
	return r;
}

static int migrate(struct db *db, const struct db_kind *kind, struct fault *fault)
{
	int64_t version = 0;

	int r = read_pragma(db, "PRAGMA user_version", &version, fault);
	if (r == 0)
		r = check_kind(db, kind, (int)version, fault);
	for (size_t i = (size_t)version; r == 0 && i < kind->n_migrations; i++)
		r = run_migration(db, kind, &kind->migrations[i], fault);
	return r;
}

static int setup(struct db *db, const struct db_kind *kind, struct fault *fault)
{
	int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;

	if (sqlite3_open_v2(db->path, &db->handle, flags, NULL) != SQLITE_OK)
		return db->handle ? db_error(db, fault, "open")
				  : fault_text(fault, -ENOMEM, "database %s: no memory", db->path);
	sqlite3_busy_timeout(db->handle, BUSY_TIMEOUT_MSEC);
	int r = db_exec(db,
		"PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;"
		"PRAGMA journal_size_limit=67108864; PRAGMA trusted_schema=OFF",
		fault);
	return r < 0 ? r : migrate(db, kind, fault);
}

int db_open(const char *path, const struct db_kind *kind, struct db **ret_db, struct fault *fault)
{
	pthread_mutexattr_t attributes;

	int r = ensure_file(path, fault);
	if (r < 0)
		return r;
	struct db *db CLEANUP_DB = xcalloc(1, sizeof(*db));
	db->path = xstrdup(path);
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&db->lock, &attributes);
	pthread_mutexattr_destroy(&attributes);
	r = setup(db, kind, fault);
	if (r < 0)
		return r;
	*ret_db = TAKE_PTR(db);
	return 0;
}

struct db *db_close(struct db *db)
{
	if (!db)
		return NULL;
	assert(db->depth == 0);
	db_cache_drop(db);
	sqlite3_close(db->handle);
	pthread_mutex_destroy(&db->lock);
	free(db->path);
	free(db);
	return NULL;
}

void db_set_hooks(struct db *db, const struct db_hooks *hooks)
{
	SCOPE_LOCK(&db->lock);
	db->hooks = *hooks;
}

const char *db_path(const struct db *db)
{
	return db->path;
}

int db_check_references(struct db *db, struct fault *fault)
{
	struct db_query *query CLEANUP_QUERY = NULL;

	int r = db_query(db, &query, fault, "PRAGMA foreign_key_check", "");
	if (r == 0)
		r = db_next(query, fault);
	if (r <= 0)
		return r;
	return fault_text(fault, -EBADMSG,
		"database %s: row %lld of table %s refers to a row of %s that is not there",
		db->path, (long long)db_column_int(query, 1), db_column_text(query, 0),
		db_column_text(query, 2));
}

/* --- Scopes ---------------------------------------------------------------------------------- */

static int begin_locked(struct db *db, enum db_mode mode, struct fault *fault)
{
	char sql[40];

	if (db->depth == 0)
		return db_exec(db, mode == DB_WRITE ? "BEGIN IMMEDIATE" : "BEGIN", fault);
	if (mode == DB_READ)
		return 0;
	snprintf(sql, sizeof(sql), "SAVEPOINT scope%u", db->depth);
	return db_exec(db, sql, fault);
}

int db_begin_at(struct db *db, enum db_mode mode, struct db_scope *ret_scope, const char *file,
	int line, struct fault *fault)
{
	pthread_mutex_lock(&db->lock);
	int r = begin_locked(db, mode, fault);
	if (r < 0) {
		pthread_mutex_unlock(&db->lock);
		return r;
	}
	if (db->depth++ == 0) {
		db->began_file = file;
		db->began_line = line;
	}
	*ret_scope = (struct db_scope){.db = db, .mode = mode};
	return 0;
}

static int end_inner(struct db *db, enum db_mode mode, int result, struct fault *fault)
{
	char sql[80];

	/* When SQLite has rolled back by itself, the savepoints are gone with the transaction. */
	if (mode == DB_READ || sqlite3_get_autocommit(db->handle))
		return result;
	snprintf(sql, sizeof(sql),
		result < 0 ? "ROLLBACK TO scope%u; RELEASE scope%u" : "RELEASE scope%u",
		db->depth - 1, db->depth - 1);
	int r = db_exec(db, sql, result < 0 ? NULL : fault);
	return result < 0 ? result : r < 0 ? r : result;
}

static int end_outermost(struct db *db, int result, struct fault *fault)
{
	int r = 0;

	if (result >= 0 && sqlite3_get_autocommit(db->handle))
		result = fault_text(fault, -EIO,
			"database %s: the transaction begun at %s:%d was undone by a failure in it",
			db->path, db->began_file, db->began_line);
	if (result >= 0 && db->hooks.committing)
		r = db->hooks.committing(db->hooks.arg, fault);
	if (result >= 0 && r == 0)
		r = db_exec(db, "COMMIT", fault);
	if (r < 0)
		result = r;
	if (result < 0 && !sqlite3_get_autocommit(db->handle))
		sqlite3_exec(db->handle, "ROLLBACK", NULL, NULL, NULL);
	return result;
}

int db_end(struct db_scope *scope, int result, struct fault *fault)
{
	struct db *db = scope->db;
	struct db_hooks hooks = db->hooks;
	bool notify = false;

	assert(db->depth > 0);
	if (db->depth > 1)
		result = end_inner(db, scope->mode, result, fault);
	else
		result = end_outermost(db, result, fault);
	if (db->depth == 1 && hooks.ended)
		notify = hooks.ended(hooks.arg, result >= 0);
	db->depth--;
	pthread_mutex_unlock(&db->lock);
	if (notify && hooks.notify)
		hooks.notify(hooks.arg);
	*scope = (struct db_scope){0};
	return result;
}
