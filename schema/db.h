/* SPDX-License-Identifier: Apache-2.0 */
/* A database: opening and versions, scoped transactions, statements with bound parameters. Nothing
 * above this header sees whether it is a SQLite file here (db_open) or one that another host serves
 * (schema/db_remote.h). What follows is of the file.
 *
 * One connection per database, guarded by one recursive mutex that a scope holds from db_begin to
 * db_end: a call made inside a scope, by the same thread, joins its transaction, and all other
 * threads wait. So a scope does no I/O but this database's. Everything may block on the disk. WAL,
 * synchronous=FULL: what db_end has committed survives a crash of the machine.
 *
 * Every failure is an INTERNAL_ERROR that names the file, the cause and what may be done. */
#ifndef FERRY_SCHEMA_DB_H
#define FERRY_SCHEMA_DB_H

#include "base/cleanup.h"
#include "base/fault.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct db;
struct db_query;

/* --- Opening --------------------------------------------------------------------------------- */

/* schema/<kind>_<version>_<what>.sql, embedded at build; versions run from 1 without a gap. */
struct db_migration {
	int version;
	const char *name;
	const char *sql;
};

struct db_kind {
	const char *name;       /* "pool" */
	int32_t application_id; /* tells a file of this kind from any other SQLite file */
	const struct db_migration *migrations;
	size_t n_migrations;
};

/* Called on the way into and out of an outermost scope; all may be NULL. */
struct db_hooks {
	/* Under the lock, when an outermost DB_WRITE has begun; may read. A failure undoes it. */
	int (*begun)(void *arg, struct fault *fault);
	/* Under the lock, before COMMIT; may write. A failure rolls back. */
	int (*committing)(void *arg, struct fault *fault);
	/* Under the lock, when all is decided. Returns whether to call notify. */
	bool (*ended)(void *arg, bool committed);
	/* Outside any lock. */
	void (*notify)(void *arg);
	void *arg;
};

/* Opens or makes the file (mode 0600) and runs the migrations that it lacks, each in a transaction
 * of its own. -EEXIST when its version is newer than the newest migration, -EBADMSG when it is
 * damaged or no database of this kind. */
int db_open(const char *path, const struct db_kind *kind, struct db **ret_db, struct fault *fault);
struct db *db_close(struct db *db); /* NULL is fine; no scope may be open */
void db_set_hooks(struct db *db, const struct db_hooks *hooks);
const char *db_path(const struct db *db);
/* Every reference of every row has its target; -EBADMSG with the table that has one without. */
int db_check_references(struct db *db, struct fault *fault);

/* --- Scopes ---------------------------------------------------------------------------------- */

enum db_mode { DB_READ, DB_WRITE };

struct db_scope {
	struct db *db;
	enum db_mode mode;
};

/* Takes the lock. The outermost scope begins the transaction (IMMEDIATE for DB_WRITE); a DB_WRITE
 * inside it is a savepoint, so that what failed leaves nothing even if the outer scope goes on. A
 * DB_WRITE inside a DB_READ is refused.
 * When this fails there is nothing to end. */
#define db_begin(db, mode, ret_scope, fault)                                                       \
	db_begin_at(db, mode, ret_scope, __FILE__, __LINE__, fault)
int db_begin_at(struct db *db, enum db_mode mode, struct db_scope *ret_scope, const char *file,
	int line, struct fault *fault);
/* result: of the work in the scope. Commits when it is 0 or more, rolls back when negative, and
 * returns it, or the failure of the commit. Leaves the lock. */
int db_end(struct db_scope *scope, int result, struct fault *fault);

/* Keeps writers out, of this program and of other hosts, until db_let_go: waits for the one that is
 * there. Not inside a scope. */
int db_hold(struct db *db, struct fault *fault);
void db_let_go(struct db *db);

/* --- Statements: only inside a scope -----------------------------------------------------------
 */

/* One value to bind. */
struct db_cell {
	enum { DB_NULL, DB_INT, DB_REAL, DB_TEXT } type;
	int64_t integer;
	double real;
	char *text; /* owned by whoever made the cell */
};

void db_cell_clear(struct db_cell *cell);

/* Prepares sql (cached by its text) and binds its parameters: types has a letter for each:
 * t const char * (NULL is NULL), i int64_t, f double, b const void * and size_t.
 * Types may be shorter than the parameters: the others are NULL until bound. */
int db_query(struct db *db, struct db_query **ret_query, struct fault *fault, const char *sql,
	const char *types, ...);
/* Starts it anew with other values. */
int db_rebind(struct db_query *query, struct fault *fault, const char *types, ...);
/* position counts from 1; the content is copied. */
int db_bind_cell(
	struct db_query *query, int position, const struct db_cell *cell, struct fault *fault);
/* It is needed soon: a database that another host serves runs it on the way to the next statement
 * that is waited for. The result comes by db_next. Optional; no statement may be started twice. */
int db_start(struct db_query *query, struct fault *fault);
/* 1: a row; 0: the end; negative. */
int db_next(struct db_query *query, struct fault *fault);
/* Runs it to its end; returns 0. */
int db_finish(struct db_query *query, struct fault *fault);
struct db_query *db_query_free(struct db_query *query);

/* db_query and db_finish in one. */
int db_run(struct db *db, struct fault *fault, const char *sql, const char *types, ...);
/* One int from the first row: 1 found, 0 no row. */
int db_read_int(struct db *db, int64_t *ret_value, struct fault *fault, const char *sql,
	const char *types, ...);
/* Rows that the last statement changed. */
int64_t db_changes(struct db *db);

/* Columns of the present row, from 0. Text and blobs live until the next step. */
int64_t db_column_int(struct db_query *query, int column);
double db_column_real(struct db_query *query, int column);
const char *db_column_text(struct db_query *query, int column); /* NULL for NULL */
const void *db_column_blob(struct db_query *query, int column, size_t *ret_length);

DEFINE_CLEANUP(struct db *, db_close)
#define CLEANUP_DB CLEANUP(cleanup_db_close)
DEFINE_CLEANUP(struct db_query *, db_query_free)
#define CLEANUP_QUERY CLEANUP(cleanup_db_query_free)

#endif
