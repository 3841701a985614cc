/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/check.h"

#include "agent/guest/guest_watch.h"
#include "base/alloc.h"
#include "base/clock.h"

#include <poll.h>

struct fixture {
	struct guest_events *events;
	struct guest_watch *watch;
};

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	f->events = guest_events_new();
	f->watch = guest_events_watch(f->events);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	guest_watch_free(f->watch);
	guest_events_free(f->events);
	free(f);
	return 0;
}

static bool is_readable(const struct guest_watch *watch)
{
	struct pollfd fd = {.fd = guest_watch_fd(watch), .events = POLLIN};

	return poll(&fd, 1, 0) == 1;
}

static void check_next(struct guest_watch *watch, const char *expected)
{
	char *name CLEANUP_FREE = NULL;
	struct value *data CLEANUP_VALUE = NULL;
	uint64_t usec = 0;

	assert_true(is_readable(watch));
	assert_true(guest_watch_take(watch, &name, &data, &usec));
	assert_string_equal(name, expected);
	assert_true(usec > 0 && usec <= clock_now_usec());
}

static void check_empty(struct guest_watch *watch)
{
	char *name;
	struct value *data;
	uint64_t usec;

	assert_false(is_readable(watch));
	assert_false(guest_watch_take(watch, &name, &data, &usec));
}

static void events_come_in_order_with_their_data(void **state)
{
	struct fixture *f = *state;
	struct value *data CLEANUP_VALUE = value_set_string(value_new_struct(), "id", "x");
	struct value *taken CLEANUP_VALUE = NULL;
	char *name CLEANUP_FREE = NULL;
	uint64_t usec;

	check_empty(f->watch);
	guest_events_tell(f->events, "STOP", NULL);
	guest_events_tell(f->events, "BLOCK_EXPORT_DELETED", data);
	check_next(f->watch, "STOP");
	assert_true(guest_watch_take(f->watch, &name, &taken, &usec));
	assert_string_equal(name, "BLOCK_EXPORT_DELETED");
	assert_true(value_equal(taken, data));
	check_empty(f->watch);
}

static void each_watch_has_a_queue_of_its_own(void **state)
{
	struct fixture *f = *state;

	guest_events_tell(f->events, "STOP", NULL);
	struct guest_watch *other = guest_events_watch(f->events);
	guest_events_tell(f->events, "RESUME", NULL);
	check_next(other, "RESUME");
	check_empty(other);
	guest_watch_free(other);
	check_next(f->watch, "STOP");
	check_next(f->watch, "RESUME");
	check_empty(f->watch);
}

static void too_many_events_push_out_the_oldest(void **state)
{
	struct fixture *f = *state;
	char name[32];

	for (int i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "E%d", i);
		guest_events_tell(f->events, name, NULL);
	}
	for (int i = 300 - 256; i < 300; i++) {
		snprintf(name, sizeof(name), "E%d", i);
		check_next(f->watch, name);
	}
	check_empty(f->watch);
}

static void a_watch_made_after_the_end_is_told_of_it(void **state)
{
	struct fixture *f = *state;

	guest_events_end(f->events);
	struct guest_watch *late CLEANUP_GUEST_WATCH = guest_events_watch(f->events);
	check_next(late, "ENDED");
	check_empty(late);
	check_next(f->watch, "ENDED");
}

static void a_watch_outlives_its_guest(void **state)
{
	struct fixture *f = *state;

	guest_events_tell(f->events, "STOP", NULL);
	f->events = guest_events_free(f->events);
	check_next(f->watch, "STOP");
	check_empty(f->watch);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(events_come_in_order_with_their_data),
		TEST(each_watch_has_a_queue_of_its_own),
		TEST(too_many_events_push_out_the_oldest),
		TEST(a_watch_made_after_the_end_is_told_of_it),
		TEST(a_watch_outlives_its_guest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
