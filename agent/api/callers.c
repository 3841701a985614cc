/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/api/callers.h"

#include "agent/pool/reign.h"
#include "agent/pool/roster.h"

#include <errno.h>
#include <string.h>

static struct rank own_rank(const struct api *api)
{
	return (struct rank){api->term, api->coordinator_ref};
}

static int refuse(const char *session, struct fault *fault)
{
	return fault_set(fault, -EACCES, "SESSION_INVALID", session, NULL);
}

static int say_overruled(const struct api *api, struct fault *fault)
{
	const struct rank rank = own_rank(api);

	return reign_fault(fault, &rank, api->coordinator_url, api->coordinator_fingerprint);
}

/* One that takes itself for the coordinator: it calls with what it shares with this host. */
static int check_coordinator(struct api *api, const struct method *method,
	const struct link_caller *caller, const char *session, struct fault *fault)
{
	const struct rank rank = own_rank(api);
	bool is_right = api->roster ? roster_knows(api->roster, caller->coordinator, caller->secret)
				    : link_secret_is(caller->secret, api->secret);

	if (!is_right)
		return refuse(session, fault);
	int order = rank_compare(&caller->rank, &rank);
	if (order < 0)
		return say_overruled(api, fault);
	/* It is known to be the right one; it has to take this host in. */
	bool is_new = order > 0 || api->is_overruled;
	if (is_new && strcmp(method->name, "Pool.follow") != 0)
		return fault_set(fault, -ESTALE, "FERRY_NOT_FOLLOWING", NULL);
	return 0;
}

static int check_member(
	struct api *api, const struct link_caller *caller, const char *session, struct fault *fault)
{
	/* It knows nothing of that yet. */
	if (api->is_overruled)
		return say_overruled(api, fault);
	return api->roster && roster_knows(api->roster, caller->host, caller->secret)
		       ? 0
		       : refuse(session, fault);
}

int callers_check(
	struct api *api, const struct method *method, const char *session, struct fault *fault)
{
	struct link_caller caller CLEANUP_LINK_CALLER = {0};

	if (!link_session_parse(session, &caller))
		return refuse(session, fault);
	return strcmp(caller.host, api->host_ref) == 0
		       ? check_coordinator(api, method, &caller, session, fault)
		       : check_member(api, &caller, session, fault);
}
