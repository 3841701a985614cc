/* SPDX-License-Identifier: Apache-2.0 */
/* Class session: logging in and out, and what a session may read of itself. */
#include "agent/api/auth.h"
#include "agent/api/context.h"
#include "agent/api/sessions.h"

#include <errno.h>

/* XenAPI scripts give version and originator or leave them out; the version means nothing. */
static int session_login(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	int r = auth_submit(api_of(call)->auth, call, arg_text(args, 0), arg_text(args, 1),
		arg_text(args, 3), fault);

	(void)ret_result;
	return r < 0 ? r : CALL_PENDING;
}

static int session_logout(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	(void)args;
	(void)ret_result;
	return sessions_logout(api_of(call)->sessions, call_session(call), fault);
}

static const struct param login_params[] = {
	{"uname", PARAM_STRING, NULL},
	{"pwd", PARAM_STRING, NULL},
	{"version", PARAM_STRING, NULL},
	{"originator", PARAM_STRING, NULL},
};

static const struct method rows[] = {
	{
		.name = "session.login_with_password",
		.handle = session_login,
		.flags = METHOD_NO_SESSION,
		PARAMS_OPTIONAL(login_params, 2),
		.result = "session ref",
		.doc = "Checks name and password; a refusal is answered late on purpose.",
	},
	{
		.name = "session.logout",
		.role = USER_READ_ONLY,
		.handle = session_logout,
		.result = "void",
		.doc = "Ends the session; its waiting event.from calls fail with SESSION_INVALID.",
	},
};

const struct method_table session_methods = {rows, ARRAY_SIZE(rows)};
