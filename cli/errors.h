/* SPDX-License-Identifier: Apache-2.0 */
/* Failures in words: what the command line says itself, and sentences for XenAPI's codes. */
#ifndef FERRY_CLI_ERRORS_H
#define FERRY_CLI_ERRORS_H

#include "base/buf.h"
#include "base/fault.h"

/* Codes of faults that are born here; their one parameter is the text. */
#define CLI_FAILED "FERRY_FAILED"
#define CLI_USAGE  "FERRY_USAGE"

int cli_fail(struct fault *fault, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* -EINVAL; the program ends with the exit code for usage errors. */
int cli_usage(struct fault *fault, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* What a ref means to a person ("web (1234-...)"), or NULL. The caller frees it. */
typedef char *(*errors_describe)(void *arg, const char *class, const char *ref);

/* One or two lines: the sentence with XenAPI's code, and what may be done. describe may be NULL. */
void errors_explain(
	const struct fault *fault, errors_describe describe, void *arg, struct buf *out);

#endif
