/* SPDX-License-Identifier: Apache-2.0 */
/* The statements of the SQLite back end, cached by their text. */
#include "base/alloc.h"
#include "schema/db_sqlite.h"

#include <assert.h>
#include <sqlite3.h>
#include <string.h>

static uint64_t text_hash(const char *text)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a */

	for (; *text; text++)
		hash = (hash ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
	return hash ^ hash >> 32;
}

/* An idle place for the statement: the one that has it, or the one used least recently; NULL when
 * all are in use. */
static struct sqlite_query *cache_place(struct sqlite_db *db, uint64_t hash, const char *sql)
{
	struct sqlite_query *set = db->cache[hash % CACHE_SETS];
	struct sqlite_query *oldest = NULL;

	for (size_t i = 0; i < CACHE_WAYS; i++) {
		struct sqlite_query *way = &set[i];
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
	*oldest = (struct sqlite_query){.base.db = &db->base, .hash = hash, .is_cached = true};
	return oldest;
}

void sqlite_cache_drop(struct sqlite_db *db)
{
	for (size_t i = 0; i < CACHE_SETS; i++) {
		for (size_t j = 0; j < CACHE_WAYS; j++) {
			assert(!db->cache[i][j].in_use);
			sqlite3_finalize(db->cache[i][j].statement);
			db->cache[i][j] = (struct sqlite_query){0};
		}
	}
}

void sqlite_release(struct db_query *base)
{
	struct sqlite_query *query = (struct sqlite_query *)base;

	if (!query->is_cached) {
		sqlite3_finalize(query->statement);
		free(query);
		return;
	}
	if (query->statement) {
		sqlite3_reset(query->statement);
		sqlite3_clear_bindings(query->statement);
	}
	query->in_use = false;
}

int sqlite_prepare(
	struct db *base, const char *sql, struct db_query **ret_query, struct fault *fault)
{
	struct sqlite_db *db = (struct sqlite_db *)base;
	uint64_t hash = text_hash(sql);
	struct sqlite_query *query = cache_place(db, hash, sql);

	if (!query) {
		query = xcalloc(1, sizeof(*query));
		query->base.db = base;
	}
	query->in_use = true;
	query->last_used = ++db->uses;
	if (!query->statement && sqlite3_prepare_v3(db->handle, sql, -1, SQLITE_PREPARE_PERSISTENT,
					 &query->statement, NULL) != SQLITE_OK) {
		int r = db_error(db, fault, sql);
		sqlite_release(&query->base);
		return r;
	}
	*ret_query = &query->base;
	return 0;
}

static struct sqlite3_stmt *statement_of(struct db_query *base)
{
	return ((struct sqlite_query *)base)->statement;
}

static int failed(struct db_query *base, struct fault *fault)
{
	return db_error((struct sqlite_db *)base->db, fault, sqlite3_sql(statement_of(base)));
}

void sqlite_reset_query(struct db_query *base)
{
	sqlite3_reset(statement_of(base));
}

int sqlite_bind(struct db_query *base, int position, const struct db_parameter *parameter,
	struct fault *fault)
{
	sqlite3_stmt *statement = statement_of(base);
	int code;

	switch (parameter->type) {
	case 't':
		code = sqlite3_bind_text(
			statement, position, parameter->text, -1, SQLITE_TRANSIENT);
		break;
	case 'i':
		code = sqlite3_bind_int64(statement, position, parameter->integer);
		break;
	case 'f':
		code = sqlite3_bind_double(statement, position, parameter->real);
		break;
	case 'b':
		code = sqlite3_bind_blob64(
			statement, position, parameter->data, parameter->length, SQLITE_TRANSIENT);
		break;
	default:
		code = sqlite3_bind_null(statement, position);
		break;
	}
	return code == SQLITE_OK ? 0 : failed(base, fault);
}

/* There is no round trip to save. */
int sqlite_start(struct db_query *base, struct fault *fault)
{
	(void)base;
	(void)fault;
	return 0;
}

int sqlite_next(struct db_query *base, struct fault *fault)
{
	int r = db_inject((struct sqlite_db *)base->db, "step", fault);

	if (r < 0)
		return r;
	int code = sqlite3_step(statement_of(base));
	if (code == SQLITE_ROW)
		return 1;
	return code == SQLITE_DONE ? 0 : failed(base, fault);
}

int sqlite_finish(struct db_query *base, struct fault *fault)
{
	int r;

	do
		r = sqlite_next(base, fault);
	while (r > 0);
	return r;
}

int64_t sqlite_column_int_of(struct db_query *base, int column)
{
	return sqlite3_column_int64(statement_of(base), column);
}

double sqlite_column_real_of(struct db_query *base, int column)
{
	return sqlite3_column_double(statement_of(base), column);
}

const char *sqlite_column_text_of(struct db_query *base, int column)
{
	return (const char *)sqlite3_column_text(statement_of(base), column);
}

const void *sqlite_column_blob_of(struct db_query *base, int column, size_t *ret_length)
{
	const void *data = sqlite3_column_blob(statement_of(base), column);

	*ret_length = (size_t)sqlite3_column_bytes(statement_of(base), column);
	return data;
}

/* --- For the service ----------------------------------------------------------------------------
 */

bool db_sqlite_is_read_only(struct db_query *query)
{
	return sqlite3_stmt_readonly(statement_of(query));
}

static struct value *column_value(sqlite3_stmt *statement, int column)
{
	switch (sqlite3_column_type(statement, column)) {
	case SQLITE_INTEGER:
		return value_new_int(sqlite3_column_int64(statement, column));
	case SQLITE_FLOAT:
		return value_new_double(sqlite3_column_double(statement, column));
	case SQLITE_TEXT:
		return value_new_string((const char *)sqlite3_column_text(statement, column));
	default:
		return value_new_nil();
	}
}

struct value *db_sqlite_row(struct db_query *query)
{
	sqlite3_stmt *statement = statement_of(query);
	struct value *row = value_new_array();
	int n = sqlite3_column_count(statement);

	for (int i = 0; i < n; i++)
		value_append(row, column_value(statement, i));
	return row;
}
