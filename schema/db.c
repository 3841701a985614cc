/* SPDX-License-Identifier: Apache-2.0 */
/* Scopes, whatever the back end. */
#include "schema/db.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "schema/db_private.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>

/* How long a writer waits for another that is not of this process. */
#define GATE_USEC (10 * USEC_PER_SEC)

void db_init(struct db *db, const struct db_backend *backend, const char *path)
{
	pthread_mutexattr_t attributes;

	db->backend = backend;
	db->path = xstrdup(path);
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&db->lock, &attributes);
	pthread_mutexattr_destroy(&attributes);
}

struct db *db_close(struct db *db)
{
	if (!db)
		return NULL;
	assert(db->depth == 0);
	db->backend->close(db);
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

int db_fault_undone(struct db *db, struct fault *fault)
{
	return fault_text(fault, -EIO,
		"database %s: the transaction begun at %s:%d was undone by a failure in it",
		db->path, db->began_file, db->began_line);
}

/* --- Beginning ---------------------------------------------------------------------------------
 */

/* Its address tells threads apart. */
static _Thread_local char me;

static bool is_inside(struct db *db)
{
	return atomic_load(&db->owner) == &me;
}

/* Before the lock, so that readers do not wait with the writer. */
static int pass_gate(struct db *db, enum db_mode mode, struct fault *fault)
{
	if (!db->gate || mode != DB_WRITE || is_inside(db))
		return 0;
	int r = db_gate_take(db->gate, clock_deadline(GATE_USEC));
	return r == 0 ? 0
		      : fault_text(fault, r,
				"database %s: another host of the pool held it for too long; try "
				"again",
				db->path);
}

static void leave_gate(struct db *db, enum db_mode mode, bool is_outermost)
{
	if (db->gate && mode == DB_WRITE && is_outermost)
		db_gate_release(db->gate);
}

int db_hold(struct db *db, struct fault *fault)
{
	return pass_gate(db, DB_WRITE, fault);
}

void db_let_go(struct db *db)
{
	leave_gate(db, DB_WRITE, true);
}

static int begin_inner(struct db *db, enum db_mode mode, struct fault *fault)
{
	char sql[40];

	if (mode == DB_READ)
		return 0;
	if (db->mode == DB_READ)
		return fault_text(fault, -EROFS,
			"database %s: a scope begun for reading at %s:%d writes", db->path,
			db->began_file, db->began_line);
	snprintf(sql, sizeof(sql), "SAVEPOINT scope%u", db->depth);
	return db->backend->exec(db, sql, fault);
}

static int begin_outermost(struct db *db, enum db_mode mode, struct fault *fault)
{
	int r = db->backend->begin(db, mode, fault);

	if (r < 0 || mode != DB_WRITE || !db->hooks.begun)
		return r;
	db->depth = 1; /* the hook reads */
	r = db->hooks.begun(db->hooks.arg, fault);
	db->depth = 0;
	if (r < 0)
		db->backend->rollback(db);
	return r;
}

int db_begin_at(struct db *db, enum db_mode mode, struct db_scope *ret_scope, const char *file,
	int line, struct fault *fault)
{
	int r = pass_gate(db, mode, fault);
	if (r < 0)
		return r;
	pthread_mutex_lock(&db->lock);
	bool is_outermost = db->depth == 0;
	if (is_outermost) {
		db->began_file = file;
		db->began_line = line;
		db->mode = mode;
	}
	r = is_outermost ? begin_outermost(db, mode, fault) : begin_inner(db, mode, fault);
	if (r < 0) {
		pthread_mutex_unlock(&db->lock);
		leave_gate(db, mode, is_outermost);
		return r;
	}
	if (db->depth++ == 0)
		atomic_store(&db->owner, &me);
	*ret_scope = (struct db_scope){.db = db, .mode = mode};
	return 0;
}

/* --- Ending ------------------------------------------------------------------------------------
 */

static int end_inner(struct db *db, enum db_mode mode, int result, struct fault *fault)
{
	char sql[80];

	/* When the transaction was undone, the savepoints are gone with it. */
	if (mode == DB_READ || db->backend->is_undone(db))
		return result;
	snprintf(sql, sizeof(sql),
		result < 0 ? "ROLLBACK TO scope%u; RELEASE scope%u" : "RELEASE scope%u",
		db->depth - 1, db->depth - 1);
	int r = db->backend->exec(db, sql, result < 0 ? NULL : fault);
	return result < 0 ? result : r < 0 ? r : result;
}

static int end_outermost(struct db *db, int result, struct fault *fault)
{
	int r = 0;

	if (result >= 0 && db->backend->is_undone(db))
		result = db_fault_undone(db, fault);
	if (result >= 0 && db->hooks.committing)
		r = db->hooks.committing(db->hooks.arg, fault);
	if (result >= 0 && r == 0)
		r = db->backend->commit(db, fault);
	if (r < 0)
		result = r;
	if (result < 0)
		db->backend->rollback(db);
	return result;
}

int db_end(struct db_scope *scope, int result, struct fault *fault)
{
	struct db *db = scope->db;
	struct db_hooks hooks = db->hooks;
	bool is_outermost = db->depth == 1;
	bool notify = false;

	assert(db->depth > 0);
	if (!is_outermost)
		result = end_inner(db, scope->mode, result, fault);
	else
		result = end_outermost(db, result, fault);
	if (is_outermost && hooks.ended)
		notify = hooks.ended(hooks.arg, result >= 0);
	if (--db->depth == 0)
		atomic_store(&db->owner, NULL);
	pthread_mutex_unlock(&db->lock);
	leave_gate(db, scope->mode, is_outermost);
	if (notify && hooks.notify)
		hooks.notify(hooks.arg);
	*scope = (struct db_scope){0};
	return result;
}
