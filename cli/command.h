/* SPDX-License-Identifier: Apache-2.0 */
/* What `ferry` can do: one row per command, of which the parser, the help, the completion and the
 * dispatch are made. A new command is a handler and a row in the file of its noun. */
#ifndef FERRY_CLI_COMMAND_H
#define FERRY_CLI_COMMAND_H

#include "base/fault.h"

#include <stdbool.h>
#include <stddef.h>

struct context;

/* What a word of the command line stands for, as the completion needs it: a XenAPI class whose
 * objects may be named ("VM"), "method" (of the API), "server" (of the configuration), "file",
 * "size", or the words allowed ("RO|RW", checked by the parser too). NULL: any text. */
struct operand {
	const char *name; /* in the usage: "VM" */
	const char *is;
	bool optional;
};

struct option {
	const char *name;  /* without the hyphens */
	const char *value; /* name of its value in the usage; NULL: a flag */
	const char *is;    /* as in struct operand */
	const char *help;
	bool required;
	bool many; /* may be given more than once */
};

#define COMMAND_MAX_OPERANDS 2
/* Words, when the last operand may be repeated. */
#define COMMAND_MAX_WORDS 12
/* Of a command that looks for something: it is printed, and the status is 1. */
#define COMMAND_FOUND 1

struct command {
	const char *noun;
	const char *verb; /* NULL: the noun is the whole command */
	/* 0, COMMAND_FOUND, or negative with a fault, in which case what it has appended to
	 * context->out is not printed. */
	int (*handle)(struct context *context, struct fault *fault);
	struct operand operands[COMMAND_MAX_OPERANDS];
	const struct option *options;
	size_t n_options;
	const char *help; /* one line */
	bool repeats;     /* the last operand may be given more than once */
};

#define COMMAND_OPTIONS(list) .options = (list), .n_options = ARRAY_SIZE(list)

struct noun {
	const char *name;
	const char *help;
	const struct command *commands;
	size_t n_commands;
};

extern const struct noun nouns[];
extern const size_t n_nouns;

/* Options that every command takes. */
extern const struct option global_options[];
extern const size_t n_global_options;

const struct noun *noun_find(const char *name);
/* verb may be NULL, for a noun that is a whole command. */
const struct command *command_find(const struct noun *noun, const char *verb);
/* The command's own options, then the global ones; command may be NULL. */
const struct option *option_find(const struct command *command, const char *name);
size_t command_n_operands(const struct command *command);
/* At most. */
size_t command_n_words(const struct command *command);

/* The commands of each noun, from its file; the sizes stand here so that the table of nouns can be
 * a constant (a list of another size does not compile). */
enum {
	N_API_COMMANDS = 1,
	N_DOCTOR_COMMANDS = 1,
	N_HOST_COMMANDS = 3,
	N_MIGRATION_COMMANDS = 7,
	N_NETWORK_COMMANDS = 2,
	N_POOL_COMMANDS = 8,
	N_SR_COMMANDS = 8,
	N_TASK_COMMANDS = 4,
	N_TRUST_COMMANDS = 1,
	N_USER_COMMANDS = 6,
	N_VBD_COMMANDS = 3,
	N_VDI_COMMANDS = 11,
	N_VIF_COMMANDS = 3,
	N_VM_COMMANDS = 16,
};
extern const struct command api_commands[N_API_COMMANDS];
extern const struct command doctor_commands[N_DOCTOR_COMMANDS];
extern const struct command host_commands[N_HOST_COMMANDS];
extern const struct command migration_commands[N_MIGRATION_COMMANDS];
extern const struct command network_commands[N_NETWORK_COMMANDS];
extern const struct command pool_commands[N_POOL_COMMANDS];
extern const struct command sr_commands[N_SR_COMMANDS];
extern const struct command task_commands[N_TASK_COMMANDS];
extern const struct command trust_commands[N_TRUST_COMMANDS];
extern const struct command user_commands[N_USER_COMMANDS];
extern const struct command vbd_commands[N_VBD_COMMANDS];
extern const struct command vdi_commands[N_VDI_COMMANDS];
extern const struct command vif_commands[N_VIF_COMMANDS];
extern const struct command vm_commands[N_VM_COMMANDS];

#endif
