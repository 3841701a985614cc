/* SPDX-License-Identifier: Apache-2.0 */
/* The task that stands for a transfer: the client's, who has made it to watch and to cancel it, or
 * one of its own. Cancels are looked for in the object, as it may be another host that was asked.
 */
#include "agent/api/transfer.h"

#include "agent/api/tasks.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/uuid.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define LOOK_USEC  (300 * USEC_PER_MSEC)
#define NOTE_USEC  (1 * USEC_PER_SEC)
#define TOUCH_USEC (10 * USEC_PER_SEC)
#define AGAIN_USEC (1 * USEC_PER_SEC)

/* In the query, else in a cookie. NULL: neither. */
static const char *named_task(const struct transfer *transfer, const char *name)
{
	const char *task = http_stream_query(transfer->stream, name);

	if (!task)
		task = http_stream_cookie(transfer->stream, name);
	return task && *task && !ref_is_null(task) ? task : NULL;
}

static int check_owner(struct transfer *transfer, const struct value *record, struct fault *fault)
{
	const char *user = value_find_string(record, "user", "");

	if (transfer->owner.role <= USER_POOL_OPERATOR || strcmp(user, transfer->owner.user) == 0)
		return 0;
	return fault_set(fault, -EACCES, "RBAC_PERMISSION_DENIED", transfer->handler->name,
		"The task was made by another user", NULL);
}

static bool has_cancel(const struct value *operations)
{
	for (size_t i = 0; i < operations->record.n_members; i++)
		if (strcmp(value_string(operations->record.members[i].value, ""), "cancel") == 0)
			return true;
	return false;
}

static int cancelled(const struct transfer *transfer, struct fault *fault)
{
	return fault_set(fault, -ECANCELED, "TASK_CANCELLED", transfer->task, NULL);
}

int transfer_bind(struct transfer *transfer, struct fault *fault)
{
	struct pool_db *pool = transfer->api->pool;
	const char *parent = named_task(transfer, "subtask_of");
	const char *task = named_task(transfer, "task_id");
	struct value *record CLEANUP_VALUE = NULL;
	int r = parent ? object_check(pool, "task", parent, fault) : 0;

	if (r < 0 || !task)
		return r;
	r = object_get_record(pool, "task", task, &record, fault);
	if (r == 0)
		r = check_owner(transfer, record, fault);
	if (r < 0)
		return r;
	const char *status = value_find_string(record, "status", "");
	if (strcmp(status, "pending") != 0 ||
		value_find(value_find(record, "other_config"), TRANSFERRED_KEY)) {
		char *text CLEANUP_FREE = xasprintf(
			"task %s is %s, and is or was another's: make one for each transfer", task,
			status);
		return fault_set(fault, -EPERM, "OPERATION_NOT_ALLOWED", text, NULL);
	}
	transfer->task = xstrdup(task);
	transfer->is_bound = true;
	return has_cancel(value_find(record, "current_operations")) ? cancelled(transfer, fault)
								    : 0;
}

/* --- While it runs ------------------------------------------------------------------------------
 */

static char *describe_progress(const struct transfer *transfer)
{
	if (transfer->n_total == HTTP_STREAM_LENGTH_UNKNOWN)
		return xasprintf("%" PRIu64, transfer->n_done);
	return xasprintf("%" PRIu64 " of %" PRIu64, transfer->n_done, transfer->n_total);
}

static int note(struct pool_db *pool, void *arg, struct fault *fault)
{
	const struct transfer *transfer = arg;
	char *text CLEANUP_FREE = describe_progress(transfer);
	double share = transfer->n_total == HTTP_STREAM_LENGTH_UNKNOWN || !transfer->n_total
			       ? 0
			       : (double)transfer->n_done / (double)transfer->n_total;
	struct value *progress CLEANUP_VALUE = value_new_double(share * 0.99);
	int r = object_map_set(
		pool, "task", transfer->task, "other_config", TRANSFERRED_KEY, text, fault);

	return r < 0 ? r
		     : object_set_field(pool, "task", transfer->task, "progress", progress, fault);
}

static int make_task(struct transfer *transfer, struct fault *fault)
{
	const char *parent = named_task(transfer, "subtask_of");
	int r = tasks_create_object(transfer->api->tasks, transfer->handler->label, "",
		transfer->owner.user, &transfer->task, fault);

	if (r < 0 || !parent)
		return r;
	struct value *value CLEANUP_VALUE = value_new_string(parent);
	return object_set_field(
		transfer->api->pool, "task", transfer->task, "subtask_of", value, fault);
}

int transfer_begin(struct transfer *transfer, uint64_t n_total, struct fault *fault)
{
	struct value *operations CLEANUP_VALUE = value_append_string(value_new_array(), "cancel");
	struct pool_db *pool = transfer->api->pool;
	int r = transfer->is_bound ? 0 : make_task(transfer, fault);

	transfer->is_begun = transfer->task != NULL;
	transfer->n_total = n_total;
	if (r == 0)
		r = object_set_field(
			pool, "task", transfer->task, "allowed_operations", operations, fault);
	if (r == 0 && transfer->api->coordinator_address)
		r = object_map_set(pool, "task", transfer->task, "other_config", TASK_TRANSFER_KEY,
			transfer->api->host_ref, fault);
	return r < 0 ? r : pool_db_transaction(pool, note, transfer, fault);
}

static int look_for_cancel(struct transfer *transfer, struct fault *fault)
{
	struct value *operations CLEANUP_VALUE = NULL;
	int r = object_get_field(transfer->api->pool, "task", transfer->task, "current_operations",
		&operations, NULL);

	/* The client has destroyed it, or the coordinator is away: that stops nothing. */
	return r == 0 && has_cancel(operations) ? cancelled(transfer, fault) : 0;
}

/* Now and then. */
static int look_around(struct transfer *transfer, struct fault *fault)
{
	uint64_t now = clock_now_usec();
	int r = 0;

	if (now >= transfer->next_look_usec) {
		transfer->next_look_usec = now + LOOK_USEC;
		r = look_for_cancel(transfer, fault);
	}
	if (r == 0 && now >= transfer->next_note_usec) {
		transfer->next_note_usec = now + NOTE_USEC;
		pool_db_transaction(transfer->api->pool, note, transfer, NULL);
	}
	if (r == 0 && now >= transfer->next_touch_usec) {
		struct session_owner owner CLEANUP_SESSION_OWNER = {0};
		transfer->next_touch_usec = now + TOUCH_USEC;
		sessions_check(transfer->api->sessions, transfer->session, &owner, NULL);
	}
	return r;
}

/* code: when the client is gone. 0: the wait goes on. */
static int judge(struct transfer *transfer, int r, const char *code, struct fault *fault)
{
	char *progress CLEANUP_FREE = describe_progress(transfer);

	if (r == -ETIMEDOUT)
		return look_around(transfer, fault);
	if (r == -ECANCELED)
		return fault_text(fault, -ESHUTDOWN,
			"This host's agent is stopping; %s bytes were transferred", progress);
	char *text CLEANUP_FREE = xasprintf("the client closed the connection, or made no progress "
					    "for %u s, after %s bytes",
		HTTP_STREAM_PROGRESS_SEC, progress);
	return fault_set(fault, r, code, text, NULL);
}

ssize_t transfer_read(struct transfer *transfer, void *data, size_t max, struct fault *fault)
{
	int r = look_around(transfer, fault);

	while (r == 0) {
		ssize_t n = http_stream_read(transfer->stream, data, max, clock_deadline(LOOK_USEC),
			transfer->api->closing);
		if (n >= 0) {
			transfer->n_done += (uint64_t)n;
			return n;
		}
		r = judge(transfer, (int)n, "IMPORT_ERROR_PREMATURE_EOF", fault);
	}
	return r;
}

int transfer_write(struct transfer *transfer, const void *data, size_t length, struct fault *fault)
{
	int r = look_around(transfer, fault);

	while (r == 0) {
		r = http_stream_write(transfer->stream, data, length, clock_deadline(LOOK_USEC),
			transfer->api->closing);
		if (r == 0) {
			transfer->n_done += length;
			return 0;
		}
		r = judge(transfer, r, "INTERNAL_ERROR", fault);
	}
	return r;
}

int transfer_flush(struct transfer *transfer, struct fault *fault)
{
	int r = 0;

	while (r == 0) {
		r = http_stream_flush(
			transfer->stream, clock_deadline(LOOK_USEC), transfer->api->closing);
		if (r == 0)
			return 0;
		r = judge(transfer, r, "INTERNAL_ERROR", fault);
	}
	return r;
}

static int end_task(struct transfer *transfer, const struct fault *why)
{
	struct tasks *tasks = transfer->api->tasks;

	return !why && transfer->result
		       ? tasks_succeed_object(tasks, transfer->task, transfer->result)
		       : tasks_end_object(tasks, transfer->task, why);
}

void transfer_end_task(struct transfer *transfer, const struct fault *why)
{
	int r;

	if (!transfer->is_begun && !(transfer->is_bound && why))
		return;
	if (transfer->is_begun) {
		char *text CLEANUP_FREE = describe_progress(transfer);
		object_map_set(transfer->api->pool, "task", transfer->task, "other_config",
			TRANSFERRED_KEY, text, NULL);
	}
	/* The coordinator is away: nobody but this member will say how it ended. */
	while ((r = end_task(transfer, why)) < 0 && r != -ENOENT &&
		transfer->api->coordinator_address &&
		cancel_sleep(transfer->api->closing, AGAIN_USEC) == 0)
		;
}
