/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/migrate/report_queue.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/uuid.h"

#include <errno.h>
#include <string.h>

#define CLASS "migration"

/* XenAPI's clients look into the task. It may be gone: destroyed by its owner. */
static void tell_task(struct pool_db *pool, const struct queue_entry *entry)
{
	const char *const texts[][2] = {
		{"ferry:migration", entry->uuid}, {"ferry:state", QUEUED_STATE}};

	for (size_t i = 0; !ref_is_null(entry->task) && i < ARRAY_SIZE(texts); i++)
		object_map_set(
			pool, "task", entry->task, "other_config", texts[i][0], texts[i][1], NULL);
}

int report_queued(const struct storage *storage, const struct queue_entry *entry, const char *peer,
	bool live, char **ret_ref, struct fault *fault)
{
	struct value *fields CLEANUP_VALUE = value_new_struct();
	struct value *vm CLEANUP_VALUE = NULL;
	int r = object_get_record(storage->pool, "VM", entry->vm, &vm, fault);

	if (r < 0)
		return r;
	value_set_string(fields, "uuid", entry->uuid);
	value_set_string(fields, "name_label", value_find_string(vm, "name_label", ""));
	value_set_string(fields, "role", "sender");
	value_set_string(fields, "state", QUEUED_STATE);
	value_set_string(fields, "VM", entry->vm);
	value_set_string(fields, "vm_uuid", value_find_string(vm, "uuid", ""));
	value_set_string(fields, "peer", peer);
	value_set(fields, "started", value_new_datetime(clock_wall_sec()));
	value_set_int(fields, "eta", -1);
	value_set_bool(fields, "live", live);
	value_set_string(fields, "host", storage->host_ref);
	r = object_create(storage->pool, CLASS, fields, ret_ref, fault);
	if (r == 0)
		tell_task(storage->pool, entry);
	return r;
}

bool report_is_queued(struct pool_db *pool, const char *ref)
{
	char *state CLEANUP_FREE = NULL;

	return object_get_string(pool, CLASS, ref, "state", &state, NULL) == 0 &&
	       strcmp(state, QUEUED_STATE) == 0;
}

static int write_place(struct pool_db *pool, const char *ref, int64_t place, struct fault *fault)
{
	struct value *number CLEANUP_VALUE = value_new_int(place);
	int64_t before = 0;

	/* One that has begun, or is shown in a moment. */
	if (!report_is_queued(pool, ref) ||
		object_get_int(pool, CLASS, ref, "queue_place", &before, NULL) < 0 ||
		before == place)
		return 0;
	return object_set_field(pool, CLASS, ref, "queue_place", number, fault);
}

/* The list is taken inside: no older one is written over it. */
static int write_places(struct pool_db *pool, void *arg, struct fault *fault)
{
	struct value *refs CLEANUP_VALUE = queue_list(arg);
	int r = 0;

	for (size_t i = 0; r == 0 && i < refs->array.n_items; i++)
		r = write_place(pool, refs->array.items[i]->string, (int64_t)i + 1, fault);
	return r;
}

void report_places(const struct storage *storage, struct queue *queue)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	if (pool_db_transaction(storage->pool, write_places, queue, &fault) == 0)
		return;
	char *text CLEANUP_FREE = fault_describe(&fault);
	log_warn("MIG-QUEUE-PLACES", "error=\"%s\"", text);
}

struct end {
	const char *ref;
	const struct value *fields;
};

static int write_end(struct pool_db *pool, void *arg, struct fault *fault)
{
	const struct end *end = arg;

	return report_is_queued(pool, end->ref)
		       ? object_set_fields(pool, CLASS, end->ref, end->fields, fault)
		       : 0;
}

static int end_one(struct pool_db *pool, const char *ref, const char *who, const struct fault *why,
	struct fault *fault)
{
	struct value *fields CLEANUP_VALUE = value_new_struct();
	const struct end end = {.ref = ref, .fields = fields};
	struct value *now CLEANUP_VALUE = value_new_datetime(clock_wall_sec());

	value_set_string(fields, "state", who ? "CANCELLED" : "FAILED");
	value_set_string(fields, "outcome",
		"it had not begun: the VM is as it was, and nothing was made at the destination");
	value_set_int(fields, "queue_place", 0);
	value_set_int(fields, "eta", 0);
	value_set(fields, "finished", value_copy(now));
	if (who) {
		value_set_string(fields, "cancelled_by", who);
		value_set_string(fields, "cancelled_in", QUEUED_STATE);
		value_set(fields, "cancelled_at", value_copy(now));
	} else {
		value_set(fields, "error_info", fault_to_list(why));
	}
	return pool_db_transaction(pool, write_end, (void *)&end, fault);
}

void report_unqueued(
	struct pool_db *pool, const char *ref, const char *who, const struct fault *why)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	if (end_one(pool, ref, who, why, &fault) == 0)
		return;
	char *text CLEANUP_FREE = fault_describe(&fault);
	log_warn("MIG-QUEUE-END", "object=%s error=\"%s\"", ref, text);
}

int report_recover_queue(const struct storage *storage, struct fault *fault)
{
	struct fault why CLEANUP_FAULT = FAULT_INIT;
	struct value *refs CLEANUP_VALUE = NULL;
	int r = object_find(storage->pool, CLASS, "state", QUEUED_STATE, &refs, fault);

	fault_text(&why, -ECANCELED,
		"the agent was restarted while this move waited for its turn: it had not begun; "
		"ask for it again");
	for (size_t i = 0; r == 0 && i < refs->array.n_items; i++) {
		const char *ref = refs->array.items[i]->string;
		char *host CLEANUP_FREE = NULL;
		r = object_get_string(storage->pool, CLASS, ref, "host", &host, fault);
		if (r == 0 && strcmp(host, storage->host_ref) == 0)
			r = end_one(storage->pool, ref, NULL, &why, fault);
	}
	return r;
}
