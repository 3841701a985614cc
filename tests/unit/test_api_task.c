/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/api_fixture.h"

#include "agent/api/tasks.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/uuid.h"

#include <errno.h>
#include <stdatomic.h>

/* --- Through the api ----------------------------------------------------------------------------
 */

static struct value *wait_for_end(struct api_fixture *fixture, const char *task)
{
	for (int i = 0; i < 200; i++) {
		struct value *record =
			api_call_ok(fixture, "task.get_record", params_new(fixture, task, NULL));
		if (strcmp(value_find_string(record, "status", ""), "pending") != 0)
			return record;
		value_free(record);
		cancel_sleep(NULL, 10 * USEC_PER_MSEC);
	}
	fail_msg("the task did not end");
	return NULL;
}

static void async_answers_with_a_task_that_has_the_result(void **state)
{
	struct api_fixture *fixture = *state;
	struct value *params = params_new(fixture, NULL);

	value_append(params, value_set_string(value_new_struct(), "name_label", "a"));
	char *task CLEANUP_FREE = api_call_text(fixture, "Async.VM.create", params);
	struct value *record CLEANUP_VALUE = wait_for_end(fixture, task);
	assert_string_equal(value_find_string(record, "status", ""), "success");
	assert_string_equal(value_find_string(record, "name_label", ""), "Async.VM.create");
	assert_string_equal(value_find_string(record, "resident_on", ""), fixture->host_ref);
	assert_string_equal(value_find_string(record, "type", ""), "<none/>");
	assert_true(value_find(record, "progress")->real == 1.0);
	assert_int_equal(value_find(record, "allowed_operations")->array.n_items, 0);
	const char *result = value_find_string(record, "result", "");
	assert_memory_equal(result, "<value>OpaqueRef:", strlen("<value>OpaqueRef:"));
	char *vm CLEANUP_FREE =
		xstrndup(result + strlen("<value>"), strlen(result) - strlen("<value></value>"));
	assert_true(object_exists(fixture->storage.pool, "VM", vm));

	value_free(api_call_ok(fixture, "task.destroy", params_new(fixture, task, NULL)));
	api_call_fails(
		fixture, "HANDLE_INVALID", "task.get_record", params_new(fixture, task, NULL));
	assert_string_equal(fixture->fault.params[0], "task");
	assert_string_equal(fixture->fault.params[1], task);
	api_call_fails(fixture, "HANDLE_INVALID", "task.cancel", params_new(fixture, task, NULL));
}

static void a_failed_task_has_code_and_parameters(void **state)
{
	struct api_fixture *fixture = *state;
	char *nothing CLEANUP_FREE = ref_new();
	char *task CLEANUP_FREE =
		api_call_text(fixture, "Async.VM.destroy", params_new(fixture, nothing, NULL));
	struct value *record CLEANUP_VALUE = wait_for_end(fixture, task);
	const struct value *error = value_find(record, "error_info");

	assert_string_equal(value_find_string(record, "status", ""), "failure");
	assert_true(value_find(record, "progress")->real == 1.0);
	assert_int_equal(error->array.n_items, 3);
	assert_string_equal(error->array.items[0]->string, "HANDLE_INVALID");
	assert_string_equal(error->array.items[1]->string, "VM");
	assert_string_equal(error->array.items[2]->string, nothing);
	assert_string_equal(value_find_string(record, "result", "?"), "");
}

static void getters_have_no_async(void **state)
{
	struct api_fixture *fixture = *state;

	api_call_fails(fixture, "Fault", "Async.VM.get_all", params_new(fixture, NULL));
	assert_string_equal(
		fixture->fault.params[0], "No async mode for this operation (rpc: VM.get_all)");
	api_call_fails(fixture, "Fault", "Async.session.logout", params_new(fixture, NULL));
}

static void a_clients_own_task_is_ended_by_it(void **state)
{
	struct api_fixture *fixture = *state;
	char *task CLEANUP_FREE =
		api_call_text(fixture, "task.create", params_new(fixture, "mine", "text", NULL));
	struct value *params = params_new(fixture, task, NULL);

	value_append(params, value_new_double(0.5));
	value_free(api_call_ok(fixture, "task.set_progress", params));
	params = value_append(params_new(fixture, task, NULL), value_new_double(1.5));
	api_call_fails(fixture, "INVALID_VALUE", "task.set_progress", params);
	value_free(api_call_ok(fixture, "task.cancel", params_new(fixture, task, NULL)));
	struct value *operations CLEANUP_VALUE = api_call_ok(
		fixture, "task.get_current_operations", params_new(fixture, task, NULL));
	assert_int_equal(operations->record.n_members, 1);
	assert_string_equal(operations->record.members[0].value->string, "cancel");
	api_call_fails(fixture, "INVALID_VALUE", "task.set_status",
		params_new(fixture, task, "done", NULL));
	value_free(api_call_ok(
		fixture, "task.set_status", params_new(fixture, task, "success", NULL)));
	struct value *record CLEANUP_VALUE = wait_for_end(fixture, task);
	assert_true(value_find(record, "finished")->integer > 0);
	value_free(api_call_ok(fixture, "task.destroy", params_new(fixture, task, NULL)));
}

static void a_restart_fails_what_was_pending(void **state)
{
	struct api_fixture *fixture = *state;
	char *task CLEANUP_FREE =
		api_call_text(fixture, "task.create", params_new(fixture, "mine", "", NULL));

	api_fixture_restart(fixture);
	struct value *record CLEANUP_VALUE =
		api_call_ok(fixture, "task.get_record", params_new(fixture, task, NULL));
	assert_string_equal(value_find_string(record, "status", ""), "failure");
	assert_string_equal(
		value_find(record, "error_info")->array.items[0]->string, "INTERNAL_ERROR");
}

/* --- With work of the test's own -----------------------------------------------------------------
 */

struct bench {
	struct api_fixture *fixture;
	struct tasks *tasks;
	struct dispatcher *dispatcher;
	atomic_int n_running;
};

/* Runs until it is cancelled. */
static int work(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct bench *bench = call_context(call);

	(void)args;
	atomic_fetch_add(&bench->n_running, 1);
	int r = cancel_sleep(call_cancel(call), 30 * USEC_PER_SEC);
	atomic_fetch_sub(&bench->n_running, 1);
	if (r == -ECANCELED)
		return fault_set(fault, r, "TASK_CANCELLED", call_task(call), NULL);
	*ret_result = value_new_string("done");
	return 0;
}

static const struct method work_row = {
	.name = "VM.migrate_send",
	.handle = work,
	.flags = METHOD_TASK | METHOD_ASYNC,
	.result = "string",
	.doc = "Waits.",
};

static void start_task(void *arg, struct call *call, bool async, struct value **args)
{
	struct bench *bench = arg;

	tasks_start(bench->tasks, call, async, args);
}

static void bench_begin(struct bench *bench, struct api_fixture *fixture)
{
	const struct dispatch_hooks hooks = {.task_start = start_task, .arg = bench};

	*bench = (struct bench){.fixture = fixture};
	bench->tasks = tasks_new(fixture->storage.pool, fixture->host_ref);
	bench->dispatcher = dispatcher_new(&hooks, bench);
	dispatcher_add(bench->dispatcher, &work_row, 1);
}

static void bench_end(struct bench *bench)
{
	tasks_free(bench->tasks);
	dispatcher_free(bench->dispatcher);
}

static struct request *bench_send(struct bench *bench, const char *method)
{
	return request_send(bench->dispatcher, method, params_new(bench->fixture, NULL));
}

static char *bench_task(struct bench *bench)
{
	struct fault *fault = &bench->fixture->fault;
	struct value *result CLEANUP_VALUE = NULL;

	check_ok(fault, request_end(bench_send(bench, "Async.VM.migrate_send"), &result, fault));
	return xstrdup(result->string);
}

static char *only_task(struct api_fixture *fixture)
{
	struct value *refs CLEANUP_VALUE = NULL;

	check_ok(&fixture->fault,
		object_get_all(fixture->storage.pool, "task", &refs, &fixture->fault));
	assert_int_equal(refs->array.n_items, 1);
	return xstrdup(refs->array.items[0]->string);
}

static void a_synchronous_call_is_a_task_too_and_can_be_cancelled(void **state)
{
	struct api_fixture *fixture = *state;
	struct bench bench;
	struct value *result = NULL;

	bench_begin(&bench, fixture);
	struct request *request = bench_send(&bench, "VM.migrate_send");
	char *task CLEANUP_FREE = only_task(fixture);
	struct value *record CLEANUP_VALUE =
		api_call_ok(fixture, "task.get_record", params_new(fixture, task, NULL));
	assert_string_equal(value_find_string(record, "name_label", ""), "VM.migrate_send");
	assert_string_equal(value_find_string(record, "status", ""), "pending");
	assert_true(value_contains_string(value_find(record, "allowed_operations"), "cancel"));
	assert_false(request_wait(request, 50 * USEC_PER_MSEC));
	check_ok(&fixture->fault, tasks_cancel(bench.tasks, task, "a test", &fixture->fault));
	assert_true(request_end(request, &result, &fixture->fault) < 0);
	assert_string_equal(fixture->fault.code, "TASK_CANCELLED");
	assert_string_equal(fixture->fault.params[0], task);
	struct value *after CLEANUP_VALUE =
		api_call_ok(fixture, "task.get_record", params_new(fixture, task, NULL));
	assert_string_equal(value_find_string(after, "status", ""), "cancelled");
	assert_int_equal(value_find(after, "error_info")->array.n_items, 0);
	assert_string_equal(value_find_string(after, "result", "?"), "");
	assert_true(value_find(after, "progress")->real == 1.0);
	bench_end(&bench);
}

static void a_running_task_that_is_destroyed_goes_when_it_ends(void **state)
{
	struct api_fixture *fixture = *state;
	struct bench bench;

	bench_begin(&bench, fixture);
	char *task CLEANUP_FREE = bench_task(&bench);
	check_ok(&fixture->fault, tasks_destroy(bench.tasks, task, &fixture->fault));
	struct value *operations CLEANUP_VALUE = api_call_ok(
		fixture, "task.get_current_operations", params_new(fixture, task, NULL));
	assert_string_equal(value_find_string(operations, task, ""), "destroy");
	assert_true(tasks_session_is_busy(bench.tasks, fixture->session));
	check_ok(&fixture->fault, tasks_cancel(bench.tasks, task, "a test", &fixture->fault));
	bench_end(&bench);
	assert_false(object_exists(fixture->storage.pool, "task", task));
}

static void too_many_tasks_are_refused(void **state)
{
	struct api_fixture *fixture = *state;
	struct bench bench;
	char *tasks[TASKS_MAX_RUNNING];
	struct value *result = NULL;

	bench_begin(&bench, fixture);
	for (size_t i = 0; i < TASKS_MAX_RUNNING; i++)
		tasks[i] = bench_task(&bench);
	assert_true(request_end(bench_send(&bench, "Async.VM.migrate_send"), &result,
			    &fixture->fault) < 0);
	assert_string_equal(fixture->fault.code, "TOO_MANY_PENDING_TASKS");
	for (size_t i = 0; i < TASKS_MAX_RUNNING; i++) {
		check_ok(&fixture->fault,
			tasks_cancel(bench.tasks, tasks[i], "a test", &fixture->fault));
		free(tasks[i]);
	}
	bench_end(&bench);
	assert_int_equal(atomic_load(&bench.n_running), 0);
}

static void a_closed_set_starts_nothing(void **state)
{
	struct api_fixture *fixture = *state;
	struct bench bench;
	struct value *result = NULL;

	bench_begin(&bench, fixture);
	tasks_close(bench.tasks);
	assert_true(
		request_end(bench_send(&bench, "VM.migrate_send"), &result, &fixture->fault) < 0);
	assert_string_equal(fixture->fault.code, "INTERNAL_ERROR");
	bench_end(&bench);
}

static char *make_ended(struct api_fixture *fixture, int64_t finished)
{
	struct value *fields CLEANUP_VALUE = value_new_struct();
	char *ref = NULL;

	value_set_string(fields, "status", "success");
	value_set(fields, "finished", value_new_datetime(finished));
	check_ok(&fixture->fault,
		object_create(fixture->storage.pool, "task", fields, &ref, &fixture->fault));
	return ref;
}

static void old_and_surplus_tasks_are_collected(void **state)
{
	struct api_fixture *fixture = *state;
	struct pool_db *pool = fixture->storage.pool;
	struct tasks *tasks = tasks_new(pool, fixture->host_ref);
	int64_t now = clock_wall_sec();
	char *old CLEANUP_FREE = make_ended(fixture, now - TASKS_KEEP_SEC - 10);
	char *kept CLEANUP_FREE = make_ended(fixture, now - TASKS_KEEP_SEC + 60);
	char *pending CLEANUP_FREE = NULL;

	check_ok(&fixture->fault,
		tasks_create_object(tasks, "mine", "", API_USER, &pending, &fixture->fault));
	tasks_collect(tasks);
	assert_false(object_exists(pool, "task", old));
	assert_true(object_exists(pool, "task", kept));
	for (int i = 0; i < TASKS_MAX_KEPT; i++)
		free(make_ended(fixture, now));
	tasks_collect(tasks);
	struct value *left CLEANUP_VALUE = NULL;
	check_ok(&fixture->fault, object_get_all(pool, "task", &left, &fixture->fault));
	assert_int_equal(left->array.n_items, TASKS_MAX_KEPT);
	assert_false(object_exists(pool, "task", kept));
	assert_true(object_exists(pool, "task", pending));
	tasks_free(tasks);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, api_fixture_setup, api_fixture_teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(async_answers_with_a_task_that_has_the_result),
		TEST(a_failed_task_has_code_and_parameters),
		TEST(getters_have_no_async),
		TEST(a_clients_own_task_is_ended_by_it),
		TEST(a_restart_fails_what_was_pending),
		TEST(a_synchronous_call_is_a_task_too_and_can_be_cancelled),
		TEST(a_running_task_that_is_destroyed_goes_when_it_ends),
		TEST(too_many_tasks_are_refused),
		TEST(a_closed_set_starts_nothing),
		TEST(old_and_surplus_tasks_are_collected),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
