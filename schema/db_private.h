/* SPDX-License-Identifier: Apache-2.0 */
/* What db.c and the back ends behind it share. Private to them. */
#ifndef FERRY_SCHEMA_DB_PRIVATE_H
#define FERRY_SCHEMA_DB_PRIVATE_H

#include "base/value.h"
#include "schema/db.h"

#include <pthread.h>
#include <stdatomic.h>

/* One parameter to bind; nothing is owned. Types are the letters of db_query, and 'n' for NULL. */
struct db_parameter {
	char type;
	int64_t integer;
	double real;
	const char *text;
	const void *data;
	size_t length;
};

/* Where the statements go. All calls come with the lock of the database held. */
struct db_backend {
	int (*begin)(struct db *db, enum db_mode mode, struct fault *fault);
	int (*commit)(struct db *db, struct fault *fault);
	void (*rollback)(struct db *db);
	/* The transaction is gone, undone by a failure in it. */
	bool (*is_undone)(struct db *db);
	/* Statements without rows and parameters. */
	int (*exec)(struct db *db, const char *sql, struct fault *fault);
	int (*prepare)(
		struct db *db, const char *sql, struct db_query **ret_query, struct fault *fault);
	void (*release)(struct db_query *query);
	void (*reset)(struct db_query *query);
	int (*bind)(struct db_query *query, int position, const struct db_parameter *parameter,
		struct fault *fault);
	int (*start)(struct db_query *query, struct fault *fault);
	int (*next)(struct db_query *query, struct fault *fault);
	int (*finish)(struct db_query *query, struct fault *fault);
	int64_t (*changes)(struct db *db);
	int64_t (*column_int)(struct db_query *query, int column);
	double (*column_real)(struct db_query *query, int column);
	const char *(*column_text)(struct db_query *query, int column);
	const void *(*column_blob)(struct db_query *query, int column, size_t *ret_length);
	void (*close)(struct db *db);
};

/* Each back end's own begins with it. */
struct db_query {
	struct db *db;
};

struct db {
	const struct db_backend *backend;
	char *path;
	pthread_mutex_t lock;        /* recursive; guards all below */
	_Atomic(const void *) owner; /* thread that is in a scope */
	struct db_gate *gate;        /* NULL: nobody else writes; set before threads share it */
	struct db_hooks hooks;
	unsigned depth;         /* open scopes */
	enum db_mode mode;      /* of the outermost */
	const char *began_file; /* where the outermost began */
	int began_line;
};

void db_init(struct db *db, const struct db_backend *backend, const char *path);
/* The transaction is gone: the text says where it began. Returns -EIO. */
int db_fault_undone(struct db *db, struct fault *fault);

/* --- db_gate.c: one writer at a time -----------------------------------------------------------
 */

/* Between the connections of one process to one file: SQLite itself would have them poll. A holder
 * may be no thread but a transaction that another host runs: it has a lease. */
struct db_gate;

struct db_gate *db_gate_new(void);
struct db_gate *db_gate_free(struct db_gate *gate);
/* Waits until the deadline: 0, or -ETIMEDOUT. When the holder's lease has run out meanwhile,
 * `expire` of who set it is called, without locks. */
int db_gate_take(struct db_gate *gate, uint64_t deadline_usec);
void db_gate_release(struct db_gate *gate);
/* Of the present holder; USEC_FOREVER for none. */
void db_gate_set_lease(struct db_gate *gate, uint64_t lease_end_usec);
void db_gate_on_expiry(struct db_gate *gate, void (*expire)(void *arg), void *arg);

/* --- db_sqlite.c: what the service of a database needs beyond db.h -----------------------------
 */

/* Another connection to the same file. */
int db_sqlite_open_again(struct db *db, struct db **ret_db, struct fault *fault);
/* Whether it changes nothing. */
bool db_sqlite_is_read_only(struct db_query *query);
/* The present row as an array of strings, ints, doubles and nils. */
struct value *db_sqlite_row(struct db_query *query);

#endif
