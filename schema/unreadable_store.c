/* SPDX-License-Identifier: Apache-2.0 */
/* There are few rows: whoever adds them has a limit. */
#include "base/alloc.h"
#include "schema/agent_private.h"

#include <errno.h>
#include <inttypes.h>

struct place {
	struct db *db;
	int64_t migration;
	int64_t disk;
};

/* The rows that overlap or touch [from, to], or all. */
static int list(struct place place, uint64_t from, uint64_t to, struct unreadable_row **ret_rows,
	size_t *ret_n, struct fault *fault)
{
	struct unreadable_row *rows CLEANUP_FREE = NULL;
	struct db_query *query CLEANUP_QUERY = NULL;
	size_t n = 0, room = 0;
	int r = db_query(place.db, &query, fault,
		"SELECT offset, length, error FROM unreadable WHERE migration = ? AND disk = ? AND "
		"offset <= ? AND offset + length >= ? ORDER BY offset",
		"iiii", place.migration, place.disk, (int64_t)to, (int64_t)from);

	while (r >= 0 && (r = db_next(query, fault)) > 0) {
		if (n == room) {
			room = room ? room * 2 : 16;
			rows = xrealloc(rows, room, sizeof(*rows));
		}
		rows[n++] = (struct unreadable_row){
			{(uint64_t)db_column_int(query, 0), (uint64_t)db_column_int(query, 1)},
			(int)db_column_int(query, 2)};
	}
	if (r < 0)
		return r;
	*ret_rows = TAKE_PTR(rows);
	*ret_n = n;
	return 0;
}

static int insert(struct place place, uint64_t from, uint64_t to, int error, struct fault *fault)
{
	if (from >= to)
		return 0;
	return db_run(place.db, fault,
		"INSERT INTO unreadable (migration, disk, offset, length, error) VALUES "
		"(?, ?, ?, ?, ?)",
		"iiiii", place.migration, place.disk, (int64_t)from, (int64_t)(to - from),
		(int64_t)error);
}

static int erase(struct place place, uint64_t offset, struct fault *fault)
{
	return db_run(place.db, fault,
		"DELETE FROM unreadable WHERE migration = ? AND disk = ? AND offset = ?", "iii",
		place.migration, place.disk, (int64_t)offset);
}

/* Cuts the extent out of the rows; *wide grows by those of that error that overlap or touch it. */
static int cut(struct place place, struct extent extent, int error, struct extent *wide,
	struct fault *fault)
{
	struct unreadable_row *rows CLEANUP_FREE = NULL;
	size_t n = 0;
	int r = list(place, extent.offset, extent_end(extent), &rows, &n, fault);

	for (size_t i = 0; r == 0 && i < n; i++) {
		struct extent row = rows[i].extent;
		r = erase(place, row.offset, fault);
		if (r == 0 && rows[i].error == error) {
			uint64_t end = MAX(extent_end(row), extent_end(*wide));
			wide->offset = MIN(row.offset, wide->offset);
			wide->length = end - wide->offset;
			continue;
		}
		if (r == 0)
			r = insert(place, row.offset, MIN(extent_end(row), extent.offset),
				rows[i].error, fault);
		if (r == 0)
			r = insert(place, MAX(row.offset, extent_end(extent)), extent_end(row),
				rows[i].error, fault);
	}
	return r;
}

/* error 0: the extent only leaves. */
static int change(struct agent_db *agent, const char *migration, unsigned disk,
	struct extent extent, int error, struct fault *fault)
{
	struct place place = {.db = agent->db, .disk = disk};
	struct extent wide = extent;
	struct db_scope scope;
	int r = extent_check(extent, fault);

	if (r == 0)
		r = db_begin(agent->db, DB_WRITE, &scope, fault);
	if (r < 0)
		return r;
	r = migration_find_id(agent, migration, &place.migration, fault);
	if (r == 0)
		r = cut(place, extent, error, &wide, fault);
	if (r == 0 && error)
		r = insert(place, wide.offset, extent_end(wide), error, fault);
	return db_end(&scope, r, fault);
}

int unreadable_add(struct agent_db *agent, const char *migration, unsigned disk,
	struct extent extent, int error, struct fault *fault)
{
	return change(agent, migration, disk, extent, error, fault);
}

int unreadable_remove(struct agent_db *agent, const char *migration, unsigned disk,
	struct extent extent, struct fault *fault)
{
	return change(agent, migration, disk, extent, 0, fault);
}

int unreadable_list(struct agent_db *agent, const char *migration, unsigned disk,
	struct unreadable_row **ret_rows, size_t *ret_n, struct fault *fault)
{
	struct place place = {.db = agent->db, .disk = disk};
	struct db_scope scope;
	int r = db_begin(agent->db, DB_READ, &scope, fault);

	if (r < 0)
		return r;
	r = migration_find_id(agent, migration, &place.migration, fault);
	if (r == 0)
		r = list(place, 0, INT64_MAX, ret_rows, ret_n, fault);
	return db_end(&scope, r, fault);
}

static int total(
	struct agent_db *agent, const char *migration, uint64_t *ret_bytes, struct fault *fault)
{
	struct db_query *query CLEANUP_QUERY = NULL;
	int r = db_query(agent->db, &query, fault,
		"SELECT ifnull(sum(length), 0) FROM unreadable WHERE migration = "
		"(SELECT id FROM migrations WHERE uuid = ?)",
		"t", migration);

	if (r == 0)
		r = db_next(query, fault);
	if (r < 0)
		return r;
	*ret_bytes = (uint64_t)db_column_int(query, 0);
	return 0;
}

int unreadable_total(
	struct agent_db *agent, const char *migration, uint64_t *ret_bytes, struct fault *fault)
{
	struct db_scope scope;
	int r = db_begin(agent->db, DB_READ, &scope, fault);

	return r < 0 ? r : db_end(&scope, total(agent, migration, ret_bytes, fault), fault);
}
