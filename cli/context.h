/* SPDX-License-Identifier: Apache-2.0 */
/* What a command's handler works with. */
#ifndef FERRY_CLI_CONTEXT_H
#define FERRY_CLI_CONTEXT_H

#include "base/buf.h"
#include "base/fault.h"
#include "cli/args.h"
#include "cli/config.h"
#include "cli/session.h"

#include <stdbool.h>
#include <stdint.h>

struct context {
	const struct args *args;
	struct config *config;
	struct session *session; /* to --server; see context_session() */
	struct session *peer;    /* to the other server of a migration, while there is one */
	struct buf out;          /* standard output, written when the handler succeeded */
	uint64_t timeout_usec;
	bool json;
	bool progress; /* standard error is a terminal and wants the line */
};

/* Logs in to --server unless that was done before. */
int context_session(struct context *context, struct fault *fault);
/* Logs in to another server of the configuration; the caller closes it. */
int context_open(const struct context *context, const char *server, struct session **ret_session,
	struct fault *fault);

/* One line of information on standard error, for a person. */
void context_note(const struct context *context, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Appends the value as JSON, one document. */
void context_put_json(struct context *context, const struct value *value);
/* What a create command answers: the uuid alone, or {"uuid", "ref"}. */
int context_put_created(
	struct context *context, const char *class, const struct value *ref, struct fault *fault);

#endif
