/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/migrate/queue.h"
#include "agent/migrate/supervisor.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "tests/lib/check.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#define N_MOVES 40

struct world {
	struct supervisor_params params;
	struct registry registry;
	struct queue queue;
	struct cancel *stop;
	_Atomic unsigned n_begun; /* how many have begun and not left */
	_Atomic unsigned most;
	_Atomic unsigned order; /* how many have begun in all */
};

static int set_up(void **state)
{
	struct world *w = xcalloc(1, sizeof(*w));

	w->params = (struct supervisor_params){.max_sending = 3, .max_queued = N_MOVES};
	registry_init(&w->registry);
	queue_init(&w->queue, &w->registry, &w->params);
	w->stop = cancel_new();
	*state = w;
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;

	cancel_free(w->stop);
	queue_deinit(&w->queue);
	registry_deinit(&w->registry);
	free(w);
	return 0;
}

static struct queue_entry entry_of(const char *name)
{
	return (struct queue_entry){
		.uuid = name, .vm = name, .operation = "migrate_send", .task = "task"};
}

static void what_is_too_many_is_refused(void **state)
{
	struct world *w = *state;
	struct queue_entry sent = entry_of("sent");
	struct queue_entry waits = entry_of("waits");
	struct queue_entry again = entry_of("waits");
	struct queue_entry refused = entry_of("refused");
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	w->queue.max_sending = 1;
	w->queue.max_waiting = 1;
	assert_int_equal(queue_enter(&w->queue, &sent, &fault), 0);
	assert_int_equal(queue_enter(&w->queue, &waits, &fault), 1);
	assert_int_equal(queue_enter(&w->queue, &again, &fault), -EBUSY);
	assert_true(fault_is(&fault, "OTHER_OPERATION_IN_PROGRESS"));
	fault_clear(&fault);
	assert_int_equal(queue_enter(&w->queue, &refused, &fault), -EBUSY);
	assert_true(fault_is(&fault, "TOO_MANY_STORAGE_MIGRATES"));
	queue_show(&w->queue, &waits, "ref");
	struct value *refs CLEANUP_VALUE = queue_list(&w->queue);
	assert_int_equal(refs->array.n_items, 1);
	assert_string_equal(refs->array.items[0]->string, "ref");
	queue_leave(&w->queue, &sent);
	assert_int_equal(queue_wait(&w->queue, &waits, w->stop), 1);
	queue_leave(&w->queue, &waits);
	assert_null(w->queue.first);
}

static void who_waits_can_be_told_to_stop(void **state)
{
	struct world *w = *state;
	struct cancel *cancel CLEANUP_CANCEL = cancel_new();
	struct queue_entry sent = entry_of("sent");
	struct queue_entry waits = entry_of("waits");

	w->queue.max_sending = 1;
	waits.cancel = cancel;
	assert_int_equal(queue_enter(&w->queue, &sent, NULL), 0);
	assert_int_equal(queue_enter(&w->queue, &waits, NULL), 1);
	assert_false(queue_cancel(&w->queue, "nobody", "me"));
	assert_true(queue_cancel(&w->queue, "waits", "me"));
	uint64_t begun = clock_now_usec();
	assert_int_equal(queue_wait(&w->queue, &waits, w->stop), -ECANCELED);
	assert_true(clock_now_usec() - begun < USEC_PER_SEC / 2);
	assert_string_equal(cancel_reason(cancel), "me");
	waits.cancel = NULL;
	cancel_request(w->stop, "the end");
	assert_int_equal(queue_wait(&w->queue, &waits, w->stop), -ECANCELED);
	queue_leave(&w->queue, &waits);
	queue_leave(&w->queue, &sent);
}

/* Where nobody may wait, what begins and is in the registry already is one move, not two. */
static void what_is_sent_counts_once(void **state)
{
	struct world *w = *state;
	struct migration_row row CLEANUP(migration_row_clear) = {.uuid = xstrdup("sent"),
		.role = ROLE_SENDER,
		.state = STATE_NEW,
		.document = value_new_struct()};
	struct queue_entry sent = entry_of("sent");
	struct queue_entry next = entry_of("next");
	struct queue_entry refused = entry_of("refused");

	w->queue.max_sending = 2;
	w->queue.max_waiting = 0;
	struct migration *m CLEANUP_MIGRATION = migration_new(&w->params, &row);
	assert_int_equal(queue_enter(&w->queue, &sent, NULL), 0);
	assert_int_equal(queue_send(&w->queue, &sent, m), 0);
	assert_int_equal(queue_enter(&w->queue, &next, NULL), 0);
	queue_leave(&w->queue, &sent);
	assert_int_equal(queue_enter(&w->queue, &refused, NULL), -EBUSY);
	queue_leave(&w->queue, &next);
}

struct move {
	struct world *w;
	struct queue_entry entry;
	char name[16];
	pthread_t thread;
	bool waits;
	bool is_cancelled;
	unsigned order;
};

static void send(struct move *move)
{
	struct world *w = move->w;
	unsigned n = ++w->n_begun;
	unsigned most = w->most;

	while (n > most && !atomic_compare_exchange_weak(&w->most, &most, n))
		;
	cancel_sleep(NULL, USEC_PER_MSEC);
	w->n_begun--;
}

static void *move_main(void *arg)
{
	struct move *move = arg;
	int r = move->waits ? 0 : 1;

	while (r == 0)
		r = queue_wait(&move->w->queue, &move->entry, move->w->stop);
	if (r > 0) {
		move->order = ++move->w->order;
		send(move);
	}
	move->is_cancelled = r < 0;
	queue_leave(&move->w->queue, &move->entry);
	return NULL;
}

/* With some that give up: nobody is passed over, and never are too many sent. */
static void all_get_their_turn(void **state)
{
	struct world *w = *state;
	struct move *moves CLEANUP_FREE = xcalloc(N_MOVES, sizeof(*moves));
	struct cancel *cancel CLEANUP_CANCEL = cancel_new();

	for (size_t i = 0; i < N_MOVES; i++) {
		struct move *move = &moves[i];
		snprintf(move->name, sizeof(move->name), "move %zu", i);
		move->w = w;
		move->entry = entry_of(move->name);
		if (i > 3 && i % 5 == 0)
			move->entry.cancel = cancel;
		int r = queue_enter(&w->queue, &move->entry, NULL);
		assert_int_equal(r, i >= 3);
		move->waits = r > 0;
	}
	cancel_request(cancel, "enough");
	for (size_t i = N_MOVES; i-- > 0;)
		assert_int_equal(pthread_create(&moves[i].thread, NULL, move_main, &moves[i]), 0);
	for (size_t i = 0; i < N_MOVES; i++)
		pthread_join(moves[i].thread, NULL);
	for (size_t i = 0; i < N_MOVES; i++)
		if (!moves[i].entry.cancel)
			assert_false(moves[i].is_cancelled);
	assert_int_equal(w->most <= 3, true);
	assert_null(w->queue.first);
}

/* One place: the order is exact. */
static void first_come_first_served(void **state)
{
	struct world *w = *state;
	struct move *moves CLEANUP_FREE = xcalloc(N_MOVES, sizeof(*moves));

	w->queue.max_sending = 1;
	for (size_t i = 0; i < N_MOVES; i++) {
		struct move *move = &moves[i];
		snprintf(move->name, sizeof(move->name), "move %zu", i);
		move->w = w;
		move->entry = entry_of(move->name);
		move->waits = queue_enter(&w->queue, &move->entry, NULL) > 0;
	}
	for (size_t i = N_MOVES; i-- > 0;)
		assert_int_equal(pthread_create(&moves[i].thread, NULL, move_main, &moves[i]), 0);
	for (size_t i = 0; i < N_MOVES; i++)
		pthread_join(moves[i].thread, NULL);
	for (size_t i = 0; i < N_MOVES; i++)
		assert_int_equal(moves[i].order, i + 1);
	assert_int_equal(w->most, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_is_too_many_is_refused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(who_waits_can_be_told_to_stop, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_is_sent_counts_once, set_up, tear_down),
		cmocka_unit_test_setup_teardown(all_get_their_turn, set_up, tear_down),
		cmocka_unit_test_setup_teardown(first_come_first_served, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
