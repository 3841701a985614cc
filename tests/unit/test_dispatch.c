/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/check.h"

#include "base/alloc.h"
#include "base/json.h"
#include "xmlrpc/codec.h"
#include "xmlrpc/dispatch.h"

#include <errno.h>

struct fixture {
	struct dispatcher *dispatcher;
	struct call *pending; /* kept by the handler of X.wait */
	struct call *task;    /* kept by the task_start hook */
	struct value **task_args;
	bool task_async;
	unsigned n_replies;
	unsigned status;
	char *content_type;
	char *body;
};

/* --- The service under test ---------------------------------------------------------------------
 */

static int handle_echo(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	(void)fault;
	*ret_result = value_new_array();
	value_append_string(*ret_result, call_session(call));
	for (size_t i = 0; i < call_method(call)->n_params; i++)
		if (args[i])
			value_append(*ret_result, value_copy(args[i]));
	return 0;
}

static int handle_fail(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	(void)call, (void)args, (void)ret_result;
	return fault_set(fault, -ENOENT, "HANDLE_INVALID", "VM", "OpaqueRef:x", NULL);
}

static int handle_void(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	(void)call, (void)args, (void)ret_result, (void)fault;
	return 0;
}

static int handle_wait(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct fixture *fixture = call_context(call);

	(void)args, (void)ret_result, (void)fault;
	fixture->pending = call;
	return CALL_PENDING;
}

static int handle_at_once(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	(void)args, (void)ret_result, (void)fault;
	call_succeed(call, value_new_string("before the handler returned"));
	return CALL_PENDING;
}

static const struct param every_type[] = {
	{"text", PARAM_STRING, NULL},
	{"count", PARAM_INT, NULL},
	{"flag", PARAM_BOOL, NULL},
	{"ratio", PARAM_DOUBLE, NULL},
	{"when", PARAM_DATETIME, NULL},
	{"options", PARAM_MAP, NULL},
	{"classes", PARAM_SET, NULL},
	{"record", PARAM_STRUCT, NULL},
	{"list", PARAM_ARRAY, NULL},
	{"any", PARAM_ANY, NULL},
};
static const struct param vm_param[] = {{"vm", PARAM_STRING, "VM ref"}, {"live", PARAM_BOOL, NULL}};

static const struct method methods[] = {
	{"X.types", handle_echo, 0, every_type, 10, 0, "void", "", NULL, 0},
	{"VM.clone", handle_echo, METHOD_ASYNC, vm_param, 2, 1, "VM ref", "", NULL, 0},
	{"VM.move", handle_echo, METHOD_ASYNC | METHOD_TASK, vm_param, 2, 1, "void", "", NULL, 0},
	{"VM_metrics.get_record", handle_echo, 0, vm_param, 1, 1, "record", "", NULL, 0},
	{"event.from", handle_void, 0, NULL, 0, 0, "void", "", NULL, 0},
	{"session.login", handle_echo, METHOD_NO_SESSION, vm_param, 1, 1, "string", "", NULL, 0},
	{"Peer.seal", handle_void, METHOD_HIDDEN | METHOD_PEER, NULL, 0, 0, "void", "", NULL, 0},
	{"X.fail", handle_fail, 0, NULL, 0, 0, "void", "", NULL, 0},
	{"X.wait", handle_wait, 0, NULL, 0, 0, "void", "", NULL, 0},
	{"X.at_once", handle_at_once, 0, NULL, 0, 0, "void", "", NULL, 0},
};

static int session_check(void *arg, struct call *call, struct fault *fault)
{
	(void)arg;
	if (strcmp(call_session(call), "good") == 0)
		return 0;
	return fault_set(fault, -EACCES, "SESSION_INVALID", call_session(call), NULL);
}

static void task_start(void *arg, struct call *call, bool async, struct value **args)
{
	struct fixture *fixture = arg;

	fixture->task = call_ref(call);
	fixture->task_args = args;
	fixture->task_async = async;
	call_set_task(call, "OpaqueRef:task", NULL);
	if (async)
		call_succeed(call, value_new_string(call_task(call)));
}

static int setup(void **state)
{
	struct fixture *fixture = xcalloc(1, sizeof(*fixture));
	const struct dispatch_hooks hooks = {
		.session_check = session_check, .task_start = task_start, .arg = fixture};

	fixture->dispatcher = dispatcher_new(&hooks, fixture);
	dispatcher_add(fixture->dispatcher, methods, ARRAY_SIZE(methods));
	*state = fixture;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fixture = *state;

	dispatcher_free(fixture->dispatcher);
	free(fixture->body);
	free(fixture->content_type);
	free(fixture);
	return 0;
}

static void on_reply(void *arg, unsigned status, const char *content_type, struct buf *body)
{
	struct fixture *fixture = arg;

	fixture->n_replies++;
	fixture->status = status;
	free(fixture->content_type);
	fixture->content_type = xstrdup(content_type);
	free(fixture->body);
	fixture->body = buf_take_string(body);
}

static void send_json(struct fixture *fixture, const char *method, const char *params)
{
	char *text CLEANUP_FREE = xasprintf(
		"{\"id\":0,\"jsonrpc\":\"2.0\",\"method\":\"%s\",\"params\":%s}", method, params);

	fixture->n_replies = 0;
	dispatcher_handle(
		fixture->dispatcher, WIRE_JSON, text, strlen(text), "192.0.2.1", on_reply, fixture);
}

static void send_xml(struct fixture *fixture, const char *method, struct value *params)
{
	struct value *owned CLEANUP_VALUE = params;
	struct buf out CLEANUP_BUF = BUF_INIT;

	xml_encode_call(method, owned, &out);
	fixture->n_replies = 0;
	dispatcher_handle(fixture->dispatcher, WIRE_XML, out.data, out.length, "192.0.2.1",
		on_reply, fixture);
}

static void assert_result(struct fixture *fixture, const char *json)
{
	char *expected CLEANUP_FREE =
		xasprintf("{\"jsonrpc\":\"2.0\",\"result\":%s,\"id\":0}", json);

	assert_int_equal(fixture->n_replies, 1);
	assert_int_equal(fixture->status, 200);
	assert_string_equal(fixture->content_type, "application/json");
	assert_string_equal(fixture->body, expected);
}

static void assert_error(struct fixture *fixture, const char *code, const char *data)
{
	char *expected CLEANUP_FREE = xasprintf(
		"{\"jsonrpc\":\"2.0\",\"error\":{\"code\":1,\"message\":\"%s\",\"data\":[%s]},"
		"\"id\":0}",
		code, data);

	assert_int_equal(fixture->n_replies, 1);
	assert_int_equal(fixture->status, 200);
	assert_string_equal(fixture->body, expected);
}

/* --- Tests --------------------------------------------------------------------------------------
 */

static void a_call_reaches_its_handler_on_both_wires(void **state)
{
	struct fixture *fixture = *state;

	send_json(fixture, "VM.clone", "[\"good\",\"OpaqueRef:v\"]");
	assert_result(fixture, "[\"good\",\"OpaqueRef:v\"]");
	send_xml(fixture, "session.login", value_append_string(value_new_array(), "root"));
	assert_string_equal(fixture->content_type, "text/xml");
	assert_non_null(strstr(fixture->body, "<name>Status</name><value>Success</value>"));
	assert_non_null(strstr(fixture->body, "<value></value><value>root</value>"));
	send_xml(fixture, "event.from", value_append_string(value_new_array(), "good"));
	assert_non_null(strstr(fixture->body, "<name>Value</name><value></value>"));
}

static void an_unknown_method_is_named(void **state)
{
	struct fixture *fixture = *state;

	send_json(fixture, "VM.nope", "[]");
	assert_error(fixture, "MESSAGE_METHOD_UNKNOWN", "\"VM.nope\"");
	send_json(fixture, "Async.VM.nope", "[]");
	assert_error(fixture, "MESSAGE_METHOD_UNKNOWN", "\"VM.nope\"");
	send_json(fixture, "vm.clone", "[\"good\",\"v\"]");
	assert_error(fixture, "MESSAGE_METHOD_UNKNOWN", "\"vm.clone\"");
	send_json(fixture, "", "[]");
	assert_error(fixture, "MESSAGE_METHOD_UNKNOWN", "\"\"");
}

static void parameters_are_counted_without_the_session(void **state)
{
	struct fixture *fixture = *state;
	static const char code[] = "MESSAGE_PARAMETER_COUNT_MISMATCH";

	send_json(fixture, "VM.clone", "[\"good\"]");
	assert_error(fixture, code, "\"VM.clone\",\"1\",\"0\"");
	send_json(fixture, "VM.clone", "[\"good\",\"v\",true,1]");
	assert_error(fixture, code, "\"VM.clone\",\"1\",\"3\"");
	send_json(fixture, "VM.clone", "[]");
	assert_error(fixture, code, "\"VM.clone\",\"1\",\"-1\"");
	send_json(fixture, "session.login", "[]");
	assert_error(fixture, code, "\"session.login\",\"1\",\"0\"");
	send_json(fixture, "Async.VM.clone", "[\"bad\"]");
	assert_error(fixture, code, "\"VM.clone\",\"1\",\"0\"");
	send_json(fixture, "VM.clone", "[\"good\",\"v\",true]");
	assert_result(fixture, "[\"good\",\"v\",true]");
}

static void the_alias_with_an_underscore_is_the_same_method(void **state)
{
	struct fixture *fixture = *state;

	send_json(fixture, "event_from", "[\"good\"]");
	assert_result(fixture, "\"\"");
	send_json(fixture, "VM_metrics_get_record", "[\"good\",\"r\"]");
	assert_result(fixture, "[\"good\",\"r\"]");
	send_json(fixture, "Async.VM_clone", "[\"good\",\"r\"]");
	assert_error(fixture, "MESSAGE_METHOD_UNKNOWN", "\"VM_clone\"");
}

static void numbers_are_taken_in_each_form_the_contract_allows(void **state)
{
	struct fixture *fixture = *state;

	send_json(fixture, "X.types",
		"[\"good\",\"t\",\"12\",true,\"1.5\",\"20260821T02:00:23Z\",{\"a\":\"b\"},[\"c\"],"
		"{\"x\":1},[1,{}],null]");
	assert_result(fixture, "[\"good\",\"t\",12,true,1.5,\"20260821T02:00:23Z\",{\"a\":\"b\"},"
			       "[\"c\"],{\"x\":1},[1,{}],null]");
	send_json(fixture, "X.types", "[\"good\",\"t\",3.0,false,2]");
	assert_result(fixture, "[\"good\",\"t\",3,false,2.0]");
}

static void a_parameter_of_the_wrong_type_is_named(void **state)
{
	static const char *const cases[][3] = {
		{"[5]", "session_id", "parameter 1 (session_id) must be a string; this is a int"},
		{"[\"good\",5]", "text", "parameter 2 (text) must be a string"},
		{"[\"good\",null]", "text", "this is a nil"},
		{"[\"good\",\"\",\"x\"]", "count", "parameter 3 (count)"},
		{"[\"good\",\"\",1.5]", "count", "parameter 3 (count)"},
		{"[\"good\",\"\",1e300]", "count", "parameter 3 (count)"},
		{"[\"good\",\"\",1,\"true\"]", "flag", "parameter 4 (flag) must be a boolean"},
		{"[\"good\",\"\",1,true,\"nan\"]", "ratio", "parameter 5 (ratio)"},
		{"[\"good\",\"\",1,true,1,\"soon\"]", "when", "parameter 6 (when)"},
		{"[\"good\",\"\",1,true,1,\"20260821T02:00:23Z\",{\"a\":1}]", "options",
			"a struct whose values are all strings"},
		{"[\"good\",\"\",1,true,1,\"20260821T02:00:23Z\",{},[1]]", "classes",
			"an array of strings"},
		{"[\"good\",\"\",1,true,1,\"20260821T02:00:23Z\",{},[],[]]", "record", "a struct"},
		{"[\"good\",\"\",1,true,1,\"20260821T02:00:23Z\",{},[],{},{}]", "list", "an array"},
	};
	struct fixture *fixture = *state;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct value *answer CLEANUP_VALUE = NULL;
		send_json(fixture, "X.types", cases[i][0]);
		assert_int_equal(
			json_decode(fixture->body, strlen(fixture->body), NULL, &answer, NULL), 0);
		struct value *error = value_find(answer, "error");
		struct value *data = value_find(error, "data");
		assert_string_equal(value_find_string(error, "message", ""), "FIELD_TYPE_ERROR");
		assert_string_equal(data->array.items[0]->string, cases[i][1]);
		if (!strstr(data->array.items[1]->string, cases[i][2]))
			fail_msg("%s: %s", cases[i][0], data->array.items[1]->string);
	}
}

static void a_session_is_checked_but_where_none_is_needed(void **state)
{
	struct fixture *fixture = *state;

	send_json(fixture, "VM.clone", "[\"stale\",\"v\"]");
	assert_error(fixture, "SESSION_INVALID", "\"stale\"");
	send_json(fixture, "Peer.seal", "[\"\"]");
	assert_error(fixture, "SESSION_INVALID", "\"\"");
	send_json(fixture, "Async.VM.clone", "[\"stale\",\"v\"]");
	assert_error(fixture, "SESSION_INVALID", "\"stale\"");
	send_json(fixture, "session.login", "[\"root\"]");
	assert_result(fixture, "[\"\",\"root\"]");
}

static void async_answers_with_a_task_while_the_call_lives_on(void **state)
{
	struct fixture *fixture = *state;

	send_json(fixture, "Async.VM.clone", "[\"good\",\"v\"]");
	assert_result(fixture, "\"OpaqueRef:task\"");
	assert_true(fixture->task_async);
	assert_string_equal(call_wire_name(fixture->task), "Async.VM.clone");
	assert_string_equal(call_session(fixture->task), "good");
	assert_string_equal(call_peer_address(fixture->task), "192.0.2.1");
	assert_string_equal(fixture->task_args[0]->string, "v");
	assert_null(fixture->task_args[1]);
	value_free(fixture->task_args[0]);
	free(fixture->task_args);
	call_unref(fixture->task);
}

static void a_long_method_runs_as_a_task_also_when_synchronous(void **state)
{
	struct fixture *fixture = *state;

	send_json(fixture, "VM.move", "[\"good\",\"v\"]");
	assert_int_equal(fixture->n_replies, 0);
	assert_false(fixture->task_async);
	call_succeed(fixture->task, NULL);
	assert_result(fixture, "\"\"");
	value_free(fixture->task_args[0]);
	free(fixture->task_args);
	call_unref(fixture->task);
}

static void async_of_a_method_without_it_is_a_fault(void **state)
{
	struct fixture *fixture = *state;

	send_json(fixture, "Async.X.fail", "[\"good\"]");
	assert_error(fixture, "Fault", "\"No async mode for this operation (rpc: X.fail)\"");
}

static void a_pending_call_is_answered_later(void **state)
{
	struct fixture *fixture = *state;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	send_json(fixture, "X.wait", "[\"good\"]");
	assert_int_equal(fixture->n_replies, 0);
	call_succeed(fixture->pending, value_new_string("woken"));
	assert_result(fixture, "\"woken\"");
	send_json(fixture, "X.wait", "[\"good\"]");
	fault_set(&fault, -EACCES, "SESSION_INVALID", "good", NULL);
	call_fail(fixture->pending, &fault);
	assert_error(fixture, "SESSION_INVALID", "\"good\"");
	send_json(fixture, "X.at_once", "[\"good\"]");
	assert_result(fixture, "\"before the handler returned\"");
}

static void list_methods_is_bare_in_xml_and_hides_the_hidden(void **state)
{
	struct fixture *fixture = *state;

	send_xml(fixture, "system.listMethods", value_new_array());
	assert_non_null(strstr(fixture->body, "<params><param><value><array><data><value>"
					      "VM.clone</value><value>VM.move</value>"));
	assert_null(strstr(fixture->body, "Status"));
	assert_null(strstr(fixture->body, "Peer."));
	assert_null(strstr(fixture->body, "Async."));
	send_json(fixture, "system.listMethods", "[]");
	assert_non_null(strstr(fixture->body, "\"result\":[\"VM.clone\""));
}

static void is_alive_echoes(void **state)
{
	struct fixture *fixture = *state;

	send_json(fixture, "system.isAlive:xyz", "[\"ping\"]");
	assert_result(fixture, "\"ping\"");
	send_json(fixture, "system.isAlive", "[\"pong\"]");
	assert_result(fixture, "\"pong\"");
}

static void a_failure_of_the_handler_is_a_normal_answer(void **state)
{
	struct fixture *fixture = *state;

	send_json(fixture, "X.fail", "[\"good\"]");
	assert_error(fixture, "HANDLE_INVALID", "\"VM\",\"OpaqueRef:x\"");
	send_xml(fixture, "X.fail", value_append_string(value_new_array(), "good"));
	assert_int_equal(fixture->status, 200);
	assert_non_null(strstr(fixture->body, "<name>Status</name><value>Failure</value>"));
}

static void what_is_no_request_is_http_500_with_a_page(void **state)
{
	static const char bad[] = "<methodCall><nope/>";
	struct fixture *fixture = *state;

	for (int wire = WIRE_XML; wire <= WIRE_JSON; wire++) {
		fixture->n_replies = 0;
		dispatcher_handle(fixture->dispatcher, (enum wire)wire, bad, strlen(bad), "",
			on_reply, fixture);
		assert_int_equal(fixture->n_replies, 1);
		assert_int_equal(fixture->status, 500);
		assert_string_equal(fixture->content_type, "text/html");
		assert_null(strstr(fixture->body, "<nope>"));
	}
}

static void text_that_is_not_utf8_is_an_api_failure(void **state)
{
	static const char text[] = "<methodCall><methodName>m</methodName><params><param><value>"
				   "\xff</value></param></params></methodCall>";
	struct fixture *fixture = *state;

	dispatcher_handle(fixture->dispatcher, WIRE_XML, text, strlen(text), "", on_reply, fixture);
	assert_int_equal(fixture->status, 200);
	assert_non_null(strstr(fixture->body, "<value>INVALID_VALUE</value>"
					      "<value>Invalid UTF-8 string in parameter</value>"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_call_reaches_its_handler_on_both_wires),
		cmocka_unit_test(an_unknown_method_is_named),
		cmocka_unit_test(parameters_are_counted_without_the_session),
		cmocka_unit_test(the_alias_with_an_underscore_is_the_same_method),
		cmocka_unit_test(numbers_are_taken_in_each_form_the_contract_allows),
		cmocka_unit_test(a_parameter_of_the_wrong_type_is_named),
		cmocka_unit_test(a_session_is_checked_but_where_none_is_needed),
		cmocka_unit_test(async_answers_with_a_task_while_the_call_lives_on),
		cmocka_unit_test(a_long_method_runs_as_a_task_also_when_synchronous),
		cmocka_unit_test(async_of_a_method_without_it_is_a_fault),
		cmocka_unit_test(a_pending_call_is_answered_later),
		cmocka_unit_test(list_methods_is_bare_in_xml_and_hides_the_hidden),
		cmocka_unit_test(is_alive_echoes),
		cmocka_unit_test(a_failure_of_the_handler_is_a_normal_answer),
		cmocka_unit_test(what_is_no_request_is_http_500_with_a_page),
		cmocka_unit_test(text_that_is_not_utf8_is_an_api_failure),
	};

	return cmocka_run_group_tests_name("dispatch", tests, setup, teardown);
}
