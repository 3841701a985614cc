/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/pool_fixture.h"

#include "base/clock.h"
#include "base/uuid.h"
#include "schema/classes.h"

#include <pthread.h>
#include <stdatomic.h>

static const struct event_filter everything = {0};

/* Asks on from *token, and sets it to what to ask for next. */
static struct value *poll_events(
	struct fixture *f, const struct event_filter *filters, size_t n_filters, uint64_t *token)
{
	struct value *events = NULL;

	check_ok(&f->fault,
		pool_db_events(f->pool, *token, filters, n_filters, &events, token, &f->fault));
	return events;
}

/* "add vm 1, mod sr 2": operation, class and how often it is there. */
static void assert_events(struct fixture *f, uint64_t *token, const char *expected)
{
	struct value *events CLEANUP_VALUE = poll_events(f, &everything, 1, token);
	struct buf text CLEANUP_BUF = BUF_INIT;

	for (size_t i = 0; i < events->array.n_items; i++) {
		const struct value *event = events->array.items[i];
		buf_printf(&text, "%s%s %s", i ? ", " : "",
			value_find_string(event, "operation", "?"),
			value_find_string(event, "class", "?"));
	}
	char *found CLEANUP_FREE = buf_take_string(&text);
	assert_string_equal(found, expected);
}

static void each_object_comes_once_with_its_present_state(void **state)
{
	struct fixture *f = *state;
	uint64_t token = 0;
	char *vm CLEANUP_FREE = fixture_create(f, "VM", "name_label", "a", NULL);

	fixture_set_string(f, "VM", vm, "name_label", "b");
	assert_events(f, &token, "add vm");
	assert_events(f, &token, "");
	fixture_set_string(f, "VM", vm, "name_label", "c");
	fixture_set_string(f, "VM", vm, "name_label", "d");
	uint64_t before = token;
	struct value *events CLEANUP_VALUE = poll_events(f, &everything, 1, &token);
	assert_int_equal(events->array.n_items, 1);
	const struct value *event = events->array.items[0];
	assert_string_equal(value_find_string(event, "operation", ""), "mod");
	assert_string_equal(value_find_string(event, "timestamp", ""), "0.0");
	assert_string_equal(value_find_string(event, "ref", ""), vm);
	assert_string_equal(
		value_find_string(value_find(event, "snapshot"), "name_label", ""), "d");
	assert_int_equal(
		value_find(event, "snapshot")->record.n_members, class_find("VM")->n_fields);
	assert_int_equal(value_find(event, "id")->type, VALUE_STRING);
	check_ok(&f->fault, object_destroy(f->pool, "VM", vm, &f->fault));
	struct value *last CLEANUP_VALUE = poll_events(f, &everything, 1, &before);
	assert_int_equal(last->array.n_items, 1);
	assert_string_equal(value_find_string(last->array.items[0], "operation", ""), "del");
	assert_null(value_find(last->array.items[0], "snapshot"));
}

static void what_came_and_went_between_two_looks_is_not_told(void **state)
{
	struct fixture *f = *state;
	uint64_t token = 0;
	char *vm CLEANUP_FREE = fixture_create(f, "VM", NULL);

	check_ok(&f->fault, object_destroy(f->pool, "VM", vm, &f->fault));
	assert_events(f, &token, "");
	assert_true(token > 0);
}

static void a_write_of_the_same_value_is_no_event(void **state)
{
	struct fixture *f = *state;
	char *vm CLEANUP_FREE = fixture_create(f, "VM", "name_label", "a", NULL);
	uint64_t token = pool_db_generation(f->pool);

	fixture_set_string(f, "VM", vm, "name_label", "a");
	fixture_set_string(f, "VM", vm, "affinity", REF_NULL);
	check_ok(&f->fault, object_map_remove(f->pool, "VM", vm, "other_config", "x", &f->fault));
	assert_events(f, &token, "");
	assert_int_equal(pool_db_generation(f->pool), token);
}

static void a_relation_touches_the_objects_at_its_old_and_new_end(void **state)
{
	struct fixture *f = *state;
	char *sr CLEANUP_FREE = fixture_create(f, "SR", NULL);
	char *a CLEANUP_FREE = fixture_create(f, "VDI", "SR", sr, NULL);
	char *b CLEANUP_FREE = fixture_create(f, "VDI", "SR", sr, NULL);
	char *vm CLEANUP_FREE = fixture_create(f, "VM", NULL);
	uint64_t token = pool_db_generation(f->pool);

	char *vbd CLEANUP_FREE = fixture_create(f, "VBD", "VM", vm, "VDI", a, NULL);
	assert_events(f, &token, "add vbd, mod vm, mod vdi");
	fixture_set_string(f, "VBD", vbd, "VDI", b);
	assert_events(f, &token, "mod vbd, mod vdi, mod vdi");
	fixture_set_string(f, "VBD", vbd, "device", "xvda");
	assert_events(f, &token, "mod vbd");
	check_ok(&f->fault, object_destroy(f->pool, "VBD", vbd, &f->fault));
	assert_events(f, &token, "del vbd, mod vm, mod vdi");
}

static void a_reference_that_becomes_null_is_an_event(void **state)
{
	struct fixture *f = *state;
	char *host CLEANUP_FREE = fixture_create(f, "host", NULL);
	char *vm CLEANUP_FREE = fixture_create(f, "VM", "affinity", host, NULL);
	uint64_t token = pool_db_generation(f->pool);

	(void)vm;
	check_ok(&f->fault, object_destroy(f->pool, "host", host, &f->fault));
	assert_events(f, &token, "mod vm, del host");
}

static void sessions_make_no_events(void **state)
{
	struct fixture *f = *state;
	uint64_t token = 0;
	char *session CLEANUP_FREE = fixture_create(f, "session", NULL);

	fixture_set_string(f, "session", session, "originator", "x");
	assert_events(f, &token, "");
	check_ok(&f->fault, object_destroy(f->pool, "session", session, &f->fault));
	assert_events(f, &token, "");
}

static void filters_choose_classes_and_objects(void **state)
{
	struct fixture *f = *state;
	char *vm CLEANUP_FREE = fixture_create(f, "VM", NULL);
	char *a CLEANUP_FREE = fixture_create(f, "task", NULL);
	char *b CLEANUP_FREE = fixture_create(f, "task", NULL);
	const struct event_filter vms[] = {{.class = "VM"}, {.class = "VM"}};
	const struct event_filter one[] = {
		{.class = "task", .ref = a}, {.class = "task", .ref = a}, {.ref = a}};
	const struct event_filter none[] = {{.class = "task", .ref = vm}};
	uint64_t token = 0;

	struct value *events CLEANUP_VALUE = poll_events(f, vms, 2, &token);
	assert_int_equal(events->array.n_items, 1);
	token = 0;
	struct value *single CLEANUP_VALUE = poll_events(f, one, 3, &token);
	assert_int_equal(single->array.n_items, 1);
	assert_string_equal(value_find_string(single->array.items[0], "ref", ""), a);
	token = 0;
	struct value *nothing CLEANUP_VALUE = poll_events(f, none, 1, &token);
	assert_int_equal(nothing->array.n_items, 0);
	check_ok(&f->fault, object_destroy(f->pool, "task", a, &f->fault));
	check_ok(&f->fault, object_destroy(f->pool, "task", b, &f->fault));
	struct value *gone CLEANUP_VALUE = poll_events(f, one, 3, &token);
	assert_int_equal(gone->array.n_items, 1);
}

static void an_injection_is_seen_from_the_token_that_it_gave(void **state)
{
	struct fixture *f = *state;
	char *pool CLEANUP_FREE = fixture_create(f, "pool", NULL);
	uint64_t token = 0;

	check_ok(&f->fault, pool_db_touch(f->pool, "pool", pool, &token, &f->fault));
	assert_events(f, &token, "mod pool");
	assert_events(f, &token, "");
	check_fault(
		&f->fault, "HANDLE_INVALID", pool_db_touch(f->pool, "VM", pool, &token, &f->fault));
	check_fault(&f->fault, "HANDLE_INVALID",
		pool_db_touch(f->pool, "nothing", pool, &token, &f->fault));
}

static void the_counter_goes_on_after_a_restart(void **state)
{
	struct fixture *f = *state;
	char *vm CLEANUP_FREE = fixture_create(f, "VM", NULL);
	uint64_t token = pool_db_generation(f->pool);

	fixture_reopen(f);
	assert_int_equal(pool_db_generation(f->pool), token);
	assert_events(f, &token, "");
	fixture_set_string(f, "VM", vm, "name_label", "x");
	assert_true(pool_db_generation(f->pool) > token);
	assert_events(f, &token, "mod vm");
	check_ok(&f->fault, object_destroy(f->pool, "VM", vm, &f->fault));
	fixture_reopen(f);
	assert_events(f, &token, "del vm");
}

static int create_and_fail(struct pool_db *pool, void *arg, struct fault *fault)
{
	uint64_t *seen = arg;
	struct value *events = NULL;

	int r = object_create(pool, "VM", NULL, NULL, fault);
	if (r == 0)
		r = pool_db_events(pool, 0, &everything, 1, &events, seen, fault);
	value_free(events);
	return r < 0 ? r : -1;
}

static void what_was_rolled_back_is_not_told(void **state)
{
	struct fixture *f = *state;
	uint64_t before = pool_db_generation(f->pool);
	uint64_t token = 0, inside = 0;

	assert_int_equal(pool_db_transaction(f->pool, create_and_fail, &inside, &f->fault), -1);
	assert_true(inside > before);
	assert_events(f, &token, "");
	assert_int_equal(token, before);
}

static void deletions_are_remembered_up_to_a_bound(void **state)
{
	enum { N = 5000 };
	struct fixture *f = *state;
	static char *refs[N];
	uint64_t first = 0, token = 0;

	for (int i = 0; i < N; i++)
		refs[i] = fixture_create(f, "console", NULL);
	first = pool_db_generation(f->pool);
	for (int i = 0; i < N; i++) {
		check_ok(&f->fault, object_destroy(f->pool, "console", refs[i], &f->fault));
		free(refs[i]);
	}
	token = first;
	struct value *all CLEANUP_VALUE = poll_events(f, &everything, 1, &token);
	assert_in_range(all->array.n_items, 4096, 4096 + 256);
	fixture_reopen(f);
	token = first;
	struct value *kept CLEANUP_VALUE = poll_events(f, &everything, 1, &token);
	assert_int_equal(kept->array.n_items, 4096);
}

static void counts_name_every_class_in_lower_case(void **state)
{
	struct fixture *f = *state;
	struct value *counts CLEANUP_VALUE = NULL;
	char *vm CLEANUP_FREE = fixture_create(f, "VM", NULL);

	(void)vm;
	check_ok(&f->fault, pool_db_counts(f->pool, &counts, &f->fault));
	assert_int_equal(counts->record.n_members, n_classes);
	assert_int_equal(value_find(counts, "vm")->type, VALUE_I4);
	assert_int_equal(value_find_int(counts, "vm", -1), 1);
	assert_int_equal(value_find_int(counts, "vm_guest_metrics", -1), 0);
}

/* --- The listener ------------------------------------------------------------------------------
 */

struct listener {
	struct pool_db *pool;
	int calls;
	uint64_t generation;
};

/* Reads the database: it would deadlock another thread if a lock were held. */
static void hear(void *arg, uint64_t generation)
{
	struct listener *listener = arg;
	struct value *counts CLEANUP_VALUE = NULL;

	assert_true(pool_db_counts(listener->pool, &counts, NULL) == 0);
	listener->calls++;
	listener->generation = generation;
}

static int create_three(struct pool_db *pool, void *arg, struct fault *fault)
{
	int r = 0;

	(void)arg;
	for (int i = 0; r == 0 && i < 3; i++)
		r = object_create(pool, "VM", NULL, NULL, fault);
	return r;
}

static void the_listener_hears_of_each_commit_that_changed_something(void **state)
{
	struct fixture *f = *state;
	struct listener listener = {.pool = f->pool};
	struct value *refs CLEANUP_VALUE = NULL;
	uint64_t seen = 0;

	pool_db_listen(f->pool, hear, &listener);
	check_ok(&f->fault, pool_db_transaction(f->pool, create_three, NULL, &f->fault));
	assert_int_equal(listener.calls, 1);
	assert_int_equal(listener.generation, pool_db_generation(f->pool));
	check_ok(&f->fault, object_get_all(f->pool, "VM", &refs, &f->fault));
	free(fixture_create(f, "session", NULL));
	assert_true(pool_db_transaction(f->pool, create_and_fail, &seen, &f->fault) < 0);
	check_ok(&f->fault, pool_db_set_user(f->pool, "u", "h", &f->fault));
	assert_int_equal(listener.calls, 1);
	pool_db_listen(f->pool, NULL, NULL);
}

/* --- Threads ---------------------------------------------------------------------------------- */

enum { N_WRITERS = 3, N_ROUNDS = 30 };

struct race {
	struct fixture *f;
	_Atomic unsigned running;
	_Atomic unsigned heard;
};

static void count_commit(void *arg, uint64_t generation)
{
	(void)generation;
	((struct race *)arg)->heard++;
}

static void *write_tasks(void *arg)
{
	struct race *race = arg;
	struct pool_db *pool = race->f->pool;

	for (int i = 0; i < N_ROUNDS; i++) {
		char *ref CLEANUP_FREE = NULL;
		assert_int_equal(object_create(pool, "task", NULL, &ref, NULL), 0);
		assert_int_equal(
			object_map_add(pool, "task", ref, "other_config", "k", "v", NULL), 0);
		if (i % 2)
			assert_int_equal(object_destroy(pool, "task", ref, NULL), 0);
	}
	race->running--;
	return NULL;
}

/* A reader that follows the events ends with exactly the objects that are there. */
static void a_follower_misses_nothing_that_threads_write(void **state)
{
	struct race race = {.f = *state, .running = N_WRITERS};
	struct value *known CLEANUP_VALUE = value_new_struct();
	pthread_t threads[N_WRITERS];
	uint64_t token = 0;
	bool is_last = false;

	pool_db_listen(race.f->pool, count_commit, &race);
	for (int i = 0; i < N_WRITERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, write_tasks, &race), 0);
	while (!is_last) {
		is_last = race.running == 0;
		struct value *events CLEANUP_VALUE = poll_events(race.f, &everything, 1, &token);
		for (size_t i = 0; i < events->array.n_items; i++) {
			const struct value *event = events->array.items[i];
			const char *ref = value_find_string(event, "ref", "");
			if (strcmp(value_find_string(event, "operation", ""), "del") == 0)
				assert_true(value_unset(known, ref));
			else
				value_set_bool(known, ref, true);
		}
	}
	for (int i = 0; i < N_WRITERS; i++)
		pthread_join(threads[i], NULL);
	struct value *refs CLEANUP_VALUE = NULL;
	check_ok(&race.f->fault, object_get_all(race.f->pool, "task", &refs, &race.f->fault));
	assert_int_equal(refs->array.n_items, N_WRITERS * N_ROUNDS / 2);
	assert_int_equal(known->record.n_members, refs->array.n_items);
	for (size_t i = 0; i < refs->array.n_items; i++)
		assert_non_null(value_find(known, refs->array.items[i]->string));
	assert_int_equal(race.heard, N_WRITERS * (2 * N_ROUNDS + N_ROUNDS / 2));
	pool_db_listen(race.f->pool, NULL, NULL);
}

/* --- Figures --------------------------------------------------------------------------------- */

static int fill(struct pool_db *pool, void *arg, struct fault *fault)
{
	struct value *fields CLEANUP_VALUE = value_new_struct();
	char *sr CLEANUP_FREE = NULL;

	(void)arg;
	int r = object_create(pool, "SR", NULL, &sr, fault);
	for (int i = 0; r == 0 && i < 1000; i++) {
		char *vm CLEANUP_FREE = NULL;
		value_set(fields, "other_config",
			value_set_string(value_new_struct(), "owner", "somebody"));
		value_set_string(fields, "name_label", "a VM");
		r = object_create(pool, "VM", fields, &vm, fault);
		for (int j = 0; r == 0 && j < 2; j++) {
			struct value *disk CLEANUP_VALUE = value_new_struct();
			struct value *drive CLEANUP_VALUE = value_new_struct();
			char *vdi CLEANUP_FREE = NULL;
			value_set_string(disk, "SR", sr);
			r = object_create(pool, "VDI", disk, &vdi, fault);
			value_set_string(drive, "VM", vm);
			value_set_string(drive, "VDI", vdi);
			if (r == 0)
				r = object_create(pool, "VBD", drive, NULL, fault);
		}
	}
	return r;
}

static double msec_since(uint64_t begin)
{
	return (double)(clock_now_usec() - begin) / 1e3;
}

/* The bounds are many times what is measured: only another algorithm breaks them. */
static void a_thousand_vms_are_listed_at_once(void **state)
{
	struct fixture *f = *state;
	struct value *vms CLEANUP_VALUE = NULL;
	struct value *vdis CLEANUP_VALUE = NULL;

	check_ok(&f->fault, pool_db_transaction(f->pool, fill, NULL, &f->fault));
	uint64_t begin = clock_now_usec();
	check_ok(&f->fault, object_get_all_records(f->pool, "VM", &vms, &f->fault));
	double vms_msec = msec_since(begin);
	begin = clock_now_usec();
	check_ok(&f->fault, object_get_all_records(f->pool, "VDI", &vdis, &f->fault));
	double vdis_msec = msec_since(begin);
	assert_int_equal(vms->record.n_members, 1000);
	assert_int_equal(vdis->record.n_members, 2000);
	uint64_t token = pool_db_generation(f->pool);
	fixture_set_string(f, "VM", vms->record.members[500].name, "name_label", "x");
	begin = clock_now_usec();
	assert_events(f, &token, "mod vm");
	double delta_msec = msec_since(begin);
	print_message("get_all_records: 1000 VMs %.1f ms, 2000 VDIs %.1f ms; events %.2f ms\n",
		vms_msec, vdis_msec, delta_msec);
	assert_true(vms_msec < 3000 && vdis_msec < 3000 && delta_msec < 500);
}

#define test(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(each_object_comes_once_with_its_present_state),
		test(what_came_and_went_between_two_looks_is_not_told),
		test(a_write_of_the_same_value_is_no_event),
		test(a_relation_touches_the_objects_at_its_old_and_new_end),
		test(a_reference_that_becomes_null_is_an_event),
		test(sessions_make_no_events),
		test(filters_choose_classes_and_objects),
		test(an_injection_is_seen_from_the_token_that_it_gave),
		test(the_counter_goes_on_after_a_restart),
		test(what_was_rolled_back_is_not_told),
		test(deletions_are_remembered_up_to_a_bound),
		test(counts_name_every_class_in_lower_case),
		test(the_listener_hears_of_each_commit_that_changed_something),
		test(a_follower_misses_nothing_that_threads_write),
		test(a_thousand_vms_are_listed_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
