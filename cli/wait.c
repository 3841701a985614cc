/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/wait.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "cli/errors.h"
#include "cli/interrupt.h"
#include "cli/progress.h"

#include <errno.h>
#include <string.h>

#define EVENT_SECONDS 30
#define RETRY_USEC    USEC_PER_SEC
#define SILENCE_USEC  (120 * USEC_PER_SEC)
/* A server that answers at once with nothing must not make a busy loop. */
#define PAUSE_USEC (200 * USEC_PER_MSEC)

struct waiting {
	struct context *context;
	const char *task;
	struct progress progress;
	struct cancel *cancel; /* what ends the wait now */
	char *token;           /* of event.from */
	uint64_t lost_usec;    /* since when there is no answer; 0: there is */
	bool cancel_due;       /* the server is yet to be told */
};

static const char *uuid_of(const struct value *task)
{
	return value_find_string(task, "uuid", "?");
}

/* Takes the newest record of the task out of what event.from answered. */
static int take_events(struct waiting *waiting, const struct value *answer, struct value **record,
	struct fault *fault)
{
	const struct value *events = value_find(answer, "events");

	free(waiting->token);
	waiting->token = xstrdup(value_find_string(answer, "token", ""));
	if (!events || events->type != VALUE_ARRAY)
		return cli_fail(fault, -EBADMSG, "the server answered event.from with no events");
	for (size_t i = 0; i < events->array.n_items; i++) {
		const struct value *event = events->array.items[i];
		const struct value *snapshot = value_find(event, "snapshot");
		if (strcmp(value_find_string(event, "ref", ""), waiting->task) != 0)
			continue;
		if (strcmp(value_find_string(event, "operation", ""), "del") == 0)
			return fault_set(
				fault, -ENOENT, "HANDLE_INVALID", "task", waiting->task, NULL);
		if (!snapshot)
			continue;
		value_free(*record);
		*record = value_copy(snapshot);
	}
	return 0;
}

static int ask_events(struct waiting *waiting, struct value **record, struct fault *fault)
{
	struct session *session = waiting->context->session;
	struct value *answer CLEANUP_VALUE = NULL;
	uint64_t begun = clock_now_usec();
	char *what CLEANUP_FREE = xasprintf("task/%s", waiting->task);

	session_set_patience(session, EVENT_SECONDS * USEC_PER_SEC);
	int r = session_call(session, &answer, fault, "event.from",
		value_append_string(value_new_array(), what), value_new_string(waiting->token),
		value_new_double(EVENT_SECONDS), NULL);
	session_set_patience(session, 0);
	if (r == 0)
		r = take_events(waiting, answer, record, fault);
	if (r < 0)
		return r;
	const struct value *events = value_find(answer, "events");
	if (events->array.n_items == 0 && clock_now_usec() - begun < PAUSE_USEC)
		return cancel_sleep(waiting->cancel, PAUSE_USEC);
	return 0;
}

/* From here on only the second Ctrl-C ends the wait. */
static void want_cancel(struct waiting *waiting)
{
	waiting->cancel = interrupt_second();
	session_set_cancel(waiting->context->session, waiting->cancel);
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

/* No answer: 0 to try again. */
static int try_again(struct waiting *waiting, int error, struct fault *fault)
{
	if (error == -EREMOTEIO && fault_is(fault, "EVENTS_LOST")) {
		free(waiting->token);
		waiting->token = xstrdup("");
		return 0;
	}
	if (error == -EREMOTEIO || error == -EKEYREJECTED || error == -ENOENT)
		return error;
	uint64_t now = clock_now_usec();
	if (waiting->lost_usec == 0) {
		waiting->lost_usec = now;
		progress_clear(&waiting->progress);
		context_note(waiting->context, "lost contact with %s; trying again",
			session_url(waiting->context->session));
	}
	if (now - waiting->lost_usec > SILENCE_USEC)
		return error;
	return cancel_sleep(waiting->cancel, RETRY_USEC);
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
		int r = waiting->cancel_due ? send_cancel(waiting, fault)
					    : ask_events(waiting, record, fault);
		if (r == 0)
			waiting->lost_usec = 0;
		else if (r != -ECANCELED)
			r = try_again(waiting, r, fault);
		if (r == -ECANCELED && interrupt == WAIT_CANCELS &&
			waiting->cancel == interrupt_first()) {
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

int wait_for_task(struct context *context, const char *task, enum wait_interrupt interrupt,
	struct value **ret_task, struct fault *fault)
{
	struct waiting waiting = {
		.context = context,
		.task = task,
		.progress = {.enabled = context->progress},
		.cancel = interrupt_first(),
		.token = xstrdup(""),
	};
	struct value *record CLEANUP_VALUE = NULL;
	session_set_cancel(context->session, waiting.cancel);
	int r = follow(&waiting, interrupt, &record, fault);

	progress_clear(&waiting.progress);
	free(waiting.token);
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
