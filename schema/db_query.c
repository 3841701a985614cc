/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "schema/db_private.h"

#include <assert.h>
#include <errno.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <string.h>

void db_cell_clear(struct db_cell *cell)
{
	free(cell->text);
	*cell = (struct db_cell){0};
}

static uint64_t text_hash(const char *text)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a */

	for (; *text; text++)
		hash = (hash ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
	return hash ^ hash >> 32;
}

/* An idle place for the statement: the one that has it, or the one used least recently; NULL when
 * all are in use. */
static struct db_query *cache_place(struct db *db, uint64_t hash, const char *sql)
{
	struct db_query *set = db->cache[hash % CACHE_SETS];
	struct db_query *oldest = NULL;

	for (size_t i = 0; i < CACHE_WAYS; i++) {
		struct db_query *way = &set[i];
		if (way->in_use)
			continue;
		if (way->statement && way->hash == hash &&
			strcmp(sqlite3_sql(way->statement), sql) == 0)
			return way;
		if (!oldest || way->last_used < oldest->last_used)
			oldest = way;
	}
	if (!oldest)
		return NULL;
	sqlite3_finalize(oldest->statement);
	*oldest = (struct db_query){.db = db, .hash = hash, .is_cached = true};
	return oldest;
}

void db_cache_drop(struct db *db)
{
	for (size_t i = 0; i < CACHE_SETS; i++) {
		for (size_t j = 0; j < CACHE_WAYS; j++) {
			assert(!db->cache[i][j].in_use);
			sqlite3_finalize(db->cache[i][j].statement);
			db->cache[i][j] = (struct db_query){0};
		}
	}
}

struct db_query *db_query_free(struct db_query *query)
{
	if (!query)
		return NULL;
	if (!query->is_cached) {
		sqlite3_finalize(query->statement);
		free(query);
		return NULL;
	}
	sqlite3_reset(query->statement);
	sqlite3_clear_bindings(query->statement);
	query->in_use = false;
	return NULL;
}

static int prepare(struct db *db, const char *sql, struct db_query **ret_query, struct fault *fault)
{
	uint64_t hash = text_hash(sql);

	assert(db->depth > 0);
	/* Some failures (disk full, I/O error) make SQLite roll back by itself. What follows in the
	 * scope must not run outside a transaction. */
	if (sqlite3_get_autocommit(db->handle))
		return fault_text(fault, -EIO,
			"database %s: the transaction begun at %s:%d was undone by an earlier "
			"failure",
			db->path, db->began_file, db->began_line);
	struct db_query *query = cache_place(db, hash, sql);
	if (!query) {
		query = xcalloc(1, sizeof(*query));
		query->db = db;
	}
	query->in_use = true;
	query->last_used = ++db->uses;
	if (!query->statement && sqlite3_prepare_v3(db->handle, sql, -1, SQLITE_PREPARE_PERSISTENT,
					 &query->statement, NULL) != SQLITE_OK) {
		int r = db_error(db, fault, sql);
		db_query_free(query);
		return r;
	}
	*ret_query = query;
	return 0;
}

static int bind_one(struct db_query *query, int position, char type, va_list *args)
{
	sqlite3_stmt *statement = query->statement;
	const void *data;

	switch (type) {
	case 't':
		return sqlite3_bind_text(
			statement, position, va_arg(*args, const char *), -1, SQLITE_TRANSIENT);
	case 'i':
		return sqlite3_bind_int64(statement, position, va_arg(*args, int64_t));
	case 'f':
		return sqlite3_bind_double(statement, position, va_arg(*args, double));
	default:
		assert(type == 'b');
		data = va_arg(*args, const void *);
		return sqlite3_bind_blob64(
			statement, position, data, va_arg(*args, size_t), SQLITE_TRANSIENT);
	}
}

static int bind_all(struct db_query *query, struct fault *fault, const char *types, va_list *args)
{
	for (int i = 0; types[i]; i++)
		if (bind_one(query, i + 1, types[i], args) != SQLITE_OK)
			return db_error(query->db, fault, sqlite3_sql(query->statement));
	return 0;
}

static int query_va(struct db *db, struct db_query **ret_query, struct fault *fault,
	const char *sql, const char *types, va_list *args)
{
	struct db_query *query CLEANUP_QUERY = NULL;

	int r = prepare(db, sql, &query, fault);
	if (r == 0)
		r = bind_all(query, fault, types, args);
	if (r < 0)
		return r;
	*ret_query = TAKE_PTR(query);
	return 0;
}

int db_query(struct db *db, struct db_query **ret_query, struct fault *fault, const char *sql,
	const char *types, ...)
{
	va_list args;

	va_start(args, types);
	int r = query_va(db, ret_query, fault, sql, types, &args);
	va_end(args);
	return r;
}

int db_rebind(struct db_query *query, struct fault *fault, const char *types, ...)
{
	va_list args;

	sqlite3_reset(query->statement);
	va_start(args, types);
	int r = bind_all(query, fault, types, &args);
	va_end(args);
	return r;
}

int db_bind_cell(
	struct db_query *query, int position, const struct db_cell *cell, struct fault *fault)
{
	sqlite3_stmt *statement = query->statement;
	int code;

	if (cell->type == DB_INT)
		code = sqlite3_bind_int64(statement, position, cell->integer);
	else if (cell->type == DB_REAL)
		code = sqlite3_bind_double(statement, position, cell->real);
	else if (cell->type == DB_TEXT)
		code = sqlite3_bind_text(statement, position, cell->text, -1, SQLITE_TRANSIENT);
	else
		code = sqlite3_bind_null(statement, position);
	return code == SQLITE_OK ? 0 : db_error(query->db, fault, sqlite3_sql(statement));
}

int db_next(struct db_query *query, struct fault *fault)
{
	int code = sqlite3_step(query->statement);

	if (code == SQLITE_ROW)
		return 1;
	if (code == SQLITE_DONE)
		return 0;
	return db_error(query->db, fault, sqlite3_sql(query->statement));
}

int db_finish(struct db_query *query, struct fault *fault)
{
	int r;

	do
		r = db_next(query, fault);
	while (r > 0);
	return r;
}

int db_run(struct db *db, struct fault *fault, const char *sql, const char *types, ...)
{
	struct db_query *query CLEANUP_QUERY = NULL;
	va_list args;

	va_start(args, types);
	int r = query_va(db, &query, fault, sql, types, &args);
	va_end(args);
	return r < 0 ? r : db_finish(query, fault);
}

int db_read_int(struct db *db, int64_t *ret_value, struct fault *fault, const char *sql,
	const char *types, ...)
{
	struct db_query *query CLEANUP_QUERY = NULL;
	va_list args;

	va_start(args, types);
	int r = query_va(db, &query, fault, sql, types, &args);
	va_end(args);
	if (r == 0)
		r = db_next(query, fault);
	if (r > 0)
		*ret_value = db_column_int(query, 0);
	return r;
}

int64_t db_changes(struct db *db)
{
	return sqlite3_changes64(db->handle);
}

int64_t db_column_int(struct db_query *query, int column)
{
	return sqlite3_column_int64(query->statement, column);
}

double db_column_real(struct db_query *query, int column)
{
	return sqlite3_column_double(query->statement, column);
}

const char *db_column_text(struct db_query *query, int column)
{
	return (const char *)sqlite3_column_text(query->statement, column);
}

const void *db_column_blob(struct db_query *query, int column, size_t *ret_length)
{
	const void *data = sqlite3_column_blob(query->statement, column);

	*ret_length = (size_t)sqlite3_column_bytes(query->statement, column);
	return data;
}
