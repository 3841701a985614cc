/* SPDX-License-Identifier: Apache-2.0 */
/* Other threads only leave messages (a new waiter, an ended session, the end) and ring the bell;
 * the list of waiters belongs to the thread alone, so that no call can be ended twice and no lock
 * is held while one is. */
#include "agent/api/events.h"

#include "agent/api/bell.h"
#include "agent/api/registrations.h"
#include "agent/api/subscription.h"
#include "base/alloc.h"
#include "base/clock.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct waiter {
	struct waiter *next;
	struct call *call;
	struct subscription subscription;
	uint64_t since; /* generation */
	uint64_t deadline_usec;
	bool is_next; /* event.next */
};

/* What the waiter before found: most wait for the same since the same generation, and in one round
 * the database is asked once for all of these. */
struct findings {
	struct subscription subscription;
	uint64_t since;
	uint64_t generation;  /* of the list */
	struct value *list;   /* NULL: nothing is known */
	struct value *counts; /* NULL: not asked for yet */
};

struct events {
	struct pool_db *pool;
	struct registrations *registrations;
	pthread_t thread;
	int bell;
	_Atomic uint64_t generation; /* last that the database told */
	pthread_mutex_t lock;        /* over the messages */
	struct waiter *arrived;
	struct value *ended; /* sessions */
	bool closed;
	/* The thread's own. */
	struct findings findings;
	struct waiter *waiting;
	uint64_t window_usec; /* when the open window ends; USEC_FOREVER: none is open */
};

static struct waiter *waiter_free(struct waiter *waiter)
{
	if (!waiter)
		return NULL;
	subscription_clear(&waiter->subscription);
	free(waiter);
	return NULL;
}

DEFINE_CLEANUP(struct waiter *, waiter_free)

/* --- Looking -----------------------------------------------------------------------------------
 */

static void findings_clear(struct findings *findings)
{
	subscription_clear(&findings->subscription);
	value_free(findings->list);
	value_free(findings->counts);
	*findings = (struct findings){0};
}

/* findings may be NULL. */
static int find_counts(struct pool_db *pool, struct findings *findings, uint64_t generation,
	struct value **ret_counts, struct fault *fault)
{
	bool is_shared = findings && findings->list && findings->generation == generation;
	int r = is_shared && findings->counts ? 0 : pool_db_counts(pool, ret_counts, fault);

	if (r < 0 || !is_shared)
		return r;
	if (findings->counts)
		*ret_counts = value_copy(findings->counts);
	else
		findings->counts = value_copy(*ret_counts);
	return 0;
}

static int answer_new(struct pool_db *pool, struct findings *findings, struct value *events,
	uint64_t generation, struct value **ret_answer, struct fault *fault)
{
	struct value *list CLEANUP_VALUE = events;
	struct value *counts CLEANUP_VALUE = NULL;
	char *token CLEANUP_FREE = token_format(generation);
	int r = find_counts(pool, findings, generation, &counts, fault);

	if (r < 0)
		return r;
	*ret_answer = value_new_struct();
	value_set(*ret_answer, "events", TAKE_PTR(list));
	value_set(*ret_answer, "valid_ref_counts", TAKE_PTR(counts));
	value_set_string(*ret_answer, "token", token);
	return 0;
}

/* Advances waiter->since. 0 with *ret_events, which may be empty. */
static int waiter_look(
	struct pool_db *pool, struct waiter *waiter, struct value **ret_events, struct fault *fault)
{
	const struct subscription *subscription = &waiter->subscription;

	if (subscription->n_filters == 0) {
		*ret_events = value_new_array();
		waiter->since = pool_db_generation(pool);
		return 0;
	}
	return pool_db_events(pool, waiter->since, subscription->filters, subscription->n_filters,
		ret_events, &waiter->since, fault);
}

/* As waiter_look(), of the thread alone. */
static int waiter_look_again(struct events *events, struct waiter *waiter,
	struct value **ret_events, struct fault *fault)
{
	struct findings *findings = &events->findings;
	uint64_t since = waiter->since;

	if (findings->list && findings->since == since &&
		subscription_equal(&findings->subscription, &waiter->subscription)) {
		*ret_events = value_copy(findings->list);
		waiter->since = findings->generation;
		return 0;
	}
	int r = waiter_look(events->pool, waiter, ret_events, fault);
	if (r < 0)
		return r;
	findings_clear(findings);
	*findings = (struct findings){.subscription = subscription_copy(&waiter->subscription),
		.since = since,
		.generation = waiter->since,
		.list = value_copy(*ret_events)};
	return 0;
}

/* Takes the list over. findings may be NULL. */
static int waiter_answer(struct events *events, struct findings *findings,
	const struct waiter *waiter, struct value *list, struct value **ret_answer,
	struct fault *fault)
{
	if (!waiter->is_next)
		return answer_new(events->pool, findings, list, waiter->since, ret_answer, fault);
	registrations_advance(events->registrations, call_session(waiter->call), waiter->since);
	*ret_answer = list;
	return 0;
}

/* Ends the call; the waiter is off the list. */
static void waiter_end(struct events *events, struct waiter *waiter, struct value *list)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct value *answer = NULL;

	if (waiter_answer(events, &events->findings, waiter, list, &answer, &fault) < 0)
		call_fail(waiter->call, &fault);
	else
		call_succeed(waiter->call, answer);
	waiter_free(waiter);
}

/* Ends the call if something matches; else false. */
static bool waiter_try(struct events *events, struct waiter *waiter)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct value *found CLEANUP_VALUE = NULL;

	if (waiter_look_again(events, waiter, &found, &fault) < 0) {
		call_fail(waiter->call, &fault);
		waiter_free(waiter);
		return true;
	}
	if (found->array.n_items == 0)
		return false;
	waiter_end(events, waiter, TAKE_PTR(found));
	return true;
}

/* --- The thread --------------------------------------------------------------------------------
 */

struct inbox {
	struct waiter *arrived;
	struct value *ended;
	bool closed;
};

static struct inbox events_take_inbox(struct events *events)
{
	struct inbox inbox;

	SCOPE_LOCK(&events->lock);
	inbox = (struct inbox){events->arrived, events->ended, events->closed};
	events->arrived = NULL;
	events->ended = value_new_array();
	return inbox;
}

static void events_admit(struct events *events, struct waiter *arrived)
{
	while (arrived) {
		struct waiter *next = arrived->next;
		arrived->next = events->waiting;
		events->waiting = arrived;
		arrived = next;
	}
}

static void events_drop_sessions(struct events *events, const struct value *ended)
{
	struct waiter **p = &events->waiting;

	while (*p) {
		struct waiter *waiter = *p;
		struct fault fault CLEANUP_FAULT = FAULT_INIT;
		if (!value_contains_string(ended, call_session(waiter->call))) {
			p = &waiter->next;
			continue;
		}
		*p = waiter->next;
		fault_set(&fault, -EACCES, "SESSION_INVALID", call_session(waiter->call), NULL);
		call_fail(waiter->call, &fault);
		waiter_free(waiter);
	}
}

static bool events_has_late(const struct events *events, uint64_t generation)
{
	for (const struct waiter *waiter = events->waiting; waiter; waiter = waiter->next) {
		if (waiter->since < generation)
			return true;
	}
	return false;
}

enum who { WHO_ALL, WHO_TASKS_ONLY };

static void events_look(struct events *events, enum who who, uint64_t generation)
{
	struct waiter **p = &events->waiting;

	while (*p) {
		struct waiter *waiter = *p;
		struct waiter *next = waiter->next;
		bool is_due = waiter->since < generation &&
			      (who == WHO_ALL || waiter->subscription.is_tasks_only);
		if (is_due && waiter_try(events, waiter))
			*p = next;
		else
			p = &waiter->next;
	}
}

/* Looks when the generation has moved: at once for those who wait for tasks only, at the end of the
 * window for all. */
static void events_follow(struct events *events)
{
	uint64_t generation = atomic_load(&events->generation);

	if (!events_has_late(events, generation)) {
		events->window_usec = USEC_FOREVER;
		return;
	}
	if (events->window_usec == USEC_FOREVER)
		events->window_usec = clock_deadline(EVENTS_WINDOW_USEC);
	if (events->window_usec > clock_now_usec()) {
		events_look(events, WHO_TASKS_ONLY, generation);
		return;
	}
	events_look(events, WHO_ALL, generation);
	events->window_usec = USEC_FOREVER;
}

/* Ends those whose time is out; returns when the next one's is. */
static uint64_t events_time_out(struct events *events)
{
	struct waiter **p = &events->waiting;
	uint64_t next = events->window_usec;
	uint64_t now = clock_now_usec();

	while (*p) {
		struct waiter *waiter = *p;
		if (waiter->deadline_usec > now) {
			next = MIN(next, waiter->deadline_usec);
			p = &waiter->next;
			continue;
		}
		*p = waiter->next;
		if (!waiter_try(events, waiter))
			waiter_end(events, waiter, value_new_array());
	}
	return next;
}

static void events_end_all(struct events *events)
{
	struct waiter *waiter;

	while ((waiter = events->waiting)) {
		events->waiting = waiter->next;
		waiter_end(events, waiter, value_new_array());
	}
}

static void *events_main(void *arg)
{
	struct events *events = arg;

	for (;;) {
		struct inbox inbox = events_take_inbox(events);
		struct value *ended CLEANUP_VALUE = inbox.ended;
		events_admit(events, inbox.arrived);
		events_drop_sessions(events, ended);
		if (inbox.closed) {
			events_end_all(events);
			findings_clear(&events->findings);
			return NULL;
		}
		events_follow(events);
		uint64_t until = events_time_out(events);
		findings_clear(&events->findings);
		bell_wait(events->bell, until);
	}
}

/* --- From other threads ------------------------------------------------------------------------
 */

static void events_changed(void *arg, uint64_t generation)
{
	struct events *events = arg;
	uint64_t known = atomic_load(&events->generation);

	while (known < generation &&
		!atomic_compare_exchange_weak(&events->generation, &known, generation))
		;
	bell_ring(events->bell);
}

static bool events_add(struct events *events, struct waiter *waiter)
{
	SCOPE_LOCK(&events->lock);
	if (events->closed)
		return false;
	waiter->next = events->arrived;
	events->arrived = waiter;
	return true;
}

static uint64_t deadline_after(double timeout_sec)
{
	if (!(timeout_sec > 0))
		return 0;
	if (timeout_sec > 1e9)
		return USEC_FOREVER;
	return clock_deadline((uint64_t)(timeout_sec * (double)USEC_PER_SEC));
}

/* Answers at once, or takes the waiter, and with it the call, over. */
static int waiter_begin(
	struct events *events, struct waiter **w, struct value **ret_result, struct fault *fault)
{
	struct waiter *waiter = *w;
	struct value *found CLEANUP_VALUE = NULL;
	int r = waiter_look(events->pool, waiter, &found, fault);

	if (r < 0)
		return r;
	if (found->array.n_items > 0 || waiter->deadline_usec == 0 || !events_add(events, waiter))
		return waiter_answer(events, NULL, waiter, TAKE_PTR(found), ret_result, fault);
	*w = NULL;
	bell_ring(events->bell);
	return CALL_PENDING;
}

int events_from(struct events *events, struct call *call, const struct value *wanted,
	const char *token, double timeout_sec, struct value **ret_result, struct fault *fault)
{
	struct waiter *waiter CLEANUP(cleanup_waiter_free) = xcalloc(1, sizeof(*waiter));
	int r = subscription_parse(wanted, &waiter->subscription, fault);

	if (r == 0)
		r = token_parse(token, &waiter->since, fault);
	if (r < 0)
		return r;
	/* A token of a database that has since been replaced: the client starts anew. */
	if (waiter->since > pool_db_generation(events->pool))
		return fault_set(fault, -ESTALE, "EVENTS_LOST", NULL);
	waiter->call = call;
	waiter->deadline_usec = deadline_after(timeout_sec);
	return waiter_begin(events, &waiter, ret_result, fault);
}

int events_next(
	struct events *events, struct call *call, struct value **ret_result, struct fault *fault)
{
	struct waiter *waiter CLEANUP(cleanup_waiter_free) = xcalloc(1, sizeof(*waiter));
	struct value *wanted CLEANUP_VALUE = NULL;
	int r = registrations_find(
		events->registrations, call_session(call), &wanted, &waiter->since, fault);

	if (r == 0)
		r = subscription_parse(wanted, &waiter->subscription, fault);
	if (r < 0)
		return r;
	waiter->call = call;
	waiter->is_next = true;
	waiter->deadline_usec = clock_deadline(EVENTS_NEXT_USEC);
	return waiter_begin(events, &waiter, ret_result, fault);
}

int events_register(
	struct events *events, const char *session, const struct value *wanted, struct fault *fault)
{
	struct subscription parsed CLEANUP(subscription_clear) = {0};
	int r = subscription_parse(wanted, &parsed, fault);

	return r < 0 ? r
		     : registrations_add(events->registrations, session, wanted,
			       pool_db_generation(events->pool), fault);
}

int events_unregister(
	struct events *events, const char *session, const struct value *wanted, struct fault *fault)
{
	struct subscription parsed CLEANUP(subscription_clear) = {0};
	int r = subscription_parse(wanted, &parsed, fault);

	if (r == 0)
		registrations_remove(events->registrations, session, wanted);
	return r;
}

void events_end_session(struct events *events, const char *session)
{
	registrations_end(events->registrations, session);
	pthread_mutex_lock(&events->lock);
	value_append_string(events->ended, session);
	pthread_mutex_unlock(&events->lock);
	bell_ring(events->bell);
}

/* --- Life ---------------------------------------------------------------------------------------
 */

int events_new(struct pool_db *pool, struct events **ret_events, struct fault *fault)
{
	struct events *events = xcalloc(1, sizeof(*events));
	int r;

	events->pool = pool;
	events->registrations = registrations_new();
	events->bell = bell_new();
	events->ended = value_new_array();
	events->window_usec = USEC_FOREVER;
	atomic_store(&events->generation, pool_db_generation(pool));
	pthread_mutex_init(&events->lock, NULL);
	r = pthread_create(&events->thread, NULL, events_main, events);
	if (r != 0) {
		events->closed = true;
		events_free(events);
		return fault_errno(fault, -r, "Cannot start the thread that watches for events");
	}
	pool_db_listen(pool, events_changed, events);
	*ret_events = events;
	return 0;
}

void events_close(struct events *events)
{
	bool was_closed;

	pthread_mutex_lock(&events->lock);
	was_closed = events->closed;
	events->closed = true;
	pthread_mutex_unlock(&events->lock);
	if (was_closed)
		return;
	bell_ring(events->bell);
	pthread_join(events->thread, NULL);
}

struct events *events_free(struct events *events)
{
	if (!events)
		return NULL;
	pool_db_listen(events->pool, NULL, NULL);
	events_close(events);
	close(events->bell);
	value_free(events->ended);
	registrations_free(events->registrations);
	pthread_mutex_destroy(&events->lock);
	free(events);
	return NULL;
}
