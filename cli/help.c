/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/help.h"

#include "base/alloc.h"
#include "base/cleanup.h"

#include <string.h>

#define COMMAND_COLUMNS 20
#define OPTION_COLUMNS  28

void help_usage(const struct command *command, struct buf *out)
{
	bool optional = false;

	buf_printf(out, "ferry %s%s%s", command->noun, command->verb ? " " : "",
		command->verb ? command->verb : "");
	for (size_t i = 0; i < command_n_operands(command); i++)
		buf_printf(out, command->operands[i].optional ? " [%s]%s" : " %s%s",
			command->operands[i].name,
			command->repeats && i + 1 == command_n_operands(command) ? " ..." : "");
	for (size_t i = 0; i < command->n_options; i++) {
		const struct option *option = &command->options[i];
		if (option->required)
			buf_printf(out, " --%s %s", option->name, option->value);
		optional |= !option->required;
	}
	buf_append_string(out, optional ? " [options]\n" : "\n");
}

static void write_options(
	const char *heading, const struct option *options, size_t n, struct buf *out)
{
	if (n)
		buf_printf(out, "\n%s:\n", heading);
	for (size_t i = 0; i < n; i++) {
		char *left CLEANUP_FREE = xasprintf("--%s%s%s", options[i].name,
			options[i].value ? " " : "", options[i].value ? options[i].value : "");
		buf_printf(out, "  %-*s %s%s\n", OPTION_COLUMNS, left, options[i].help,
			options[i].many ? "; may be repeated" : "");
	}
}

static void write_commands(const struct noun *noun, struct buf *out)
{
	for (size_t i = 0; i < noun->n_commands; i++) {
		const struct command *command = &noun->commands[i];
		char *left CLEANUP_FREE = xasprintf("%s%s%s", command->noun,
			command->verb ? " " : "", command->verb ? command->verb : "");
		buf_printf(out, "  %-*s %s\n", COMMAND_COLUMNS, left, command->help);
	}
}

static void write_about(const char *what, const char *text, struct buf *out)
{
	buf_printf(out, "%s: %s\n", what, text);
}

void help_write(const struct noun *noun, const struct command *command, struct buf *out)
{
	buf_append_string(out, "usage: ");
	if (command) {
		help_usage(command, out);
		buf_append_char(out, '\n');
		char *name CLEANUP_FREE = xasprintf("%s%s%s", command->noun,
			command->verb ? " " : "", command->verb ? command->verb : "");
		write_about(name, command->help, out);
		write_options("options", command->options, command->n_options, out);
	} else if (noun) {
		buf_printf(out, "ferry %s COMMAND ...\n\n", noun->name);
		write_about(noun->name, noun->help, out);
		buf_append_string(out, "\ncommands:\n");
		write_commands(noun, out);
	} else {
		buf_append_string(out, "ferry NOUN VERB ... [options]\n\n"
				       "Moves virtual machines with their disks between pools of "
				       "hosts.\n\ncommands:\n");
		for (size_t i = 0; i < n_nouns; i++)
			write_commands(&nouns[i], out);
	}
	write_options("options of all commands", global_options, n_global_options, out);
	buf_append_string(out, "\nObjects are named by uuid, by name if it is unique, or by "
			       "OpaqueRef. See ferry(1).\n");
}
