/* SPDX-License-Identifier: Apache-2.0 */
/* What db.c, db_query.c and db_error.c share. Private to them. */
#ifndef FERRY_SCHEMA_DB_PRIVATE_H
#define FERRY_SCHEMA_DB_PRIVATE_H

#include "schema/db.h"

#include <pthread.h>

/* SQLite's own tags: its header stands in the .c files only. */
struct sqlite3;
struct sqlite3_stmt;

/* Set-associative: a statement is looked for in the few places that its hash names, and the one
 * that was used least recently gives way. Statements are made from the class list, so their number
 * is bounded, but not small. */
#define CACHE_SETS 128
#define CACHE_WAYS 4

struct db_query {
	struct db *db;
	struct sqlite3_stmt *statement;
	uint64_t hash;
	uint64_t last_used;
	bool in_use;
	bool is_cached; /* lives in db->cache; else on the heap */
};

struct db {
	char *path;
	pthread_mutex_t lock; /* recursive; guards all below */
	struct sqlite3 *handle;
	struct db_hooks hooks;
	unsigned depth;         /* open scopes */
	const char *began_file; /* where the outermost began */
	int began_line;
	uint64_t uses; /* clock of the cache */
	struct db_query cache[CACHE_SETS][CACHE_WAYS];
};

/* The fault for what the last call of SQLite said; `doing` names what failed. Returns a negative
 * errno. */
int db_error(struct db *db, struct fault *fault, const char *doing);
void db_cache_drop(struct db *db);
/* Statements without rows and parameters, several at once. */
int db_exec(struct db *db, const char *sql, struct fault *fault);

#endif
