/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/migrate/migration.h"

#include "agent/migrate/report.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/inject.h"
#include "base/log.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* A cancel that was accepted before the daemon died. */
static void restore_cancel(struct migration *m)
{
	const char *who = value_find_string(m->document, "cancelled_by", NULL);

	if (!who || (!fsm_is_cancellable(m->role, m->state) && m->state != STATE_ABORTING))
		return;
	m->cancel_requested = true;
	cancel_request(m->cancel, who);
}

struct migration *migration_new(const struct supervisor_params *params, struct migration_row *row)
{
	struct migration *m = xcalloc(1, sizeof(*m));
	pthread_condattr_t attributes;

	m->params = params;
	m->uuid = xstrdup(row->uuid);
	m->role = row->role;
	m->state = row->state;
	m->document = row->document ? TAKE_PTR(row->document) : value_new_struct();
	m->n_refs = 1;
	if (m->role == ROLE_SENDER) {
		const struct value *disks = value_find(m->document, "disks");
		m->n_disks = disks && disks->type == VALUE_ARRAY ? disks->array.n_items : 0;
		m->disks = xcalloc(m->n_disks, sizeof(*m->disks));
		while (m->n_own_disks < m->n_disks &&
			!value_find(disks->array.items[m->n_own_disks], "snapshot"))
			m->n_own_disks++;
	}
	m->cancel = cancel_new();
	m->stop = cancel_new();
	m->ended = cancel_new();
	m->resolve = cancel_new();
	m->nudge_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	restore_cancel(m);
	int64_t bandwidth = value_find_int(m->document, "bandwidth", -1);
	m->rate = rate_limit_new(
		bandwidth >= 0 ? (uint64_t)bandwidth : params->bandwidth_bytes_per_sec);
	m->figures.predicted_usec = UINT64_MAX;
	m->last_heard_usec = m->peer_heard_usec = clock_now_usec();
	pthread_mutex_init(&m->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&m->changed, &attributes);
	pthread_condattr_destroy(&attributes);
	return m;
}

struct migration *migration_ref(struct migration *m)
{
	SCOPE_LOCK(&m->lock);
	m->n_refs++;
	return m;
}

struct migration *migration_unref(struct migration *m)
{
	if (!m)
		return NULL;
	pthread_mutex_lock(&m->lock);
	bool last = --m->n_refs == 0;
	pthread_mutex_unlock(&m->lock);
	if (!last)
		return NULL;
	tgt_stop(m->tgt);
	value_free(m->exports);
	free(m->door);
	free(m->disk_door);
	for (size_t i = 0; i < m->n_disks; i++)
		salvage_free(m->disks[i].salvage);
	free(m->disks);
	rate_limit_free(m->rate);
	cancel_free(m->ended);
	cancel_free(m->resolve);
	cleanup_close(&m->nudge_fd);
	cancel_free(m->stop);
	cancel_free(m->cancel);
	value_free(m->document);
	pthread_cond_destroy(&m->changed);
	pthread_mutex_destroy(&m->lock);
	free(m->uuid);
	free(m);
	return NULL;
}

/* What is stored never goes back: one writer at a time. Holds m->lock. */
static void store_begin(struct migration *m, struct value **ret_document)
{
	while (m->storing)
		pthread_cond_wait(&m->changed, &m->lock);
	m->storing = true;
	*ret_document = value_copy(m->document);
}

static void store_end(struct migration *m)
{
	m->storing = false;
	pthread_cond_broadcast(&m->changed);
}

/* The row, stored. Before and after it is where a crash matters most. */
static int store_row(struct migration *m, const struct fsm_row *row, const struct value *document,
	struct fault *fault)
{
	const char *role = migration_role_name(row->role);
	const char *from = migration_state_name(row->from);
	const char *event = migration_event_name(row->event);

	int r = INJECT_FAULT(fault, "state.%s.%s.%s.before", role, from, event);
	if (r == 0)
		r = migration_move(m->params->storage->agent, m->uuid, row->from, row->to, event,
			document, fault);
	if (r == 0)
		(void)INJECT("state.%s.%s.%s.after", role, from, event);
	return r;
}

/* The row to follow; NULL with *ret_error set when there is none. Holds m->lock. */
static const struct fsm_row *choose_row(
	struct migration *m, enum migration_event event, int *ret_error, struct fault *fault)
{
	const struct fsm_row *row = fsm_find(m->role, m->state, event);
	if (!row) {
		*ret_error = fault_text(fault, -EINVAL,
			"migration %s: event %s has no place in state %s of the %s", m->uuid,
			migration_event_name(event), migration_state_name(m->state),
			migration_role_name(m->role));
		return NULL;
	}
	bool leaves = fsm_is_cancellable(m->role, m->state) &&
		      !fsm_is_cancellable(m->role, row->to) && row->to != STATE_ABORTING;
	if (leaves && m->cancel_requested && !m->deciding) {
		*ret_error = fault_set(fault, -ECANCELED, "TASK_CANCELLED", m->uuid, NULL);
		return NULL;
	}
	return row;
}

int migration_post(struct migration *m, enum migration_event event, struct fault *fault)
{
	struct value *document CLEANUP_VALUE = NULL;
	int r = 0;

	pthread_mutex_lock(&m->lock);
	store_begin(m, &document);
	const struct fsm_row *row = choose_row(m, event, &r, fault);
	if (!row)
		store_end(m);
	pthread_mutex_unlock(&m->lock);
	if (!row) {
		if (r == -EINVAL)
			log_error("MIG-EVENT-REFUSED", "migration=%s event=%s", m->uuid,
				migration_event_name(event));
		return r;
	}
	r = store_row(m, row, document, fault);
	pthread_mutex_lock(&m->lock);
	if (r == 0)
		m->state = row->to;
	store_end(m);
	pthread_mutex_unlock(&m->lock);
	if (r < 0)
		return r;
	log_info("MIG-STATE", "migration=%s role=%s from=%s event=%s to=%s", m->uuid,
		migration_role_name(m->role), migration_state_name(row->from),
		migration_event_name(event), migration_state_name(row->to));
	if (!m->quiet)
		report_state(m);
	return 0;
}

enum migration_state migration_state(struct migration *m)
{
	SCOPE_LOCK(&m->lock);
	return m->state;
}

char *migration_get_string(struct migration *m, const char *name)
{
	SCOPE_LOCK(&m->lock);
	return xstrdup(value_find_string(m->document, name, NULL));
}

struct value *migration_get(struct migration *m, const char *name)
{
	SCOPE_LOCK(&m->lock);
	const struct value *value = value_find(m->document, name);
	return value ? value_copy(value) : NULL;
}

void migration_set(struct migration *m, const char *name, struct value *value)
{
	SCOPE_LOCK(&m->lock);
	value_set(m->document, name, value);
}

void migration_unset(struct migration *m, const char *name)
{
	SCOPE_LOCK(&m->lock);
	value_unset(m->document, name);
}

int migration_save(struct migration *m, struct fault *fault)
{
	struct value *document CLEANUP_VALUE = NULL;

	pthread_mutex_lock(&m->lock);
	store_begin(m, &document);
	pthread_mutex_unlock(&m->lock);
	int r = migration_save_document(m->params->storage->agent, m->uuid, document, fault);
	pthread_mutex_lock(&m->lock);
	store_end(m);
	pthread_mutex_unlock(&m->lock);
	return r;
}

struct value *fault_to_list(const struct fault *fault)
{
	struct value *list = value_new_array();

	value_append_string(list, fault->code ? fault->code : "INTERNAL_ERROR");
	for (size_t i = 0; i < fault->n_params; i++)
		value_append_string(list, fault->params[i]);
	return list;
}

void fault_from_list(const struct value *list, struct fault *ret_fault)
{
	if (!list || list->type != VALUE_ARRAY || list->array.n_items == 0) {
		fault_text(ret_fault, -EIO, "the cause is not on record");
		return;
	}
	fault_set(ret_fault, -EIO, value_string(list->array.items[0], "INTERNAL_ERROR"), NULL);
	for (size_t i = 1; i < list->array.n_items; i++)
		fault_add_param(ret_fault, value_string(list->array.items[i], ""));
}

void migration_set_error(struct migration *m, const struct fault *fault)
{
	pthread_mutex_lock(&m->lock);
	bool first = !value_find(m->document, "error");
	if (first)
		value_set(m->document, "error", fault_to_list(fault));
	pthread_mutex_unlock(&m->lock);
	char *text CLEANUP_FREE = fault_describe(fault);
	if (first)
		log_warn("MIG-ERROR", "migration=%s error=%s", m->uuid, text);
}

void migration_get_error(struct migration *m, struct fault *ret_fault)
{
	struct value *error CLEANUP_VALUE = migration_get(m, "error");

	fault_from_list(error, ret_fault);
}

int migration_busy(const char *uuid, int error, struct fault *fault)
{
	return fault_set(
		fault, error, "OTHER_OPERATION_IN_PROGRESS", "migration", uuid, "", "", NULL);
}

int migration_enter(struct migration *m, unsigned timeout_sec, struct fault *fault)
{
	struct timespec deadline;

	clock_gettime(CLOCK_MONOTONIC, &deadline);
	deadline.tv_sec += timeout_sec;
	SCOPE_LOCK(&m->lock);
	while (m->busy)
		if (pthread_cond_timedwait(&m->changed, &m->lock, &deadline) == ETIMEDOUT)
			return migration_busy(m->uuid, -ETIMEDOUT, fault);
	m->busy = true;
	return 0;
}

void migration_leave(struct migration *m)
{
	SCOPE_LOCK(&m->lock);
	m->busy = false;
	pthread_cond_broadcast(&m->changed);
}

void migration_decide_begin(struct migration *m)
{
	SCOPE_LOCK(&m->lock);
	m->deciding = true;
}

void migration_decide_end(struct migration *m)
{
	SCOPE_LOCK(&m->lock);
	m->deciding = false;
	pthread_cond_broadcast(&m->changed);
}

/* Whether the request is one to honour; *ret_new when it is the first. */
static bool accept_cancel(struct migration *m, const char *who, bool *ret_new)
{
	SCOPE_LOCK(&m->lock);
	/* The answer must be true: wait for the state that is being stored. */
	while (m->storing || m->deciding)
		pthread_cond_wait(&m->changed, &m->lock);
	if (m->state == STATE_ABORTING)
		return true;
	if (!fsm_is_cancellable(m->role, m->state))
		return false;
	*ret_new = !m->cancel_requested;
	if (m->cancel_requested)
		return true;
	m->cancel_requested = true;
	value_set_string(m->document, "cancelled_by", who);
	value_set_string(m->document, "cancelled_in", migration_state_name(m->state));
	value_set(m->document, "cancelled_at", value_new_int(clock_wall_sec()));
	return true;
}

bool migration_request_cancel(struct migration *m, const char *who)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	bool is_new = false;

	if (!accept_cancel(m, who, &is_new))
		return false;
	if (is_new && migration_save(m, &fault) < 0) {
		/* It is honoured all the same, unless the daemon dies this moment. */
		char *text CLEANUP_FREE = fault_describe(&fault);
		log_warn("MIG-CANCEL-NOT-STORED", "migration=%s error=%s", m->uuid, text);
	}
	cancel_request(m->cancel, who);
	return true;
}

void migration_request_stop(struct migration *m)
{
	cancel_request(m->stop, "the daemon stops");
	cancel_request(m->resolve, "the daemon stops");
	cancel_request(m->cancel, "the daemon stops");
}

bool migration_cancel_requested(struct migration *m)
{
	SCOPE_LOCK(&m->lock);
	return m->cancel_requested;
}
