/* SPDX-License-Identifier: Apache-2.0 */
/* Usage texts, made of the table of commands. */
#ifndef FERRY_CLI_HELP_H
#define FERRY_CLI_HELP_H

#include "base/buf.h"
#include "cli/command.h"

/* "vm migrate VM --to SERVER [options]". */
void help_usage(const struct command *command, struct buf *out);
/* For `--help`: about the command, the noun, or (both NULL) the program. */
void help_write(const struct noun *noun, const struct command *command, struct buf *out);

#endif
