/* SPDX-License-Identifier: Apache-2.0 */
/* The receiver's end of the peer protocol (docs/protocol.md). Every call may come twice. */
#include "agent/migrate/peer.h"
#include "agent/migrate/receiver.h"
#include "agent/migrate/report.h"
#include "agent/migrate/supervisor.h"
#include "agent/migrate/supervisor_internal.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/uuid.h"
#include "target/disk.h"

#include <errno.h>
#include <string.h>

#define SESSION_KEY   "ferry:migration"
#define ENTER_TIMEOUT 60

static int check_receive(
	struct supervisor *supervisor, const char *host, const char *network, struct fault *fault)
{
	struct pool_db *pool = supervisor->params->storage->pool;
	bool enabled;

	int r = object_get_bool(pool, "host", host, "enabled", &enabled, fault);
	if (r < 0)
		return r;
	if (!enabled)
		return fault_set(fault, -EPERM, "HOST_DISABLED", host, NULL);
	if (!object_exists(pool, "network", network))
		return fault_set(fault, -ENOENT, "HANDLE_INVALID", "network", network, NULL);
	struct value *pifs CLEANUP_VALUE = NULL;
	r = object_find(pool, "PIF", "network", network, &pifs, fault);
	for (size_t i = 0; r == 0 && i < pifs->array.n_items; i++) {
		char *owner CLEANUP_FREE = NULL;
		r = object_get_string(
			pool, "PIF", pifs->array.items[i]->string, "host", &owner, fault);
		if (r == 0 && strcmp(owner, host) == 0)
			return 0;
	}
	return r < 0 ? r
		     : fault_set(fault, -ENETUNREACH, "HOST_CANNOT_ATTACH_NETWORK", host, network,
			       NULL);
}

int supervisor_receive(struct supervisor *supervisor, const char *caller_session, const char *host,
	const char *network, struct value **ret_token, struct fault *fault)
{
	const struct supervisor_params *params = supervisor->params;
	struct value *fields CLEANUP_VALUE = value_new_struct();
	char *session CLEANUP_FREE = NULL;

	int r = check_receive(supervisor, host, network, fault);
	if (r < 0)
		return r;
	struct value *config = value_new_struct();
	value_set_string(config, SESSION_KEY, "");
	value_set(fields, "other_config", config);
	value_set_string(fields, "this_host", host);
	value_set_string(fields, "parent", caller_session);
	value_set_string(fields, "originator", "host.migrate_receive");
	value_set(fields, "last_active", value_new_datetime(clock_wall_sec()));
	value_set(fields, "validation_time", value_new_datetime(clock_wall_sec()));
	r = object_create(params->storage->pool, "session", fields, &session, fault);
	if (r < 0)
		return r;
	struct value *token = value_new_struct();
	value_set(token, "SM",
		value_new_format("%s/services/SM?session_id=%s", params->url, session));
	value_set_string(token, "host", host);
	value_set(token, "xenops",
		value_new_format("%s/services/xenops?session_id=%s", params->url, session));
	value_set_string(token, "session_id", session);
	value_set_string(token, "master", params->url);
	value_set_string(token, "ferry_protocol", PEER_PROTOCOL);
	value_set_string(token, "ferry_fingerprint", params->fingerprint);
	value_set_string(token, "ferry_data_address", params->data_address);
	*ret_token = token;
	return 0;
}

/* A session serves the first migration that it names, and no other. */
static int bind_session(struct supervisor *supervisor, const char *session, const char *migration,
	struct fault *fault)
{
	struct pool_db *pool = supervisor->params->storage->pool;
	struct value *config CLEANUP_VALUE = NULL;

	if (!uuid_is_valid(migration))
		return fault_set(fault, -EINVAL, "INVALID_VALUE", "migration", migration, NULL);
	int r = object_get_field(pool, "session", session, "other_config", &config, fault);
	if (r < 0)
		return fault_set(fault, r, "SESSION_INVALID", session, NULL);
	const char *bound = value_find_string(config, SESSION_KEY, NULL);
	if (bound && strcmp(bound, migration) == 0)
		return 0;
	if (!bound || *bound)
		return fault_set(fault, -EACCES, "RBAC_PERMISSION_DENIED", "Peer",
			"this session was made for another migration", NULL);
	return object_map_set(
		pool, "session", session, "other_config", SESSION_KEY, migration, fault);
}

static void heard(struct migration *m)
{
	SCOPE_LOCK(&m->lock);
	m->last_heard_usec = clock_now_usec();
}

/* The migration that the call names, NULL when this host is not (or no longer) in the middle of it.
 */
static int find(struct supervisor *supervisor, const char *session, const char *migration,
	struct migration **ret_migration, struct fault *fault)
{
	int r = bind_session(supervisor, session, migration, fault);

	if (r < 0)
		return r;
	struct migration *m = registry_find(&supervisor->registry, migration);
	if (m && m->role != ROLE_RECEIVER) {
		migration_unref(m);
		return fault_set(fault, -EINVAL, "INVALID_VALUE", "migration", migration, NULL);
	}
	if (m)
		heard(m);
	*ret_migration = m;
	return 0;
}

/* The fault for a call about a migration that this host is not (or no longer) in the middle of. */
static int unknown(struct supervisor *supervisor, const char *migration, struct fault *fault)
{
	bool committed = false;
	char *vm CLEANUP_FREE = NULL;
	int64_t at = 0;

	int r = commit_find(
		supervisor->params->storage->pool, migration, &committed, &vm, &at, fault);
	if (r < 0)
		return r;
	if (r == 0)
		return fault_set(fault, -ENOENT, "HANDLE_INVALID", "migration", migration, NULL);
	char *when CLEANUP_FREE = datetime_format(at);
	if (committed)
		return fault_text(fault, -EALREADY, "the destination committed migration %s at %s",
			migration, when);
	return fault_text(fault, -ENOENT,
		"the destination aborted migration %s at %s and removed its disks there: it was "
		"told "
		"so, or heard nothing from the source for its abandon time; the VM is as it was on "
		"the source; migrate it again",
		migration, when);
}

/* The receiver's own list of disks: sizes put right, uuids that are taken replaced. */
static struct value *plan_disks(struct supervisor *supervisor, const struct value *manifest)
{
	const struct value *sent = value_find(manifest, "disks");
	bool copy = value_find_bool(manifest, "copy", false);
	struct value *disks = value_new_array();

	for (size_t i = 0; i < sent->array.n_items; i++) {
		const struct value *from = sent->array.items[i];
		const char *uuid = value_find_string(from, "uuid", "");
		char *taken CLEANUP_FREE = NULL;
		char *fresh CLEANUP_FREE = uuid_new();
		struct value *disk = value_new_struct();
		if (!copy && object_get_by_uuid(supervisor->params->storage->pool, "VDI", uuid,
				     &taken, NULL) < 0)
			value_set_string(disk, "uuid", uuid);
		else
			value_set_string(disk, "uuid", fresh);
		value_set_string(disk, "sr", value_find_string(from, "sr", ""));
		value_set_int(disk, "size", peer_int(from, "size", 0));
		value_set_int(disk, "allocated", peer_int(from, "allocated", 0));
		const struct value *fields = value_find(from, "fields");
		value_set(disk, "fields", fields ? value_copy(fields) : value_new_struct());
		value_append(disks, disk);
	}
	return disks;
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
	value_set(document, "disks", plan_disks(supervisor, manifest));
	value_set_string(document, "name", value_find_string(vm, "name_label", ""));
	value_set_string(document, "vm_uuid", value_find_string(vm, "uuid", ""));
	value_set_string(document, "peer", value_find_string(manifest, "source_pool_uuid", ""));
	row.document = value_copy(document);
	struct migration *m CLEANUP_MIGRATION = migration_new(supervisor->params, &row);
	row.document = TAKE_PTR(document);
	int r = migration_enter(m, 0, fault);
	if (r == 0 && registry_add(&supervisor->registry, m) < 0)
		r = fault_text(fault, -EAGAIN, "migration %s is just being prepared", migration);
	else if (r == 0)
		r = migration_insert(supervisor->params->storage->agent, &row, fault);
	if (r == 0)
		r = report_begin(m, fault);
	if (r < 0 && r != -EAGAIN)
		registry_remove(&supervisor->registry, m);
	migration_row_clear(&row);
	if (r < 0)
		return r;
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

/* In ALLOCATING or RECEIVING, entered: makes what is missing. A failure undoes all of it. */
static int make_ready(struct migration *m, struct value **ret_exports, struct fault *fault)
{
	int r = 0;

	if (migration_state(m) == STATE_ALLOCATING)
		r = receiver_allocate(m, fault);
	if (r == 0)
		return receiver_exports(m, ret_exports, fault);
	struct fault undo CLEANUP_FAULT = FAULT_INIT;
	migration_set_error(m, fault);
	receiver_abort(m, EVENT_FAILED, &undo);
	return r;
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
	int r = find(supervisor, session, migration, &m, fault);
	if (r == 0 && m)
		r = migration_enter(m, ENTER_TIMEOUT, fault);
	if (r == 0 && !m) {
		r = check_undecided(supervisor, migration, fault);
		if (r == 0)
			r = receiver_check(supervisor->params, manifest, fault);
		if (r == 0)
			r = create_receiver(supervisor, session, migration, manifest, &m, fault);
	}
	if (r < 0)
		return r;
	r = make_ready(m, &exports, fault);
	migration_leave(m);
	if (fsm_is_final(migration_state(m)))
		supervisor_retire(supervisor, m);
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
	migration_leave(m);
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
	if (m)
		heard(m);
	return r;
}

int supervisor_peer_seal(struct supervisor *supervisor, const char *session, const char *migration,
	struct value **ret_result, struct fault *fault)
{
	struct migration *m CLEANUP_MIGRATION = NULL;

	int r = find(supervisor, session, migration, &m, fault);
	if (r == 0 && !m)
		r = unknown(supervisor, migration, fault);
	if (r == 0)
		r = migration_enter(m, ENTER_TIMEOUT, fault);
	if (r < 0)
		return r;
	r = receiver_seal(m, fault);
	migration_leave(m);
	heard(m);
	if (r == 0)
		*ret_result = value_set_string(
			value_new_struct(), "state", migration_state_name(migration_state(m)));
	return r;
}

/* The answer to a commit, from the decision that pool.db holds. */
static int answer_decision(struct supervisor *supervisor, const char *migration,
	struct value **ret_result, const struct fault *cause, struct fault *fault)
{
	struct value *result CLEANUP_VALUE = value_new_struct();
	bool committed = false;
	char *vm CLEANUP_FREE = NULL;

	/* A migration that nobody here knows must never be committed later: say no, durably. */
	int r = commit_decide(
		supervisor->params->storage->pool, migration, false, NULL, &committed, &vm, fault);
	if (r < 0)
		return r;
	value_set_string(result, "decision", committed ? "committed" : "aborted");
	if (committed)
		value_set_string(result, "vm", vm ? vm : REF_NULL);
	if (!committed && cause && cause->code)
		value_set(result, "error", fault_to_list(cause));
	*ret_result = TAKE_PTR(result);
	return 0;
}

int supervisor_peer_commit(struct supervisor *supervisor, const char *session,
	const char *migration, struct value **ret_result, struct fault *fault)
{
	struct migration *m CLEANUP_MIGRATION = NULL;
	struct fault cause CLEANUP_FAULT = FAULT_INIT;

	int r = find(supervisor, session, migration, &m, fault);
	if (r < 0)
		return r;
	if (!m)
		return answer_decision(supervisor, migration, ret_result, NULL, fault);
	r = migration_enter(m, ENTER_TIMEOUT, fault);
	if (r < 0)
		return r;
	r = receiver_commit(m, &cause);
	migration_leave(m);
	heard(m);
	enum migration_state state = migration_state(m);
	if (fsm_is_final(state))
		supervisor_retire(supervisor, m);
	if (r == 0 || state == STATE_ABORTING || fsm_is_final(state))
		return answer_decision(supervisor, migration, ret_result, &cause, fault);
	fault_move(fault, &cause);
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
		migration_leave(m);
		if (fsm_is_final(migration_state(m)))
			supervisor_retire(supervisor, m);
	}
	if (r == 0)
		r = answer_decision(supervisor, migration, ret_result, NULL, fault);
	if (r == 0)
		object_destroy(supervisor->params->storage->pool, "session", session, NULL);
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
	bool committed = false;
	char *vm CLEANUP_FREE = NULL;
	int64_t at;

	int r = find(supervisor, session, migration, &m, fault);
	if (r < 0)
		return r;
	if (m) {
		value_set_string(result, "state", migration_state_name(migration_state(m)));
		value_set(result, "free", free_space(m));
	} else {
		r = commit_find(
			supervisor->params->storage->pool, migration, &committed, &vm, &at, fault);
		if (r < 0)
			return r;
		value_set_string(result, "state",
			r == 0      ? "UNKNOWN"
			: committed ? "COMMITTED"
				    : "FAILED");
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
		migration_leave(m);
		if (fsm_is_final(migration_state(m)))
			supervisor_retire(supervisor, m);
	}
	if (r < 0)
		return r;
	object_destroy(supervisor->params->storage->pool, "session", session, NULL);
	*ret_result = value_new_struct();
	return 0;
}
