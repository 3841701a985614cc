/* SPDX-License-Identifier: Apache-2.0 */
/* What db_sqlite.c, db_sqlite_query.c and db_error.c share. Private to them. */
#ifndef FERRY_SCHEMA_DB_SQLITE_H
#define FERRY_SCHEMA_DB_SQLITE_H

#include "base/inject.h"
#include "schema/db_private.h"

#include <string.h>

/* SQLite's own tags: its header stands in the .c files only. */
struct sqlite3;
struct sqlite3_stmt;

/* Set-associative: a statement is looked for in the few places that its hash names, and the one
 * that was used least recently gives way. Statements are made from the class list, so their number
 * is bounded, but not small. */
#define CACHE_SETS 128
#define CACHE_WAYS 4

struct sqlite_query {
	struct db_query base;
	struct sqlite3_stmt *statement;
	uint64_t hash;
	uint64_t last_used;
	bool in_use;
	bool is_cached; /* lives in db->cache; else on the heap */
};

struct sqlite_db {
	struct db base;
	struct sqlite3 *handle;
	uint64_t uses;          /* clock of the cache */
	int64_t changes_before; /* rows that were changed before this transaction */
	bool is_unwritable;     /* its disk is full, read-only or bad; the log has said so */
	struct sqlite_query cache[CACHE_SETS][CACHE_WAYS];
};

/* The fault for what the last call of SQLite said; `doing` names what failed. Returns a negative
 * errno. */
int db_error(struct sqlite_db *db, struct fault *fault, const char *doing);
/* The fault that SQLite would give for that errno; nothing of SQLite is asked. Returns error. */
int db_error_like(struct sqlite_db *db, int error, const char *doing, struct fault *fault);

static inline const char *db_file_name(const struct sqlite_db *db)
{
	const char *slash = strrchr(db->base.path, '/');

	return slash ? slash + 1 : db->base.path;
}

/* Fault points db.agent.begin, db.pool.commit ... */
static inline int db_inject(struct sqlite_db *db, const char *doing, struct fault *fault)
{
	int r = INJECT("db.%.*s.%s", (int)strcspn(db_file_name(db), "."), db_file_name(db), doing);

	return r < 0 ? db_error_like(db, r, doing, fault) : 0;
}

void sqlite_cache_drop(struct sqlite_db *db);

/* The statements' part of the back end. */
int sqlite_prepare(
	struct db *base, const char *sql, struct db_query **ret_query, struct fault *fault);
void sqlite_release(struct db_query *base);
void sqlite_reset_query(struct db_query *base);
int sqlite_bind(struct db_query *base, int position, const struct db_parameter *parameter,
	struct fault *fault);
int sqlite_start(struct db_query *base, struct fault *fault);
int sqlite_next(struct db_query *base, struct fault *fault);
int sqlite_finish(struct db_query *base, struct fault *fault);
int64_t sqlite_column_int_of(struct db_query *base, int column);
double sqlite_column_real_of(struct db_query *base, int column);
const char *sqlite_column_text_of(struct db_query *base, int column);
const void *sqlite_column_blob_of(struct db_query *base, int column, size_t *ret_length);

#endif
