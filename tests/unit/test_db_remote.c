/* SPDX-License-Identifier: Apache-2.0 */
/* A database that another host serves. That the objects behave on it as on a file is tested in
 * test_objects.c; here is what only two hosts can get wrong. */
#include "tests/lib/pool_fixture.h"

#include "base/clock.h"
#include "base/json.h"
#include "schema/db.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

/* --- A line between a client and the server ----------------------------------------------------
 */

enum trouble {
	TROUBLE_NONE,
	TROUBLE_DOWN,        /* nobody answers */
	TROUBLE_LOSE_ANSWER, /* the next one */
};

struct line {
	struct pool_db *server;
	const char *client;
	enum trouble trouble;
	unsigned n_messages;
	char *last; /* request */
	struct pool_db *pool;
};

static int carry(void *arg, const char *request, char **ret_answer, struct fault *fault)
{
	struct line *line = arg;
	char *answer CLEANUP_FREE = NULL;

	free(line->last);
	line->last = xstrdup(request);
	line->n_messages++;
	if (line->trouble == TROUBLE_DOWN)
		return fixture_lose(fault);
	if (pool_db_answer(line->server, line->client, request, &answer, fault) < 0)
		return -EREMOTEIO;
	if (line->trouble == TROUBLE_LOSE_ANSWER) {
		line->trouble = TROUBLE_NONE;
		return fixture_lose(fault);
	}
	*ret_answer = TAKE_PTR(answer);
	return 0;
}

static void line_open(struct line *line, struct fixture *f, const char *client)
{
	const struct db_transport transport = {
		.call = carry, .arg = line, .patience_usec = 0, .commit_patience_usec = 10000000};

	*line = (struct line){.server = f->server, .client = client};
	line->pool = pool_db_open_remote(&transport);
}

static void line_close(struct line *line)
{
	pool_db_close(line->pool);
	free(line->last);
}

#define CLEANUP_LINE CLEANUP(line_close)

static int setup(void **state)
{
	fixture_setup(state);
	struct fixture *f = *state;

	f->server = TAKE_PTR(f->pool);
	check_ok(&f->fault, pool_db_serve(f->server, &f->fault));
	return 0;
}

static char *make_vm(struct fixture *f, struct pool_db *pool)
{
	char *ref = NULL;

	check_ok(&f->fault, object_create(pool, "VM", NULL, &ref, &f->fault));
	return ref;
}

static int64_t read_order(struct fixture *f, struct pool_db *pool, const char *vm)
{
	int64_t order = -1;

	check_ok(&f->fault, object_get_int(pool, "VM", vm, "order", &order, &f->fault));
	return order;
}

/* --- Answers that are lost ---------------------------------------------------------------------
 */

struct step {
	const char *vm;
	struct line *line;
	enum trouble trouble; /* before the commit */
};

static int add_one(struct pool_db *pool, void *arg, struct fault *fault)
{
	const struct step *step = arg;
	int64_t order = 0;
	int r = object_get_int(pool, "VM", step->vm, "order", &order, fault);

	struct value *next CLEANUP_VALUE = value_new_int(order + 1);
	if (r == 0)
		r = object_set_field(pool, "VM", step->vm, "order", next, fault);
	if (step->line)
		step->line->trouble = step->trouble;
	return r;
}

static void a_commit_whose_answer_is_lost_is_done_once(void **state)
{
	struct fixture *f = *state;
	struct line line CLEANUP_LINE;
	line_open(&line, f, "a");
	char *vm CLEANUP_FREE = make_vm(f, line.pool);
	struct step step = {vm, &line, TROUBLE_LOSE_ANSWER};
	char *answer CLEANUP_FREE = NULL;

	check_ok(&f->fault, pool_db_transaction(line.pool, add_one, &step, &f->fault));
	assert_int_equal(read_order(f, f->server, vm), 1);
	/* Also when the request comes once more, much later. */
	check_ok(&f->fault, pool_db_answer(f->server, "a", line.last, &answer, &f->fault));
	assert_int_equal(read_order(f, f->server, vm), 1);
}

static void a_commit_is_known_after_a_restart_of_the_server(void **state)
{
	struct fixture *f = *state;
	struct line line CLEANUP_LINE;
	line_open(&line, f, "a");
	char *vm CLEANUP_FREE = make_vm(f, line.pool);
	struct step step = {vm, NULL, TROUBLE_NONE};
	char *answer CLEANUP_FREE = NULL;

	check_ok(&f->fault, pool_db_transaction(line.pool, add_one, &step, &f->fault));
	pool_db_close(f->server);
	check_ok(&f->fault, pool_db_open(f->folder.database, &f->server, &f->fault));
	check_ok(&f->fault, pool_db_serve(f->server, &f->fault));
	check_ok(&f->fault, pool_db_answer(f->server, "a", line.last, &answer, &f->fault));
	assert_int_equal(read_order(f, f->server, vm), 1);
}

static void a_server_that_is_away_is_an_error_until_it_is_back(void **state)
{
	struct fixture *f = *state;
	struct line line CLEANUP_LINE;
	line_open(&line, f, "a");
	char *vm CLEANUP_FREE = make_vm(f, line.pool);
	struct step step = {vm, NULL, TROUBLE_NONE};
	int64_t order;

	line.trouble = TROUBLE_DOWN;
	check_fault(&f->fault, "CANNOT_CONTACT_HOST",
		object_get_int(line.pool, "VM", vm, "order", &order, &f->fault));
	check_fault(&f->fault, "CANNOT_CONTACT_HOST", object_check(line.pool, "VM", vm, &f->fault));
	check_fault(&f->fault, "CANNOT_CONTACT_HOST",
		pool_db_transaction(line.pool, add_one, &step, &f->fault));
	line.trouble = TROUBLE_NONE;
	check_ok(&f->fault, pool_db_transaction(line.pool, add_one, &step, &f->fault));
	assert_int_equal(read_order(f, f->server, vm), 1);
}

/* --- Clients that die --------------------------------------------------------------------------
 */

/* Begins a transaction that writes, and says no more. */
static void fall_silent(struct fixture *f, const char *client, const char *transaction)
{
	char *request CLEANUP_FREE =
		xasprintf("{\"transaction\":\"%s\",\"number\":0,\"end\":\"\",\"statements\":"
			  "[[\"UPDATE \\\"VM\\\" SET \\\"order\\\" = ?\",77]]}",
			transaction);
	char *answer CLEANUP_FREE = NULL;

	check_ok(&f->fault, pool_db_answer(f->server, client, request, &answer, &f->fault));
}

static void a_client_that_falls_silent_is_rolled_back_for_others(void **state)
{
	struct fixture *f = *state;
	struct line line CLEANUP_LINE;
	line_open(&line, f, "b");
	char *vm CLEANUP_FREE = make_vm(f, f->server);
	struct step step = {vm, NULL, TROUBLE_NONE};
	char *answer CLEANUP_FREE = NULL;

	fall_silent(f, "a", "t1");
	/* Readers do not notice. */
	assert_int_equal(read_order(f, f->server, vm), 0);
	uint64_t before = clock_now_usec();
	check_ok(&f->fault, pool_db_transaction(line.pool, add_one, &step, &f->fault));
	assert_true(clock_now_usec() - before >= DB_SERVICE_LEASE_USEC / 2);
	check_ok(&f->fault, pool_db_transaction(f->server, add_one, &step, &f->fault));
	assert_int_equal(read_order(f, f->server, vm), 2);
	check_fault(&f->fault, "INTERNAL_ERROR",
		pool_db_answer(f->server, "a",
			"{\"transaction\":\"t1\",\"number\":1,\"end\":\"commit\",\"statements\":[]"
			"}",
			&answer, &f->fault));
	assert_int_equal(read_order(f, f->server, vm), 2);
}

static void a_transaction_belongs_to_who_began_it(void **state)
{
	struct fixture *f = *state;
	char *vm CLEANUP_FREE = make_vm(f, f->server);
	char *answer CLEANUP_FREE = NULL;

	fall_silent(f, "a", "t1");
	check_fault(&f->fault, "INTERNAL_ERROR",
		pool_db_answer(f->server, "b",
			"{\"transaction\":\"t1\",\"number\":1,\"end\":\"commit\",\"statements\":[]"
			"}",
			&answer, &f->fault));
	assert_int_equal(read_order(f, f->server, vm), 0);
	check_ok(&f->fault, pool_db_answer(f->server, "a",
				    "{\"transaction\":\"t1\",\"number\":1,\"end\":\"commit\","
				    "\"statements\":[]}",
				    &answer, &f->fault));
	assert_int_equal(read_order(f, f->server, vm), 77);
}

/* --- Several writers ---------------------------------------------------------------------------
 */

#define N_ADDED 25

struct writer {
	struct pool_db *pool;
	const char *vm;
	int result;
};

static void *writer_main(void *arg)
{
	struct writer *writer = arg;
	struct step step = {writer->vm, NULL, TROUBLE_NONE};

	for (int i = 0; i < N_ADDED && writer->result == 0; i++)
		writer->result = pool_db_transaction(writer->pool, add_one, &step, NULL);
	return NULL;
}

static void writers_of_all_hosts_exclude_each_other(void **state)
{
	struct fixture *f = *state;
	struct line a CLEANUP_LINE, b CLEANUP_LINE;
	line_open(&a, f, "a");
	line_open(&b, f, "b");
	char *vm CLEANUP_FREE = make_vm(f, f->server);
	struct writer writers[] = {{a.pool, vm, 0}, {b.pool, vm, 0}, {f->server, vm, 0}};
	pthread_t threads[ARRAY_SIZE(writers)];

	for (size_t i = 0; i < ARRAY_SIZE(writers); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, writer_main, &writers[i]), 0);
	for (size_t i = 0; i < ARRAY_SIZE(writers); i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(writers[i].result, 0);
	}
	assert_int_equal(read_order(f, f->server, vm), N_ADDED * ARRAY_SIZE(writers));
}

static void count_change(void *arg, uint64_t generation)
{
	atomic_ullong *heard = arg;

	atomic_store(heard, generation);
}

static void the_server_hears_of_a_clients_change(void **state)
{
	static const struct event_filter everything = {0};
	struct fixture *f = *state;
	struct line line CLEANUP_LINE;
	line_open(&line, f, "a");
	struct value *events CLEANUP_VALUE = NULL;
	atomic_ullong heard = 0;
	uint64_t token = pool_db_generation(f->server);

	pool_db_listen(f->server, count_change, &heard);
	char *vm CLEANUP_FREE = make_vm(f, line.pool);
	assert_int_equal(atomic_load(&heard), pool_db_generation(f->server));
	assert_true(atomic_load(&heard) > token);
	check_ok(&f->fault,
		pool_db_events(f->server, token, &everything, 1, &events, &token, &f->fault));
	assert_int_equal(events->array.n_items, 1);
	assert_string_equal(value_find_string(events->array.items[0], "ref", ""), vm);
	/* The counter goes on from where the client left it. */
	char *own CLEANUP_FREE = make_vm(f, f->server);
	assert_int_equal(pool_db_generation(f->server), token + 1);
	pool_db_listen(f->server, NULL, NULL);
}

/* --- What it costs, and what is refused --------------------------------------------------------
 */

static void common_calls_cost_few_messages(void **state)
{
	struct fixture *f = *state;
	struct line line CLEANUP_LINE;
	line_open(&line, f, "a");
	char *vm CLEANUP_FREE = make_vm(f, line.pool);
	struct value *record CLEANUP_VALUE = NULL;
	struct value *seven CLEANUP_VALUE = value_new_int(7);
	int64_t order;

	line.n_messages = 0;
	check_ok(&f->fault, object_get_int(line.pool, "VM", vm, "order", &order, &f->fault));
	assert_int_equal(line.n_messages, 1);
	line.n_messages = 0;
	check_ok(&f->fault, object_get_record(line.pool, "VM", vm, &record, &f->fault));
	assert_int_equal(line.n_messages, 2);
	line.n_messages = 0;
	check_ok(&f->fault, object_set_field(line.pool, "VM", vm, "order", seven, &f->fault));
	assert_int_equal(line.n_messages, 3);
}

static void what_is_no_request_is_refused(void **state)
{
	static const char *const requests[] = {
		"",
		"[]",
		"{\"transaction\":\"\",\"number\":0,\"end\":\"\"}",
		"{\"transaction\":1,\"number\":0,\"end\":\"\",\"statements\":[]}",
		"{\"transaction\":\"\",\"number\":0,\"end\":\"\",\"statements\":[7]}",
		"{\"transaction\":\"\",\"number\":0,\"end\":\"\",\"statements\":[[]]}",
		"{\"transaction\":\"\",\"number\":0,\"end\":\"\",\"statements\":[[\"SELECT "
		"?\",[]]]}",
		"{\"transaction\":\"\",\"number\":0,\"end\":\"\",\"statements\":[[\"SELECT "
		"?\",1,2]]}",
		"{\"transaction\":\"\",\"number\":0,\"end\":\"\",\"statements\":[\"COMMIT\"]}",
		"{\"transaction\":\"\",\"number\":0,\"end\":\"\",\"statements\":"
		"[[\"UPDATE meta SET generation = 0\"]]}",
		"{\"transaction\":\"t\",\"number\":3,\"end\":\"\",\"statements\":[]}",
		"{\"transaction\":\"t\",\"number\":0,\"end\":\"\",\"statements\":[[\"nonsense\"]]}",
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
		char *answer CLEANUP_FREE = NULL;
		check_fault(&f->fault, "INTERNAL_ERROR",
			pool_db_answer(f->server, "a", requests[i], &answer, &f->fault));
		assert_null(answer);
	}
	/* None of them has left a transaction open. */
	char *vm CLEANUP_FREE = make_vm(f, f->server);
	assert_true(pool_db_generation(f->server) > 0);
}

static void nobody_is_served_unless_told_to(void **state)
{
	struct fixture *f = *state;
	char *answer CLEANUP_FREE = NULL;

	pool_db_close(f->server);
	check_ok(&f->fault, pool_db_open(f->folder.database, &f->server, &f->fault));
	check_fault(&f->fault, "INTERNAL_ERROR",
		pool_db_answer(f->server, "a", "{}", &answer, &f->fault));
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(a_commit_whose_answer_is_lost_is_done_once),
		test(a_commit_is_known_after_a_restart_of_the_server),
		test(a_server_that_is_away_is_an_error_until_it_is_back),
		test(a_client_that_falls_silent_is_rolled_back_for_others),
		test(a_transaction_belongs_to_who_began_it),
		test(writers_of_all_hosts_exclude_each_other),
		test(the_server_hears_of_a_clients_change),
		test(common_calls_cost_few_messages),
		test(what_is_no_request_is_refused),
		test(nobody_is_served_unless_told_to),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
