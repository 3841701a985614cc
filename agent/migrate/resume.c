/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/migrate/resume.h"

#include "agent/copy/compare.h"
#include "agent/migrate/image_source.h"
#include "agent/migrate/live.h"
#include "agent/migrate/plan.h"
#include "agent/migrate/transfer.h"
#include "agent/migrate/verify.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <string.h>

#define MAX_LOSSES 8

static int fill_log(struct migration *m, size_t n, struct fault *fault)
{
	struct value *disks CLEANUP_VALUE = migration_get(m, "disks");

	for (size_t i = 0; i < n; i++) {
		struct extent whole = {
			.length = (uint64_t)value_find_int(disks->array.items[i], "size", 0)};
		int r = extent_log_add(
			m->params->storage->agent, m->uuid, (unsigned)i, &whole, 1, fault);
		if (r < 0)
			return r;
	}
	return 0;
}

int resume_fill_log(struct migration *m, struct fault *fault)
{
	return fill_log(m, m->n_disks, fault);
}

static int set_distrust(struct migration *m, const char *distrust, struct fault *fault)
{
	migration_set(m, "distrust", value_new_string(distrust));
	return migration_save(m, fault);
}

int resume_distrust(struct migration *m, const char *why, struct fault *fault)
{
	log_warn("MIG-DISTRUST", "migration=%s all disks are compared with the destination's: %s",
		m->uuid, why);
	m->settled = false;
	return set_distrust(m, "lost", fault);
}

int resume_refill(struct migration *m, struct fault *fault)
{
	char *distrust CLEANUP_FREE = migration_get_string(m, "distrust");

	if (!distrust || strcmp(distrust, "lost") != 0)
		return 0;
	/* What a guest writes to its own is in no doubt for the others. */
	int r = fill_log(m, live_is_wanted(m) ? m->n_own_disks : m->n_disks, fault);
	return r < 0 ? r : set_distrust(m, "compare", fault);
}

bool resume_is_distrusted(struct migration *m)
{
	SCOPE_LOCK(&m->lock);
	return value_find_string(m->document, "distrust", NULL);
}

/* --- The source ------------------------------------------------------------------------------- */

/* The files as they are now, and what follows, in one step. */
static int take_sources(
	struct migration *m, struct value *disks, const char *why, struct fault *fault)
{
	int r = plan_renew_sources(disks, fault);

	if (r < 0)
		return r;
	migration_set(m, "disks", value_copy(disks));
	r = resume_distrust(m, why, fault);
	return r < 0 ? r : resume_refill(m, fault);
}

int resume_check_sources(struct migration *m, struct fault *fault)
{
	struct value *disks CLEANUP_VALUE = migration_get(m, "disks");
	struct fault why CLEANUP_FAULT = FAULT_INIT;
	int r = resume_refill(m, fault);

	if (r < 0 || !m->resumed)
		return r;
	r = plan_check_sources(disks, 0, &why);
	if (r == -EBUSY)
		return take_sources(m, disks, why.params[0], fault);
	fault_move(fault, &why);
	return r;
}

int resume_as_halted(struct migration *m, struct fault *fault)
{
	struct value *disks CLEANUP_VALUE = migration_get(m, "disks");
	char *vm CLEANUP_FREE = migration_get_string(m, "vm");
	char *state CLEANUP_FREE = NULL;
	struct fault why CLEANUP_FAULT = FAULT_INIT;

	int r = object_get_string(m->params->storage->pool, "VM", vm, "power_state", &state, &why);
	if (r < 0 || strcmp(state, "Halted") != 0)
		return -ESRCH;
	fault_clear(fault);
	migration_set(m, "live", value_new_bool(false));
	r = take_sources(m, disks, "the guest ended while no agent looked; it moves halted", fault);
	return r < 0 ? r : live_forget_gone(m, fault);
}

/* --- Comparing -------------------------------------------------------------------------------- */

struct asker {
	struct migration *migration;
	struct peer *peer;
};

static int ask(void *arg, unsigned disk, const struct extent *extents, size_t n,
	const unsigned char *digests, bool *ret_differs, struct fault *fault)
{
	const struct asker *asker = arg;

	return verify_extents(
		asker->migration, asker->peer, disk, extents, n, digests, ret_differs, fault);
}

int resume_compare(struct migration *m, struct peer *peer, unsigned disk,
	const struct endpoint_spec *source, struct fault *fault)
{
	struct copy_progress *progress = &m->disks[disk].copy;
	const struct copy_params copy = {
		.db = m->params->storage->agent,
		.migration = m->uuid,
		.disk = disk,
		.source = *source,
		.target = transfer_target(m, disk),
		.progress = progress,
		.salvage = m->disks[disk].salvage,
		.cancel = m->cancel,
	};
	struct asker asker = {.migration = m, .peer = peer};
	bool all = resume_is_distrusted(m);
	int r = copy_compare(
		&(struct copy_compare_params){
			.copy = &copy,
			.ask = ask,
			.arg = &asker,
			/* The copier hashes whole chunks, the passes do not. */
			.by_piece = all || !live_is_wanted(m),
			.whole_log = all,
		},
		fault);
	if (r < 0)
		return r;
	m->disks[disk].unsure = false;
	log_info("MIG-COMPARED", "migration=%s disk=%u compared=%llu same=%llu", m->uuid, disk,
		(unsigned long long)progress->compared, (unsigned long long)progress->same);
	return 0;
}

static int compare_through_losses(struct migration *m, struct peer *peer, unsigned disk,
	const struct endpoint_spec *source, struct fault *fault)
{
	for (unsigned losses = 0;; losses++) {
		int r = m->exports ? 0 : transfer_renew(m, peer, fault);
		if (r == 0)
			r = resume_compare(m, peer, disk, source, fault);
		if (!m->exports || !transfer_is_session_loss(r) || losses == MAX_LOSSES)
			return r;
		m->exports = value_free(m->exports);
		r = cancel_sleep(m->cancel, losses * 500 * USEC_PER_MSEC);
		if (r < 0)
			return fault_text(fault, r, "cancelled");
	}
}

static int settle_disk(struct migration *m, struct peer *peer, unsigned disk,
	const struct value *plan, struct fault *fault)
{
	struct image_source *source CLEANUP_IMAGE_SOURCE = NULL;
	int r = image_source_open(m, plan, m->live ? m->live->guest : NULL, &source, fault);

	return r < 0 ? r : compare_through_losses(m, peer, disk, image_source_spec(source), fault);
}

int resume_settle(struct migration *m, struct peer *peer, struct fault *fault)
{
	struct value *disks CLEANUP_VALUE = migration_get(m, "disks");
	struct pulse *pulse CLEANUP_PULSE = NULL;
	int r = 0;

	if (!resume_is_distrusted(m) || m->settled)
		return 0;
	if (!m->live->pulse)
		r = pulse_start(m, &pulse, fault);
	for (unsigned i = 0; r == 0 && i < m->n_own_disks; i++)
		r = settle_disk(m, peer, i, disks->array.items[i], fault);
	m->settled = r == 0;
	return r;
}
