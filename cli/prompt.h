/* SPDX-License-Identifier: Apache-2.0 */
/* Questions on the terminal, for what must not stand on the command line. */
#ifndef FERRY_CLI_PROMPT_H
#define FERRY_CLI_PROMPT_H

#include "base/cancel.h"
#include "base/fault.h"

enum prompt_echo { PROMPT_SHOWN, PROMPT_HIDDEN };

/* Asks on the controlling terminal (not on standard input, which may be a pipe). -ENXIO when there
 * is none, -ECANCELED when the token is requested meanwhile. The caller frees *ret_answer. */
int prompt_ask(const char *question, enum prompt_echo echo, struct cancel *cancel,
	char **ret_answer, struct fault *fault);

#endif
