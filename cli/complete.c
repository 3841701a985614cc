/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/complete.h"

#include "base/clock.h"
#include "base/parse.h"
#include "base/value.h"
#include "cli/args.h"
#include "cli/config.h"
#include "cli/session.h"

#include <string.h>

/* A completion that keeps people waiting is worse than none. */
#define TIMEOUT_USEC (2 * USEC_PER_SEC)

struct completing {
	struct args args; /* of the words before the one that is completed */
	const char *word; /* what of it is there */
	struct buf *out;
};

static void offer(const struct completing *state, const char *candidate)
{
	if (strncmp(candidate, state->word, strlen(state->word)) == 0 && !strchr(candidate, '\n'))
		buf_printf(state->out, "%s\n", candidate);
}

static void offer_option(const struct completing *state, const struct option *option)
{
	char *name;

	if (!option->many && args_has(&state->args, option->name))
		return;
	if (asprintf(&name, "--%s", option->name) < 0)
		return;
	offer(state, name);
	free(name);
}

static void offer_options(const struct completing *state)
{
	const struct command *command = state->args.command;

	for (size_t i = 0; command && i < command->n_options; i++)
		offer_option(state, &command->options[i]);
	for (size_t i = 0; i < n_global_options; i++)
		offer_option(state, &global_options[i]);
}

static void offer_servers(const struct completing *state)
{
	struct config *config CLEANUP_CONFIG = NULL;

	if (config_load(args_value(&state->args, "config", NULL), &config, NULL) < 0)
		return;
	for (size_t i = 0; i < config->n_servers; i++)
		offer(state, config->servers[i].name);
}

/* Names where there are, else uuids; an option after --to speaks of the destination. */
static void offer_objects(const struct completing *state, const char *class, const char *server)
{
	struct config *config CLEANUP_CONFIG = NULL;
	struct session *session CLEANUP_SESSION = NULL;
	const struct value *records;

	if (config_load(args_value(&state->args, "config", NULL), &config, NULL) < 0)
		return;
	const struct session_params params = {
		.config = config, .server = server, .timeout_usec = TIMEOUT_USEC};
	if (session_open(&params, &session, NULL) < 0 ||
		session_records(session, class, &records, NULL) < 0)
		return;
	for (size_t i = 0; i < records->record.n_members; i++) {
		const struct value *record = records->record.members[i].value;
		const char *name = value_find_string(record, "name_label", "");
		offer(state, *name ? name : value_find_string(record, "uuid", ""));
	}
}

static void offer_methods(const struct completing *state, const char *server)
{
	struct config *config CLEANUP_CONFIG = NULL;
	struct session *session CLEANUP_SESSION = NULL;
	struct value *none CLEANUP_VALUE = value_new_array();
	struct value *names CLEANUP_VALUE = NULL;

	if (config_load(args_value(&state->args, "config", NULL), &config, NULL) < 0)
		return;
	const struct session_params params = {
		.config = config, .server = server, .timeout_usec = TIMEOUT_USEC};
	if (session_open(&params, &session, NULL) < 0 ||
		session_call_values(session, "system.listMethods", none, &names, NULL) < 0 ||
		names->type != VALUE_ARRAY)
		return;
	for (size_t i = 0; i < names->array.n_items; i++)
		offer(state, value_string(names->array.items[i], ""));
}

static void offer_words(const struct completing *state, const char *words)
{
	for (const char *at = words; *at;) {
		size_t n = strcspn(at, "|");
		char *word = strndup(at, n);
		if (word)
			offer(state, word);
		free(word);
		at += n + (at[n] == '|');
	}
}

/* is: as in struct operand. Files are the shell's own business. */
static void offer_values(const struct completing *state, const char *is, bool of_option)
{
	const char *server = args_value(&state->args, "server", NULL);
	const char *to = args_value(&state->args, "to", NULL);

	if (!is || strcmp(is, "file") == 0)
		return;
	if (strcmp(is, "server") == 0)
		offer_servers(state);
	else if (strcmp(is, "method") == 0)
		offer_methods(state, server);
	else if (strchr(is, '|'))
		offer_words(state, is);
	else
		offer_objects(state, is, of_option && to ? to : server);
}

static void offer_next_word(const struct completing *state)
{
	const struct args *args = &state->args;

	if (!args->noun) {
		for (size_t i = 0; i < n_nouns; i++)
			offer(state, nouns[i].name);
	} else if (!args->command) {
		for (size_t i = 0; i < args->noun->n_commands; i++)
			offer(state, args->noun->commands[i].verb);
	} else if (args->n_operands < command_n_operands(args->command)) {
		offer_values(state, args->command->operands[args->n_operands].is, false);
	}
}

void complete(int argc, char *const *argv, struct buf *out)
{
	struct completing state = {.args = ARGS_INIT, .word = "", .out = out};
	uint64_t position;

	if (argc < 1 || parse_range(argv[0], 1, 10000, &position) < 0)
		return;
	int n_before = (int)MIN(position - 1, (uint64_t)(argc - 1));
	if (position < (uint64_t)argc)
		state.word = argv[position];
	/* A word that is wrong does not keep the others from being completed. */
	const char *last = n_before ? argv[n_before] : "";
	(void)args_parse(&state.args, n_before, argv + 1, NULL);
	const struct option *option =
		strncmp(last, "--", 2) == 0 ? option_find(state.args.command, last + 2) : NULL;
	if (option && option->value)
		offer_values(&state, option->is, true);
	else if (state.word[0] == '-')
		offer_options(&state);
	else
		offer_next_word(&state);
	args_clear(&state.args);
}
