/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/migrate/handover.h"

#include "agent/migrate/metadata.h"
#include "agent/migrate/transfer.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/uuid.h"

#include <errno.h>
#include <string.h>

#define SEAL_TIMEOUT_USEC (300 * USEC_PER_SEC)
/* While the guest waits: so long, or so many times the longest pause that is allowed. Then it runs
 * on here: its last round is tried again later, a seal that was asked for ends the move. */
#define ROUND_USEC         USEC_PER_SEC
#define ROUND_PAUSES       4
#define PAUSED_SEAL_USEC   (3 * USEC_PER_SEC)
#define PAUSED_SEAL_PAUSES 10
#define ABORT_TIMEOUT_USEC USEC_PER_SEC
/* QEMU hands over in milliseconds; a destination that hangs would keep it for ever. */
#define HANDOVER_USEC (10 * USEC_PER_SEC)
/* Whoever cancels waits for it, and for what follows. */
#define CANCELLED_USEC (USEC_PER_SEC / 2)
/* Pauses that turn out to be too long and are given up, before one is taken as it is. */
#define MAX_SWITCHES 3

/* --- SWITCHING ----------------------------------------------------------------------------------
 */

/* The guest runs here again; 1, as handover_seal. */
static int resume(struct live *live, const char *why, struct fault *fault)
{
	int r = live_cancel_memory(live, fault);

	if (r < 0)
		return r;
	log_warn("MIG-RESUMED", "migration=%s the guest runs on: %s", live->migration->uuid, why);
	live->migration->quiet = false;
	fault_clear(fault);
	return 1;
}

/* After a restart of the agent: what is paused is given back; whether anything was sealed, the
 * destination knows. */
static int reenter(struct live *live, struct peer *peer, struct fault *fault)
{
	int r = live_cancel_memory(live, fault);

	if (r == 0)
		r = transfer_renew(live->migration, peer, fault);
	return r < 0 ? r : 1;
}

/* 1: the guest runs again here. */
static int last_round(struct live *live, struct fault *fault)
{
	struct predict_round round;
	uint64_t left;
	uint64_t deadline =
		clock_deadline(MAX(ROUND_USEC, ROUND_PAUSES * live->predict.max_pause_usec));
	int r = live_collect(live, &left, fault);

	live->times.harvested = clock_now_usec();
	if (r == 0 && !predict_fits(&live->predict, left / 2) && ++live->n_switches < MAX_SWITCHES)
		return resume(live, "too much is left to be sent within the pause", fault);
	if (r == 0)
		r = live_copy(live, deadline, &round, fault);
	/* The sessions are left to the seal, which ends them faster than a logout would. */
	live->times.copied = clock_now_usec();
	return r;
}

/* Not so if the watchdog has given it back meanwhile, or it has ended. */
static int check_paused(struct live *live, struct fault *fault)
{
	struct memory_progress progress;
	int r = memory_query(live->guest, &progress, fault);

	if (r < 0 || progress.status == MEMORY_PRE_SWITCHOVER)
		return r;
	return fault_text(fault, -EAGAIN, "the guest is no longer held at the switch (%s)",
		memory_status_name(progress.status));
}

/* Fields that were changed while the disks were copied. */
static struct value *manifest_now(struct migration *m)
{
	static const char *const parts[] = {"vm", "metrics", "vbds", "vifs", "snapshots"};
	struct value *disks CLEANUP_VALUE = migration_get(m, "disks");
	struct value *vif_map CLEANUP_VALUE = migration_get(m, "vif_map");
	struct value *planned CLEANUP_VALUE = migration_get(m, "manifest");
	char *vm CLEANUP_FREE = migration_get_string(m, "vm");
	struct value *now CLEANUP_VALUE = NULL;
	struct value *manifest = value_new_struct();

	if (metadata_export_again(
		    m->params->storage->pool, vm, planned, disks, vif_map, &now, NULL) < 0)
		return manifest;
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
		if (value_find(now, parts[i]))
			value_set(manifest, parts[i], value_copy(value_find(now, parts[i])));
	return manifest;
}

int handover_ask_seal(struct migration *m, struct peer *peer, struct fault *fault)
{
	uint64_t paused = m->live ? MAX(PAUSED_SEAL_USEC,
					    PAUSED_SEAL_PAUSES * m->live->predict.max_pause_usec)
				  : USEC_FOREVER;
	struct value *args CLEANUP_VALUE = value_append(value_new_array(), manifest_now(m));
	struct value *result CLEANUP_VALUE = NULL;

	int r = peer_call_patiently(peer, "seal", m->uuid, args, MIN(SEAL_TIMEOUT_USEC, paused),
		MIN(m->params->peer_timeout_usec, paused), m->cancel, &result, fault);
	if (r == 0 && strcmp(value_find_string(result, "state", ""), "SEALED") != 0)
		r = fault_text(fault, -EBADMSG,
			"seal: the destination answered state \"%s\" instead of SEALED",
			value_find_string(result, "state", ""));
	return r;
}

int handover_seal(struct migration *m, struct peer *peer, struct fault *fault)
{
	struct live *live = m->live;

	if (!live->at_switch)
		return reenter(live, peer, fault);
	int r = last_round(live, fault);
	if (r > 0)
		return r;
	if (transfer_is_session_loss(r)) {
		char *why CLEANUP_FREE = fault_describe(fault);
		/* First the guest: a pass may wait for a peer that is silent. */
		r = resume(live, why, fault);
		live_close_passes(live);
		m->exports = value_free(m->exports);
		return r;
	}
	if (r == 0)
		r = check_paused(live, fault);
	if (r == -EAGAIN)
		return resume(live, "it was paused for too long", fault);
	if (r == 0)
		r = handover_ask_seal(m, peer, fault);
	live->times.sealed = clock_now_usec();
	return r;
}

/* --- HANDOVER -----------------------------------------------------------------------------------
 */

/* The destination hangs with the stream open, and holds QEMU's monitor with it. It never gets a
 * commit, so nothing of the guest can run there. */
static int cut_stream(struct live *live, struct peer *peer, struct fault *fault)
{
	struct migration *m = live->migration;
	struct value *args = value_append_string(value_new_array(), "the handover hangs");
	struct value *result CLEANUP_VALUE = NULL;
	struct fault ignored CLEANUP_FAULT = FAULT_INIT;

	log_warn("MIG-HANDOVER", "migration=%s hangs: cut", m->uuid);
	peer_call(peer, "abort", m->uuid, args, ABORT_TIMEOUT_USEC, m->stop, &result, &ignored);
	memory_yank(live->guest, NULL);
	live->link = tunnel_link_close(live->link);
	return fault_text(fault, -ETIMEDOUT,
		"handing the guest over did not end in time: the destination hangs");
}

static uint64_t patience(struct migration *m)
{
	return migration_cancel_requested(m) ? CANCELLED_USEC : HANDOVER_USEC;
}

/* A cancel lets QEMU finish, which it does at once if the destination does not hang. */
static int await_handover(
	struct live *live, struct memory_progress *ret_progress, struct fault *fault)
{
	struct migration *m = live->migration;
	unsigned under_way =
		1U << MEMORY_DEVICE | (live->at_switch ? 1U << MEMORY_PRE_SWITCHOVER : 0);
	int r = memory_await(live->guest, live->watch, under_way, cancel_fd(m->cancel),
		clock_deadline(HANDOVER_USEC), NULL, ret_progress, fault);

	if (r < 0 || !cancel_is_requested(m->cancel))
		return r;
	return memory_await(live->guest, live->watch, under_way, -1, clock_deadline(patience(m)),
		NULL, ret_progress, fault);
}

/* The watchdog is the guest's keeper up to here, and may have given it back: QEMU refuses then, and
 * says how it ended when it is asked. */
static int let_go(struct live *live, struct fault *fault)
{
	int r = watchdog_disarm(live->watchdog, fault);
	bool is_too_late = r == -ECANCELED;

	if (r == 0) {
		r = memory_continue(live->guest, fault);
		is_too_late = r == -EREMOTEIO;
	}
	if (!is_too_late)
		return r;
	fault_clear(fault);
	return 0;
}

static int take_from_switch(struct live *live, struct fault *fault)
{
	struct memory_progress progress = {0};
	int r = memory_query(live->guest, &progress, fault);

	return r < 0 || progress.status != MEMORY_PRE_SWITCHOVER ? r
								 : live_cancel_memory(live, fault);
}

int handover_run(struct migration *m, struct peer *peer, struct fault *fault)
{
	struct live *live = m->live;
	struct memory_progress progress = {0};
	int r = 0;

	/* Only the run that stopped it knows that nothing was written since. */
	if (live->at_switch)
		r = let_go(live, fault);
	else
		r = take_from_switch(live, fault);
	if (r == 0)
		r = await_handover(live, &progress, fault);
	if (r == -ETIMEDOUT)
		return cut_stream(live, peer, fault);
	if (r < 0)
		return r;
	live->times.handed_over = clock_now_usec();
	if (memory_is_handed_over(&progress))
		return 0;
	return fault_text(fault, -EIO,
		"handing the guest over failed at the source's QEMU (%s): %s",
		memory_status_name(progress.status),
		*progress.error ? progress.error : "no reason was given");
}

/* --- After it -----------------------------------------------------------------------------------
 */

static void set_part(struct value *pause, const char *name, uint64_t from, uint64_t to)
{
	if (from && to >= from)
		value_set(pause, name,
			value_new_format("%.1f", (double)(to - from) / (double)USEC_PER_MSEC));
}

void handover_measure(struct migration *m, const struct value *commit)
{
	struct live *live = m->live;

	if (!live || !live->times.stopped)
		return;
	const struct live_times *t = &live->times;
	struct value *pause = value_new_struct();
	int64_t resume_usec = peer_int(commit, "resume_usec", 0);
	uint64_t resumed = t->asked + (uint64_t)MAX(resume_usec, 0);

	set_part(pause, "total", t->stopped, resumed);
	set_part(pause, "stop", t->stopped, t->noticed);
	set_part(pause, "harvest", t->noticed, t->harvested);
	set_part(pause, "last_round", t->harvested, t->copied);
	set_part(pause, "seal", t->copied, t->sealed);
	set_part(pause, "memory", t->sealed, t->handed_over);
	set_part(pause, "commit", t->handed_over, resumed);
	value_set(pause, "predicted",
		value_new_format(
			"%.1f", (double)m->figures.predicted_usec / (double)USEC_PER_MSEC));
	migration_set(m, "pause", pause);
}

/* --- Back ---------------------------------------------------------------------------------------
 */

static int tell_abort(struct migration *m, struct peer *peer)
{
	struct value *args = value_append_string(value_new_array(), "the guest goes back");
	struct value *result CLEANUP_VALUE = NULL;

	return peer_call(peer, "abort", m->uuid, args, ABORT_TIMEOUT_USEC, m->stop, &result, NULL);
}

/* QEMU has handed over and holds the guest still: postmigrate. */
static int take_back(struct live *live, struct peer *peer, struct fault *fault)
{
	int r = tell_abort(live->migration, peer);

	if (r < 0)
		log_warn("MIG-TAKE-BACK",
			"migration=%s the destination does not answer; it was never asked for the "
			"commit, so the guest runs on here",
			live->migration->uuid);
	return guest_unpause(live->guest, fault);
}

static int ensure_running(struct live *live, struct peer *peer, struct fault *fault)
{
	struct memory_progress progress = {0};
	bool is_running = false;
	int r = memory_query(live->guest, &progress, fault);

	if (r == 0 && progress.status == MEMORY_DEVICE)
		r = memory_await(live->guest, live->watch, 1U << MEMORY_DEVICE, -1,
			clock_deadline(patience(live->migration)), NULL, &progress, fault);
	if (r == -ETIMEDOUT)
		r = cut_stream(live, peer, fault);
	if (r < 0)
		return r;
	if (memory_is_handed_over(&progress))
		r = take_back(live, peer, fault);
	else
		r = live_cancel_memory(live, fault);
	if (r == 0)
		r = guest_is_running(live->guest, &is_running, fault);
	return r < 0 || is_running ? r : guest_unpause(live->guest, fault);
}

int handover_give_back(struct migration *m, struct peer *peer, struct fault *fault)
{
	int r = live_open(m, fault);

	m->quiet = false;
	if (r == -ESRCH)
		return live_forget_gone(m, fault);
	if (r < 0)
		return r;
	/* First the guest, whatever hangs on it. */
	r = ensure_running(m->live, peer, fault);
	if (r == 0)
		live_close_passes(m->live);
	if (r == 0)
		r = live_forget(m->live, fault);
	if (r == 0 || guest_is_alive(m->live->guest)) {
		if (r == 0)
			live_close(m);
		return r;
	}
	live_close(m);
	return live_forget_gone(m, fault);
}
