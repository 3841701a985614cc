/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/copy/rate.h"

#include "base/alloc.h"
#include "base/clock.h"

/* The bucket holds what may go in a burst; a request that is larger than what is left drives it
 * into debt, which the next ones wait out. So a request of any size passes, and the average holds.
 */
#define BURST_USEC    (100 * USEC_PER_MSEC)
#define MAX_WAIT_USEC (250 * USEC_PER_MSEC)

struct rate_limit {
	pthread_mutex_t lock; /* protects all below */
	uint64_t bytes_per_sec;
	uint64_t ready_usec; /* the bucket is not in debt from this time on */
};

struct rate_limit *rate_limit_new(uint64_t bytes_per_sec)
{
	struct rate_limit *rate = xcalloc(1, sizeof(*rate));

	pthread_mutex_init(&rate->lock, NULL);
	rate->bytes_per_sec = bytes_per_sec;
	return rate;
}

struct rate_limit *rate_limit_free(struct rate_limit *rate)
{
	if (!rate)
		return NULL;
	pthread_mutex_destroy(&rate->lock);
	free(rate);
	return NULL;
}

static uint64_t scale(uint64_t value, uint64_t multiplier, uint64_t divisor)
{
	unsigned __int128 scaled = (unsigned __int128)value * multiplier / divisor;

	return scaled > USEC_FOREVER ? USEC_FOREVER : (uint64_t)scaled;
}

void rate_limit_set(struct rate_limit *rate, uint64_t bytes_per_sec)
{
	uint64_t now = clock_now_usec();

	SCOPE_LOCK(&rate->lock);
	/* A debt is in bytes: at another rate it takes another time. */
	if (!bytes_per_sec || !rate->bytes_per_sec)
		rate->ready_usec = now;
	else if (rate->ready_usec > now)
		rate->ready_usec = clock_deadline(
			scale(rate->ready_usec - now, rate->bytes_per_sec, bytes_per_sec));
	rate->bytes_per_sec = bytes_per_sec;
}

uint64_t rate_limit_get(struct rate_limit *rate)
{
	SCOPE_LOCK(&rate->lock);
	return rate->bytes_per_sec;
}

uint64_t rate_limit_try(struct rate_limit *rate, uint64_t bytes)
{
	if (!rate)
		return 0;
	uint64_t now = clock_now_usec();
	SCOPE_LOCK(&rate->lock);
	if (!rate->bytes_per_sec)
		return 0;
	if (rate->ready_usec > now)
		return MIN(rate->ready_usec, now + MAX_WAIT_USEC);
	uint64_t start = MAX(rate->ready_usec, now > BURST_USEC ? now - BURST_USEC : 0);
	uint64_t cost = scale(bytes, USEC_PER_SEC, rate->bytes_per_sec);
	rate->ready_usec = cost > USEC_FOREVER - start ? USEC_FOREVER : start + cost;
	return 0;
}

int rate_limit_take(struct rate_limit *rate, uint64_t bytes, struct cancel *cancel)
{
	for (;;) {
		uint64_t again = rate_limit_try(rate, bytes);
		if (!again)
			return 0;
		int r = cancel_poll(cancel, NULL, 0, again);
		if (r < 0)
			return r;
	}
}
