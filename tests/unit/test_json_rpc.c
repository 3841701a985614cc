/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/check.h"

#include "base/json.h"
#include "tests/lib/random_value.h"
#include "xmlrpc/codec.h"

#include <errno.h>

struct request {
	char *method;
	struct value *params;
	enum json_version version;
	struct json_id id;
};

static void request_clear(struct request *request)
{
	free(request->method);
	value_free(request->params);
	json_id_clear(&request->id);
	*request = (struct request){0};
}

static int decode(const char *text, struct request *request, struct fault *fault)
{
	fault_clear(fault);
	return json_decode_call(text, strlen(text), &codec_limits_request, &request->method,
		&request->params, &request->version, &request->id, fault);
}

static void both_versions_of_a_request_are_read(void **state)
{
	struct request request CLEANUP(request_clear) = {0};
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	(void)state;
	check_ok(&fault, decode("{\"id\":0,\"jsonrpc\":\"2.0\",\"method\":\"VM.f\",\"params\":"
				"[\"s\",1,2.5,true,null,{\"a\":[]}]}",
				 &request, &fault));
	assert_string_equal(request.method, "VM.f");
	assert_int_equal(request.version, JSON_RPC_2);
	assert_false(request.id.is_string);
	assert_int_equal(request.id.number, 0);
	assert_int_equal(request.params->array.n_items, 6);
	assert_int_equal(request.params->array.items[1]->type, VALUE_INT);
	assert_int_equal(request.params->array.items[2]->type, VALUE_DOUBLE);
	request_clear(&request);
	check_ok(&fault, decode("{\"id\":\"x\\\"\",\"method\":\"m\"}", &request, &fault));
	assert_int_equal(request.version, JSON_RPC_1);
	assert_string_equal(request.id.text, "x\"");
	assert_int_equal(request.params->array.n_items, 0);
}

static void what_is_no_request_is_refused_with_its_reason(void **state)
{
	static const char *const cases[][2] = {
		{"", "line"},
		{"{", "line"},
		{"[]", "one object"},
		{"{\"id\":1}", "method"},
		{"{\"id\":1,\"method\":5}", "method"},
		{"{\"id\":1,\"method\":\"m\",\"params\":{}}", "params"},
		{"{\"method\":\"m\"}", "id"},
		{"{\"id\":null,\"method\":\"m\"}", "id"},
		{"{\"id\":1.5,\"method\":\"m\"}", "id"},
		{"{\"id\":1,\"jsonrpc\":\"3.0\",\"method\":\"m\"}", "jsonrpc"},
		{"{\"id\":1,\"jsonrpc\":2.0,\"method\":\"m\"}", "jsonrpc"},
		{"{\"id\":1,\"id\":2,\"method\":\"m\"}", "duplicate"},
		{"{\"id\":1,\"method\":\"m\"} x", "line"},
		{"{\"id\":1,\"method\":\"\\u0000\"}", "\\u0000"},
		{"{\"id\":1,\"method\":\"\xe9\"}", "decode byte 0xe9"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct request request CLEANUP(request_clear) = {0};
		struct fault fault CLEANUP_FAULT = FAULT_INIT;
		assert_int_equal(decode(cases[i][0], &request, &fault), -EBADMSG);
		if (!strstr(fault.params[0], cases[i][1]))
			fail_msg("%s: \"%s\" does not say \"%s\"", cases[i][0], fault.params[0],
				cases[i][1]);
	}
}

static void limits_hold_for_json_too(void **state)
{
	const struct codec_limits limits = {.max_bytes = 1000, .max_depth = 3, .max_values = 4};
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	static const struct {
		const char *params;
		int result;
	} cases[] = {
		{"[[[[]]]]", 0},
		{"[[[[[]]]]]", -EBADMSG},
		{"[1,2,3,4]", 0},
		{"[1,2,3,4,5]", -EBADMSG},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct request request CLEANUP(request_clear) = {0};
		struct buf text CLEANUP_BUF = BUF_INIT;
		buf_printf(&text, "{\"id\":1,\"jsonrpc\":\"2.0\",\"method\":\"m\",\"params\":%s}",
			cases[i].params);
		int r = json_decode_call(text.data, text.length, &limits, &request.method,
			&request.params, &request.version, &request.id, &fault);
		if (r != cases[i].result)
			fail_msg("%s: %d", cases[i].params, r);
	}
}

static void answers_have_the_envelope_of_the_contract(void **state)
{
	struct json_id number = {.number = 7};
	struct json_id text = {.is_string = true, .text = (char[]){"a\"b"}};
	struct value *result CLEANUP_VALUE = value_new_int(5);
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct buf out CLEANUP_BUF = BUF_INIT;

	(void)state;
	json_encode_success(result, JSON_RPC_2, &number, &out);
	assert_string_equal(out.data, "{\"jsonrpc\":\"2.0\",\"result\":5,\"id\":7}");
	buf_free(&out);
	json_encode_success(NULL, JSON_RPC_1, &text, &out);
	assert_string_equal(out.data, "{\"result\":\"\",\"error\":null,\"id\":\"a\\\"b\"}");
	buf_free(&out);
	fault_set(&fault, -ENOENT, "HANDLE_INVALID", "VM", "r", NULL);
	json_encode_failure(&fault, JSON_RPC_2, &number, &out);
	assert_string_equal(out.data,
		"{\"jsonrpc\":\"2.0\",\"error\":{\"code\":1,\"message\":\"HANDLE_INVALID\","
		"\"data\":[\"VM\",\"r\"]},\"id\":7}");
	buf_free(&out);
	json_encode_failure(&fault, JSON_RPC_1, &number, &out);
	assert_string_equal(
		out.data, "{\"result\":null,\"error\":[\"HANDLE_INVALID\",\"VM\",\"r\"],\"id\":7}");
	buf_free(&out);
	fault_set(&fault, -ENOENT, "HOST_STILL_BOOTING", NULL);
	json_encode_failure(&fault, JSON_RPC_2, &number, &out);
	assert_string_equal(out.data,
		"{\"jsonrpc\":\"2.0\",\"error\":{\"code\":1,\"message\":\"HOST_STILL_BOOTING\","
		"\"data\":[]},\"id\":7}");
}

/* What the wire makes of a tree: <i4> and int are one, a datetime is text. */
static struct value *as_read(const struct value *value)
{
	struct value *copy;

	switch (value->type) {
	case VALUE_I4:
		return value_new_int(value->integer);
	case VALUE_DATETIME: {
		char *text CLEANUP_FREE = datetime_format(value->integer);
		return value_new_string(text);
	}
	case VALUE_ARRAY:
		copy = value_new_array();
		for (size_t i = 0; i < value->array.n_items; i++)
			value_append(copy, as_read(value->array.items[i]));
		return copy;
	case VALUE_STRUCT:
		copy = value_new_struct();
		for (size_t i = 0; i < value->record.n_members; i++)
			value_set(copy, value->record.members[i].name,
				as_read(value->record.members[i].value));
		return copy;
	default:
		return value_copy(value);
	}
}

static void random_trees_survive_the_wire(void **state)
{
	const struct json_id id = {.number = 1};

	(void)state;
	for (uint64_t seed = 1; seed <= 400; seed++) {
		uint64_t random = seed * UINT64_C(0x9e3779b97f4a7c15);
		struct value *tree CLEANUP_VALUE = random_tree(&random, 4);
		struct value *expected CLEANUP_VALUE = as_read(tree);
		struct value *answer CLEANUP_VALUE = NULL;
		struct fault fault CLEANUP_FAULT = FAULT_INIT;
		struct buf out CLEANUP_BUF = BUF_INIT;
		json_encode_success(tree, JSON_RPC_2, &id, &out);
		check_ok(&fault, json_decode(out.data, out.length, NULL, &answer, &fault));
		if (!value_equal(value_find(answer, "result"), expected))
			fail_msg("seed %llu came back changed: %s", (unsigned long long)seed,
				out.data);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(both_versions_of_a_request_are_read),
		cmocka_unit_test(what_is_no_request_is_refused_with_its_reason),
		cmocka_unit_test(limits_hold_for_json_too),
		cmocka_unit_test(answers_have_the_envelope_of_the_contract),
		cmocka_unit_test(random_trees_survive_the_wire),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
