/* SPDX-License-Identifier: Apache-2.0 */
/* Migrations: the state moves by compare-and-set, and every move is logged with it. */
#include "base/alloc.h"
#include "base/clock.h"
#include "schema/agent_private.h"

#include <errno.h>
#include <string.h>

#define COLUMNS "SELECT uuid, role, state, document, created, finished FROM migrations"

void migration_row_clear(struct migration_row *row)
{
	free(row->uuid);
	value_free(row->document);
	*row = (struct migration_row){0};
}

static int not_found(const char *uuid, struct fault *fault)
{
	return fault_text(fault, -ENOENT, "there is no migration %s on this host", uuid);
}

int migration_find_id(
	struct agent_db *agent, const char *uuid, int64_t *ret_id, struct fault *fault)
{
	int r = db_read_int(
		agent->db, ret_id, fault, "SELECT id FROM migrations WHERE uuid = ?", "t", uuid);

	if (r != 0)
		return r < 0 ? r : 0;
	return not_found(uuid, fault);
}

/* --- Insert and read ---------------------------------------------------------------------------
 */

static int insert(struct agent_db *agent, const struct migration_row *row, struct fault *fault)
{
	char *document CLEANUP_FREE = row->document ? document_text(row->document) : xstrdup("{}");
	int64_t id;

	int r = db_read_int(
		agent->db, &id, fault, "SELECT id FROM migrations WHERE uuid = ?", "t", row->uuid);
	if (r < 0)
		return r;
	if (r > 0)
		return fault_text(
			fault, -EEXIST, "migration %s is known on this host already", row->uuid);
	return db_run(agent->db, fault,
		"INSERT INTO migrations (uuid, role, state, document, created, finished) "
		"VALUES (?, ?, ?, ?, ?, ?)",
		"ttttii", row->uuid, migration_role_name(row->role),
		migration_state_name(row->state), document, row->created, row->finished);
}

int migration_insert(struct agent_db *agent, const struct migration_row *row, struct fault *fault)
{
	struct db_scope scope;

	int r = db_begin(agent->db, DB_WRITE, &scope, fault);
	if (r < 0)
		return r;
	return db_end(&scope, insert(agent, row, fault), fault);
}

static int read_row(struct db_query *query, struct migration_row *row, struct fault *fault)
{
	const char *state = db_column_text(query, 2);

	row->uuid = xstrdup(db_column_text(query, 0));
	row->role = strcmp(db_column_text(query, 1), "sender") == 0 ? ROLE_SENDER : ROLE_RECEIVER;
	row->created = db_column_int(query, 4);
	row->finished = db_column_int(query, 5);
	if (migration_state_parse(state, &row->state) < 0)
		return fault_text(fault, -EBADMSG,
			"migration %s: this program does not know its state %s", row->uuid, state);
	return document_parse(query, 3, &row->document, fault);
}

static int load(struct agent_db *agent, const char *uuid, struct migration_row *ret_row,
	struct fault *fault)
{
	struct migration_row row CLEANUP(migration_row_clear) = {0};
	struct db_query *query CLEANUP_QUERY = NULL;

	int r = db_query(agent->db, &query, fault, COLUMNS " WHERE uuid = ?", "t", uuid);
	if (r == 0)
		r = db_next(query, fault);
	if (r <= 0)
		return r;
	r = read_row(query, &row, fault);
	if (r < 0)
		return r;
	*ret_row = row;
	row = (struct migration_row){0};
	return 1;
}

int migration_load(struct agent_db *agent, const char *uuid, struct migration_row *ret_row,
	struct fault *fault)
{
	struct db_scope scope;

	int r = db_begin(agent->db, DB_READ, &scope, fault);
	if (r < 0)
		return r;
	return db_end(&scope, load(agent, uuid, ret_row, fault), fault);
}

struct rows {
	struct migration_row *items;
	size_t n;
};

static void rows_clear(struct rows *rows)
{
	for (size_t i = 0; i < rows->n; i++)
		migration_row_clear(&rows->items[i]);
	free(rows->items);
}

static int list(
	struct agent_db *agent, bool unfinished_only, struct rows *rows, struct fault *fault)
{
	struct db_query *query CLEANUP_QUERY = NULL;

	int r = db_query(agent->db, &query, fault,
		COLUMNS " WHERE finished = 0 OR NOT ? ORDER BY id DESC", "i",
		(int64_t)unfinished_only);
	while (r == 0 && (r = db_next(query, fault)) > 0) {
		rows->items = xrealloc(rows->items, rows->n + 1, sizeof(*rows->items));
		rows->items[rows->n] = (struct migration_row){0};
		r = read_row(query, &rows->items[rows->n++], fault);
	}
	return r;
}

int migration_list(struct agent_db *agent, bool unfinished_only, struct migration_row **ret_rows,
	size_t *ret_n, struct fault *fault)
{
	struct rows rows CLEANUP(rows_clear) = {0};
	struct db_scope scope;

	int r = db_begin(agent->db, DB_READ, &scope, fault);
	if (r < 0)
		return r;
	r = db_end(&scope, list(agent, unfinished_only, &rows, fault), fault);
	if (r < 0)
		return r;
	*ret_n = rows.n;
	*ret_rows = TAKE_PTR(rows.items);
	rows.n = 0;
	return 0;
}

/* --- Moves ----------------------------------------------------------------------------------- */

static bool is_final(enum migration_state state)
{
	return state == STATE_DONE || state == STATE_CANCELLED || state == STATE_FAILED;
}

/* The compare-and-set did not find the state that it expects. */
static int stale(struct agent_db *agent, const char *uuid, enum migration_state from,
	enum migration_state to, struct fault *fault)
{
	struct migration_row row CLEANUP(migration_row_clear) = {0};

	int r = load(agent, uuid, &row, fault);
	if (r < 0)
		return r;
	if (r == 0)
		return not_found(uuid, fault);
	return fault_text(fault, -ESTALE, "migration %s is %s: it cannot go from %s to %s", uuid,
		migration_state_name(row.state), migration_state_name(from),
		migration_state_name(to));
}

static int move(struct agent_db *agent, const char *uuid, enum migration_state from,
	enum migration_state to, const char *event, const char *document, struct fault *fault)
{
	int64_t now = clock_wall_sec();
	int64_t id = 0;

	int r = db_run(agent->db, fault,
		"UPDATE migrations SET state = ?1, document = ifnull(?2, document), "
		"finished = CASE WHEN ?3 THEN ?4 ELSE finished END WHERE uuid = ?5 AND state = ?6",
		"ttiitt", migration_state_name(to), document, (int64_t)is_final(to), now, uuid,
		migration_state_name(from));
	if (r < 0)
		return r;
	if (db_changes(agent->db) == 0)
		return stale(agent, uuid, from, to, fault);
	r = migration_find_id(agent, uuid, &id, fault);
	if (r < 0)
		return r;
	return db_run(agent->db, fault,
		"INSERT INTO moves (migration, at, from_state, to_state, event) "
		"VALUES (?, ?, ?, ?, ?)",
		"iittt", id, now, migration_state_name(from), migration_state_name(to),
		event ? event : "");
}

int migration_move(struct agent_db *agent, const char *uuid, enum migration_state from,
	enum migration_state to, const char *event, const struct value *document,
	struct fault *fault)
{
	char *text CLEANUP_FREE = document_text(document);
	struct db_scope scope;

	int r = db_begin(agent->db, DB_WRITE, &scope, fault);
	if (r < 0)
		return r;
	return db_end(&scope, move(agent, uuid, from, to, event, text, fault), fault);
}

int migration_save_document(
	struct agent_db *agent, const char *uuid, const struct value *document, struct fault *fault)
{
	char *text CLEANUP_FREE = document_text(document);
	struct db_scope scope;

	int r = db_begin(agent->db, DB_WRITE, &scope, fault);
	if (r < 0)
		return r;
	r = db_run(agent->db, fault, "UPDATE migrations SET document = ? WHERE uuid = ?", "tt",
		text, uuid);
	if (r == 0 && db_changes(agent->db) == 0)
		r = not_found(uuid, fault);
	return db_end(&scope, r, fault);
}

static int read_moves(
	struct agent_db *agent, const char *uuid, struct value *moves, struct fault *fault)
{
	struct db_query *query CLEANUP_QUERY = NULL;
	int64_t id = 0;

	int r = migration_find_id(agent, uuid, &id, fault);
	if (r == 0)
		r = db_query(agent->db, &query, fault,
			"SELECT at, from_state, to_state, event FROM moves WHERE migration = ? "
			"ORDER BY id",
			"i", id);
	if (r < 0)
		return r;
	while ((r = db_next(query, fault)) > 0) {
		struct value *line = value_new_struct();
		value_set(line, "at", value_new_datetime(db_column_int(query, 0)));
		value_set_string(line, "from", db_column_text(query, 1));
		value_set_string(line, "to", db_column_text(query, 2));
		value_set_string(line, "event", db_column_text(query, 3));
		value_append(moves, line);
	}
	return r;
}

int migration_moves(
	struct agent_db *agent, const char *uuid, struct value **ret_moves, struct fault *fault)
{
	struct value *moves CLEANUP_VALUE = value_new_array();
	struct db_scope scope;

	int r = db_begin(agent->db, DB_READ, &scope, fault);
	if (r < 0)
		return r;
	r = db_end(&scope, read_moves(agent, uuid, moves, fault), fault);
	if (r == 0)
		*ret_moves = TAKE_PTR(moves);
	return r;
}

/* --- Forgetting ------------------------------------------------------------------------------ */

static int forget(struct agent_db *agent, const char *uuid, struct fault *fault)
{
	struct db_query *query CLEANUP_QUERY = NULL;

	int r = db_query(agent->db, &query, fault,
		"SELECT kind, name FROM resources WHERE owner = ? LIMIT 1", "t", uuid);
	if (r == 0)
		r = db_next(query, fault);
	if (r < 0)
		return r;
	if (r > 0)
		return fault_text(fault, -EBUSY,
			"migration %s cannot be forgotten: its %s %s is still recorded", uuid,
			db_column_text(query, 0), db_column_text(query, 1));
	return db_run(agent->db, fault, "DELETE FROM migrations WHERE uuid = ?", "t", uuid);
}

int migration_forget(struct agent_db *agent, const char *uuid, struct fault *fault)
{
	struct db_scope scope;

	int r = db_begin(agent->db, DB_WRITE, &scope, fault);
	if (r < 0)
		return r;
	return db_end(&scope, forget(agent, uuid, fault), fault);
}
