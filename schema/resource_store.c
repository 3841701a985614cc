/* SPDX-License-Identifier: Apache-2.0 */
/* The journal of what exists outside the database. The row comes before the thing and goes after
 * it, so that whatever may exist after a crash has a row. */
#include "base/alloc.h"
#include "schema/agent_private.h"

#include <errno.h>
#include <string.h>

void resource_row_clear(struct resource_row *row)
{
	free(row->owner);
	free(row->kind);
	free(row->name);
	value_free(row->detail);
	*row = (struct resource_row){0};
}

/* 1 found, 0 not. */
static int find(struct agent_db *agent, const char *owner, const char *kind, const char *name,
	int64_t *ret_id, struct fault *fault)
{
	struct db_query *query CLEANUP_QUERY = NULL;

	int r = db_query(agent->db, &query, fault,
		"SELECT id, owner FROM resources WHERE kind = ? AND name = ?", "tt", kind, name);
	if (r == 0)
		r = db_next(query, fault);
	if (r <= 0)
		return r;
	const char *other = db_column_text(query, 1);
	if (strcmp(owner, other) != 0)
		return fault_text(fault, -EEXIST, "%s %s belongs to %s%s already", kind, name,
			*other ? "migration " : "this host", other);
	*ret_id = db_column_int(query, 0);
	return 1;
}

static int record(struct agent_db *agent, const char *owner, const char *kind, const char *name,
	const char *detail, int64_t *ret_id, struct fault *fault)
{
	int r = find(agent, owner, kind, name, ret_id, fault);

	if (r < 0)
		return r;
	if (r > 0)
		return db_run(agent->db, fault,
			"UPDATE resources SET detail = ifnull(?, detail) WHERE id = ?", "ti",
			detail, *ret_id);
	r = db_run(agent->db, fault,
		"INSERT INTO resources (owner, kind, name, detail) VALUES (?, ?, ?, ?)", "tttt",
		owner, kind, name, detail);
	return r < 0 ? r : find(agent, owner, kind, name, ret_id, fault);
}

int resource_record(struct agent_db *agent, const char *owner, const char *kind, const char *name,
	const struct value *detail, int64_t *ret_id, struct fault *fault)
{
	char *text CLEANUP_FREE = document_text(detail);
	struct db_scope scope;
	int64_t id = 0;

	int r = db_begin(agent->db, DB_WRITE, &scope, fault);
	if (r < 0)
		return r;
	r = db_end(&scope, record(agent, owner, kind, name, text, &id, fault), fault);
	if (r < 0)
		return r;
	if (ret_id)
		*ret_id = id;
	return 0;
}

int resource_forget(struct agent_db *agent, int64_t id, struct fault *fault)
{
	struct db_scope scope;

	int r = db_begin(agent->db, DB_WRITE, &scope, fault);
	if (r < 0)
		return r;
	r = db_run(agent->db, fault, "DELETE FROM resources WHERE id = ?", "i", id);
	return db_end(&scope, r, fault);
}

int resource_forget_name(
	struct agent_db *agent, const char *kind, const char *name, struct fault *fault)
{
	struct db_scope scope;

	int r = db_begin(agent->db, DB_WRITE, &scope, fault);
	if (r < 0)
		return r;
	r = db_run(agent->db, fault, "DELETE FROM resources WHERE kind = ? AND name = ?", "tt",
		kind, name);
	return db_end(&scope, r, fault);
}

int resource_give(struct agent_db *agent, const char *kind, const char *name, const char *owner,
	struct fault *fault)
{
	struct db_scope scope;

	int r = db_begin(agent->db, DB_WRITE, &scope, fault);
	if (r < 0)
		return r;
	r = db_run(agent->db, fault, "UPDATE resources SET owner = ? WHERE kind = ? AND name = ?",
		"ttt", owner, kind, name);
	return db_end(&scope, r, fault);
}

struct rows {
	struct resource_row *items;
	size_t n;
};

static void rows_clear(struct rows *rows)
{
	for (size_t i = 0; i < rows->n; i++)
		resource_row_clear(&rows->items[i]);
	free(rows->items);
}

static int list(struct agent_db *agent, const char *owner, const char *kind, struct rows *rows,
	struct fault *fault)
{
	struct db_query *query CLEANUP_QUERY = NULL;

	int r = db_query(agent->db, &query, fault,
		"SELECT id, owner, kind, name, detail FROM resources "
		"WHERE owner = ifnull(?, owner) AND kind = ifnull(?, kind) ORDER BY id DESC",
		"tt", owner, kind);
	while (r == 0 && (r = db_next(query, fault)) > 0) {
		rows->items = xrealloc(rows->items, rows->n + 1, sizeof(*rows->items));
		struct resource_row *row = &rows->items[rows->n++];
		*row = (struct resource_row){.id = db_column_int(query, 0),
			.owner = xstrdup(db_column_text(query, 1)),
			.kind = xstrdup(db_column_text(query, 2)),
			.name = xstrdup(db_column_text(query, 3))};
		r = document_parse(query, 4, &row->detail, fault);
	}
	return r;
}

int resource_list(struct agent_db *agent, const char *owner, const char *kind,
	struct resource_row **ret_rows, size_t *ret_n, struct fault *fault)
{
	struct rows rows CLEANUP(rows_clear) = {0};
	struct db_scope scope;

	int r = db_begin(agent->db, DB_READ, &scope, fault);
	if (r < 0)
		return r;
	r = db_end(&scope, list(agent, owner, kind, &rows, fault), fault);
	if (r < 0)
		return r;
	*ret_n = rows.n;
	*ret_rows = TAKE_PTR(rows.items);
	rows.n = 0;
	return 0;
}
