/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/migrate/outcome.h"

#include "agent/migrate/attention.h"
#include "base/alloc.h"

#include <inttypes.h>
#include <string.h>

/* By the error's code; the first whose code begins so. */
static const struct {
	const char *code;
	const char *next;
} advice[] = {
	{"SR_BACKEND_FAILURE_44",
		"make room in the repository that the error names, and migrate again"},
	{"CANNOT_CONTACT_HOST", "see that the destination runs and is reached from here, and "
				"migrate again; if it is "
				"gone for ever, `ferry migration forget`"},
	{"VM_MIGRATE_CONTACT_REMOTE_SERVICE_FAILED", "see that the destination runs and is reached "
						     "from here, and migrate again; if it is "
						     "gone for ever, `ferry migration forget`"},
	{"TLS_CONNECTION_FAILED",
		"the destination has another key than the token says: ask it for a new token "
		"(host.migrate_receive)"},
	{"SESSION_INVALID", "ask the destination for a new token (host.migrate_receive)"},
	{"HOST_NOT_ENOUGH_FREE_MEMORY", "free memory at the destination, and migrate again"},
	{"", "mend what the error says, and migrate again"},
};

static const char *what_next(struct migration *m)
{
	struct value *error CLEANUP_VALUE = migration_get(m, "error");
	const char *code =
		error && error->array.n_items ? value_string(error->array.items[0], "") : "";
	size_t i = 0;

	if (migration_cancel_requested(m))
		return "it can be migrated again at any time";
	while (strncmp(code, advice[i].code, strlen(advice[i].code)) != 0)
		i++;
	return advice[i].next;
}

static char *at_the_source(struct migration *m)
{
	struct pool_db *pool = m->params->storage->pool;
	char *vm CLEANUP_FREE = migration_get_string(m, "vm");
	char *power CLEANUP_FREE = NULL;

	if (!vm || object_get_string(pool, "VM", vm, "power_state", &power, NULL) < 0)
		return xasprintf("the VM was not given away, and is not in this pool any more");
	return xasprintf(
		"the VM is at the source with its disks, %s; next: %s", power, what_next(m));
}

static char *at_the_destination(struct migration *m)
{
	uint64_t lost = 0;

	if (attention_is_assumed(m))
		return xstrdup("an operator said that the VM is at the destination; its disks "
			       "were kept here: destroy them once the VM is seen there");
	if (unreadable_total(m->params->storage->agent, m->uuid, &lost, NULL) < 0 || !lost)
		return xstrdup("the VM is at the destination");
	return xasprintf("the VM is at the destination; %" PRIu64
			 " bytes of its disks could not be read here and are zeros there, see "
			 "`unreadable`",
		lost);
}

char *outcome_text(struct migration *m)
{
	enum migration_state state = migration_state(m);
	bool is_undone =
		state == STATE_ABORTING || state == STATE_FAILED || state == STATE_CANCELLED;

	if (m->role == ROLE_SENDER && is_undone)
		return at_the_source(m);
	if (m->role == ROLE_SENDER && (state == STATE_FINISHING || state == STATE_DONE))
		return at_the_destination(m);
	if (is_undone)
		return xstrdup(
			state == STATE_ABORTING
				? "the VM is not here; what was made for it is being removed"
				: "the VM is not here, and nothing of the move is left; it is at "
				  "its source");
	return xstrdup(state == STATE_COMMITTED || state == STATE_DONE ? "the VM is here" : "");
}
