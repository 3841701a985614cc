/* SPDX-License-Identifier: Apache-2.0 */
/* The back end whose statements another host runs: see db_remote.h. */
#include "schema/db_remote.h"

#include "base/alloc.h"
#include "base/cancel.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/uuid.h"
#include "schema/db_private.h"

#include <errno.h>
#include <string.h>

#define RETRY_MIN_USEC (5 * USEC_PER_MSEC)
#define RETRY_MAX_USEC (200 * USEC_PER_MSEC)
/* More statements than that are not held back. */
#define QUEUE_MAX 256

struct remote_query {
	struct db_query base;
	char *sql;
	struct value *parameters; /* array */
	struct value *rows;       /* NULL until answered */
	size_t n_given;
	bool is_queued;
};

struct queued {
	struct value *statement;    /* as in the message */
	struct remote_query *query; /* who waits for the rows; NULL: nobody */
};

struct remote_db {
	struct db base;
	struct db_transport transport;
	char *transaction; /* NULL outside of a DB_WRITE scope */
	int64_t n_sent;
	bool is_undone;
	bool is_down; /* the last message found nobody: the next one does not wait for long */
	struct queued *queue;
	size_t n_queued;
	int64_t changes;
};

static struct remote_db *of(struct db *base)
{
	return (struct remote_db *)base;
}

static struct remote_query *query_of(struct db_query *base)
{
	return (struct remote_query *)base;
}

/* --- Messages ----------------------------------------------------------------------------------
 */

static int ask(struct remote_db *db, const char *request, uint64_t patience_usec, char **ret_answer,
	struct fault *fault)
{
	uint64_t deadline = db->is_down ? 0 : clock_deadline(patience_usec);
	uint64_t pause = RETRY_MIN_USEC;
	int r;

	for (;;) {
		struct fault why CLEANUP_FAULT = FAULT_INIT;
		r = db->transport.call(db->transport.arg, request, ret_answer, &why);
		bool is_answered = r == 0 || r == -EREMOTEIO;
		if (is_answered || r == -ECANCELED || clock_now_usec() >= deadline) {
			db->is_down = !is_answered;
			if (r < 0 && fault)
				fault_move(fault, &why);
			return r;
		}
		cancel_sleep(NULL, pause);
		pause = MIN(pause * 2, RETRY_MAX_USEC);
	}
}

static void queue_clear(struct remote_db *db)
{
	for (size_t i = 0; i < db->n_queued; i++) {
		value_free(db->queue[i].statement);
		if (db->queue[i].query)
			db->queue[i].query->is_queued = false;
	}
	db->n_queued = 0;
}

/* The statements move into the message; who waits for them stays. */
static char *compose(struct remote_db *db, const char *end)
{
	struct value *message CLEANUP_VALUE = value_new_struct();
	struct value *statements = value_new_array();
	struct buf text CLEANUP_BUF = BUF_INIT;

	for (size_t i = 0; i < db->n_queued; i++)
		value_append(statements, TAKE_PTR(db->queue[i].statement));
	value_set_string(message, "transaction", db->transaction ? db->transaction : "");
	value_set_int(message, "number", db->n_sent);
	value_set_string(message, "end", end);
	value_set(message, "statements", statements);
	json_encode(message, &text);
	return buf_take_string(&text);
}

static int take_answer(struct remote_db *db, const char *text, struct fault *fault)
{
	struct value *answer CLEANUP_VALUE = NULL;

	int r = json_decode(text, strlen(text), NULL, &answer, fault);
	if (r < 0)
		return r;
	struct value *results = value_find(answer, "results");
	for (size_t i = 0; i < db->n_queued; i++) {
		struct value *result =
			results && results->type == VALUE_ARRAY && i < results->array.n_items
				? results->array.items[i]
				: NULL;
		struct remote_query *query = db->queue[i].query;
		struct value *rows = value_find(result, "rows");
		db->changes = value_find_int(result, "changes", 0);
		if (!query)
			continue;
		if (!rows || rows->type != VALUE_ARRAY)
			return fault_text(fault, -EBADMSG,
				"database %s: the answer has no rows for a statement",
				db->base.path);
		query->rows = value_copy(rows);
		query->n_given = 0;
	}
	return 0;
}

/* Sends what is held back. end: "", "commit" or "rollback". */
static int flush(struct remote_db *db, const char *end, struct fault *fault)
{
	char *request CLEANUP_FREE = compose(db, end);
	uint64_t patience = strcmp(end, "commit") == 0 ? db->transport.commit_patience_usec
						       : db->transport.patience_usec;
	char *answer CLEANUP_FREE = NULL;

	int r = ask(db, request, patience, &answer, fault);
	db->n_sent++;
	if (r == 0 && !*end)
		r = take_answer(db, answer, fault);
	if (r < 0)
		db->is_undone = db->transaction != NULL;
	queue_clear(db);
	return r;
}

static int enqueue(struct remote_db *db, struct value *statement, struct remote_query *query,
	struct fault *fault)
{
	db->queue = xrealloc(db->queue, db->n_queued + 1, sizeof(*db->queue));
	db->queue[db->n_queued++] = (struct queued){statement, query};
	if (query)
		query->is_queued = true;
	return db->n_queued < QUEUE_MAX ? 0 : flush(db, "", fault);
}

/* --- Transactions ------------------------------------------------------------------------------
 */

static int remote_begin(struct db *base, enum db_mode mode, struct fault *fault)
{
	struct remote_db *db = of(base);

	(void)fault;
	db->n_sent = 0;
	db->is_undone = false;
	free(TAKE_PTR(db->transaction));
	if (mode == DB_WRITE)
		db->transaction = uuid_new();
	return 0;
}

static void forget(struct remote_db *db)
{
	queue_clear(db);
	free(TAKE_PTR(db->transaction));
}

static int remote_commit(struct db *base, struct fault *fault)
{
	struct remote_db *db = of(base);
	int r = 0;

	/* A reader has nothing to end, nor a writer that asked for nothing. */
	if (db->transaction && (db->n_sent > 0 || db->n_queued > 0))
		r = flush(db, "commit", fault);
	forget(db);
	return r;
}

static void remote_rollback(struct db *base)
{
	struct remote_db *db = of(base);

	queue_clear(db);
	if (db->transaction && db->n_sent > 0 && !db->is_undone)
		flush(db, "rollback", NULL);
	forget(db);
}

static bool remote_is_undone(struct db *base)
{
	return of(base)->is_undone;
}

static int remote_exec(struct db *base, const char *sql, struct fault *fault)
{
	return enqueue(of(base), value_new_string(sql), NULL, fault);
}

static int64_t remote_changes(struct db *base)
{
	struct remote_db *db = of(base);

	if (db->n_queued > 0)
		flush(db, "", NULL);
	return db->changes;
}

static void remote_close(struct db *base)
{
	forget(of(base));
	free(of(base)->queue);
}

/* --- Statements --------------------------------------------------------------------------------
 */

static int remote_prepare(
	struct db *base, const char *sql, struct db_query **ret_query, struct fault *fault)
{
	struct remote_query *query = xcalloc(1, sizeof(*query));

	(void)fault;
	query->base.db = base;
	query->sql = xstrdup(sql);
	query->parameters = value_new_array();
	*ret_query = &query->base;
	return 0;
}

static void stop_waiting(struct remote_query *query)
{
	struct remote_db *db = of(query->base.db);

	for (size_t i = 0; query->is_queued && i < db->n_queued; i++)
		if (db->queue[i].query == query)
			db->queue[i].query = NULL;
	query->is_queued = false;
	query->rows = value_free(query->rows);
}

static void remote_reset(struct db_query *base)
{
	struct remote_query *query = query_of(base);

	stop_waiting(query);
	value_free(query->parameters);
	query->parameters = value_new_array();
}

static void remote_release(struct db_query *base)
{
	struct remote_query *query = query_of(base);

	stop_waiting(query);
	value_free(query->parameters);
	free(query->sql);
	free(query);
}

static int remote_bind(struct db_query *base, int position, const struct db_parameter *parameter,
	struct fault *fault)
{
	struct value *parameters = query_of(base)->parameters;
	struct value *value;

	if (parameter->type == 'b')
		return fault_text(fault, -ENOTSUP,
			"database %s: blobs are not sent to another host", base->db->path);
	while (parameters->array.n_items < (size_t)position)
		value_append(parameters, value_new_nil());
	if (parameter->type == 't')
		value = value_new_string(parameter->text);
	else if (parameter->type == 'i')
		value = value_new_int(parameter->integer);
	else if (parameter->type == 'f')
		value = value_new_double(parameter->real);
	else
		value = value_new_nil();
	value_free(parameters->array.items[position - 1]);
	parameters->array.items[position - 1] = value;
	return 0;
}

/* [sql, parameter, ...] */
static struct value *statement_new(const struct remote_query *query)
{
	struct value *statement = value_new_array();

	value_append_string(statement, query->sql);
	for (size_t i = 0; i < query->parameters->array.n_items; i++)
		value_append(statement, value_copy(query->parameters->array.items[i]));
	return statement;
}

static int remote_start(struct db_query *base, struct fault *fault)
{
	struct remote_query *query = query_of(base);

	return enqueue(of(base->db), statement_new(query), query, fault);
}

static int remote_next(struct db_query *base, struct fault *fault)
{
	struct remote_query *query = query_of(base);
	struct remote_db *db = of(base->db);
	int r = 0;

	if (!query->rows && !query->is_queued && db->is_undone)
		return db_fault_undone(base->db, fault);
	if (!query->rows && !query->is_queued)
		r = remote_start(base, fault);
	if (r == 0 && !query->rows)
		r = flush(db, "", fault);
	if (r < 0)
		return r;
	return query->n_given < query->rows->array.n_items ? (int)!!++query->n_given : 0;
}

/* Nobody looks at the rows: the statement is held back. */
static int remote_finish(struct db_query *base, struct fault *fault)
{
	struct remote_query *query = query_of(base);
	struct remote_db *db = of(base->db);

	if (query->rows || query->is_queued)
		return 0;
	/* The server refuses what writes outside of a transaction. */
	if (!db->transaction)
		return remote_next(base, fault);
	return db->is_undone ? db_fault_undone(base->db, fault)
			     : enqueue(db, statement_new(query), NULL, fault);
}

/* --- Columns -----------------------------------------------------------------------------------
 */

static const struct value *column_of(struct db_query *base, int column)
{
	static const struct value nothing = {.type = VALUE_NIL};
	const struct remote_query *query = query_of(base);
	const struct value *row = query->n_given > 0 && query->rows
					  ? query->rows->array.items[query->n_given - 1]
					  : &nothing;

	return row->type == VALUE_ARRAY && (size_t)column < row->array.n_items
		       ? row->array.items[column]
		       : &nothing;
}

static int64_t remote_column_int(struct db_query *base, int column)
{
	const struct value *value = column_of(base, column);

	return value->type == VALUE_INT ? value->integer : 0;
}

static double remote_column_real(struct db_query *base, int column)
{
	const struct value *value = column_of(base, column);

	if (value->type == VALUE_DOUBLE)
		return value->real;
	return value->type == VALUE_INT ? (double)value->integer : 0;
}

static const char *remote_column_text(struct db_query *base, int column)
{
	return value_string(column_of(base, column), NULL);
}

static const void *remote_column_blob(struct db_query *base, int column, size_t *ret_length)
{
	const char *text = remote_column_text(base, column);

	*ret_length = text ? strlen(text) : 0;
	return text;
}

/* --- Life ---------------------------------------------------------------------------------------
 */

static const struct db_backend remote_backend = {
	.begin = remote_begin,
	.commit = remote_commit,
	.rollback = remote_rollback,
	.is_undone = remote_is_undone,
	.exec = remote_exec,
	.prepare = remote_prepare,
	.release = remote_release,
	.reset = remote_reset,
	.bind = remote_bind,
	.start = remote_start,
	.next = remote_next,
	.finish = remote_finish,
	.changes = remote_changes,
	.column_int = remote_column_int,
	.column_real = remote_column_real,
	.column_text = remote_column_text,
	.column_blob = remote_column_blob,
	.close = remote_close,
};

struct db *db_open_remote(const struct db_transport *transport)
{
	struct remote_db *db = xcalloc(1, sizeof(*db));

	db_init(&db->base, &remote_backend, "of the pool");
	db->transport = *transport;
	return &db->base;
}
