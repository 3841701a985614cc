/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/wait.h"

#include "base/alloc.h"
#include "cli/errors.h"
#include "cli/follow.h"
#include "cli/interrupt.h"
#include "cli/progress.h"

#include <errno.h>
#include <string.h>

struct waiting {
	struct context *context;
	const char *task;
	struct progress progress;
	struct follow follow;
	bool cancel_due; /* the server is yet to be told */
};

static const char *uuid_of(const struct value *task)
{
	return value_find_string(task, "uuid", "?");
}

/* From here on only the second Ctrl-C ends the wait. */
static void want_cancel(struct waiting *waiting)
{
	waiting->follow.cancel = interrupt_second();
	session_set_cancel(waiting->context->session, waiting->follow.cancel);
	waiting->cancel_due = true;
	progress_clear(&waiting->progress);
	context_note(waiting->context, "cancelling; Ctrl-C again leaves it running");
}

static int send_cancel(struct waiting *waiting, struct fault *fault)
{
	int r = session_call(waiting->context->session, NULL, fault, "task.cancel",
		value_new_string(waiting->task), NULL);

	if (r == -EREMOTEIO) {
		struct buf text CLEANUP_BUF = BUF_INIT;
		errors_explain(fault, NULL, NULL, &text);
		context_note(waiting->context, "the server does not cancel it: %s", text.data);
		r = 0;
	}
	if (r == 0)
		waiting->cancel_due = false;
	return r;
}

static int left_running(struct waiting *waiting, const struct value *record, struct fault *fault)
{
	return cli_fail(fault, -ECANCELED,
		"interrupted; the task goes on: `ferry task wait %s` follows it",
		record ? uuid_of(record) : waiting->task);
}

static bool has_ended(const struct value *record)
{
	const char *status = value_find_string(record, "status", "pending");

	return strcmp(status, "pending") != 0 && strcmp(status, "cancelling") != 0;
}

static int follow(struct waiting *waiting, enum wait_interrupt interrupt, struct value **record,
	struct fault *fault)
{
	for (;;) {
		int r = 0;
		if (!waiting->cancel_due)
			r = follow_next(&waiting->follow, record, fault);
		else if ((r = send_cancel(waiting, fault)) < 0 && r != -ECANCELED)
			r = follow_retry(&waiting->follow, r, fault);
		if (r == -ECANCELED && interrupt == WAIT_CANCELS &&
			waiting->follow.cancel == interrupt_first()) {
			want_cancel(waiting);
			continue;
		}
		if (r == -ECANCELED)
			return left_running(waiting, *record, fault);
		if (r < 0)
			return r;
		if (!*record)
			continue;
		if (has_ended(*record))
			return 0;
		progress_draw(&waiting->progress, *record);
	}
}

static void contact_lost(void *arg)
{
	struct waiting *waiting = arg;

	progress_clear(&waiting->progress);
}

int wait_for_task(struct context *context, const char *task, enum wait_interrupt interrupt,
	struct value **ret_task, struct fault *fault)
{
	struct waiting waiting = {
		.context = context,
		.task = task,
		.progress = {.enabled = context->progress},
		.follow = {.context = context,
			.class = "task",
			.ref = task,
			.cancel = interrupt_first(),
			.lost = contact_lost,
			.arg = &waiting},
	};
	struct value *record CLEANUP_VALUE = NULL;
	session_set_cancel(context->session, waiting.follow.cancel);
	int r = follow(&waiting, interrupt, &record, fault);

	progress_clear(&waiting.progress);
	follow_clear(&waiting.follow);
	if (r < 0)
		return r;
	fault_clear(fault);
	*ret_task = TAKE_PTR(record);
	return 0;
}

int wait_outcome(const char *task, const struct value *record, struct fault *fault)
{
	const char *status = value_find_string(record, "status", "");
	const struct value *info = value_find(record, "error_info");

	if (strcmp(status, "success") == 0)
		return 0;
	bool has_info = info && info->type == VALUE_ARRAY && info->array.n_items;
	const char *code = has_info ? value_string(info->array.items[0], "") : "";
	if (strcmp(status, "cancelled") == 0 || strcmp(code, "TASK_CANCELLED") == 0)
		return fault_set(fault, -ECANCELED, "TASK_CANCELLED", task, NULL);
	if (!has_info)
		return cli_fail(
			fault, -EREMOTEIO, "the task ended as \"%s\" and tells no error", status);
	fault_set(fault, -EREMOTEIO, code, NULL);
	for (size_t i = 1; i < info->array.n_items; i++)
		fault_add_param(fault, value_string(info->array.items[i], ""));
	return -EREMOTEIO;
}

char *wait_result(const struct value *record)
{
	const char *text = value_find_string(record, "result", "");
	const char *open = strstr(text, "<value>");
	const char *from = open ? open + strlen("<value>") : text;

	return xstrndup(from, strcspn(from, "<"));
}
