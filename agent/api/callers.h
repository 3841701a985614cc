/* SPDX-License-Identifier: Apache-2.0 */
/* Hosts of the pool that call each other: who they are, and who of them may. */
#ifndef FERRY_AGENT_API_CALLERS_H
#define FERRY_AGENT_API_CALLERS_H

#include "agent/api/context.h"

/* What stands in a session's place between hosts of the pool: 0, SESSION_INVALID [session],
 * FERRY_OVERRULED (agent/pool/reign.h), FERRY_NOT_FOLLOWING []. */
int callers_check(
	struct api *api, const struct method *method, const char *session, struct fault *fault);

#endif
