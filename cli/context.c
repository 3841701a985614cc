/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/context.h"

#include "base/alloc.h"
#include "base/json.h"
#include "cli/errors.h"
#include "cli/output.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

int context_open(const struct context *context, const char *server, struct session **ret_session,
	struct fault *fault)
{
	const struct session_params params = {
		.config = context->config,
		.server = server,
		.timeout_usec = context->timeout_usec,
		.may_ask = true,
	};

	return session_open(&params, ret_session, fault);
}

int context_session(struct context *context, struct fault *fault)
{
	if (context->session)
		return 0;
	return context_open(
		context, args_value(context->args, "server", NULL), &context->session, fault);
}

void context_note(const struct context *context, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	char *text CLEANUP_FREE = xvasprintf(format, args);
	va_end(args);
	char *clean CLEANUP_FREE = output_clean(text);
	fprintf(stderr, "%sferry: %s\n", context->progress ? "\r\033[K" : "", clean);
}

void context_put_json(struct context *context, const struct value *value)
{
	json_encode_pretty(value, &context->out);
	buf_append_char(&context->out, '\n');
}

int context_put_created(
	struct context *context, const char *class, const struct value *ref, struct fault *fault)
{
	char *method CLEANUP_FREE = xasprintf("%s.get_uuid", class);
	struct value *uuid CLEANUP_VALUE = NULL;

	if (!value_string(ref, NULL))
		return cli_fail(
			fault, -EBADMSG, "the server answered %s.create with no ref", class);
	int r = session_call(context->session, &uuid, fault, method, value_copy(ref), NULL);
	if (r < 0)
		return r;
	if (context->json) {
		struct value *json CLEANUP_VALUE = value_new_struct();
		value_set_string(json, "uuid", value_string(uuid, ""));
		value_set_string(json, "ref", value_string(ref, ""));
		context_put_json(context, json);
	} else {
		buf_printf(&context->out, "%s\n", value_string(uuid, ""));
	}
	return 0;
}
