/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/migrate/report.h"

#include "agent/migrate/live.h"
#include "agent/migrate/outcome.h"
#include "agent/migrate/report_queue.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/uuid.h"

#include <string.h>

#define CLASS        "migration"
#define KEPT_OBJECTS 200
#define SMOOTHING    0.3

static char *find_object(struct migration *m)
{
	char *ref = NULL;

	object_get_by_uuid(m->params->storage->pool, CLASS, m->uuid, &ref, NULL);
	return ref;
}

/* Within a pool both sides have one object, and it is the sender's. */
static bool is_the_senders(struct migration *m)
{
	SCOPE_LOCK(&m->lock);
	return m->role == ROLE_RECEIVER && value_find_bool(m->document, "same_pool", false);
}

/* What the sender, who asks for it later, cannot know: why this side gave up. */
static void report_cause(struct migration *m)
{
	struct pool_db *pool = m->params->storage->pool;
	struct value *error CLEANUP_VALUE = migration_get(m, "error");
	struct value *record CLEANUP_VALUE = NULL;
	char *ref CLEANUP_FREE = find_object(m);

	if (!error || !ref || object_get_record(pool, CLASS, ref, &record, NULL) < 0 ||
		*value_find_string(record, "cancelled_by", "") ||
		value_find(record, "error_info")->array.n_items > 0)
		return;
	object_set_field(pool, CLASS, ref, "error_info", error, NULL);
}

static int64_t silent_since(struct migration *m)
{
	SCOPE_LOCK(&m->lock);
	return fsm_is_final(m->state) ? 0 : m->silent_since;
}

static void add_attention(struct migration *m, struct value *fields)
{
	char *doubt CLEANUP_FREE = migration_get_string(m, "doubt");
	char *exposed CLEANUP_FREE = migration_get_string(m, "exposed");
	struct value *resolved CLEANUP_VALUE = migration_get(m, "resolved");

	value_set(fields, "peer_silent_since", value_new_datetime(silent_since(m)));
	value_set_bool(fields, "in_doubt", doubt && *doubt);
	value_set_string(fields, "doubt", doubt ? doubt : "");
	value_set_string(fields, "exposed", exposed ? exposed : "");
	if (resolved)
		value_set(fields, "resolved", TAKE_PTR(resolved));
}

static void store_fields(struct migration *m, const struct value *fields)
{
	char *ref CLEANUP_FREE = find_object(m);
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	if (!ref || object_set_fields(m->params->storage->pool, CLASS, ref, fields, &fault) == 0)
		return;
	char *text CLEANUP_FREE = fault_describe(&fault);
	log_warn("MIG-REPORT", "migration=%s error=%s", m->uuid, text);
}

void report_attention(struct migration *m)
{
	struct value *fields CLEANUP_VALUE = value_new_struct();

	if (is_the_senders(m))
		return;
	add_attention(m, fields);
	store_fields(m, fields);
}

int report_begin(struct migration *m, struct fault *fault)
{
	struct value *fields CLEANUP_VALUE = value_new_struct();
	struct value *token CLEANUP_VALUE = migration_get(m, "token");
	char *existing CLEANUP_FREE = find_object(m);
	char *name CLEANUP_FREE = migration_get_string(m, "name");
	char *vm CLEANUP_FREE = migration_get_string(m, "vm");
	char *vm_uuid CLEANUP_FREE = migration_get_string(m, "vm_uuid");
	char *peer CLEANUP_FREE = migration_get_string(m, "peer");
	char *ref CLEANUP_FREE = NULL;

	bool has_waited = existing && report_is_queued(m->params->storage->pool, existing);
	if ((existing && !has_waited) || is_the_senders(m))
		return 0;
	if (!has_waited)
		value_set_string(fields, "uuid", m->uuid);
	value_set_string(fields, "name_label", name);
	value_set_string(fields, "role", migration_role_name(m->role));
	value_set_string(fields, "state", migration_state_name(migration_state(m)));
	/* The database may have lost it. */
	bool is_there = vm && object_exists(m->params->storage->pool, "VM", vm);
	value_set_string(fields, "VM", is_there ? vm : REF_NULL);
	value_set_string(fields, "vm_uuid", vm_uuid);
	value_set_string(fields, "peer", token ? value_find_string(token, "master", "") : peer);
	value_set(fields, "started", value_new_datetime(clock_wall_sec()));
	value_set_int(fields, "eta", -1);
	value_set_bool(fields, "live", live_is_wanted(m));
	value_set_string(fields, "host", m->params->storage->host_ref);
	value_set_int(fields, "queue_place", 0);
	add_attention(m, fields);
	return has_waited
		       ? object_set_fields(m->params->storage->pool, CLASS, existing, fields, fault)
		       : object_create(m->params->storage->pool, CLASS, fields, &ref, fault);
}

struct task_update {
	const char *task;
	struct value *entries; /* of other_config */
	double progress;       /* < 0: unchanged */
};

static int update_task(struct pool_db *pool, void *arg, struct fault *fault)
{
	const struct task_update *update = arg;
	struct value *config CLEANUP_VALUE = NULL;
	struct value *fields CLEANUP_VALUE = value_new_struct();

	int r = object_get_field(pool, "task", update->task, "other_config", &config, fault);
	if (r < 0)
		return r;
	for (size_t i = 0; i < update->entries->record.n_members; i++)
		value_set_string(config, update->entries->record.members[i].name,
			value_string(update->entries->record.members[i].value, ""));
	value_set(fields, "other_config", TAKE_PTR(config));
	if (update->progress >= 0)
		value_set(fields, "progress", value_new_double(update->progress));
	return object_set_fields(pool, "task", update->task, fields, fault);
}

/* The task may be gone: destroyed by its owner, or by a restart of the daemon. entries are taken
 * over. */
static void tell_task(struct migration *m, struct value *entries, double progress)
{
	struct value *owned CLEANUP_VALUE = entries;
	struct pool_db *pool = m->params->storage->pool;
	char *task CLEANUP_FREE = migration_get_string(m, "task");
	char *status CLEANUP_FREE = NULL;

	if (ref_is_null(task) ||
		object_get_string(pool, "task", task, "status", &status, NULL) < 0 ||
		strcmp(status, "pending") != 0)
		return;
	struct task_update update = {.task = task, .entries = owned, .progress = progress};
	pool_db_transaction(pool, update_task, &update, NULL);
}

void report_state(struct migration *m)
{
	struct pool_db *pool = m->params->storage->pool;
	enum migration_state state = migration_state(m);
	struct value *fields CLEANUP_VALUE = value_new_struct();
	struct value *error CLEANUP_VALUE = migration_get(m, "error");
	struct value *pause CLEANUP_VALUE = migration_get(m, "pause");
	struct value *cancelled_at CLEANUP_VALUE = migration_get(m, "cancelled_at");
	char *who CLEANUP_FREE = migration_get_string(m, "cancelled_by");
	char *in CLEANUP_FREE = migration_get_string(m, "cancelled_in");
	char *there CLEANUP_FREE = migration_get_string(m, "vm_there");
	char *vm CLEANUP_FREE = m->role == ROLE_RECEIVER ? migration_get_string(m, "vm") : NULL;

	if (is_the_senders(m)) {
		report_cause(m);
		return;
	}
	char *outcome CLEANUP_FREE = outcome_text(m);
	value_set_string(fields, "state", migration_state_name(state));
	value_set_string(fields, "outcome", outcome);
	add_attention(m, fields);
	value_set_bool(fields, "live", live_is_wanted(m));
	if (vm && object_exists(pool, "VM", vm))
		value_set_string(fields, "VM", vm);
	if (who)
		value_set_string(fields, "cancelled_by", who);
	if (who && in)
		value_set_string(fields, "cancelled_in", in);
	if (who && cancelled_at)
		value_set(fields, "cancelled_at", value_new_datetime(cancelled_at->integer));
	if (error)
		value_set(fields, "error_info", TAKE_PTR(error));
	if (pause)
		value_set(fields, "pause", value_copy(pause));
	if (fsm_is_final(state)) {
		value_set(fields, "finished", value_new_datetime(clock_wall_sec()));
		value_set_int(fields, "eta", 0);
		value_set_int(fields, "rate", 0);
	}
	if (state == STATE_DONE)
		value_set(fields, "progress", value_new_double(1.0));
	struct value *entries CLEANUP_VALUE = value_new_struct();
	report_add_unreadable(m, fields, entries);
	store_fields(m, fields);
	if (m->role != ROLE_SENDER)
		return;
	value_set_string(entries, "ferry:migration", m->uuid);
	value_set_string(entries, "ferry:state", migration_state_name(state));
	if (*outcome)
		value_set_string(entries, "ferry:outcome", outcome);
	if (there)
		value_set_string(entries, "ferry:vm_there", there);
	if (pause)
		value_set_string(entries, "ferry:pause_ms", value_find_string(pause, "total", ""));
	tell_task(m, TAKE_PTR(entries), -1);
}

struct totals {
	uint64_t allocated;
	uint64_t done;
	uint64_t sent;
	uint64_t compared;
	uint64_t same;
};

/* The figures of one disk, as a struct; adds them up. */
static struct value *disk_figures(
	const struct migration_disk *disk, const struct value *plan, struct totals *totals)
{
	uint64_t allocated = (uint64_t)value_find_int(plan, "allocated", 0);
	uint64_t done = MIN(allocated, disk->done_before + disk->copy.same + disk->copy.read);
	uint64_t sent = disk->sent_before + disk->copy.sent;
	uint64_t compared = disk->compared_before + disk->copy.compared;
	uint64_t same = disk->same_before + disk->copy.same;
	uint64_t end = disk->ended_usec ? disk->ended_usec : clock_now_usec();
	struct value *figures = value_new_struct();

	if (disk->ended_usec)
		done = allocated;
	value_set_string(figures, "vdi", value_find_string(plan, "vdi_uuid", ""));
	value_set_string(figures, "name", value_find_string(plan, "name", ""));
	if (value_find(plan, "snapshot"))
		value_set_string(figures, "snapshot", value_find_string(plan, "snapshot", ""));
	value_set_int(figures, "virtual", value_find_int(plan, "size", 0));
	value_set_int(figures, "allocated", (int64_t)allocated);
	value_set_int(figures, "done", (int64_t)done);
	value_set_int(figures, "sent", (int64_t)sent);
	value_set_int(figures, "compared", (int64_t)compared);
	value_set_int(figures, "same", (int64_t)same);
	value_set_int(figures, "zero", (int64_t)disk->copy.skipped_zero);
	value_set_int(figures, "hole", (int64_t)disk->copy.skipped_hole);
	value_set(figures, "seconds",
		value_new_double(disk->started_usec
					 ? (double)(end - disk->started_usec) / (double)USEC_PER_SEC
					 : 0.0));
	totals->allocated += allocated;
	totals->done += done;
	totals->sent += sent;
	totals->compared += compared;
	totals->same += same;
	return figures;
}

static void measure_rate(struct report_measure *measure, uint64_t done)
{
	uint64_t now = clock_now_usec();

	if (measure->at_usec && now > measure->at_usec && done >= measure->done_bytes) {
		double rate = (double)(done - measure->done_bytes) * (double)USEC_PER_SEC /
			      (double)(now - measure->at_usec);
		measure->rate_bytes_per_sec =
			measure->rate_bytes_per_sec > 0
				? SMOOTHING * rate + (1 - SMOOTHING) * measure->rate_bytes_per_sec
				: rate;
	}
	measure->at_usec = now;
	measure->done_bytes = done;
}

static void set_number(struct value *entries, const char *name, int64_t number)
{
	value_set(entries, name, value_new_format("%lld", (long long)number));
}

/* What a guest that runs makes of it: how far the rounds are, and what the pause would be. */
static void add_live_figures(struct migration *m, struct value *fields, struct value *entries)
{
	const struct migration_figures *figures = &m->figures;
	uint64_t since = figures->throttled_usec;
	bool known = figures->predicted_usec != UINT64_MAX;
	const struct {
		const char *name;
		int64_t number;
	} numbers[] = {
		{"rounds", (int64_t)figures->n_rounds},
		{"bytes_dirty", (int64_t)figures->left_bytes},
		{"dirty_rate", (int64_t)figures->dirty_bytes_per_sec},
		{"copy_rate", (int64_t)figures->copy_bytes_per_sec},
		{"predicted_pause",
			known ? (int64_t)(figures->predicted_usec / USEC_PER_MSEC) : -1},
		{"throttle", (int64_t)figures->throttle_bytes_per_sec},
		{"memory_total", (int64_t)figures->memory_total},
		{"memory_sent", (int64_t)figures->memory_sent},
	};

	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		char *key CLEANUP_FREE = xasprintf("ferry:%s", numbers[i].name);
		value_set_int(fields, numbers[i].name, numbers[i].number);
		set_number(entries, key, numbers[i].number);
	}
	if (since)
		value_set(fields, "throttled_seconds",
			value_new_double(
				(double)(clock_now_usec() - since) / (double)USEC_PER_SEC));
}

void report_progress(struct migration *m, struct report_measure *measure)
{
	struct value *plan CLEANUP_VALUE = migration_get(m, "disks");
	struct value *fields CLEANUP_VALUE = value_new_struct();
	struct value *entries = value_new_struct();
	struct value *disks = value_new_struct();
	struct value *sent = value_new_array();
	struct value *compared = value_new_array();
	struct value *same = value_new_array();
	struct totals totals = {0};
	char *ref CLEANUP_FREE = find_object(m);

	for (size_t i = 0; i < m->n_disks; i++) {
		struct value *figures CLEANUP_VALUE =
			disk_figures(&m->disks[i], plan->array.items[i], &totals);
		struct buf text CLEANUP_BUF = BUF_INIT;
		char *number CLEANUP_FREE = xasprintf("%zu", i);
		char *key CLEANUP_FREE = xasprintf("ferry:disk:%zu", i);
		json_encode(figures, &text);
		value_set_string(disks, number, text.data);
		value_set_string(entries, key, text.data);
		value_append(sent, value_new_int(value_find_int(figures, "sent", 0)));
		value_append(compared, value_new_int(value_find_int(figures, "compared", 0)));
		value_append(same, value_new_int(value_find_int(figures, "same", 0)));
	}
	migration_set(m, "sent", sent);
	migration_set(m, "compared", compared);
	migration_set(m, "same", same);
	measure_rate(measure, totals.done);
	double rate = measure->rate_bytes_per_sec;
	int64_t eta = rate >= 1 ? (int64_t)((double)(totals.allocated - totals.done) / rate) : -1;
	double progress = totals.allocated ? (double)totals.done / (double)totals.allocated : 0;
	/* What follows the copy (comparing, sealing, the commit) is still to come. */
	progress *= 0.99;

	value_set(fields, "disks", disks);
	value_set(fields, "progress", value_new_double(progress));
	value_set_int(fields, "bytes_total", (int64_t)totals.allocated);
	value_set_int(fields, "bytes_sent", (int64_t)totals.sent);
	value_set_int(fields, "bytes_compared", (int64_t)totals.compared);
	value_set_int(fields, "bytes_saved", (int64_t)totals.same);
	value_set_int(fields, "rate", (int64_t)rate);
	value_set_int(fields, "eta", eta);
	if (live_is_wanted(m))
		add_live_figures(m, fields, entries);
	report_add_unreadable(m, fields, entries);
	if (ref)
		object_set_fields(m->params->storage->pool, CLASS, ref, fields, NULL);
	set_number(entries, "ferry:bytes_total", (int64_t)totals.allocated);
	set_number(entries, "ferry:bytes_done", (int64_t)totals.done);
	set_number(entries, "ferry:bytes_sent", (int64_t)totals.sent);
	set_number(entries, "ferry:rate", (int64_t)rate);
	set_number(entries, "ferry:eta", eta);
	tell_task(m, entries, progress);
	migration_save(m, NULL);
}

void report_trim(struct pool_db *pool)
{
	struct value *refs CLEANUP_VALUE = NULL;

	if (object_get_all(pool, CLASS, &refs, NULL) < 0)
		return;
	size_t excess = refs->array.n_items > KEPT_OBJECTS ? refs->array.n_items - KEPT_OBJECTS : 0;
	for (size_t i = 0; i < refs->array.n_items && excess; i++) {
		const char *ref = refs->array.items[i]->string;
		char *state_name CLEANUP_FREE = NULL;
		enum migration_state state;
		if (object_get_string(pool, CLASS, ref, "state", &state_name, NULL) < 0 ||
			migration_state_parse(state_name, &state) < 0 || !fsm_is_final(state))
			continue;
		if (object_destroy(pool, CLASS, ref, NULL) == 0)
			excess--;
	}
}
