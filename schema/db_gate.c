/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "base/clock.h"
#include "schema/db_private.h"

#include <errno.h>
#include <time.h>

struct db_gate {
	pthread_mutex_t lock; /* guards the rest */
	pthread_cond_t change;
	bool is_taken;
	uint64_t lease_end_usec;
	void (*expire)(void *arg);
	void *expire_arg;
};

struct db_gate *db_gate_new(void)
{
	struct db_gate *gate = xcalloc(1, sizeof(*gate));
	pthread_condattr_t attributes;

	gate->lease_end_usec = USEC_FOREVER;
	pthread_mutex_init(&gate->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&gate->change, &attributes);
	pthread_condattr_destroy(&attributes);
	return gate;
}

struct db_gate *db_gate_free(struct db_gate *gate)
{
	if (!gate)
		return NULL;
	pthread_cond_destroy(&gate->change);
	pthread_mutex_destroy(&gate->lock);
	free(gate);
	return NULL;
}

void db_gate_on_expiry(struct db_gate *gate, void (*expire)(void *arg), void *arg)
{
	gate->expire = expire;
	gate->expire_arg = arg;
}

static void wait_until(struct db_gate *gate, uint64_t deadline_usec)
{
	struct timespec until = {.tv_sec = (time_t)(deadline_usec / USEC_PER_SEC),
		.tv_nsec = (long)(deadline_usec % USEC_PER_SEC) * 1000};

	if (deadline_usec == USEC_FOREVER)
		pthread_cond_wait(&gate->change, &gate->lock);
	else
		pthread_cond_timedwait(&gate->change, &gate->lock, &until);
}

/* 0 taken, -ETIMEDOUT, or -EAGAIN: the holder's lease has run out. */
static int take(struct db_gate *gate, uint64_t deadline_usec)
{
	SCOPE_LOCK(&gate->lock);
	while (gate->is_taken) {
		uint64_t now = clock_now_usec();
		if (gate->lease_end_usec <= now)
			return -EAGAIN;
		if (deadline_usec <= now)
			return -ETIMEDOUT;
		wait_until(gate, MIN(deadline_usec, gate->lease_end_usec));
	}
	gate->is_taken = true;
	gate->lease_end_usec = USEC_FOREVER;
	return 0;
}

int db_gate_take(struct db_gate *gate, uint64_t deadline_usec)
{
	int r;

	while ((r = take(gate, deadline_usec)) == -EAGAIN)
		gate->expire(gate->expire_arg);
	return r;
}

void db_gate_release(struct db_gate *gate)
{
	SCOPE_LOCK(&gate->lock);
	gate->is_taken = false;
	gate->lease_end_usec = USEC_FOREVER;
	pthread_cond_signal(&gate->change);
}

void db_gate_set_lease(struct db_gate *gate, uint64_t lease_end_usec)
{
	SCOPE_LOCK(&gate->lock);
	gate->lease_end_usec = lease_end_usec;
	pthread_cond_broadcast(&gate->change);
}
