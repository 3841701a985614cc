/* SPDX-License-Identifier: Apache-2.0 */
/* What an operator may say to a migration that cannot end by itself. */
#include "agent/migrate/attention.h"
#include "agent/migrate/supervisor_internal.h"
#include "base/alloc.h"
#include "base/log.h"

#include <errno.h>
#include <string.h>

/* The truth about one of which the decision need not be assumed. */
static const char *why_not_resolve(struct migration *m, enum migration_state state)
{
	if (m->role == ROLE_RECEIVER)
		return "this pool is its destination, and decides by itself: `ferry migration "
		       "cancel` here says durably that it is aborted, unless it is committed";
	if (state == STATE_FINISHING || state == STATE_DONE)
		return "it is committed: the VM belongs to the destination";
	if (state == STATE_ABORTING || fsm_is_final(state))
		return "it is aborted: the VM belongs to this pool. If the destination is gone for "
		       "ever, `ferry migration forget` ends it";
	if (state != STATE_COMMITTING)
		return "the commit was not asked for yet, so the VM belongs to this pool: cancel "
		       "it";
	return NULL;
}

static int refuse(struct migration *m, const char *why, struct fault *fault)
{
	char *text CLEANUP_FREE = xasprintf(
		"migration %s is %s: %s", m->uuid, migration_state_name(migration_state(m)), why);

	return fault_set(fault, -EPERM, "OPERATION_NOT_ALLOWED", text, NULL);
}

int supervisor_resolve(struct supervisor *supervisor, const char *uuid, bool committed,
	const char *who, struct fault *fault)
{
	struct migration *m CLEANUP_MIGRATION = registry_find(&supervisor->registry, uuid);

	if (!m)
		return supervisor_not_under_way(supervisor, uuid, fault);
	const char *why = why_not_resolve(m, migration_state(m));
	if (why)
		return refuse(m, why, fault);
	char *doubt CLEANUP_FREE = migration_get_string(m, "doubt");
	if (!doubt || !*doubt)
		return refuse(m,
			"it is not in doubt: the destination was asked for the commit a moment "
			"ago, "
			"and may still answer",
			fault);
	return attention_resolve(m, committed, who, fault);
}

int supervisor_resume(
	struct supervisor *supervisor, const char *uuid, const char *who, struct fault *fault)
{
	struct migration *m CLEANUP_MIGRATION = registry_find(&supervisor->registry, uuid);

	if (!m)
		return supervisor_not_under_way(supervisor, uuid, fault);
	if (m->role == ROLE_RECEIVER)
		return refuse(m, "this host receives it, and waits for the source: resume it there",
			fault);
	log_info("MIG-RESUME", "migration=%s state=%s by=\"%s\"", uuid,
		migration_state_name(migration_state(m)), who);
	attention_nudge(m);
	return 0;
}

/* Whether its sender tells a destination that may be gone for ever. */
static bool may_be_forgotten(struct migration *m)
{
	enum migration_state state = migration_state(m);

	return m->role == ROLE_SENDER &&
	       (state == STATE_ABORTING || (state == STATE_FINISHING && attention_is_assumed(m)));
}

int supervisor_forget(struct supervisor *supervisor, const char *uuid, struct fault *fault)
{
	struct migration *m CLEANUP_MIGRATION = registry_find(&supervisor->registry, uuid);

	if (!m)
		return supervisor_not_under_way(supervisor, uuid, fault);
	if (!may_be_forgotten(m))
		return fault_set(fault, -EPERM, "OPERATION_NOT_ALLOWED",
			"only a migration that this host sent and has aborted can be forgotten; "
			"cancel it first",
			NULL);
	m->forgotten = true;
	log_warn("MIG-FORGOTTEN",
		"migration=%s the destination is not told of the abort any more: what it has of "
		"the "
		"VM stays there until the migration is cancelled there",
		uuid);
	attention_nudge(m);
	return 0;
}
