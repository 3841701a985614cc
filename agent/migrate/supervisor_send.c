/* SPDX-License-Identifier: Apache-2.0 */
/* From the request for a move to its outcome: the checks, the wait for a turn, the sender. */
#include "agent/migrate/peer.h"
#include "agent/migrate/plan.h"
#include "agent/migrate/rehome.h"
#include "agent/migrate/report.h"
#include "agent/migrate/report_queue.h"
#include "agent/migrate/supervisor_internal.h"
#include "agent/vm/operations.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/inject.h"
#include "base/log.h"
#include "base/uuid.h"

#include <errno.h>
#include <string.h>

#define DRY_RUN_TIMEOUT_USEC (30 * USEC_PER_SEC)
#define BUSY_PAUSE_USEC      (100 * USEC_PER_MSEC)

static int add_source_pool(
	const struct supervisor_params *params, struct value *manifest, struct fault *fault)
{
	const struct storage *storage = params->storage;
	struct value *pools CLEANUP_VALUE = NULL;
	char *uuid CLEANUP_FREE = NULL;

	int r = object_get_all(storage->pool, "pool", &pools, fault);
	if (r == 0 && pools->array.n_items == 0)
		r = fault_text(fault, -ENOENT, "this database holds no pool object");
	if (r == 0)
		r = object_get_string(
			storage->pool, "pool", pools->array.items[0]->string, "uuid", &uuid, fault);
	if (r < 0)
		return r;
	value_set_string(manifest, "protocol", PEER_PROTOCOL);
	value_set_string(manifest, "data_tls", peer_data_tls(params));
	value_set_string(manifest, "source_pool_uuid", uuid);
	return 0;
}

/* What the checks have found out. */
struct preflight {
	struct value *vdi_map;
	struct value *vif_map;
	struct value *options;
	struct value *disks;
	struct value *manifest;
};

static void preflight_clear(struct preflight *found)
{
	value_free(found->vdi_map);
	value_free(found->vif_map);
	value_free(found->options);
	value_free(found->disks);
	value_free(found->manifest);
}

#define CLEANUP_PREFLIGHT CLEANUP(preflight_clear)

/* host: the destination, if it is of this pool. */
static int find_maps(const struct storage *storage, const struct migrate_request *request,
	const char *host, struct preflight *found, struct fault *fault)
{
	if (!host) {
		found->vdi_map = value_copy(request->vdi_map);
		found->vif_map = value_copy(request->vif_map);
		return plan_complete_maps(
			storage->pool, request->vm, found->vdi_map, found->vif_map, fault);
	}
	int r = rehome_check_host(storage, host, fault);
	return r < 0 ? r
		     : rehome_maps(storage, request, host, &found->vdi_map, &found->vif_map, fault);
}

/* What of the guest the destination must have too. */
static int add_guest(const struct supervisor_params *params, const char *vm, struct cancel *cancel,
	struct value *manifest, struct fault *fault)
{
	struct resident *resident CLEANUP_GUESTS_RESIDENT = NULL;
	const char *accelerator = NULL;
	char *machine CLEANUP_FREE = NULL;

	if (!value_find_bool(manifest, "live", false))
		return 0;
	resident = guests_hold(params->guests, vm);
	/* It has just ended: the move will see that. */
	if (!resident)
		return 0;
	int r = guest_ask_accelerator(resident_guest(resident), cancel, &accelerator, fault);
	if (r == 0)
		r = guest_ask_machine(resident_guest(resident), cancel, &machine, fault);
	if (r < 0)
		return r;
	value_set_string(manifest, "accelerator", accelerator);
	value_set_string(manifest, "machine", machine);
	return 0;
}

static int make_plan(const struct supervisor_params *params, const struct migrate_request *request,
	struct preflight *found, struct fault *fault)
{
	const struct storage *storage = params->storage;
	const char *host = rehome_destination(storage->pool, request->dest);
	struct migrate_request whole = *request;
	int r = find_maps(storage, request, host, found, fault);

	whole.vdi_map = found->vdi_map;
	whole.vif_map = found->vif_map;
	if (r == 0)
		r = plan_options(storage, &whole, &found->options, fault);
	if (r == 0)
		r = plan_make(storage, &whole, host, found->options, &found->disks,
			&found->manifest, fault);
	return r < 0 ? r : add_source_pool(params, found->manifest, fault);
}

/* The VM may have been started elsewhere since the call came here. */
static int check_resident(const struct storage *storage, const char *vm, struct fault *fault)
{
	char *host CLEANUP_FREE = NULL;
	int r = object_get_string(storage->pool, "VM", vm, "resident_on", &host, fault);

	if (r < 0 || ref_is_null(host) || strcmp(host, storage->host_ref) == 0)
		return r;
	return fault_set(fault, -EBUSY, "OPERATION_NOT_ALLOWED",
		"the VM runs at another host of the pool by now: ask for the move again", NULL);
}

/* A destination that many ask at once has no thread to spare for a moment. */
static int ask_destination(const struct migrate_request *request, const struct value *manifest,
	struct cancel *cancel, struct fault *fault)
{
	struct peer *peer CLEANUP_PEER = peer_new(request->dest);
	struct value *args CLEANUP_VALUE = value_append(value_new_array(), value_copy(manifest));
	uint64_t deadline = clock_deadline(DRY_RUN_TIMEOUT_USEC);
	int r;

	value_set_bool(args->array.items[0], "dry_run", true);
	do {
		struct value *result CLEANUP_VALUE = NULL;
		r = peer_call(peer, "prepare", "", value_copy(args), DRY_RUN_TIMEOUT_USEC, cancel,
			&result, fault);
	} while (peer_is_busy(r, fault) && clock_now_usec() < deadline &&
		 cancel_sleep(cancel, BUSY_PAUSE_USEC) == 0);
	return r;
}

/* All checks, the plan and the manifest; asks the destination for a dry run. */
static int preflight(struct supervisor *supervisor, const struct migrate_request *request,
	struct cancel *cancel, struct preflight *found, struct fault *fault)
{
	const struct storage *storage = supervisor->params->storage;

	int r = vm_check_operation(storage->pool, request->vm, request->operation, fault);
	if (r == 0)
		r = check_resident(storage, request->vm, fault);
	if (r == 0)
		r = peer_check_token(request->dest, fault);
	if (r == 0)
		r = peer_check_data_tls(supervisor->params,
			value_find_string(request->dest, "ferry_data_tls", ""), fault);
	if (r == 0)
		r = make_plan(supervisor->params, request, found, fault);
	if (r == 0)
		r = add_guest(supervisor->params, request->vm, cancel, found->manifest, fault);
	return r < 0 ? r : ask_destination(request, found->manifest, cancel, fault);
}

int supervisor_assert_can_migrate(struct supervisor *supervisor,
	const struct migrate_request *request, struct cancel *cancel, struct fault *fault)
{
	struct preflight found CLEANUP_PREFLIGHT = {0};
	int r = preflight(supervisor, request, cancel, &found, fault);

	return r < 0 ? r : queue_check(&supervisor->queue, request->vm, fault);
}

/* The sender's document, which takes over what was found. */
static int make_document(struct supervisor *supervisor, const struct migrate_request *request,
	const char *migration, const char *task, struct preflight *found,
	struct value **ret_document, struct fault *fault)
{
	struct value *document CLEANUP_VALUE = TAKE_PTR(found->options);
	struct value *record CLEANUP_VALUE = NULL;
	char *key CLEANUP_FREE =
		ref_is_null(task) ? xasprintf(REF_PREFIX "%s", migration) : xstrdup(task);

	value_set_bool(document, "same_pool", rehome_is_wanted(found->manifest));
	value_set_string(found->manifest, "operation", key);
	value_set(document, "disks", TAKE_PTR(found->disks));
	value_set(document, "manifest", TAKE_PTR(found->manifest));
	value_set(document, "vif_map", TAKE_PTR(found->vif_map));
	int r = object_get_record(
		supervisor->params->storage->pool, "VM", request->vm, &record, fault);
	if (r < 0)
		return r;
	value_set_string(document, "vm", request->vm);
	value_set_string(document, "vm_uuid", value_find_string(record, "uuid", ""));
	value_set_string(document, "name", value_find_string(record, "name_label", ""));
	value_set_string(document, "task", task);
	value_set_string(document, "operation", key);
	value_set_string(document, "vm_operation", request->operation);
	value_set(document, "token", value_copy(request->dest));
	*ret_document = TAKE_PTR(document);
	return 0;
}

/* It cannot begin: nothing of it stays that a later start of the daemon would go on with. */
static void discard_sender(
	struct supervisor *supervisor, struct migration *m, const struct fault *fault)
{
	migration_set_error(m, fault);
	if (migration_post(m, EVENT_FAILED, NULL) == 0)
		migration_post(m, EVENT_UNDONE, NULL);
	supervisor_retire(supervisor, m);
}

static int create_sender(struct supervisor *supervisor, struct queue_entry *entry,
	struct value *document, struct migration **ret_migration, struct fault *fault)
{
	struct migration_row row CLEANUP(migration_row_clear) = {.uuid = xstrdup(entry->uuid),
		.role = ROLE_SENDER,
		.state = STATE_NEW,
		.document = document,
		.created = clock_wall_sec()};

	int r = INJECT_FAULT(fault, "state.sender.insert.before");
	if (r == 0)
		r = migration_insert(supervisor->params->storage->agent, &row, fault);
	if (r < 0)
		return r;
	(void)INJECT("state.sender.insert.after");
	struct migration *m CLEANUP_MIGRATION = migration_new(supervisor->params, &row);
	r = queue_send(&supervisor->queue, entry, m);
	if (r == 0)
		r = report_begin(m, fault);
	if (r == 0)
		r = supervisor_start_sender(supervisor, m, fault);
	if (r < 0) {
		discard_sender(supervisor, m, fault);
		return r;
	}
	*ret_migration = TAKE_PTR(m);
	return 0;
}

/* Waits for the outcome; a cancel of the task is passed on, and may be too late. */
static int await(struct migration *m, struct cancel *cancel)
{
	struct pollfd fds[2] = {{.fd = cancel_fd(m->ended), .events = POLLIN},
		{.fd = cancel_fd(m->stop), .events = POLLIN}};

	int r = cancel_poll(cancel, fds, 2, USEC_FOREVER);
	if (r != -ECANCELED)
		return r;
	migration_request_cancel(m, cancel_reason(cancel));
	return cancel_poll(NULL, fds, 2, USEC_FOREVER);
}

static int outcome(struct migration *m, const char *task, char **ret_vm_ref, struct fault *fault)
{
	enum migration_state state = migration_state(m);

	/* FINISHING: an operator said that it is there, and it is no longer waited for. */
	if (state == STATE_DONE || (state == STATE_FINISHING && cancel_is_requested(m->ended))) {
		*ret_vm_ref = migration_get_string(m, "vm_there");
		return 0;
	}
	if (!cancel_is_requested(m->ended))
		return fault_text(fault, -ESHUTDOWN,
			"the agent stops; migration %s goes on when it starts again", m->uuid);
	if (migration_cancel_requested(m))
		return fault_set(fault, -ECANCELED, "TASK_CANCELLED", task, NULL);
	migration_get_error(m, fault);
	return -EIO;
}

int supervisor_await_outcome(struct migration *m, const char *task, struct cancel *cancel,
	char **ret_vm_ref, struct fault *fault)
{
	int r = await(m, cancel);

	if (r < 0)
		return fault_errno(fault, r, "waiting for migration %s", m->uuid);
	return outcome(m, task, ret_vm_ref, fault);
}

/* --- Whose turn it is ---------------------------------------------------------------------------
 */

static int wait_in_queue(struct supervisor *supervisor, struct queue_entry *entry)
{
	int r;

	do {
		if (queue_is_time_to_tell(&supervisor->queue, entry))
			report_places(supervisor->params->storage, &supervisor->queue);
		r = queue_wait(&supervisor->queue, entry, supervisor->stop);
	} while (r == 0);
	return MIN(r, 0);
}

static int not_now(struct supervisor *supervisor, const struct queue_entry *entry, int error,
	struct fault *fault)
{
	if (cancel_is_requested(entry->cancel))
		return fault_set(fault, -ECANCELED, "TASK_CANCELLED", entry->task, NULL);
	if (cancel_is_requested(supervisor->stop))
		return fault_text(fault, -ESHUTDOWN,
			"the agent stops; migration %s waited for its turn and had not begun: ask "
			"for it again",
			entry->uuid);
	return fault_errno(fault, error, "waiting for the turn of migration %s", entry->uuid);
}

/* Until it may begin; what was checked before may be otherwise by then. */
static int await_turn(struct supervisor *supervisor, const struct migrate_request *request,
	struct queue_entry *entry, struct preflight *found, struct fault *fault)
{
	int r = wait_in_queue(supervisor, entry);

	if (r < 0)
		return not_now(supervisor, entry, r, fault);
	log_info("MIG-TURN", "migration=%s vm=%s", entry->uuid, entry->vm);
	preflight_clear(found);
	*found = (struct preflight){0};
	r = preflight(supervisor, request, entry->cancel, found, fault);
	return r == -ECANCELED ? not_now(supervisor, entry, r, fault) : r;
}

static int begin(struct supervisor *supervisor, const struct migrate_request *request,
	struct queue_entry *entry, struct preflight *found, struct migration **ret_migration,
	struct fault *fault)
{
	struct value *document = NULL;
	int r = make_document(
		supervisor, request, entry->uuid, entry->task, found, &document, fault);

	return r < 0 ? r : create_sender(supervisor, entry, document, ret_migration, fault);
}

/* It waits, visibly, and begins when its turn has come. */
static int begin_later(struct supervisor *supervisor, const struct migrate_request *request,
	struct queue_entry *entry, struct preflight *found, struct migration **ret_migration,
	struct fault *fault)
{
	const struct storage *storage = supervisor->params->storage;
	char *shown CLEANUP_FREE = NULL;
	int r = report_queued(storage, entry, value_find_string(request->dest, "master", ""),
		value_find_bool(found->options, "live", false), &shown, fault);

	if (r < 0)
		return r;
	queue_show(&supervisor->queue, entry, shown);
	report_places(storage, &supervisor->queue);
	log_info("MIG-QUEUED", "migration=%s vm=%s", entry->uuid, entry->vm);
	r = await_turn(supervisor, request, entry, found, fault);
	if (r == 0)
		r = begin(supervisor, request, entry, found, ret_migration, fault);
	queue_show(&supervisor->queue, entry, NULL);
	/* What the daemon's end cuts off is settled by its next start, as after a kill. */
	if (r < 0 && r != -ESHUTDOWN)
		report_unqueued(storage->pool, shown,
			fault_is(fault, "TASK_CANCELLED") ? cancel_reason(entry->cancel) : NULL,
			fault);
	return r;
}

int supervisor_send(struct supervisor *supervisor, const struct migrate_request *request,
	const char *task, struct cancel *cancel, char **ret_vm_ref, bool *ret_begun,
	struct fault *fault)
{
	struct fault why CLEANUP_FAULT = FAULT_INIT;
	struct preflight found CLEANUP_PREFLIGHT = {0};
	struct migration *m CLEANUP_MIGRATION = NULL;
	char *uuid CLEANUP_FREE = uuid_new();
	struct queue_entry entry = {.uuid = uuid,
		.vm = request->vm,
		.operation = request->operation,
		.task = task,
		.cancel = cancel};
	int r = preflight(supervisor, request, cancel, &found, fault);

	if (r == -ECANCELED)
		return not_now(supervisor, &entry, r, fault);
	if (r < 0)
		return r;
	r = queue_enter(&supervisor->queue, &entry, fault);
	if (r < 0)
		return r;
	r = r ? begin_later(supervisor, request, &entry, &found, &m, &why)
	      : begin(supervisor, request, &entry, &found, &m, &why);
	queue_leave(&supervisor->queue, &entry);
	if (r < 0) {
		fault_move(fault, &why);
		return r;
	}
	*ret_begun = true;
	return supervisor_await_outcome(m, task, cancel, ret_vm_ref, fault);
}

int supervisor_migrate_send(struct supervisor *supervisor, const struct migrate_request *request,
	const char *task, struct cancel *cancel, char **ret_vm_ref, struct fault *fault)
{
	bool begun = false;

	return supervisor_send(supervisor, request, task, cancel, ret_vm_ref, &begun, fault);
}
