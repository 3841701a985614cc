/* SPDX-License-Identifier: Apache-2.0 */
/* The extent log as a set of bytes. Both changes walk the given extents, sorted and merged, and the
 * stored rows side by side, once, in ascending order. The rows are read ahead in batches that grow
 * while they are consumed one after the other, and jump over what lies between far extents; so a
 * million extents into an empty log cost a million inserts, and ten into a full one ten lookups. */
#include "base/alloc.h"
#include "schema/agent_private.h"

#include <errno.h>
#include <inttypes.h>

#define BATCH_MIN 8
#define BATCH_MAX 1024
#define SECTOR    512

struct log {
	struct db *db;
	int64_t migration;
	int64_t disk;
};

/* --- What the caller gave ----------------------------------------------------------------------
 */

int extent_check(struct extent extent, struct fault *fault)
{
	if (extent.length > 0 && extent.offset % SECTOR == 0 && extent.length % SECTOR == 0 &&
		extent.offset <= INT64_MAX && extent.length <= INT64_MAX - extent.offset)
		return 0;
	return fault_text(fault, -EINVAL,
		"extent %" PRIu64 "+%" PRIu64 ": offset and length must be multiples of %d bytes, "
		"the length above 0, the end below 2^63",
		extent.offset, extent.length, SECTOR);
}

static int compare_extents(const void *a, const void *b)
{
	uint64_t left = ((const struct extent *)a)->offset;
	uint64_t right = ((const struct extent *)b)->offset;

	return left < right ? -1 : left > right;
}

/* A copy, sorted; those that touch or overlap made one. The caller frees it. Its size comes from a
 * disk: it may fail. */
static int normalize(const struct extent *extents, size_t n, struct extent **ret_runs,
	size_t *ret_n, struct fault *fault)
{
	struct extent *runs CLEANUP_FREE = malloc((n + 1) * sizeof(*runs));
	size_t n_runs = 0;

	if (!runs)
		return fault_text(fault, -ENOMEM, "extent log: no memory for %zu extents", n);
	for (size_t i = 0; i < n; i++) {
		int r = extent_check(extents[i], fault);
		if (r < 0)
			return r;
		runs[i] = extents[i];
	}
	if (n > 1)
		qsort(runs, n, sizeof(*runs), compare_extents);
	for (size_t i = 0; i < n; i++) {
		struct extent *last = n_runs ? &runs[n_runs - 1] : NULL;
		if (last && runs[i].offset <= extent_end(*last))
			last->length = MAX(extent_end(*last), extent_end(runs[i])) - last->offset;
		else
			runs[n_runs++] = runs[i];
	}
	*ret_n = n_runs;
	*ret_runs = TAKE_PTR(runs);
	return 0;
}

/* --- Stored rows, ahead of the walk ------------------------------------------------------------
 */

struct reader {
	struct log log;
	struct extent rows[BATCH_MAX];
	size_t at, n;  /* rows[at..n) are ahead */
	uint64_t next; /* what is stored below was read already */
	size_t batch;  /* size of the next one */
	bool is_whole; /* nothing is stored beyond rows[n - 1] */
};

/* Reads the next batch: from the row that holds, or stands before, `from`, but none twice. */
static int reader_fetch(struct reader *reader, uint64_t from, struct fault *fault)
{
	struct db_query *query CLEANUP_QUERY = NULL;

	reader->batch = MIN(reader->batch * 2, BATCH_MAX);
	reader->at = reader->n = 0;
	int r = db_query(reader->log.db, &query, fault,
		"SELECT offset, length FROM extents WHERE migration = ?1 AND disk = ?2 AND "
		"offset >= max(?5, ifnull((SELECT offset FROM extents WHERE migration = ?1 AND "
		"disk = ?2 AND offset <= ?3 ORDER BY offset DESC LIMIT 1), 0)) "
		"ORDER BY offset LIMIT ?4",
		"iiiii", reader->log.migration, reader->log.disk, (int64_t)from,
		(int64_t)reader->batch, (int64_t)reader->next);
	if (r < 0)
		return r;
	while ((r = db_next(query, fault)) > 0)
		reader->rows[reader->n++] = (struct extent){
			(uint64_t)db_column_int(query, 0), (uint64_t)db_column_int(query, 1)};
	reader->is_whole = reader->n < reader->batch;
	if (reader->n > 0)
		reader->next = extent_end(reader->rows[reader->n - 1]);
	return r;
}

/* The first row that ends at `end` or later: 1 and *ret_row, 0 none. Rows before it are passed. */
static int reader_seek(
	struct reader *reader, uint64_t end, struct extent *ret_row, struct fault *fault)
{
	for (;;) {
		while (reader->at < reader->n && extent_end(reader->rows[reader->at]) < end)
			reader->at++;
		if (reader->at < reader->n) {
			*ret_row = reader->rows[reader->at];
			return 1;
		}
		if (reader->is_whole)
			return 0;
		int r = reader_fetch(reader, end, fault);
		if (r < 0)
			return r;
	}
}

/* --- Changes --------------------------------------------------------------------------------- */

static int insert(struct log log, uint64_t offset, uint64_t length, struct fault *fault)
{
	return db_run(log.db, fault,
		"INSERT INTO extents (migration, disk, offset, length) VALUES (?, ?, ?, ?)", "iiii",
		log.migration, log.disk, (int64_t)offset, (int64_t)length);
}

/* Removes the rows that begin within [offset, end]. */
static int erase(struct log log, uint64_t offset, uint64_t end, struct fault *fault)
{
	/* One row by its whole key: SQLite then needs no list of what to delete. */
	if (offset == end)
		return db_run(log.db, fault,
			"DELETE FROM extents WHERE migration = ? AND disk = ? AND offset = ?",
			"iii", log.migration, log.disk, (int64_t)offset);
	return db_run(log.db, fault,
		"DELETE FROM extents WHERE migration = ? AND disk = ? AND offset BETWEEN ? AND ?",
		"iiii", log.migration, log.disk, (int64_t)offset, (int64_t)end);
}

/* Writes the union of one run with the rows that it touches, and with the runs that those reach.
 * *at: the run; set to the first that is left. */
static int add_run(
	struct reader *reader, const struct extent *runs, size_t n, size_t *at, struct fault *fault)
{
	struct extent merged = runs[(*at)++];
	size_t n_absorbed = 0;
	struct extent row;
	int r;

	while ((r = reader_seek(reader, merged.offset, &row, fault)) > 0 &&
		row.offset <= extent_end(merged)) {
		uint64_t end = MAX(extent_end(merged), extent_end(row));
		if (n_absorbed++ == 0 && row.offset <= merged.offset && end == extent_end(row) &&
			(*at == n || runs[*at].offset > end))
			return 0; /* it holds the run already; it stays in view for the next */
		merged.offset = MIN(merged.offset, row.offset);
		reader->at++;
		for (; *at < n && runs[*at].offset <= end; (*at)++)
			end = MAX(end, extent_end(runs[*at]));
		merged.length = end - merged.offset;
	}
	if (r >= 0 && n_absorbed)
		r = erase(reader->log, merged.offset, extent_end(merged), fault);
	return r < 0 ? r : insert(reader->log, merged.offset, merged.length, fault);
}

static int add_all(struct log log, const struct extent *runs, size_t n, struct fault *fault)
{
	struct reader reader = {.log = log, .batch = BATCH_MIN};
	int r = 0;

	for (size_t at = 0; r == 0 && at < n;)
		r = add_run(&reader, runs, n, &at, fault);
	return r;
}

/* Cuts the runs out of one row. *at: the first run that overlaps it; set to the first that may
 * overlap what follows. */
static int cut_row(struct log log, struct extent row, const struct extent *runs, size_t n,
	size_t *at, struct fault *fault)
{
	uint64_t kept = row.offset; /* what lies before is cut or written */
	uint64_t end = extent_end(row);

	int r = erase(log, row.offset, row.offset, fault);
	for (; r == 0 && *at < n && runs[*at].offset < end; (*at)++) {
		if (runs[*at].offset > kept)
			r = insert(log, kept, runs[*at].offset - kept, fault);
		kept = MAX(kept, extent_end(runs[*at]));
		if (kept > end)
			return r; /* the run reaches further */
	}
	if (r == 0 && kept < end)
		r = insert(log, kept, end - kept, fault);
	return r;
}

static int remove_all(struct log log, const struct extent *runs, size_t n, struct fault *fault)
{
	struct reader reader = {.log = log, .batch = BATCH_MIN};
	struct extent row;
	size_t at = 0;

	while (at < n) {
		int r = reader_seek(&reader, runs[at].offset + 1, &row, fault);
		if (r <= 0)
			return r;
		if (row.offset >= extent_end(runs[at])) {
			at++;
			continue;
		}
		reader.at++;
		r = cut_row(log, row, runs, n, &at, fault);
		if (r < 0)
			return r;
	}
	return 0;
}

/* --- The interface --------------------------------------------------------------------------- */

static int open_log(struct agent_db *agent, const char *migration, unsigned disk,
	struct log *ret_log, struct fault *fault)
{
	*ret_log = (struct log){.db = agent->db, .disk = disk};
	return migration_find_id(agent, migration, &ret_log->migration, fault);
}

typedef int (*change_fn)(struct log log, const struct extent *runs, size_t n, struct fault *fault);

static int change(struct agent_db *agent, const char *migration, unsigned disk,
	const struct extent *extents, size_t n, change_fn apply, struct fault *fault)
{
	struct extent *runs CLEANUP_FREE = NULL;
	struct db_scope scope;
	size_t n_runs = 0;
	struct log log;

	int r = normalize(extents, n, &runs, &n_runs, fault);
	if (r == 0)
		r = db_begin(agent->db, DB_WRITE, &scope, fault);
	if (r < 0)
		return r;
	r = open_log(agent, migration, disk, &log, fault);
	if (r == 0)
		r = apply(log, runs, n_runs, fault);
	return db_end(&scope, r, fault);
}

int extent_log_add(struct agent_db *agent, const char *migration, unsigned disk,
	const struct extent *extents, size_t n, struct fault *fault)
{
	return change(agent, migration, disk, extents, n, add_all, fault);
}

int extent_log_remove(struct agent_db *agent, const char *migration, unsigned disk,
	const struct extent *extents, size_t n, struct fault *fault)
{
	return change(agent, migration, disk, extents, n, remove_all, fault);
}

/* As far as they lie at or after `from`. */
static int read_rows(struct log log, uint64_t from, struct extent *extents, size_t max,
	size_t *ret_n, struct fault *fault)
{
	struct reader reader = {.log = log, .batch = BATCH_MIN};
	struct extent row;
	size_t n = 0;
	int r = 0;

	while (from < INT64_MAX && n < max &&
		(r = reader_seek(&reader, from + 1, &row, fault)) > 0) {
		uint64_t begin = MAX(row.offset, from);
		from = extent_end(row);
		extents[n++] = (struct extent){begin, from - begin};
	}
	if (r >= 0)
		*ret_n = n;
	return r < 0 ? r : 0;
}

int extent_log_read(struct agent_db *agent, const char *migration, unsigned disk, uint64_t from,
	struct extent *extents, size_t max, size_t *ret_n, struct fault *fault)
{
	struct db_scope scope;
	struct log log;

	int r = db_begin(agent->db, DB_READ, &scope, fault);
	if (r < 0)
		return r;
	r = open_log(agent, migration, disk, &log, fault);
	if (r == 0)
		r = read_rows(log, from, extents, max, ret_n, fault);
	return db_end(&scope, r, fault);
}

static int read_total(struct log log, uint64_t *ret_bytes, uint64_t *ret_rows, struct fault *fault)
{
	struct db_query *query CLEANUP_QUERY = NULL;

	int r = db_query(log.db, &query, fault,
		"SELECT ifnull(sum(length), 0), count(*) FROM extents "
		"WHERE migration = ? AND disk = ?",
		"ii", log.migration, log.disk);
	if (r == 0)
		r = db_next(query, fault);
	if (r < 0)
		return r;
	if (ret_bytes)
		*ret_bytes = (uint64_t)db_column_int(query, 0);
	if (ret_rows)
		*ret_rows = (uint64_t)db_column_int(query, 1);
	return 0;
}

int extent_log_total(struct agent_db *agent, const char *migration, unsigned disk,
	uint64_t *ret_bytes, uint64_t *ret_rows, struct fault *fault)
{
	struct db_scope scope;
	struct log log;

	int r = db_begin(agent->db, DB_READ, &scope, fault);
	if (r < 0)
		return r;
	r = open_log(agent, migration, disk, &log, fault);
	if (r == 0)
		r = read_total(log, ret_bytes, ret_rows, fault);
	return db_end(&scope, r, fault);
}
