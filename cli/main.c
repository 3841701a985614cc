/* SPDX-License-Identifier: Apache-2.0 */
/* ferry: read the command line, run one command, print its result or its error. */
#include "base/alloc.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "base/parse.h"
#include "cli/complete.h"
#include "cli/context.h"
#include "cli/errors.h"
#include "cli/help.h"
#include "cli/interrupt.h"
#include "cli/object.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define TIMEOUT_USEC (60 * USEC_PER_SEC)

enum exit_code { EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_CANCELLED };

static enum exit_code print(const struct buf *out)
{
	int r = out->length ? io_write_full(STDOUT_FILENO, out->data, out->length) : 0;

	/* A reader that has seen enough (`ferry vm list | head`) needs no message. */
	if (r < 0 && r != -EPIPE)
		fprintf(stderr, "ferry: writing the result: %s\n", strerror(-r));
	return r < 0 ? EXIT_FAILED : EXIT_DONE;
}

/* For errors_explain: whichever side knows the ref. */
static char *describe(void *arg, const char *class, const char *ref)
{
	const struct context *context = arg;
	struct session *const sessions[] = {context->session, context->peer};

	for (size_t i = 0; i < ARRAY_SIZE(sessions); i++) {
		struct object object CLEANUP_OBJECT = OBJECT_INIT;
		if (sessions[i] && object_load(sessions[i], class, ref, &object, NULL) == 0)
			return object_title(object.record);
	}
	return NULL;
}

static enum exit_code explain(struct context *context, int error, const struct fault *fault)
{
	struct buf text CLEANUP_BUF = BUF_INIT;

	errors_explain(fault, error == -EREMOTEIO ? describe : NULL, context, &text);
	if (fault_is(fault, CLI_USAGE) && context->args->command) {
		buf_append_string(&text, "usage: ");
		help_usage(context->args->command, &text);
	} else if (fault_is(fault, CLI_USAGE)) {
		buf_printf(&text, "       `ferry%s%s --help` lists the commands\n",
			context->args->noun ? " " : "",
			context->args->noun ? context->args->noun->name : "");
	}
	fputs(text.data, stderr);
	if (fault_is(fault, CLI_USAGE))
		return EXIT_USAGE;
	return error == -ECANCELED ? EXIT_CANCELLED : EXIT_FAILED;
}

static int read_settings(struct context *context, struct fault *fault)
{
	const struct args *args = context->args;
	const char *timeout = args_value(args, "timeout", NULL);

	context->json = args_has(args, "json");
	context->progress = isatty(STDERR_FILENO) && !args_has(args, "no-progress");
	context->timeout_usec = TIMEOUT_USEC;
	if (timeout && (parse_duration(timeout, &context->timeout_usec) < 0 ||
			       context->timeout_usec < USEC_PER_MSEC))
		return cli_usage(fault,
			"--timeout is \"%s\", but must be a time, as 500ms, 30s or "
			"2min",
			timeout);
	/* What the library has to tell is in the errors already. */
	log_set_level(args_has(args, "verbose") ? LOG_LEVEL_DEBUG : LOG_LEVEL_NONE);
	return config_load(args_value(args, "config", NULL), &context->config, fault);
}

static enum exit_code run(const struct args *args)
{
	struct context context = {.args = args, .out = BUF_INIT};
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	int r = args_check(args, &fault);

	if (r == 0)
		r = read_settings(&context, &fault);
	if (r == 0)
		r = args->command->handle(&context, &fault);
	enum exit_code code = r < 0 ? explain(&context, r, &fault) : print(&context.out);
	if (r == COMMAND_FOUND && code == EXIT_DONE)
		code = EXIT_FAILED;
	session_close(context.peer);
	session_close(context.session);
	config_free(context.config);
	buf_free(&context.out);
	return code;
}

int main(int argc, char **argv)
{
	struct args args CLEANUP_ARGS = ARGS_INIT;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct buf out CLEANUP_BUF = BUF_INIT;
	int r = interrupt_start(&fault);

	if (argc > 1 && strcmp(argv[1], "__complete") == 0) {
		log_set_level(LOG_LEVEL_NONE);
		complete(argc - 2, argv + 2, &out);
		return print(&out);
	}
	if (r == 0)
		r = args_parse(&args, argc - 1, argv + 1, &fault);
	if (args_has(&args, "help")) {
		help_write(args.noun, args.command, &out);
		return print(&out);
	}
	if (args_has(&args, "version")) {
		buf_append_string(&out, "ferry " FERRY_VERSION "\n");
		return print(&out);
	}
	if (r < 0) {
		struct context context = {.args = &args};
		return explain(&context, r, &fault);
	}
	return run(&args);
}
