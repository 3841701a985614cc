/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/migrate/live.h"

#include "agent/guest/throttle.h"
#include "agent/migrate/resume.h"
#include "agent/migrate/transfer.h"
#include "agent/migrate/verify.h"
#include "base/alloc.h"
#include "base/clock.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define BITMAPS_KIND "bitmaps" /* of resources; the name is the migration's uuid */

bool live_is_wanted(struct migration *m)
{
	SCOPE_LOCK(&m->lock);
	return value_find_bool(m->document, "live", false);
}

/* --- The guest ----------------------------------------------------------------------------------
 */

static void guest_has_ended(struct migration *m, const struct value *data)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	/* What it had is the destination's now, or will be given back by its word. */
	if (!fsm_is_cancellable(ROLE_SENDER, migration_state(m)))
		return;
	fault_text(&fault, -ESRCH,
		"migration %s: the guest ended at the source while it was moved (%s); the VM is "
		"halted "
		"there, with its disks as the guest left them",
		m->uuid, value_find_string(data, "reason", "QEMU is gone"));
	migration_set_error(m, &fault);
	cancel_request(m->cancel, "the guest has ended");
}

static void *sentinel_main(void *arg)
{
	struct live *live = arg;
	struct guest_watch *watch CLEANUP_GUEST_WATCH = guest_watch_new(live->guest);
	struct pollfd fd = {.fd = guest_watch_fd(watch), .events = POLLIN};

	while (cancel_poll(live->end, &fd, 1, USEC_FOREVER) >= 0) {
		char *name CLEANUP_FREE = NULL;
		struct value *data CLEANUP_VALUE = NULL;
		uint64_t at;
		if (!guest_watch_take(watch, &name, &data, &at) || strcmp(name, "ENDED") != 0)
			continue;
		guest_has_ended(live->migration, data);
		break;
	}
	return NULL;
}

/* Names bitmaps and exports: digits and letters of the uuid. */
static char *job_name(const struct migration *m)
{
	return xasprintf("ferry-%s", m->uuid);
}

static struct dirty *new_dirty(struct migration *m, struct guest *guest, const struct value *disks)
{
	char *job CLEANUP_FREE = job_name(m);
	size_t n = m->n_own_disks;
	struct dirty_disk *tracked CLEANUP_FREE = xcalloc(n + 1, sizeof(*tracked));

	for (size_t i = 0; i < n; i++)
		tracked[i] = (struct dirty_disk){
			.node = value_find_string(disks->array.items[i], "node", ""),
			.size_bytes = (uint64_t)value_find_int(disks->array.items[i], "size", 0),
		};
	return dirty_new(
		&(struct dirty_params){.guest = guest, .job = job, .disks = tracked, .n_disks = n});
}

int live_open(struct migration *m, struct fault *fault)
{
	struct value *disks CLEANUP_VALUE = migration_get(m, "disks");
	char *vm CLEANUP_FREE = migration_get_string(m, "vm");

	if (m->live)
		return 0;
	struct resident *resident = guests_hold(m->params->guests, vm);
	if (!resident)
		return fault_text(fault, -ESRCH,
			"the guest of the VM does not run here any more: migrate the VM again, "
			"halted "
			"or after a start");
	struct live *live = xcalloc(1, sizeof(*live));
	live->migration = m;
	live->resident = resident;
	live->guest = resident_guest(resident);
	live->watch = guest_watch_new(live->guest);
	live->stops = guest_watch_new(live->guest);
	live->dirty = new_dirty(m, live->guest, disks);
	live->n_disks = m->n_own_disks;
	live->passes = xcalloc(live->n_disks + 1, sizeof(*live->passes));
	live->images = xcalloc(live->n_disks + 1, sizeof(*live->images));
	live->comparers = xcalloc(live->n_disks + 1, sizeof(*live->comparers));
	live->end = cancel_new();
	m->live = live;
	int r = -pthread_create(&live->sentinel, NULL, sentinel_main, live);
	live->has_sentinel = r == 0;
	if (r == 0)
		return 0;
	live_close(m);
	return fault_errno(fault, r, "starting the thread that watches the guest");
}

void live_close(struct migration *m)
{
	struct live *live = TAKE_PTR(m->live);

	if (!live)
		return;
	cancel_request(live->end, "no longer watched");
	if (live->has_sentinel)
		pthread_join(live->sentinel, NULL);
	pulse_stop(live->pulse);
	live_close_passes(live);
	tunnel_link_close(live->link);
	watchdog_stop(live->watchdog);
	dirty_free(live->dirty);
	guest_watch_free(live->stops);
	guest_watch_free(live->watch);
	guests_release(live->resident);
	cancel_free(live->end);
	free(live->comparers);
	free(live->images);
	free(live->passes);
	free(live);
}

/* --- Tracking -----------------------------------------------------------------------------------
 */

int live_track(struct live *live, struct fault *fault)
{
	struct migration *m = live->migration;
	enum dirty_state state = DIRTY_NONE;

	int r = resource_record(
		m->params->storage->agent, m->uuid, BITMAPS_KIND, m->uuid, NULL, NULL, fault);
	if (r == 0)
		r = dirty_probe(live->dirty, &state, fault);
	bool is_gone = state == DIRTY_LOST || state == DIRTY_NONE;
	/* Nothing was read on the strength of it before the disks are exported. */
	if (r == 0 && is_gone && live->n_disks && migration_state(m) != STATE_PREPARING)
		r = resume_distrust(
			m, "the record of what the guest wrote is gone from its QEMU", fault);
	if (r == 0 && state == DIRTY_LOST)
		r = dirty_stop(live->dirty, fault);
	if (r == 0)
		r = dirty_start(live->dirty, fault);
	return r < 0 ? r : resume_refill(m, fault);
}

static int restore_throttle(struct live *live, struct fault *fault)
{
	struct value *limits CLEANUP_VALUE = migration_get(live->migration, "limits");

	return limits ? throttle_restore(live->guest, limits, fault) : 0;
}

int live_forget_gone(struct migration *m, struct fault *fault)
{
	return resource_forget_name(m->params->storage->agent, BITMAPS_KIND, m->uuid, fault);
}

int live_forget(struct live *live, struct fault *fault)
{
	int r = restore_throttle(live, fault);

	if (r == 0)
		r = dirty_stop(live->dirty, fault);
	return r < 0 ? r : live_forget_gone(live->migration, fault);
}

/* --- Rounds -------------------------------------------------------------------------------------
 */

static int compare(void *arg, unsigned disk, const struct extent *extents, size_t n,
	const unsigned char *digests, bool *ret_differs, struct fault *fault)
{
	struct live_comparer *comparer = arg;

	return verify_extents(
		comparer->migration, comparer->peer, disk, extents, n, digests, ret_differs, fault);
}

static int open_pass(
	struct live *live, unsigned disk, const struct value *plan, struct fault *fault)
{
	struct migration *m = live->migration;
	struct live_comparer *comparer = &live->comparers[disk];

	peer_free(comparer->peer);
	*comparer = (struct live_comparer){.migration = m, .peer = peer_of(m)};
	int r = live->images[disk]
			? 0
			: image_source_open(m, plan, live->guest, &live->images[disk], fault);
	if (r < 0)
		return r;
	return pass_open(
		&(struct pass_params){
			.db = m->params->storage->agent,
			.migration = m->uuid,
			.disk = disk,
			.source = *image_source_spec(live->images[disk]),
			.target = transfer_target(m, disk),
			.rate = m->rate,
			.progress = &m->disks[disk].copy,
			.salvage = m->disks[disk].salvage,
			.compare = compare,
			.arg = comparer,
			.cancel = m->cancel,
		},
		&live->passes[disk], fault);
}

int live_open_passes(struct live *live, struct fault *fault)
{
	struct value *disks CLEANUP_VALUE = migration_get(live->migration, "disks");
	int r = 0;

	for (unsigned i = 0; r == 0 && i < live->n_disks; i++)
		if (!live->passes[i])
			r = open_pass(live, i, disks->array.items[i], fault);
	return r;
}

void live_close_passes(struct live *live)
{
	for (size_t i = 0; i < live->n_disks; i++) {
		live->passes[i] = pass_close(live->passes[i]);
		live->images[i] = image_source_close(live->images[i]);
		live->comparers[i].peer = peer_free(live->comparers[i].peer);
	}
}

struct harvest {
	struct live *live;
	unsigned disk;
	uint64_t bytes;
};

static int take_extents(void *arg, const struct extent *extents, size_t n, struct fault *fault)
{
	struct harvest *harvest = arg;
	struct migration *m = harvest->live->migration;

	for (size_t i = 0; i < n; i++)
		harvest->bytes += extents[i].length;
	return extent_log_add(m->params->storage->agent, m->uuid, harvest->disk, extents, n, fault);
}

static int store_harvest(struct agent_db *db, void *arg, struct fault *fault)
{
	struct harvest *harvest = arg;
	struct live *live = harvest->live;
	int r = 0;

	(void)db;
	for (unsigned i = 0; r == 0 && i < live->n_disks; i++) {
		harvest->disk = i;
		r = dirty_read(live->dirty, i, take_extents, harvest, fault);
	}
	return r;
}

static int collect(struct live *live, uint64_t *ret_bytes, struct fault *fault)
{
	struct harvest harvest = {.live = live};
	int r = dirty_freeze(live->dirty, fault);

	/* All disks in one transaction, as they were frozen at one moment. */
	if (r == 0)
		r = agent_db_transaction(
			live->migration->params->storage->agent, store_harvest, &harvest, fault);
	*ret_bytes = harvest.bytes;
	return r;
}

int live_harvest(struct live *live, struct fault *fault)
{
	uint64_t bytes;
	int r = dirty_check(live->dirty, fault);

	if (r == 0)
		r = collect(live, &bytes, fault);
	return r < 0 ? r : dirty_acknowledge(live->dirty, fault);
}

int live_collect(struct live *live, uint64_t *ret_bytes, struct fault *fault)
{
	/* What an earlier round left frozen holds nothing of what was written since. */
	int r = dirty_is_frozen(live->dirty) ? live_harvest(live, fault) : 0;

	return r < 0 ? r : collect(live, ret_bytes, fault);
}

int live_copy(struct live *live, uint64_t deadline_usec, struct predict_round *ret_round,
	struct fault *fault)
{
	int first = 0;

	*ret_round = (struct predict_round){0};
	for (size_t i = 0; i < live->n_disks; i++)
		pass_begin(live->passes[i]);
	/* What live_collect left to be done. */
	if (dirty_is_frozen(live->dirty))
		first = dirty_check(live->dirty, fault);
	if (first == 0)
		first = dirty_acknowledge(live->dirty, fault);
	for (size_t i = 0; i < live->n_disks; i++) {
		struct pass_result result = {0};
		struct fault cause CLEANUP_FAULT = FAULT_INIT;
		int r = pass_await_until(live->passes[i], deadline_usec, &result, &cause);
		ret_round->sent_bytes += result.sent_bytes;
		ret_round->busy_usec = MAX(ret_round->busy_usec, result.usec);
		if (r == 0 || first < 0)
			continue;
		first = r;
		fault_move(fault, &cause);
	}
	return first;
}

int live_left(struct live *live, uint64_t *ret_bytes, struct fault *fault)
{
	uint64_t *counts CLEANUP_FREE = xcalloc(live->n_disks + 1, sizeof(*counts));
	int r = dirty_count(live->dirty, counts, fault);

	*ret_bytes = 0;
	for (size_t i = 0; i < live->n_disks; i++)
		*ret_bytes += counts[i];
	return r;
}

int live_cancel_memory(struct live *live, struct fault *fault)
{
	int r = memory_cancel(live->guest, fault);

	live->at_switch = false;
	live->watchdog = watchdog_stop(live->watchdog);
	live->link = tunnel_link_close(live->link);
	return r;
}
