/* SPDX-License-Identifier: Apache-2.0 */
#include "xmlrpc/keeper.h"

#include "base/alloc.h"
#include "base/cancel.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"

#include <assert.h>
#include <sys/socket.h>

/* Deadlines are tens of seconds away and move with each request: looking around now and then costs
 * less than keeping them in order. */
#define SWEEP_USEC (1 * USEC_PER_SEC)

struct kept {
	int fd;
	uint64_t deadline_usec;
	struct kept *next;
	struct kept **prev;
};

struct keeper {
	pthread_mutex_t lock; /* protects the list and its members */
	struct kept *first;

	pthread_t thread;
	struct cancel *stop;
};

static unsigned sweep(struct keeper *keeper)
{
	uint64_t now = clock_now_usec();
	unsigned n = 0;

	SCOPE_LOCK(&keeper->lock);
	for (struct kept *kept = keeper->first; kept; kept = kept->next) {
		if (kept->deadline_usec > now)
			continue;
		shutdown(kept->fd, SHUT_RDWR); /* does not block */
		kept->deadline_usec = USEC_FOREVER;
		n++;
	}
	return n;
}

static void *keeper_main(void *arg)
{
	struct keeper *keeper = arg;

	while (cancel_sleep(keeper->stop, SWEEP_USEC) == 0) {
		unsigned n = sweep(keeper);
		if (n)
			log_info("http_connections_cut", "n=%u reason=too_slow", n);
	}
	return NULL;
}

struct keeper *keeper_start(void)
{
	struct keeper *keeper = xcalloc(1, sizeof(*keeper));

	pthread_mutex_init(&keeper->lock, NULL);
	keeper->stop = cancel_new();
	if (pthread_create(&keeper->thread, NULL, keeper_main, keeper) == 0)
		return keeper;
	cancel_free(keeper->stop);
	pthread_mutex_destroy(&keeper->lock);
	free(keeper);
	return NULL;
}

struct keeper *keeper_stop(struct keeper *keeper)
{
	if (!keeper)
		return NULL;
	cancel_request(keeper->stop, "stop");
	pthread_join(keeper->thread, NULL);
	assert(!keeper->first);
	cancel_free(keeper->stop);
	pthread_mutex_destroy(&keeper->lock);
	free(keeper);
	return NULL;
}

struct kept *keeper_add(struct keeper *keeper, int fd, uint64_t deadline_usec)
{
	struct kept *kept = xcalloc(1, sizeof(*kept));

	kept->fd = fd;
	kept->deadline_usec = deadline_usec;
	kept->prev = &keeper->first;
	SCOPE_LOCK(&keeper->lock);
	kept->next = keeper->first;
	if (kept->next)
		kept->next->prev = &kept->next;
	keeper->first = kept;
	return kept;
}

void keeper_set_deadline(struct keeper *keeper, struct kept *kept, uint64_t deadline_usec)
{
	SCOPE_LOCK(&keeper->lock);
	kept->deadline_usec = deadline_usec;
}

static void unlink_kept(struct keeper *keeper, struct kept *kept)
{
	SCOPE_LOCK(&keeper->lock);
	*kept->prev = kept->next;
	if (kept->next)
		kept->next->prev = kept->prev;
}

void keeper_remove(struct keeper *keeper, struct kept *kept)
{
	unlink_kept(keeper, kept);
	free(kept);
}
