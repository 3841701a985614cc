/* SPDX-License-Identifier: Apache-2.0 */
/* Receivers have no thread of their own: they act when the sender calls. What must happen without
 * a call happens here, once a second. */
#include "agent/migrate/attention.h"
#include "agent/migrate/doctor.h"
#include "agent/migrate/receiver.h"
#include "agent/migrate/report.h"
#include "agent/migrate/safeguard.h"
#include "agent/migrate/supervisor_internal.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <sys/eventfd.h>

#define ROUND_USEC USEC_PER_SEC
#define QUIET_USEC (2 * USEC_PER_SEC)
#define PRUNE_USEC (3600 * USEC_PER_SEC)

static void abort_receiver(
	struct supervisor *supervisor, struct migration *m, enum migration_event why)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	char *session CLEANUP_FREE = migration_get_string(m, "session");

	if (why == EVENT_ABANDONED) {
		struct fault reason CLEANUP_FAULT = FAULT_INIT;
		fault_text(&reason, -1,
			"the sender was not heard for %llu s; its disks here were removed",
			(unsigned long long)(supervisor->params->abandon_usec / USEC_PER_SEC));
		migration_set_error(m, &reason);
	}
	int r = receiver_abort(m, why, &fault);
	/* pool.db has the commit, agent.db not yet. */
	if (r == -EALREADY)
		r = receiver_commit(m, &fault);
	if (r < 0) {
		char *text CLEANUP_FREE = fault_describe(&fault);
		log_error("MIG-ABORT", "migration=%s error=%s; trying again", m->uuid, text);
	}
	/* Its sender cannot have asked for the commit. */
	if (why == EVENT_ABANDONED && session)
		supervisor_session_unbind(supervisor, session, m->uuid);
}

static void suspend(struct migration *m)
{
	log_warn("MIG-LEASE-LOST", "migration=%s disks are kept, exports withdrawn", m->uuid);
	receiver_suspend(m);
}

/* The pause that it kept quiet for has become long. */
static void speak(struct migration *m)
{
	m->quiet = false;
	report_state(m);
}

static void look_after(struct supervisor *supervisor, struct migration *m)
{
	const struct supervisor_params *params = supervisor->params;
	enum migration_state state = migration_state(m);

	pthread_mutex_lock(&m->lock);
	uint64_t silent = clock_now_usec() - m->last_heard_usec;
	pthread_mutex_unlock(&m->lock);

	attention_note_silence(m, silent);
	if (state == STATE_ABORTING)
		abort_receiver(supervisor, m, EVENT_FAILED);
	else if (fsm_is_cancellable(ROLE_RECEIVER, state) && migration_cancel_requested(m))
		abort_receiver(supervisor, m, EVENT_CANCEL);
	else if ((state == STATE_ALLOCATING || state == STATE_RECEIVING) &&
		 silent > params->abandon_usec)
		abort_receiver(supervisor, m, EVENT_ABANDONED);
	else if (state == STATE_RECEIVING && silent > params->lease_usec && (m->exports || m->door))
		suspend(m);
	/* It serves nothing since the seal; a QEMU may be all that there is of the guest. */
	else if (state == STATE_SEALED && silent > params->lease_usec && m->tgt)
		receiver_withdraw(m, NULL);
	else if (state == STATE_SEALED && m->quiet &&
		 clock_now_usec() - m->sealed_usec > QUIET_USEC)
		speak(m);
	else if (state == STATE_COMMITTED && silent > params->lease_usec)
		receiver_finish(m, NULL);
	if (state == STATE_COMMITTED)
		safeguard_try_again(m);
}

void keeper_round(struct supervisor *supervisor)
{
	size_t n;
	struct migration **all CLEANUP_FREE = registry_all(&supervisor->registry, &n);

	for (size_t i = 0; i < n; i++) {
		struct migration *m CLEANUP_MIGRATION = all[i];
		/* Busy means that the sender is being served: nothing to look after now. */
		if (m->role != ROLE_RECEIVER || migration_enter(m, 0, NULL) < 0)
			continue;
		look_after(supervisor, m);
		migration_leave(m);
		if (fsm_is_final(migration_state(m)))
			supervisor_retire(supervisor, m);
	}
}

void *keeper_main(void *arg)
{
	struct supervisor *supervisor = arg;
	struct pollfd bell = {.fd = supervisor->keeper_bell, .events = POLLIN};
	uint64_t next_prune = clock_now_usec();
	eventfd_t rung;

	while (cancel_poll(supervisor->stop, &bell, 1, clock_deadline(ROUND_USEC)) >= 0) {
		(void)eventfd_read(supervisor->keeper_bell, &rung);
		keeper_round(supervisor);
		if (clock_now_usec() < next_prune)
			continue;
		doctor_prune_commits(supervisor);
		next_prune = clock_deadline(PRUNE_USEC);
	}
	return NULL;
}

void keeper_ring(struct supervisor *supervisor)
{
	(void)eventfd_write(supervisor->keeper_bell, 1);
}
