/* SPDX-License-Identifier: Apache-2.0 */
/* Class event: the long poll and what goes with it (contract section 4). */
#include "agent/api/context.h"
#include "agent/api/events.h"
#include "agent/api/sessions.h"
#include "agent/api/subscription.h"
#include "base/alloc.h"
#include "schema/classes.h"

#include <errno.h>

/* After a call may have begun to wait (it may have ended by now), or its session has registered. A
 * session that ended after the dispatcher's check, and before that, must leave nothing behind. */
static int still_there(struct api *api, const char *session, int r)
{
	struct session_owner owner CLEANUP_SESSION_OWNER = {0};

	if (r >= 0 && sessions_check(api->sessions, session, &owner, NULL) < 0)
		events_end_session(api->events, session);
	return r;
}

static int event_from(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct api *api = api_of(call);
	char *session CLEANUP_FREE = xstrdup(call_session(call));
	int r = events_from(
		api->events, call, args[0], arg_text(args, 1), args[2]->real, ret_result, fault);

	return still_there(api, session, r);
}

static int event_next(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct api *api = api_of(call);
	char *session CLEANUP_FREE = xstrdup(call_session(call));

	(void)args;
	return still_there(api, session, events_next(api->events, call, ret_result, fault));
}

static int event_register(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct api *api = api_of(call);
	int r = events_register(api->events, call_session(call), args[0], fault);

	(void)ret_result;
	return still_there(api, call_session(call), r);
}

static int event_unregister(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	(void)ret_result;
	return events_unregister(api_of(call)->events, call_session(call), args[0], fault);
}

static int event_inject(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	const struct class *class = class_find_nocase(arg_text(args, 0));
	uint64_t before;
	int r;

	if (!class || class->hidden)
		return fault_set(fault, -ENOENT, "HANDLE_INVALID", arg_text(args, 0),
			arg_text(args, 1), NULL);
	r = pool_db_touch(api_of(call)->pool, class->name, arg_text(args, 1), &before, fault);
	if (r < 0)
		return r;
	char *token CLEANUP_FREE = token_format(before);
	*ret_result = value_new_string(token);
	return 0;
}

static int event_get_current_id(struct call *call, struct value *const *args,
	struct value **ret_result, struct fault *fault)
{
	(void)args;
	(void)fault;
	*ret_result = value_new_int((int64_t)pool_db_generation(api_of(call)->pool));
	return 0;
}

static const struct param from_params[] = {
	{"classes", PARAM_SET, NULL},
	{"token", PARAM_STRING, NULL},
	{"timeout", PARAM_DOUBLE, NULL},
};

static const struct param classes_params[] = {{"classes", PARAM_SET, NULL}};
static const struct param inject_params[] = {
	{"class", PARAM_STRING, NULL},
	{"ref", PARAM_STRING, NULL},
};

static const struct method rows[] = {
	{
		.name = "event.from",
		.role = USER_READ_ONLY,
		.handle = event_from,
		PARAMS(from_params),
		.result = "event batch",
		.doc = "Waits until an object of these classes (\"*\", \"VM\", \"task/<ref>\") "
		       "changes after the token, at most timeout seconds.",
	},
	{
		.name = "event.register",
		.role = USER_READ_ONLY,
		.handle = event_register,
		PARAMS(classes_params),
		.result = "void",
		.doc = "Adds to what event.next tells the session, from now on.",
	},
	{
		.name = "event.unregister",
		.role = USER_READ_ONLY,
		.handle = event_unregister,
		PARAMS(classes_params),
		.result = "void",
		.doc = "Takes from it.",
	},
	{
		.name = "event.next",
		.role = USER_READ_ONLY,
		.handle = event_next,
		.result = "event record set",
		.doc = "Waits until there is something that the session has registered for and "
		       "was not told yet, a minute at most.",
	},
	{
		.name = "event.inject",
		.role = USER_READ_ONLY,
		.handle = event_inject,
		PARAMS(inject_params),
		.result = "string",
		.doc = "Touches an object and returns the token just before that change.",
	},
	{
		.name = "event.get_current_id",
		.role = USER_READ_ONLY,
		.handle = event_get_current_id,
		.result = "int",
		.doc = "The number of the last change.",
	},
};

const struct method_table event_methods = {rows, ARRAY_SIZE(rows)};
