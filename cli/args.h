/* SPDX-License-Identifier: Apache-2.0 */
/* The command line against the table of commands. Options and operands come in any order; "--" ends
 * the options; a global option may also stand before the noun. */
#ifndef FERRY_CLI_ARGS_H
#define FERRY_CLI_ARGS_H

#include "base/fault.h"
#include "cli/command.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct args_given {
	const struct option *option;
	const char *value; /* NULL for a flag */
};

/* All texts belong to argv. */
struct args {
	const struct noun *noun;       /* NULL: none given */
	const struct command *command; /* NULL: none given */
	const char *operands[COMMAND_MAX_WORDS];
	size_t n_operands;
	struct args_given *given; /* in the order of the command line */
	size_t n_given;
};

#define ARGS_INIT                                                                                  \
	{                                                                                          \
		0                                                                                  \
	}

/* argv without the program's name. Nothing missing is an error yet: see args_check(). What was read
 * before an error is kept. */
int args_parse(struct args *args, int argc, char *const *argv, struct fault *fault);
/* Everything that the command needs is there. */
int args_check(const struct args *args, struct fault *fault);
void args_clear(struct args *args);

bool args_has(const struct args *args, const char *option);
/* The last one given; NULL when there is none. */
const char *args_value(const struct args *args, const char *option, const char *fallback);
/* Iterates over an option that may be given more than once: *at starts at 0; NULL ends. */
const char *args_next(const struct args *args, const char *option, size_t *at);
/* The operand, or NULL. */
const char *args_operand(const struct args *args, size_t index);
/* A size in bytes (parse_size), at most INT64_MAX; the fallback when the option is missing. */
int args_size(const struct args *args, const char *option, uint64_t fallback, uint64_t *ret_bytes,
	struct fault *fault);

/* Splits "key=value" at the last '='; the caller frees both. */
int args_split(const char *text, const char *option, char **ret_key, char **ret_value,
	struct fault *fault);

#define CLEANUP_ARGS CLEANUP(args_clear)

#endif
