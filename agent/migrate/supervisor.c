/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/migrate/supervisor.h"

#include "agent/migrate/copies.h"
#include "agent/migrate/image_source.h"
#include "agent/migrate/receiver.h"
#include "agent/migrate/report.h"
#include "agent/migrate/report_queue.h"
#include "agent/migrate/sender.h"
#include "agent/migrate/supervisor_internal.h"
#include "agent/migrate/vdi_move.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/uuid.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>

struct supervisor *supervisor_new(const struct supervisor_params *params)
{
	struct supervisor *supervisor = xcalloc(1, sizeof(*supervisor));

	supervisor->params = params;
	supervisor->stop = cancel_new();
	/* Without it the keeper looks once a second all the same. */
	supervisor->keeper_bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	registry_init(&supervisor->registry);
	queue_init(&supervisor->queue, &supervisor->registry, params);
	pthread_mutex_init(&supervisor->lock, NULL);
	pthread_cond_init(&supervisor->idle, NULL);
	return supervisor;
}

void supervisor_retire(struct supervisor *supervisor, struct migration *m)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	report_state(m);
	report_trim(supervisor->params->storage->pool);
	if (migration_forget(supervisor->params->storage->agent, m->uuid, &fault) < 0) {
		/* Harmless: the next start of the daemon forgets it. */
		char *text CLEANUP_FREE = fault_describe(&fault);
		log_warn("MIG-FORGET", "migration=%s error=%s", m->uuid, text);
	}
	registry_remove(&supervisor->registry, m);
	queue_ring(&supervisor->queue);
}

struct sender_start {
	struct supervisor *supervisor;
	struct migration *migration;
};

static void *sender_main(void *arg)
{
	struct sender_start *start = arg;
	struct supervisor *supervisor = start->supervisor;
	struct migration *m = start->migration;

	free(start);
	sender_run(m);
	if (fsm_is_final(migration_state(m)))
		supervisor_retire(supervisor, m);
	migration_unref(m);
	pthread_mutex_lock(&supervisor->lock);
	supervisor->n_threads--;
	pthread_cond_broadcast(&supervisor->idle);
	pthread_mutex_unlock(&supervisor->lock);
	return NULL;
}

int supervisor_start_sender(struct supervisor *supervisor, struct migration *m, struct fault *fault)
{
	struct sender_start *start;
	pthread_attr_t attributes;
	pthread_t thread;

	SCOPE_LOCK(&supervisor->lock);
	if (supervisor->stopping)
		return fault_text(fault, -ESHUTDOWN, "this agent is stopping");
	start = xcalloc(1, sizeof(*start));
	*start = (struct sender_start){.supervisor = supervisor, .migration = migration_ref(m)};
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	int r = -pthread_create(&thread, &attributes, sender_main, start);
	pthread_attr_destroy(&attributes);
	if (r < 0) {
		migration_unref(m);
		free(start);
		return fault_errno(fault, r, "starting the thread of migration %s", m->uuid);
	}
	supervisor->n_threads++;
	return 0;
}

/* Between the decision in pool.db and its note in agent.db the daemon may have died. What fails now
 * (an SR may be away) is tried again by the keeper, or when the sender asks. */
static void adopt_decision(struct migration *m)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	bool committed = false;
	int64_t at;

	int r = commit_find(m->params->storage->pool, m->uuid, &committed, NULL, &at, &fault);
	if (r > 0 && !committed)
		r = receiver_abort(m, EVENT_FAILED, &fault);
	else if (r > 0 && migration_state(m) == STATE_SEALED)
		r = receiver_commit(m, &fault);
	if (r >= 0)
		return;
	char *text CLEANUP_FREE = fault_describe(&fault);
	log_error("MIG-RECOVER", "migration=%s error=%s", m->uuid, text);
}

/* What the former agent's processes left. */
static void clear_up(struct migration *m)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	receiver_withdraw(m, NULL);
	if (receiver_recover_incoming(m, &fault) == 0)
		return;
	/* The next Peer.incoming, or the end of the migration, tries again. */
	char *text CLEANUP_FREE = fault_describe(&fault);
	log_error("MIG-QEMU", "migration=%s error=\"%s\"", m->uuid, text);
}

static int recover_one(
	struct supervisor *supervisor, struct migration_row *row, struct fault *fault)
{
	bool over = fsm_is_final(row->state);
	struct migration *m CLEANUP_MIGRATION = migration_new(supervisor->params, row);

	int r = registry_add(&supervisor->registry, m);
	if (r == 0)
		r = report_begin(m, fault);
	if (r < 0)
		return r;
	report_state(m); /* It may have died before it said so. */
	report_attention(m);
	if (m->role == ROLE_RECEIVER)
		clear_up(m);
	if (over) {
		supervisor_retire(supervisor, m);
		return 0;
	}
	log_info("MIG-RECOVER", "migration=%s role=%s state=%s", m->uuid,
		migration_role_name(m->role), migration_state_name(migration_state(m)));
	if (m->role == ROLE_SENDER)
		return supervisor_start_sender(supervisor, m, fault);
	adopt_decision(m);
	if (fsm_is_final(migration_state(m)))
		supervisor_retire(supervisor, m);
	return 0;
}

static int recover(struct supervisor *supervisor, struct fault *fault)
{
	struct migration_row *rows = NULL;
	size_t n = 0;

	int r = migration_list(supervisor->params->storage->agent, false, &rows, &n, fault);
	for (size_t i = 0; i < n; i++) {
		if (r == 0)
			r = recover_one(supervisor, &rows[i], fault);
		migration_row_clear(&rows[i]);
	}
	free(rows);
	return r;
}

int supervisor_start(struct supervisor *supervisor, struct fault *fault)
{
	int r = image_source_recover(supervisor->params, fault);

	if (r == 0)
		r = vdi_move_recover(supervisor->params, fault);
	if (r == 0)
		r = copies_recover(supervisor->params, fault);
	if (r == 0)
		r = recover(supervisor, fault);
	if (r == 0)
		r = report_recover_queue(supervisor->params->storage, fault);
	if (r < 0)
		return r;
	r = -pthread_create(&supervisor->keeper, NULL, keeper_main, supervisor);
	if (r < 0)
		return fault_errno(fault, r, "starting the keeper of receivers");
	supervisor->has_keeper = true;
	return 0;
}

void supervisor_close(struct supervisor *supervisor)
{
	size_t n;

	if (!supervisor)
		return;
	pthread_mutex_lock(&supervisor->lock);
	supervisor->stopping = true;
	pthread_mutex_unlock(&supervisor->lock);
	cancel_request(supervisor->stop, "the daemon stops");
	struct migration **all CLEANUP_FREE = registry_all(&supervisor->registry, &n);
	for (size_t i = 0; i < n; i++) {
		migration_request_stop(all[i]);
		migration_unref(all[i]);
	}
	if (supervisor->has_keeper)
		pthread_join(supervisor->keeper, NULL);
	supervisor->has_keeper = false;
	pthread_mutex_lock(&supervisor->lock);
	while (supervisor->n_threads)
		pthread_cond_wait(&supervisor->idle, &supervisor->lock);
	pthread_mutex_unlock(&supervisor->lock);
}

struct supervisor *supervisor_stop(struct supervisor *supervisor)
{
	if (!supervisor)
		return NULL;
	supervisor_close(supervisor);
	queue_deinit(&supervisor->queue);
	registry_deinit(&supervisor->registry);
	cancel_free(supervisor->stop);
	cleanup_close(&supervisor->keeper_bell);
	pthread_cond_destroy(&supervisor->idle);
	pthread_mutex_destroy(&supervisor->lock);
	free(supervisor);
	return NULL;
}

/* What is on record of a migration that has left the registry. */
static int recorded_outcome(struct supervisor *supervisor, const char *uuid, const char *task,
	char **ret_vm_ref, struct fault *fault)
{
	struct pool_db *pool = supervisor->params->storage->pool;
	struct value *record CLEANUP_VALUE = NULL;
	struct value *config CLEANUP_VALUE = NULL;
	char *ref CLEANUP_FREE = NULL;

	int r = object_get_by_uuid(pool, "migration", uuid, &ref, fault);
	if (r == 0)
		r = object_get_record(pool, "migration", ref, &record, fault);
	if (r == 0)
		r = object_get_field(pool, "task", task, "other_config", &config, fault);
	if (r < 0)
		return r;
	const char *state = value_find_string(record, "state", "");
	const struct value *error = value_find(record, "error_info");
	if (strcmp(state, "DONE") == 0) {
		*ret_vm_ref = xstrdup(value_find_string(config, "ferry:vm_there", REF_NULL));
		return 0;
	}
	if (strcmp(state, "CANCELLED") == 0)
		return fault_set(fault, -ECANCELED, "TASK_CANCELLED", task, NULL);
	fault_from_list(error, fault);
	return -EIO;
}

int supervisor_await(struct supervisor *supervisor, const char *uuid, const char *task,
	struct cancel *cancel, char **ret_vm_ref, struct fault *fault)
{
	struct migration *m CLEANUP_MIGRATION = registry_find(&supervisor->registry, uuid);

	if (!m)
		return recorded_outcome(supervisor, uuid, task, ret_vm_ref, fault);
	return supervisor_await_outcome(m, task, cancel, ret_vm_ref, fault);
}

/* The truth about a migration that can no longer be cancelled. */
static int too_late(struct supervisor *supervisor, struct migration *m, struct fault *fault)
{
	enum migration_state state = migration_state(m);
	bool committed = false;
	int64_t at = 0;
	char *text CLEANUP_FREE = NULL;

	int r = commit_find(
		supervisor->params->storage->pool, m->uuid, &committed, NULL, &at, fault);
	if (r < 0)
		return r;
	char *when CLEANUP_FREE = datetime_format(at);
	if (r > 0 && committed)
		text = xasprintf(
			"migration %s was committed at %s and cannot be cancelled", m->uuid, when);
	else if (state == STATE_COMMITTING)
		text = xasprintf(
			"migration %s has asked for its commit and cannot be cancelled", m->uuid);
	else if (state == STATE_FINISHING || state == STATE_DONE)
		text = xasprintf("migration %s was committed and cannot be cancelled", m->uuid);
	else
		text = xasprintf("migration %s has ended", m->uuid);
	return fault_set(fault, -EALREADY, "OPERATION_NOT_ALLOWED", text, NULL);
}

int supervisor_not_under_way(struct supervisor *supervisor, const char *uuid, struct fault *fault)
{
	char *ref CLEANUP_FREE = NULL;

	int r = object_get_by_uuid(
		supervisor->params->storage->pool, "migration", uuid, &ref, fault);
	if (r < 0)
		return r;
	char *text CLEANUP_FREE = xasprintf("migration %s has ended", uuid);
	return fault_set(fault, -EALREADY, "OPERATION_NOT_ALLOWED", text, NULL);
}

int supervisor_set_bandwidth(struct supervisor *supervisor, const char *uuid,
	uint64_t bytes_per_sec, struct fault *fault)
{
	struct migration *m CLEANUP_MIGRATION = registry_find(&supervisor->registry, uuid);

	if (!m)
		return supervisor_not_under_way(supervisor, uuid, fault);
	if (m->role != ROLE_SENDER)
		return fault_set(fault, -EPERM, "OPERATION_NOT_ALLOWED",
			"this host receives the migration; its sender has the limit", NULL);
	migration_set(m, "bandwidth", value_new_int((int64_t)bytes_per_sec));
	rate_limit_set(m->rate, bytes_per_sec);
	log_info("MIG-BANDWIDTH", "migration=%s bytes_per_sec=%llu", uuid,
		(unsigned long long)bytes_per_sec);
	return migration_save(m, fault);
}

int supervisor_cancel(
	struct supervisor *supervisor, const char *uuid, const char *who, struct fault *fault)
{
	struct migration *m CLEANUP_MIGRATION = registry_find(&supervisor->registry, uuid);

	if (m && !migration_request_cancel(m, who))
		return too_late(supervisor, m, fault);
	if (m) {
		keeper_ring(supervisor);
		return 0;
	}
	if (queue_cancel(&supervisor->queue, uuid, who))
		return 0;
	return supervisor_not_under_way(supervisor, uuid, fault);
}

bool supervisor_sends(struct supervisor *supervisor, const char *uuid, const char *task)
{
	struct migration *m CLEANUP_MIGRATION = registry_find(&supervisor->registry, uuid);
	char *own CLEANUP_FREE = m ? migration_get_string(m, "task") : NULL;

	return m && m->role == ROLE_SENDER && own && strcmp(own, task) == 0;
}
