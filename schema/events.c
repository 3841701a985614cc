/* SPDX-License-Identifier: Apache-2.0 */
/* What changed after a generation. Each row knows the generations of its creation and of its last
 * change; a row that is gone leaves a tombstone. Nothing is queued per client, so no client can be
 * slow or lost: contract, section 4. */
#include "base/alloc.h"
#include "schema/pool_private.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

/* Kept per class. A client that asks from before the oldest learns of the loss by
 * valid_ref_counts. */
#define N_TOMBSTONES 4096
/* More may gather between two prunings. */
#define N_UNPRUNED 256

/* --- Tombstones ------------------------------------------------------------------------------ */

int tombstones_prune(struct pool_db *pool, struct fault *fault)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < n_classes; i++)
		r = db_run(pool->db, fault,
			"DELETE FROM tombstones WHERE class = ?1 AND deleted_gen <= "
			"(SELECT deleted_gen FROM tombstones WHERE class = ?1 "
			"ORDER BY deleted_gen DESC LIMIT 1 OFFSET ?2)",
			"ti", classes[i].name, (int64_t)N_TOMBSTONES);
	pool->n_unpruned = 0;
	return r;
}

int tombstone_add(struct pool_db *pool, const struct class_table *table, const char *ref,
	uint64_t created, struct fault *fault)
{
	int64_t deleted = (int64_t)pool_next_generation(pool, table->class);

	if (table->class->hidden)
		return 0;
	int r = db_run(pool->db, fault,
		"INSERT INTO tombstones (class, ref, created_gen, deleted_gen) VALUES (?, ?, ?, ?)",
		"ttii", table->class->name, ref, (int64_t)created, deleted);
	if (r == 0 && ++pool->n_unpruned >= N_UNPRUNED)
		r = tombstones_prune(pool, fault);
	return r;
}

/* --- Gathering ------------------------------------------------------------------------------- */

struct event {
	uint64_t generation;
	struct value *value;
};

struct gathering {
	struct pool_db *pool;
	uint64_t since;
	struct event *events;
	size_t n;
};

static void gathering_clear(struct gathering *gathering)
{
	for (size_t i = 0; i < gathering->n; i++)
		value_free(gathering->events[i].value);
	free(gathering->events);
}

static char *lower_case(const char *s)
{
	char *lower = xstrdup(s);

	for (char *c = lower; *c; c++)
		*c = (char)tolower((unsigned char)*c);
	return lower;
}

/* Takes the snapshot, which is NULL for del. */
static void gather(struct gathering *gathering, const struct class_table *table,
	const char *operation, const char *ref, uint64_t generation, struct value *snapshot)
{
	char *class CLEANUP_FREE = lower_case(table->class->name);
	struct value *value = value_new_struct();
	size_t n = gathering->n;

	value_set(value, "id", value_new_format("%llu", (unsigned long long)generation));
	value_set_string(value, "timestamp", "0.0");
	value_set_string(value, "class", class);
	value_set_string(value, "operation", operation);
	value_set_string(value, "ref", ref);
	if (snapshot)
		value_set(value, "snapshot", snapshot);
	if ((n & (n - 1)) == 0) /* full at each power of two */
		gathering->events =
			xrealloc(gathering->events, n ? n * 2 : 1, sizeof(*gathering->events));
	gathering->events[gathering->n++] = (struct event){generation, value};
}

static int gather_changed(struct gathering *gathering, const struct class_table *table,
	const char *ref, struct fault *fault)
{
	struct record_set set CLEANUP_RECORD_SET = {0};

	int r = record_set_load(gathering->pool, table, gathering->since, ref, &set, fault);
	for (size_t i = 0; r == 0 && i < set.records->record.n_members; i++) {
		struct value_member *member = &set.records->record.members[i];
		bool is_new = set.generations[i].created > gathering->since;
		gather(gathering, table, is_new ? "add" : "mod", member->name,
			set.generations[i].changed, member->value);
		member->value = value_new_nil();
	}
	return r;
}

static int gather_deleted(struct gathering *gathering, const struct class_table *table,
	const char *ref, struct fault *fault)
{
	struct db_query *query CLEANUP_QUERY = NULL;

	int r = db_query(gathering->pool->db, &query, fault,
		"SELECT ref, deleted_gen FROM tombstones WHERE class = ?1 AND deleted_gen > ?2 "
		"AND created_gen <= ?2 AND ref = ifnull(?3, ref)",
		"tit", table->class->name, (int64_t)gathering->since, ref);
	while (r == 0 && (r = db_next(query, fault)) > 0) {
		gather(gathering, table, "del", db_column_text(query, 0),
			(uint64_t)db_column_int(query, 1), NULL);
		r = 0;
	}
	return r;
}

/* ref NULL: the whole class. */
static int gather_class(struct gathering *gathering, const struct class_table *table,
	const char *ref, struct fault *fault)
{
	int r = gather_changed(gathering, table, ref, fault);

	return r < 0 ? r : gather_deleted(gathering, table, ref, fault);
}

static bool is_for(const struct event_filter *filter, const struct class *class)
{
	return !filter->class || strcmp(filter->class, class->name) == 0;
}

/* Once per class, or once per object of it that a filter names. */
static int gather_filtered(struct gathering *gathering, const struct class_table *table,
	const struct event_filter *filters, size_t n_filters, struct fault *fault)
{
	struct value *done CLEANUP_VALUE = value_new_struct();
	int r = 0;

	for (size_t i = 0; i < n_filters; i++)
		if (is_for(&filters[i], table->class) && !filters[i].ref)
			return gather_class(gathering, table, NULL, fault);
	for (size_t i = 0; r == 0 && i < n_filters; i++) {
		if (!is_for(&filters[i], table->class) || value_find(done, filters[i].ref))
			continue;
		value_set_bool(done, filters[i].ref, true);
		r = gather_class(gathering, table, filters[i].ref, fault);
	}
	return r;
}

static int compare_events(const void *a, const void *b)
{
	const struct event *left = a;
	const struct event *right = b;

	return left->generation < right->generation ? -1 : left->generation > right->generation;
}

static struct value *take_events(struct gathering *gathering)
{
	struct value *events = value_new_array();

	if (gathering->n > 1)
		qsort(gathering->events, gathering->n, sizeof(*gathering->events), compare_events);
	for (size_t i = 0; i < gathering->n; i++)
		value_append(events, TAKE_PTR(gathering->events[i].value));
	return events;
}

int pool_db_events(struct pool_db *pool, uint64_t since, const struct event_filter *filters,
	size_t n_filters, struct value **ret_events, uint64_t *ret_generation, struct fault *fault)
{
	struct gathering gathering CLEANUP(gathering_clear) = {.pool = pool, .since = since};
	struct db_scope scope;
	int64_t generation = 0;

	int r = db_begin(pool->db, DB_READ, &scope, fault);
	if (r < 0)
		return r;
	/* Of the same snapshot, as other hosts write meanwhile; with what an open transaction of
	 * this thread has taken. */
	r = db_read_int(pool->db, &generation, fault, "SELECT generation FROM meta", "");
	for (size_t i = 0; r >= 0 && i < n_classes; i++)
		if (!classes[i].hidden)
			r = gather_filtered(
				&gathering, &pool->tables[i], filters, n_filters, fault);
	uint64_t taken = pool->generation;
	r = db_end(&scope, r, fault);
	if (r < 0)
		return r;
	*ret_events = take_events(&gathering);
	*ret_generation = MAX((uint64_t)generation, taken);
	return 0;
}

/* --- Counts and injection ----------------------------------------------------------------------
 */

static int count(struct pool_db *pool, struct value *counts, struct fault *fault)
{
	int r = 1;

	for (size_t i = 0; r > 0 && i < n_classes; i++) {
		char *class CLEANUP_FREE = lower_case(classes[i].name);
		char *sql CLEANUP_FREE = xasprintf("SELECT count(*) FROM \"%s\"", classes[i].name);
		int64_t n = 0;
		r = db_read_int(pool->db, &n, fault, sql, "");
		value_set(counts, class, value_new_i4(n));
	}
	return r < 0 ? r : 0;
}

int pool_db_counts(struct pool_db *pool, struct value **ret_counts, struct fault *fault)
{
	struct value *counts CLEANUP_VALUE = value_new_struct();
	struct db_scope scope;

	int r = db_begin(pool->db, DB_READ, &scope, fault);
	if (r < 0)
		return r;
	r = db_end(&scope, count(pool, counts, fault), fault);
	if (r == 0)
		*ret_counts = TAKE_PTR(counts);
	return r;
}

static int touch(struct pool_db *pool, const struct class_table *table, const char *ref,
	uint64_t *ret_before, struct fault *fault)
{
	uint64_t before = pool_present_generation(pool);

	int r = object_require(pool, table, ref, fault);
	if (r == 0)
		r = object_touch(pool, table, ref, fault);
	if (r == 0)
		*ret_before = before;
	return r;
}

int pool_db_touch(struct pool_db *pool, const char *class, const char *ref, uint64_t *ret_before,
	struct fault *fault)
{
	const struct class_table *table;
	struct db_scope scope;

	/* The caller's class may be any text: it is no more than half of a wrong handle. */
	if (!class_find(class))
		return fault_set(fault, -ENOENT, "HANDLE_INVALID", class, ref, NULL);
	int r = class_table_find(pool, class, &table, fault);
	if (r == 0)
		r = db_begin(pool->db, DB_WRITE, &scope, fault);
	if (r < 0)
		return r;
	return db_end(&scope, touch(pool, table, ref, ret_before, fault), fault);
}
