/* SPDX-License-Identifier: Apache-2.0 */
/* Who is logged in at a host that is not the coordinator, to take over when that is lost: in memory
 * only, few, and for minutes. The users are those of its copy of the pool's database. */
#ifndef FERRY_AGENT_API_LOCALS_H
#define FERRY_AGENT_API_LOCALS_H

#include "agent/api/roles.h"
#include "agent/api/sessions.h"
#include "base/fault.h"

struct locals;

struct locals *locals_new(const char *state_dir);
struct locals *locals_free(struct locals *locals); /* NULL is fine */

/* The password's hash of a user, for auth.h; NULL when there is none, or no copy. */
int locals_find_hash(void *locals, const char *user, char **ret_hash, struct fault *fault);
/* The caller frees *ret_ref. */
int locals_login(struct locals *locals, const char *user, char **ret_ref, struct fault *fault);
/* 0, and it counts as active; or SESSION_INVALID [ref]. */
int locals_check(struct locals *locals, const char *ref, struct session_owner *ret_owner,
	struct fault *fault);
void locals_logout(struct locals *locals, const char *ref);

#endif
