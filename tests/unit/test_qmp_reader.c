/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/check.h"

#include "agent/guest/qmp_reader.h"
#include "base/alloc.h"

#include <errno.h>
#include <stdlib.h>

struct fixture {
	struct qmp_reader reader;
	struct qmp_message message;
	struct fault fault;
};

static int setup(void **state)
{
	*state = xcalloc(1, sizeof(struct fixture));
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	qmp_reader_clear(&f->reader);
	qmp_message_clear(&f->message);
	fault_clear(&f->fault);
	free(f);
	return 0;
}

static int next(struct fixture *f)
{
	qmp_message_clear(&f->message);
	return qmp_reader_next(&f->reader, &f->message, &f->fault);
}

static void feed(struct fixture *f, const char *text)
{
	check_ok(&f->fault, qmp_reader_feed(&f->reader, text, strlen(text), &f->fault));
}

static void messages_are_told_apart(void **state)
{
	struct fixture *f = *state;

	feed(f, "{\"QMP\": {\"version\": {}, \"capabilities\": [\"oob\"]}}\r\n"
		"{\"return\": {\"a\": 1}, \"id\": \"7\"}\n"
		"{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}, \"id\": \"8\"}\n"
		"\r\n"
		"{\"event\": \"STOP\", \"timestamp\": {\"seconds\": 1}}\n"
		"{\"event\": \"RESET\", \"data\": {\"guest\": true}}\n"
		"{\"what\": 1}\n");
	assert_int_equal(next(f), 1);
	assert_int_equal(f->message.kind, QMP_GREETING);
	assert_true(value_contains_string(value_find(f->message.body, "capabilities"), "oob"));
	assert_int_equal(next(f), 1);
	assert_int_equal(f->message.kind, QMP_RETURN);
	assert_string_equal(f->message.id, "7");
	assert_int_equal(value_find_int(f->message.body, "a", 0), 1);
	assert_int_equal(next(f), 1);
	assert_int_equal(f->message.kind, QMP_ERROR);
	assert_string_equal(f->message.name, "GenericError");
	assert_string_equal(f->message.text, "no");
	assert_int_equal(next(f), 1);
	assert_int_equal(f->message.kind, QMP_EVENT);
	assert_string_equal(f->message.name, "STOP");
	assert_int_equal(f->message.body->type, VALUE_STRUCT);
	assert_int_equal(next(f), 1);
	assert_true(value_find_bool(f->message.body, "guest", false));
	assert_int_equal(next(f), 1);
	assert_int_equal(f->message.kind, QMP_OTHER);
	assert_int_equal(next(f), 0);
}

static void a_line_may_come_byte_by_byte(void **state)
{
	struct fixture *f = *state;
	static const char line[] = "{\"return\": {}, \"id\": \"1\"}\n{\"event\": \"X\"}\n";
	size_t found = 0;

	for (size_t i = 0; line[i]; i++) {
		check_ok(&f->fault, qmp_reader_feed(&f->reader, line + i, 1, &f->fault));
		found += (size_t)next(f);
	}
	assert_int_equal(found, 2);
	assert_string_equal(f->message.name, "X");
}

static void what_is_no_message_breaks_the_reader_for_good(void **state)
{
	static const char *const lines[] = {"garbage\n", "[]\n", "\"text\"\n",
		"{\"a\":1,\"a\":2}\n", "{\"return\": {}} {}\n", "{\"x\": \"\xff\"}\n"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		struct fixture f = {0};
		feed(&f, lines[i]);
		feed(&f, "{\"return\": {}, \"id\": \"1\"}\n");
		assert_int_equal(next(&f), -EBADMSG);
		assert_non_null(strstr(f.fault.params[0], "QMP: "));
		assert_int_equal(next(&f), -EBADMSG);
		assert_int_equal(qmp_reader_feed(&f.reader, "\n", 1, &f.fault), -EBADMSG);
		qmp_reader_clear(&f.reader);
		fault_clear(&f.fault);
	}
}

static void data_of_another_type_is_no_struct_and_harms_nobody(void **state)
{
	struct fixture *f = *state;

	feed(f, "{\"event\": \"A\", \"data\": [1]}\n{\"error\": 5}\n{\"QMP\": null}\n");
	assert_int_equal(next(f), 1);
	assert_int_equal(f->message.body->type, VALUE_STRUCT);
	assert_int_equal(next(f), 1);
	assert_int_equal(f->message.kind, QMP_ERROR);
	assert_int_equal(next(f), 1);
	assert_int_equal(f->message.kind, QMP_GREETING);
}

static void a_line_without_end_is_refused(void **state)
{
	struct fixture *f = *state;
	size_t length = 1 << 20;
	char *bytes CLEANUP_FREE = malloc(length);
	int r = 0;
	size_t fed = 0;

	assert_non_null(bytes);
	memset(bytes, ' ', length);
	while (r == 0 && fed < 16 * length) {
		r = qmp_reader_feed(&f->reader, bytes, length, &f->fault);
		fed += length;
		if (r == 0)
			assert_int_equal(next(f), 0);
	}
	assert_int_equal(r, -EMSGSIZE);
	assert_true(fed <= QMP_MAX_LINE + 2 * length);
	assert_null(f->reader.bytes.data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(messages_are_told_apart, setup, teardown),
		cmocka_unit_test_setup_teardown(a_line_may_come_byte_by_byte, setup, teardown),
		cmocka_unit_test(what_is_no_message_breaks_the_reader_for_good),
		cmocka_unit_test_setup_teardown(
			data_of_another_type_is_no_struct_and_harms_nobody, setup, teardown),
		cmocka_unit_test_setup_teardown(a_line_without_end_is_refused, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
