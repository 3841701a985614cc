/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/check.h"

#include "base/alloc.h"
#include "tests/lib/random_value.h"
#include "xmlrpc/codec.h"

#include <errno.h>

#define HEAD "<?xml version=\"1.0\"?><methodResponse><params><param>"
#define TAIL "</param></params></methodResponse>"
#define CALL(params)                                                                               \
	"<methodCall><methodName>m</methodName><params>" params "</params></methodCall>"
#define ONE(value) CALL("<param>" value "</param>")

static void assert_encoded(struct value *value, const char *expected)
{
	struct value *owned CLEANUP_VALUE = value;
	struct buf out CLEANUP_BUF = BUF_INIT;
	char *full CLEANUP_FREE = xasprintf(HEAD "%s" TAIL, expected);
	char *fragment CLEANUP_FREE = xml_encode_fragment(owned);

	xml_encode_bare(owned, &out);
	assert_string_equal(out.data, full);
	assert_string_equal(fragment, expected);
}

static void every_type_is_encoded_to_the_byte(void **state)
{
	(void)state;
	assert_encoded(value_new_string(""), "<value></value>");
	assert_encoded(value_new_string("a<b>&\"'"), "<value>a&lt;b&gt;&amp;&quot;'</value>");
	assert_encoded(value_new_int(-5), "<value>-5</value>");
	assert_encoded(value_new_i4(7), "<value><i4>7</i4></value>");
	assert_encoded(value_new_bool(true), "<value><boolean>1</boolean></value>");
	assert_encoded(value_new_bool(false), "<value><boolean>0</boolean></value>");
	assert_encoded(value_new_double(0.1), "<value><double>0.1</double></value>");
	assert_encoded(value_new_double(1e100), "<value><double>1e+100</double></value>");
	assert_encoded(value_new_datetime(1787277623),
		"<value><dateTime.iso8601>20260821T02:00:23Z</dateTime.iso8601></value>");
	assert_encoded(value_new_array(), "<value><array><data></data></array></value>");
	assert_encoded(value_new_struct(), "<value><struct></struct></value>");
	assert_encoded(value_append(value_new_array(), value_new_int(1)),
		"<value><array><data><value>1</value></data></array></value>");
	assert_encoded(value_set_string(value_new_struct(), "a&b", "c"),
		"<value><struct><member><name>a&amp;b</name><value>c</value></member></struct>"
		"</value>");
}

static void bytes_that_xml_cannot_carry_are_dropped(void **state)
{
	(void)state;
	assert_encoded(value_new_string("a\x01\x1f\tb\nc\x7f"), "<value>a\tb\nc\x7f</value>");
	assert_encoded(value_new_string("a\rb"), "<value>a&#13;b</value>");
	assert_encoded(value_new_string("\xef\xbf\xbe|\xef\xbf\xbf|\xef\xbf\xbd"),
		"<value>||\xef\xbf\xbd</value>");
	assert_encoded(value_new_string("caf\xe9 <"), "<value>caf? &lt;</value>");
}

static void answers_have_the_envelope_of_the_contract(void **state)
{
	struct buf out CLEANUP_BUF = BUF_INIT;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	(void)state;
	xml_encode_success(NULL, &out);
	assert_string_equal(out.data,
		"<?xml version=\"1.0\"?><methodResponse><params><param><value><struct><member>"
		"<name>Status</name><value>Success</value></member><member><name>Value</name>"
		"<value></value></member></struct></value></param></params></methodResponse>");
	buf_free(&out);
	fault_set(&fault, -ENOENT, "HANDLE_INVALID", "VM", "OpaqueRef:<x>", NULL);
	xml_encode_failure(&fault, &out);
	assert_string_equal(out.data,
		"<?xml version=\"1.0\"?><methodResponse><params><param><value><struct><member>"
		"<name>Status</name><value>Failure</value></member><member>"
		"<name>ErrorDescription</name><value><array><data><value>HANDLE_INVALID</value>"
		"<value>VM</value><value>OpaqueRef:&lt;x&gt;</value></data></array></value>"
		"</member></struct></value></param></params></methodResponse>");
}

static struct value *decode_one(const char *text)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct value *params CLEANUP_VALUE = NULL;
	char *method CLEANUP_FREE = NULL;

	check_ok(&fault, xml_decode_call(text, strlen(text), &codec_limits_request, &method,
				 &params, &fault));
	assert_string_equal(method, "m");
	assert_int_equal(params->array.n_items, 1);
	return value_copy(params->array.items[0]);
}

static void assert_decoded(const char *text, struct value *expected)
{
	struct value *value CLEANUP_VALUE = decode_one(text);
	struct value *owned CLEANUP_VALUE = expected;

	if (!value_equal(value, owned))
		print_error("wrong value from %s\n", text);
	assert_true(value_equal(value, owned));
}

static void every_form_of_a_value_is_read(void **state)
{
	(void)state;
	assert_decoded(ONE("<value>x</value>"), value_new_string("x"));
	assert_decoded(ONE("<value> x\n</value>"), value_new_string(" x\n"));
	assert_decoded(ONE("<value/>"), value_new_string(""));
	assert_decoded(ONE("<value><string/></value>"), value_new_string(""));
	assert_decoded(ONE("<value> <string> x</string>\n</value>"), value_new_string(" x"));
	assert_decoded(ONE("<value><![CDATA[<&]]>;</value>"), value_new_string("<&;"));
	assert_decoded(ONE("<value>&lt;&amp;&#13;&#x20ac;&apos;</value>"),
		value_new_string("<&\r\xe2\x82\xac'"));
	assert_decoded(ONE("<value>a<!-- b -->c</value>"), value_new_string("ac"));
	assert_decoded(ONE("<value><int>-7</int></value>"), value_new_int(-7));
	assert_decoded(ONE("<value><i4>+7</i4></value>"), value_new_int(7));
	assert_decoded(
		ONE("<value><i8>9223372036854775807</i8></value>"), value_new_int(INT64_MAX));
	assert_decoded(ONE("<value><boolean>1</boolean></value>"), value_new_bool(true));
	assert_decoded(ONE("<value><double>-1.5e3</double></value>"), value_new_double(-1500));
	assert_decoded(ONE("<value><dateTime.iso8601>2026-08-21T02:00:23Z</dateTime.iso8601>"
			   "</value>"),
		value_new_datetime(1787277623));
	assert_decoded(ONE("<value><nil/></value>"), value_new_nil());
	assert_decoded(
		ONE("<value>\n<array>\n<data>\n<value>1</value>\n</data>\n</array>\n</value>"),
		value_append_string(value_new_array(), "1"));
	assert_decoded(
		ONE("<value><struct>\n<member>\n<name>k</name>\n<value><int>1</int></value>\n"
		    "</member>\n</struct></value>"),
		value_set_int(value_new_struct(), "k", 1));
	assert_decoded(ONE("<value><struct><member><value>v</value><name>k</name></member>"
			   "</struct></value>"),
		value_set_string(value_new_struct(), "k", "v"));
}

static void what_python_sends_is_read(void **state)
{
	static const char text[] =
		"<?xml version='1.0'?>\n<methodCall>\n"
		"<methodName>session.login_with_password</methodName>\n<params>\n"
		"<param>\n<value><string>root</string></value>\n</param>\n"
		"<param>\n<value><nil/></value></param>\n"
		"</params>\n</methodCall>\n";
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct value *params CLEANUP_VALUE = NULL;
	char *method CLEANUP_FREE = NULL;

	(void)state;
	check_ok(&fault, xml_decode_call(text, strlen(text), &codec_limits_request, &method,
				 &params, &fault));
	assert_string_equal(method, "session.login_with_password");
	assert_int_equal(params->array.n_items, 2);
	assert_string_equal(value_string(params->array.items[0], ""), "root");
	assert_int_equal(params->array.items[1]->type, VALUE_NIL);
}

struct refused {
	const char *text;
	const char *says;
};

static void what_is_no_request_is_refused_with_its_reason(void **state)
{
	static const struct refused cases[] = {
		{"", "empty"},
		{"hello", "Start tag expected"},
		{"<methodCall>", "line 1"},
		{"<methodCall></methodCall>", "<methodCall> without <methodName>"},
		{"<html/>", "unknown element <html>"},
		{"<value/>", "<value> cannot stand in <document>"},
		{"<methodResponse><params/></methodResponse>", "is no request"},
		{"<!DOCTYPE methodCall>" ONE("<value/>"), "document type declaration"},
		{"<!DOCTYPE m [<!ENTITY a \"b\">]>" ONE("<value>&a;</value>"), "document type"},
		{"<!DOCTYPE m SYSTEM \"file:///etc/passwd\">" ONE("<value/>"), "document type"},
		{ONE("<value>&nope;</value>"), "nope"},
		{ONE("<value><base64>AAAA</base64></value>"), "<base64> is not used"},
		{ONE("<value><int></int></value>"), "is no int"},
		{ONE("<value><int>1x</int></value>"), "\"1x\" is no int"},
		{ONE("<value><i8>9223372036854775808</i8></value>"), "is no i8"},
		{ONE("<value><boolean>true</boolean></value>"), "is no boolean"},
		{ONE("<value><double>nan</double></value>"), "is no double"},
		{ONE("<value><dateTime.iso8601>now</dateTime.iso8601></value>"),
			"is no dateTime.iso8601"},
		{ONE("<value>x<int>1</int></value>"), "text beside a tag within <value>"},
		{ONE("<value><int>1</int>x</value>"), "text beside a tag within <value>"},
		{ONE("<value><int>1</int><int>2</int></value>"), "a second element, <int>"},
		{ONE("<value><int><int>1</int></int></value>"), "<int> cannot stand in <int>"},
		{ONE("<value/><value/>"), "<value> twice in <param>"},
		{ONE(""), "<param> without <value>"},
		{ONE("<value><array></array></value>"), "<array> without <data>"},
		{ONE("<value><struct><member><value/></member></struct></value>"),
			"<member> without <name>"},
		{ONE("<value><struct><member><name>a</name></member></struct></value>"),
			"<member> without <value>"},
		{ONE("<value><struct><member><name>a</name><value/></member><member><name>a</name>"
		     "<value/></member></struct></value>"),
			"member \"a\" twice"},
		{CALL("") CALL(""), "line 1"},
		{ONE("<value>\x01</value>"), "line 1"},
		{ONE("<value>&#1;</value>"), "line 1"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct fault fault CLEANUP_FAULT = FAULT_INIT;
		struct value *params CLEANUP_VALUE = NULL;
		char *method CLEANUP_FREE = NULL;
		int r = xml_decode_call(cases[i].text, strlen(cases[i].text), &codec_limits_request,
			&method, &params, &fault);
		assert_int_equal(r, -EBADMSG);
		assert_null(method);
		assert_null(params);
		if (!strstr(fault.params[0], cases[i].says))
			fail_msg("%s: \"%s\" does not say \"%s\"", cases[i].text, fault.params[0],
				cases[i].says);
	}
}

static void bytes_that_are_not_utf8_are_an_invalid_value(void **state)
{
	static const char text[] = ONE("<value>\xc3\xa9 caf\xe9 au lait</value>");
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct value *params CLEANUP_VALUE = NULL;
	char *method CLEANUP_FREE = NULL;

	(void)state;
	assert_int_equal(xml_decode_call(text, strlen(text), &codec_limits_request, &method,
				 &params, &fault),
		-EILSEQ);
	assert_string_equal(fault.code, "INVALID_VALUE");
	assert_string_equal(fault.params[0], "Invalid UTF-8 string in parameter");
	assert_string_equal(fault.params[1], "?? caf? au lait");
}

/* `inner` in n arrays. */
static char *nested(size_t n, const char *inner)
{
	struct buf out = BUF_INIT;

	buf_append_string(&out, "<methodCall><methodName>m</methodName><params><param>");
	for (size_t i = 0; i < n; i++)
		buf_append_string(&out, "<value><array><data>");
	buf_append_string(&out, inner);
	for (size_t i = 0; i < n; i++)
		buf_append_string(&out, "</data></array></value>");
	buf_append_string(&out, "</param></params></methodCall>");
	return buf_take_string(&out);
}

static int decode_with(const char *text, const struct codec_limits *limits, struct fault *fault)
{
	struct value *params CLEANUP_VALUE = NULL;
	char *method CLEANUP_FREE = NULL;

	fault_clear(fault);
	return xml_decode_call(text, strlen(text), limits, &method, &params, fault);
}

static void each_limit_is_exact(void **state)
{
	struct codec_limits limits = {.max_bytes = 1 << 20, .max_depth = 60, .max_values = 61};
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	char *text CLEANUP_FREE = nested(60, "<value/>");
	char *deeper CLEANUP_FREE = nested(61, "");
	char *more CLEANUP_FREE = nested(60, "<value/><value/>");

	(void)state;
	assert_int_equal(decode_with(text, &limits, &fault), 0);
	assert_int_equal(decode_with(deeper, &limits, &fault), -EBADMSG);
	assert_non_null(strstr(fault.params[0], "nested deeper than 60"));
	assert_int_equal(decode_with(more, &limits, &fault), -EBADMSG);
	assert_non_null(strstr(fault.params[0], "more than 61 values"));
	limits.max_bytes = strlen(text);
	assert_int_equal(decode_with(text, &limits, &fault), 0);
	limits.max_bytes--;
	assert_int_equal(decode_with(text, &limits, &fault), -EBADMSG);
}

static int decode_answer(const char *text, struct value **ret_result, struct fault *fault)
{
	fault_clear(fault);
	return xml_decode_response(text, strlen(text), &codec_limits_response, ret_result, fault);
}

static void answers_are_read_back(void **state)
{
	struct fault failure CLEANUP_FAULT = FAULT_INIT;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct value *list CLEANUP_VALUE = value_append_string(value_new_array(), "a");
	struct value *result CLEANUP_VALUE = NULL;
	struct buf out CLEANUP_BUF = BUF_INIT;

	(void)state;
	xml_encode_success(list, &out);
	check_ok(&fault, decode_answer(out.data, &result, &fault));
	assert_true(value_equal(result, list));
	result = value_free(result);
	buf_free(&out);
	xml_encode_bare(list, &out);
	check_ok(&fault, decode_answer(out.data, &result, &fault));
	assert_true(value_equal(result, list));
	buf_free(&out);
	fault_set(&failure, -EINVAL, "SR_FULL", "1", "", NULL);
	xml_encode_failure(&failure, &out);
	assert_int_equal(decode_answer(out.data, &result, &fault), -EREMOTEIO);
	assert_string_equal(fault.code, "SR_FULL");
	assert_int_equal(fault.n_params, 2);
	assert_string_equal(fault.params[1], "");
}

static void what_is_no_answer_is_refused(void **state)
{
	static const char *const bad[] = {
		CALL(""),
		"<methodResponse/>",
		"<methodResponse><params/></methodResponse>",
		"<methodResponse><params/><fault><value/></fault></methodResponse>",
		HEAD "<value><struct></struct></value>" TAIL,
		HEAD "<value><struct><member><name>Status</name><value>Success</value></member>"
		     "</struct></value>" TAIL,
		HEAD "<value><struct><member><name>Status</name><value>Failure</value></member>"
		     "</struct></value>" TAIL,
		HEAD "<value>cut off",
	};
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct value *result = NULL;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(decode_answer(bad[i], &result, &fault), -EBADMSG);
		assert_null(result);
	}
	assert_int_equal(decode_answer("<methodResponse><fault><value><struct><member><name>"
				       "faultCode</name><value><int>4</int></value></member>"
				       "<member><name>faultString</name><value>no</value></member>"
				       "</struct></value></fault></methodResponse>",
				 &result, &fault),
		-EREMOTEIO);
	assert_string_equal(fault.code, "Fault");
	assert_string_equal(fault.params[0], "no");
}

/* What the wire makes of a tree: bare ints are text, <i4> is an int. */
static struct value *as_read(const struct value *value)
{
	struct value *copy;

	switch (value->type) {
	case VALUE_INT:
		return value_new_format("%lld", (long long)value->integer);
	case VALUE_I4:
		return value_new_int(value->integer);
	case VALUE_STRING:
		return value_copy(value);
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
	(void)state;
	for (uint64_t seed = 1; seed <= 400; seed++) {
		uint64_t random = seed * UINT64_C(0x9e3779b97f4a7c15);
		struct value *tree CLEANUP_VALUE = random_tree(&random, 4);
		struct value *expected CLEANUP_VALUE = as_read(tree);
		struct value *result CLEANUP_VALUE = NULL;
		struct fault fault CLEANUP_FAULT = FAULT_INIT;
		struct buf out CLEANUP_BUF = BUF_INIT;
		xml_encode_success(tree, &out);
		check_ok(&fault, xml_decode_response(out.data, out.length, &codec_limits_response,
					 &result, &fault));
		if (!value_equal(result, expected))
			fail_msg("seed %llu came back changed: %s", (unsigned long long)seed,
				out.data);
	}
}

static void calls_survive_the_wire(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 100; seed++) {
		uint64_t random = seed * UINT64_C(0x9e3779b97f4a7c15);
		struct value *params CLEANUP_VALUE = value_new_array();
		struct value *read CLEANUP_VALUE = NULL;
		struct fault fault CLEANUP_FAULT = FAULT_INIT;
		struct buf out CLEANUP_BUF = BUF_INIT;
		char *method CLEANUP_FREE = NULL;
		for (size_t n = random_below(&random, 5); n; n--)
			value_append(params, random_tree(&random, 3));
		xml_encode_call("Async.VM.migrate_send", params, &out);
		check_ok(&fault, xml_decode_call(out.data, out.length, &codec_limits_response,
					 &method, &read, &fault));
		struct value *expected CLEANUP_VALUE = as_read(params);
		assert_string_equal(method, "Async.VM.migrate_send");
		assert_true(value_equal(read, expected));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_type_is_encoded_to_the_byte),
		cmocka_unit_test(bytes_that_xml_cannot_carry_are_dropped),
		cmocka_unit_test(answers_have_the_envelope_of_the_contract),
		cmocka_unit_test(every_form_of_a_value_is_read),
		cmocka_unit_test(what_python_sends_is_read),
		cmocka_unit_test(what_is_no_request_is_refused_with_its_reason),
		cmocka_unit_test(bytes_that_are_not_utf8_are_an_invalid_value),
		cmocka_unit_test(each_limit_is_exact),
		cmocka_unit_test(answers_are_read_back),
		cmocka_unit_test(what_is_no_answer_is_refused),
		cmocka_unit_test(random_trees_survive_the_wire),
		cmocka_unit_test(calls_survive_the_wire),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
