/* SPDX-License-Identifier: Apache-2.0 */
/* What the files behind pool_db.h share. Private to them. Every function here is called inside a
 * scope of pool->db. */
#ifndef FERRY_SCHEMA_POOL_PRIVATE_H
#define FERRY_SCHEMA_POOL_PRIVATE_H

#include "schema/classes.h"
#include "schema/db.h"
#include "schema/pool_db.h"

#include <pthread.h>
#include <stdatomic.h>

/* The SQL table of a class: ref, created_gen, changed_gen, then a column per stored field. */
#define N_FIXED_COLUMNS 3
/* Behind those; of no field, and not read with them (unknown_fields.c). */
#define UNKNOWN_COLUMN "unknown_fields"
struct class_table {
	const struct class *class;
	const struct class_field **stored; /* all but the derived */
	size_t n_stored;
	char *select; /* all columns, up to and with FROM */
	char *insert;
};

/* A REF field of a class that the list has, seen from both ends. */
struct relation {
	const struct class_table *from;
	const struct class_field *field; /* VBD.VM */
	const struct class_table *to;
	const struct class_field *shown; /* VM.VBDs; NULL when the other end does not show it */
};

struct pool_db {
	struct db *db;
	struct class_table *tables; /* as classes[] */
	struct relation *relations;
	size_t n_relations;
	_Atomic uint64_t committed_generation;

	atomic_bool is_retired;            /* another host has the database by now */
	struct db_service *service;        /* for the pool's other hosts; NULL: nobody is served */
	_Atomic uint64_t guest_generation; /* of their transaction that is about to commit */

	/* Guarded by the scopes of db. */
	struct db_query *stored;  /* the stored generation is on its way */
	uint64_t generation;      /* with what the open transaction has taken */
	uint64_t generation_then; /* when the transaction began */
	bool is_changed;          /* an object that events tell of */
	unsigned n_unpruned;      /* tombstones since the last pruning */

	pthread_mutex_t listen_lock;
	void (*changed)(void *arg, uint64_t generation);
	void *changed_arg;
};

/* --- class_tables.c: tables made from the class list -------------------------------------------
 */

/* What is known of them without a look at the database. */
void class_tables_describe(struct pool_db *pool);
/* Makes the tables, columns and indexes that are missing. */
int class_tables_sync(struct pool_db *pool, struct fault *fault);
void class_tables_close(struct pool_db *pool);
/* INTERNAL_ERROR for an unknown class. */
int class_table_find(struct pool_db *pool, const char *class, const struct class_table **ret_table,
	struct fault *fault);
/* INTERNAL_ERROR "VM has no field x". */
int class_table_field(const struct class_table *table, const char *name,
	const struct class_field **ret_field, struct fault *fault);
/* The relation that the field is; NULL for no relation, or one to a class that is not there. */
const struct relation *relation_of(const struct pool_db *pool, const struct class_table *table,
	const struct class_field *field);

/* --- field_value.c: values as cells ----------------------------------------------------------- */

/* FIELD_TYPE_ERROR, INVALID_VALUE. Does not look whether a ref exists. */
int field_encode(const struct class_field *field, const struct value *value,
	struct db_cell *ret_cell, struct fault *fault);
int field_decode(const struct class_field *field, struct db_query *query, int column,
	struct value **ret_value, struct fault *fault);
void field_default(const struct class_field *field, struct db_cell *ret_cell);
const char *field_sql_type(const struct class_field *field);

/* --- objects.c -------------------------------------------------------------------------------- */

/* HANDLE_INVALID unless it is there. */
int object_require(struct pool_db *pool, const struct class_table *table, const char *ref,
	struct fault *fault);
/* Gives it the next generation. */
int object_touch(struct pool_db *pool, const struct class_table *table, const char *ref,
	struct fault *fault);
/* The same for what the relation's field points at, if that end shows it. ref may be NULL. */
int object_touch_target(struct pool_db *pool, const struct relation *relation, const char *ref,
	struct fault *fault);
/* Inside a DB_WRITE scope. */
uint64_t pool_present_generation(struct pool_db *pool);
uint64_t pool_next_generation(struct pool_db *pool, const struct class *class);

/* --- records.c -------------------------------------------------------------------------------- */

struct record_set {
	struct value *records; /* struct of ref -> record, in order of creation */
	struct record_generations {
		uint64_t created;
		uint64_t changed;
	} * generations; /* as the members of records */
};

void record_set_clear(struct record_set *set);
#define CLEANUP_RECORD_SET CLEANUP(record_set_clear)

/* Appends the records that changed after generation `since`: all of the class, or (ref) that one.
 */
int record_set_load(struct pool_db *pool, const struct class_table *table, uint64_t since,
	const char *ref, struct record_set *set, struct fault *fault);
/* Array of the refs that the query's first column gives. */
int refs_collect(struct db_query *query, struct value **ret_refs, struct fault *fault);
/* Array of the refs of relation->from that point at ref. */
int relation_refs(struct pool_db *pool, const struct relation *relation, const char *ref,
	struct value **ret_refs, struct fault *fault);

/* --- events.c --------------------------------------------------------------------------------- *
 */

int tombstone_add(struct pool_db *pool, const struct class_table *table, const char *ref,
	uint64_t created, struct fault *fault);
/* Drops all but the newest of each class. */
int tombstones_prune(struct pool_db *pool, struct fault *fault);

#endif
