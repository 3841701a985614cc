/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/args.h"

#include "base/alloc.h"
#include "base/parse.h"
#include "cli/errors.h"

#include <errno.h>
#include <string.h>

void args_clear(struct args *args)
{
	free(args->given);
	*args = (struct args)ARGS_INIT;
}

/* Whether text is one of the words in "a|b|c". */
static bool is_one_of(const char *words, const char *text)
{
	size_t length = strlen(text);

	for (const char *at = words; *at;) {
		size_t n = strcspn(at, "|");
		if (n == length && memcmp(at, text, n) == 0)
			return true;
		at += n + (at[n] == '|');
	}
	return false;
}

static int add_option(
	struct args *args, const struct option *option, const char *value, struct fault *fault)
{
	if (!option->many && args_has(args, option->name))
		return cli_usage(fault, "--%s is given twice", option->name);
	if (value && option->is && strchr(option->is, '|') && !is_one_of(option->is, value))
		return cli_usage(fault, "--%s is \"%s\", but must be one of %s", option->name,
			value, option->is);
	args->given = xrealloc(args->given, args->n_given + 1, sizeof(*args->given));
	args->given[args->n_given++] = (struct args_given){.option = option, .value = value};
	return 0;
}

/* argv[*at] is an option; *at moves to its value if that is the next word. */
static int read_option(struct args *args, int argc, char *const *argv, int *at, struct fault *fault)
{
	const char *word = argv[*at] + 2;
	const char *equals = strchr(word, '=');
	char *name CLEANUP_FREE = xstrndup(word, equals ? (size_t)(equals - word) : strlen(word));
	const struct option *option = option_find(args->command, name);

	if (!option && !args->command)
		return cli_usage(
			fault, "--%s is no global option; other options follow the command", name);
	if (!option)
		return cli_usage(fault, "`ferry %s%s%s` has no option --%s", args->command->noun,
			args->command->verb ? " " : "",
			args->command->verb ? args->command->verb : "", name);
	if (!option->value && equals)
		return cli_usage(fault, "--%s takes no value", name);
	if (!option->value)
		return add_option(args, option, NULL, fault);
	if (!equals && *at + 1 >= argc)
		return cli_usage(fault, "--%s needs a value: %s", name, option->value);
	return add_option(args, option, equals ? equals + 1 : argv[++*at], fault);
}

static int read_word(struct args *args, const char *word, struct fault *fault)
{
	if (!args->noun) {
		args->noun = noun_find(word);
		if (!args->noun)
			return cli_usage(fault, "there is no command \"%s\"", word);
		args->command = command_find(args->noun, NULL);
		return 0;
	}
	if (!args->command) {
		args->command = command_find(args->noun, word);
		if (!args->command)
			return cli_usage(
				fault, "there is no command \"%s %s\"", args->noun->name, word);
		return 0;
	}
	if (args->n_operands == command_n_words(args->command))
		return cli_usage(fault, "\"%s\" is one word too many", word);
	args->operands[args->n_operands++] = word;
	return 0;
}

int args_parse(struct args *args, int argc, char *const *argv, struct fault *fault)
{
	bool options = true;

	for (int i = 0; i < argc; i++) {
		int r;
		if (options && strcmp(argv[i], "--") == 0) {
			options = false;
			continue;
		}
		if (options && strncmp(argv[i], "--", 2) == 0)
			r = read_option(args, argc, argv, &i, fault);
		else if (options && argv[i][0] == '-' && argv[i][1])
			r = cli_usage(fault,
				"there is no option \"%s\": options are whole words, "
				"as --json",
				argv[i]);
		else
			r = read_word(args, argv[i], fault);
		if (r < 0)
			return r;
	}
	return 0;
}

int args_check(const struct args *args, struct fault *fault)
{
	if (!args->noun)
		return cli_usage(fault, "no command is given");
	if (!args->command)
		return cli_usage(fault, "\"%s\" needs a verb", args->noun->name);
	for (size_t i = args->n_operands; i < command_n_operands(args->command); i++)
		if (!args->command->operands[i].optional)
			return cli_usage(fault, "%s is missing", args->command->operands[i].name);
	for (size_t i = 0; i < args->command->n_options; i++) {
		const struct option *option = &args->command->options[i];
		if (option->required && !args_has(args, option->name))
			return cli_usage(fault, "--%s %s is missing", option->name, option->value);
	}
	return 0;
}

const char *args_next(const struct args *args, const char *option, size_t *at)
{
	while (*at < args->n_given) {
		const struct args_given *given = &args->given[(*at)++];
		if (strcmp(given->option->name, option) == 0)
			return given->value ? given->value : "";
	}
	return NULL;
}

bool args_has(const struct args *args, const char *option)
{
	size_t at = 0;

	return args_next(args, option, &at) != NULL;
}

const char *args_value(const struct args *args, const char *option, const char *fallback)
{
	size_t at = 0;
	const char *value;

	while ((value = args_next(args, option, &at)))
		fallback = value;
	return fallback;
}

const char *args_operand(const struct args *args, size_t index)
{
	return index < args->n_operands ? args->operands[index] : NULL;
}

int args_size(const struct args *args, const char *option, uint64_t fallback, uint64_t *ret_bytes,
	struct fault *fault)
{
	const char *text = args_value(args, option, NULL);

	*ret_bytes = fallback;
	if (!text)
		return 0;
	int r = parse_size(text, ret_bytes);
	if (r == -ERANGE || (r == 0 && *ret_bytes > INT64_MAX))
		return cli_usage(fault, "--%s %s is too large", option, text);
	if (r < 0)
		return cli_usage(fault,
			"--%s is \"%s\", but must be bytes, as 512, 64K, 300M, 20G "
			"or 2T",
			option, text);
	return 0;
}

int args_split(
	const char *text, const char *option, char **ret_key, char **ret_value, struct fault *fault)
{
	const char *equals = strrchr(text, '=');

	if (!equals || equals == text || !equals[1])
		return cli_usage(
			fault, "--%s is \"%s\", but must be of the form A=B", option, text);
	*ret_key = xstrndup(text, (size_t)(equals - text));
	*ret_value = xstrdup(equals + 1);
	return 0;
}
