/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/follow.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "cli/errors.h"

#include <errno.h>
#include <string.h>

#define EVENT_SECONDS 30
#define RETRY_USEC    USEC_PER_SEC
#define SILENCE_USEC  (120 * USEC_PER_SEC)
/* A server that answers at once with nothing must not make a busy loop. */
#define PAUSE_USEC (200 * USEC_PER_MSEC)

/* Takes the newest record of the task out of what event.from answered. */
static int take_events(struct follow *follow, const struct value *answer, struct value **record,
	struct fault *fault)
{
	const struct value *events = value_find(answer, "events");

	free(follow->token);
	follow->token = xstrdup(value_find_string(answer, "token", ""));
	if (!events || events->type != VALUE_ARRAY)
		return cli_fail(fault, -EBADMSG, "the server answered event.from with no events");
	for (size_t i = 0; i < events->array.n_items; i++) {
		const struct value *event = events->array.items[i];
		const struct value *snapshot = value_find(event, "snapshot");
		if (strcmp(value_find_string(event, "ref", ""), follow->ref) != 0)
			continue;
		if (strcmp(value_find_string(event, "operation", ""), "del") == 0)
			return fault_set(
				fault, -ENOENT, "HANDLE_INVALID", follow->class, follow->ref, NULL);
		if (!snapshot)
			continue;
		value_free(*record);
		*record = value_copy(snapshot);
	}
	return 0;
}

static int ask_events(struct follow *follow, struct value **record, struct fault *fault)
{
	struct session *session = follow->context->session;
	struct value *answer CLEANUP_VALUE = NULL;
	uint64_t begun = clock_now_usec();
	char *what CLEANUP_FREE = xasprintf("%s/%s", follow->class, follow->ref);

	session_set_patience(session, EVENT_SECONDS * USEC_PER_SEC);
	int r = session_call(session, &answer, fault, "event.from",
		value_append_string(value_new_array(), what),
		value_new_string(follow->token ? follow->token : ""),
		value_new_double(EVENT_SECONDS), NULL);
	session_set_patience(session, 0);
	if (r == 0)
		r = take_events(follow, answer, record, fault);
	if (r < 0)
		return r;
	const struct value *events = value_find(answer, "events");
	if (events->array.n_items == 0 && clock_now_usec() - begun < PAUSE_USEC)
		return cancel_sleep(follow->cancel, PAUSE_USEC);
	return 0;
}

int follow_retry(struct follow *follow, int error, struct fault *fault)
{
	if (error == -EREMOTEIO && fault_is(fault, "EVENTS_LOST")) {
		free(follow->token);
		follow->token = xstrdup("");
		return 0;
	}
	if (error == -EREMOTEIO || error == -EKEYREJECTED || error == -ENOENT)
		return error;
	uint64_t now = clock_now_usec();
	if (follow->lost_usec == 0) {
		follow->lost_usec = now;
		if (follow->lost)
			follow->lost(follow->arg);
		context_note(follow->context, "lost contact with %s; trying again",
			session_url(follow->context->session));
	}
	if (now - follow->lost_usec > SILENCE_USEC)
		return error;
	return cancel_sleep(follow->cancel, RETRY_USEC);
}

int follow_next(struct follow *follow, struct value **record, struct fault *fault)
{
	int r = ask_events(follow, record, fault);

	if (r == 0)
		follow->lost_usec = 0;
	return r == 0 || r == -ECANCELED ? r : follow_retry(follow, r, fault);
}

void follow_clear(struct follow *follow)
{
	free(TAKE_PTR(follow->token));
}
