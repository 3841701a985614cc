/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/check.h"

#include "cli/args.h"
#include "cli/errors.h"

#define PARSE(args, fault, ...)                                                                    \
	({                                                                                         \
		char *words_[] = {__VA_ARGS__};                                                    \
		args_parse(args, (int)ARRAY_SIZE(words_), words_, fault);                          \
	})

static void options_and_operands_come_in_any_order(void **state)
{
	struct args args CLEANUP_ARGS = ARGS_INIT;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	(void)state;
	check_ok(&fault, PARSE(&args, &fault, "--json", "vm", "migrate", "--map=a=b", "web", "--to",
				 "there", "--map", "c=d"));
	check_ok(&fault, args_check(&args, &fault));
	assert_string_equal(args.command->verb, "migrate");
	assert_string_equal(args_operand(&args, 0), "web");
	assert_null(args_operand(&args, 1));
	assert_string_equal(args_value(&args, "to", ""), "there");
	assert_true(args_has(&args, "json"));
	size_t at = 0;
	assert_string_equal(args_next(&args, "map", &at), "a=b");
	assert_string_equal(args_next(&args, "map", &at), "c=d");
	assert_null(args_next(&args, "map", &at));
}

static void two_hyphens_end_the_options(void **state)
{
	struct args args CLEANUP_ARGS = ARGS_INIT;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	(void)state;
	check_ok(&fault, PARSE(&args, &fault, "vm", "show", "--", "--json"));
	assert_string_equal(args_operand(&args, 0), "--json");
	assert_false(args_has(&args, "json"));
}

static void a_value_may_look_like_an_option(void **state)
{
	struct args args CLEANUP_ARGS = ARGS_INIT;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	(void)state;
	check_ok(&fault, PARSE(&args, &fault, "vm", "create", "x", "--description", "--json"));
	assert_string_equal(args_value(&args, "description", ""), "--json");
	assert_false(args_has(&args, "json"));
}

static void a_pair_is_split_at_the_last_equals_sign(void **state)
{
	static const char *const bad[] = {"", "=", "a=", "=b", "ab"};
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	char *key CLEANUP_FREE = NULL;
	char *value CLEANUP_FREE = NULL;

	(void)state;
	check_ok(&fault, args_split("a=b=c", "map", &key, &value, &fault));
	assert_string_equal(key, "a=b");
	assert_string_equal(value, "c");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		check_fault(&fault, CLI_USAGE, args_split(bad[i], "map", &key, &value, &fault));
}

static void every_row_of_the_table_is_whole(void **state)
{
	(void)state;
	for (size_t i = 0; i < n_nouns; i++) {
		for (size_t j = 0; j < nouns[i].n_commands; j++) {
			const struct command *command = &nouns[i].commands[j];
			assert_string_equal(command->noun, nouns[i].name);
			assert_non_null(command->handle);
			assert_non_null(command->help);
			assert_ptr_equal(command_find(&nouns[i], command->verb), command);
			for (size_t k = 0; k < command->n_options; k++) {
				const struct option *option = &command->options[k];
				assert_non_null(option->help);
				assert_ptr_equal(option_find(command, option->name), option);
				/* A global option of the same name would be hidden. */
				assert_null(option_find(NULL, option->name));
			}
		}
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(options_and_operands_come_in_any_order),
		cmocka_unit_test(two_hyphens_end_the_options),
		cmocka_unit_test(a_value_may_look_like_an_option),
		cmocka_unit_test(a_pair_is_split_at_the_last_equals_sign),
		cmocka_unit_test(every_row_of_the_table_is_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
