/* SPDX-License-Identifier: Apache-2.0 */
/* Any call of the API, for what has no command of its own. */
#include "base/alloc.h"
#include "base/json.h"
#include "cli/errors.h"
#include "cli/interrupt.h"
#include "cli/wait.h"

#include <errno.h>
#include <string.h>

/* A word that is JSON is what it says; any other is text, so that names and refs need no quotes. */
static int read_argument(const char *word, struct value **ret_value, struct fault *fault)
{
	struct fault why CLEANUP_FAULT = FAULT_INIT;

	if (json_decode(word, strlen(word), NULL, ret_value, &why) == 0)
		return 0;
	/* What begins as a map, an array or a quoted text was meant to be one. */
	if (*word && strchr("{[\"", *word)) {
		char *text CLEANUP_FREE = fault_describe(&why);
		return cli_usage(fault, "%s is not JSON: %s", word, text);
	}
	*ret_value = value_new_string(word);
	return 0;
}

static int read_arguments(const struct args *args, struct value **ret_values, struct fault *fault)
{
	struct value *values CLEANUP_VALUE = value_new_array();

	for (size_t i = 1; args_operand(args, i); i++) {
		struct value *value = NULL;
		int r = read_argument(args_operand(args, i), &value, fault);
		if (r < 0)
			return r;
		value_append(values, value);
	}
	*ret_values = TAKE_PTR(values);
	return 0;
}

/* For a shell a text is the text alone, and void nothing. */
static void put_result(struct context *context, const struct value *result)
{
	if (context->json || result->type != VALUE_STRING)
		context_put_json(context, result);
	else if (*result->string)
		buf_printf(&context->out, "%s\n", result->string);
}

/* What is in a task's result, "<value>...</value>": a ref or nothing, of all calls there are. */
static struct value *task_result(const struct value *record)
{
	const char *text = value_find_string(record, "result", "");
	const char *open = strstr(text, "<value>");
	const char *from = open ? open + strlen("<value>") : text;
	char *inner CLEANUP_FREE = xstrndup(from, strcspn(from, "<"));

	return value_new_string(inner);
}

static int follow(struct context *context, const char *task, struct fault *fault)
{
	struct value *record CLEANUP_VALUE = NULL;
	int r = wait_for_task(context, task, WAIT_CANCELS, &record, fault);

	if (r < 0)
		return r;
	(void)session_call(
		context->session, NULL, NULL, "task.destroy", value_new_string(task), NULL);
	r = wait_outcome(task, record, fault);
	if (r < 0)
		return r;
	struct value *result CLEANUP_VALUE = task_result(record);
	put_result(context, result);
	return 0;
}

static int api(struct context *context, struct fault *fault)
{
	struct value *values CLEANUP_VALUE = NULL;
	struct value *result CLEANUP_VALUE = NULL;
	bool async = args_has(context->args, "async");
	char *method CLEANUP_FREE =
		xasprintf("%s%s", async ? "Async." : "", args_operand(context->args, 0));
	int r = read_arguments(context->args, &values, fault);

	if (r == 0)
		r = context_session(context, fault);
	if (r < 0)
		return r;
	/* A Ctrl-C must not lose the ref of a task that was started: it counts in the wait. */
	if (async)
		session_set_cancel(context->session, interrupt_second());
	r = session_call_values(context->session, method, values, &result, fault);
	if (r < 0)
		return r;
	if (async)
		return follow(context, value_string(result, ""), fault);
	put_result(context, result);
	return 0;
}

static const struct option options[] = {
	{"async", NULL, NULL, "begin a task, follow it, and print its result", false, false},
};

const struct command api_commands[N_API_COMMANDS] = {
	{"api", NULL, api, {{"CALL", "method", false}, {"ARGUMENT", NULL, true}},
		COMMAND_OPTIONS(options), .repeats = true,
		.help = "makes any call of the API; arguments are JSON or text"},
};
