/* SPDX-License-Identifier: Apache-2.0 */
/* The receiver's end of the peer protocol (docs/protocol.md). Every call may come twice. */
#include "agent/migrate/peer.h"
#include "agent/migrate/receiver.h"
#include "agent/migrate/rehome.h"
#include "agent/migrate/report.h"
#include "agent/migrate/safeguard.h"
#include "agent/migrate/supervisor.h"
#include "agent/migrate/supervisor_internal.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/inject.h"
#include "base/log.h"
#include "base/uuid.h"
#include "target/disk.h"

#include <errno.h>
#include <string.h>

#define ENTER_TIMEOUT 60

static void heard(struct migration *m)
{
	SCOPE_LOCK(&m->lock);
	m->last_heard_usec = clock_now_usec();
}

/* After migration_enter: what the call did may have ended the migration. */
static void leave(struct supervisor *supervisor, struct migration *m)
{
	heard(m);
	migration_leave(m);
	if (fsm_is_final(migration_state(m)))
		supervisor_retire(supervisor, m);
}

static bool is_bound(struct migration *m, const char *session)
{
	char *owner CLEANUP_FREE = migration_get_string(m, "session");

	return m->role == ROLE_RECEIVER && owner && strcmp(owner, session) == 0;
}

/* The migration that the call names, NULL when this host is not (or no longer) in the middle of it.
 */
static int find(struct supervisor *supervisor, const char *session, const char *migration,
	struct migration **ret_migration, struct fault *fault)
{
	*ret_migration = NULL;
	if (!uuid_is_valid(migration))
		return fault_set(fault, -EINVAL, "INVALID_VALUE", "migration", migration, NULL);
	struct migration *m CLEANUP_MIGRATION = registry_find(&supervisor->registry, migration);
	/* The session that it is bound to was checked then; a guest that is paused meanwhile need
	 * not wait for the database to say so again. */
	if (m && is_bound(m, session)) {
		heard(m);
		*ret_migration = TAKE_PTR(m);
		return 0;
	}
	int r = supervisor_session_check(supervisor, session, fault);
	if (r < 0 || !m)
		return r;
	if (m->role != ROLE_RECEIVER)
		return fault_set(fault, -EINVAL, "INVALID_VALUE", "migration", migration, NULL);
	return supervisor_session_denied(fault);
}

/* Why this pool aborted it, as the history says; false when nothing is known. */
static bool find_cause(
	struct supervisor *supervisor, const char *migration, struct fault *ret_cause)
{
	struct pool_db *pool = supervisor->params->storage->pool;
	struct value *error CLEANUP_VALUE = NULL;
	char *ref CLEANUP_FREE = NULL;
	char *who CLEANUP_FREE = NULL;

	if (object_get_by_uuid(pool, "migration", migration, &ref, NULL) < 0 ||
		object_get_field(pool, "migration", ref, "error_info", &error, NULL) < 0 ||
		object_get_string(pool, "migration", ref, "cancelled_by", &who, NULL) < 0)
		return false;
	if (*who)
		fault_text(ret_cause, -ECANCELED, "cancelled at the destination by %s", who);
	else if (error->array.n_items)
		fault_from_list(error, ret_cause);
	return ret_cause->code;
}

/* The fault for a call about a migration that this host is not (or no longer) in the middle of. */
static int unknown(struct supervisor *supervisor, const char *migration, struct fault *fault)
{
	struct fault cause CLEANUP_FAULT = FAULT_INIT;
	bool committed = false;
	int64_t at = 0;

	int r = commit_find(
		supervisor->params->storage->pool, migration, &committed, NULL, &at, fault);
	if (r < 0)
		return r;
	if (r == 0)
		return fault_set(fault, -ENOENT, "HANDLE_INVALID", "migration", migration, NULL);
	char *when CLEANUP_FREE = datetime_format(at);
	if (committed)
		return fault_text(fault, -EALREADY, "the destination committed migration %s at %s",
			migration, when);
	if (find_cause(supervisor, migration, &cause)) {
		fault_move(fault, &cause);
		return -ENOENT;
	}
	return fault_text(fault, -ENOENT,
		"the destination aborted migration %s at %s and removed its disks there: it was "
		"told "
		"so, or heard nothing from the source for its abandon time; migrate the VM again",
		migration, when);
}

/* A new receiver, in the registry, entered, with its row stored. */
static int create_receiver(struct supervisor *supervisor, const char *session,
	const char *migration, const struct value *manifest, struct migration **ret_migration,
	struct fault *fault)
{
	struct migration_row row = {.uuid = xstrdup(migration),
		.role = ROLE_RECEIVER,
		.state = STATE_ALLOCATING,
		.created = clock_wall_sec()};
	const struct value *vm = value_find(manifest, "vm");
	struct value *document CLEANUP_VALUE = value_new_struct();

	value_set_string(document, "session", session);
	value_set(document, "manifest", value_copy(manifest));
	value_set_bool(document, "live", value_find_bool(manifest, "live", false));
	value_set_bool(document, "same_pool", rehome_is_wanted(manifest));
	value_set(document, "disks", receiver_plan_disks(supervisor->params, manifest));
	value_set_string(document, "name", value_find_string(vm, "name_label", ""));
	value_set_string(document, "vm_uuid", value_find_string(vm, "uuid", ""));
	value_set_string(document, "peer", value_find_string(manifest, "source_pool_uuid", ""));
	row.document = value_copy(document);
	struct migration *m CLEANUP_MIGRATION = migration_new(supervisor->params, &row);
	row.document = TAKE_PTR(document);
	int r = migration_enter(m, 0, fault);
	if (r == 0 && registry_add(&supervisor->registry, m) < 0)
		r = migration_busy(migration, -EAGAIN, fault);
	else if (r == 0 && (r = INJECT_FAULT(fault, "state.receiver.insert.before")) == 0)
		r = migration_insert(supervisor->params->storage->agent, &row, fault);
	if (r == 0)
		(void)INJECT("state.receiver.insert.after");
	if (r < 0 && r != -EAGAIN)
		registry_remove(&supervisor->registry, m);
	migration_row_clear(&row);
	if (r < 0)
		return r;
	r = report_begin(m, fault);
	if (r < 0) {
		/* It is on record, and so must be its end; the keeper goes on with it. */
		receiver_give_up(m, r, fault);
		leave(supervisor, m);
		return r;
	}
	*ret_migration = TAKE_PTR(m);
	return 0;
}

/* A migration that was decided cannot begin anew. */
static int check_undecided(
	struct supervisor *supervisor, const char *migration, struct fault *fault)
{
	bool committed;
	char *vm CLEANUP_FREE = NULL;
	int64_t at;

	int r = commit_find(
		supervisor->params->storage->pool, migration, &committed, &vm, &at, fault);
	if (r <= 0)
		return r;
	return fault_text(fault, -EALREADY, "migration %s is %s", migration,
		committed ? "committed" : "aborted");
}

static int create_checked(struct supervisor *supervisor, const char *session, const char *migration,
	const struct value *manifest, struct migration **ret_migration, struct fault *fault)
{
	int r = check_undecided(supervisor, migration, fault);

	if (r == 0)
		r = receiver_check(supervisor->params, manifest, fault);
	if (r < 0) {
		/* The same call is a step ahead: what is in the way may be its own. */
		struct migration *first CLEANUP_MIGRATION =
			registry_find(&supervisor->registry, migration);
		return first ? -EAGAIN : r;
	}
	r = supervisor_session_bind(supervisor, session, migration, fault);
	return r < 0 ? r
		     : create_receiver(
			       supervisor, session, migration, manifest, ret_migration, fault);
}

/* Entered. When the same call came twice at one moment, the second finds what the first made. */
static int find_or_create(struct supervisor *supervisor, const char *session, const char *migration,
	const struct value *manifest, struct migration **ret_migration, struct fault *fault)
{
	struct fault why CLEANUP_FAULT = FAULT_INIT;
	int r = find(supervisor, session, migration, ret_migration, fault);

	if (r == 0 && !*ret_migration) {
		r = create_checked(supervisor, session, migration, manifest, ret_migration, &why);
		if (r != -EAGAIN) {
			fault_move(fault, &why);
			return r;
		}
		r = find(supervisor, session, migration, ret_migration, fault);
		/* It has ended meanwhile. */
		if (r == 0 && !*ret_migration)
			r = migration_busy(migration, -EAGAIN, fault);
	}
	return r < 0 ? r : migration_enter(*ret_migration, ENTER_TIMEOUT, fault);
}

int supervisor_peer_prepare(struct supervisor *supervisor, const char *session,
	const char *migration, const struct value *manifest, struct value **ret_result,
	struct fault *fault)
{
	struct migration *m CLEANUP_MIGRATION = NULL;
	struct value *exports = NULL;

	if (value_find_bool(manifest, "dry_run", false)) {
		int r = receiver_check(supervisor->params, manifest, fault);
		if (r == 0)
			*ret_result = value_new_struct();
		return r;
	}
	int r = find_or_create(supervisor, session, migration, manifest, &m, fault);
	if (r < 0)
		return r;
	if (migration_state(m) == STATE_ALLOCATING)
		r = receiver_allocate(m, fault);
	if (r == 0)
		r = receiver_exports(m, &exports, fault);
	leave(supervisor, m);
	if (r < 0)
		return r;
	*ret_result = value_set(value_new_struct(), "exports", exports);
	return 0;
}

int supervisor_peer_renew(struct supervisor *supervisor, const char *session, const char *migration,
	struct value **ret_result, struct fault *fault)
{
	struct migration *m CLEANUP_MIGRATION = NULL;
	struct value *exports = NULL;

	int r = find(supervisor, session, migration, &m, fault);
	if (r == 0 && !m)
		r = unknown(supervisor, migration, fault);
	if (r == 0)
		r = migration_enter(m, ENTER_TIMEOUT, fault);
	if (r < 0)
		return r;
	r = receiver_exports(m, &exports, fault);
	leave(supervisor, m);
	if (r == 0)
		*ret_result = value_set(value_new_struct(), "exports", exports);
	return r;
}

int supervisor_peer_digest(struct supervisor *supervisor, const char *session,
	const char *migration, int64_t disk, int64_t span, struct value **ret_result,
	struct fault *fault)
{
	struct migration *m CLEANUP_MIGRATION = NULL;

	int r = find(supervisor, session, migration, &m, fault);
	if (r == 0 && !m)
		r = unknown(supervisor, migration, fault);
	if (r == 0)
		r = receiver_digest(m, disk, span, ret_result, fault);
	/* What was cut short by it says less. */
	if (r < 0 && m && migration_cancel_requested(m))
		r = receiver_refuse(m, "digest", fault);
	if (m)
		heard(m);
	/* It was cut short, not refused. */
	if (r < 0 && cancel_is_requested(supervisor->stop))
		return migration_busy(migration, -ESHUTDOWN, fault);
	return r;
}

int supervisor_peer_digest_extents(struct supervisor *supervisor, const char *session,
	const char *migration, int64_t disk, const char *extents, struct value **ret_result,
	struct fault *fault)
{
	struct migration *m CLEANUP_MIGRATION = NULL;

	int r = find(supervisor, session, migration, &m, fault);
	if (r == 0 && !m)
		r = unknown(supervisor, migration, fault);
	if (r == 0)
		r = receiver_digest_extents(m, disk, extents, ret_result, fault);
	if (r < 0 && m && migration_cancel_requested(m))
		r = receiver_refuse(m, "digest", fault);
	if (r < 0 && cancel_is_requested(supervisor->stop))
		return migration_busy(migration, -ESHUTDOWN, fault);
	return r;
}

int supervisor_peer_incoming(struct supervisor *supervisor, const char *session,
	const char *migration, struct value **ret_result, struct fault *fault)
{
	struct migration *m CLEANUP_MIGRATION = NULL;

	int r = find(supervisor, session, migration, &m, fault);
	if (r == 0 && !m)
		r = unknown(supervisor, migration, fault);
	if (r == 0)
		r = migration_enter(m, ENTER_TIMEOUT, fault);
	if (r < 0)
		return r;
	r = receiver_incoming(m, ret_result, fault);
	leave(supervisor, m);
	if (r < 0 && cancel_is_requested(supervisor->stop))
		return migration_busy(migration, -ESHUTDOWN, fault);
	return r;
}

int supervisor_peer_seal(struct supervisor *supervisor, const char *session, const char *migration,
	const struct value *manifest, struct value **ret_result, struct fault *fault)
{
	struct migration *m CLEANUP_MIGRATION = NULL;

	int r = find(supervisor, session, migration, &m, fault);
	if (r == 0 && !m)
		r = unknown(supervisor, migration, fault);
	if (r == 0)
		r = migration_enter(m, ENTER_TIMEOUT, fault);
	if (r < 0)
		return r;
	r = receiver_seal(m, manifest, fault);
	leave(supervisor, m);
	if (r == 0)
		*ret_result = value_set_string(
			value_new_struct(), "state", migration_state_name(migration_state(m)));
	return r;
}

/* Aborted is for the sender to hear only once no QEMU can run the guest here. */
static bool is_decided(struct migration *m)
{
	enum migration_state state = migration_state(m);

	return state == STATE_COMMITTED || fsm_is_final(state) ||
	       (state == STATE_ABORTING && !receiver_may_run(m));
}

/* Of one that is committed here nothing is said before the database says so too. */
static bool can_answer(struct migration *m, int r)
{
	if (migration_state(m) == STATE_COMMITTED)
		return r == 0 || r == -EALREADY;
	return r == 0 || is_decided(m);
}

/* The answer to a commit, from the decision that pool.db holds. m: NULL: it has ended here. */
static int answer_decision(struct supervisor *supervisor, struct migration *m,
	const char *migration, struct value **ret_result, struct fault *cause, struct fault *fault)
{
	struct value *result CLEANUP_VALUE = value_new_struct();
	bool committed = false;
	char *vm CLEANUP_FREE = NULL;

	/* A migration that nobody here knows must never be committed later: say no, durably. */
	int r = commit_decide(
		supervisor->params->storage->pool, migration, false, NULL, &committed, &vm, fault);
	/* The sender builds on it: the loss of a host must not undo it. */
	if (r == 0 && committed && m)
		r = safeguard_run(m, fault);
	if (r < 0)
		return r;
	value_set_string(result, "decision", committed ? "committed" : "aborted");
	if (committed)
		value_set_string(result, "vm", vm ? vm : REF_NULL);
	if (!committed && !cause->code)
		find_cause(supervisor, migration, cause);
	if (!committed && cause->code)
		value_set(result, "error", fault_to_list(cause));
	*ret_result = TAKE_PTR(result);
	return 0;
}

static void add_resumption(
	struct migration *m, uint64_t received_usec, uint64_t resumed_usec, struct value *result)
{
	struct value *resumed CLEANUP_VALUE = migration_get(m, "resumed");

	if (!resumed || strcmp(value_find_string(result, "decision", ""), "committed") != 0)
		return;
	value_set_bool(result, "resumed", resumed->boolean);
	if (resumed_usec > received_usec)
		value_set_int(result, "resume_usec", (int64_t)(resumed_usec - received_usec));
}

int supervisor_peer_commit(struct supervisor *supervisor, const char *session,
	const char *migration, struct value **ret_result, struct fault *fault)
{
	const uint64_t received = clock_now_usec();
	struct migration *m CLEANUP_MIGRATION = NULL;
	struct fault cause CLEANUP_FAULT = FAULT_INIT;

	int r = find(supervisor, session, migration, &m, fault);
	if (r < 0)
		return r;
	if (!m)
		return answer_decision(supervisor, NULL, migration, ret_result, &cause, fault);
	r = migration_enter(m, ENTER_TIMEOUT, fault);
	if (r < 0)
		return r;
	r = receiver_commit(m, &cause);
	uint64_t resumed = m->resumed_usec;
	leave(supervisor, m);
	if (!can_answer(m, r)) {
		fault_move(fault, &cause);
		return r;
	}
	r = answer_decision(supervisor, m, migration, ret_result, &cause, fault);
	if (r == 0)
		add_resumption(m, received, resumed, *ret_result);
	return r;
}

int supervisor_peer_abort(struct supervisor *supervisor, const char *session, const char *migration,
	const char *reason, struct value **ret_result, struct fault *fault)
{
	struct migration *m CLEANUP_MIGRATION = NULL;
	struct fault cause CLEANUP_FAULT = FAULT_INIT;

	int r = find(supervisor, session, migration, &m, fault);
	if (r < 0)
		return r;
	if (m) {
		cancel_request(m->cancel, "the sender aborts");
		r = migration_enter(m, ENTER_TIMEOUT, fault);
		if (r < 0)
			return r;
		fault_text(&cause, -ECANCELED, "the sender aborted: %s", reason);
		migration_set_error(m, &cause);
		r = receiver_abort(m, EVENT_FAILED, fault);
		leave(supervisor, m);
		/* The keeper goes on with what could not be removed now. */
		if (!can_answer(m, r))
			return r;
	}
	r = answer_decision(supervisor, m, migration, ret_result, &cause, fault);
	/* One who aborts what is committed has yet to learn it for good: Peer.finish. */
	if (r == 0 && strcmp(value_find_string(*ret_result, "decision", ""), "aborted") == 0)
		supervisor_session_unbind(supervisor, session, migration);
	return r;
}

static struct value *free_space(struct migration *m)
{
	struct value *disks CLEANUP_VALUE = migration_get(m, "disks");
	struct value *space = value_new_array();

	for (size_t i = 0; i < disks->array.n_items; i++) {
		char *dir CLEANUP_FREE = NULL;
		uint64_t size;
		uint64_t available;
		struct value *entry = value_new_struct();
		if (sr_location(m->params->storage,
			    value_find_string(disks->array.items[i], "sr", ""), &dir, NULL) == 0 &&
			disk_space(dir, &size, &available, NULL) == 0)
			value_set_int(entry, "bytes", (int64_t)available);
		value_append(space, entry);
	}
	return space;
}

int supervisor_peer_status(struct supervisor *supervisor, const char *session,
	const char *migration, struct value **ret_result, struct fault *fault)
{
	struct migration *m CLEANUP_MIGRATION = NULL;
	struct value *result CLEANUP_VALUE = value_new_struct();
	struct fault cause CLEANUP_FAULT = FAULT_INIT;
	bool committed = false;
	char *vm CLEANUP_FREE = NULL;
	int64_t at;

	int r = find(supervisor, session, migration, &m, fault);
	if (r < 0)
		return r;
	if (m) {
		value_set_string(result, "state", migration_state_name(migration_state(m)));
		value_set(result, "free", free_space(m));
		receiver_incoming_status(m, result);
	} else {
		r = commit_find(
			supervisor->params->storage->pool, migration, &committed, &vm, &at, fault);
		if (r < 0)
			return r;
		value_set_string(result, "state",
			r == 0      ? "UNKNOWN"
			: committed ? "COMMITTED"
				    : "FAILED");
		if (!committed && find_cause(supervisor, migration, &cause))
			value_set(result, "error", fault_to_list(&cause));
	}
	*ret_result = TAKE_PTR(result);
	return 0;
}

int supervisor_peer_finish(struct supervisor *supervisor, const char *session,
	const char *migration, struct value **ret_result, struct fault *fault)
{
	struct migration *m CLEANUP_MIGRATION = NULL;

	int r = find(supervisor, session, migration, &m, fault);
	if (r == 0 && m)
		r = migration_enter(m, ENTER_TIMEOUT, fault);
	if (r < 0)
		return r;
	if (m) {
		r = receiver_finish(m, fault);
		leave(supervisor, m);
	}
	if (r < 0)
		return r;
	supervisor_session_unbind(supervisor, session, migration);
	*ret_result = value_new_struct();
	return 0;
}
