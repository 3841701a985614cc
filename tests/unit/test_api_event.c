/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/api_fixture.h"

#include "base/alloc.h"
#include "base/clock.h"

#include <dirent.h>

#define N_WAITING 500

static struct value *from_params(
	struct api_fixture *fixture, const char *class, const char *token, double timeout_sec)
{
	struct value *params = params_new(fixture, NULL);

	value_append(params, value_append_string(value_new_array(), class));
	value_append_string(params, token);
	return value_append(params, value_new_double(timeout_sec));
}

static struct request *from_send(
	struct api_fixture *fixture, const char *class, const char *token, double timeout_sec)
{
	return request_send(api_dispatcher(fixture->api), "event.from",
		from_params(fixture, class, token, timeout_sec));
}

static char *token_now(struct api_fixture *fixture)
{
	struct value *result CLEANUP_VALUE =
		api_call_ok(fixture, "event.from", from_params(fixture, "pool", "", 0.0));

	return xstrdup(value_find_string(result, "token", ""));
}

static size_t n_events(const struct value *result)
{
	return value_find(result, "events")->array.n_items;
}

/* The one event of the answer. */
static const struct value *only_event(const struct value *result)
{
	assert_int_equal(n_events(result), 1);
	return value_find(result, "events")->array.items[0];
}

static void from_the_beginning_everything_is_an_add(void **state)
{
	struct api_fixture *fixture = *state;
	struct value *result CLEANUP_VALUE =
		api_call_ok(fixture, "event.from", from_params(fixture, "HOST", "", 0.0));
	const struct value *event = only_event(result);

	assert_string_equal(value_find_string(event, "class", ""), "host");
	assert_string_equal(value_find_string(event, "operation", ""), "add");
	assert_string_equal(value_find_string(event, "ref", ""), fixture->host_ref);
	assert_string_equal(value_find_string(event, "timestamp", ""), "0.0");
	assert_non_null(value_find(value_find(event, "snapshot"), "name_label"));
	assert_int_equal(strlen(value_find_string(result, "token", "")), 41);
	const struct value *counts = value_find(result, "valid_ref_counts");
	assert_int_equal(value_find_int(counts, "host", -1), 1);
	assert_int_equal(value_find_int(counts, "vm", -1), 0);
}

static void without_a_timeout_it_answers_at_once(void **state)
{
	struct api_fixture *fixture = *state;
	char *token CLEANUP_FREE = token_now(fixture);
	uint64_t begun = clock_now_usec();
	struct value *result CLEANUP_VALUE =
		api_call_ok(fixture, "event_from", from_params(fixture, "*", token, 0.0));

	assert_int_equal(n_events(result), 0);
	assert_true(clock_now_usec() - begun < 500 * USEC_PER_MSEC);
}

static void a_timeout_ends_it_empty(void **state)
{
	struct api_fixture *fixture = *state;
	char *token CLEANUP_FREE = token_now(fixture);
	uint64_t begun = clock_now_usec();
	struct value *result CLEANUP_VALUE =
		api_call_ok(fixture, "event.from", from_params(fixture, "VM", token, 0.3));

	assert_int_equal(n_events(result), 0);
	assert_true(clock_now_usec() - begun >= 290 * USEC_PER_MSEC);
}

static void a_change_wakes_it_soon(void **state)
{
	struct api_fixture *fixture = *state;
	char *token CLEANUP_FREE = token_now(fixture);
	struct request *request = from_send(fixture, "VM", token, 20.0);
	struct value *result CLEANUP_VALUE = NULL;

	assert_false(request_wait(request, 20 * USEC_PER_MSEC));
	char *vm CLEANUP_FREE = api_make_vm(fixture, "woken");
	uint64_t changed = clock_now_usec();
	check_ok(&fixture->fault, request_end(request, &result, &fixture->fault));
	/* 50 ms are the window; the rest is what a busy machine may take. */
	assert_true(clock_now_usec() - changed < 500 * USEC_PER_MSEC);
	const struct value *event = only_event(result);
	assert_string_equal(value_find_string(event, "ref", ""), vm);
	assert_string_equal(value_find_string(event, "operation", ""), "add");
	assert_true(strcmp(value_find_string(result, "token", ""), token) > 0);

	/* Gone, it comes without a snapshot. */
	struct request *next =
		from_send(fixture, "vm", value_find_string(result, "token", ""), 20.0);
	struct value *deleted CLEANUP_VALUE = NULL;
	value_free(api_call_ok(fixture, "VM.destroy", params_new(fixture, vm, NULL)));
	check_ok(&fixture->fault, request_end(next, &deleted, &fixture->fault));
	event = only_event(deleted);
	assert_string_equal(value_find_string(event, "operation", ""), "del");
	assert_string_equal(value_find_string(event, "ref", ""), vm);
	assert_null(value_find(event, "snapshot"));
}

static void changes_close_together_are_one_answer(void **state)
{
	struct api_fixture *fixture = *state;
	char *vm CLEANUP_FREE = api_make_vm(fixture, "first");
	char *token CLEANUP_FREE = token_now(fixture);
	struct request *request = from_send(fixture, "VM", token, 20.0);
	struct value *result CLEANUP_VALUE = NULL;

	value_free(
		api_call_ok(fixture, "VM.set_name_label", params_new(fixture, vm, "second", NULL)));
	value_free(
		api_call_ok(fixture, "VM.set_name_label", params_new(fixture, vm, "third", NULL)));
	check_ok(&fixture->fault, request_end(request, &result, &fixture->fault));
	const struct value *event = only_event(result);
	assert_string_equal(value_find_string(event, "operation", ""), "mod");
	assert_string_equal(
		value_find_string(value_find(event, "snapshot"), "name_label", ""), "third");
}

static void what_was_not_asked_for_does_not_wake_it(void **state)
{
	struct api_fixture *fixture = *state;
	char *vm CLEANUP_FREE = api_make_vm(fixture, "watched");
	char *other CLEANUP_FREE = api_make_vm(fixture, "not watched");
	char *token CLEANUP_FREE = token_now(fixture);
	char *one CLEANUP_FREE = xasprintf("vm/%s", vm);
	struct request *request = from_send(fixture, one, token, 20.0);
	struct request *unknown = from_send(fixture, "no_such_class", token, 0.4);
	struct value *result CLEANUP_VALUE = NULL;
	struct value *nothing CLEANUP_VALUE = NULL;

	value_free(api_call_ok(
		fixture, "VM.set_name_label", params_new(fixture, other, "still not", NULL)));
	assert_false(request_wait(request, 200 * USEC_PER_MSEC));
	value_free(
		api_call_ok(fixture, "VM.set_name_label", params_new(fixture, vm, "seen", NULL)));
	check_ok(&fixture->fault, request_end(request, &result, &fixture->fault));
	assert_string_equal(value_find_string(only_event(result), "ref", ""), vm);
	check_ok(&fixture->fault, request_end(unknown, &nothing, &fixture->fault));
	assert_int_equal(n_events(nothing), 0);
}

static void logout_wakes_its_own_waits_only(void **state)
{
	struct api_fixture *fixture = *state;
	char *token CLEANUP_FREE = token_now(fixture);
	struct request *stays = from_send(fixture, "VM", token, 1.0);
	char *kept = fixture->session;
	struct value *result CLEANUP_VALUE = NULL;

	fixture->session = api_login(fixture);
	struct request *request = from_send(fixture, "VM", token, 20.0);
	value_free(api_call_ok(fixture, "session.logout", params_new(fixture, NULL)));
	uint64_t begun = clock_now_usec();
	assert_true(request_end(request, &result, &fixture->fault) < 0);
	assert_true(clock_now_usec() - begun < 500 * USEC_PER_MSEC);
	assert_string_equal(fixture->fault.code, "SESSION_INVALID");
	assert_string_equal(fixture->fault.params[0], fixture->session);
	free(fixture->session);
	fixture->session = kept;
	check_ok(&fixture->fault, request_end(stays, &result, &fixture->fault));
	assert_int_equal(n_events(result), 0);
}

static void closing_answers_what_waits(void **state)
{
	struct api_fixture *fixture = *state;
	char *token CLEANUP_FREE = token_now(fixture);
	struct request *request = from_send(fixture, "*", token, 3600.0);
	struct value *result CLEANUP_VALUE = NULL;

	api_close(fixture->api);
	check_ok(&fixture->fault, request_end(request, &result, &fixture->fault));
	assert_int_equal(n_events(result), 0);
}

static void bad_subscriptions_and_tokens_are_refused(void **state)
{
	static const char *const classes[] = {"", "/", "vm/", "/x", "vm/a/b"};
	static const char *const tokens[] = {"x", "1", "1,", ",1", "-1,0", "1,2,3", "0x1,0"};
	struct api_fixture *fixture = *state;

	for (size_t i = 0; i < ARRAY_SIZE(classes); i++) {
		api_call_fails(fixture, "EVENT_SUBSCRIPTION_PARSE_FAILURE", "event.from",
			from_params(fixture, classes[i], "", 0.0));
		assert_string_equal(fixture->fault.params[0], classes[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(tokens); i++) {
		api_call_fails(fixture, "EVENT_FROM_TOKEN_PARSE_FAILURE", "event.from",
			from_params(fixture, "*", tokens[i], 0.0));
		assert_string_equal(fixture->fault.params[0], tokens[i]);
	}
	api_call_fails(fixture, "EVENTS_LOST", "event.from",
		from_params(fixture, "*", "00000000009999999999,00000000000000000000", 0.0));
}

static void inject_gives_a_token_before_its_change(void **state)
{
	struct api_fixture *fixture = *state;
	char *token CLEANUP_FREE = api_call_text(
		fixture, "event.inject", params_new(fixture, "pool", fixture->pool_ref, NULL));
	struct value *result CLEANUP_VALUE =
		api_call_ok(fixture, "event.from", from_params(fixture, "*", token, 20.0));
	const struct value *event = only_event(result);

	assert_string_equal(value_find_string(event, "class", ""), "pool");
	assert_string_equal(value_find_string(event, "operation", ""), "mod");
	api_call_fails(fixture, "HANDLE_INVALID", "event.inject",
		params_new(fixture, "VM", fixture->pool_ref, NULL));
}

static size_t n_threads(void)
{
	DIR *dir = opendir("/proc/self/task");
	size_t n = 0;

	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static void hundreds_of_waits_cost_no_threads(void **state)
{
	struct api_fixture *fixture = *state;
	char *token CLEANUP_FREE = token_now(fixture);
	struct request *requests[N_WAITING];
	size_t before = n_threads();

	for (size_t i = 0; i < N_WAITING; i++)
		requests[i] = from_send(fixture, "VM", token, 60.0);
	assert_int_equal(n_threads(), before);
	assert_false(request_wait(requests[N_WAITING - 1], 50 * USEC_PER_MSEC));
	char *vm CLEANUP_FREE = api_make_vm(fixture, "for all");
	for (size_t i = 0; i < N_WAITING; i++) {
		struct value *result CLEANUP_VALUE = NULL;
		check_ok(&fixture->fault, request_end(requests[i], &result, &fixture->fault));
		assert_string_equal(value_find_string(only_event(result), "ref", ""), vm);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, api_fixture_setup, api_fixture_teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(from_the_beginning_everything_is_an_add),
		TEST(without_a_timeout_it_answers_at_once),
		TEST(a_timeout_ends_it_empty),
		TEST(a_change_wakes_it_soon),
		TEST(changes_close_together_are_one_answer),
		TEST(what_was_not_asked_for_does_not_wake_it),
		TEST(logout_wakes_its_own_waits_only),
		TEST(closing_answers_what_waits),
		TEST(bad_subscriptions_and_tokens_are_refused),
		TEST(inject_gives_a_token_before_its_change),
		TEST(hundreds_of_waits_cost_no_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
