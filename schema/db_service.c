/* SPDX-License-Identifier: Apache-2.0 */
/* Serving a database to other hosts: see db_remote.h. */
#include "base/alloc.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "schema/db_private.h"
#include "schema/db_remote.h"

#include <errno.h>
#include <string.h>

/* How long a client waits for other writers. */
#define GATE_USEC (5 * USEC_PER_SEC)
/* So many commits are known to whoever asks for one again. */
#define COMMITS_KEPT 10000

struct db_service {
	struct db_service_params params;
	struct db *guest; /* a connection of its own, for the transactions of clients */
	struct db_gate *gate;
	pthread_mutex_t lock; /* guards the rest, and guest */
	char *transaction;    /* that is open; NULL: none */
	char *client;
	int64_t number; /* of its last message */
	char *answer;   /* to that */
	uint64_t lease_end_usec;
};

struct message {
	struct value *value;
	const char *client;
	const char *transaction;
	int64_t number;
	const char *end;
	const struct value *statements;
};

static void message_clear(struct message *message)
{
	value_free(message->value);
}

static int read_message(
	const char *client, const char *request, struct message *message, struct fault *fault)
{
	int r = json_decode(request, strlen(request), NULL, &message->value, fault);

	if (r < 0)
		return r;
	message->client = client;
	message->transaction = value_find_string(message->value, "transaction", NULL);
	message->number = value_find_int(message->value, "number", -1);
	message->end = value_find_string(message->value, "end", NULL);
	message->statements = value_find(message->value, "statements");
	if (message->transaction && message->number >= 0 && message->end && message->statements &&
		message->statements->type == VALUE_ARRAY)
		return 0;
	return fault_text(fault, -EBADMSG,
		"the request of %s is not one for a database: it needs transaction, number, end "
		"and statements",
		client);
}

/* --- Statements --------------------------------------------------------------------------------
 */

static int bind(struct db_query *query, const struct value *statement, struct fault *fault)
{
	int r = 0;

	for (size_t i = 1; r == 0 && i < statement->array.n_items; i++) {
		const struct value *value = statement->array.items[i];
		struct db_parameter parameter = {.type = 'n'};
		if (value->type == VALUE_STRING)
			parameter = (struct db_parameter){.type = 't', .text = value->string};
		else if (value->type == VALUE_INT)
			parameter = (struct db_parameter){.type = 'i', .integer = value->integer};
		else if (value->type == VALUE_DOUBLE)
			parameter = (struct db_parameter){.type = 'f', .real = value->real};
		else if (value->type != VALUE_NIL)
			return fault_text(fault, -EBADMSG, "parameter %zu of a statement is a %s",
				i, value_type_name(value->type));
		r = query->db->backend->bind(query, (int)i, &parameter, fault);
	}
	return r;
}

static int collect(struct db_query *query, struct value **ret_result, struct fault *fault)
{
	struct value *result CLEANUP_VALUE = value_new_struct();
	struct value *rows = value_new_array();
	int r;

	value_set(result, "rows", rows);
	while ((r = db_next(query, fault)) > 0)
		value_append(rows, db_sqlite_row(query));
	if (r < 0)
		return r;
	value_set_int(result, "changes", db_changes(query->db));
	*ret_result = TAKE_PTR(result);
	return 0;
}

static int run_one(struct db *db, const struct value *statement, bool may_write,
	struct value **ret_result, struct fault *fault)
{
	struct db_query *query CLEANUP_QUERY = NULL;

	if (statement->type == VALUE_STRING && may_write) {
		*ret_result = value_new_nil();
		return db->backend->exec(db, statement->string, fault);
	}
	if (statement->type != VALUE_ARRAY || statement->array.n_items == 0 ||
		statement->array.items[0]->type != VALUE_STRING)
		return fault_text(fault, -EBADMSG, "a statement must be [sql, parameter, ...]");
	const char *sql = statement->array.items[0]->string;
	int r = db_query(db, &query, fault, sql, "");
	if (r == 0 && !may_write && !db_sqlite_is_read_only(query))
		r = fault_text(
			fault, -EROFS, "a statement writes outside of a transaction: %s", sql);
	if (r == 0)
		r = bind(query, statement, fault);
	return r < 0 ? r : collect(query, ret_result, fault);
}

static int run_all(struct db *db, const struct message *message, bool may_write,
	struct value *results, struct fault *fault)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < message->statements->array.n_items; i++) {
		struct value *result = NULL;
		r = run_one(db, message->statements->array.items[i], may_write, &result, fault);
		value_append(results, result ? result : value_new_nil());
	}
	return r;
}

static char *answer_new(struct value *results)
{
	struct value *answer CLEANUP_VALUE = value_new_struct();
	struct buf text CLEANUP_BUF = BUF_INIT;

	value_set(answer, "results", results);
	json_encode(answer, &text);
	return buf_take_string(&text);
}

static int serve_read(struct db_service *service, const struct message *message, char **ret_answer,
	struct fault *fault)
{
	struct value *results CLEANUP_VALUE = value_new_array();
	struct db_scope scope;

	int r = db_begin(service->params.db, DB_READ, &scope, fault);
	if (r < 0)
		return r;
	r = db_end(&scope, run_all(service->params.db, message, false, results, fault), fault);
	if (r == 0)
		*ret_answer = answer_new(TAKE_PTR(results));
	return r;
}

/* --- The open transaction: under the lock -------------------------------------------------------
 */

static void forget(struct db_service *service)
{
	service->guest->depth = 0;
	free(TAKE_PTR(service->transaction));
	free(TAKE_PTR(service->client));
	free(TAKE_PTR(service->answer));
	db_gate_release(service->gate);
}

static void roll_back(struct db_service *service)
{
	service->guest->backend->rollback(service->guest);
	forget(service);
}

static int open_transaction(
	struct db_service *service, const struct message *message, struct fault *fault)
{
	struct db *guest = service->guest;
	int r = guest->backend->begin(guest, DB_WRITE, fault);

	if (r < 0) {
		db_gate_release(service->gate);
		return r;
	}
	guest->depth = 1;
	guest->began_file = message->client;
	guest->began_line = 0;
	service->transaction = xstrdup(message->transaction);
	service->client = xstrdup(message->client);
	return 0;
}

/* Stored with what it commits: whoever asks again learns of it. */
static int record_commit(struct db_service *service, struct fault *fault)
{
	struct db *guest = service->guest;
	int r = db_run(guest, fault,
		"INSERT INTO remote_commits (transaction_id, client, decided_at) VALUES (?, ?, ?)",
		"tti", service->transaction, service->client, clock_wall_sec());

	return r < 0 ? r
		     : db_run(guest, fault,
			       "DELETE FROM remote_commits WHERE id <= "
			       "(SELECT max(id) FROM remote_commits) - ?",
			       "i", (int64_t)COMMITS_KEPT);
}

static int commit(struct db_service *service, struct fault *fault)
{
	struct db *guest = service->guest;
	int r = record_commit(service, fault);

	if (r == 0 && service->params.committing)
		r = service->params.committing(service->params.arg, guest, fault);
	if (r == 0)
		r = guest->backend->commit(guest, fault);
	if (r < 0)
		return r;
	if (service->params.committed)
		service->params.committed(service->params.arg);
	forget(service);
	return 0;
}

static void extend_lease(struct db_service *service)
{
	service->lease_end_usec = clock_deadline(service->params.lease_usec);
	db_gate_set_lease(service->gate, service->lease_end_usec);
}

/* ret_committed: it was, just now. */
static int run_open(struct db_service *service, const struct message *message, char **ret_answer,
	bool *ret_committed, struct fault *fault)
{
	struct value *results CLEANUP_VALUE = value_new_array();

	if (strcmp(message->end, "rollback") == 0) {
		roll_back(service);
		*ret_answer = answer_new(TAKE_PTR(results));
		return 0;
	}
	int r = run_all(service->guest, message, true, results, fault);
	if (r == 0 && strcmp(message->end, "commit") == 0) {
		r = commit(service, fault);
		*ret_committed = r == 0;
	}
	if (r < 0) {
		roll_back(service);
		return r;
	}
	*ret_answer = answer_new(TAKE_PTR(results));
	if (*ret_committed)
		return 0;
	service->number = message->number;
	free(service->answer);
	service->answer = xstrdup(*ret_answer);
	extend_lease(service);
	return 0;
}

static void expire(void *arg)
{
	struct db_service *service = arg;

	SCOPE_LOCK(&service->lock);
	if (!service->transaction || clock_now_usec() < service->lease_end_usec)
		return;
	log_warn("DB_LEASE_ENDED", "client=%s: its transaction was rolled back", service->client);
	roll_back(service);
}

/* --- Messages ----------------------------------------------------------------------------------
 */

static bool is_open(const struct db_service *service, const struct message *message)
{
	return service->transaction && strcmp(service->transaction, message->transaction) == 0 &&
	       strcmp(service->client, message->client) == 0;
}

/* 1: it was, long ago, and the answer was lost. */
static int find_commit(
	struct db_service *service, const struct message *message, struct fault *fault)
{
	struct db_scope scope;
	int64_t one;

	int r = db_begin(service->params.db, DB_READ, &scope, fault);
	if (r < 0)
		return r;
	r = db_read_int(service->params.db, &one, fault,
		"SELECT 1 FROM remote_commits WHERE transaction_id = ? AND client = ?", "tt",
		message->transaction, message->client);
	return db_end(&scope, r, fault);
}

/* 1: answered. 0: it is to be begun, if it is the first. */
static int answer_again(struct db_service *service, const struct message *message,
	char **ret_answer, struct fault *fault)
{
	int r = find_commit(service, message, fault);

	if (r > 0)
		*ret_answer = answer_new(value_new_array());
	if (r != 0 || message->number == 0)
		return r;
	return fault_text(fault, -ESTALE,
		"the transaction of %s is not open: it was silent for too long and was rolled back",
		message->client);
}

static int run_next(struct db_service *service, const struct message *message, char **ret_answer,
	bool *ret_committed, struct fault *fault)
{
	if (message->number == service->number) {
		*ret_answer = xstrdup(service->answer);
		return 0;
	}
	if (message->number != service->number + 1)
		return fault_text(fault, -EPROTO, "message %lld of %s follows %lld",
			(long long)message->number, message->client, (long long)service->number);
	return run_open(service, message, ret_answer, ret_committed, fault);
}

/* 1: done. 0: no such transaction yet. */
static int serve_known(struct db_service *service, const struct message *message, char **ret_answer,
	bool *ret_committed, struct fault *fault)
{
	SCOPE_LOCK(&service->lock);
	if (!is_open(service, message))
		return answer_again(service, message, ret_answer, fault);
	int r = run_next(service, message, ret_answer, ret_committed, fault);
	return r < 0 ? r : 1;
}

/* The gate is held. */
static int serve_first(struct db_service *service, const struct message *message, char **ret_answer,
	bool *ret_committed, struct fault *fault)
{
	SCOPE_LOCK(&service->lock);
	/* The same message may have been here while this one waited. */
	int r = answer_again(service, message, ret_answer, fault);
	if (r != 0) {
		db_gate_release(service->gate);
		return r;
	}
	r = open_transaction(service, message, fault);
	return r < 0 ? r : run_open(service, message, ret_answer, ret_committed, fault);
}

static int serve_write(struct db_service *service, const struct message *message, char **ret_answer,
	struct fault *fault)
{
	bool committed = false;
	int r = serve_known(service, message, ret_answer, &committed, fault);

	if (r == 0) {
		r = db_gate_take(service->gate, clock_deadline(GATE_USEC));
		if (r < 0)
			return fault_text(fault, r,
				"database %s: another writer held it for too long; try again",
				service->guest->path);
		r = serve_first(service, message, ret_answer, &committed, fault);
	}
	if (committed && service->params.notify)
		service->params.notify(service->params.arg);
	return r < 0 ? r : 0;
}

int db_service_run(struct db_service *service, const char *client, const char *request,
	char **ret_answer, struct fault *fault)
{
	struct message message CLEANUP(message_clear) = {0};

	int r = read_message(client, request, &message, fault);
	if (r < 0)
		return r;
	return *message.transaction ? serve_write(service, &message, ret_answer, fault)
				    : serve_read(service, &message, ret_answer, fault);
}

/* --- Life ---------------------------------------------------------------------------------------
 */

int db_service_new(const struct db_service_params *params, struct db_service **ret_service,
	struct fault *fault)
{
	struct db *guest = NULL;
	int r = db_sqlite_open_again(params->db, &guest, fault);

	if (r < 0)
		return r;
	struct db_service *service = xcalloc(1, sizeof(*service));
	service->params = *params;
	if (!params->lease_usec)
		service->params.lease_usec = DB_SERVICE_LEASE_USEC;
	service->guest = guest;
	service->gate = db_gate_new();
	pthread_mutex_init(&service->lock, NULL);
	db_gate_on_expiry(service->gate, expire, service);
	params->db->gate = service->gate;
	*ret_service = service;
	return 0;
}

struct db_service *db_service_free(struct db_service *service)
{
	if (!service)
		return NULL;
	if (service->transaction)
		roll_back(service);
	service->params.db->gate = NULL;
	db_close(service->guest);
	db_gate_free(service->gate);
	pthread_mutex_destroy(&service->lock);
	free(service);
	return NULL;
}
