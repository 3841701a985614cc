/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/migrate/attention.h"

#include "agent/migrate/report.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static void save_or_log(struct migration *m)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	if (migration_save(m, &fault) == 0)
		return;
	char *text CLEANUP_FREE = fault_describe(&fault);
	log_warn("MIG-STORE", "migration=%s error=%s", m->uuid, text);
}

/* --- The peer -----------------------------------------------------------------------------------
 */

/* Whether it is news. */
static bool note(struct migration *m, uint64_t silent_usec)
{
	SCOPE_LOCK(&m->lock);
	bool is_silent = silent_usec > m->params->lease_usec;

	if (is_silent == (m->silent_since != 0))
		return false;
	/* For people: the clock of the wall may jump, what is waited for does not. */
	m->silent_since = is_silent ? clock_wall_sec() - (int64_t)(silent_usec / USEC_PER_SEC) : 0;
	return true;
}

void attention_note_silence(struct migration *m, uint64_t silent_usec)
{
	if (!note(m, silent_usec))
		return;
	if (silent_usec > m->params->lease_usec)
		log_warn("MIG-PEER-SILENT", "migration=%s role=%s state=%s seconds=%llu", m->uuid,
			migration_role_name(m->role), migration_state_name(migration_state(m)),
			(unsigned long long)(silent_usec / USEC_PER_SEC));
	else
		log_info("MIG-PEER-BACK", "migration=%s role=%s state=%s", m->uuid,
			migration_role_name(m->role), migration_state_name(migration_state(m)));
	if (!m->quiet)
		report_attention(m);
}

void attention_note_peer(struct migration *m, bool answers)
{
	uint64_t now = clock_now_usec();

	pthread_mutex_lock(&m->lock);
	uint64_t silent = answers ? 0 : now - m->peer_heard_usec;
	if (answers)
		m->peer_heard_usec = now;
	/* Not heard now is not yet heard again. */
	bool is_known = !answers && m->silent_since;
	pthread_mutex_unlock(&m->lock);
	if (!is_known)
		attention_note_silence(m, silent);
}

/* --- Doubt --------------------------------------------------------------------------------------
 */

void attention_set_doubt(struct migration *m, const char *why)
{
	char *before CLEANUP_FREE = migration_get_string(m, "doubt");

	if (strcmp(before ? before : "", why ? why : "") == 0)
		return;
	migration_set(m, "doubt", value_new_string(why ? why : ""));
	save_or_log(m);
	report_attention(m);
}

int attention_resolved(struct migration *m)
{
	struct value *resolved CLEANUP_VALUE = migration_get(m, "resolved");

	if (!resolved)
		return -ENOENT;
	return strcmp(value_find_string(resolved, "assumed", ""), "committed") == 0;
}

int attention_resolve(struct migration *m, bool committed, const char *who, struct fault *fault)
{
	struct value *resolved = value_new_struct();
	int before = attention_resolved(m);

	if (before >= 0) {
		value_free(resolved);
		if (before == committed)
			return 0;
		return fault_set(fault, -EALREADY, "OPERATION_NOT_ALLOWED",
			before ? "the migration was resolved as committed before"
			       : "the migration was resolved as aborted before",
			NULL);
	}
	value_set_string(resolved, "assumed", committed ? "committed" : "aborted");
	value_set_string(resolved, "by", who);
	char *at CLEANUP_FREE = datetime_format(clock_wall_sec());
	value_set_string(resolved, "at", at);
	migration_set(m, "resolved", resolved);
	int r = migration_save(m, fault);
	if (r < 0) {
		migration_unset(m, "resolved");
		return r;
	}
	log_warn("MIG-RESOLVED", "migration=%s assumed=%s by=\"%s\"", m->uuid,
		committed ? "committed" : "aborted", who);
	report_attention(m);
	cancel_request(m->resolve, who);
	return 0;
}

static const char *contradiction(bool committed_there)
{
	return committed_there
		       ? "DANGER: this migration was assumed to be aborted, but the destination "
			 "has committed it: the VM belongs to both pools, and may run in both. Its "
			 "disks differ from now on. Shut it down at one of them at once, and "
			 "destroy it there"
		       : "DANGER: this migration was assumed to be committed, but the destination "
			 "has aborted it: the VM is in neither pool. Its disks were kept here: "
			 "make "
			 "a VM of them";
}

void attention_assume(struct migration *m)
{
	struct value *resolved CLEANUP_VALUE = migration_get(m, "resolved");
	char *doubt CLEANUP_FREE = xasprintf(
		"%s assumed at %s that the migration is %s; the destination has not confirmed it",
		value_find_string(resolved, "by", ""), value_find_string(resolved, "at", ""),
		value_find_string(resolved, "assumed", ""));

	migration_set(m, "assumed", value_new_bool(true));
	migration_set(m, "doubt", value_new_string(doubt));
}

bool attention_is_assumed(struct migration *m)
{
	SCOPE_LOCK(&m->lock);
	return value_find_bool(m->document, "assumed", false);
}

void attention_peer_said(struct migration *m, bool committed)
{
	struct value *resolved CLEANUP_VALUE = migration_get(m, "resolved");
	int said = attention_resolved(m);

	if (said < 0)
		return;
	value_set_string(resolved, "peer_said", committed ? "committed" : "aborted");
	migration_set(m, "resolved", TAKE_PTR(resolved));
	if (said != committed && attention_is_assumed(m)) {
		log_error(committed ? "MIG-TWO-OWNERS" : "MIG-NO-OWNER", "migration=%s %s", m->uuid,
			contradiction(committed));
		attention_set_doubt(m, contradiction(committed));
		return;
	}
	log_info("MIG-RESOLVED-BY-PEER", "migration=%s decision=%s assumed=%s", m->uuid,
		committed ? "committed" : "aborted", said ? "committed" : "aborted");
	attention_set_doubt(m, NULL);
	save_or_log(m);
	report_attention(m);
}

/* --- Trying again -------------------------------------------------------------------------------
 */

void attention_nudge(struct migration *m)
{
	const uint64_t one = 1;

	if (write(m->nudge_fd, &one, sizeof(one)) < 0)
		log_warn("MIG-NUDGE", "migration=%s error=\"%s\"", m->uuid, strerror(errno));
}

int attention_pause(struct migration *m, const struct cancel *cancel, uint64_t duration_usec)
{
	struct pollfd fd = {.fd = m->nudge_fd, .events = POLLIN};
	uint64_t n;
	int r = cancel_poll(cancel, &fd, 1, clock_deadline(duration_usec));

	if (r <= 0)
		return r;
	return read(m->nudge_fd, &n, sizeof(n)) == sizeof(n);
}
