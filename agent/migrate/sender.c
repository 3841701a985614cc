/* SPDX-License-Identifier: Apache-2.0 */
/* One function per state. Each does what its state is for, may be repeated after a crash, and
 * returns the event that ends the state, or STAY when the daemon stops. */
#include "agent/migrate/sender.h"

#include "agent/migrate/attention.h"
#include "agent/migrate/converge.h"
#include "agent/migrate/handover.h"
#include "agent/migrate/peer.h"
#include "agent/migrate/plan.h"
#include "agent/migrate/report.h"
#include "agent/migrate/resume.h"
#include "agent/migrate/safeguard.h"
#include "agent/migrate/source.h"
#include "agent/migrate/transfer.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/inject.h"
#include "base/log.h"
#include "base/uuid.h"

#include <errno.h>
#include <string.h>

#define STAY N_EVENTS

#define PREPARE_TIMEOUT_USEC (60 * USEC_PER_SEC)
#define COMMIT_TIMEOUT_USEC  (60 * USEC_PER_SEC)
#define COMMIT_LAST_USEC     (10 * USEC_PER_SEC)
#define ABORT_TIMEOUT_USEC   (5 * USEC_PER_SEC)
/* Whoever cancelled waits for the first answer, and a destination may hang. */
#define FIRST_ABORT_USEC (3 * USEC_PER_SEC / 2)
#define FIRST_PAUSE_USEC (200 * USEC_PER_MSEC)
#define MAX_PAUSE_USEC   (10 * USEC_PER_SEC)
#define STORE_PAUSE_USEC (5 * USEC_PER_SEC)

/* What every text of a failure says besides its cause; errors with a code of XenAPI's have the
 * parameters that the contract gives them. */
static void complete_text(struct migration *m, struct fault *fault)
{
	if (!fault_is(fault, "INTERNAL_ERROR") || fault->n_params != 1)
		return;
	char *cause CLEANUP_FREE = xstrdup(fault->params[0]);
	fault_text(fault, -EIO,
		"migration %s failed while %s: %s; the VM and its disks are on the source as "
		"before",
		m->uuid, migration_state_name(migration_state(m)), cause);
}

/* What an error makes of a state that can still be cancelled. */
static enum migration_event failure(struct migration *m, struct fault *fault)
{
	if (migration_cancel_requested(m))
		return EVENT_CANCEL;
	if (cancel_is_requested(m->stop))
		return STAY;
	complete_text(m, fault);
	migration_set_error(m, fault);
	return EVENT_FAILED;
}

static enum migration_event run_new(struct migration *m, struct peer *peer, struct fault *fault)
{
	(void)peer;
	int r = source_lock(m, fault);
	return r < 0 ? failure(m, fault) : EVENT_STARTED;
}

static enum migration_event run_preparing(
	struct migration *m, struct peer *peer, struct fault *fault)
{
	struct value *args CLEANUP_VALUE = value_new_array();
	struct value *result CLEANUP_VALUE = NULL;

	int r = live_is_wanted(m) ? live_track(m->live, fault) : 0;
	if (r == 0)
		r = source_record(m, fault);
	if (r == 0)
		r = resume_fill_log(m, fault);
	if (r < 0)
		return failure(m, fault);
	value_append(args, migration_get(m, "manifest"));
	r = peer_call_patiently(peer, "prepare", m->uuid, args, PREPARE_TIMEOUT_USEC,
		m->params->peer_timeout_usec, m->cancel, &result, fault);
	if (r == 0)
		r = transfer_take_exports(m, result, fault);
	return r < 0 ? failure(m, fault) : EVENT_PREPARED;
}

/* Of a guest whose writes were lost sight of, until the log has only what differs: its rounds send
 * that. Nobody wrote to its snapshots meanwhile. */
static int copy_anew(struct migration *m, struct peer *peer, struct fault *fault)
{
	int r = transfer_run_still(m, peer, fault);

	return r < 0 ? r : resume_settle(m, peer, fault);
}

/* Until the log is empty. */
static int copy_disks(struct migration *m, struct peer *peer, struct fault *fault)
{
	bool live = live_is_wanted(m);
	int r = transfer_open_salvage(m, fault);

	if (r == 0)
		r = live ? live_track(m->live, fault) : resume_check_sources(m, fault);
	if (r < 0)
		return r;
	return live && resume_is_distrusted(m) ? copy_anew(m, peer, fault)
					       : transfer_run(m, peer, fault);
}

static enum migration_event run_copying(struct migration *m, struct peer *peer, struct fault *fault)
{
	struct value *disks CLEANUP_VALUE = migration_get(m, "disks");
	int r = copy_disks(m, peer, fault);

	/* What a guest does not write to must be what was planned. */
	if (r == 0 && live_is_wanted(m))
		r = plan_check_sources(disks, m->n_own_disks, fault);
	if (r < 0)
		return failure(m, fault);
	if (live_is_wanted(m))
		return EVENT_BULK_COPIED;
	migration_set(m, "sealing", value_new_bool(true));
	return EVENT_COPIED;
}

static int converge(struct migration *m, struct peer *peer, struct fault *fault)
{
	int r = transfer_open_salvage(m, fault);

	if (r == 0)
		r = live_track(m->live, fault);
	if (r == 0)
		r = resume_settle(m, peer, fault);
	return r < 0 ? r : converge_run(m, peer, fault);
}

static enum migration_event run_converging(
	struct migration *m, struct peer *peer, struct fault *fault)
{
	/* A guest that has ended is as still as one that was stopped. */
	int r = live_is_wanted(m) ? converge(m, peer, fault) : copy_disks(m, peer, fault);

	if (r < 0)
		return failure(m, fault);
	migration_set(m, "sealing", value_new_bool(true));
	return EVENT_STOPPED;
}

static enum migration_event switch_live(struct migration *m, struct peer *peer, struct fault *fault)
{
	int r = handover_seal(m, peer, fault);

	if (r < 0)
		return failure(m, fault);
	return r > 0 ? EVENT_RESUMED : EVENT_SEALED_PAUSED;
}

static enum migration_event run_switching(
	struct migration *m, struct peer *peer, struct fault *fault)
{
	struct value *disks CLEANUP_VALUE = migration_get(m, "disks");

	if (live_is_wanted(m))
		return switch_live(m, peer, fault);
	int r = plan_check_sources(disks, 0, fault);
	if (r == 0)
		r = handover_ask_seal(m, peer, fault);
	return r < 0 ? failure(m, fault) : EVENT_SEALED;
}

static enum migration_event run_handover(
	struct migration *m, struct peer *peer, struct fault *fault)
{
	int r = handover_run(m, peer, fault);

	return r < 0 ? failure(m, fault) : EVENT_HANDED_OVER;
}

static void keep_refusal(struct migration *m, const struct value *result)
{
	const struct value *error = value_find(result, "error");
	struct fault refusal CLEANUP_FAULT = FAULT_INIT;

	if (error)
		fault_from_list(error, &refusal);
	else
		fault_text(
			&refusal, -EIO, "the destination aborted the migration before the commit");
	migration_set_error(m, &refusal);
}

/* The destination's word, if this result has it. It counts, whatever was assumed meanwhile. */
static bool take_decision(
	struct migration *m, const struct value *result, enum migration_event *ret_event)
{
	const char *decision = value_find_string(result, "decision", "");
	bool committed = strcmp(decision, "committed") == 0;

	if (!committed && strcmp(decision, "aborted") != 0)
		return false;
	if (committed) {
		handover_measure(m, result);
		m->quiet = false;
		migration_set(
			m, "vm_there", value_new_string(value_find_string(result, "vm", REF_NULL)));
	} else {
		keep_refusal(m, result);
	}
	attention_peer_said(m, committed);
	migration_unset(m, "doubt");
	*ret_event = committed ? EVENT_COMMITTED : EVENT_REFUSED;
	return true;
}

/* The operator's word stands for the destination's. */
static enum migration_event take_assumption(struct migration *m, bool committed)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	m->quiet = false;
	attention_assume(m);
	if (committed) {
		migration_set(m, "vm_there", value_new_string(REF_NULL));
		return EVENT_ASSUMED_COMMITTED;
	}
	fault_text(&fault, -ECANCELED,
		"migration %s was in doubt, and an operator said that the destination does not own "
		"the VM: it is at the source as before; make sure that it never runs at the "
		"destination too",
		m->uuid);
	migration_set_error(m, &fault);
	return EVENT_ASSUMED_ABORTED;
}

static void doubt(struct migration *m, const struct fault *why)
{
	char *text CLEANUP_FREE = fault_describe(why);
	char *vm CLEANUP_FREE = migration_get_string(m, "vm_uuid");
	char *said CLEANUP_FREE = xasprintf(
		"the commit was asked for, and the destination does not answer: whether VM %s "
		"belongs to it is not known here. Until it is, the VM stays locked%s, and the "
		"destination is asked again. Bring it back; if it is lost for good, see `ferry "
		"migration resolve`",
		vm, live_is_wanted(m) ? " and its guest paused" : "");

	log_warn("MIG-IN-DOUBT", "migration=%s commit asked, not answered: %s", m->uuid, text);
	m->quiet = false;
	attention_set_doubt(m, said);
}

/* One question. A guest is paused: even a daemon that stops asks once; and the operator's word
 * counts only when the destination is silent to a last one. */
static int ask_for_commit(struct migration *m, struct peer *peer, bool first,
	struct value **ret_result, struct fault *fault)
{
	bool urgent = m->live && first;
	bool resolved = attention_resolved(m) >= 0;

	return peer_call(peer, "commit", m->uuid, NULL,
		urgent || resolved ? COMMIT_LAST_USEC : COMMIT_TIMEOUT_USEC,
		urgent     ? NULL
		: resolved ? m->stop
			   : m->resolve,
		ret_result, fault);
}

/* Within a pool the database that decides is this host's too. An operator's word is never taken for
 * it: "aborted" is written there, unless it says otherwise already, and "committed" is not. */
static int ask_database(
	struct migration *m, int resolved, struct value **ret_result, struct fault *fault)
{
	struct pool_db *pool = m->params->storage->pool;
	char *vm CLEANUP_FREE = NULL;
	bool committed = false;
	int64_t at;
	int r = commit_find(pool, m->uuid, &committed, &vm, &at, fault);

	if (r == 0 && resolved == 0) {
		r = commit_decide(pool, m->uuid, false, NULL, &committed, &vm, fault);
		r = r < 0 ? r : 1;
	}
	if (r <= 0)
		return r;
	*ret_result = value_new_struct();
	value_set_string(*ret_result, "decision", committed ? "committed" : "aborted");
	value_set_string(*ret_result, "vm", vm ? vm : REF_NULL);
	return 1;
}

/* The destination was silent. Within the pool: the database's answer, if it has one. */
static bool look_into_pool(struct migration *m, int resolved, enum migration_event *ret_event)
{
	struct value *result CLEANUP_VALUE = NULL;

	return source_is_same_pool(m) && ask_database(m, resolved, &result, NULL) > 0 &&
	       take_decision(m, result, ret_event);
}

/* Asks until the destination's database has answered: nothing else may decide, but an operator who
 * has looked at it. */
static enum migration_event run_committing(
	struct migration *m, struct peer *peer, struct fault *fault)
{
	uint64_t pause = FIRST_PAUSE_USEC;
	enum migration_event event;

	if (m->live)
		m->live->times.asked = clock_now_usec();
	for (bool first = true;; first = false) {
		struct value *result CLEANUP_VALUE = NULL;
		int assumed = attention_resolved(m);
		int r = ask_for_commit(m, peer, first, &result, fault);
		if (r == 0 && take_decision(m, result, &event))
			return event;
		if (cancel_is_requested(m->stop))
			return STAY;
		if (look_into_pool(m, assumed, &event))
			return event;
		if (assumed >= 0 && !source_is_same_pool(m))
			return take_assumption(m, assumed);
		if (r != -ECANCELED)
			doubt(m, fault);
		r = attention_pause(
			m, assumed >= 0 ? m->stop : m->resolve, r == -ECANCELED ? 0 : pause);
		if (cancel_is_requested(m->stop))
			return STAY;
		pause = r > 0 ? FIRST_PAUSE_USEC : MIN(pause * 2, MAX_PAUSE_USEC);
	}
}

/* Until it is done: the source's databases, files and guests are this host's own. -ECANCELED when
 * the daemon stops. */
static int insist(struct migration *m, int (*act)(struct migration *m, struct fault *fault),
	const char *what, struct fault *fault)
{
	uint64_t pause = FIRST_PAUSE_USEC;

	for (;;) {
		if (act(m, fault) == 0)
			return 0;
		char *text CLEANUP_FREE = fault_describe(fault);
		log_error("MIG-SOURCE-RETRY", "migration=%s %s failed: %s", m->uuid, what, text);
		if (attention_pause(m, m->stop, pause) < 0)
			return -ECANCELED;
		pause = MIN(pause * 2, MAX_PAUSE_USEC);
	}
}

/* It runs at the destination now. */
static int end_guest(struct migration *m, struct fault *fault)
{
	char *vm CLEANUP_FREE = migration_get_string(m, "vm");
	char *vm_uuid CLEANUP_FREE = migration_get_string(m, "vm_uuid");

	live_close(m);
	int r = guests_end(m->params->guests, vm, vm_uuid, fault);
	return r < 0 ? r : live_forget_gone(m, fault);
}

/* It was assumed that the destination has committed: asks until it says so, or somebody says that
 * it is gone for ever. One that has not decided yet commits now, and what was assumed is true.
 * -ECANCELED when the daemon stops. */
static int confirm(struct migration *m, struct peer *peer)
{
	uint64_t pause = FIRST_PAUSE_USEC;

	/* Whoever waits for the VM need not wait for that. */
	cancel_request(m->ended, "assumed");
	while (!m->forgotten) {
		struct value *result CLEANUP_VALUE = NULL;
		int r = peer_call(
			peer, "commit", m->uuid, NULL, COMMIT_TIMEOUT_USEC, m->stop, &result, NULL);
		const char *decision = r == 0 ? value_find_string(result, "decision", "") : "";
		if (*decision) {
			attention_peer_said(m, strcmp(decision, "committed") == 0);
			return 0;
		}
		if (attention_pause(m, m->stop, pause) < 0)
			return -ECANCELED;
		pause = MIN(pause * 2, MAX_PAUSE_USEC);
	}
	return 0;
}

static enum migration_event run_finishing(
	struct migration *m, struct peer *peer, struct fault *fault)
{
	struct value *copy CLEANUP_VALUE = migration_get(m, "copy");
	struct value *result CLEANUP_VALUE = NULL;
	bool keep = copy && copy->type == VALUE_BOOL && copy->boolean;

	int r = live_is_wanted(m) ? insist(m, end_guest, "ending the guest at the source", fault)
				  : 0;
	if (r == 0)
		r = keep ? insist(m, source_unlock, "unlocking the source VM", fault)
			 : insist(m, source_forget,
				   "the VM is at the destination; removing it from the source",
				   fault);
	if (r == 0)
		r = safeguard_run(m, fault);
	if (r < 0 && r != -ESTALE)
		return STAY;
	if (attention_is_assumed(m) && confirm(m, peer) < 0)
		return STAY;
	/* A courtesy: the receiver finishes by itself when it hears nothing. */
	r = peer_call_patiently(peer, "finish", m->uuid, NULL, ABORT_TIMEOUT_USEC,
		m->params->lease_usec, m->stop, &result, fault);
	if (r < 0)
		log_info("MIG-FINISH-UNHEARD", "migration=%s the receiver finishes by its lease",
			m->uuid);
	return cancel_is_requested(m->stop) ? STAY : EVENT_FINISHED;
}

/* Whether there is no more to say to the destination about an abort. */
static bool is_told(int error, const struct fault *fault)
{
	/* The session has ended, or the migration was never its own. */
	return error == 0 ||
	       (error == -EREMOTEIO && (fault_is(fault, "SESSION_INVALID") ||
					       fault_is(fault, "RBAC_PERMISSION_DENIED")));
}

/* As insist. */
static int give_back(struct migration *m, struct peer *peer, struct fault *fault)
{
	uint64_t pause = FIRST_PAUSE_USEC;

	while (live_is_wanted(m) && handover_give_back(m, peer, fault) < 0) {
		char *text CLEANUP_FREE = fault_describe(fault);
		log_error("MIG-GIVE-BACK", "migration=%s error=%s", m->uuid, text);
		if (attention_pause(m, m->stop, pause) < 0)
			return -ECANCELED;
		pause = MIN(pause * 2, MAX_PAUSE_USEC);
	}
	return 0;
}

/* A destination that may have sealed keeps what it has until it is told: it cannot know that it was
 * not asked for the commit. Any other forgets it by itself. */
static bool must_be_told(struct migration *m)
{
	struct value *sealing CLEANUP_VALUE = migration_get(m, "sealing");

	return sealing && sealing->type == VALUE_BOOL && sealing->boolean && !m->forgotten;
}

/* One who assumed that it is aborted, and hears that it is committed, has two owners of the VM. The
 * destination need not wait for more questions about it. */
static void hear_of_abort(struct migration *m, struct peer *peer, const struct value *result)
{
	const char *decision = value_find_string(result, "decision", "");
	bool committed = strcmp(decision, "committed") == 0;
	struct value *ignored CLEANUP_VALUE = NULL;

	if (!*decision)
		return;
	attention_peer_said(m, committed);
	if (committed)
		peer_call(
			peer, "finish", m->uuid, NULL, ABORT_TIMEOUT_USEC, m->stop, &ignored, NULL);
}

static enum migration_event run_aborting(
	struct migration *m, struct peer *peer, struct fault *fault)
{
	uint64_t give_up = clock_deadline(m->params->abandon_usec);
	uint64_t timeout = FIRST_ABORT_USEC;
	uint64_t pause = FIRST_PAUSE_USEC;
	char *reason CLEANUP_FREE = migration_get_string(m, "cancelled_by");

	if (give_back(m, peer, fault) < 0 ||
		insist(m, source_unlock, "unlocking the source VM", fault) < 0)
		return STAY;
	do {
		struct value *result CLEANUP_VALUE = NULL;
		struct value *args = value_append_string(
			value_new_array(), reason ? reason : "the sender failed");
		int r = peer_call(peer, "abort", m->uuid, args, timeout, m->stop, &result, fault);
		if (is_told(r, fault)) {
			hear_of_abort(m, peer, result);
			break;
		}
		/* Whoever waits need not wait for a peer that is gone. */
		cancel_request(m->ended, "aborted here");
		log_warn("MIG-ABORT-RETRY", "migration=%s error=%s", m->uuid, strerror(-r));
		if (attention_pause(m, m->stop, pause) < 0)
			return STAY;
		pause = MIN(pause * 2, MAX_PAUSE_USEC);
		timeout = ABORT_TIMEOUT_USEC;
	} while (!m->forgotten && (clock_now_usec() < give_up || must_be_told(m)));
	if (cancel_is_requested(m->stop))
		return STAY;
	return migration_cancel_requested(m) ? EVENT_UNDONE_CANCELLED : EVENT_UNDONE;
}

typedef enum migration_event (*state_action)(
	struct migration *m, struct peer *peer, struct fault *fault);

static const state_action actions[N_STATES] = {
	[STATE_NEW] = run_new,
	[STATE_PREPARING] = run_preparing,
	[STATE_COPYING] = run_copying,
	[STATE_CONVERGING] = run_converging,
	[STATE_SWITCHING] = run_switching,
	[STATE_HANDOVER] = run_handover,
	[STATE_COMMITTING] = run_committing,
	[STATE_FINISHING] = run_finishing,
	[STATE_ABORTING] = run_aborting,
};

/* In these states there is a guest to be watched. */
static bool needs_guest(enum migration_state state)
{
	return state == STATE_PREPARING || state == STATE_COPYING || state == STATE_CONVERGING ||
	       state == STATE_SWITCHING || state == STATE_HANDOVER;
}

/* One that ended while no agent looked does not end the move: its disks are what is left of it. */
static int open_guest(struct migration *m, enum migration_state state, struct fault *fault)
{
	int r = live_open(m, fault);

	if (r != -ESRCH || !m->resumed || (state != STATE_COPYING && state != STATE_CONVERGING))
		return r;
	return resume_as_halted(m, fault);
}

static enum migration_event act(struct migration *m, struct peer *peer, struct fault *fault)
{
	enum migration_state state = migration_state(m);

	bool cancellable = fsm_is_cancellable(m->role, state);

	int r = INJECT_WAIT(
		cancellable ? m->cancel : m->stop, fault, "sender.%s", migration_state_name(state));
	if (r < 0)
		return cancellable ? failure(m, fault) : STAY;
	if (live_is_wanted(m) && needs_guest(state) && open_guest(m, state, fault) < 0)
		return failure(m, fault);
	return actions[state](m, peer, fault);
}

/* Nobody looks after a guest that is paused now; before the hand over it can be let go. */
static void release_guest(struct migration *m)
{
	enum migration_state state = migration_state(m);

	if (m->live && (state == STATE_CONVERGING || state == STATE_SWITCHING))
		live_cancel_memory(m->live, NULL);
}

/* The state could not be stored: nothing may follow from it. The destination hears nothing
 * meanwhile, so the first tries come soon; a cancel does not wait for the next. -ECANCELED when the
 * daemon stops. */
static int await_store(struct migration *m, uint64_t *pause, const struct fault *fault)
{
	char *text CLEANUP_FREE = fault_describe(fault);
	bool heed =
		fsm_is_cancellable(m->role, migration_state(m)) && !migration_cancel_requested(m);

	log_error("MIG-STORE", "migration=%s error=%s; trying again", m->uuid, text);
	release_guest(m);
	cancel_sleep(heed ? m->cancel : m->stop, *pause);
	*pause = MIN(*pause * 2, m->live ? FIRST_PAUSE_USEC : STORE_PAUSE_USEC);
	return cancel_is_requested(m->stop) ? -ECANCELED : 0;
}

void sender_run(struct migration *m)
{
	struct peer *peer CLEANUP_PEER = peer_of(m);
	uint64_t pause = FIRST_PAUSE_USEC;

	m->resumed = migration_state(m) != STATE_NEW;
	for (size_t i = 0; i < m->n_disks; i++)
		m->disks[i].unsure = m->resumed;
	while (!fsm_is_final(migration_state(m))) {
		struct fault fault CLEANUP_FAULT = FAULT_INIT;
		enum migration_event event = act(m, peer, &fault);
		if (event == STAY)
			break;
		int r = migration_post(m, event, &fault);
		if (r == -ECANCELED)
			r = migration_post(m, EVENT_CANCEL, &fault);
		if (r == 0)
			pause = FIRST_PAUSE_USEC;
		else if (await_store(m, &pause, &fault) < 0)
			break;
	}
	release_guest(m);
	live_close(m);
	if (fsm_is_final(migration_state(m)))
		cancel_request(m->ended, "ended");
}
