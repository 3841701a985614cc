/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/migrate/converge.h"

#include "agent/guest/throttle.h"
#include "agent/migrate/pauses.h"
#include "agent/migrate/transfer.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define INCOMING_TIMEOUT_USEC (60 * USEC_PER_SEC)
/* How often one looks at the disks while memory flows, and how much may be dirty without a round:
 * so many bytes, or what is sent in so much time. A round that is under way when the guest stops
 * lengthens its pause by more than it saves. */
#define BESIDE_USEC      (100 * USEC_PER_MSEC)
#define BESIDE_BYTES     (UINT64_C(256) << 10)
#define BESIDE_SENT_USEC (5 * USEC_PER_MSEC)
/* The longest that a guest stays paused at the switch before it is given back, if the move allows
 * less than a fifth of it. */
#define LEAST_BUDGET_USEC (10 * USEC_PER_SEC)
/* Memory: bytes a second when nothing is known of the link, and of the link's when it is. On a slow
 * link the tunnel packs it, so more than the link carries is asked of QEMU: what cannot be packed
 * shares the link with the rounds, connection by connection. */
#define MEMORY_RATE       (UINT64_C(1) << 30)
#define MEMORY_SHARE      0.75
#define SLOW_LINK         (100e6)
#define SLOW_MEMORY_SHARE 4
/* A disk of which less was sent says little of the link. */
#define TELLING_BYTES (UINT64_C(16) << 20)
#define LEAST_RATE    (UINT64_C(1) << 20)
/* QEMU stops the guest when what is left of its memory takes that long; doubled after every few
 * passes over the memory that do not get there, up to half of the longest pause. */
#define MEMORY_TAIL_USEC   (10 * USEC_PER_MSEC)
#define MEMORY_TAIL_PASSES 4
#define MAX_MEMORY_PASSES  200
#define MAX_MEMORY_TRIES   3
#define MAX_FRUITLESS      8
#define MAX_THROTTLE_STEPS 6

/* --- Rounds -------------------------------------------------------------------------------------
 */

static void show(struct live *live, uint64_t left)
{
	struct migration_figures *figures = &live->migration->figures;
	const struct predict *predict = &live->predict;

	figures->n_rounds = predict->n_rounds;
	figures->left_bytes = left;
	figures->dirty_bytes_per_sec = (uint64_t)predict->dirty_rate;
	figures->copy_bytes_per_sec = (uint64_t)predict->rate;
	figures->predicted_usec = predict_pause_usec(predict, left);
}

/* Sessions are lost when the destination's tgtd dies; the log has what they did not bring. */
static int copy_through_losses(
	struct live *live, struct peer *peer, struct predict_round *round, struct fault *fault)
{
	struct migration *m = live->migration;

	for (unsigned losses = 0;; losses++) {
		int r = m->exports ? 0 : transfer_renew(m, peer, fault);
		if (r == 0)
			r = live_open_passes(live, fault);
		if (r == 0)
			r = live_copy(live, USEC_FOREVER, round, fault);
		if (r == -EREMOTEIO)
			return transfer_explain(m, peer, r, fault);
		if (!m->exports || !transfer_is_session_loss(r) || losses == MAX_FRUITLESS)
			return r;
		char *text CLEANUP_FREE = fault_describe(fault);
		log_warn("MIG-SESSION-LOST", "migration=%s error=%s", m->uuid, text);
		live_close_passes(live);
		m->exports = value_free(m->exports);
		r = cancel_sleep(m->cancel, losses * 500 * USEC_PER_MSEC);
		if (r < 0)
			return fault_text(fault, r, "cancelled");
	}
}

static int run_round(struct live *live, struct peer *peer, uint64_t *ret_left, struct fault *fault)
{
	uint64_t begin = clock_now_usec();
	struct predict_round round = {0};
	int r = live_harvest(live, fault);

	if (r == 0)
		r = copy_through_losses(live, peer, &round, fault);
	if (r == 0)
		r = live_left(live, ret_left, fault);
	if (r < 0)
		return r;
	round.usec = clock_now_usec() - begin;
	round.left_bytes = *ret_left;
	predict_add(&live->predict, &round);
	show(live, *ret_left);
	log_debug("MIG-ROUND",
		"migration=%s round=%u sent=%" PRIu64 " ms=%" PRIu64 " left=%" PRIu64
		" predicted_ms=%" PRIu64,
		live->migration->uuid, live->predict.n_rounds, round.sent_bytes,
		round.usec / USEC_PER_MSEC, *ret_left,
		predict_pause_usec(&live->predict, *ret_left) / USEC_PER_MSEC);
	return 0;
}

/* --- A copy that does not catch up --------------------------------------------------------------
 */

static int set_throttle(struct live *live, unsigned step, struct fault *fault)
{
	struct migration *m = live->migration;
	struct value *limits CLEANUP_VALUE = migration_get(m, "limits");
	uint64_t rate = predict_throttle(&live->predict, step);
	int r = 0;

	if (!limits) {
		r = throttle_read(live->guest, &limits, fault);
		if (r < 0)
			return r;
		migration_set(m, "limits", value_copy(limits));
		r = migration_save(m, fault);
	}
	if (r == 0)
		r = throttle_set(live->guest, limits, rate, fault);
	if (r < 0)
		return r;
	if (!m->figures.throttled_usec)
		m->figures.throttled_usec = clock_now_usec();
	m->figures.throttle_bytes_per_sec = rate;
	predict_forgive(&live->predict);
	log_warn("MIG-THROTTLE",
		"migration=%s the guest's disks may write %" PRIu64 " bytes/s each", m->uuid, rate);
	return 0;
}

static int give_up(struct live *live, uint64_t left, struct fault *fault)
{
	const struct predict *predict = &live->predict;

	return fault_text(fault, -EBUSY,
		"converging: after %u rounds the copy does not catch up: the guest dirties %.1f "
		"MiB/s, "
		"the copy sends %.1f MiB/s, %.1f MiB are left, which would pause the guest for "
		"%" PRIu64 " ms where %" PRIu64
		" ms are allowed. Allow a longer pause (options:max_downtime), a slower guest "
		"(options:throttle=true), more rounds (options:on_no_convergence=continue) or the "
		"long "
		"pause (options:on_no_convergence=force)",
		predict->n_rounds, predict->dirty_rate / 1048576, predict->rate / 1048576,
		(double)left / 1048576, predict_pause_usec(predict, left) / USEC_PER_MSEC,
		predict->max_pause_usec / USEC_PER_MSEC);
}

/* 1: the guest is to be stopped all the same; 0: go on. */
static int answer_stall(struct live *live, unsigned *steps, uint64_t left, struct fault *fault)
{
	struct migration *m = live->migration;
	struct value *allowed CLEANUP_VALUE = migration_get(m, "throttle");
	char *then CLEANUP_FREE = migration_get_string(m, "on_no_convergence");

	if (allowed && allowed->type == VALUE_BOOL && allowed->boolean &&
		*steps < MAX_THROTTLE_STEPS)
		return set_throttle(live, (*steps)++, fault);
	if (then && strcmp(then, "force") == 0)
		return 1;
	if (then && strcmp(then, "continue") == 0)
		return 0;
	return give_up(live, left, fault);
}

static int rounds_until_fit(struct live *live, struct peer *peer, struct fault *fault)
{
	unsigned steps = 0;
	uint64_t left = 0;

	for (;;) {
		int r = run_round(live, peer, &left, fault);
		if (r == 0 && predict_fits(&live->predict, left)) {
			log_info("MIG-FITS",
				"migration=%s rounds=%u left=%" PRIu64 " predicted_ms=%" PRIu64,
				live->migration->uuid, live->predict.n_rounds, left,
				predict_pause_usec(&live->predict, left) / USEC_PER_MSEC);
			return 0;
		}
		if (r == 0 && predict_is_stalled(&live->predict))
			r = answer_stall(live, &steps, left, fault);
		if (r != 0)
			return MIN(r, 0);
	}
}

/* --- Memory -------------------------------------------------------------------------------------
 */

static int open_stream(struct live *live, struct peer *peer, const char *path, struct fault *fault)
{
	struct migration *m = live->migration;
	struct value *token CLEANUP_VALUE = migration_get(m, "token");
	struct value *result CLEANUP_VALUE = NULL;

	int r = peer_call_patiently(peer, "incoming", m->uuid, NULL, INCOMING_TIMEOUT_USEC,
		m->params->peer_timeout_usec, m->cancel, &result, fault);
	if (r < 0)
		return r;
	return tunnel_link_open(
		&(struct tunnel_link_params){
			.address = value_find_string(result, "address",
				value_find_string(token, "ferry_data_address", "")),
			.port = (uint16_t)peer_int(result, "port", 0),
			.fingerprint = value_find_string(token, "ferry_fingerprint", ""),
			.door = value_find_string(result, "door", ""),
			.secret = value_find_string(result, "secret", ""),
			.socket_path = path,
		},
		m->cancel, &live->link, fault);
}

static uint64_t memory_rate(const struct live *live)
{
	uint64_t limit = rate_limit_get(live->migration->rate);

	if (limit)
		return limit;
	/* Rounds are no measure of the link: they are made of small pieces. */
	if (live->bulk_rate <= 0)
		return MEMORY_RATE;
	double share = live->bulk_rate < SLOW_LINK ? SLOW_MEMORY_SHARE : MEMORY_SHARE;
	return MAX((uint64_t)(live->bulk_rate * share), LEAST_RATE);
}

static int start_memory(struct live *live, struct peer *peer, struct fault *fault)
{
	struct migration *m = live->migration;
	char *path CLEANUP_FREE = guest_file(resident_run_dir(live->resident), GUEST_MEMORY);
	char *uri CLEANUP_FREE = xasprintf("unix:%s", path);
	char *vm_uuid CLEANUP_FREE = migration_get_string(m, "vm_uuid");

	int r = open_stream(live, peer, path, fault);
	if (r == 0)
		r = watchdog_start(
			&(struct watchdog_params){
				.program = m->params->watchdog,
				.run_dir = resident_run_dir(live->resident),
				.vm_uuid = vm_uuid,
				.budget_usec =
					MAX(LEAST_BUDGET_USEC, 5 * live->predict.max_pause_usec),
			},
			&live->watchdog, fault);
	if (r < 0)
		return r;
	return memory_start(live->guest,
		&(struct memory_params){
			.uri = uri,
			.max_bytes_per_sec = memory_rate(live),
			.downtime_limit_usec = MEMORY_TAIL_USEC,
		},
		fault);
}

/* The guest writes its memory faster than it is sent: a longer pause is allowed step by step. */
static int lengthen_tail(struct live *live, const struct memory_progress *progress,
	uint64_t *tail_usec, unsigned *at_passes, struct fault *fault)
{
	if (progress->n_passes < *at_passes + MEMORY_TAIL_PASSES)
		return 0;
	*at_passes = progress->n_passes;
	if (progress->n_passes > MAX_MEMORY_PASSES)
		return fault_text(fault, -EBUSY,
			"converging: after %u passes over the guest's memory %.1f MiB are still "
			"left, "
			"dirtied at %.1f MiB/s where %.1f MiB/s are sent: allow a longer pause "
			"(options:max_downtime), or migrate when the guest does less",
			progress->n_passes, (double)progress->remaining_bytes / 1048576,
			(double)progress->dirty_bytes_per_sec / 1048576,
			(double)progress->rate_bytes_per_sec / 1048576);
	*tail_usec = MIN(*tail_usec * 2, MAX(live->predict.max_pause_usec / 2, MEMORY_TAIL_USEC));
	return memory_set_limits(live->guest, memory_rate(live), *tail_usec, fault);
}

static void show_memory(struct live *live, const struct memory_progress *progress)
{
	live->migration->figures.memory_total = progress->total_bytes;
	live->migration->figures.memory_sent = progress->transferred_bytes;
}

static bool is_round_due(const struct predict *predict, uint64_t left)
{
	return left > BESIDE_BYTES &&
	       (double)left * (double)USEC_PER_SEC > predict->rate * (double)BESIDE_SENT_USEC;
}

/* Until the guest is stopped: rounds go on, so that little is left to be sent then. */
static int rounds_beside_memory(
	struct live *live, struct peer *peer, struct memory_progress *progress, struct fault *fault)
{
	uint64_t tail_usec = MEMORY_TAIL_USEC;
	uint64_t rate = memory_rate(live);
	unsigned at_passes = 0;

	for (;;) {
		uint64_t left = 0;
		int r = memory_await(live->guest, live->watch, 1U << MEMORY_ACTIVE, -1,
			clock_deadline(BESIDE_USEC), live->migration->cancel, progress, fault);
		show_memory(live, progress);
		if (r != -ETIMEDOUT && (r < 0 || progress->status != MEMORY_ACTIVE))
			return r;
		r = lengthen_tail(live, progress, &tail_usec, &at_passes, fault);
		/* Somebody changed the migration's limit. */
		if (r == 0 && rate != memory_rate(live)) {
			rate = memory_rate(live);
			r = memory_set_limits(live->guest, rate, tail_usec, fault);
		}
		if (r == 0)
			r = live_left(live, &left, fault);
		if (r == 0 && is_round_due(&live->predict, left))
			r = run_round(live, peer, &left, fault);
		if (r < 0)
			return r;
	}
}

/* When the guest's processors stopped: the last STOP that was seen. */
static uint64_t find_stop(struct live *live)
{
	uint64_t stopped = clock_now_usec();
	char *name;
	struct value *data;
	uint64_t at;

	while (guest_watch_take(live->stops, &name, &data, &at)) {
		if (strcmp(name, "STOP") == 0)
			stopped = at;
		free(name);
		value_free(data);
	}
	return stopped;
}

/* 0: stopped at the switch; -EAGAIN: the stream broke, the guest runs on. */
static int move_memory(struct live *live, struct peer *peer, struct fault *fault)
{
	struct migration *m = live->migration;
	struct memory_progress progress = {0};
	int r = start_memory(live, peer, fault);

	if (r == 0)
		r = rounds_beside_memory(live, peer, &progress, fault);
	if (r == 0 && progress.status == MEMORY_PRE_SWITCHOVER) {
		m->quiet = true;
		live->times = (struct live_times){
			.stopped = find_stop(live), .noticed = clock_now_usec()};
		live->at_switch = true;
		return 0;
	}
	if (r == 0)
		r = fault_text(fault, -EAGAIN, "the stream of the guest's memory is %s: %s",
			memory_status_name(progress.status),
			*progress.error ? progress.error : "no reason was given");
	struct fault left CLEANUP_FAULT = FAULT_INIT;
	int back = live_cancel_memory(live, &left);
	/* Whoever ends the migration tries again. */
	if (back < 0) {
		char *text CLEANUP_FREE = fault_describe(&left);
		log_error("MIG-MEMORY", "migration=%s cancel: %s", m->uuid, text);
		return r == -EAGAIN ? -EIO : r;
	}
	return r;
}

static int try_memory(struct live *live, struct peer *peer, struct fault *fault)
{
	for (unsigned tries = 1;; tries++) {
		uint64_t left;
		int r = move_memory(live, peer, fault);
		if (r != -EAGAIN || tries == MAX_MEMORY_TRIES)
			return r;
		char *text CLEANUP_FREE = fault_describe(fault);
		log_warn(
			"MIG-MEMORY", "migration=%s try=%u %s", live->migration->uuid, tries, text);
		r = cancel_sleep(live->migration->cancel, tries * USEC_PER_SEC);
		if (r < 0)
			return fault_text(fault, r, "cancelled");
		r = run_round(live, peer, &left, fault);
		if (r < 0)
			return r;
	}
}

/* 0: too little was sent to tell. */
static double bulk_rate(const struct migration *m)
{
	double best = 0;

	for (size_t i = 0; i < m->n_disks; i++) {
		const struct migration_disk *disk = &m->disks[i];
		if (disk->ended_usec > disk->started_usec && disk->copy.sent >= TELLING_BYTES)
			best = MAX(best, (double)disk->copy.sent * (double)USEC_PER_SEC /
						 (double)(disk->ended_usec - disk->started_usec));
	}
	return best;
}

int converge_run(struct migration *m, struct peer *peer, struct fault *fault)
{
	struct live *live = m->live;
	struct value *max_pause CLEANUP_VALUE = migration_get(m, "max_downtime");
	uint64_t max_pause_usec = max_pause && max_pause->type == VALUE_INT
					  ? (uint64_t)max_pause->integer * USEC_PER_MSEC
					  : m->params->max_downtime_usec;

	live->bulk_rate = bulk_rate(m);
	predict_init(&live->predict, pauses_usual_usec(m->params->storage->pool), max_pause_usec,
		live->bulk_rate);
	/* It stays until the end: to wait for it here would lengthen the pause. */
	int r = live->pulse ? 0 : pulse_start(m, &live->pulse, fault);
	/* An agent that died, and its watchdog with it, may have left the guest at the switch. */
	if (r == 0)
		r = live_cancel_memory(live, fault);
	if (r == 0)
		r = rounds_until_fit(live, peer, fault);
	return r < 0 ? r : try_memory(live, peer, fault);
}
