/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/migrate/pulse.h"

#include "agent/migrate/peer.h"
#include "agent/migrate/report.h"
#include "agent/migrate/space.h"
#include "base/alloc.h"
#include "base/clock.h"

#include <errno.h>
#include <string.h>

#define REPORT_USEC USEC_PER_SEC

struct pulse {
	struct migration *migration;
	struct cancel *end;
	pthread_t thread;
};

static void ask_after_peer(struct migration *m, struct peer *peer)
{
	struct value *result CLEANUP_VALUE = NULL;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	int r = peer_call(
		peer, "status", m->uuid, NULL, m->params->lease_usec, m->cancel, &result, &fault);
	if (r < 0)
		return; /* Unreachable or confused: whoever moves the data decides what follows. */
	const char *state = value_find_string(result, "state", "");
	if (strcmp(state, "RECEIVING") == 0 && space_check(m, result, &fault) < 0) {
		migration_set_error(m, &fault);
		cancel_request(m->cancel, "the destination is running full");
	}
	if (strcmp(state, "ABORTING") != 0 && strcmp(state, "FAILED") != 0 &&
		strcmp(state, "CANCELLED") != 0)
		return;
	fault_text(&fault, -ECANCELED, "the destination gave the migration up (state %s there)",
		state);
	if (value_find(result, "error"))
		fault_from_list(value_find(result, "error"), &fault);
	migration_set_error(m, &fault);
	cancel_request(m->cancel, "the destination gave up");
}

static void *pulse_main(void *arg)
{
	struct pulse *pulse = arg;
	struct migration *m = pulse->migration;
	struct peer *peer CLEANUP_PEER = peer_of(m);
	struct report_measure measure = {0};
	uint64_t next_heartbeat = clock_deadline(m->params->heartbeat_usec);

	while (cancel_sleep(pulse->end, REPORT_USEC) == 0) {
		/* The guest is paused: what is reported can wait, the guest cannot. */
		if (m->quiet)
			continue;
		report_progress(m, &measure);
		if (clock_now_usec() < next_heartbeat)
			continue;
		ask_after_peer(m, peer);
		next_heartbeat = clock_deadline(m->params->heartbeat_usec);
	}
	if (!m->quiet)
		report_progress(m, &measure);
	return NULL;
}

int pulse_start(struct migration *m, struct pulse **ret_pulse, struct fault *fault)
{
	struct pulse *pulse = xcalloc(1, sizeof(*pulse));

	pulse->migration = m;
	pulse->end = cancel_new();
	int r = -pthread_create(&pulse->thread, NULL, pulse_main, pulse);
	if (r < 0) {
		cancel_free(pulse->end);
		free(pulse);
		return fault_errno(fault, r, "starting the thread that reports progress");
	}
	*ret_pulse = pulse;
	return 0;
}

struct pulse *pulse_stop(struct pulse *pulse)
{
	if (!pulse)
		return NULL;
	cancel_request(pulse->end, "no more to report");
	pthread_join(pulse->thread, NULL);
	cancel_free(pulse->end);
	free(pulse);
	return NULL;
}
